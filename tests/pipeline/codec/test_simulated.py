"""A simulated fleet through the codec: its plain messages all go the fast way, and with every fault the twins agree."""

import numpy as np
import pytest

from pipeline.codec.control import split_controls
from pipeline.codec.records import Records
from pipeline.simulate.faults import FAULTS
from pipeline.simulate.fleet import Fleet, FleetPlan
from tests.pipeline.codec.agreement import assert_twins_agree, share_scanned


def fleet_records(shape: str, faults: dict[str, float]) -> Records:
    plan = FleetPlan(
        charge_points=20, hours=4.0, shape=shape, faults=faults, partitions=2, settle_hours=0, sample_ms=120_000
    )
    batches = [chunk.batch for chunk in Fleet(plan).chunks()]
    values = [value for batch in batches for value in batch.values]
    return split_controls(
        Records(
            values,
            [key for batch in batches for key in batch.keys],
            np.arange(len(values), dtype=np.int64),
            None,
            np.array([time for batch in batches for time in batch.times_ms], np.int64),
        )
    ).data


@pytest.mark.parametrize("shape", ["flat", "ocpp16", "ocpp201"])
def test_a_fleet_without_faults_goes_the_fast_way(shape: str) -> None:
    records = fleet_records(shape, {})
    assert share_scanned(records) == 1
    assert assert_twins_agree(records).dead == []


@pytest.mark.parametrize("shape", ["flat", "ocpp16", "ocpp201"])
def test_twins_agree_on_a_fleet_with_every_fault(shape: str) -> None:
    faults = [name for name, fault in FAULTS.items() if shape in fault.shapes]
    records = fleet_records(shape, dict.fromkeys(faults, 0.9 / len(faults)))
    assert_twins_agree(records)
    assert share_scanned(records) > 0.9

"""The canonical workloads: the same bytes every time, as many readings as said, faults where asked for."""

from collections import Counter
from dataclasses import replace

import msgspec
import pytest

from benchmarks.workload import Workload, batches, documents, energies_mwh, whole_sessions
from rating.tariff import parse_tariff

SMALL = Workload(connectors=24, sweeps=12, minutes=6)


def values(workload: Workload) -> list[bytes]:
    found = [value for batch, _ in batches(workload, 0, workload.sweeps) for value in batch.values]
    return [value for value in found if not value.startswith(b'{"control"')]


@pytest.mark.parametrize("shape", ["flat", "ocpp16", "ocpp201", "arrow"])
def test_the_same_workload_is_the_same_bytes(shape: str) -> None:
    workload = replace(SMALL, shape=shape)
    assert values(workload) == values(workload)
    assert values(workload) != values(replace(workload, seed=2))


def test_every_connector_starts_reads_and_stops() -> None:
    events = Counter(value.count(b'"event":"start"') - value.count(b'"event":"stop"') for value in values(SMALL))
    assert events == {1: 48, -1: 48, 0: SMALL.readings - 96}
    assert SMALL.sessions == 48
    assert len(energies_mwh(SMALL)) == 24


def test_one_reading_in_a_hundred_is_faulty() -> None:
    clean = Workload(connectors=1_000, sweeps=20, minutes=100)
    faulty = values(replace(clean, faulty=True))
    repeated = sum(count - 1 for count in Counter(faulty).values())
    broken = sum(not value.endswith(b"}") for value in faulty)
    comma = sum(b'"energy_wh":"' in value for value in faulty)
    assert 50 < repeated < 110
    assert 15 < broken < 65
    assert 15 < comma < 65


def test_about_so_many_readings_are_whole_sessions() -> None:
    workload = whole_sessions(10_000, connectors=100, minutes=30)
    assert workload.sweeps == 90
    assert whole_sessions(1, connectors=100, minutes=30).sessions == 100


def test_every_site_has_its_tariff() -> None:
    kinds = Counter(one.kind for one in documents(replace(SMALL, own_tariffs=2)))
    assert kinds == {"tariff": 2, "location": 3}


def test_every_own_tariff_is_one_that_ocpi_allows() -> None:
    published = documents(replace(SMALL, connectors=3_200, own_tariffs=320))
    bodies = [msgspec.json.decode(one.body) for one in published if one.kind == "tariff"]
    assert len({parse_tariff(body) for body in bodies}) == 320

"""Where the energy between two registers went is told for every session of a lying fleet, however its log arrives."""

import random
from typing import Literal

import pytest

from pipeline.codec.control import Decision
from tests.pipeline.rate.drive import Drive, Log, control
from tests.pipeline.rate.test_batches import faulty, mixed
from tests.pipeline.rate.totals import accounts, misread

DECIDED_MS = 1_800_000_000_000


def decisions(drive: Drive) -> Log:
    """Of three holds one is released, one rejected and one left."""
    log: Log = {}
    for partition, state in drive.engine.partitions.items():
        keys = sorted(state.held)
        told = [_decision("release", key) for key in keys[::3]] + [_decision("reject", key) for key in keys[1::3]]
        log[partition] = [control(decision, DECIDED_MS) for decision in told]
    return log


def _decision(action: Literal["release", "reject"], key: int) -> Decision:
    return Decision(action, f"{key:016x}", "anna", "", DECIDED_MS)


@pytest.mark.parametrize(("charge_points", "seed", "size", "reach"), [
    (80, 11, 0, 0), (80, 23, 97, 0), (80, 23, 0, 40), (80, 11, 2000, 1_000_000),
])  # fmt: skip
def test_registers_are_accounted_for_to_the_last_mwh(charge_points: int, seed: int, size: int, reach: int) -> None:
    log, published, _ = faulty(charge_points, seed)
    drive = Drive(published, 2).keep_rows().run(mixed(log, random.Random(seed), reach) if reach else log, size)
    assert drive.rows is not None
    told = accounts(drive.rows)
    assert [account for account in told if account.missing] == []
    assert misread(drive.rows) == []
    assert any(account.held for account in told)
    assert any(account.unexplained for account in told)
    drive.take(decisions(drive))
    told = accounts(drive.rows)
    assert [account for account in told if account.missing] == []
    assert any(account.rejected for account in told)

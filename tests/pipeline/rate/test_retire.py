"""Which snapshots go, and that the only one never does."""

import random
from itertools import pairwise

import pytest

from pipeline.ledger import Snapshot, StateAt
from pipeline.rate.retire import KEEPING, Keeping, retire, superfluous
from tests.simulation.ledger import SimulatedLedger
from tests.simulation.store import SimulatedStore


def at(*offsets: int) -> list[StateAt]:
    return [StateAt(1, offset) for offset in offsets]


@pytest.fixture
def ledger() -> SimulatedLedger:
    return SimulatedLedger(SimulatedStore(lambda _seconds, event: event()), 1)


def stored(ledger: SimulatedLedger, offset: int, claim: int = 1, payload: bytes = b"state") -> Snapshot:
    snapshot = Snapshot(0, claim, offset, "v", 1, payload, 0)
    ledger.add_snapshot(snapshot)
    return snapshot


def test_few_are_all_kept() -> None:
    assert superfluous(at(30, 20, 10), 3) == []
    assert superfluous(at(9), 3) == []


@pytest.mark.parametrize("seed", range(20))
def test_of_a_long_log_few_are_kept_and_some_at_every_distance(seed: int) -> None:
    dice = random.Random(seed)
    kept: list[StateAt] = []
    offset = 0
    for _ in range(5_000):
        offset += dice.randint(1, 100_000)
        kept = [StateAt(1, offset), *kept]
        gone = superfluous(kept, KEEPING.newest)
        kept = [one for one in kept if one not in gone]
        assert kept[0].last_offset == offset
    assert len(kept) < 20
    distances = [offset - one.last_offset for one in kept[KEEPING.newest :]]
    assert max(distances) > offset // 16, "the oldest is far back"
    assert all(further <= 64 * nearer for nearer, further in pairwise(distances))


def test_older_ones_go_when_the_newest_was_read_back(ledger: SimulatedLedger) -> None:
    claim = ledger.take([0], "a", 0)[0].claim
    for offset in range(0, 40, 10):
        newest = stored(ledger, offset)
    retire(ledger, newest, claim, Keeping(1, 1))
    assert ledger.snapshots(0, 100) == at(30, 0)


def test_nothing_goes_when_the_newest_is_not_what_was_stored(ledger: SimulatedLedger) -> None:
    claim = ledger.take([0], "a", 0)[0].claim
    for offset in range(0, 40, 10):
        newest = stored(ledger, offset)
    torn = Snapshot(0, 1, 30, "v", 1, b"st", 0)
    retire(ledger, torn, claim, Keeping(1, 1))
    retire(ledger, Snapshot(0, 1, 50, "v", 1, b"not there", 0), claim, Keeping(1, 1))
    assert ledger.snapshots(0, 100) == at(30, 20, 10, 0)
    assert ledger.snapshot(0, 100) == newest


def test_who_lost_the_partition_drops_nothing(ledger: SimulatedLedger) -> None:
    claim = ledger.take([0], "a", 0)[0].claim
    for offset in range(0, 40, 10):
        newest = stored(ledger, offset)
    ledger.take([0], "b", 0)
    retire(ledger, newest, claim, Keeping(1, 1))
    assert len(ledger.snapshots(0, 100)) == 4

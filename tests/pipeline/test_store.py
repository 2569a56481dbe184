import time
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.clickhouse import Store
from pipeline.errors import FencedError, IntegrityError
from pipeline.settings import Settings
from pipeline.store import CDRS, DEAD_LETTERS, RATED_USAGE, Claim, Ledger, Marker, Snapshot, Span

LOG = (1 << 64) - 5  # ids use all 64 bits


@pytest.fixture
def ledger(ready: Settings) -> Iterator[Ledger]:
    with Store(ready) as store:
        yield Ledger(store, LOG)


def usage(offsets: list[int], claim: int = 1, partition: int = 0, cost: int = -(1 << 61)) -> pa.Table:
    rows = len(offsets)
    return pa.table(
        {
            "log_id": pa.array([LOG] * rows, pa.uint64()),
            "partition": pa.array([partition] * rows, pa.uint16()),
            "offset": pa.array(offsets, pa.uint64()),
            "line": pa.array([0] * rows, pa.uint64()),
            "claim": pa.array([claim] * rows, pa.uint32()),
            "charge_point_id": pa.array(["CP1"] * rows),
            "session_key": pa.array([7] * rows, pa.uint64()),
            "start": pa.array([1_700_000_000_000] * rows, pa.timestamp("ms", "UTC")),
            "end": pa.array([1_700_000_060_000] * rows, pa.timestamp("ms", "UTC")),
            "dimension": pa.array([1] * rows, pa.int8()),
            "quantity": pa.array([5] * rows, pa.int64()),
            "cost": pa.array([cost] * rows, pa.int64()),
        }
    )


def marker(first: int, last: int, claim: int = 1, partition: int = 0) -> Marker:
    zero = dict.fromkeys(("control", "duplicate", "quarantined", "dead_lettered", "cdrs", "alerts", "quarantine"), 0)
    count = last - first + 1
    return Marker(
        partition, claim, first, last, records=count, used=count, readings=count, rated=count, energy_mwh=-3, cost=4,
        checksum=LOG, log_time=1_700_000_000_123, reference_version=2, code_version="1", written_at=1_800_000_000_456,
        **zero,
    )  # fmt: skip


def test_rows_count_only_under_a_marker_of_their_claim(ledger: Ledger) -> None:
    ledger.claim({0: 0}, "a", 1)
    ledger.insert(RATED_USAGE, usage([0, 1, 2, 3, 4]))
    assert ledger.store.scalar("SELECT count() FROM rated_usage") == 0
    ledger.add_markers([marker(0, 2)])
    assert ledger.store.scalar("SELECT count() FROM rated_usage") == 3


def test_a_marker_behind_the_next_claim_counts_for_nobody(ledger: Ledger) -> None:
    # given a worker that lost its partition at offset 3, when its late marker lands, then readers don't see its rows
    ledger.claim({0: 0}, "a", 1)
    ledger.add_markers([marker(0, 2)])
    ledger.insert(RATED_USAGE, usage([0, 1, 2]))
    ledger.claim({0: 3}, "b", 2)
    ledger.insert(RATED_USAGE, usage([3, 4]))
    ledger.add_markers([marker(3, 4)])
    assert ledger.store.scalar("SELECT groupArray(offset) FROM rated_usage") == [0, 1, 2]
    ledger.insert(RATED_USAGE, usage([3, 4, 5], claim=2))
    ledger.add_markers([marker(3, 5, claim=2)])
    assert ledger.store.scalar("SELECT arraySort(groupArray((offset, claim))) FROM rated_usage") == [
        (0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2),
    ]  # fmt: skip
    assert ledger.covered_ends() == {0: 6}


def test_a_row_that_went_in_twice_counts_once(ledger: Ledger) -> None:
    rows = usage([0, 1])
    ledger.insert(RATED_USAGE, rows)
    ledger.insert(RATED_USAGE, rows)
    ledger.read_back({RATED_USAGE: rows}, [Span(0, 1, 0, 1)])


def test_read_back_sees_a_missing_a_changed_and_a_surplus_row(ledger: Ledger) -> None:
    span = [Span(0, 1, 0, 9)]
    ledger.insert(RATED_USAGE, usage([0, 1]))
    for claimed in (usage([0, 1, 2]), usage([0]), usage([0, 1], cost=9), usage([0, 2])):
        with pytest.raises(IntegrityError, match="rated_usage_rows of partition 0"):
            ledger.read_back({RATED_USAGE: claimed}, span)
    with pytest.raises(IntegrityError):
        ledger.read_back({RATED_USAGE: usage([])}, span)


def test_read_back_of_several_tables_and_partitions_is_one_question(ledger: Ledger) -> None:
    rows = pa.concat_tables([usage([0, 1]), usage([5], claim=4, partition=3)])
    ledger.insert(RATED_USAGE, rows)
    empty = {CDRS: usage([]), DEAD_LETTERS: usage([])}
    ledger.read_back({RATED_USAGE: rows, **empty}, [Span(0, 1, 0, 1), Span(3, 4, 5, 5)])


def test_markers_come_back_as_they_went_in(ledger: Ledger) -> None:
    ledger.claim({0: 0, 3: 10}, "a", 1)
    wanted = [marker(0, 4), marker(5, 5)]
    ledger.add_markers([*wanted, marker(10, 11, partition=3)])
    ledger.add_markers(wanted)
    assert ledger.markers(0) == wanted
    assert ledger.markers(0, from_offset=5) == wanted[1:]
    assert ledger.complete_up_to(2) == 1_700_000_000_123
    assert ledger.complete_up_to(3) is None


def test_a_tiling_ends_at_the_first_hole_and_an_overlap_halts(ledger: Ledger) -> None:
    ledger.claim({0: 0}, "a", 1)
    ledger.add_markers([marker(0, 4), marker(5, 9), marker(11, 12)])
    assert [m.last_offset for m in ledger.tiling(0)] == [4, 9]
    ledger.add_markers([marker(9, 10)])
    with pytest.raises(IntegrityError, match="overlap at offset 9"):
        ledger.tiling(0)


def test_the_lower_member_wins_a_tied_claim(ledger: Ledger) -> None:
    ledger.claim({0: 0}, "b", 1)
    rival = replace(ledger.highest_claims([0])[0], member="a")
    columns = {"partition": [0], "claim": [1], "first_offset": [0], "member": ["a"]}
    ledger.store.insert("claim_rows", pa.table({"log_id": pa.array([LOG], pa.uint64()), **columns}))
    assert ledger.highest_claims([0]) == {0: rival}
    with pytest.raises(FencedError, match="belongs to a with claim 1"):
        ledger.check_claims([replace(rival, member="b")])


def test_the_next_claim_takes_over_and_the_old_one_is_told(ledger: Ledger) -> None:
    [old] = ledger.claim({0: 0}, "a", 1)
    [new] = ledger.claim({0: 7}, "b", 2)
    assert new == Claim(0, 2, 7, "b")
    ledger.check_claims([new])
    with pytest.raises(FencedError):
        ledger.check_claims([old])
    with pytest.raises(FencedError, match="belongs to nobody"):
        ledger.check_claims([Claim(9, 1, 0, "a")])


def test_snapshots_are_found_newest_first_and_hold_any_bytes(ledger: Ledger) -> None:
    payload, now = bytes(range(256)) * 1000, int(time.time() * 1000)  # old ones are deleted after 30 days
    for offset in (10, 20):
        ledger.add_snapshot(Snapshot(0, 1, offset, "v", LOG, payload + bytes([offset]), now))
    newest = ledger.snapshot(0, not_beyond=100)
    assert newest == Snapshot(0, 1, 20, "v", LOG, payload + b"\x14", now)
    older = ledger.snapshot(0, not_beyond=100, skip=1)
    assert older is not None and older.last_offset == 10
    assert ledger.snapshot(0, not_beyond=9) is None


def test_published_offsets(ledger: Ledger) -> None:
    ledger.add_published({0: (1, 5), 2: (1, 8)}, 1)
    ledger.add_published({0: (2, 9)}, 2)
    assert ledger.published([0, 1, 2]) == {0: 9, 2: 8}


def test_another_log_is_another_ledger(ledger: Ledger) -> None:
    ledger.claim({0: 0}, "a", 1)
    ledger.add_markers([marker(0, 4)])
    other = Ledger(ledger.store, 1)
    assert other.markers(0) == [] and other.highest_claims([0]) == {} and other.covered_ends() == {}

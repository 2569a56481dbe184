"""What the commit protocol may count on: one suite for ClickHouse and for the store of the simulation."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.clickhouse import Store
from pipeline.errors import FencedError, IntegrityError, StoreUnavailableError
from pipeline.ledger import CDRS, DEAD_LETTERS, RATED_USAGE, Claim, Ledger, Marker, Snapshot, Span, StateAt
from pipeline.settings import Settings
from pipeline.tiling import UNBOUNDED, Extent
from tests.contract.benches import JULY, LOG, Bench, SimulatedBench, marker, real_bench, usage

NOW = int(time.time() * 1000)  # old snapshots are deleted after 30 days


@pytest.fixture(params=["clickhouse", "simulated"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "simulated":
        yield SimulatedBench()
        return
    server: Settings = request.getfixturevalue("store_server")
    direct: Store = request.getfixturevalue("direct")
    with real_bench(server, direct) as real:
        yield real


@pytest.fixture
def ledger(bench: Bench) -> Ledger:
    return bench.ledger


def take(ledger: Ledger, member: str, partition: int = 0) -> Claim:
    return ledger.take([partition], member, NOW)[partition].claim


def claim_row(claim: int, member: str, first: int, previous: int) -> pa.Table:
    """A claim as it lands, whenever that is."""
    kinds: dict[str, tuple[Any, pa.DataType]] = {
        "log_id": (LOG, pa.uint64()), "partition": (0, pa.uint16()), "claim": (claim, pa.uint32()),
        "first_offset": (first, pa.uint64()), "member": (member, pa.string()), "previous": (previous, pa.uint32()),
        "claimed_at": (NOW, pa.timestamp("ms", "UTC")),
    }  # fmt: skip
    return pa.table({name: pa.array([value], kind) for name, (value, kind) in kinds.items()})


def intent_row(claim: int, member: str) -> pa.Table:
    whole = claim_row(claim, member, 0, 0).drop_columns(["first_offset", "previous"])
    return whole.rename_columns([{"claimed_at": "intended_at"}.get(name, name) for name in whole.column_names])


def shown(ledger: Ledger, last: int = 1_000) -> list[tuple[int, int]]:
    rows = ledger.covered_rows(RATED_USAGE, 0, 0, last)
    return [(row["offset"], row["claim"]) for row in rows.to_pylist()]


def markers(ledger: Ledger) -> list[Marker]:
    return ledger.markers([0])


# what counts


def test_rows_count_only_under_a_marker_of_their_claim(ledger: Ledger) -> None:
    take(ledger, "a")
    ledger.insert(RATED_USAGE, usage([0, 1, 2, 3, 4]))
    assert shown(ledger) == []
    ledger.add_markers([marker(0, 2)])
    assert shown(ledger) == [(0, 1), (1, 1), (2, 1)]


def test_a_marker_behind_the_next_claim_counts_for_nobody(ledger: Ledger) -> None:
    # given a worker that lost its partition at offset 3, when its late marker lands, then readers don't see its rows
    take(ledger, "a")
    ledger.add_markers([marker(0, 2)])
    ledger.insert(RATED_USAGE, usage([0, 1, 2]))
    assert take(ledger, "b") == Claim(0, 2, 3, "b")
    ledger.insert(RATED_USAGE, usage([3, 4]))
    ledger.add_markers([marker(3, 4)])
    assert shown(ledger) == [(0, 1), (1, 1), (2, 1)]
    ledger.insert(RATED_USAGE, usage([3, 4, 5], claim=2))
    ledger.add_markers([marker(3, 5, claim=2)])
    assert shown(ledger) == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]


def test_rows_come_in_the_order_of_their_identity_and_only_those_asked_for(ledger: Ledger) -> None:
    take(ledger, "a")
    ledger.insert(RATED_USAGE, usage([4, 0, 2]))
    ledger.insert(RATED_USAGE, usage([3, 1], at=JULY))
    ledger.add_markers([marker(0, 4)])
    assert [offset for offset, _ in shown(ledger, last=3)] == [0, 1, 2, 3]


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


# markers


def test_markers_come_back_as_they_went_in(ledger: Ledger) -> None:
    ledger.take([0, 3], "a", NOW)
    wanted = [marker(0, 4), marker(5, 5)]
    ledger.add_markers([*wanted, marker(10, 11, partition=3)])
    ledger.add_markers(wanted)
    assert markers(ledger) == wanted
    assert ledger.markers([0, 3, 5]) == [*wanted, marker(10, 11, partition=3)]


def test_the_newest_reference_version_is_that_of_any_marker(ledger: Ledger) -> None:
    assert ledger.newest_reference() == 0
    ledger.add_markers([replace(marker(0, 4), reference_version=3), replace(marker(5, 9), reference_version=2)])
    assert ledger.newest_reference() == 3


def test_a_tiling_ends_at_the_first_hole_and_an_overlap_halts(ledger: Ledger) -> None:
    take(ledger, "a")
    ledger.add_markers([marker(0, 4), marker(5, 9), marker(11, 12)])
    assert [m.last_offset for m in ledger.tilings([0, 1])[0]] == [4, 9]
    ledger.add_markers([marker(9, 10)])
    with pytest.raises(IntegrityError, match="overlap at offset 9"):
        ledger.tilings([0])


def ends(ledger: Ledger, partitions: list[int]) -> dict[int, int]:
    """Told from sums; it must be what the markers themselves say."""
    told = ledger.tiled_ends(ledger.extents(partitions))
    read = {p: tiles[-1].last_offset + 1 if tiles else 0 for p, tiles in ledger.tilings(partitions).items()}
    assert told == read
    return told


def test_how_far_markers_tile_is_told_from_their_sums(ledger: Ledger) -> None:
    take(ledger, "a")
    ledger.add_markers([marker(first, first + 4) for first in range(0, 1000, 5)])
    assert ends(ledger, [0, 3]) == {0: 1000, 3: 0}
    ledger.add_markers([marker(1000, 1001), marker(1002, 1002)])
    assert ends(ledger, [0, 3]) == {0: 1003, 3: 0}


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_hole_is_seen_however_old_it_is_and_whatever_went_in_twice(ledger: Ledger, missing: int) -> None:
    # given markers of which one is not there, and others of the same length twice, as after a lost answer
    take(ledger, "a")
    tiles = [marker(first, first + 4) for first in range(0, 30, 5)]
    ledger.add_markers([one for at, one in enumerate(tiles) if at != missing])
    ledger.add_markers([tiles[missing - 1]])
    assert ends(ledger, [0]) == {0: 5 * missing}
    ledger.add_markers([tiles[missing + 1]])
    assert ends(ledger, [0]) == {0: 5 * missing}
    # when the next worker goes on from there, and the old one's later markers lie behind its claim
    assert take(ledger, "b").first_offset == 5 * missing
    ledger.add_markers([marker(5 * missing, 5 * missing + 7, claim=2)])
    assert ends(ledger, [0]) == {0: 5 * missing + 8}


def test_a_lost_first_marker_is_a_hole_too(ledger: Ledger) -> None:
    take(ledger, "a")
    ledger.add_markers([marker(5, 9), marker(10, 14)])
    assert take(ledger, "b").first_offset == 0


def test_a_repeated_marker_alone_changes_nothing(ledger: Ledger) -> None:
    take(ledger, "a")
    ledger.add_markers([marker(0, 4), marker(5, 9)])
    ledger.add_markers([marker(5, 9)])
    assert ends(ledger, [0]) == {0: 10}


# claims


def test_the_next_claim_takes_over_and_the_old_one_is_told(ledger: Ledger) -> None:
    old = take(ledger, "a")
    ledger.add_markers([marker(0, 6)])
    new = ledger.take([0], "b", NOW)[0]
    assert new.claim == Claim(0, 2, 7, "b") and new.before == [Extent(1, 0, UNBOUNDED)]
    assert ledger.markers_within(new.spans(0)) == [marker(0, 6)] and ledger.markers_within(new.spans(1)) == []
    ledger.check_claims([new.claim])
    with pytest.raises(FencedError, match="belongs to b with claim 2"):
        ledger.check_claims([old])
    with pytest.raises(FencedError, match="belongs to nobody"):
        ledger.check_claims([Claim(9, 1, 0, "a")])


def test_who_only_asks_for_a_partition_fences_whoever_has_it(ledger: Ledger) -> None:
    # given an intent whose claim never comes, then the old writer must not confirm what it marks after it
    old = take(ledger, "a")
    ledger.insert("claim_intent_rows", intent_row(2, "dead"))
    with pytest.raises(FencedError, match="belongs to dead with claim 2"):
        ledger.check_claims([old])
    assert take(ledger, "a").claim == 3


def test_two_who_meet_at_one_number_both_let_it_be(ledger: Ledger) -> None:
    # given a rival that asked for the same number at the same moment, then neither has it
    mine = take(ledger, "b")
    ledger.insert("claim_intent_rows", intent_row(1, "a"))
    with pytest.raises(FencedError, match="belongs to a and b with claim 1"):
        ledger.check_claims([mine])
    assert take(ledger, "b").claim == 3, "b was the second of two: it lets one number go by"


def test_a_claim_that_lands_after_others_went_on_without_it_counts_for_nobody(ledger: Ledger) -> None:
    # given a claim 2 that was given up, and a claim 3 that went on from claim 1 at offset 7
    take(ledger, "a")
    ledger.insert(RATED_USAGE, usage([0, 6]))
    ledger.add_markers([marker(0, 6)])
    ledger.insert("claim_intent_rows", intent_row(2, "lost"))
    third = take(ledger, "c")
    ledger.insert(RATED_USAGE, usage([7, 8], claim=3))
    ledger.add_markers([marker(7, 8, claim=3)])
    before = shown(ledger)
    # when claim 2 lands at last, from an offset that it read long ago
    ledger.insert("claim_rows", claim_row(2, "lost", 4, 1))
    # then nothing that counts goes away
    assert third == Claim(0, 3, 7, "c")
    assert shown(ledger) == before == [(0, 1), (6, 1), (7, 3), (8, 3)]
    assert [m.last_offset for m in ledger.tilings([0])[0]] == [6, 8]
    ledger.check_claims([third])


def test_a_claim_that_does_not_say_what_stood_before_it_follows_the_next_lower_one(ledger: Ledger) -> None:
    for claim, member, first in ((1, "a", 0), (3, "b", 7)):
        ledger.insert("claim_rows", claim_row(claim, member, first, (1 << 32) - 1))
    ledger.add_markers([marker(0, 6), marker(7, 9), marker(7, 8, claim=3)])
    assert markers(ledger) == [marker(0, 6), marker(7, 8, claim=3)]


# faults


def test_an_answer_lost_after_the_rows_landed_is_an_outage_and_a_retry_is_harmless(bench: Bench) -> None:
    rows = usage([0, 1, 2])
    with bench.lost_answer(), pytest.raises(StoreUnavailableError):
        bench.ledger.insert(RATED_USAGE, rows)
    assert bench.stored(RATED_USAGE) == [0, 1, 2], "they are there, and nobody was told"
    bench.ledger.insert(RATED_USAGE, rows)
    bench.ledger.read_back({RATED_USAGE: rows}, [Span(0, 1, 0, 9)])


def test_an_insert_that_lands_late_is_seen_by_the_read_back_that_follows(bench: Bench) -> None:
    # given an insert that was given up, when the same offsets are driven again with other rows, the difference is told
    late = usage([1, 2, 3])
    with bench.late(), pytest.raises(StoreUnavailableError):
        bench.ledger.insert(RATED_USAGE, late)
    assert bench.stored(RATED_USAGE) == [1, 2, 3]
    bench.ledger.insert(RATED_USAGE, usage([1, 2]))
    with pytest.raises(IntegrityError):
        bench.ledger.read_back({RATED_USAGE: usage([1, 2])}, [Span(0, 1, 0, 9)])
    bench.ledger.read_back({RATED_USAGE: late}, [Span(0, 1, 0, 9)])


def test_of_an_insert_into_two_table_partitions_one_may_land_alone_and_be_acknowledged(bench: Bench) -> None:
    bench.ledger.insert(RATED_USAGE, usage([0]))
    rows = pa.concat_tables([usage([1, 2]), usage([3], at=JULY)])
    with bench.partial(RATED_USAGE):
        bench.ledger.insert(RATED_USAGE, rows)
    assert bench.stored(RATED_USAGE) == [0, 1, 2]
    with pytest.raises(IntegrityError):
        bench.ledger.read_back({RATED_USAGE: rows}, [Span(0, 1, 1, 3)])
    bench.ledger.insert(RATED_USAGE, rows)
    bench.ledger.read_back({RATED_USAGE: rows}, [Span(0, 1, 1, 3)])
    assert bench.stored(RATED_USAGE) == [0, 1, 1, 2, 2, 3]


def test_a_marker_whose_answer_was_lost_may_be_written_again(bench: Bench) -> None:
    claim = take(bench.ledger, "a")
    with bench.lost_answer(), pytest.raises(StoreUnavailableError):
        bench.ledger.add_markers([marker(0, 4)])
    bench.ledger.add_markers([marker(0, 4)])
    assert markers(bench.ledger) == [marker(0, 4)]
    bench.ledger.check_claims([claim])


def test_a_claim_whose_answer_was_lost_is_followed_by_a_higher_one(bench: Bench) -> None:
    with bench.lost_answer(), pytest.raises(StoreUnavailableError):
        take(bench.ledger, "a")
    claim = take(bench.ledger, "a")
    bench.ledger.check_claims([claim])
    assert bench.ledger.highest_claims([0]) == {0: claim}


def test_an_outage_is_told_whatever_is_asked(bench: Bench) -> None:
    claim = take(bench.ledger, "a")
    with bench.down():
        for ask in (
            lambda: bench.ledger.insert(RATED_USAGE, usage([1])), lambda: bench.ledger.check_claims([claim]),
            lambda: bench.ledger.take([0], "b", NOW), lambda: bench.ledger.snapshot(0, 9),
            lambda: bench.ledger.covered_rows(RATED_USAGE, 0, 0, 9), lambda: bench.ledger.published([0]),
        ):  # fmt: skip
            with pytest.raises(StoreUnavailableError):
                ask()
    assert bench.stored(RATED_USAGE) == []
    bench.ledger.check_claims([claim])


# published, snapshots


def test_snapshots_are_found_newest_first_and_hold_any_bytes(ledger: Ledger) -> None:
    payload = bytes(range(256)) * 1000
    for offset in (10, 20):
        ledger.add_snapshot(Snapshot(0, 1, offset, "v", LOG, payload + bytes([offset]), NOW))
    newest = ledger.snapshot(0, not_beyond=100)
    assert newest == Snapshot(0, 1, 20, "v", LOG, payload + b"\x14", NOW)
    older = ledger.snapshot(0, not_beyond=100, skip=1)
    assert older is not None and older.last_offset == 10
    assert ledger.snapshot(0, not_beyond=9) is None


def test_snapshots_are_dropped_by_name(bench: Bench) -> None:
    ledger = bench.ledger
    for claim, offset in ((1, 10), (1, 20), (2, 20), (2, 30)):
        ledger.add_snapshot(Snapshot(0, claim, offset, "v", LOG, b"state", NOW))
    ledger.add_snapshot(Snapshot(0, 2, 30, "v", LOG, b"state", NOW))  # as after a lost answer
    ledger.add_snapshot(Snapshot(1, 1, 10, "v", LOG, b"state", NOW))
    standing = [StateAt(2, 30), StateAt(2, 20), StateAt(1, 20), StateAt(1, 10)]
    assert ledger.snapshots(0, 30) == standing and ledger.snapshots(0, 29) == standing[1:]
    for _ in range(2):  # again is no error
        ledger.drop_snapshots(0, [StateAt(1, 20), StateAt(2, 30)])
        assert ledger.snapshots(0, 30) == [StateAt(2, 20), StateAt(1, 10)]
    newest = ledger.snapshot(0, 30)
    assert newest is not None and (newest.claim, newest.last_offset) == (2, 20)
    assert ledger.snapshots(1, 30) == [StateAt(1, 10)]
    with bench.down(), pytest.raises(StoreUnavailableError):
        ledger.drop_snapshots(0, [StateAt(1, 10)])


def test_published_offsets_only_grow(ledger: Ledger) -> None:
    ledger.add_published({0: (1, 5), 2: (1, 8)}, NOW)
    ledger.add_published({0: (2, 9)}, NOW)
    ledger.add_published({0: (2, 7)}, NOW)
    assert ledger.published([0, 1, 2]) == {0: 9, 2: 8}

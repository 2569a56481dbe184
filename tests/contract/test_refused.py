"""What a store refuses: which rows, which notes, and when none; one suite for ClickHouse and the simulated store."""

import pyarrow as pa
import pytest

from pipeline.clickhouse import Store
from pipeline.errors import FencedError, RefusedRowsError, StoreRefusedError, StoreUnavailableError
from pipeline.ledger import DEAD_LETTERS, NOTED, RATED_USAGE, Claim, Ledger, Refusal, Span
from pipeline.rate.isolate import MONTH_OF, Refused, insert
from pipeline.rate.refusals import adopt, in_force, note
from pipeline.store import StoreLedger
from tests.contract.benches import JUNE, LOG, Bench, SimulatedBench, usage
from tests.contract.test_ledger import NOW, bench, ledger, take
from tests.simulation.store import LAYOUTS

__all__ = ["bench", "ledger"]
BAD = 1_000
MONTH_MS = 31 * 86_400_000


def mixed(bad: set[int], count: int, first: int = 0) -> pa.Table:
    """Rows of which those at the offsets `bad` are refused."""
    rows = [usage([o], cost=BAD if o in bad else 1) for o in range(first, first + count)]
    return pa.concat_tables(rows).combine_chunks()


def offsets(refused: list[Refused]) -> list[int]:
    return [one.offset for one in refused]


# rows


def test_the_months_that_split_an_insert_are_those_of_the_tables() -> None:
    assert {table: LAYOUTS[table].partition_by for table in MONTH_OF} == MONTH_OF


@pytest.mark.parametrize("kind", ["clickhouse", "simulated"])
def test_an_insert_over_more_months_than_fit_goes_in_whole(kind: str, request: pytest.FixtureRequest) -> None:
    real = kind == "clickhouse"  # with its own patience: so many parts take a moment
    ledger = StoreLedger(request.getfixturevalue("direct"), LOG) if real else SimulatedBench().ledger
    rows = pa.concat_tables([usage([n], at=JUNE - (n * 76 % 105) * MONTH_MS) for n in range(105)])
    with pytest.raises(StoreRefusedError, match="Too many partitions"):
        ledger.insert(RATED_USAGE, rows)
    assert insert(ledger, RATED_USAGE, rows) == []
    ledger.read_back({RATED_USAGE: rows}, [Span(0, 1, 0, 104)])


def test_only_the_refused_rows_stay_out(bench: Bench) -> None:
    rows = mixed({0, 17, 18, 63}, 64)
    with bench.refusing(BAD):
        refused = insert(bench.ledger, RATED_USAGE, rows)
    assert offsets(refused) == [0, 17, 18, 63]
    assert {(one.table, one.partition, one.error.code) for one in refused} == {(RATED_USAGE, 0, 469)}
    assert sorted(set(bench.stored(RATED_USAGE))) == [o for o in range(64) if o not in (0, 17, 18, 63)]
    good = pa.concat_tables([rows.slice(1, 16), rows.slice(19, 44)])
    bench.ledger.read_back({RATED_USAGE: good}, [Span(0, 1, 0, 63)])


def test_a_row_alone_is_held_against_one_that_the_table_has(bench: Bench) -> None:
    with bench.refusing(BAD):
        with pytest.raises(StoreRefusedError, match=r"no row yet .* nothing is dead-lettered"):
            insert(bench.ledger, RATED_USAGE, mixed({5}, 1, first=5))
        insert(bench.ledger, RATED_USAGE, usage([1], cost=1))
        assert offsets(insert(bench.ledger, RATED_USAGE, mixed({5}, 1, first=5))) == [5]
    bench.ledger.read_back({RATED_USAGE: usage([1], cost=1)}, [Span(0, 1, 0, 9)])


def test_a_table_that_refuses_everything_is_broken_and_no_record_is(bench: Bench) -> None:
    bench.ledger.insert(RATED_USAGE, usage([0], cost=1))
    with bench.refusing(0):
        for count in (1, 2, 9):
            with pytest.raises(StoreRefusedError, match="nothing is dead-lettered"):
                insert(bench.ledger, RATED_USAGE, mixed(set(), count, first=1))
    assert bench.stored(RATED_USAGE) == [0]


def test_more_than_a_hundred_refused_rows_of_one_insert_are_no_poison() -> None:
    bench = SimulatedBench()
    with bench.refusing(BAD), pytest.raises(StoreRefusedError, match=r"more than 100 rows .* nothing is dead-lettered"):
        insert(bench.ledger, RATED_USAGE, mixed(set(range(0, 202, 2)), 202))


def test_what_is_no_fault_of_a_row_is_raised_as_it_is(bench: Bench) -> None:
    with bench.down(), pytest.raises(StoreUnavailableError):
        insert(bench.ledger, RATED_USAGE, usage([1, 2]))
    assert bench.stored(RATED_USAGE) == []


def test_a_dead_letter_that_is_refused_has_nowhere_else_to_go(direct: Store) -> None:
    direct.command(f"ALTER TABLE {DEAD_LETTERS} ADD CONSTRAINT kind CHECK reason != 'odd'")
    names = ["log_id", "partition", "offset", "line", "claim"]
    rows = usage([1, 2]).select(names).append_column("reason", pa.array(["odd", "bad_json"]))
    with pytest.raises(StoreRefusedError, match="violated"):
        insert(StoreLedger(direct, LOG), DEAD_LETTERS, rows)
    assert direct.scalar(f"SELECT count() FROM {DEAD_LETTERS}") == 0


# notes


def refusal(offset: int, partition: int = 0) -> Refused:
    return Refused(RATED_USAGE, partition, offset, StoreRefusedError("no", 469))


def noted(ledger: Ledger, offsets: list[int], claim: Claim) -> None:
    with pytest.raises(RefusedRowsError, match=f"{len(offsets)} records alone, the first at partition 0 offset"):
        note(ledger, [refusal(o) for o in offsets], usage(offsets), {0: claim}, NOW)


def test_a_note_is_in_force_under_the_claim_that_adopts_it_and_under_no_other(ledger: Ledger) -> None:
    first = take(ledger, "a")
    noted(ledger, [7, 9], first)
    assert in_force(ledger, [0]) == {0: {}}, "whoever notes a record never rates by the note"
    assert adopt(ledger, {0: Claim(0, 2, 8, "b")}, NOW) == {0: {2: {9: "no"}}}, "offset 7 counts already"
    noted(ledger, [12], take(ledger, "b"))
    both = {2: {9: "no"}, 3: {9: "no", 12: "no"}}
    assert adopt(ledger, {0: Claim(0, 3, 8, "c")}, NOW) == {0: both} == in_force(ledger, [0])
    assert in_force(ledger, [1]) == {1: {}}


def test_a_note_that_was_written_twice_is_one(ledger: Ledger) -> None:
    for words in ("b", "a"):
        ledger.add_refusals([Refusal(0, NOTED, 4, 469, words)], NOW)
    assert ledger.refusals([0, 1]) == [Refusal(0, NOTED, 4, 469, "a")]


def test_a_note_whose_answer_was_lost_is_written_again(bench: Bench) -> None:
    one = Refusal(0, 3, 4, 469, "a")
    with bench.lost_answer(), pytest.raises(StoreUnavailableError):
        bench.ledger.add_refusals([one], NOW)
    bench.ledger.add_refusals([one], NOW)
    assert bench.ledger.refusals([0]) == [one]


def test_a_writer_that_lost_its_claim_notes_nothing(ledger: Ledger) -> None:
    old = take(ledger, "a")
    take(ledger, "b")
    with pytest.raises(FencedError):
        note(ledger, [refusal(7)], usage([7]), {0: old}, NOW)
    assert ledger.refusals([0]) == []


def test_a_control_record_is_never_left_out(ledger: Ledger) -> None:
    claim = take(ledger, "a")
    with pytest.raises(StoreRefusedError, match="offset 8 is a control record"):
        note(ledger, [refusal(7), refusal(8)], usage([6, 7]), {0: claim}, NOW)
    assert ledger.refusals([0]) == []


def test_a_table_that_refuses_a_few_at_a_time_is_broken_too(ledger: Ledger) -> None:
    claim = take(ledger, "a")
    noted(ledger, list(range(0, 6_000, 100)), claim)
    noted(ledger, list(range(6_000, 10_000, 100)), claim)
    with pytest.raises(StoreRefusedError, match="up to offset 9950 the store refuses 101, more than 100"):
        note(ledger, [refusal(9_950)], usage([9_950]), {0: claim}, NOW)
    noted(ledger, [10_001], claim)

import time
from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipeline.clickhouse import Store
from pipeline.errors import IntegrityError
from pipeline.ledger import RATED_USAGE, Snapshot, Span, StateAt
from pipeline.settings import Settings
from pipeline.store import StoreLedger, drop_statement
from tests.contract.benches import JULY, LOG, marker, usage


@pytest.fixture
def ledger(ready: Settings) -> Iterator[StoreLedger]:
    with Store(ready) as store:
        yield StoreLedger(store, LOG)


def test_everyone_reads_through_the_views_and_their_bounds(ledger: StoreLedger) -> None:
    ledger.take([0], "a", 1)
    ledger.insert(RATED_USAGE, usage([0, 1, 2, 3, 4]))
    assert ledger.store.scalar("SELECT count() FROM rated_usage") == 0
    ledger.add_markers([marker(0, 2)])
    assert ledger.store.scalar("SELECT count() FROM rated_usage") == 3
    assert ledger.covered_ends() == {0: 3}


def test_everything_is_complete_up_to_the_slowest_partition_and_unknown_while_one_has_nothing(
    ledger: StoreLedger,
) -> None:
    ledger.take([0, 3], "a", 1)
    ledger.add_markers([marker(0, 4), marker(10, 11, partition=3)])
    assert ledger.complete_up_to(2) == 1_700_000_000_123
    assert ledger.complete_up_to(3) is None


def test_another_log_is_another_ledger(ledger: StoreLedger) -> None:
    ledger.take([0], "a", 1)
    ledger.add_markers([marker(0, 4)])
    other = StoreLedger(ledger.store, 1)
    assert other.markers([0]) == [] and other.highest_claims([0]) == {} and other.covered_ends() == {}
    assert other.intents([0]) == {}


def test_of_two_claims_with_one_number_that_were_made_before_intents_the_lower_member_has_it(
    ledger: StoreLedger,
) -> None:
    columns = {"partition": [0, 0], "claim": [1, 1], "first_offset": [0, 0], "member": ["b", "a"]}
    ledger.store.insert("claim_rows", pa.table({"log_id": pa.array([LOG, LOG], pa.uint64()), **columns}))
    assert ledger.highest_claims([0])[0].member == "a"


def test_snapshots_of_the_table_before_are_read_when_there_is_no_other_and_never_dropped(ledger: StoreLedger) -> None:
    now_ms = time.time_ns() // 1_000_000  # that table forgets by the clock
    for offset in (10, 50):
        ledger.add_snapshot(Snapshot(0, 1, offset, "v", LOG, b"state", now_ms))
    ledger.store.command("INSERT INTO snapshot_rows SELECT * FROM state_rows")
    ledger.store.command("TRUNCATE TABLE state_rows")
    ledger.add_snapshot(Snapshot(0, 2, 30, "v", LOG, b"newer", now_ms))
    found = [ledger.snapshot(0, 60, skip) for skip in range(4)]
    assert [one and one.last_offset for one in found] == [30, 50, 10, None]
    assert ledger.snapshots(0, 60) == [StateAt(2, 30)]


def test_on_a_cluster_a_snapshot_is_dropped_where_its_part_is(ledger: StoreLedger) -> None:
    statement = drop_statement(LOG, 3, [StateAt(1, 10), StateAt(2, 20)], "main")
    assert statement.startswith("ALTER TABLE state_rows_local ON CLUSTER 'main' DROP PARTITION ")
    assert ledger.store.scalar("SELECT formatQueryOrNull({q:String})", {"q": statement}) is not None


def inserted(ledger: StoreLedger, first: int, count: int, at: int = JULY, partition: int = 0) -> pa.Table:
    rows = usage(list(range(first, first + count)), at=at, partition=partition)
    ledger.insert(RATED_USAGE, rows)
    return rows


def rows_read(ledger: StoreLedger, written: pa.Table, spans: list[Span]) -> int:
    """Rows of the table that the store looks at to read a batch back."""
    seen = list[int]()
    asked = ledger.store.rows

    def explained(sql: str, parameters: dict[str, int]) -> list[dict[str, object]]:
        seen.extend(row["rows"] for row in asked(f"EXPLAIN ESTIMATE {sql}", parameters))
        return asked(sql, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.store, "rows", explained)
        ledger.read_back({RATED_USAGE: written}, spans)
    return sum(seen)


def test_what_a_batch_is_read_back_from_does_not_grow_with_what_was_stored_before_it(ledger: StoreLedger) -> None:
    read = []
    for batch in range(5):  # one partition is far ahead: by their offsets, rows of the other could be in any part
        ahead, behind = 5_000 + 100 * batch, 100 * batch
        rows = pa.concat_tables([inserted(ledger, behind, 100), inserted(ledger, ahead, 100, partition=3)])
        read.append(rows_read(ledger, rows, [Span(0, 1, behind, behind + 99), Span(3, 1, ahead, ahead + 99)]))
        ledger.store.command(f"OPTIMIZE TABLE {RATED_USAGE} FINAL")  # all of it in one part by the next batch
    assert read == [200] * 5


def test_rows_of_a_table_partition_that_was_not_there_before_are_read_back_too(ledger: StoreLedger) -> None:
    ledger.read_back({RATED_USAGE: inserted(ledger, 0, 10)}, [Span(0, 1, 0, 9)])
    june = inserted(ledger, 10, 10, at=JULY - 40 * 86_400_000)
    ledger.read_back({RATED_USAGE: june}, [Span(0, 1, 10, 19)])


def test_a_surplus_row_is_seen_after_a_read_back_too_and_while_the_batch_is_driven_again(ledger: StoreLedger) -> None:
    ledger.read_back({RATED_USAGE: inserted(ledger, 0, 10)}, [Span(0, 1, 0, 9)])
    inserted(ledger, 15, 1)
    rows = inserted(ledger, 10, 5)
    for _ in range(2):
        with pytest.raises(IntegrityError):
            ledger.read_back({RATED_USAGE: rows}, [Span(0, 1, 10, 19)])


def test_a_store_that_numbers_its_inserts_anew_is_read_whole(ledger: StoreLedger) -> None:
    ledger.read_back({RATED_USAGE: inserted(ledger, 0, 10)}, [Span(0, 1, 0, 9)])
    ledger._known = {name: number + 1_000 for name, number in ledger._known.items()}  # emptied, and started again
    assert ledger._known
    ledger.read_back({RATED_USAGE: inserted(ledger, 10, 10)}, [Span(0, 1, 10, 19)])

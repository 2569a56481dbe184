import time
from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipeline.clickhouse import Store
from pipeline.ledger import RATED_USAGE, Snapshot, StateAt
from pipeline.settings import Settings
from pipeline.store import StoreLedger, drop_statement
from tests.contract.benches import LOG, marker, usage


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

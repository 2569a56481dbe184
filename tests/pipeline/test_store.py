from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipeline.clickhouse import Store
from pipeline.ledger import RATED_USAGE
from pipeline.settings import Settings
from pipeline.store import StoreLedger
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

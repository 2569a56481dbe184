"""The store behind a network that cuts, delays, refuses and loses answers: what the commit protocol may count on."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.clickhouse import Store, arrow_stream
from pipeline.errors import StoreRefusedError, StoreUnavailableError
from pipeline.ledger import RATED_USAGE
from pipeline.settings import Settings
from pipeline.store import StoreLedger
from tests.contract.benches import LOG, usage
from tests.contract.proxy import Fault, Proxy


@pytest.fixture
def proxy(store_server: Settings) -> Iterator[Proxy]:
    with Proxy(store_server.clickhouse_port) as running:
        yield running


@pytest.fixture
def ledger(store_server: Settings, direct: Store, proxy: Proxy) -> Iterator[StoreLedger]:
    """Through the proxy."""
    through = replace(store_server, clickhouse_port=proxy.port, clickhouse_database=direct.database)
    with Store(through, timeout_s=1) as store:
        yield StoreLedger(store, LOG)


def count(direct: Store) -> int:
    return int(direct.scalar("SELECT count() FROM rated_usage_rows"))


def settled(direct: Store) -> int:
    """Rows once nothing lands any more."""
    before = -1
    while (now := count(direct)) != before:
        before = now
        time.sleep(0.3)
    return now


def test_the_client_does_not_send_an_insert_again_by_itself(ledger: StoreLedger, direct: Store, proxy: Proxy) -> None:
    with proxy.fault(Fault(cut_answer_after=0)):
        with pytest.raises(StoreUnavailableError):
            ledger.insert(RATED_USAGE, usage([1]))
        assert proxy.hits == 1
    assert settled(direct) == 1


@pytest.mark.parametrize("passed", [0, 10, 500, 2_000, 20_000, 60_000])
def test_a_request_cut_anywhere_leaves_nothing(ledger: StoreLedger, direct: Store, proxy: Proxy, passed: int) -> None:
    rows = usage(list(range(20_000)))
    assert len(arrow_stream(rows)) > 60_000
    with proxy.fault(Fault(cut_request_after=passed)), pytest.raises(StoreUnavailableError):
        ledger.insert(RATED_USAGE, rows)
    assert settled(direct) == 0
    ledger.insert(RATED_USAGE, usage([1]))
    assert settled(direct) == 1


def test_a_cut_answer_to_a_question_never_becomes_a_short_answer(
    ledger: StoreLedger, direct: Store, proxy: Proxy
) -> None:
    for first in range(0, 5_000, 1_000):
        direct.insert(RATED_USAGE, usage(list(range(first, first + 1_000))))
    sql = "SELECT offset, charge_point_id FROM rated_usage_rows"
    whole = ledger.store.arrow(sql)
    assert whole.num_rows == 5_000
    for passed in (0, 20, 60, 100, 200, 300, 400, 500, 1_000, 10_000):
        with proxy.fault(Fault(cut_answer_after=passed)), pytest.raises(StoreUnavailableError):
            ledger.store.arrow(sql)
        with proxy.fault(Fault(cut_answer_after=passed)), pytest.raises(StoreUnavailableError):
            ledger.store.rows(sql)


def test_a_refused_row_leaves_its_neighbours_be(ledger: StoreLedger) -> None:
    """What bisection relies on: a refused block leaves nothing behind, and each half is judged by itself."""
    good = usage([1, 2])
    bad = good.set_column(good.schema.get_field_index("dimension"), "dimension", pa.array(["ENERGY", "NOISE"]))
    with pytest.raises(StoreRefusedError):
        ledger.store.insert(RATED_USAGE, bad)
    assert ledger.store.scalar("SELECT count() FROM rated_usage_rows") == 0
    ledger.store.insert(RATED_USAGE, bad.slice(0, 1))
    with pytest.raises(StoreRefusedError):
        ledger.store.insert(RATED_USAGE, bad.slice(1, 1))
    assert ledger.store.scalar("SELECT groupArray(offset) FROM rated_usage_rows") == [1]

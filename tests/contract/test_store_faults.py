"""The store behind a network that cuts, delays, refuses and loses answers: what the commit protocol may count on."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.clickhouse import Store
from pipeline.errors import IntegrityError, StoreRefusedError, StoreUnavailableError
from pipeline.migrations import migrate
from pipeline.settings import Settings
from pipeline.store import RATED_USAGE, Ledger, Span
from tests.contract.proxy import Fault, Proxy
from tests.pipeline.test_store import LOG, marker, usage

_names = (f"faults_{n}" for n in itertools.count())


@pytest.fixture
def proxy(store_server: Settings) -> Iterator[Proxy]:
    with Proxy(store_server.clickhouse_port) as running:
        yield running


@pytest.fixture
def direct(store_server: Settings) -> Iterator[Store]:
    """Past the proxy, to a database of this test's own."""
    name = next(_names)
    with Store(store_server) as store:
        store.command(f"CREATE DATABASE {name}")
    with Store(replace(store_server, clickhouse_database=name)) as store:
        migrate(store)
        yield store


@pytest.fixture
def ledger(store_server: Settings, direct: Store, proxy: Proxy) -> Iterator[Ledger]:
    """Through the proxy."""
    through = replace(store_server, clickhouse_port=proxy.port, clickhouse_database=direct.database)
    with Store(through, timeout_s=1) as store:
        yield Ledger(store, LOG)


def count(direct: Store) -> int:
    return int(direct.scalar("SELECT count() FROM rated_usage_rows"))


def settled(direct: Store) -> int:
    """Rows once nothing lands any more."""
    before = -1
    while (now := count(direct)) != before:
        before = now
        time.sleep(0.3)
    return now


def test_an_answer_lost_after_the_rows_landed_is_an_outage_and_a_retry_is_harmless(
    ledger: Ledger, direct: Store, proxy: Proxy
) -> None:
    rows = usage(list(range(100)))
    with proxy.fault(Fault(cut_answer_after=0)), pytest.raises(StoreUnavailableError):
        ledger.insert(RATED_USAGE, rows)
    assert settled(direct) == 100, "they are there, and nobody was told"
    ledger.insert(RATED_USAGE, rows)
    ledger.read_back({RATED_USAGE: rows}, [Span(0, 1, 0, 99)])


def test_the_client_does_not_send_an_insert_again_by_itself(ledger: Ledger, direct: Store, proxy: Proxy) -> None:
    with proxy.fault(Fault(cut_answer_after=0)):
        with pytest.raises(StoreUnavailableError):
            ledger.insert(RATED_USAGE, usage([1]))
        assert proxy.hits == 1
    assert settled(direct) == 1


@pytest.mark.parametrize("passed", [0, 10, 500, 2_000, 20_000, 60_000])
def test_a_request_cut_anywhere_leaves_nothing(ledger: Ledger, direct: Store, proxy: Proxy, passed: int) -> None:
    with proxy.fault(Fault(cut_request_after=passed)), pytest.raises(StoreUnavailableError):
        ledger.insert(RATED_USAGE, usage(list(range(2_000))))
    assert settled(direct) == 0
    ledger.insert(RATED_USAGE, usage([1]))
    assert settled(direct) == 1


def test_an_insert_that_lands_late_is_seen_by_the_read_back_that_follows(
    ledger: Ledger, direct: Store, proxy: Proxy
) -> None:
    # given a slow network, when an insert is given up and driven again with other rows, then the difference is told
    late = usage([1, 2, 3])
    with proxy.fault(Fault(delay_s=3.0)), pytest.raises(StoreUnavailableError, match="timed out"):
        ledger.insert(RATED_USAGE, late)
    assert settled(direct) == 3
    ledger.insert(RATED_USAGE, usage([1, 2]))
    with pytest.raises(IntegrityError):
        ledger.read_back({RATED_USAGE: usage([1, 2])}, [Span(0, 1, 0, 9)])
    ledger.read_back({RATED_USAGE: late}, [Span(0, 1, 0, 9)])


def test_a_marker_whose_answer_was_lost_may_be_written_again(ledger: Ledger, proxy: Proxy) -> None:
    [claim] = ledger.claim({0: 0}, "a", 1)
    with proxy.fault(Fault(cut_answer_after=0)), pytest.raises(StoreUnavailableError):
        ledger.add_markers([marker(0, 4)])
    ledger.add_markers([marker(0, 4)])
    assert ledger.markers(0) == [marker(0, 4)]
    ledger.check_claims([claim])


def test_a_claim_whose_answer_was_lost_is_followed_by_a_higher_one(ledger: Ledger, proxy: Proxy) -> None:
    with proxy.fault(Fault(cut_answer_after=0)), pytest.raises(StoreUnavailableError):
        ledger.claim({0: 0}, "a", 1)
    [claim] = ledger.claim({0: 0}, "a", 2)
    ledger.check_claims([claim])
    assert ledger.highest_claims([0]) == {0: claim}


def test_refused_connections_are_an_outage_that_ends(ledger: Ledger, direct: Store, proxy: Proxy) -> None:
    with proxy.fault(Fault(refuse=True)):
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                ledger.insert(RATED_USAGE, usage([1]))
            with pytest.raises(StoreUnavailableError):
                ledger.covered_ends()
    ledger.insert(RATED_USAGE, usage([1]))
    assert settled(direct) == 1


def test_a_cut_answer_to_a_question_never_becomes_a_short_answer(ledger: Ledger, direct: Store, proxy: Proxy) -> None:
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


def test_a_refused_row_leaves_its_neighbours_be(ledger: Ledger) -> None:
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

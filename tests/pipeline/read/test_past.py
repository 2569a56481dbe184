"""What a worker reads of sessions' pasts is what the views show of them, whatever a fenced writer left beside."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from pipeline.clickhouse import Store
from pipeline.rate.ledger_history import Asked, StorePast
from pipeline.settings import Settings
from tests.pipeline.read.test_verify import change, copied

BEYOND = 1_000_000


@pytest.fixture
def store(rated: Settings) -> Iterator[Store]:
    with copied(rated) as opened:
        yield opened


def asked_of(store: Store) -> tuple[int, Asked]:
    """The log, and all of its sessions."""
    rows = store.rows("SELECT log_id, partition, charge_point_id, session_key FROM readings WHERE session_key != 0")
    [log_id] = {row["log_id"] for row in rows}
    names, keys = sorted({r["charge_point_id"] for r in rows}), sorted({r["session_key"] for r in rows})
    return log_id, Asked(names, keys, {row["partition"]: BEYOND for row in rows})


def shown(store: Store, view: str, asked: Asked, more: str = "") -> list[dict[str, Any]]:
    return store.rows(
        f"SELECT * FROM {view} WHERE session_key IN {{keys:Array(UInt64)}} {more} ORDER BY session_key, offset, line",
        {"keys": asked.session_keys},
    )


def places(rows: pa.Table | list[dict[str, Any]]) -> list[tuple[int, ...]]:
    names = ("session_key", "partition", "offset", "line", "claim")
    given = rows.to_pylist() if isinstance(rows, pa.Table) else rows
    return [tuple(row[name] for name in names) for row in given]


def equal_to_the_views(store: Store) -> int:
    """Hold all four questions against the views; the rows that were compared."""
    log_id, asked = asked_of(store)
    past = StorePast(store, log_id)
    readings = shown(store, "readings", asked, "AND verdict != 'duplicate'")
    samples = past.samples(asked)
    assert places(samples) == places(readings)
    assert samples.column("version").to_pylist() == [row["reference_version"] for row in readings]
    usage = shown(store, "rated_usage", asked)
    rated = past.rated(asked)
    assert places(rated) == places(usage)
    assert rated.column("cost").to_pylist() == [row["cost"] for row in usage]
    kinds: dict[int, set[str]] = {}
    for row in shown(store, "alerts", asked):
        kinds.setdefault(row["session_key"], set()).add(row["kind"])
    assert past.alerted(asked) == kinds
    cdrs = shown(store, "cdrs", asked)
    assert sorted(places(past.cdrs(asked))) == sorted(places(cdrs))
    return len(readings) + len(usage) + len(cdrs)


def test_a_past_is_what_the_views_show(store: Store) -> None:
    assert equal_to_the_views(store) > 40


@pytest.mark.parametrize("table", ["reading_rows", "rated_usage_rows", "cdr_rows", "alert_rows"])
def test_rows_of_a_claim_that_does_not_hold_and_rows_inserted_twice_are_left_out(store: Store, table: str) -> None:
    before = equal_to_the_views(store)
    change(store, f"INSERT INTO {table} SELECT * FROM {table}")
    change(store, f"INSERT INTO {table} SELECT * REPLACE (0 AS claim) FROM {table}")
    change(store, f"INSERT INTO {table} SELECT * REPLACE (offset + 500000 AS offset) FROM {table}")
    assert equal_to_the_views(store) == before


def test_rows_from_the_batch_at_hand_on_are_no_past(store: Store) -> None:
    log_id, asked = asked_of(store)
    early = asked._replace(firsts=dict.fromkeys(asked.firsts, 3))
    found = places(StorePast(store, log_id).samples(early))
    assert found and all(offset < 3 for _, _, offset, _, _ in found)
    assert places(StorePast(store, log_id).samples(asked._replace(firsts={}))) == []


def test_what_is_marked_between_two_batches_is_seen_by_the_second(store: Store) -> None:
    log_id, asked = asked_of(store)
    past = StorePast(store, log_id)
    whole = places(past.samples(asked))
    store.command("TRUNCATE TABLE marker_rows")
    again = asked._replace()  # asked anew, as each batch does
    assert places(past.samples(again)) == []
    assert whole

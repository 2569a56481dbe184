"""What customers owe for a span of time, and what counts when it is looked up once for several reads."""

from dataclasses import fields

import pytest

from pipeline.clickhouse import Store
from pipeline.coverage import Coverage, Span
from pipeline.read.session_rows import CdrLine, HoldRow, RatedRow, ReadingRow, _expression, load
from pipeline.read.sessions import SessionRef, find
from pipeline.read.statements import of_customer, of_everyone

JUNE, JULY = 1_717_200_000_000, 1_719_792_000_000  # 2024


def test_a_customers_statement_holds_the_cdrs_of_the_span(store: Store) -> None:
    truth = store.rows("SELECT id_token, cdr_id, total_excl_e4, total_incl_e4, energy_mwh FROM cdrs ORDER BY cdr_id")
    found = list(of_everyone(store, JUNE, JULY))
    assert sorted(line.cdr_id for one in found for line in one.lines) == [row["cdr_id"] for row in truth]
    assert sum(one.total_incl_e4 for one in found) == sum(row["total_incl_e4"] for row in truth)
    for one in found:
        assert of_customer(store, one.id_token, JUNE, JULY) == [one]
        assert one.energy_mwh == sum(line.energy_mwh for line in one.lines)
        assert one.total_excl_e4 == sum(line.total_excl_e4 for line in one.lines)
    assert not list(of_everyone(store, JULY, JULY + 1))


def test_a_customers_statement_is_that_of_the_run_whatever_else_lies_in_the_table(store: Store) -> None:
    before = list(of_everyone(store, JUNE, JULY))
    for what in ("claim * 0 AS claim", "offset + 5000 AS offset", "line AS line"):  # fenced, not marked, told twice
        kind = "toUInt32" if what.startswith("claim") else "toUInt64"
        value, _, column = what.partition(" AS ")
        store.command(f"INSERT INTO cdr_rows SELECT * REPLACE ({kind}({value}) AS {column}) FROM cdr_rows")
    try:
        assert store.scalar("SELECT count() FROM cdr_rows") > 3 * store.scalar("SELECT count() FROM cdrs") > 0
        assert list(of_everyone(store, JUNE, JULY)) == before
        for one in before:
            assert of_customer(store, one.id_token, JUNE, JULY) == [one]
    finally:
        store.command("ALTER TABLE cdr_rows DELETE WHERE claim = 0 OR offset >= 5000 SETTINGS mutations_sync = 1")
        store.command("OPTIMIZE TABLE cdr_rows FINAL")


def by_views(store: Store, ref: SessionRef, view: str, kind: type, order: str) -> list[object]:
    """The slow twin of `load`: the session's rows as everyone else sees them."""
    columns = ", ".join(f"{_expression(field.name)} AS c{at}" for at, field in enumerate(fields(kind)))
    found = store.rows(
        f"SELECT {columns} FROM {view} AS v WHERE charge_point_id = {{name:String}} AND session_key = {{key:UInt64}} "
        f"AND log_id = {{log:UInt64}} ORDER BY {order}, v.offset, v.line",
        {"name": ref.charge_point_id, "key": ref.session_key, "log": ref.log_id},
    )
    return [kind(*row.values()) for row in found]


@pytest.mark.parametrize("name", ["4711", "4712", "4713", "4714"])
def test_a_sessions_rows_are_those_of_the_views(store: Store, name: str) -> None:
    ref = find(store, name)
    for table in ("reading_rows", "rated_usage_rows", "cdr_rows", "quarantine_rows"):
        # what an earlier life of the topic and a fenced worker left
        store.command(f"INSERT INTO {table} SELECT * REPLACE (log_id + 1 AS log_id) FROM {table}")
        store.command(f"INSERT INTO {table} SELECT * REPLACE (toUInt32(0) AS claim) FROM {table}")
        store.command(f"INSERT INTO {table} SELECT * REPLACE (offset + 5000 AS offset) FROM {table} WHERE claim != 0")
    try:
        loaded = load(store, ref)
        assert loaded.readings == by_views(store, ref, "readings", ReadingRow, "v.time")
        assert loaded.rated == by_views(store, ref, "rated_usage", RatedRow, "v.log_id")
        assert loaded.cdrs == by_views(store, ref, "cdrs", CdrLine, "v.revision")
        assert loaded.holds == by_views(store, ref, "quarantine", HoldRow, "v.log_id")
        assert loaded.readings
    finally:
        for table in ("reading_rows", "rated_usage_rows", "cdr_rows", "quarantine_rows"):
            left = f"claim = 0 OR offset >= 5000 OR log_id = {ref.log_id + 1}"
            store.command(f"ALTER TABLE {table} DELETE WHERE {left} SETTINGS mutations_sync = 1")


def test_rows_of_a_claim_that_never_counted_are_not_read(store: Store) -> None:
    ref = find(store, "BREMEN-1*4711")
    before = load(store, ref)
    store.command("INSERT INTO rated_usage_rows SELECT * REPLACE (toUInt32(99) AS claim) FROM rated_usage_rows")
    try:
        assert load(store, ref) == before
        assert find(store, "4711") == ref
    finally:
        store.command("ALTER TABLE rated_usage_rows DELETE WHERE claim = 99 SETTINGS mutations_sync = 1")


def test_a_row_that_its_writer_told_twice_is_read_once(store: Store) -> None:
    ref = find(store, "BREMEN-1*4711")
    before = load(store, ref)
    again = "claim = 1 AND charge_point_id = 'BREMEN-1'"
    store.command(f"INSERT INTO cdr_rows SELECT * FROM cdr_rows WHERE {again}")
    try:
        assert load(store, ref) == before
    finally:
        store.command("OPTIMIZE TABLE cdr_rows FINAL")


def test_offsets_count_under_the_claim_that_covers_them() -> None:
    coverage = Coverage({(1, 0, 1): Span(0, 10), (1, 0, 2): Span(10, 20)})
    assert coverage.touches(1, 0, 1, 5, 5)
    assert not coverage.touches(1, 0, 1, 10, 12)
    assert coverage.touches(1, 0, 2, 10, 12)
    assert not coverage.touches(1, 1, 1, 5, 5)

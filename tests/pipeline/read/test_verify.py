"""Every check of the verifier, seen to hold and seen to break."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from pipeline.clickhouse import Store
from pipeline.commands.verify import command
from pipeline.errors import ChecksFailedError, DocumentError
from pipeline.migrations import migrate
from pipeline.read.checks import BROKEN, OK, WARNING, Check
from pipeline.read.verify import verify
from pipeline.settings import Settings
from tests.pipeline.read.conftest import Run, runner
from tests.stack import fresh

TABLES = (
    "reading_rows", "rated_usage_rows", "cdr_rows", "alert_rows", "quarantine_rows", "dead_letter_rows", "marker_rows",
    "claim_rows", "published_rows", "state_rows", "reference_rows", "record_rows",
)  # fmt: skip


@contextmanager
def copied(rated: Settings) -> Iterator[Store]:
    """The rated network in a database of one test's own, to be broken."""
    settings = fresh(rated)
    with Store(rated) as source:
        for table in TABLES:
            source.command(f"CREATE TABLE {settings.clickhouse_database}.{table} AS {table}")
            source.command(f"INSERT INTO {settings.clickhouse_database}.{table} SELECT * FROM {table}")
    with Store(settings) as opened:
        migrate(opened)
        yield opened


@pytest.fixture
def copy(rated: Settings) -> Iterator[Store]:
    with copied(rated) as opened:
        yield opened


def broken(store: Store, since_ms: int | None = None) -> dict[str, Check]:
    return {check.name: check for check in verify(store, since_ms) if check.state == BROKEN}


def test_all_control_totals_of_a_rated_network_hold(store: Store) -> None:
    found = list(verify(store))
    assert [check.name for check in found if check.state == BROKEN] == []
    assert {check.name for check in found if check.compared} >= {"markers_tile", "rows_of_readings", "register_balance"}


def test_they_hold_since_an_instant_too(store: Store) -> None:
    assert broken(store, 0) == {}
    assert broken(store, 4_000_000_000_000) == {}


def test_the_command_prints_each_check_and_ends_well(run: Run) -> None:
    result = run(command)
    assert result.exit_code == 0
    assert "markers_tile" in result.output
    told = json.loads(run(command, "--json", "--since", "2024-06-03T10:00:00Z").output)
    assert told["holds"] is True
    assert isinstance(run(command, "--since", "yesterday").exception, DocumentError)


SQL = {
    # what somebody did to the store → the check that says so
    "markers_tile": "DELETE FROM marker_rows WHERE first_offset = (SELECT max(first_offset) FROM marker_rows WHERE "
    "partition = 1) AND partition = 1",
    "records_accounted": "ALTER TABLE marker_rows UPDATE used = used + 1 WHERE partition = 1",
    "rows_of_readings": "DELETE FROM reading_rows WHERE transaction_id = '4711' AND time = '2024-06-03 10:20:00'",
    "rows_of_rated_usage": "ALTER TABLE rated_usage_rows UPDATE cost = cost + 1 WHERE dimension = 'FLAT'",
    "rows_of_cdrs": "DELETE FROM cdr_rows WHERE 1",
    "rows_of_alerts": "DELETE FROM alert_rows WHERE 1",
    "rows_of_quarantine": "DELETE FROM quarantine_rows WHERE 1",
    "rows_of_dead_letters": "DELETE FROM dead_letter_rows WHERE 1",
    "energy_of_sessions": "ALTER TABLE cdr_rows UPDATE energy_mwh = energy_mwh - 1 WHERE 1",
    "cost_of_sessions": "ALTER TABLE cdr_rows UPDATE total_excl_e4 = total_excl_e4 - 100 WHERE 1",
    "usage_of_sessions": "ALTER TABLE cdr_rows UPDATE rated_cost = rated_cost + 1 WHERE 1",
    "cdr_chains": "ALTER TABLE cdr_rows UPDATE revision = 2 WHERE 1",
    "billed_or_held": "ALTER TABLE quarantine_rows UPDATE charge_point_id = 'BREMEN-1' WHERE 0",
    "register_balance": "ALTER TABLE cdr_rows UPDATE last_mwh = last_mwh + 5 WHERE 1",
    "registers_as_told": "ALTER TABLE reading_rows UPDATE register_mwh = register_mwh + 5 "
    "WHERE transaction_id = '4711' AND kind = 2",
    "published_was_marked": "INSERT INTO published_rows SELECT log_id, partition, claim, last_offset + 1000, "
    "published_at FROM published_rows LIMIT 1",
    "snapshots_not_ahead": "INSERT INTO state_rows SELECT log_id, partition, claim, last_offset + 1000, "
    "code_version, checksum, payload, taken_at FROM state_rows LIMIT 1",
}


@pytest.mark.parametrize("name", [name for name in SQL if name not in ("markers_tile", "billed_or_held")])
def test_a_broken_total_is_found_and_located(copy: Store, name: str) -> None:
    assert name not in broken(copy)
    change(copy, SQL[name])
    found = broken(copy)
    assert name in found
    assert found[name].wrong > 0
    assert found[name].places


def change(store: Store, sql: str) -> None:
    settings = {"mutations_sync": "2", "lightweight_deletes_sync": "2"}
    store.command(sql, settings)


def test_a_missing_reading_is_located_at_its_marker(copy: Store) -> None:
    change(copy, SQL["rows_of_readings"])
    [place] = broken(copy)["rows_of_readings"].places
    assert place["rows"]["count"] == place["marker"]["count"] - 1
    assert place["first_offset"] <= place["last_offset"]


def test_a_gap_between_markers_is_found(copy: Store) -> None:
    change(
        copy,
        "INSERT INTO marker_rows SELECT * REPLACE (last_offset + 5 AS first_offset, last_offset + 9 AS last_offset, "
        "0 AS records, 0 AS control, 0 AS used, 0 AS quarantined, 0 AS dead_lettered, 0 AS readings, 0 AS rated, "
        "0 AS cdrs, 0 AS alerts, 0 AS quarantine, 0 AS energy_mwh, 0 AS cost) FROM marker_rows WHERE partition = 1 "
        "ORDER BY last_offset DESC LIMIT 1",
    )
    [place] = broken(copy)["markers_tile"].places
    assert (place["partition"], place["what"], place["offset"] - place["expected_offset"]) == (1, "gap", 4)


def test_a_session_that_is_billed_and_held_is_found(copy: Store) -> None:
    change(
        copy,
        "INSERT INTO quarantine_rows SELECT * REPLACE ((SELECT any(session_key) FROM cdr_rows) AS session_key, "
        "(SELECT any(charge_point_id) FROM cdr_rows) AS charge_point_id, 777 AS line) FROM quarantine_rows "
        "WHERE held_mwh > 0 LIMIT 1",
    )
    assert [place["held"] for place in broken(copy)["billed_or_held"].places] == [True]


def test_rows_written_twice_are_a_warning_and_change_no_total(copy: Store) -> None:
    assert next(check.state for check in verify(copy) if check.name == "written_once") == OK
    change(copy, "INSERT INTO rated_usage_rows SELECT * FROM rated_usage_rows")
    states = {check.name: check.state for check in verify(copy)}
    assert states["written_once"] == WARNING
    assert set(states.values()) == {OK, WARNING}


def test_the_command_ends_with_1_and_names_what_is_broken(copy: Store, rated: Settings) -> None:
    change(copy, SQL["rows_of_cdrs"])
    result = runner(replace(rated, clickhouse_database=copy.database))(command)
    assert isinstance(result.exception, ChecksFailedError)
    assert "rows_of_cdrs" in result.exception.message
    assert "broken   rows_of_cdrs" in result.output

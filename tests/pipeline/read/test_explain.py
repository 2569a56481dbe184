import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.clickhouse import Store
from pipeline.commands.explain import command
from pipeline.errors import DocumentError
from pipeline.read.explanation import explained, explanation
from pipeline.read.session_rows import HELD, OPEN, SETTLED, load
from pipeline.read.sessions import SHORT_ID, Likely, current_log, find
from pipeline.settings import Settings
from rating.cdr import short_id
from tests.pipeline.read.conftest import Run
from tests.pipeline.read.test_verify import copied


def test_a_session_is_found_by_every_name_that_people_have_for_it(store: Store) -> None:
    by_session = find(store, "BREMEN-1*4711")
    assert by_session.charge_point_id == "BREMEN-1"
    for name in ("4711", "BREMEN-1*4711-C", by_session.key, by_session.key.upper()):
        assert find(store, name) == by_session


def test_an_open_session_is_found_before_it_has_a_cdr(store: Store) -> None:
    assert find(store, "4712") == find(store, "BREMEN-2*4712")


@pytest.mark.parametrize("name", ["CP1*550e8400-e29b-41d4-a716-446655440000", "Säule-Nord-7*" + "ü" * 40])
def test_the_store_shortens_a_long_name_as_the_cdr_does(store: Store, name: str) -> None:
    shown = store.scalar(f"SELECT {SHORT_ID} FROM (SELECT {{name:String}} AS cdr_id)", {"name": name})
    assert shown == short_id(name)
    assert len(shown) == 36


def test_a_name_that_nobody_knows_says_what_names_there_are(store: Store) -> None:
    with pytest.raises(DocumentError, match="no session is called '9999': give a session id"):
        find(store, "9999")


def test_a_bill_names_price_element_step_tax_and_total(run: Run) -> None:
    shown = run(command, "4711").output
    assert "Marktplatz, Am Markt 1, Bremen; charge point BREMEN-1" in shown
    assert "Mon 03 Jun 2024 12:00:00 to 13:20:00 (Europe/Berlin), 1 h 20 min" in shown
    assert "ENERGY 5.5 kWh at 0.50/kWh" in shown
    assert "between 08:00 and 12:30 (Europe/Berlin)" in shown
    assert "FLAT at 1.00" in shown
    assert "PARKING_TIME 20 min at 6.00/h" in shown
    assert "billed in steps of 15 min" in shown
    # 1 flat + 5.5 × 0.50 + 5.5 × 0.40 + 30 min × 6.00/h = 8.95; VAT 19 % of 7.95 and 7 % of 1.00
    assert "Total before tax                                                      8.95" in shown
    assert "To pay, EUR                                                          10.53" in shown


def test_the_same_as_json_with_amounts_as_decimals(run: Run, store: Store) -> None:
    told = json.loads(run(command, "4711", "--json").output)
    assert told["session"]["state"] == SETTLED
    assert told["bill"]["total_excl"] == "8.95"
    assert told["bill"]["energy_kwh"] == "11"
    assert told["bill"]["differs"] == ""
    assert [cdr["revision"] for cdr in told["cdrs"]] == [1]
    assert "readings" not in told
    document = store.scalar("SELECT document FROM cdrs WHERE transaction_id = '4711'")
    assert json.loads(document)["total_cost"] == {"excl_vat": 8.95, "incl_vat": 10.53}


def test_readings_behind_each_amount(run: Run) -> None:
    told = json.loads(run(command, "4711", "--readings", "--json").output)
    energy = [line for line in told["bill"]["lines"] if line["row"] == "ENERGY"]
    assert [reading["register_kwh"] for reading in energy[0]["readings"]] == ["100", "101.833"]
    assert [reading["register_kwh"] for reading in told["readings"]][-1] == "111"
    assert "Meter readings" in run(command, "4711", "--readings").output


def test_an_open_session_tells_its_cost_so_far_and_the_bill_as_if_it_ended_now(run: Run) -> None:
    told = json.loads(run(command, "4712", "--json").output)
    assert told["session"]["state"] == OPEN
    assert told["bill"]["cost_so_far"] == "3.75"  # 1 flat + 5.5 × 0.50
    assert told["bill"]["total_excl"] == "4.00"  # half a kWh more to the step of 1 kWh
    assert "open, 3.75 EUR so far" in run(command, "4712").output


def test_a_session_without_a_tariff_is_explained_too(run: Run) -> None:
    told = json.loads(run(command, "4713", "--json").output)
    assert told["session"]["state"] == HELD
    assert told["bill"] is None
    assert told["held"]["reason"] == "unknown_tariff"
    assert told["held"]["energy_kwh"] == "11"
    assert "no tariff was known" in run(command, "4713").output


def test_held_energy_is_named_with_its_reason(store: Store) -> None:
    told = explanation(store, load(store, find(store, "4714")))
    assert told["held"]["energy_kwh"] == "300"
    assert told["held"]["because"] == "the meter jumped further than the connector can deliver"
    assert told["bill"]["energy_kwh"] == "3"


@pytest.mark.parametrize("name", ["BREMEN-1*4711", "4711", "4712", "4713", "4714"])
def test_a_bill_is_the_same_whether_its_rows_are_asked_ahead_or_once_the_session_is_known(
    store: Store, name: str
) -> None:
    for with_readings in (False, True):
        truth = explanation(store, load(store, find(store, name)), with_readings)
        assert explained(store, name, with_readings) == truth
        assert explained(store, truth["session"]["session_key"], with_readings) == truth


def test_rows_that_do_not_count_are_asked_for_and_make_no_session(store: Store) -> None:
    truth = explained(store, "BREMEN-1*4711")
    fenced = "toUInt32(99) AS claim, session_key + 1 AS session_key"
    store.command(f"INSERT INTO reading_rows SELECT * REPLACE ({fenced}) FROM reading_rows")
    store.command(
        f"INSERT INTO reading_rows SELECT * REPLACE ({fenced}, 'never' AS transaction_id) FROM reading_rows "
        "WHERE transaction_id = '4711' AND claim != 99"
    )
    try:
        assert explained(store, "BREMEN-1*4711") == truth  # two sessions to choose from
        with pytest.raises(DocumentError, match="no session is called 'BREMEN-1\\*never'"):  # one, asked for ahead
            explained(store, "BREMEN-1*never")
    finally:
        store.command("ALTER TABLE reading_rows DELETE WHERE claim = 99 SETTINGS mutations_sync = 1")


def test_a_cdr_of_the_name_is_found_beside_the_readings_of_another_session_and_without_any(store: Store) -> None:
    truth = explained(store, "BREMEN-1*4711")
    mine = "FROM cdr_rows AS v WHERE v.cdr_id = 'BREMEN-1*4711'"
    unread = "session_key + 2 AS session_key, 'BREMEN-1*unread' AS cdr_id, 'unread' AS transaction_id"
    for replaced in (unread, "session_key + 1 AS session_key"):
        store.command(f"INSERT INTO cdr_rows SELECT * REPLACE ({replaced}) {mine}")
    try:
        key = truth["session"]["session_key"]
        for ask in (find, explained):
            with pytest.raises(DocumentError, match=f"2 sessions are called 'BREMEN-1\\*4711': .*{key}"):
                ask(store, "BREMEN-1*4711")
        assert explained(store, key) == truth
        for name in ("BREMEN-1*unread", "BREMEN-1*unread-C"):
            assert find(store, name).session_key == int(key, 16) + 2
            told = explained(store, name)
            assert [cdr["cdr_id"] for cdr in told["cdrs"]] == ["BREMEN-1*unread"]
            assert told["session"]["readings"] == 0
    finally:
        store.command(
            f"ALTER TABLE cdr_rows DELETE WHERE session_key IN ({int(key, 16) + 1}, {int(key, 16) + 2}) "
            "SETTINGS mutations_sync = 1"
        )


def one_after_the_other(store: Store, name: str, with_readings: bool) -> dict[str, Any]:
    """The obvious twin of `explained`: find the session, then read it."""
    return explanation(store, load(store, find(store, name)), with_readings)


def told_or_refused(tell: Callable[[Store, str, bool], dict[str, Any]], store: Store, name: str) -> list[Any]:
    """The explanation with and without readings, or why there is none."""
    try:
        return [tell(store, name, with_readings) for with_readings in (False, True)]
    except DocumentError as error:
        return [error.message]


SECOND_KEY, ANOTHER_KEY = f"toUInt64({Likely.of('BREMEN-1', '4711').keys[1]})", "session_key + 5"
OTHER = {"transaction_id": "'other'", "cdr_id": "'BREMEN-1*other'"}
STRANGE_LINE = 1 << 60  # above all lines that a row has
READ, RATED, CDRS = "reading_rows", "rated_usage_rows", "cdr_rows"


def everywhere(put: dict[str, str]) -> dict[str, dict[str, str]]:
    """The same in every table."""
    return {READ: put, RATED: put, CDRS: put}


STRANGE = {
    "nothing but repeats": everywhere({}),
    "a session of the name on another connector": everywhere({"session_key": SECOND_KEY, "connector_id": "2"}),
    "readings of the name on another connector": {READ: {"session_key": SECOND_KEY, "connector_id": "2"}},
    "a session of the name by a used id": everywhere({"session_key": ANOTHER_KEY}),
    "a CDR of the name by a used id": {CDRS: {"session_key": ANOTHER_KEY}},
    "a likely key with another transaction": everywhere({"session_key": SECOND_KEY, **OTHER}),
    "CDRs of a likely key with another transaction": {CDRS: {"session_key": SECOND_KEY, **OTHER}},
    "rows of the session with another transaction": everywhere(OTHER),
    "another life of the log": everywhere({"log_id": "log_id + 1"}),
    "another life of the log that read nothing": {CDRS: {"log_id": "log_id + 1"}},
    "another life of the log in which the id was used": everywhere(
        {"log_id": "log_id + 1", "session_key": ANOTHER_KEY}
    ),
    "a used id whose CDR of another life has another name": {
        READ: {"session_key": ANOTHER_KEY, "transaction_id": "'other'"},
        CDRS: {"log_id": "log_id + 1", "session_key": ANOTHER_KEY, "transaction_id": "'third'", "cdr_id": "'third'"},
    },
    "another life that counts for nobody": everywhere({"log_id": "log_id + 2"}),
    "rows outside any session": {READ: {"session_key": "toUInt64(0)"}},
    "rows of a fenced writer": everywhere({"claim": "toUInt32(99)", "session_key": SECOND_KEY}),
}


@pytest.fixture(scope="module")
def another(rated: Settings) -> Iterator[Store]:
    """The rated network in a database of its own, which other tests never see."""
    with copied(rated) as opened:
        yield opened


@pytest.mark.parametrize("strange", STRANGE)
def test_whatever_else_bears_a_sessions_name_the_answer_is_that_of_searching_first(
    another: Store, strange: str
) -> None:
    store = another
    key = find(store, "BREMEN-1*4711").session_key
    with another_life(store, STRANGE[strange]):
        for table, put in STRANGE[strange].items():
            columns = {row["name"] for row in store.rows(f"DESCRIBE {table}")}
            wanted = {"line": f"line + {STRANGE_LINE}"} | {name: to for name, to in put.items() if name in columns}
            store.command(
                f"INSERT INTO {table} SELECT * REPLACE ({', '.join(f'{to} AS {name}' for name, to in wanted.items())}) "
                f"FROM {table} AS v WHERE v.charge_point_id = 'BREMEN-1' AND v.session_key = {key} "
                f"AND v.line < {STRANGE_LINE}"
            )
            assert store.scalar(f"SELECT count() FROM {table} WHERE line >= {STRANGE_LINE}")
        for name in ("BREMEN-1*4711", "BREMEN-1*4711-C", "BREMEN-1*other", f"{key:016x}"):
            truth = told_or_refused(one_after_the_other, store, name)
            assert told_or_refused(explained, store, name) == truth, name


@contextmanager
def another_life(store: Store, tables: Iterable[str]) -> Iterator[None]:
    """The same claims and markers under a log that was claimed later; afterwards all is as before."""
    log_id = current_log(store)
    for table, later in (("claim_rows", ", claimed_at + 1 AS claimed_at"), ("marker_rows", "")):
        store.command(f"INSERT INTO {table} SELECT * REPLACE (log_id + 1 AS log_id{later}) FROM {table}")
    try:
        yield
    finally:
        for table in ("claim_rows", "marker_rows"):
            store.command(f"ALTER TABLE {table} DELETE WHERE log_id != {log_id} SETTINGS mutations_sync = 1")
        for table in tables:
            store.command(f"ALTER TABLE {table} DELETE WHERE line >= {STRANGE_LINE} SETTINGS mutations_sync = 1")


def test_metering_makes_a_key_of_a_transactions_id_and_none_of_what_is_none(store: Store) -> None:
    for name in ("BREMEN-1*4711", "BREMEN-2*4712", "BREMEN-3*4713", "BREMEN-1*4714"):
        assert find(store, name).session_key == Likely.of(*name.split("*")).keys[0]
    assert len(set(Likely.of("BREMEN-1", "4711").keys)) == 8
    for none in ("", "4" * 37, "ü" * 19):
        assert Likely.of("BREMEN-1", none).keys == ()


class Ordered(Store):
    """Notes when each question begins and ends."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.noted: list[tuple[str, str]] = []

    def short(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        self.noted.append(("begins", sql))
        found = super().short(sql, parameters)
        self.noted.append(("ends", sql))
        return found


def test_a_bills_rows_and_claims_are_asked_for_when_its_markers_are_read(rated: Settings) -> None:
    with Ordered(rated) as store:
        explained(store, "BREMEN-1*4711")
        store.noted.clear()
        explained(store, "BREMEN-1*4711")
        noted = list(store.noted)
    marked = next(at for at, (what, sql) in enumerate(noted) if what == "ends" and "FROM marker_rows" in sql)
    before = [sql for what, sql in noted[:marked] if what == "begins"]
    assert len(before) == 1  # the markers themselves
    assert sum(what == "begins" for what, _ in noted) == 7

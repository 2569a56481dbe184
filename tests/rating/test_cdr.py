"""CDR documents are what OCPI's tables say, add up, and can be taken back; bills and invoices tell the same."""

import json
import random
from decimal import Decimal
from itertools import pairwise
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from pipeline.commands.price import command
from rating import engine
from rating.cdr import Account, CdrFacts, Period, accounts, credit, document, encode, number, short_id, timestamp
from rating.columns import CHARGING, PARKING
from rating.errors import SessionError
from rating.explain import Held, Reading, Totals, explain, text
from rating.invoice import check_invoice
from rating.money import COST_PER_E4
from rating.policy import DEFAULT
from rating.ratesheet import RATE_VAT_E4, BookBuilder
from rating.session import Mark, Session
from rating.settle import Sessions, Settled
from rating.tariff import Tariff, parse_tariff
from rating.usage import MAX_PRICE, ROUNDING, STEP, UsageRow, usage_rows
from tests.rating.cdr_schema import schema
from tests.rating.tariffs import HOUR, KWH, MONDAY, component, element, tariff

ELEMENTS = (
    element(component("FLAT", 0.5, vat=20), component("ENERGY", 0.2537, 250, vat=21), max_kwh=7.5),
    element(component("ENERGY", 0.41, 100, vat=21), component("PARKING_TIME", 3, 900, vat=20)),
)
START = MONDAY + 9 * HOUR
SESSION = Session(
    ((START, START + HOUR + 123, 13_333_333), (START + HOUR + 123, START + 2 * HOUR + 7, 0)),
    (Mark(START, CHARGING), Mark(START + HOUR + 123, PARKING)),
)
LOCATION = {
    "id": "LOC1",
    "address": "F.Rooseveltlaan 3A",
    "city": "Gent",
    "country": "BEL",
    "coordinates": {"latitude": "3.729944", "longitude": "51.047599"},
    "evse_uid": "3256",
    "evse_id": "BE*BEC*E041503003",
    "connector_id": "1",
    "connector_standard": "IEC_62196_T2",
    "connector_format": "SOCKET",
    "connector_power_type": "AC_1_PHASE",
}
TOKEN = {
    "country_code": "NL",
    "party_id": "TST",
    "uid": "012345678",
    "type": "RFID",
    "contract_id": "NL-TST-C12345678-X",
}


def priced_by(version: str, **more: Any) -> Tariff:
    extra = {"tax_included": "NO"} if version == "2.3.0" else {}
    return tariff(*ELEMENTS, version=version, last_updated="2018-12-17T11:36:01Z", **extra, **more)


def facts_of(one: Tariff) -> CdrFacts:
    return CdrFacts(
        country_code="NL",
        party_id="TST",
        id="12345",
        start_ms=SESSION.first_ms,
        end_ms=SESSION.end_ms,
        session_id="S1",
        cdr_token=TOKEN,
        auth_method="WHITELIST",
        cdr_location=LOCATION,
        currency=one.currency,
        tariffs=[one.source],
        tariff_id=one.id,
        last_updated_ms=SESSION.end_ms,
    )


def account_of(rated: engine.Rated, row: int = 0) -> Account:
    return accounts(rated.book, rated.pieces, rated.sessions, rated.settled)[row]


def cdr_of(one: Tariff, version: str) -> dict[str, Any]:
    rated, _ = engine.rate(SESSION, one, "Europe/Brussels")
    written = document(account_of(rated), facts_of(one), version)
    read: dict[str, Any] = json.loads(encode(written), parse_float=Decimal)
    return read


@pytest.mark.parametrize("version", ["2.2.1", "2.3.0"])
def test_a_document_is_valid_for_its_version(version: str) -> None:
    cdr = json.loads(json.dumps(cdr_of(priced_by(version), version), default=float))
    jsonschema.validate(cdr, schema(version))
    jsonschema.validate(json.loads(encode(credit(cdr, START))), schema(version))


@pytest.mark.parametrize("version", ["2.2.1", "2.3.0"])
def test_the_volumes_of_the_periods_sum_to_the_totals(version: str) -> None:
    cdr = cdr_of(priced_by(version), version)
    volumes: dict[str, Decimal] = {}
    for period in cdr["charging_periods"]:
        for one in period["dimensions"]:
            volumes[one["type"]] = volumes.get(one["type"], Decimal(0)) + Decimal(one["volume"])
    assert volumes["ENERGY"] == cdr["total_energy"] == Decimal("13.3333")
    assert volumes["TIME"] + volumes["PARKING_TIME"] == cdr["total_time"]


def test_a_2_3_0_total_shows_its_taxes_line_by_line() -> None:
    total = cdr_of(priced_by("2.3.0"), "2.3.0")["total_cost"]
    assert {line["percentage"] for line in total["taxes"]} == {20, 21}
    plain = cdr_of(priced_by("2.2.1"), "2.2.1")["total_cost"]
    assert total["before_taxes"] == plain["excl_vat"]
    assert total["before_taxes"] + sum(line["amount"] for line in total["taxes"]) == plain["incl_vat"]


def test_a_credit_cdr_has_all_the_data_and_the_negative_total() -> None:
    original = cdr_of(priced_by("2.3.0"), "2.3.0")
    taken = json.loads(encode(credit(original, START)), parse_float=Decimal)
    assert (taken["id"], taken["credit"], taken["credit_reference_id"]) == ("12345-C", True, "12345")
    assert taken["total_cost"]["before_taxes"] == -original["total_cost"]["before_taxes"]
    assert [one["amount"] for one in taken["total_cost"]["taxes"]] == [
        -one["amount"] for one in original["total_cost"]["taxes"]
    ]
    assert taken["charging_periods"] == original["charging_periods"]
    assert taken["total_energy_cost"] == original["total_energy_cost"]


def test_our_own_cdr_agrees_with_itself_and_a_changed_one_does_not() -> None:
    for version in ("2.2.1", "2.3.0"):
        cdr = cdr_of(priced_by(version), version)
        line = {"cdr": cdr, "timezone": "Europe/Brussels", "ocpi_version": version}
        assert check_invoice(line)["agrees"], check_invoice(line)
        side = "excl_vat" if version == "2.2.1" else "before_taxes"
        cdr["total_cost"][side] += Decimal("0.01")
        answer = check_invoice(line)
        assert [one["field"] for one in answer["differences"]] == [f"total_cost.{side}"]


def test_a_session_of_ocpi_is_checked_by_its_kwh() -> None:
    one = tariff(element(component("ENERGY", 0.25, vat=10)))
    session = {
        "id": "S1",
        "start_date_time": timestamp(START),
        "end_date_time": timestamp(START + HOUR),
        "kwh": 20,
        "currency": "EUR",
        "total_cost": {"excl_vat": 5, "incl_vat": 5.5},
    }
    assert check_invoice({"session": session, "tariff": one.source})["agrees"]
    assert not check_invoice({"session": {**session, "kwh": 21}, "tariff": one.source})["agrees"]


def test_an_invoice_that_cannot_be_checked_says_why() -> None:
    cdr = cdr_of(priced_by("2.2.1"), "2.2.1")
    assert "no tariff" in check_invoice({**cdr, "tariffs": []})["error"]
    local = tariff(element(component("ENERGY", 1), end_time="17:00"))
    assert "time zone" in check_invoice({**cdr, "tariffs": [local.source]})["error"]


def test_numbers_and_timestamps_are_written_without_floats() -> None:
    assert [bytes(number(value)) for value in (0, 5, -12_300, 10_000, 2**60)] == [
        b"0",
        b"0.0005",
        b"-1.23",
        b"1",
        b"115292150460684.6976",
    ]
    assert [timestamp(at) for at in (0, MONDAY + 1)] == ["1970-01-01T00:00:00Z", "2019-01-07T00:00:00.001Z"]


def test_a_session_in_which_nothing_was_rated_has_no_cdr() -> None:
    one = priced_by("2.2.1")
    rated, _ = engine.rate(Session(((START, START, 0),), (Mark(START, CHARGING),)), one, "UTC")
    with pytest.raises(SessionError, match="charging period"):
        document(account_of(rated), facts_of(one), "2.2.1")


# Explanations


def explained(one: Tariff) -> tuple[list[UsageRow], dict[str, Any], engine.Rated]:
    rated, builder = engine.rate(SESSION, one, "Europe/Brussels", DEFAULT, "NL*TST*T@3")
    rows = usage_rows(rated.book, rated.pieces, rated.sessions, rated.settled, 0)
    taxes = list(zip(rated.book.rates[:, RATE_VAT_E4].tolist(), rated.settled.tax_e4[0].tolist(), strict=False))
    totals = Totals(
        int(rated.settled.total_excl_e4[0]), int(rated.settled.total_incl_e4[0]), taxes, int(rated.settled.notes[0])
    )
    readings = [
        Reading(START, 1000),
        Reading(START + HOUR + 123, 13_334_333, "verified"),
        Reading(SESSION.end_ms, 13_334_333),
    ]
    return rows, explain(rows, builder.sources[0], totals, readings, [Held(KWH, "register fell")]), rated


def test_the_rows_of_a_bill_sum_to_its_total_to_the_last_cost_unit() -> None:
    for more in ({}, {"max_price": {"excl_vat": 3}}, {"min_price": {"excl_vat": 30}}):
        rows, _, rated = explained(priced_by("2.2.1", **more))
        assert sum(row.cost for row in rows) == int(rated.settled.total_excl_e4[0]) * COST_PER_E4
        assert {row.dimension for row in rows} >= {STEP}
    rows, _, _ = explained(priced_by("2.2.1", max_price={"excl_vat": 3}))
    assert [row.dimension for row in rows][-1] == MAX_PRICE


def test_every_amount_carries_its_tariff_its_element_and_its_reason() -> None:
    _, explanation, _ = explained(priced_by("2.2.1"))
    lines = explanation["lines"]
    assert all(line["tariff"] == "NL*TST*T@3" and line["why"] for line in lines)
    energy = [line for line in lines if line["row"] == "ENERGY"]
    assert [(line["element"], line["component"], line["quantity"]) for line in energy] == [
        (0, 1, "7.5 kWh"),
        (1, 0, "5.833333 kWh"),
    ]
    assert "below 7.5 kWh" in energy[0]["why"]
    assert (energy[1]["begins_at"], energy[1]["apportioned"]) == ("kwh", True)
    assert [one["signed"] for one in energy[1]["readings"]] == ["unsigned", "verified"]
    assert [line["row"] for line in lines if line["row"] not in ("FLAT", "ENERGY", "PARKING_TIME")] == [
        "STEP",
        "STEP",
        "ROUNDING",
    ]
    json.dumps(explanation)


def test_the_bill_can_be_followed_by_a_customer() -> None:
    _, explanation, rated = explained(priced_by("2.2.1"))
    bill = text(explanation)
    assert "07 Jan 10:00:00-" in bill  # local time of the location
    assert "billed in steps of 0.1 kWh: the rest of the last step" in bill
    assert "1 kWh held back, not billed: register fell" in bill
    assert bill.count("VAT 2") == 2
    assert f"To pay, EUR{int(rated.settled.total_incl_e4[0]) / 10_000:>63.2f}" in bill


def test_a_row_that_nothing_prices_is_said_to_be_free() -> None:
    _, _, rated = explained(priced_by("2.2.1"))
    free = tariff(element(component("FLAT", 1)))
    result, builder = engine.rate(SESSION, free, "UTC")
    rows = usage_rows(result.book, result.pieces, result.sessions, result.settled, 0)
    assert "free" in explain(rows, builder.sources[0], Totals(0, 0))["lines"][1]["why"]
    assert ROUNDING not in {row.dimension for row in rows}
    assert rated.settled.rated_cost[0] > 0


# The command


def test_the_command_prints_one_line_a_line_and_fails_only_when_asked() -> None:
    case = {
        "id": "a",
        "ocpi_version": "2.2.1",
        "timezone": "UTC",
        "tariff": dict(tariff(element(component("ENERGY", 0.25, vat=10))).source),
        "session": {
            "phases": [
                {"start": timestamp(START), "end": timestamp(START + HOUR), "state": "CHARGING", "energy_kwh": "20"}
            ]
        },
    }
    lines = [json.dumps(case), "", "{broken", "[]", json.dumps({"id": "b"})]
    result = CliRunner().invoke(command, ["-"], input="\n".join(lines))
    assert result.exit_code == 0
    answers = [json.loads(line) for line in result.output.splitlines()]
    assert answers[0]["total_cost_incl_vat"] == "5.5000"
    assert ["error" in answer for answer in answers] == [False, True, True, True]
    assert "line 3" in answers[1]["error"]
    assert CliRunner().invoke(command, ["-", "--check"], input="{}").exit_code == 1


def test_a_book_of_many_sheets_writes_each_sessions_own_taxes() -> None:
    builder = BookBuilder(MONDAY, MONDAY + 24 * HOUR)
    one, other = priced_by("2.3.0"), parse_tariff({**priced_by("2.3.0").source, "id": "other"}, "2.3.0")
    sheets = [builder.add(other, "other@1", "UTC"), builder.add(one, "T@1", "UTC")]
    rated = engine.rate_batch(builder.book(), engine.batch_of([SESSION, SESSION], sheets))
    documents = [encode(document(account_of(rated, row), facts_of(one)._replace(id="x"), "2.3.0")) for row in (0, 1)]
    assert documents[0] == documents[1]


def test_charging_periods_are_the_runs_of_equal_state_and_price() -> None:
    dice = random.Random(5)
    sessions = []
    for _ in range(40):
        edges = [START + minute * 300_000 for minute in range(dice.randint(2, 30))]
        metered = tuple((a, b, dice.choice((0, 150_000, 900_000))) for a, b in pairwise(edges))
        marks = tuple(Mark(at, dice.choice((CHARGING, CHARGING, PARKING))) for at in edges[:-1])
        sessions.append(Session(metered, marks))
    builder = BookBuilder(MONDAY, MONDAY + 24 * HOUR)
    sheet = builder.add(priced_by("2.3.0"), "T@1", "UTC")
    rated = engine.rate_batch(builder.book(), engine.batch_of(sessions, [sheet] * len(sessions)))
    reverse: list[Any] = [column[::-1] for column in rated.sessions]
    settled: list[Any] = [column[::-1] for column in rated.settled]
    found = accounts(rated.book, rated.pieces, Sessions(*reverse), Settled(*settled))[::-1]
    assert found == accounts(rated.book, rated.pieces, rated.sessions, rated.settled)
    assert [account.periods for account in found] == [runs(rated, row) for row in range(len(sessions))]
    assert 40 < sum(len(account.periods) for account in found) < len(rated.pieces.start_ms) / 2


def runs(rated: engine.Rated, row: int) -> list[Period]:
    """The slow twin: piece by piece."""
    found: list[Period] = []
    before = None
    first = int(rated.sessions.first_piece[row])
    for at in range(first, first + int(rated.sessions.n_pieces[row])):
        start, state, energy, length = (
            int(value[at])
            for value in (
                rated.pieces.start_ms, rated.pieces.state, rated.pieces.energy_mwh,
                rated.pieces.end_ms - rated.pieces.start_ms,
            )
        )  # fmt: skip
        price = (state, rated.pieces.energy_component[at], rated.pieces.time_component[at])
        if price == before:
            last = found[-1]
            found[-1] = last._replace(energy_mwh=last.energy_mwh + energy, length_ms=last.length_ms + length)
        else:
            found.append(Period(start, state, energy, length))
        before = price
    return found


def test_long_names_that_differ_at_their_end_give_ids_that_differ() -> None:
    names = [f"a-charge-point-of-a-large-network*{number:08d}" for number in range(1000)]
    ids = {short_id(name) for name in names}
    assert len(ids) == len(names)
    assert {len(one) for one in ids} == {36}
    assert short_id("CP1*4711") == "CP1*4711"

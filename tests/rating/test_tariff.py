"""Tariff objects are read whole, and what can't be read is named by path, expectation and finding."""

import json
from decimal import Decimal
from typing import Any

import pytest

from rating.errors import TariffError
from rating.tariff import (
    ENERGY,
    EXPIRED_ELEMENT,
    FLAT,
    TAX_EXCLUDED,
    TAX_INCLUDED,
    TAX_NONE,
    Limits,
    PriceComponent,
    PriceLimit,
    Window,
    parse_tariff,
)

DAY = 86_400_000


def tariff(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "country_code": "NL",
        "party_id": "TST",
        "id": "1",
        "currency": "EUR",
        "elements": [{"price_components": [{"type": "ENERGY", "price": 0.25, "vat": 21, "step_size": 1}]}],
        "last_updated": "2024-01-01T00:00:00Z",
    }
    return {**base, **changes}


def restricted(**restrictions: Any) -> dict[str, Any]:
    component = {"type": "ENERGY", "price": 0.25, "step_size": 1}
    return tariff(elements=[{"price_components": [component], "restrictions": restrictions}])


def error_of(source: Any) -> TariffError:
    with pytest.raises(TariffError) as caught:
        parse_tariff(source)
    return caught.value


def test_a_component_is_read_into_integers() -> None:
    parsed = parse_tariff(tariff())
    assert parsed.elements[0].components == (PriceComponent(ENERGY, 2500, 210_000, 1),)
    assert parsed.ocpi_version == "2.2.1"


def test_no_vat_is_not_zero_vat() -> None:
    source = tariff(elements=[{"price_components": [{"type": "FLAT", "price": 1, "step_size": 1}]}])
    assert parse_tariff(source).elements[0].components[0].vat_e4 is None
    source["elements"][0]["price_components"][0]["vat"] = 0.0
    assert parse_tariff(source).elements[0].components[0].vat_e4 == 0


def test_all_restrictions_are_read_in_their_units() -> None:
    element = parse_tariff(
        restricted(
            start_time="22:00",
            end_time="06:30",
            start_date="1970-01-02",
            end_date="1970-01-03",
            day_of_week=["MONDAY", "SUNDAY"],
            min_kwh=1.0001,
            max_kwh=20,
            min_current=32.0001,
            max_current=63,
            min_power=3.7,
            max_power=150,
            min_duration=60,
            max_duration=3600,
            reservation="RESERVATION_EXPIRES",
        )
    ).elements[0]
    assert element.window == Window(22 * 60, 6 * 60 + 30, 1, 2, 0b1000001)
    assert element.limits == Limits(1_000_100, 20_000_000, 32_001, 63_000, 3_700_000, 150_000_000, 60_000, 3_600_000)
    assert element.reservation == EXPIRED_ELEMENT


def test_nothing_restricted_is_always() -> None:
    element = parse_tariff(restricted(day_of_week=[])).elements[0]
    assert element.window.always
    assert element.limits == Limits()


def test_unknown_fields_and_the_energy_mix_are_carried_through_untouched() -> None:
    source = tariff(energy_mix={"is_green_energy": True}, x_house={"a": [1, 2]})
    before = json.dumps(source)
    assert parse_tariff(source).source is source
    assert json.dumps(source) == before


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"excl_vat": 0.5, "incl_vat": 0.55}, PriceLimit(5000, 5500)),
        ({"excl_vat": 0.5}, PriceLimit(5000, None)),
        ({"before_taxes": 10, "after_taxes": 12.1}, PriceLimit(100_000, 121_000)),
        (
            {"before_taxes": 10, "taxes": [{"name": "VAT", "amount": 2}, {"name": "City", "amount": 0.1}]},
            PriceLimit(100_000, 121_000),
        ),
        (7, PriceLimit(70_000, None)),
    ],
)
def test_price_limits_of_every_version_are_read(value: Any, expected: PriceLimit) -> None:
    parsed = parse_tariff(tariff(min_price=value, max_price=value))
    assert (parsed.min_price, parsed.max_price) == (expected, expected)


@pytest.mark.parametrize(("word", "mode"), [("YES", TAX_INCLUDED), ("NO", TAX_EXCLUDED), ("N/A", TAX_NONE)])
def test_tax_included_tells_a_2_3_0_tariff(word: str, mode: int) -> None:
    parsed = parse_tariff(tariff(tax_included=word))
    assert (parsed.tax, parsed.ocpi_version) == (mode, "2.3.0")


def test_a_tariff_without_owner_is_2_1_1_and_selects_whole_elements() -> None:
    source = tariff()
    del source["country_code"], source["party_id"]
    assert parse_tariff(source).whole_element


def test_validity_is_from_start_to_before_end() -> None:
    parsed = parse_tariff(tariff(start_date_time="1970-01-02T00:00:00Z", end_date_time="1970-01-03T00:00:00"))
    assert [parsed.valid_at(at) for at in (DAY - 1, DAY, 2 * DAY - 1, 2 * DAY)] == [False, True, True, False]


def test_decimal_numbers_are_as_good_as_json_numbers() -> None:
    component = {"type": "FLAT", "price": Decimal("0.1"), "step_size": 1}
    assert parse_tariff(tariff(elements=[{"price_components": [component]}])).elements[0].components[0].price_e4 == 1000


def test_a_flat_price_needs_no_step() -> None:
    parsed = parse_tariff(tariff(elements=[{"price_components": [{"type": "FLAT", "price": 1}]}]))
    assert parsed.elements[0].components[0] == PriceComponent(FLAT, 10_000, None, 0)


@pytest.mark.parametrize(
    ("source", "path", "expected"),
    [
        (None, "$", "an object"),
        (tariff(id=""), "$.id", "a string"),
        (tariff(currency="EURO"), "$.currency", "ISO 4217"),
        (tariff(country_code="NLD"), "$.country_code", "2 characters"),
        (tariff(elements=[]), "$.elements", "at least one entry"),
        (tariff(elements=[{}]), "$.elements[0].price_components", "at least one entry"),
        (tariff(tax_included="MAYBE"), "$.tax_included", "YES"),
        (tariff(start_date_time="soon"), "$.start_date_time", "timestamp"),
        (tariff(min_price={"incl_vat": 1}), "$.min_price", "before_taxes"),
        (tariff(max_price=-1), "$.max_price", "at least 0"),
        (restricted(start_time="7:00"), "$.elements[0].restrictions.start_time", "HH:MM"),
        (restricted(start_time="24:00"), "$.elements[0].restrictions.start_time", "HH:MM"),
        (restricted(end_date="2024-02-30"), "$.elements[0].restrictions.end_date", "YYYY-MM-DD"),
        (restricted(min_kwh=1.00001), "$.elements[0].restrictions.min_kwh", "4 decimals"),
        (restricted(min_kwh="10"), "$.elements[0].restrictions.min_kwh", "a number"),
        (restricted(max_power=float("nan")), "$.elements[0].restrictions.max_power", "finite"),
        (restricted(min_duration=1.5), "$.elements[0].restrictions.min_duration", "whole number"),
        (restricted(day_of_week=["FUNDAY"]), "$.elements[0].restrictions.day_of_week[0]", "MONDAY"),
        (restricted(reservation="YES"), "$.elements[0].restrictions.reservation", "RESERVATION"),
    ],
)
def test_an_error_names_the_path_and_what_was_expected(source: Any, path: str, expected: str) -> None:
    error = error_of(source)
    assert error.path == path
    assert expected in str(error)


@pytest.mark.parametrize(
    ("component", "field"),
    [
        ({"type": "SESSION_TIME", "price": 1, "step_size": 1}, "type"),
        ({"type": "ENERGY", "price": None, "step_size": 1}, "price"),
        ({"type": "ENERGY", "price": True, "step_size": 1}, "price"),
        ({"type": "ENERGY", "price": 1e300, "step_size": 1}, "price"),
        ({"type": "ENERGY", "price": 1, "step_size": -1}, "step_size"),
        ({"type": "ENERGY", "price": 1}, "step_size"),
        ({"type": "ENERGY", "price": 1, "step_size": 1, "vat": -3}, "vat"),
        ({"type": "ENERGY", "price": 1, "step_size": 1, "vat": 100_000}, "vat"),
    ],
)
def test_an_error_in_a_component_names_it(component: dict[str, Any], field: str) -> None:
    error = error_of(tariff(elements=[{"price_components": [component]}]))
    assert error.path == f"$.elements[0].price_components[0].{field}"

"""Totals that the OCPI specification and independent implementations state: tiers A and B must pass.

Tier C is printed as documentation (rating/README.md says which policy or model each follows), tier X never gates.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from rating.cases import price_case
from tests.shared_data import shared

# Engines that price a whole period by its start; ours cuts it (README: "Periods are cut, not priced by their start").
NOT_OURS = "period_start_evaluation"


def cases() -> list[dict[str, Any]]:
    lines = shared("conformance/ocpi/vectors.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def gated() -> list[Any]:
    chosen = (case for case in cases() if case["tier"] in "AB" and NOT_OURS not in case["flags"])
    return [pytest.param(case, id=case["id"]) for case in chosen]


def as_case(case: dict[str, Any]) -> dict[str, Any]:
    """A function-level case (quantise a number) as a tariff and a session that ask the same of the engine."""
    if case["session"] is not None:
        return case
    asked = case["expected"]
    component = {"type": asked["dimension"], "price": 0.25, "step_size": asked["step_size"]}
    hour = {"start": "2024-01-15T10:00:00Z", "end": "2024-01-15T11:00:00Z"}
    return {
        **case,
        "tariff": {"id": "quantise", "currency": "EUR", "elements": [{"price_components": [component]}]},
        "session": {"phases": [{**hour, "state": "CHARGING", "energy_kwh": asked["consumed"]}]},
    }


def stated(case: dict[str, Any]) -> Iterator[tuple[str, Decimal, str]]:
    """What the source states, as (name, what we say, what it says)."""
    priced = price_case({key: value for key, value in as_case(case).items() if key != "expected"})
    assert "error" not in priced, priced
    energy, hours = Decimal(priced["billed_energy_kwh"]), Decimal(priced["total_time_h"])
    derived = {"billed_energy_wh": energy * 1000, "billed": energy, "total_time_min": hours * 60}
    for name, value in case["expected"].items():
        if isinstance(value, dict):
            yield from ((f"{name}.{side}", Decimal(priced[name][side]), value[side]) for side in value if value[side])
        elif name in derived:
            yield name, derived[name], value
        elif name == "total_tax_amount":
            yield name, Decimal(priced["total_cost_incl_vat"]) - Decimal(priced["total_cost_excl_vat"]), value
        elif name in priced and value is not None:
            yield name, Decimal(priced[name]), value


def tolerance(case: dict[str, Any], value: str) -> Decimal:
    """Half a unit of the last printed place, unless the case says otherwise."""
    exponent = Decimal(value).as_tuple().exponent
    assert isinstance(exponent, int)
    return Decimal(case["tolerance"]) if case.get("tolerance") else Decimal(5).scaleb(exponent - 1)


@pytest.mark.parametrize("case", gated())
def test_a_stated_total_is_ours(case: dict[str, Any]) -> None:
    compared = list(stated(case))
    assert compared
    for name, ours, theirs in compared:
        assert abs(ours - Decimal(theirs)) <= tolerance(case, theirs), (name, ours, theirs)


@pytest.mark.parametrize("case", [pytest.param(c, id=c["id"]) for c in cases() if c["expected"].get("components")])
def test_the_parts_that_the_specification_prints_are_ours(case: dict[str, Any]) -> None:
    if case["tier"] == "X":
        pytest.skip("an erratum: its parts contradict its own tariff")
    priced = price_case({key: value for key, value in case.items() if key != "expected"})
    names = {"TIME": "time_cost", "PARKING_TIME": "parking_cost", "ENERGY": "energy_cost", "FLAT": "flat_cost"}
    sums: dict[str, Decimal] = {}
    for part in case["expected"]["components"]:
        name = names.get(part["type"], "reservation_cost")
        sums[name] = sums.get(name, Decimal(0)) + Decimal(part["excl"])
    for name, total in sums.items():
        assert abs(Decimal(priced[name]["excl"]) - total) <= Decimal("0.006"), name


def test_nothing_under_expected_is_read() -> None:
    case = next(case for case in cases() if case["tier"] == "A")
    assert price_case(case) == price_case({key: value for key, value in case.items() if key != "expected"})


def test_every_case_has_an_answer_or_a_reason() -> None:
    for case in cases():
        priced = price_case(case)
        assert priced["id"] == case["id"]
        assert "error" in priced or "total_cost_excl_vat" in priced

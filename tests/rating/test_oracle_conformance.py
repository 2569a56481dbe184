"""The oracle itself is held against what the standard and independent implementations state, before it judges us."""

from collections.abc import Callable
from fractions import Fraction

import pytest

from tests.oracle import Session
from tests.oracle_bill import NOTHING, Amount, Bill, excess, settle
from tests.oracle_cases import Case, cases, instant, scaled
from tests.shared_data import shared

VECTORS = list(cases(shared("conformance/ocpi/vectors.jsonl")))
GATING = [case for case in VECTORS if case.tier in "AB" and "period_start_evaluation" not in case.flags]
RATED = [case for case in GATING if "function_level" not in case.flags]
FUNCTION_LEVEL = [case for case in GATING if "function_level" in case.flags]


def _sum(bill: Bill, *dimensions: str) -> Amount:
    total = NOTHING
    for dimension in dimensions:
        total = total.plus(bill.by_dimension.get(dimension, NOTHING))
    return total


def _hours(bill: Bill, *states: str) -> Fraction:
    return Fraction(sum(piece.end_ms - piece.start_ms for piece in bill.pieces if piece.state in states), 3_600_000)


def _session_hours(case: Case, session: Session) -> Fraction:
    return Fraction(instant(case.raw["session"]["end"]) - session.start_ms, 3_600_000)


MONEY: dict[str, Callable[[Bill], Amount]] = {
    "flat_cost": lambda bill: _sum(bill, "FLAT"),
    "energy_cost": lambda bill: _sum(bill, "ENERGY"),
    "time_cost": lambda bill: _sum(bill, "TIME"),
    "parking_cost": lambda bill: _sum(bill, "PARKING_TIME"),
}
COMPONENT_MONEY = {
    "FLAT": ("FLAT",),
    "ENERGY": ("ENERGY",),
    "TIME": ("TIME",),
    "PARKING_TIME": ("PARKING_TIME",),
    "RESERVATION_TIME": ("RESERVATION",),
}
NUMBERS: dict[str, Callable[[Bill], Fraction]] = {
    "total_energy_kwh": lambda bill: Fraction(sum(piece.energy_mwh for piece in bill.pieces), 1_000_000),
    "total_time_min": lambda bill: 60 * _hours(bill, "CHARGING", "PARKING"),
    "total_parking_time_h": lambda bill: _hours(bill, "PARKING"),
    "billed_energy_kwh": lambda bill: Fraction(bill.quantity("ENERGY"), 1_000_000),
    "billed_energy_wh": lambda bill: Fraction(bill.quantity("ENERGY"), 1000),
    "billed_time_min": lambda bill: Fraction(bill.quantity("TIME"), 60_000),
    "billed_parking_min": lambda bill: Fraction(bill.quantity("PARKING_TIME"), 60_000),
    "total_tax_amount": lambda bill: bill.after_limits.incl - bill.after_limits.excl,
}


def _agrees(case: Case, what: str, got: Fraction, stated: str | None) -> None:
    """Equal to the printed number of decimals, half a unit of the last place, or within the stated tolerance."""
    if stated is None:
        return
    decimals = len(stated.partition(".")[2])
    tolerance = Fraction(case.raw.get("tolerance") or Fraction(1, 2 * 10**decimals))
    assert abs(got - Fraction(stated)) <= tolerance, f"{case.id} {what}: {float(got)} but {stated} is stated"


@pytest.mark.parametrize("case", RATED, ids=lambda case: case.id)
def test_the_oracle_gives_what_the_case_states(case: Case) -> None:
    session = case.session()
    bill = settle(case.tariff(), session)
    expected = case.raw["expected"]
    _agrees(case, "excl", bill.after_limits.excl, expected.get("total_cost_excl_vat"))
    _agrees(case, "incl", bill.after_limits.incl, expected.get("total_cost_incl_vat"))
    _agrees(case, "total_time_h", _session_hours(case, session), expected.get("total_time_h"))
    for name, money in MONEY.items():
        for side in ("excl", "incl"):
            _agrees(case, f"{name} {side}", getattr(money(bill), side), (expected.get(name) or {}).get(side))
    for name, number in NUMBERS.items():
        _agrees(case, name, number(bill), expected.get(name))


@pytest.mark.parametrize(
    "case", [case for case in RATED if case.raw["expected"].get("components")], ids=lambda case: case.id
)
def test_each_stated_line_of_the_bill_agrees(case: Case) -> None:
    bill = settle(case.tariff(), case.session())
    for name, dimension in COMPONENT_MONEY.items():
        for side in ("excl", "incl"):
            stated = [line[side] for line in case.raw["expected"]["components"] if line["type"] == name]
            if not stated or None in stated:
                continue
            printed = max(stated, key=lambda text: len(text.partition(".")[2]))
            total = sum((Fraction(text) for text in stated), Fraction(0))
            tolerance = Fraction(len(stated), 2 * 10 ** len(printed.partition(".")[2]))
            assert abs(getattr(_sum(bill, *dimension), side) - total) <= tolerance, (name, side)


@pytest.mark.parametrize(
    "case", [case for case in RATED if case.raw["expected"].get("billed_by_segment")], ids=lambda case: case.id
)
def test_each_stated_segment_is_billed_as_stated(case: Case) -> None:
    bill = settle(case.tariff(), case.session())
    for segment in case.raw["expected"]["billed_by_segment"]:
        billed = sum(
            quantity for (_, (element, _)), quantity in bill.billed.items() if element == segment["element_index"]
        )
        assert billed == scaled(segment["billed_min"], 60_000)


@pytest.mark.parametrize("case", FUNCTION_LEVEL, ids=lambda case: case.id)
def test_a_quantity_is_rounded_up_to_its_step(case: Case) -> None:
    expected = case.raw["expected"]
    consumed = scaled(expected["consumed"], 1_000_000)
    assert consumed + excess(consumed, expected["step_size"] * 1000) == scaled(expected["billed"], 1_000_000)

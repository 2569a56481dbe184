"""Settlement: steps, taxes, limits and rounding, each exactly and each as its own row."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import uint64

from rating import engine, wide
from rating.columns import CHARGING, PARKING, RESERVATION
from rating.errors import BoundsError
from rating.money import COST_PER_E4, COST_PER_UNIT
from rating.policy import EXACT_TOTALS, Policy
from rating.ratesheet import BookBuilder
from rating.session import Mark, Session
from rating.settle import (
    BEYOND_BOUNDS,
    C_FLAT,
    NOTE_EXCL_LOWERED,
    NOTE_MAX_PRICE,
    NOTE_MIN_PRICE,
    NOTE_TAX_SCALED,
    Q_ENERGY,
    Q_PARKING,
    Q_TIME,
    Sessions,
    Settled,
    note_codes,
    settle,
)
from rating.tariff import TAX_INCLUDED, Tariff
from tests.rating.tariffs import HOUR, KWH, MONDAY, component, element, tariff

MINUTE = 60_000


def settled(one: Tariff, *phases: tuple[int, int, int], policy: Policy = EXACT_TOTALS) -> Settled:
    """Settle phases of (state, minutes, mWh), one after the other from Monday noon."""
    intervals, marks, at = [], [], MONDAY + 12 * HOUR
    for state, minutes, energy in phases:
        marks.append(Mark(at, state))
        intervals.append((at, at + minutes * MINUTE, energy))
        at += minutes * MINUTE
    return engine.rate(Session(tuple(intervals), tuple(marks)), one, "UTC", policy)[0].settled


def totals(one: Settled) -> tuple[int, int]:
    return int(one.total_excl_e4[0]), int(one.total_incl_e4[0])


def adds_up(one: Settled, tax_included: bool) -> bool:
    rows = one.rated_cost + one.step_cost.sum(axis=1) + one.min_cost + one.max_cost + one.rounding_cost
    total = one.total_incl_e4 if tax_included else one.total_excl_e4
    return bool(
        (rows == total * COST_PER_E4).all() and (one.tax_e4.sum(axis=1) == one.total_incl_e4 - one.total_excl_e4).all()
    )


# step_size


def test_energy_is_rounded_up_once_by_the_last_step_at_the_last_price() -> None:
    one = tariff(
        element(component("ENERGY", 2, 8000), max_kwh=5),
        element(component("ENERGY", 4, 5000)),
    )
    result = settled(one, (CHARGING, 60, 12 * KWH))
    assert result.step[0, Q_ENERGY] == 3 * KWH
    assert totals(result)[0] == (5 * 2 + 7 * 4 + 3 * 4) * 10_000


def test_an_exact_multiple_stays_and_step_0_means_none() -> None:
    for step in (500, 0, 1):
        result = settled(tariff(element(component("ENERGY", 1, step))), (CHARGING, 60, 5_500_000))
        assert not result.step.any()


def test_if_parking_is_priced_only_parking_is_rounded() -> None:
    one = tariff(element(component("TIME", 6, 600), component("PARKING_TIME", 6, 600)))
    result = settled(one, (CHARGING, 21, 0), (PARKING, 16, 0))
    assert result.step[0].tolist() == [0, 0, 4 * MINUTE, 0]


def test_parking_before_charging_is_rounded_all_the_same() -> None:
    one = tariff(element(component("TIME", 6, 600), component("PARKING_TIME", 6, 600)))
    result = settled(one, (PARKING, 16, 0), (CHARGING, 21, 0))
    assert result.step[0].tolist() == [0, 0, 4 * MINUTE, 0]


def test_unpriced_parking_leaves_the_step_to_charging_time() -> None:
    result = settled(tariff(element(component("TIME", 6, 600))), (CHARGING, 21, 0), (PARKING, 16, 0))
    assert result.step[0].tolist() == [0, 9 * MINUTE, 0, 0]


def test_a_reservation_is_rounded_on_its_own() -> None:
    one = tariff(element(component("TIME", 6, 600), reservation="RESERVATION"), element(component("TIME", 6, 600)))
    result = settled(one, (RESERVATION, 11, 0), (CHARGING, 21, 0))
    assert result.step[0].tolist() == [0, 9 * MINUTE, 0, 9 * MINUTE]


def test_free_energy_is_no_base_for_a_step() -> None:
    one = tariff(element(component("ENERGY", 1, 1000), min_kwh=2))
    result = settled(one, (CHARGING, 60, 4_500_000))
    assert result.priced[0, Q_ENERGY] == 2_500_000
    assert result.step[0, Q_ENERGY] == 500_000
    assert "energy_free" in note_codes(int(result.notes[0]))


def test_a_policy_may_leave_steps_out() -> None:
    one = tariff(element(component("ENERGY", 1, 1000)))
    result = settled(one, (CHARGING, 60, 500_000), policy=Policy(total_decimals=4, step_size="ignore"))
    assert totals(result)[0] == 5000


# Taxes and limits


def test_tax_of_several_rates_is_one_line_a_rate() -> None:
    one = tariff(element(component("FLAT", 0.5, vat=20), component("ENERGY", 0.25, vat=10)))
    result = settled(one, (CHARGING, 60, 20 * KWH))
    assert totals(result) == (55_000, 61_000)
    assert result.tax_e4[0, :2].tolist() == [1000, 5000]
    assert result.excl_e4[0, [Q_ENERGY, C_FLAT]].tolist() == [50_000, 5000]


def test_included_tax_is_taken_out_exactly() -> None:
    one = tariff(
        element(component("TIME", 2.2, vat=10), component("ENERGY", 1, vat=21)), version="2.3.0", tax_included="YES"
    )
    result = settled(one, (CHARGING, 60, KWH))
    assert totals(result) == (28_264, 32_000)  # 2.0 + 1 / 1.21 = 2.82644...
    assert adds_up(result, tax_included=True)


@pytest.mark.parametrize(
    ("limits", "expected", "notes"),
    [
        ({"max_price": {"before_taxes": 10}}, (100_000, 120_000), NOTE_MAX_PRICE | NOTE_TAX_SCALED),
        ({"max_price": {"before_taxes": 1000, "after_taxes": 29}}, (250_000, 290_000), 0),
        (
            {"max_price": {"before_taxes": 1000, "after_taxes": 20}},
            (200_000, 200_000),
            NOTE_MAX_PRICE | NOTE_EXCL_LOWERED,
        ),
        ({"min_price": {"before_taxes": 50}}, (500_000, 600_000), NOTE_MIN_PRICE | NOTE_TAX_SCALED),
        ({"min_price": {"before_taxes": 0, "after_taxes": 31}}, (250_000, 310_000), 0),
        ({"min_price": {"before_taxes": 50, "after_taxes": 70}}, (500_000, 700_000), NOTE_MIN_PRICE | NOTE_TAX_SCALED),
    ],
)
def test_limits_clamp_each_side(limits: dict[str, Any], expected: tuple[int, int], notes: int) -> None:
    one = tariff(element(component("ENERGY", 0.25, vat=20)), version="2.3.0", tax_included="NO", **limits)
    result = settled(one, (CHARGING, 60, 100 * KWH))
    assert totals(result) == expected
    assert int(result.notes[0]) == notes
    assert adds_up(result, tax_included=False)


def test_nothing_at_all_costs_the_minimum() -> None:
    one = tariff(element(component("ENERGY", 0.25, vat=20)), min_price={"excl_vat": 0.5, "incl_vat": 0.6})
    assert totals(settled(one, (CHARGING, 60, 0))) == (5000, 6000)


def test_no_tax_applies_where_the_tariff_says_so() -> None:
    one = tariff(element(component("ENERGY", 0.25, vat=21)), version="2.3.0", tax_included="N/A")
    assert totals(settled(one, (CHARGING, 60, 20 * KWH))) == (50_000, 50_000)


@pytest.mark.parametrize(("currency", "expected"), [("EUR", 10_100), ("JPY", 10_000), ("KWD", 10_060)])
def test_totals_are_rounded_half_away_to_the_minor_unit(currency: str, expected: int) -> None:
    one = tariff(element(component("FLAT", 1.0055)), currency=currency)
    result = settled(one, (CHARGING, 60, 0), policy=Policy())
    assert totals(result)[0] == expected
    assert result.rounding_cost[0] == (expected - 10_055) * COST_PER_E4


def test_negative_prices_round_away_from_zero_too() -> None:
    result = settled(tariff(element(component("FLAT", -1.005))), (CHARGING, 60, 0), policy=Policy())
    assert totals(result)[0] == -10_100


# Properties


def mixed(tax: str, **limits: Any) -> Tariff:
    return tariff(
        element(component("FLAT", 0.35, vat=6), component("ENERGY", 0.2537, 250, vat=21), max_kwh=7),
        element(
            component("ENERGY", 0.41, 100, vat=19),
            component("TIME", 1.99, 300, vat=21),
            component("PARKING_TIME", 3, 900),
        ),
        version="2.3.0",
        tax_included=tax,
        **limits,
    )


AMOUNTS = st.one_of(st.none(), st.integers(0, 500_000).map(lambda e4: e4 / 10_000))


@settings(deadline=None)
@given(
    tax=st.sampled_from(["YES", "NO", "N/A"]),
    charge=st.tuples(st.integers(0, 600), st.integers(0, 90 * KWH)),
    parked=st.integers(0, 600),
    low=AMOUNTS,
    high=AMOUNTS,
    decimals=st.sampled_from([None, 4, 0]),
)
def test_rows_sum_to_the_total_and_tax_lines_to_the_tax(
    tax: str, charge: tuple[int, int], parked: int, low: float | None, high: float | None, decimals: int | None
) -> None:
    limits = {
        name: {"before_taxes": value} for name, value in (("min_price", low), ("max_price", high)) if value is not None
    }
    one = mixed(tax, **limits)
    result = settled(one, (CHARGING, *charge), (PARKING, parked, 0), policy=Policy(total_decimals=decimals))
    assert adds_up(result, one.tax == TAX_INCLUDED)
    assert 0 <= totals(result)[0] <= totals(result)[1]


@settings(deadline=None)
@given(tax=st.sampled_from(["YES", "NO", "N/A"]), energy=st.integers(0, 90 * KWH), more=st.integers(0, 5 * KWH))
def test_more_energy_never_costs_less(tax: str, energy: int, more: int) -> None:
    less, greater = (settled(mixed(tax), (CHARGING, 60, amount)) for amount in (energy, energy + more))
    assert totals(less) <= totals(greater)


# The edges of 64 bits


def test_a_session_beyond_the_bounds_is_refused_and_leaves_nothing_behind() -> None:
    one = tariff(element(component("ENERGY", 1000)))
    builder = BookBuilder(MONDAY, MONDAY + HOUR)
    sheet = builder.add(one, "T@1", "UTC")
    fine = Session(((MONDAY, MONDAY + HOUR, KWH),), (Mark(MONDAY, CHARGING),))
    rated = engine.rate_batch(builder.book(), engine.batch_of([fine], [sheet]))
    rated.pieces.energy_mwh[0] = 2**50
    free = np.full(1, -1, np.int32)
    result = settle(
        rated.book,
        Sessions(np.zeros(1, np.int32), np.zeros(1, np.int64), np.ones(1, np.int64), free, free, free),
        rated.pieces,
    )
    assert result.status[0] == BEYOND_BOUNDS
    assert not result.cost.any()
    assert not result.rated_cost.any()


def test_an_impossible_session_is_an_error_offline() -> None:
    one = tariff(element(component("ENERGY", 0.25)))
    with pytest.raises(BoundsError):
        settled(one, (CHARGING, 60, 2**62))


def test_the_dearest_session_within_the_bounds_is_exact() -> None:
    one = tariff(element(component("ENERGY", 600_000, vat=100), component("FLAT", 6_000_000, vat=100)))
    result = settled(one, (CHARGING, 60, 10 * KWH))
    assert totals(result) == (12_000_000 * 10_000, 24_000_000 * 10_000)
    assert result.cost[0, Q_ENERGY] == 6_000_000 * COST_PER_UNIT
    assert result.cost[0, Q_TIME] == result.cost[0, Q_PARKING] == 0


def test_tax_that_leaves_the_bounds_is_refused() -> None:
    one = tariff(element(component("ENERGY", 600_000, vat=1000), component("FLAT", 6_000_000, vat=1000)))
    with pytest.raises(BoundsError):
        settled(one, (CHARGING, 60, 10 * KWH))


WORDS = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(a=st.integers(-(2**63) + 1, 2**63 - 1), b=st.integers(0, 2**63 - 1), by=st.integers(1, 2**63 - 1))
def test_products_and_quotients_are_those_of_unbounded_integers(a: int, b: int, by: int) -> None:
    low, high = wide.signed_product(a, b)
    whole = int(low) + (int(high) << 64)
    assert whole == (a * b) % 2**128
    exact = abs(a * b) // by
    expected = -exact if a * b < 0 else exact
    found = wide.divided(uint64(low), uint64(high), by)
    assert found == (expected if exact < 2**62 else wide.TOO_WIDE)


@settings(deadline=None)
@given(low=WORDS, high=st.integers(0, 2**62), factor=st.integers(0, 2**62), by_low=WORDS, by_high=st.integers(0, 2**62))
def test_a_scaled_limit_is_that_of_unbounded_integers(
    low: int, high: int, factor: int, by_low: int, by_high: int
) -> None:
    by = by_low + (by_high << 64)
    if by == 0:
        return
    exact = (low + (high << 64)) * factor // by
    found = wide.quotient(uint64(low), uint64(high), uint64(factor), uint64(by_low), uint64(by_high))
    assert found == (exact if exact < 2**62 else wide.TOO_WIDE)


@pytest.mark.parametrize("edge", [2**62 - 1, 2**62, 2**63 - 1])
def test_results_at_the_edge_of_63_bits(edge: int) -> None:
    low, high = (uint64(word) for word in wide.multiply(uint64(edge), uint64(1_000_000)))
    whole = wide.quotient(low, high, uint64(1), uint64(1_000_000), uint64(0))
    assert whole == (edge if edge < 2**62 else wide.TOO_WIDE)
    low, high = (uint64(word) for word in wide.signed_product(-edge, 1_210_000))
    assert wide.divided(low, high, 12_100_000) == -(edge // 10)

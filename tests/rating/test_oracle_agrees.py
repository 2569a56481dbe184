"""Engine and oracle, two programs that share no line, give the same pieces, costs and totals by `==`."""

import copy
from itertools import chain
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rating.errors import BoundsError, TariffError
from rating.money import COST_PER_UNIT
from rating.tariff import parse_tariff
from tests.bulk import compare, differing_money, differing_pieces, joined
from tests.engine_door import rate, sheet_of
from tests.generated import Pair
from tests.oracle import Interval, Mark, Reservation, Session, Tariff
from tests.oracle_bill import settle
from tests.strategies import broken_tariffs, json_values, pairs, tariffs

SESSIONS = 100_000
BOUND = 2**60  # cost units of one dimension of one session: 6.4 million currency units
RELAXED = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def agree(pair: Pair) -> None:
    rated = rate(sheet_of(pair.tariff, pair.zone, pair.version, pair.sessions), pair.sessions)
    tariff = Tariff(pair.tariff, pair.zone, pair.version)
    for number, session in enumerate(pair.sessions):
        bill = settle(tariff, session)
        assert not list(chain(differing_pieces(rated, number, bill), differing_money(rated, number, bill)))


@pytest.mark.timeout(1800)  # 80 s of one core; a machine that shares it may need many times that
def test_a_hundred_thousand_random_sessions_agree_with_the_oracle() -> None:
    report = compare(sessions=SESSIONS, seed=2026)
    assert report.sessions >= SESSIONS
    assert not report.disagreements, f"{len(report.disagreements)}:\n" + "\n".join(report.disagreements[:3])


@RELAXED
@given(pairs())
def test_any_session_under_any_tariff_agrees_with_the_oracle(pair: Pair) -> None:
    agree(pair)


def test_what_flowed_before_an_instant_is_priced_by_what_held_before_it() -> None:
    # Nearly 17 kWh within one ms: the threshold and the end of charging lie at the same instant.
    elements = [
        {"price_components": [{"type": "ENERGY", "price": 1, "step_size": 1}], "restrictions": {"max_kwh": 0.0001}},
        {"price_components": [{"type": "ENERGY", "price": 2, "step_size": 1}], "restrictions": {"max_power": 11}},
        {"price_components": [{"type": "ENERGY", "price": 3, "step_size": 1}]},
    ]
    tariff = {"country_code": "NL", "party_id": "TST", "id": "1", "currency": "EUR", "elements": elements}
    marks = [Mark(1000, "CHARGING", 5_000_000), Mark(1001, "PARKING", 50_000_000)]
    session = Session([Interval(1000, 1001, 17_000_000), Interval(1001, 1003, 0)], marks)
    rated = rate(sheet_of(tariff, "UTC", "2.2.1", [session]), [session])
    assert [(piece.energy_mwh, piece.energy) for piece in rated.pieces_of(0)][:2] == [
        (100, (0, 0)),
        (16_999_900, (1, 0)),
    ]
    agree(Pair(tariff, "UTC", "2.2.1", [session]))


def test_a_duration_reached_in_the_ms_of_a_threshold_counts_from_that_ms_on() -> None:
    elements = [
        {"price_components": [{"type": "ENERGY", "price": 1, "step_size": 1}], "restrictions": {"max_kwh": 1}},
        {"price_components": [{"type": "ENERGY", "price": 2, "step_size": 1}], "restrictions": {"max_duration": 1}},
        {"price_components": [{"type": "ENERGY", "price": 3, "step_size": 1}]},
    ]
    tariff = {"country_code": "NL", "party_id": "TST", "id": "1", "currency": "EUR", "elements": elements}
    # 1 kWh is reached in the last ms of the first second, and half a kWh more flows in that ms.
    session = Session(
        [Interval(0, 999, 999_999), Interval(999, 1000, 500_001), Interval(1000, 2000, 7)], [Mark(0, "CHARGING")]
    )
    agree(Pair(tariff, "UTC", "2.2.1", [session]))
    rated = rate(sheet_of(tariff, "UTC", "2.2.1", [session]), [session])
    priced = [(piece.energy_mwh, piece.energy) for piece in joined(rated.pieces_of(0))]
    assert priced == [(1_000_000, (0, 0)), (500_000, (1, 0)), (7, (2, 0))]


def test_a_reservation_that_lasted_no_time_hides_nothing_of_the_session() -> None:
    flat = [{"type": "FLAT", "price": 2, "step_size": 0}]
    elements = [{"price_components": flat, "restrictions": {"min_power": 11}}]
    tariff = {"country_code": "NL", "party_id": "TST", "id": "1", "currency": "EUR", "elements": elements}
    session = Session([Interval(0, 60_000, 1)], [Mark(0, "CHARGING", 22_000_000)], Reservation(0, 0, expired=False))
    agree(Pair(tariff, "UTC", "2.2.1", [session]))


def one_price(price: float, **more: Any) -> dict[str, Any]:
    """A tariff with one ENERGY, TIME and FLAT price."""
    components = [{"type": name, "price": price, "step_size": 0, **more} for name in ("ENERGY", "TIME", "FLAT")]
    head = {"country_code": "NL", "party_id": "TST", "id": "1", "currency": "EUR"}
    return {**head, "elements": [{"price_components": components}]}


def charged(length_ms: int, energy_mwh: int) -> Session:
    return Session([Interval(1_767_225_600_000, 1_767_225_600_000 + length_ms, energy_mwh)], [Mark(0, "CHARGING")])


@RELAXED
@given(pairs(), st.integers(-999_999, 999_999))
def test_negative_prices_agree_with_the_oracle(pair: Pair, price_e4: int) -> None:
    """Prices that follow an exchange do fall below zero."""
    for element in pair.tariff["elements"]:
        element["price_components"][0]["price"] = price_e4 / 10_000
    agree(pair)


@RELAXED
@given(
    st.integers(1, 6 * 10**10).map(lambda e4: e4 / 10_000),
    st.sampled_from((0, 20, 999.9999)),
    st.integers(0, 2**62),
    st.integers(0, 2**40),
    st.sampled_from(("YES", "NO", "N/A")),
)
def test_quantities_up_to_the_edge_of_64_bits_agree_or_are_refused(
    price: float, vat: float, energy_mwh: int, length_ms: int, mode: str
) -> None:
    tariff = one_price(price, vat=vat) | {"tax_included": mode}
    session = charged(length_ms, energy_mwh)
    try:
        rate(sheet_of(tariff, "UTC", "2.3.0", [session]), [session])
    except BoundsError:
        refused = True
    else:
        refused = False
    cost = round(price * 10_000) * max(energy_mwh * 18, length_ms * 5, 18_000_000)
    if refused:
        # At least a million currency units, or energy × time beyond 2^62: no charging session.
        assert cost > 1_000_000 * COST_PER_UNIT or energy_mwh * length_ms > 2**62
        return
    agree(Pair(tariff, "UTC", "2.3.0", [session]))


def test_the_largest_session_that_is_rated_is_rated_exactly_and_the_next_is_refused() -> None:
    tariff = one_price(999_999.9999, vat=21)
    largest = BOUND // (18 * 9_999_999_999)
    agree(Pair(tariff, "UTC", "2.2.1", [charged(1000, largest)]))
    with pytest.raises(BoundsError):
        rate(sheet_of(tariff, "UTC", "2.2.1", [charged(1000, largest + 1)]), [charged(1000, largest + 1)])


@RELAXED
@given(broken_tariffs())
def test_a_broken_tariff_is_refused_where_it_is_broken(broken: tuple[dict[str, Any], str, str]) -> None:
    source, path, version = broken
    with pytest.raises(TariffError) as refusal:
        parse_tariff(source, version)
    assert refusal.value.path.startswith(path)
    assert refusal.value.path in str(refusal.value)


@RELAXED
@given(tariffs("2.3.0"), json_values, st.data())
def test_whatever_stands_anywhere_in_a_tariff_is_read_or_refused_with_its_path(
    tariff: dict[str, Any], value: Any, data: st.DataObject
) -> None:
    source = copy.deepcopy(tariff)
    container: Any = source
    while True:
        key = data.draw(st.sampled_from(sorted(container) if isinstance(container, dict) else range(len(container))))
        if not container[key] or not isinstance(container[key], dict | list) or data.draw(st.booleans()):
            break
        container = container[key]
    container[key] = value
    try:
        parse_tariff(source)
    except TariffError as error:
        assert error.path.startswith("$")


@given(json_values)
def test_no_json_value_at_all_makes_the_parser_fall_over(value: Any) -> None:
    with pytest.raises(TariffError):
        parse_tariff(value)

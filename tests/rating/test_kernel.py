"""The kernel cuts where a price may change, conserves every mWh, and refuses rather than overflows."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rating.columns import (
    ABSENT,
    CHARGING,
    FREE,
    MISSING_POWER,
    PARKING,
    SPLIT_DURATION,
    SPLIT_KWH,
    SPLIT_POWER,
    SPLIT_READING,
    SPLIT_STATE,
    SPLIT_TIME,
    Marks,
    Pieces,
    empty_pieces,
)
from rating.jit import kernel
from rating.kernel import NO_ROOM, NOT_COVERED, OUT_OF_BOUNDS, check_bounds, flat_component, rate_interval
from rating.ratesheet import SLOT_FLAT, Book, BookBuilder
from rating.tariff import Tariff
from tests.rating.tariffs import HOUR, KWH, MONDAY, component, element, tariff

DAY = 24 * HOUR


class Cut(NamedTuple):
    """One piece as a test reads it: start and end relative to the interval's start."""

    start: int
    end: int
    energy: int
    split: int
    energy_component: int
    time_component: int


def book_of(one: Tariff, zone: str = "UTC") -> Book:
    builder = BookBuilder(MONDAY - DAY, MONDAY + 30 * DAY)
    builder.add(one, "T@1", zone)
    return builder.book()


def marks_of(*rows: tuple[int, int, int, int]) -> Marks:
    columns = list(zip(*rows, strict=True))
    return Marks(
        np.array(columns[0], np.int64),
        np.array(columns[1], np.int8),
        np.array(columns[2], np.int64),
        np.array(columns[3], np.int64),
    )


def rate(
    book: Book,
    start: int,
    end: int,
    energy: int,
    marks: Marks | None = None,
    before: int = 0,
    session_start: int | None = None,
    pieces: Pieces | None = None,
) -> tuple[int, Pieces]:
    marks = marks or marks_of((start, CHARGING, ABSENT, ABSENT))
    pieces = pieces or empty_pieces(64)
    began = start if session_start is None else session_start
    return _rate(book, began, before, marks, start, end, energy, pieces), pieces


@kernel
def _rate(book: Book, began: int, before: int, marks: Marks, start: int, end: int, energy: int, pieces: Pieces) -> int:
    return rate_interval(book, 0, 7, began, before, marks, 0, len(marks.state), start, end, energy, pieces, 0)


def cuts(book: Book, start: int, end: int, energy: int, marks: Marks | None = None, before: int = 0) -> list[Cut]:
    count, pieces = rate(book, start, end, energy, marks, before)
    assert count >= 0
    return [
        Cut(
            int(pieces.start_ms[at] - start),
            int(pieces.end_ms[at] - start),
            int(pieces.energy_mwh[at]),
            int(pieces.split[at]),
            int(pieces.energy_component[at]),
            int(pieces.time_component[at]),
        )
        for at in range(count)
    ]


def test_one_price_is_one_piece() -> None:
    book = book_of(tariff(element(component("ENERGY", 1))))
    assert cuts(book, MONDAY, MONDAY + HOUR, KWH) == [Cut(0, HOUR, KWH, SPLIT_READING, 0, FREE)]


def test_a_local_time_inside_an_interval_cuts_it_and_divides_its_energy_by_the_curve() -> None:
    book = book_of(
        tariff(element(component("ENERGY", 1), end_time="17:00"), element(component("ENERGY", 2))), "Europe/Berlin"
    )
    start = MONDAY + 15 * HOUR + HOUR // 2  # 16:30 in Berlin
    assert cuts(book, start, start + 2 * HOUR, 1_000_001) == [
        Cut(0, HOUR // 2, 250_000, SPLIT_READING, 0, FREE),
        Cut(HOUR // 2, 2 * HOUR, 750_001, SPLIT_TIME, 1, FREE),
    ]


def test_a_kwh_threshold_is_reached_exactly_and_its_rest_follows() -> None:
    book = book_of(tariff(element(component("ENERGY", 1), max_kwh=5), element(component("ENERGY", 2))))
    first, second = cuts(book, MONDAY, MONDAY + 1000, 7_000_003)
    assert first.energy == 5_000_000
    assert first.end == -(-5_000_000 * 1000 // 7_000_003) == second.start
    assert second == Cut(715, 1000, 2_000_003, SPLIT_KWH, 1, FREE)


def test_thresholds_within_one_ms_make_pieces_of_zero_length() -> None:
    steps = [element(component("ENERGY", at + 1), max_kwh=at + 1) for at in range(3)]
    book = book_of(tariff(*steps, element(component("ENERGY", 9))))
    assert [(c.start, c.end, c.energy) for c in cuts(book, MONDAY, MONDAY + 1, 5 * KWH)] == [
        (0, 1, KWH),
        (1, 1, KWH),
        (1, 1, KWH),
        (1, 1, 2 * KWH),
    ]


def test_what_flowed_before_a_duration_is_priced_by_what_held_before_it() -> None:
    limits = [element(component("ENERGY", 1), max_kwh=1), element(component("ENERGY", 2), max_duration=1)]
    book = book_of(tariff(*limits, element(component("ENERGY", 3))))
    found = cuts(book, MONDAY + 999, MONDAY + 1001, 4 * KWH)
    assert [(c.energy, c.energy_component) for c in found] == [(KWH, 0), (3 * KWH, 1)]
    count, pieces = rate(book, MONDAY + 999, MONDAY + 1001, 4 * KWH, session_start=MONDAY)
    assert list(zip(pieces.energy_mwh[:count].tolist(), pieces.energy_component[:count].tolist(), strict=True)) == [
        (KWH, 0),
        (KWH, 1),  # the rest of the first ms, at the instant at which the duration is reached
        (2 * KWH, 2),
    ]


def test_energy_at_one_instant_is_kept() -> None:
    book = book_of(tariff(element(component("ENERGY", 1), max_kwh=1), element(component("ENERGY", 2))))
    assert [(c.energy, c.energy_component) for c in cuts(book, MONDAY, MONDAY, 3 * KWH)] == [(KWH, 0), (2 * KWH, 1)]


def test_a_duration_cuts_from_the_start_of_the_session() -> None:
    book = book_of(tariff(element(component("TIME", 1), max_duration=3600), element(component("TIME", 3))))
    _, pieces = rate(book, MONDAY + HOUR // 2, MONDAY + 2 * HOUR, 0, session_start=MONDAY)
    assert pieces.end_ms[0] == MONDAY + HOUR
    assert (pieces.split[1], pieces.time_component[1]) == (SPLIT_DURATION, 1)


def test_energy_flows_only_while_charging() -> None:
    book = book_of(tariff(element(component("ENERGY", 1), component("TIME", 2), component("PARKING_TIME", 3))))
    marks = marks_of((MONDAY, CHARGING, ABSENT, ABSENT), (MONDAY + HOUR // 4, PARKING, ABSENT, ABSENT))
    assert cuts(book, MONDAY, MONDAY + HOUR, KWH, marks) == [
        Cut(0, HOUR // 4, KWH, SPLIT_READING, 0, 1),
        Cut(HOUR // 4, HOUR, 0, SPLIT_STATE, 0, 2),
    ]


def test_energy_that_flows_while_nothing_charges_is_spread_over_elapsed_time() -> None:
    book = book_of(tariff(element(component("ENERGY", 1), max_kwh=0.5), element(component("ENERGY", 2))))
    marks = marks_of((MONDAY, PARKING, ABSENT, ABSENT))
    assert [(c.end, c.energy) for c in cuts(book, MONDAY, MONDAY + HOUR, KWH, marks)] == [
        (HOUR // 2, KWH // 2),
        (HOUR, KWH // 2),
    ]


def test_a_change_of_power_cuts_only_where_it_changes_a_price() -> None:
    book = book_of(tariff(element(component("ENERGY", 1), min_power=11), element(component("ENERGY", 2))))
    marks = marks_of(
        (MONDAY, CHARGING, 22 * KWH, ABSENT),
        (MONDAY + HOUR // 4, CHARGING, 11 * KWH, ABSENT),  # still at least 11 kW: no cut
        (MONDAY + HOUR // 2, CHARGING, 11 * KWH - 1, ABSENT),
    )
    assert cuts(book, MONDAY, MONDAY + HOUR, KWH, marks) == [
        Cut(0, HOUR // 2, KWH // 2, SPLIT_READING, 0, FREE),
        Cut(HOUR // 2, HOUR, KWH // 2, SPLIT_POWER, 1, FREE),
    ]


def test_power_that_was_not_measured_does_not_match_and_says_so() -> None:
    book = book_of(tariff(element(component("ENERGY", 1), max_power=11), element(component("ENERGY", 2))))
    count, pieces = rate(book, MONDAY, MONDAY + HOUR, KWH)
    assert count == 1
    assert (pieces.energy_component[0], pieces.missing[0]) == (1, MISSING_POWER)


def test_dimensions_may_come_from_different_elements() -> None:
    book = book_of(
        tariff(
            element(component("ENERGY", 30), day_of_week=["MONDAY"]),
            element(component("ENERGY", 20), component("TIME", 10)),
        )
    )
    assert cuts(book, MONDAY, MONDAY + HOUR, KWH)[0][-2:] == (0, 2)


def test_in_2_1_1_one_element_supplies_all() -> None:
    book = book_of(
        tariff(
            element(component("ENERGY", 30), day_of_week=["MONDAY"]),
            element(component("ENERGY", 20), component("TIME", 10)),
            version="2.1.1",
        )
    )
    assert cuts(book, MONDAY, MONDAY + HOUR, KWH)[0][-2:] == (0, FREE)


def test_pieces_are_apportioned_when_an_interval_was_cut() -> None:
    book = book_of(tariff(element(component("ENERGY", 1), max_kwh=5), element(component("ENERGY", 2))))
    for energy, expected in ((KWH, [0]), (6 * KWH, [1, 1])):
        count, pieces = rate(book, MONDAY, MONDAY + HOUR, energy)
        assert pieces.apportioned[:count].tolist() == expected


def test_no_room_is_said_and_a_second_call_with_room_succeeds() -> None:
    book = book_of(tariff(element(component("ENERGY", 1), max_kwh=5), element(component("ENERGY", 2))))
    assert rate(book, MONDAY, MONDAY + HOUR, 6 * KWH, pieces=empty_pieces(1))[0] == NO_ROOM
    assert rate(book, MONDAY, MONDAY + HOUR, 6 * KWH, pieces=empty_pieces(2))[0] == 2


def test_an_interval_beyond_the_horizon_is_refused() -> None:
    book = book_of(tariff(element(component("ENERGY", 1), end_time="17:00")))
    assert rate(book, MONDAY + 30 * DAY - 1, MONDAY + 30 * DAY + 1, 1)[0] == NOT_COVERED
    assert flat_component(book, 0, SLOT_FLAT, MONDAY + 30 * DAY, ABSENT, ABSENT) == NOT_COVERED


@pytest.mark.parametrize(
    ("length", "before", "energy"),
    [(1000, 0, -1), (-1, 0, 1), (1000, -1, 1), (1000, 0, 2**62), (2**60, 0, 1), (2**40, 0, 2**40)],
)
def test_what_could_leave_int64_is_refused(length: int, before: int, energy: int) -> None:
    book = book_of(tariff(element(component("ENERGY", 0.25))))
    assert rate(book, MONDAY, MONDAY + length, energy, before=before)[0] == OUT_OF_BOUNDS
    assert not check_bounds(book, 0, MONDAY, MONDAY + length, before, energy)


def test_a_flat_fee_is_found_at_the_start() -> None:
    book = book_of(
        tariff(
            element(component("FLAT", 5), start_time="08:00", end_time="09:00"),
            element(component("FLAT", 1), min_power=50),
            element(component("FLAT", 2)),
        )
    )
    asked = ((8 * HOUR, ABSENT), (9 * HOUR, ABSENT), (9 * HOUR, 50 * KWH))
    assert [flat_component(book, 0, SLOT_FLAT, MONDAY + at, power, ABSENT) for at, power in asked] == [0, 2, 1]


MIXED = tariff(
    element(component("ENERGY", 0.1), component("TIME", 1), max_kwh=3, start_time="22:00", end_time="07:00"),
    element(component("ENERGY", 0.2), min_power=11, max_duration=5000),
    element(component("ENERGY", 0.3), component("TIME", 2), min_kwh=1, max_kwh=2, day_of_week=["MONDAY", "SATURDAY"]),
    element(component("ENERGY", 0.4), component("PARKING_TIME", 2)),
)
MIXED_BOOK = book_of(MIXED, "America/New_York")


@settings(max_examples=300, deadline=None)
@given(
    start=st.integers(0, 20 * DAY),
    length=st.integers(0, 3 * DAY),
    energy=st.integers(0, 50 * KWH),
    before=st.integers(0, 10 * KWH),
    changes=st.lists(
        st.tuples(st.integers(0, 3 * DAY), st.sampled_from([CHARGING, PARKING]), st.integers(-1, 30 * KWH)), max_size=5
    ),
)
def test_an_interval_is_tiled_and_no_mwh_is_lost(
    start: int, length: int, energy: int, before: int, changes: list[tuple[int, int, int]]
) -> None:
    begin = MONDAY + start
    rows = [
        (begin, CHARGING, 12 * KWH, ABSENT),
        *((begin + at, state, power, ABSENT) for at, state, power in sorted(changes)),
    ]
    pieces = cuts(MIXED_BOOK, begin, begin + length, energy, marks_of(*rows), before)
    assert sum(piece.energy for piece in pieces) == energy
    assert sum(piece.end - piece.start for piece in pieces) == length
    assert all(a.end == b.start for a, b in pairwise(pieces))
    assert all(piece.energy >= 0 and piece.end >= piece.start for piece in pieces)

"""What is written down in cells and spans is what a search finds: the two by `==`, at and beside every threshold."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from rating.cells import CELLS_MAX
from rating.columns import ABSENT, CHARGING, FREE, MISSING_BITS, PARKING, Marks, Pieces, empty_pieces, first_pieces
from rating.jit import kernel
from rating.kernel import flip_at, rate_interval
from rating.ratesheet import CELLS, CELLS_AT, FLIPS_AT, FLIPS_END, SPAN_BITS, Book, BookBuilder
from rating.tariff import Tariff
from tests.engine_door import rate, sheet_of
from tests.generated import pairs
from tests.rating.tariffs import HOUR, KWH, MONDAY, component, element, tariff

DAY = 24 * HOUR
LIMITED = tariff(
    element(component("ENERGY", 1), component("TIME", 1), min_current=6, max_power=1, start_time="07:00"),
    element(component("ENERGY", 2), max_power=11, min_kwh=1, max_kwh=3),
    element(component("TIME", 3), component("PARKING_TIME", 3), min_duration=60),
    element(component("ENERGY", 4), component("PARKING_TIME", 4), min_power=11, max_duration=3600),
    element(component("ENERGY", 5), min_power=0, max_current=32),
    element(component("TIME", 6), max_kwh=0),
)


def book_of(one: Tariff) -> Book:
    builder = BookBuilder(MONDAY - DAY, MONDAY + 30 * DAY)
    builder.add(one, "T@1", "Europe/Berlin")
    return builder.book()


def searched(book: Book) -> Book:
    """The same book, but its elements are searched."""
    sheets = book.sheets.copy()
    sheets[:, CELLS] = 0
    return book._replace(sheets=sheets)


def same(left: Pieces, right: Pieces) -> bool:
    return all(getattr(left, name).tolist() == getattr(right, name).tolist() for name in Pieces._fields)


def beside(*thresholds: int) -> list[int]:
    return [value + by for value in thresholds for by in (-1, 0, 1)]


@kernel
def _rated(book: Book, before: Any, lasted: Any, marks: Marks, pieces: Pieces) -> int:
    """Two mWh at each mark."""
    at = 0
    for row in range(len(before)):
        start = marks.start_ms[row]
        at = rate_interval(book, 0, row, start - lasted[row], before[row], marks, row, 1, start, start, 2, pieces, at)
        if at < 0:
            return at
    return at


def moments(book: Book) -> Pieces:
    """Two mWh at an instant, at and beside all thresholds of LIMITED: energy, duration, power and current."""
    rows = product(
        (MONDAY, MONDAY + 12 * HOUR),
        (0, *beside(KWH, 3 * KWH)),
        (-HOUR, *beside(0, 60_000, HOUR)),
        (CHARGING, PARKING),
        (-2, ABSENT, *beside(1, KWH, 11 * KWH)),
        (-2, ABSENT, *beside(1, 6_000, 32_000)),
    )
    at_ms, before, lasted, state, power, current = np.ascontiguousarray(np.array(list(rows), np.int64).T)
    pieces = empty_pieces(2 * len(at_ms))
    used = _rated(book, before, lasted, Marks(at_ms, state.astype(np.int8), power, current), pieces)
    assert used > len(at_ms)  # some reach a threshold and go on behind it
    return first_pieces(pieces, used)


def test_a_cell_prices_what_a_search_finds_at_and_beside_every_threshold() -> None:
    book = book_of(LIMITED)
    assert book.sheets[0, CELLS] > 0
    found = moments(book)
    assert same(found, moments(searched(book)))
    assert set(found.energy_component.tolist()) == {FREE, 0, 2, 5, 7}
    assert set(found.missing.tolist()) == {0, 1, 2, 3}


def test_sessions_of_random_tariffs_cost_the_same_by_cells_and_by_search() -> None:
    for pair in pairs(seed=20, tariffs=150, sessions_each=6):
        book = sheet_of(pair.tariff, pair.zone, pair.version, pair.sessions)
        assert same(rate(book, pair.sessions).pieces, rate(searched(book), pair.sessions).pieces)


def test_a_tariff_of_too_many_cells_is_searched() -> None:
    tiers = [element(component("ENERGY", at), max_kwh=at) for at in range(1, 31)]
    powers = [element(component("TIME", at), max_power=at) for at in range(1, 31)]
    fits, book = book_of(tariff(*tiers, *powers[:10])), book_of(tariff(*tiers, *powers))
    assert 0 < fits.sheets[0, CELLS] <= CELLS_MAX
    assert book.sheets[0, CELLS] == 0
    assert len(book.cells) == 0


def test_patterns_that_come_with_the_horizon_have_cells_too() -> None:
    builder = BookBuilder(MONDAY, MONDAY + DAY)
    builder.add(
        tariff(element(component("ENERGY", 1), day_of_week=["FRIDAY"]), element(component("TIME", 1))), "T@1", "UTC"
    )
    assert len(builder.book().cells) == 1
    builder.extend(MONDAY, MONDAY + 7 * DAY)
    book = builder.book()
    first = book.sheets[0, CELLS_AT]
    assert [row.tolist() for row in book.cells[first:] >> MISSING_BITS] == [[FREE, 1, FREE], [0, 1, FREE]]


@kernel
def _flips_at(book: Book, instants: Any, found: Any) -> None:
    for row in range(len(instants)):
        found[row] = flip_at(book, 0, instants[row])


@pytest.mark.parametrize("edges", [(MONDAY, MONDAY + 1), (MONDAY - 3 * DAY - 1, MONDAY + 400 * DAY + 7)])
def test_the_flip_that_holds_is_found_by_spans_as_among_all(edges: tuple[int, int]) -> None:
    builder = BookBuilder(MONDAY, MONDAY + 1)
    hourly = [
        element(component("ENERGY", hour), start_time=f"{hour:02}:00", end_time=f"{hour:02}:30") for hour in range(24)
    ]
    builder.add(tariff(*hourly), "T@1", "America/New_York")
    builder.extend(*edges)
    book = builder.book()
    flips = book.flips[book.sheets[0, FLIPS_AT] : book.sheets[0, FLIPS_END]]
    spans = np.arange(edges[0], edges[1], 1 << SPAN_BITS)
    instants = np.concatenate([flips + by for by in (-1, 0, 1)] + [spans - 1, spans, np.array(edges)])
    instants = instants[(instants >= edges[0]) & (instants <= edges[1])]
    found = np.empty(len(instants), np.int64)
    _flips_at(book, instants, found)
    assert found.tolist() == (np.searchsorted(flips, instants, "right") - 1).tolist()

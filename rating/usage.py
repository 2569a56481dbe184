"""Rated usage as rows for people and documents: one a period and dimension, then the rows of settlement.

The stream writes the same rows by kernel; this is the form in which `explain` takes them from either door.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from rating.columns import CHARGING, FREE, PARKING, RESERVATION, SPLIT_READING, Pieces
from rating.money import COST_PER_E4, ENERGY_COST, TIME_COST
from rating.ratesheet import COMPONENT, DIMENSION, ELEMENT, PRICE_E4, VAT_E4, Book
from rating.settle import Q_ENERGY, QUANTITIES, Sessions, Settled
from rating.tariff import ENERGY, FLAT, PARKING_TIME, TIME

# The ledger's dimensions beyond rating.tariff's four.
STEP: Final = 5
MIN_PRICE: Final = 6
MAX_PRICE: Final = 7
ROUNDING: Final = 8
NO_ELEMENT: Final = -1


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One priced quantity. Energy in mWh, time in ms, cost in cost units; element -1 = nothing priced it."""

    start_ms: int
    end_ms: int
    dimension: int
    quantity: int
    cost: int
    price_e4: int = 0
    element: int = NO_ELEMENT
    component: int = NO_ELEMENT
    vat_e4: int = -1
    state: int = CHARGING
    split: int = SPLIT_READING
    apportioned: bool = False
    steps: int = 0  # of a STEP row: the dimension that was rounded up


def usage_rows(book: Book, pieces: Pieces, sessions: Sessions, settled: Settled, row: int) -> list[UsageRow]:
    """The rows of one session; the costs sum to its total in the tariff's own sense, to the last cost unit."""
    first, count = int(sessions.first_piece[row]), int(sessions.n_pieces[row])
    rows = [*_flat_rows(book, pieces, sessions, row)]
    for piece in range(first, first + count):
        rows.extend(_piece_rows(book, pieces, piece))
    end = int(pieces.end_ms[first + count - 1]) if count else 0
    return [*rows, *_settlement_rows(book, settled, row, end)]


def _priced(row: UsageRow, book: Book, component: int) -> UsageRow:
    line = book.components[component]
    return replace(
        row,
        price_e4=int(line[PRICE_E4]),
        element=int(line[ELEMENT]),
        component=int(line[COMPONENT]),
        vat_e4=int(line[VAT_E4]),
    )


def _piece_rows(book: Book, pieces: Pieces, piece: int) -> Iterator[UsageRow]:
    start, end, state = int(pieces.start_ms[piece]), int(pieces.end_ms[piece]), int(pieces.state[piece])
    split, apportioned = int(pieces.split[piece]), bool(pieces.apportioned[piece])
    parts = (
        (ENERGY, int(pieces.energy_mwh[piece]), int(pieces.energy_component[piece]), ENERGY_COST),
        (PARKING_TIME if state == PARKING else TIME, end - start, int(pieces.time_component[piece]), TIME_COST),
    )
    for dimension, quantity, component, factor in parts:
        if quantity and component != FREE:
            line = book.components[component].tolist()
            price, vat = line[PRICE_E4], line[VAT_E4]
            yield UsageRow(
                start, end, dimension, quantity, quantity * price * factor, price, line[ELEMENT], line[COMPONENT],
                vat, state, split, apportioned,
            )  # fmt: skip
        elif quantity and dimension == ENERGY:
            yield UsageRow(start, end, dimension, quantity, 0, state=state, split=split, apportioned=apportioned)


def _flat_rows(book: Book, pieces: Pieces, sessions: Sessions, row: int) -> Iterator[UsageRow]:
    first = int(sessions.first_piece[row])
    start = int(pieces.start_ms[first]) if sessions.n_pieces[row] else 0
    owed = ((sessions.flat, CHARGING), (sessions.reservation_flat, RESERVATION), (sessions.expired_flat, RESERVATION))
    for column, state in owed:
        component = int(column[row])
        if component != FREE:
            cost = int(book.components[component, PRICE_E4]) * COST_PER_E4
            yield _priced(UsageRow(start, start, FLAT, 1, cost, state=state), book, component)


def _settlement_rows(book: Book, settled: Settled, row: int, at_ms: int) -> Iterator[UsageRow]:
    for kind in range(QUANTITIES):
        component = int(settled.step_component[row, kind])
        if component != FREE:
            dimension = ENERGY if kind == Q_ENERGY else int(book.components[component, DIMENSION])
            quantity, cost = int(settled.step[row, kind]), int(settled.step_cost[row, kind])
            yield _priced(UsageRow(at_ms, at_ms, STEP, quantity, cost, steps=dimension), book, component)
    for dimension, column in (
        (MIN_PRICE, settled.min_cost),
        (MAX_PRICE, settled.max_cost),
        (ROUNDING, settled.rounding_cost),
    ):
        if column[row] != 0:
            yield UsageRow(at_ms, at_ms, dimension, 0, int(column[row]))

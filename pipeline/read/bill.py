"""A session's bill out of the ledger: net rated usage as lines, priced once more by `rating` to tell tax and notes.

    rows of the ledger -> net of reversals -> pieces -> settle() -> totals, taxes, notes

What stands in the ledger is what is billed; the settlement here must agree with it, and `Bill.differs` says if not.
An open session is settled as if it ended now.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from operator import attrgetter
from typing import Final, NamedTuple

import numpy as np

from pipeline.errors import IntegrityError
from pipeline.rate.rows import (
    ENERGY,
    FLAG_APPORTIONED,
    FLAG_POWER_MISSING,
    FLAG_REVERSAL,
    FLAT,
    PARKING_TIME,
    STEP,
    TIME,
)
from pipeline.read.session_rows import RatedRow
from rating.columns import FREE, Pieces
from rating.explain import Totals
from rating.ratesheet import COMPONENT, ELEMENT, RATE_VAT_E4, RATES_AT, RATES_END, Book, BookBuilder
from rating.settle import Sessions, Settled, settle
from rating.tariff import CHARGING_ELEMENT, EXPIRED_ELEMENT, RESERVATION_ELEMENT, Tariff
from rating.usage import NO_ELEMENT, UsageRow, usage_rows

_REVERSIBLE: Final = attrgetter(
    "start_ms", "end_ms", "dimension", "price_e4", "tariff", "element", "component", "state"
)
_JOINED: Final = attrgetter("element", "component", "price_e4", "state")
_DAY_MS: Final = 86_400_000


class Bill(NamedTuple):
    """Lines and totals of one session. `differs` names what settling again gives otherwise than the ledger."""

    lines: list[UsageRow]
    totals: Totals
    energy_mwh: int
    cost: int  # Σ cost of the lines
    differs: str


@dataclass(frozen=True)
class _Piece:
    """A charging period put together again from its rows."""

    start_ms: int
    end_ms: int
    state: int
    energy: RatedRow | None
    timed: RatedRow | None


def standing(rows: Iterable[RatedRow]) -> list[RatedRow]:
    """What is left when reversals have taken back what they reverse, in time order."""
    count: Counter[tuple[object, ...]] = Counter()
    kept: dict[tuple[object, ...], RatedRow] = {}
    for row in rows:
        sign = -1 if row.flags & FLAG_REVERSAL else 1
        key = (*_REVERSIBLE(row), row.quantity * sign, row.cost * sign)
        count[key] += sign
        if sign > 0:
            kept[key] = row
    left = [kept[key] for key, times in count.items() for _ in range(times)]
    return sorted(left, key=lambda r: (r.dimension >= STEP, r.start_ms, r.dimension != FLAT, r.end_ms, r.dimension))


def bill(rows: Sequence[RatedRow], tariff: Tariff, key: str, zone: str, settled: bool) -> Bill:
    """The bill of a session's standing rows, all of one tariff. `settled`: the ledger's settlement rows are in."""
    book, again, sessions, pieces = _settle_again(rows, tariff, key, zone)
    made = usage_rows(book, pieces, sessions, again, 0)
    lines = [_line(row, tariff) for row in rows] if settled else made
    cost, cost_again = sum(line.cost for line in lines), sum(line.cost for line in made)
    return Bill(
        lines,
        _totals(book, again),
        sum(line.quantity for line in lines if line.dimension == ENERGY),
        cost,
        "" if cost == cost_again else f"settling again gives {cost_again} cost units, the ledger has {cost}",
    )


def merged(lines: Sequence[UsageRow]) -> list[UsageRow]:
    """Neighbouring lines of one price and state joined: what a person wants to read."""
    last: dict[int, list[UsageRow]] = {}
    out: list[list[UsageRow]] = []
    for line in lines:
        before = last.get(line.dimension)
        if before and line.dimension < FLAT and _joins(before[-1], line):
            before.append(line)
            continue
        last[line.dimension] = [line]
        out.append(last[line.dimension])
    return [_joined(run) for run in out]


def _joins(before: UsageRow, after: UsageRow) -> bool:
    return before.end_ms == after.start_ms and bool(_JOINED(before) == _JOINED(after))


def _joined(run: Sequence[UsageRow]) -> UsageRow:
    if len(run) == 1:
        return run[0]
    return replace(
        run[0],
        end_ms=run[-1].end_ms,
        quantity=sum(line.quantity for line in run),
        cost=sum(line.cost for line in run),
        apportioned=any(line.apportioned for line in run),
    )


def the_tariff(rows: Iterable[RatedRow]) -> str:
    """The tariff key of standing rows, "" for none. Raises IntegrityError where they have several."""
    keys = sorted({row.tariff for row in rows})
    if len(keys) > 1:
        raise IntegrityError(
            f"rated rows of two tariffs stand for one session ({', '.join(keys)}): run `wattrate verify`"
        )
    return keys[0] if keys else ""


def _line(row: RatedRow, tariff: Tariff) -> UsageRow:
    priced = tariff.elements[row.element].components[row.component] if row.element != NO_ELEMENT else None
    return UsageRow(
        row.start_ms,
        row.end_ms,
        row.dimension,
        row.quantity,
        row.cost,
        row.price_e4,
        row.element,
        row.component,
        -1 if priced is None or priced.vat_e4 is None else priced.vat_e4,
        row.state,
        row.split,
        bool(row.flags & FLAG_APPORTIONED),
        priced.dimension if row.dimension == STEP and priced else 0,
    )


def _settle_again(
    rows: Sequence[RatedRow], tariff: Tariff, key: str, zone: str
) -> tuple[Book, Settled, Sessions, Pieces]:
    first_ms = min((row.start_ms for row in rows), default=0)
    builder = BookBuilder(first_ms, first_ms + _DAY_MS)
    sheet = builder.add(tariff, key, zone)
    book = builder.book()
    numbers = {(int(line[ELEMENT]), int(line[COMPONENT])): at for at, line in enumerate(book.components)}
    pieces = _columns(list(_pieces(rows)), numbers)
    flats = {
        tariff.elements[row.element].reservation: numbers[row.element, row.component]
        for row in rows
        if row.dimension == FLAT and row.element != NO_ELEMENT
    }
    one = [flats.get(kind, FREE) for kind in (CHARGING_ELEMENT, RESERVATION_ELEMENT, EXPIRED_ELEMENT)]
    sessions = Sessions(
        np.array([sheet], np.int32),
        np.zeros(1, np.int64),
        np.array([len(pieces.start_ms)], np.int64),
        *(np.array([component], np.int32) for component in one),
    )
    return book, settle(book, sessions, pieces), sessions, pieces


def _pieces(rows: Sequence[RatedRow]) -> Iterator[_Piece]:
    """Charging periods: the ENERGY row and the time row of the same instants and state belong together."""
    metered = [row for row in rows if row.dimension in (ENERGY, TIME, PARKING_TIME)]

    def place(row: RatedRow) -> tuple[int, int, int]:
        return row.start_ms, row.end_ms, row.state

    for (start, end, state), group in groupby(sorted(metered, key=place), key=place):
        together = list(group)
        energy = [row for row in together if row.dimension == ENERGY]
        timed = [row for row in together if row.dimension != ENERGY]
        for one, other in zip_longest(energy, timed):
            yield _Piece(start, end, state, one, other)


def _columns(pieces: Sequence[_Piece], numbers: dict[tuple[int, int], int]) -> Pieces:
    def component(row: RatedRow | None) -> int:
        return FREE if row is None or row.element == NO_ELEMENT else numbers[row.element, row.component]

    def flags(piece: _Piece) -> int:
        return (piece.energy.flags if piece.energy else 0) | (piece.timed.flags if piece.timed else 0)

    return Pieces(
        tag=np.zeros(len(pieces), np.int32),
        start_ms=np.array([p.start_ms for p in pieces], np.int64),
        end_ms=np.array([p.end_ms for p in pieces], np.int64),
        state=np.array([p.state for p in pieces], np.int8),
        split=np.array([(p.energy or p.timed).split for p in pieces if p.energy or p.timed], np.int8),  # type: ignore[union-attr]
        apportioned=np.array([flags(p) & FLAG_APPORTIONED for p in pieces], np.int8),
        energy_mwh=np.array([p.energy.quantity if p.energy else 0 for p in pieces], np.int64),
        energy_component=np.array([component(p.energy) for p in pieces], np.int32),
        time_component=np.array([component(p.timed) for p in pieces], np.int32),
        missing=np.array([flags(p) // FLAG_POWER_MISSING & 3 for p in pieces], np.int8),
    )


def _totals(book: Book, settled: Settled) -> Totals:
    first, end = int(book.sheets[0, RATES_AT]), int(book.sheets[0, RATES_END])
    rates = book.rates[first:end, RATE_VAT_E4].tolist()
    return Totals(
        int(settled.total_excl_e4[0]),
        int(settled.total_incl_e4[0]),
        list(zip(rates, settled.tax_e4[0, : end - first].tolist(), strict=True)),
        int(settled.notes[0]),
    )

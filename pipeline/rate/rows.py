"""Rows of the ledger as arrays: identities, and the rated rows that pieces, flats and settlements become.

Pure functions. A row's identity is (partition, offset, line); line = place of the sample in its record (or of the
connector in its partition, for a tick) shifted by 32 bits, plus the row's place among those of its cause.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.metering.output import Record, Rows, rows_at, rows_joined
from rating.columns import I64, PARKING, RESERVATION
from rating.jit import kernel, part
from rating.money import COST_PER_E4, ENERGY_COST, TIME_COST
from rating.ratesheet import COMPONENT, ELEMENT, PRICE_E4, Book
from rating.settle import QUANTITIES, Settled

U64 = npt.NDArray[np.uint64]

# Dimensions of rated usage: OCPI's, and the rows that settlement adds (numbers of the ledger's Enum8).
ENERGY: Final = 1
TIME: Final = 2
PARKING_TIME: Final = 3
FLAT: Final = 4
STEP: Final = 5
MIN_PRICE: Final = 6
MAX_PRICE: Final = 7
ROUNDING: Final = 8

FLAG_APPORTIONED: Final = 1 << 0
FLAG_REVERSAL: Final = 1 << 1  # takes back an earlier row of the session
FLAG_CORRECTED: Final = 1 << 2  # replaces what was taken back, or came late
FLAG_POWER_MISSING: Final = 1 << 3
FLAG_CURRENT_MISSING: Final = 1 << 4

_LINE_BITS = np.uint64(32)
# Places of a cause's rows within its line.
_FLATS: Final = 1 << 30
_SETTLEMENT: Final = 1 << 31
_AGAIN: Final = 1 << 29

RATED_DTYPE = np.dtype(
    [
        ("offset", np.int64),
        ("line", np.uint64),
        ("session_key", np.uint64),
        ("start_ms", np.int64),
        ("end_ms", np.int64),
        ("quantity", np.int64),
        ("cost", np.int64),
        ("price_e4", np.int64),
        ("partition", np.int32),
        ("row", np.int32),  # connector
        ("sheet", np.int32),
        ("element", np.int16),
        ("component", np.int16),
        ("flags", np.uint32),
        ("dimension", np.int8),
        ("state", np.int8),
        ("split", np.int8),
    ],
    align=True,
)


def places(groups: npt.NDArray[np.integer]) -> I64:
    """0, 1, 2, … within each run of equal values."""
    if not len(groups):
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))


def line_base(lines: npt.NDArray[np.integer]) -> U64:
    """The first line of rows caused by samples at these places of their records."""
    return lines.astype(np.uint64) << np.uint64(32)


def priced(rated: Rows, book: Book, components: npt.NDArray[np.integer], factor: int) -> None:
    """Fill price, element, component and cost of rows from their quantity and component (-1: free)."""
    free = components < 0
    found = book.components[np.where(free, 0, components)] if len(book.components) else np.zeros((len(rated), 8))
    rated["price_e4"] = np.where(free, 0, found[:, PRICE_E4])
    rated["element"] = np.where(free, -1, found[:, ELEMENT])
    rated["component"] = np.where(free, -1, found[:, COMPONENT])
    rated["cost"] = rated["quantity"] * rated["price_e4"] * factor


def from_pieces(book: Book, pieces: Rows, samples: Rows, facts: Rows) -> Rows:
    """Charging period × dimension: an ENERGY row, and a TIME or PARKING_TIME row where a component prices it.

    `pieces` in order of emission, tag = index of the causing sample.
    """
    rated = np.empty(_rows_of(pieces), RATED_DTYPE)
    _fill(book.components, pieces, samples, facts, rated)
    return rated


@part
def _metered(piece: Record) -> bool:
    """Whether a piece has an ENERGY row: one of 0 where nothing else says that the time was there."""
    return bool(piece.energy_mwh > 0 or (piece.time_component < 0 and piece.state < RESERVATION))


@kernel
def _rows_of(pieces: Rows) -> int:
    count = 0
    for at in range(len(pieces)):
        count += _metered(pieces[at])
        count += pieces[at].time_component >= 0
    return count


@kernel
def _fill(components: I64, pieces: Rows, samples: Rows, facts: Rows, rated: Rows) -> None:
    """All rows in one go over the pieces; a line is its cause's place in the record, then its own among the cause's."""
    last, place, to = -1, 0, 0
    for at in range(len(pieces)):
        piece = pieces[at]
        if piece.tag != last:
            last, place = piece.tag, 0
        for is_time in range(2):
            if not (piece.time_component >= 0 if is_time else _metered(piece)):
                continue
            sample, fact, row = samples[piece.tag], facts[piece.tag], rated[to]
            row.offset, row.line = sample.offset, (np.uint64(sample.line) << np.uint64(32)) + np.uint64(place)
            row.session_key, row.partition, row.row, row.sheet = (
                fact.session_key, fact.partition, fact.row, fact.used_sheet,
            )  # fmt: skip
            row.start_ms, row.end_ms, row.state, row.split = piece.start_ms, piece.end_ms, piece.state, piece.split
            if is_time:
                row.dimension = PARKING_TIME if piece.state == PARKING else TIME
                _price(components, row, piece.time_component, piece.end_ms - piece.start_ms, TIME_COST)
            else:
                row.dimension = ENERGY
                _price(components, row, piece.energy_component, piece.energy_mwh, ENERGY_COST)
            row.flags = np.uint32(piece.apportioned * FLAG_APPORTIONED + piece.missing * FLAG_POWER_MISSING)
            place += 1
            to += 1


@part
def _price(components: I64, row: Record, component: int, quantity: int, factor: int) -> None:
    row.quantity = quantity
    row.price_e4, row.element, row.component, row.cost = 0, -1, -1, 0
    if component >= 0:
        price_e4 = components[component, PRICE_E4]
        row.price_e4, row.cost = price_e4, quantity * price_e4 * factor
        row.element, row.component = components[component, ELEMENT], components[component, COMPONENT]


def from_flats(book: Book, flats: Rows, samples: Rows, facts: Rows) -> Rows:
    """A row for each FLAT that a session owes; `flats` are events of that kind."""
    cause = flats["cause"]
    rated = np.zeros(len(flats), RATED_DTYPE)
    rated["offset"] = samples["offset"][cause]
    rated["line"] = line_base(samples["line"][cause]) + (_FLATS + places(cause)).astype(np.uint64)
    rated["session_key"] = flats["session_key"]
    rated["start_ms"] = rated["end_ms"] = flats["time_ms"]
    rated["partition"] = facts["partition"][cause]
    rated["row"] = flats["connector"]
    rated["sheet"] = flats["value"]
    rated["dimension"] = FLAT
    rated["quantity"] = 1
    priced(rated, book, flats["code"], COST_PER_E4)
    return rated


def from_settlement(book: Book, settled: Settled, sessions: Rows, offsets: I64, partitions: I64) -> Rows:
    """What settlement adds to what was rated: STEP, MIN_PRICE, MAX_PRICE, ROUNDING; zero rows are left out.

    `offsets` and `partitions` are those of the records that settled the sessions. By session key; the line of a row
    is its place among those of its session until `settlement_lines` are added.
    """
    parts = []
    for kind in range(QUANTITIES):
        chosen = np.flatnonzero(settled.step[:, kind] > 0)
        step = _settlement_rows(sessions, chosen, offsets, partitions, STEP)
        step["quantity"] = settled.step[chosen, kind]
        priced(step, book, settled.step_component[chosen, kind], 1)
        step["cost"] = settled.step_cost[chosen, kind]
        parts.append(step)
    adjustments = ((MIN_PRICE, settled.min_cost), (MAX_PRICE, settled.max_cost), (ROUNDING, settled.rounding_cost))
    for dimension, costs in adjustments:
        chosen = np.flatnonzero(costs)
        row = _settlement_rows(sessions, chosen, offsets, partitions, dimension)
        row["cost"] = costs[chosen]
        row["element"] = row["component"] = -1
        parts.append(row)
    rated = rows_joined(parts)
    rated = rows_at(rated, np.argsort(rated["session_key"], kind="stable"))
    rated["line"] = places(rated["session_key"])
    return rated


def _settlement_rows(
    sessions: Rows, chosen: npt.NDArray[np.intp], offsets: I64, partitions: I64, dimension: int
) -> Rows:
    rated = np.zeros(len(chosen), RATED_DTYPE)
    session = sessions[chosen]
    rated["offset"] = offsets[chosen]
    rated["session_key"] = session["session_key"]
    rated["start_ms"] = session["start_ms"]
    rated["end_ms"] = session["end_ms"]
    rated["partition"] = partitions[chosen]
    rated["row"] = session["connector"]
    rated["sheet"] = session["sheet"]
    rated["dimension"] = dimension
    return rated


# What makes two rated rows of a session the same row, whoever wrote them.
_SAME: Final = (
    "start_ms",
    "end_ms",
    "dimension",
    "quantity",
    "cost",
    "price_e4",
    "sheet",
    "element",
    "component",
    "state",
)


def difference(before: Rows, after: Rows) -> Rows:
    """Rows that turn the net of `before` into `after`: reversals of what is gone, then what is new.

    Both are rows of one session; the result has no identity yet.
    """
    standing: dict[tuple[int, ...], int] = {}
    for row in before:
        key, sign = _key(row)
        standing[key] = standing.get(key, 0) + sign
    wanted: dict[tuple[int, ...], int] = {}
    for row in after:
        key, sign = _key(row)
        wanted[key] = wanted.get(key, 0) + sign
    gone = [(key, -1) for key, n in standing.items() for _ in range(n - wanted.get(key, 0))]
    new = [(key, 1) for key, n in wanted.items() for _ in range(n - standing.get(key, 0))]
    rows = np.zeros(len(gone) + len(new), RATED_DTYPE)
    for at, (key, sign) in enumerate(sorted(gone) + sorted(new)):
        row = rows[at]
        for name, value in zip(_SAME, key, strict=True):
            row[name] = value
        row["quantity"] *= sign
        row["cost"] *= sign
        row["flags"] = FLAG_REVERSAL if sign < 0 else FLAG_CORRECTED
    return rows


def energy_of(parts: Sequence[Rows]) -> int:
    """The energy (mWh) of rated rows, reversals taken off."""
    return sum(int(rows["quantity"][rows["dimension"] == ENERGY].sum()) for rows in parts)


def _key(row: np.void) -> tuple[tuple[int, ...], int]:
    sign = -1 if row["flags"] & FLAG_REVERSAL else 1
    values = {name: int(row[name]) for name in _SAME}
    values["quantity"] *= sign
    values["cost"] *= sign
    return tuple(values[name] for name in _SAME), sign


def again_lines(base: int, first: int, rows: int) -> U64:
    """Lines of rows that a re-rating adds in the name of its cause, which has added `first` of them before."""
    return np.uint64((base >> 32 << 32) + _AGAIN + first) + np.arange(rows, dtype=np.uint64)


def settlement_lines(bases: U64, first: I64) -> U64:
    """The first lines of rows that settlements add in the name of causes that have added `first` of them before."""
    return (bases >> _LINE_BITS << _LINE_BITS) + np.uint64(_SETTLEMENT) + first.astype(np.uint64)

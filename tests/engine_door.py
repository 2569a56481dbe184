"""The engine as tests call it: sessions of `tests.oracle` in, pieces and settled columns out, nothing in between."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from rating.columns import (
    ABSENT,
    CHARGING,
    FREE,
    I64,
    PARKING,
    RESERVATION,
    RESERVATION_EXPIRED,
    Marks,
    Pieces,
    empty_pieces,
)
from rating.kernel import flat_component, rate_interval
from rating.policy import DEFAULT, Policy
from rating.ratesheet import (
    COMPONENT,
    ELEMENT,
    SLOT_EXPIRED_FLAT,
    SLOT_FLAT,
    SLOT_RESERVATION_FLAT,
    Book,
    BookBuilder,
)
from rating.settle import Sessions, Settled, settle
from rating.tariff import parse_tariff
from tests.oracle import Component, Mark, Piece, Session

STATES = {
    "CHARGING": CHARGING,
    "PARKING": PARKING,
    "RESERVATION": RESERVATION,
    "RESERVATION_EXPIRES": RESERVATION_EXPIRED,
}
NAMES = {number: name for name, number in STATES.items()}
DAY_MS = 86_400_000


class RefusedError(Exception):
    """The kernel rated nothing; the argument is its code (rating.kernel)."""


class _Columns(NamedTuple):
    """Intervals as columns, one row each; marks of a row at first_mark .. first_mark + n_marks."""

    session: I64
    session_start: I64
    energy_before: I64
    first_mark: I64
    n_marks: I64
    start: I64
    end: I64
    energy: I64


# As rating.jit, but never cached: a cached caller would not notice that a kernel it contains has changed.
_COMPILED: dict[str, Any] = {"nogil": True, "_nrt": False}


@njit(**_COMPILED)
def _rate_all(book: Book, sheet: int, columns: _Columns, marks: Marks, pieces: Pieces, ends: I64) -> int:
    """Rate the rows in order; ends[row] is the row after its last piece. Returns the last, or the kernel's refusal."""
    at = 0
    for row in range(len(columns.start)):
        at = rate_interval(
            book,
            sheet,
            columns.session[row],
            columns.session_start[row],
            columns.energy_before[row],
            marks,
            columns.first_mark[row],
            columns.n_marks[row],
            columns.start[row],
            columns.end[row],
            columns.energy[row],
            pieces,
            at,
        )
        if at < 0:
            return at
        ends[row] = at
    return at


@dataclass(frozen=True)
class Rated:
    """What the engine says of the sessions of one tariff."""

    book: Book
    pieces: Pieces
    sessions: Sessions
    settled: Settled
    interval_energy: I64  # as given, one row an interval (a reservation is one too)
    interval_ends: I64  # the row after its last piece

    def component(self, number: int) -> Component | None:
        """The place of a component in the tariff."""
        if number == FREE:
            return None
        row = self.book.components[number]
        return int(row[ELEMENT]), int(row[COMPONENT])

    def pieces_of(self, session: int) -> list[Piece]:
        """The pieces of one session in the oracle's words."""
        first = int(self.sessions.first_piece[session])
        rows = slice(first, first + int(self.sessions.n_pieces[session]))
        columns = self.pieces
        return [
            Piece(start, end, NAMES[state], energy, self.component(priced), self.component(timed))
            for start, end, state, energy, priced, timed in zip(
                columns.start_ms[rows].tolist(),
                columns.end_ms[rows].tolist(),
                columns.state[rows].tolist(),
                columns.energy_mwh[rows].tolist(),
                columns.energy_component[rows].tolist(),
                columns.time_component[rows].tolist(),
                strict=True,
            )
        ]


def sheet_of(tariff: Any, zone: str, version: str, sessions: Sequence[Session], policy: Policy = DEFAULT) -> Book:
    """A book with this tariff as sheet 0, over a horizon of the sessions and a day around them."""
    instants = [at for session in sessions for at in _instants(session)]
    builder = BookBuilder(min(instants) - DAY_MS, max(instants) + DAY_MS, policy)
    builder.add(parse_tariff(tariff, version), "XX*TST*1@1", zone)
    return builder.book()


def _instants(session: Session) -> list[int]:
    edges = [at for interval in session.intervals for at in interval[:2]]
    return [*edges, *(session.reservation[:2] if session.reservation else ())]


def rate(book: Book, sessions: Sequence[Session]) -> Rated:
    """Rate and settle all the sessions with sheet 0 of the book, in one call of each."""
    columns, marks = _rows(sessions)
    pieces, ends = empty_pieces(64 * len(columns.start) + 64), np.zeros(len(columns.start), np.int64)
    written = _rate_all(book, 0, columns, marks, pieces, ends)
    if written < 0:
        raise RefusedError(written)
    first_rows = np.searchsorted(columns.session, np.arange(len(sessions) + 1))
    bounds = np.concatenate([[0], ends])[first_rows]
    flats = np.array([_flats(book, session) for session in sessions], np.int32)
    table = Sessions(
        np.zeros(len(sessions), np.int32),
        bounds[:-1],
        np.diff(bounds),
        *(flats[:, column].copy() for column in range(3)),
    )
    return Rated(book, pieces, table, settle(book, table, pieces), columns.energy, ends)


def _rows(sessions: Sequence[Session]) -> tuple[_Columns, Marks]:
    rows: list[tuple[int, ...]] = []
    marks: list[tuple[int, ...]] = []
    for number, session in enumerate(sessions):
        if session.reservation is not None:
            start, end, expired = session.reservation
            rows.append((number, session.start_ms, 0, len(marks), 1, start, end, 0))
            marks.append((start, RESERVATION_EXPIRED if expired else RESERVATION, ABSENT, ABSENT))
        energy = 0
        for interval in session.intervals:
            rows.append((number, session.start_ms, energy, len(marks), len(session.marks), *interval[:3]))
            energy += interval.energy_mwh
        marks.extend(_mark(mark) for mark in session.marks)
    table = np.array(rows, np.int64).reshape(len(rows), 8)
    mark_table = np.array(marks, np.int64).reshape(len(marks), 4)
    return (
        _Columns(*(np.ascontiguousarray(table[:, column]) for column in range(8))),
        Marks(
            np.ascontiguousarray(mark_table[:, 0]),
            mark_table[:, 1].astype(np.int8),
            np.ascontiguousarray(mark_table[:, 2]),
            np.ascontiguousarray(mark_table[:, 3]),
        ),
    )


def _mark(mark: Mark) -> tuple[int, int, int, int]:
    power = ABSENT if mark.power_mw is None else mark.power_mw
    current = ABSENT if mark.current_ma is None else mark.current_ma
    return mark.start_ms, STATES[mark.state], power, current


def _flats(book: Book, session: Session) -> tuple[int, int, int]:
    """The FLAT components that the session, its reservation and the latter's expiry owe."""
    flat = reservation_flat = expired_flat = FREE
    if session.intervals:
        _, _, power, current = _mark(session.marks[0])
        flat = flat_component(book, 0, SLOT_FLAT, session.start_ms, power, current)
    if session.reservation is not None:
        start = session.reservation.start_ms
        reservation_flat = flat_component(book, 0, SLOT_RESERVATION_FLAT, start, ABSENT, ABSENT)
        if session.reservation.expired:
            expired_flat = flat_component(book, 0, SLOT_EXPIRED_FLAT, start, ABSENT, ABSENT)
    return flat, reservation_flat, expired_flat

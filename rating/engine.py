"""The offline door to the engine: whole sessions through the same kernel and settlement as the stream.

`rate` prices one session; `rate_batch` many, as columns. The running cost of an open session is `rate` of what is
known so far: settlement of the same pieces, so it agrees with what the CDR will say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from rating import kernel as rating_kernel
from rating.columns import ABSENT, CHARGING, FREE, I8, I32, I64, PARKING, Marks, Pieces, empty_pieces, first_pieces
from rating.errors import BoundsError, SheetError
from rating.jit import kernel
from rating.kernel import NOT_COVERED, flat_component, rate_interval
from rating.policy import DEFAULT, Policy
from rating.ratesheet import SLOT_EXPIRED_FLAT, SLOT_FLAT, SLOT_RESERVATION_FLAT, Book, BookBuilder
from rating.session import Session
from rating.settle import BEYOND_BOUNDS, Sessions, Settled, settle
from rating.tariff import Tariff

NEVER: Final = -(2**62)  # an instant that did not happen
_MARGIN_MS: Final = 86_400_000


class Batch(NamedTuple):
    """Sessions as columns: each has adjacent intervals in time order, and each interval its marks in time order."""

    sheet: I32
    start_ms: I64  # of the charging session, NEVER where there was only a reservation
    reserved_ms: I64  # when a reservation began, or NEVER
    expired: I8  # 1 where the reservation expired
    owes_flat: I8  # 0 where another tariff began the session and had its FLAT
    first_interval: I64
    n_intervals: I64
    start_mark: I64  # what holds at `start_ms`: power and current for FLAT
    interval_start_ms: I64
    interval_end_ms: I64
    interval_mwh: I64
    interval_mark: I64  # the first mark of an interval
    interval_n_marks: I64
    marks: Marks


@dataclass(frozen=True, slots=True)
class Rated:
    """One or many sessions rated and settled, with what is needed to read the columns."""

    book: Book
    pieces: Pieces
    sessions: Sessions
    settled: Settled


def rate(
    session: Session, tariff: Tariff, zone: str, policy: Policy = DEFAULT, key: str = ""
) -> tuple[Rated, BookBuilder]:
    """Rate one session by one tariff in the Location's zone.

    Raises SheetError (zone, tax rates) or BoundsError. The builder tells which tariff a component belongs to.
    """
    builder = BookBuilder(session.first_ms - _MARGIN_MS, session.end_ms + _MARGIN_MS, policy)
    sheet = builder.add(tariff, key or tariff.id, zone)
    return rate_batch(builder.book(), batch_of([session], [sheet])), builder


def batch_of(sessions: Sequence[Session], sheets: Sequence[int]) -> Batch:
    """Columns of some sessions, each with the sheet that prices it."""
    intervals = np.array([row for one in sessions for row in one.intervals], np.int64).reshape(-1, 3)
    marks = [mark for one in sessions for mark in one.marks]
    n_intervals = np.array([len(one.intervals) for one in sessions], np.int64)
    n_marks = np.array([len(one.marks) for one in sessions], np.int64)
    first_mark = np.cumsum(n_marks) - n_marks
    places = [_mark_places(one, first) for one, first in zip(sessions, first_mark.tolist(), strict=True)]
    return Batch(
        sheet=np.array(sheets, np.int32),
        start_ms=np.array([NEVER if one.start_ms is None else one.start_ms for one in sessions], np.int64),
        reserved_ms=np.array([NEVER if one.reserved_ms is None else one.reserved_ms for one in sessions], np.int64),
        expired=np.array([one.expired for one in sessions], np.int8),
        owes_flat=np.array([not one.continued for one in sessions], np.int8),
        first_interval=np.cumsum(n_intervals) - n_intervals,
        n_intervals=n_intervals,
        start_mark=first_mark + np.array([_start_mark(one) for one in sessions], np.int64),
        interval_start_ms=np.ascontiguousarray(intervals[:, 0]),
        interval_end_ms=np.ascontiguousarray(intervals[:, 1]),
        interval_mwh=np.ascontiguousarray(intervals[:, 2]),
        interval_mark=np.concatenate([first for first, _ in places]),
        interval_n_marks=np.concatenate([count for _, count in places]),
        marks=Marks(
            start_ms=np.array([mark.start_ms for mark in marks], np.int64),
            state=np.array([mark.state for mark in marks], np.int8),
            power_mw=np.array([mark.power_mw for mark in marks], np.int64),
            current_ma=np.array([mark.current_ma for mark in marks], np.int64),
        ),
    )


def _mark_places(session: Session, first: int) -> tuple[I64, I64]:
    """Per interval its first mark and how many marks it may look at."""
    count = len(session.intervals)
    if session.own_marks:
        return np.arange(first, first + count, dtype=np.int64), np.ones(count, np.int64)
    starts = np.array([mark.start_ms for mark in session.marks], np.int64)
    places = np.searchsorted(starts, [interval[0] for interval in session.intervals], side="right") - 1
    return first + places, len(starts) - places


def _start_mark(session: Session) -> int:
    return next((i for i, mark in enumerate(session.marks) if mark.state in (CHARGING, PARKING)), 0)


def rate_batch(book: Book, batch: Batch) -> Rated:
    """Rate and settle sessions as columns; SheetError where the horizon is too short, BoundsError beyond int64."""
    count = len(batch.sheet)
    sessions = Sessions(
        sheet=batch.sheet,
        first_piece=np.zeros(count, np.int64),
        n_pieces=np.zeros(count, np.int64),
        flat=np.full(count, FREE, np.int32),
        reservation_flat=np.full(count, FREE, np.int32),
        expired_flat=np.full(count, FREE, np.int32),
    )
    room = 64 + 3 * len(batch.interval_mwh) + len(batch.marks.start_ms)
    while True:
        pieces = empty_pieces(room)
        used = _rate_batch(book, batch, sessions, pieces)
        if used != rating_kernel.NO_ROOM:
            break
        room *= 2
    _refuse(used)
    pieces = first_pieces(pieces, used)
    settled = settle(book, sessions, pieces)
    if (settled.status == BEYOND_BOUNDS).any():
        _refuse(rating_kernel.OUT_OF_BOUNDS)
    return Rated(book, pieces, sessions, settled)


def _refuse(code: int) -> None:
    if code == NOT_COVERED:
        raise SheetError("the book's horizon does not cover a session: extend the builder and take its book again")
    if code == rating_kernel.OUT_OF_BOUNDS:
        raise BoundsError("a session's energy or duration is negative, or its cost could leave 64-bit integers")


@kernel
def _rate_batch(book: Book, batch: Batch, sessions: Sessions, pieces: Pieces) -> int:
    at = 0
    for one in range(len(batch.sheet)):
        sheet, start = batch.sheet[one], batch.start_ms[one]
        sessions.first_piece[one] = at
        energy = 0
        for interval in range(batch.first_interval[one], batch.first_interval[one] + batch.n_intervals[one]):
            begin, end = batch.interval_start_ms[interval], batch.interval_end_ms[interval]
            at = rate_interval(
                book,
                sheet,
                one,
                start,
                energy,
                batch.marks,
                batch.interval_mark[interval],
                batch.interval_n_marks[interval],
                begin,
                end,
                batch.interval_mwh[interval],
                pieces,
                at,
            )
            if at < 0:
                return at
            energy += batch.interval_mwh[interval]
        sessions.n_pieces[one] = at - sessions.first_piece[one]
        if not _rate_flats(book, batch, sessions, one):
            return NOT_COVERED
    return at


@kernel
def _rate_flats(book: Book, batch: Batch, sessions: Sessions, one: int) -> bool:
    """FLAT of the charging session and of the reservation before it; False where the horizon is too short."""
    sheet, start, reserved = batch.sheet[one], batch.start_ms[one], batch.reserved_ms[one]
    covered = True
    if start != NEVER and batch.owes_flat[one]:
        mark = batch.start_mark[one]
        found = flat_component(book, sheet, SLOT_FLAT, start, batch.marks.power_mw[mark], batch.marks.current_ma[mark])
        covered = found != NOT_COVERED
        sessions.flat[one] = found
    if reserved != NEVER:
        found = flat_component(book, sheet, SLOT_RESERVATION_FLAT, reserved, ABSENT, ABSENT)
        covered = covered and found != NOT_COVERED
        sessions.reservation_flat[one] = found
        if batch.expired[one]:
            sessions.expired_flat[one] = flat_component(book, sheet, SLOT_EXPIRED_FLAT, reserved, ABSENT, ABSENT)
    return covered

"""The engine's offline door as tests call it: sessions of `tests.oracle` in, pieces and settled columns out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rating import engine, session
from rating.columns import ABSENT, CHARGING, FREE, PARKING, RESERVATION, RESERVATION_EXPIRED, Pieces
from rating.policy import DEFAULT, Policy
from rating.ratesheet import COMPONENT, ELEMENT, Book, BookBuilder
from rating.settle import Sessions, Settled
from rating.tariff import parse_tariff
from tests.oracle import Component, Mark, Piece, Reservation, Session

STATES = {
    "CHARGING": CHARGING,
    "PARKING": PARKING,
    "RESERVATION": RESERVATION,
    "RESERVATION_EXPIRES": RESERVATION_EXPIRED,
}
NAMES = {number: name for name, number in STATES.items()}
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Rated:
    """What the engine says of the sessions of one tariff."""

    book: Book
    pieces: Pieces
    sessions: Sessions
    settled: Settled

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
    """Rate and settle all the sessions with sheet 0 of the book, as one batch; BoundsError as the engine."""
    batch = engine.batch_of([_session(one) for one in sessions], [0] * len(sessions))
    rated = engine.rate_batch(book, batch)
    return Rated(book, rated.pieces, rated.sessions, rated.settled)


def _session(one: Session) -> session.Session:
    """The engine's session: a reservation is an interval without energy that lies before the others."""
    intervals = [interval[:3] for interval in one.intervals]
    marks = [_mark(mark) for mark in one.marks]
    if one.reservation is not None:
        start, end, _ = one.reservation
        intervals.insert(0, (start, end, 0))
        marks.insert(0, _reserved(one.reservation))
    return session.Session(tuple(intervals), tuple(marks))


def _reserved(reservation: Reservation) -> session.Mark:
    return session.Mark(reservation.start_ms, RESERVATION_EXPIRED if reservation.expired else RESERVATION)


def _mark(mark: Mark) -> session.Mark:
    power = ABSENT if mark.power_mw is None else mark.power_mw
    current = ABSENT if mark.current_ma is None else mark.current_ma
    return session.Mark(mark.start_ms, STATES[mark.state], power, current)

"""A segment on its way through the compiled pass: given room, its deferred samples listed, its events by kind.

Knows nothing of Kafka, the ledger or money.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.codec.records import TRANSACTION_ID_DTYPE
from pipeline.metering import kinds
from pipeline.metering.columns import SAMPLE_DTYPE
from pipeline.metering.meter import ADVANCE, BEGIN, DONE, END, RESUME, meter
from pipeline.metering.output import (
    DEFERRED,
    FACT_DTYPE,
    N_CLOSED,
    N_EVENTS,
    N_PIECES,
    N_SESSIONS,
    ROOM,
    TODO_DTYPE,
    Output,
    Rows,
    grown,
    new_output,
)
from pipeline.metering.run import Run, new_run
from pipeline.metering.state import NONE
from pipeline.rate.directory import Directory
from rating.columns import Pieces
from rating.ratesheet import Book


class Samples(NamedTuple):
    """Samples of one round in log order, with what the ledger wants to know of them beside their columns."""

    samples: Rows  # SAMPLE_DTYPE; charge_point and token are the directory's numbers for a tick -1
    facts: Rows  # FACT_DTYPE
    transaction_ids: npt.NDArray[np.bytes_]
    versions: npt.NDArray[np.int64]  # reference version in use
    records: npt.NDArray[np.int64]  # index of the record among the batch's values; -1 for none


class Deferred(NamedTuple):
    """A sample, or a connector's share of a tick, that the pass left to `rerate`."""

    cause: int
    connector: int
    why: int


class Segment:
    """One round's samples and what the pass makes of them."""

    def __init__(
        self,
        given: Samples,
        book: Book,
        directory: Directory,
        limits: Rows,
        defaults: Rows,
        detached: npt.NDArray[np.uint64],
        out: Output | None = None,
    ) -> None:
        """Ready to run; `detached` holds, sorted, the keys of sessions that the pass must leave alone.

        What it writes goes to `out`, where that is given: the caller uses it again for other segments, one at a time.
        """
        self.given = given
        self._book, self._directory, self._limits = book, directory, limits
        self._defaults, self._detached = defaults, detached
        self._todo: Rows = np.zeros(0, TODO_DTYPE)
        self._out = out or new_output(len(given.samples))
        self.run = self._new_run()

    def meter(self) -> list[Deferred]:
        """Meter every sample; returns what was deferred, in log order."""
        return self._pass(ADVANCE, len(self.given.samples))

    def resume(self, waiting: Sequence[Deferred], detached: npt.NDArray[np.uint64]) -> list[Deferred]:
        """Meter samples that waited for others of their connector; returns what is deferred anew.

        `detached` as it is now: what was waited for may have set a session apart.
        """
        self._detached = detached
        self._todo = np.array([(one.cause, one.connector) for one in waiting], TODO_DTYPE)
        self._directory.state.connectors["dirty"][self._todo["connector"]] = 0
        self.run = self._new_run()
        return self._pass(RESUME, len(waiting))

    def _pass(self, how: int, stop: int) -> list[Deferred]:
        first, before = 0, int(self.run.desk.count[N_EVENTS])
        while (first := meter(self.run, how, first, stop, NONE)) != DONE:
            self._grow()
        return list(self._deferred(before))

    def begin(self, deferred: Deferred) -> None:
        """Open a session whose start was not heard."""
        self.make_room()
        meter(self.run, BEGIN, deferred.cause, deferred.cause + 1, deferred.connector)

    def end(self, cause: int, connector: int) -> None:
        """End a session whose stop was not heard, at its last register."""
        self.make_room()
        meter(self.run, END, cause, cause + 1, connector)

    def events(self, what: int) -> Rows:
        """The events of one kind so far, in order."""
        events = self.run.desk.events[: self.run.desk.count[N_EVENTS]]
        return events[events["what"] == what]

    @property
    def pieces(self) -> Rows:
        """The pieces so far."""
        return self.run.pieces[: self.run.desk.count[N_PIECES]]

    @property
    def sessions(self) -> Rows:
        """The sessions closed so far."""
        return self.run.sessions[: self.run.desk.count[N_SESSIONS]]

    @property
    def closed(self) -> Rows:
        """The charging periods of the sessions closed so far, without the room that is left."""
        return self.run.closed[: self.run.desk.count[N_CLOSED]]

    def periods(self, session: np.void) -> Rows:
        """The charging periods of a closed session."""
        return self.run.closed[session["first_piece"] : session["first_piece"] + session["pieces"]]

    def make_room(self) -> None:
        """Room for one more sample."""
        while self._short_of_room():
            self._grow()

    def _short_of_room(self) -> bool:
        run = self.run
        rows = (run.pieces, run.sessions, run.closed, run.desk.events)
        left = [len(room) - used for room, used in zip(rows, run.desk.count.tolist(), strict=True)]
        return min(left[0], left[2], left[3] // 4) < ROOM or left[1] < 2 or run.periods[0]["start_ms"] < ROOM

    def _deferred(self, first: int) -> Iterator[Deferred]:
        events = self.run.desk.events[first : self.run.desk.count[N_EVENTS]]
        deferred = events[events["what"] == DEFERRED]
        columns = (deferred[name].tolist() for name in ("cause", "connector", "code"))
        yield from map(Deferred, *columns)

    def _grow(self) -> None:
        periods = self._directory.state.periods
        if periods[0]["start_ms"] < ROOM:
            self._directory.add_periods(2 * ROOM)
        else:
            self._out = grown(self._out)
        self.run = self._new_run()

    def _new_run(self) -> Run:
        return new_run(
            self._book, self._directory.state, self._directory.roster, self._limits, self._defaults, self._detached,
            self.given.samples, self.given.facts, self._out, self._todo,
        )  # fmt: skip


def is_only_waiting(deferred: Deferred) -> bool:
    """Whether the sample was deferred for no reason of its own."""
    return deferred.why == kinds.WHY_DIRTY


def new_facts(rows: int) -> Rows:
    """Facts of samples that the pass has not seen."""
    facts = np.zeros(rows, FACT_DTYPE)
    facts["sheet"] = facts["used_sheet"] = -1
    return facts


def empty_samples() -> Samples:
    """No samples."""
    return Samples(
        np.zeros(0, SAMPLE_DTYPE), new_facts(0), np.zeros(0, TRANSACTION_ID_DTYPE), np.zeros(0, np.int64),
        np.zeros(0, np.int64),
    )  # fmt: skip


def piece_columns(pieces: Rows) -> Pieces:
    """The same pieces as `rating` takes them."""
    return Pieces(*(np.ascontiguousarray(pieces[name]) for name in Pieces._fields))

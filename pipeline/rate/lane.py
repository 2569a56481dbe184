"""One batch on its way to the ledger while the next one is rated: a thread, a flight, nothing more.

The order of steps is that of `commit`; a batch enters only when the one before has landed, so markers stay in order.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from pipeline.errors import StoreUnavailableError
from pipeline.ledger import Claim, Ledger, Snapshot
from pipeline.log import Log
from pipeline.rate.commit import Written, announce, write
from pipeline.rate.doors import Doors, Sending
from pipeline.rate.retire import Keeping, retire
from pipeline.rate.session_events import DataOf
from pipeline.rate.snapshot import StateCopy

LOG: Final = Log("rate")


@dataclass
class Flight:
    """A batch with its claims, and the snapshots to store when it counts."""

    written: Written
    claims: dict[int, Claim]
    snapshots: list[StateCopy] = field(default_factory=list)
    marked: bool = False


class Lane:
    """Commits one flight at a time in a thread of its own, over a connection of its own."""

    def __init__(self, doors: Doors, sender: Sending, data_of: DataOf, keeping: Keeping) -> None:
        """Nothing in it; `data_of` gives the reference data that batches were rated by."""
        self._keeping = keeping
        self._ledger, self._clock = doors.ledger(), doors.clock
        self._sender, self._data_of = sender, data_of
        self._thread = doors.thread("commit")
        self._flight: Flight | None = None
        self._landing: Future[None] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is on its way."""
        return self._flight is None

    def send(self, flight: Flight) -> None:
        """Start committing a batch."""
        self._flight = flight
        self._landing = self._thread.submit(self._commit, flight)

    def land(self) -> Written | None:
        """Wait for the batch; None when there is none. After an outage, which it raises, the next call tries again."""
        flight = self._flight
        if flight is None:
            return None
        landing = self._landing or self._thread.submit(self._commit, flight)
        self._landing = None
        landing.result()
        self._flight = None
        return flight.written

    def drop(self) -> None:
        """Forget the batch: its partitions are someone else's, and what it writes carries a claim that fell."""
        if self._landing is not None:
            self._landing.cancel()
        self._flight = self._landing = None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)

    def _commit(self, flight: Flight) -> None:
        if not flight.marked:
            write(self._ledger, flight.written, flight.claims, self._clock.now_ms())
            flight.marked = True
        announce(self._ledger, self._sender, flight.written, self._data_of, self._clock.now_ms())
        while flight.snapshots:
            snapshot = flight.snapshots.pop(0).packed()  # the copy of the state is not held while this is stored
            store_snapshot(self._ledger, snapshot, flight.claims[snapshot.partition], self._keeping)


def store_snapshot(ledger: Ledger, snapshot: Snapshot, claim: Claim, keeping: Keeping) -> None:
    """Store a snapshot, and drop older ones; that it fails costs recovery time or space and nothing else."""
    try:
        ledger.add_snapshot(snapshot)
        retire(ledger, snapshot, claim, keeping)
    except StoreUnavailableError as error:
        LOG.warning("snapshot not stored; recovery replays more", partition=snapshot.partition, why=str(error))

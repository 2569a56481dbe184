"""Reads one topic in a thread of its own, from where the cache says, and hands batches to a handler; waits in outages.

The handler is idempotent: after a crash it sees the records behind the last saved position again.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from pipeline.clickhouse import Store
from pipeline.errors import BrokerUnavailableError, RetentionGapError, StoreUnavailableError, WattrateError
from pipeline.kafka import Admin, Message, Reader
from pipeline.log import Log
from pipeline.settings import Settings
from pipeline.watch.ledger import State, WatchLedger

LOG = Log("watch")
_BATCH: Final = 2000
_POLL_S: Final = 0.2
_SAVE_EVERY_S: Final = 5.0
_LONGEST_WAIT_S: Final = 30.0


class Handler(Protocol):
    """What is done with the records of a topic."""

    def begin(self, ledger: WatchLedger, log_id: int, saved: Mapping[int, State]) -> None:
        """Start or start again from these caches (partition → state)."""
        ...

    def take(self, messages: Sequence[Message]) -> None:
        """Do it; everything that must not be lost is in the ledger when this returns."""
        ...

    def payload(self, partition: int) -> bytes:
        """What to remember of a partition."""
        ...

    def end(self) -> None:
        """Let go of connections."""
        ...


class Feed:
    """One topic's thread. `stop` ends it; `abandon` leaves a thread that hangs to itself."""

    def __init__(self, settings: Settings, topic: str, make_handler: Callable[[], Handler]) -> None:
        """`make_handler` is called in the thread, again after each outage."""
        self.topic, self._settings, self._make_handler = topic, settings, make_handler
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._starts()

    def _starts(self) -> None:
        self.positions: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.records = 0
        self.beat_s = self.progress_s = time.monotonic()
        self.trouble = ""
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begin to read."""
        self._starts()
        ending = self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ending,), name=f"feed {self.topic}", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Finish the batch in hand, save and end; whether it did in time."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def restart(self) -> None:
        """Leave the thread that hangs (its handler is cut off by the event) and start another."""
        self.stop(timeout_s=1.0)
        self.start()

    @property
    def lag(self) -> int:
        """Records that are on the topic and not yet handled, as far as the last fetch told."""
        return sum(max(0, end - self.positions.get(partition, end)) for partition, end in self.ends.items())

    def _run(self, ending: threading.Event) -> None:
        failures = 0
        while not ending.is_set():
            try:
                self._read(ending)
            except (BrokerUnavailableError, StoreUnavailableError) as outage:
                failures += 1
                self._wait(ending, outage, failures)
            except Exception as error:  # noqa: BLE001 - handed to the watchdog, which restarts or ends the process
                self.failure = error
                return

    def _wait(self, ending: threading.Event, outage: WattrateError, failures: int) -> None:
        if self.trouble != outage.message:
            LOG.warning("waiting", topic=self.topic, reason=outage.message)
        self.trouble = outage.message
        deadline = time.monotonic() + min(0.5 * 2.0**failures, _LONGEST_WAIT_S)
        while time.monotonic() < deadline and not ending.wait(0.2):
            self._lives()

    def _lives(self) -> None:
        """A sign of life where no records are due yet."""
        self.beat_s = self.progress_s = time.monotonic()

    def _read(self, ending: threading.Event) -> None:
        """Until the end is asked for, or an outage."""
        handler = self._make_handler()
        with Store(self._settings) as store, Reader(self._settings, self.topic, group_id="wattrate-watch") as reader:
            self._lives()
            ledger = WatchLedger(store)
            admin = Admin(self._settings)
            log_id = admin.log_id(self.topic)
            self._lives()
            saved = _by_partition(ledger.states(_prefix(self.topic, log_id)))
            starts = admin.start_offsets(self.topic)
            self._lives()
            self.positions = {p: max(first, saved[p].position if p in saved else first) for p, first in starts.items()}
            _tell_gaps(self.topic, starts, saved)
            try:
                handler.begin(ledger, log_id, saved)
                self._lives()
                reader.assign(self.positions)
                self._poll(ending, reader, handler, ledger, log_id)
            finally:
                handler.end()

    def _poll(
        self, ending: threading.Event, reader: Reader, handler: Handler, ledger: WatchLedger, log_id: int
    ) -> None:
        unsaved: set[int] = set()
        saved_s = time.monotonic()
        while not ending.is_set():
            messages = reader.consume(_BATCH, _POLL_S)
            self.beat_s = time.monotonic()
            if messages:
                handler.take(messages)
                if ending.is_set() and self._thread is not threading.current_thread():
                    return  # this thread was given up while it hung: another goes on from the last save
                unsaved |= self._advance(messages, reader)
            elif not self.lag:
                self.progress_s, self.trouble = time.monotonic(), ""
            if unsaved and (time.monotonic() - saved_s > _SAVE_EVERY_S):
                self._save(ledger, handler, log_id, unsaved)
                saved_s = time.monotonic()
        if unsaved:
            self._save(ledger, handler, log_id, unsaved)

    def _advance(self, messages: Sequence[Message], reader: Reader) -> set[int]:
        touched: set[int] = set()
        for message in messages:
            partition, offset = message.partition(), message.offset()
            if partition is None or offset is None:
                raise RetentionGapError(f"{self.topic}: the client handed out a record without a place")
            self.positions[partition] = offset + 1
            touched.add(partition)
        for partition in touched:
            end = reader.high_watermark(partition)
            if end is not None:
                self.ends[partition] = end
        self.records += len(messages)
        self.progress_s, self.trouble = time.monotonic(), ""
        return touched

    def _save(self, ledger: WatchLedger, handler: Handler, log_id: int, partitions: set[int]) -> None:
        prefix = _prefix(self.topic, log_id)
        ledger.save([State(f"{prefix}{p}", self.positions[p], handler.payload(p)) for p in sorted(partitions)])
        partitions.clear()


def _prefix(topic: str, log_id: int) -> str:
    return f"{topic}/{log_id:016x}/"


def _by_partition(states: Mapping[str, State]) -> dict[int, State]:
    return {int(scope.rpartition("/")[2]): state for scope, state in states.items()}


def _tell_gaps(topic: str, starts: Mapping[int, int], saved: Mapping[int, State]) -> None:
    for partition, first in starts.items():
        if partition in saved and saved[partition].position < first:
            LOG.error("records are gone before they were read", topic=topic, partition=partition, first=first)

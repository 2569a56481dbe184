"""The rating worker: joins the group, takes partitions over, and rates and commits batch after batch.

Outages make it wait, never lose or skip; a lost claim makes it forget everything and join anew; a contradiction in
the ledger stops it. What a batch is and how it comes to count is in `engine` and `commit`.
"""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

from pipeline.clickhouse import Store
from pipeline.codec.records import Records
from pipeline.errors import BrokerUnavailableError, DeliveryError, FencedError, StoreUnavailableError
from pipeline.kafka import Admin, Message, Reader, Sender
from pipeline.log import Log
from pipeline.rate.commit import announce, prepare, write
from pipeline.rate.engine import Engine
from pipeline.rate.ledger_history import LedgerHistory
from pipeline.rate.records import by_partition
from pipeline.rate.recover import Recovery
from pipeline.rate.snapshot import take
from pipeline.rate.tables import tables_of
from pipeline.settings import Settings
from pipeline.store import Claim, Ledger, Marker
from pipeline.topics import READINGS

LOG: Final = Log("rate")
_BACK_OFF_MAX_S: Final = 30.0
_REPORT_S: Final = 10.0
_NEVER: Final = 1 << 63
Result = TypeVar("Result")


@dataclass
class Progress:
    """What a worker has done since it started."""

    started_s: float = field(default_factory=time.monotonic)
    first_batch_s: float = 0.0  # when its first batch was read, and when its last one counted
    last_batch_s: float = 0.0
    records: int = 0
    readings: int = 0
    rated: int = 0
    cdrs: int = 0
    alerts: int = 0
    batches: int = 0
    idle_since_s: float = field(default_factory=time.monotonic)


class Worker:
    """One rating process. Not for threads: everything happens where `run` is called."""

    def __init__(self, settings: Settings, admin: Admin) -> None:
        """Connect to log and ledger. Raises TopicError where `wattrate init` was not run, outages as they are."""
        self._settings = settings
        self.member = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        count = admin.partition_count(READINGS)
        log_id = admin.log_id(READINGS)
        self._store = Store(settings)
        self._ledger = Ledger(self._store, log_id)
        self._history = LedgerHistory(self._store, log_id)
        self._sender = Sender(settings)
        self._reader = Reader(settings, READINGS, group_id=settings.group_id)
        self.engine = Engine(count, self._history, lambda data, version: data.advance(self._store, version))
        self._recovery = Recovery(
            self.engine, self._ledger, self._history, self._sender, lambda: Reader(settings, READINGS), self.member
        )
        self._claims: dict[int, Claim] = {}
        self._snapshots: dict[int, float] = {}
        self._ends: dict[int, int] = {}  # last offset that counts, by partition
        self._next: dict[int, int] = {}  # the next offset to rate, by partition owned
        self._stopping = False
        self.progress = Progress()
        self._reported_s = time.monotonic()

    @classmethod
    def connect(cls, settings: Settings, *, wait: Callable[[], bool]) -> Self:
        """A worker, as soon as broker, topics and store are there; `wait` says whether to go on waiting."""
        delay_s = 0.2
        while True:
            try:
                return cls(settings, Admin(settings))
            except (BrokerUnavailableError, StoreUnavailableError) as error:
                LOG.warning("waiting for broker and store", why=str(error), retry_s=round(delay_s, 1))
                if not wait():
                    raise
                time.sleep(delay_s)  # the other side needs time; nothing else is to be done
                delay_s = min(2 * delay_s, _BACK_OFF_MAX_S)

    def stop(self) -> None:
        """Finish the batch at hand, store the state, leave the group."""
        self._stopping = True

    def run(self, *, drain_s: float | None = None) -> Progress:
        """Rate until `stop`, or until nothing came for `drain_s` seconds."""
        self._reader.subscribe(on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        LOG.info("worker joins the group", group=self._settings.group_id, member=self.member)
        try:
            while not self._stopping:
                began_s = time.monotonic()
                messages = self._gather()
                if messages:
                    self.progress.first_batch_s = self.progress.first_batch_s or began_s
                    self._rate(by_partition(messages))
                elif drain_s is not None and self._claims and time.monotonic() - self.progress.idle_since_s > drain_s:
                    break
                self._report()
            self._snapshot(self._claims, due_s=0.0)
        finally:
            self._reader.close()
            self._sender.close()
            self._store.close()
        return self.progress

    def _gather(self) -> list[Message]:
        """Records for one batch: as many as fit, or what came in the time that a batch may wait."""
        gathered: list[Message] = []
        until_s = time.monotonic() + self._settings.batch_wait_s
        while len(gathered) < self._settings.batch_records and not self._stopping:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                break
            gathered += self._reader.consume(self._settings.batch_records - len(gathered), left_s)
        return [m for m in gathered if m.offset() >= self._next.get(m.partition(), _NEVER)]

    def _rate(self, records: dict[int, Records]) -> None:
        """One batch through the engine and the commit protocol."""
        self._history.begin({partition: int(found.offsets[0]) for partition, found in records.items()})
        batch = self._steadily("reading the past of sessions", lambda: self.engine.process(records))
        claims = {partition: self._claims[partition] for partition in records}
        numbers = {partition: claim.claim for partition, claim in claims.items()}
        tables = tables_of(batch, self.engine.directory, self.engine.sheets, self._ledger.log_id, numbers)
        written = prepare(batch, tables, claims, _now_ms())
        self._steadily("writing rows", lambda: write(self._ledger, written, claims))
        self._steadily("publishing", lambda: announce(self._ledger, self._sender, written, _now_ms()))
        self._reader.commit({marker.partition: marker.last_offset + 1 for marker in written.markers})
        self._next.update({marker.partition: marker.last_offset + 1 for marker in written.markers})
        self._ends.update({marker.partition: marker.last_offset for marker in written.markers})
        self._note(written.markers)
        self._snapshot(claims, due_s=self._settings.snapshot_interval_s)

    def _steadily(self, doing: str, step: Callable[[], Result]) -> Result:
        """Do a step that may be repeated, through any outage: pause, keep polling, back off, go on."""
        delay_s, paused = 0.2, False
        while True:
            try:
                result = step()
            except (StoreUnavailableError, BrokerUnavailableError, DeliveryError) as error:
                LOG.warning("outage: partitions are paused, nothing is lost", doing=doing, why=str(error))
                self._reader.pause(self._claims)
                paused = True
                self._wait_out(delay_s)
                delay_s = min(2 * delay_s, _BACK_OFF_MAX_S)
                continue
            if paused:
                LOG.info("the outage is over", doing=doing)
                self._reader.resume(self._claims)
            return result

    def _wait_out(self, delay_s: float) -> None:
        """Keep the group membership alive while waiting."""
        owned = set(self._claims)
        until_s = time.monotonic() + delay_s
        while (left_s := until_s - time.monotonic()) > 0:
            self._reader.consume(1, left_s)
        if owned - set(self._claims):
            raise FencedError("partitions moved to another worker during an outage: the batch at hand is dropped")

    def _assigned(self, partitions: Iterable[int]) -> dict[int, int]:
        """Take partitions over; where each starts."""
        wanted = list(partitions)
        claims = self._steadily("taking partitions over", lambda: self._recovery.take_over(wanted))
        self._claims.update(claims)
        self.progress.idle_since_s = time.monotonic()
        self._snapshots.update(dict.fromkeys(wanted, time.monotonic()))
        starts = {partition: claim.first_offset for partition, claim in claims.items()}
        self._next.update(starts)
        return starts

    def _revoked(self, partitions: Iterable[int]) -> None:
        """Every batch is committed when this is called: store the state for whoever comes next, and forget it."""
        mine = [partition for partition in partitions if partition in self._claims]
        self._snapshot(mine, due_s=0.0)
        self._forget(mine)
        LOG.info("partitions given away", partitions=mine)

    def _lost(self, partitions: Iterable[int]) -> None:
        """Another worker may have them already: write nothing, forget everything of them."""
        self._forget(partitions)
        LOG.warning("partitions lost", partitions=list(partitions))

    def _forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.engine.drop(partition)
            self._claims.pop(partition, None)
            self._ends.pop(partition, None)
            self._next.pop(partition, None)

    def _snapshot(self, partitions: Iterable[int], *, due_s: float) -> None:
        """Store the state of partitions whose last snapshot is older than `due_s`; failing only costs recovery time."""
        now_s = time.monotonic()
        for partition in list(partitions):
            if partition not in self._ends or now_s - self._snapshots.get(partition, 0.0) < due_s:
                continue
            snapshot = take(self.engine, partition, self._ends[partition], self._claims[partition].claim, _now_ms())
            try:
                self._ledger.add_snapshot(snapshot)
            except StoreUnavailableError as error:
                LOG.warning("snapshot not stored; recovery will replay more", partition=partition, why=str(error))
            self._snapshots[partition] = now_s

    def _note(self, markers: Iterable[Marker]) -> None:
        progress = self.progress
        progress.idle_since_s = progress.last_batch_s = time.monotonic()
        progress.batches += 1
        for marker in markers:
            progress.records += marker.records
            progress.readings += marker.readings
            progress.rated += marker.rated
            progress.cdrs += marker.cdrs
            progress.alerts += marker.alerts

    def _report(self) -> None:
        if time.monotonic() - self._reported_s < _REPORT_S:
            return
        self._reported_s = time.monotonic()
        done = self.progress
        LOG.info("rated", records=done.records, readings=done.readings, cdrs=done.cdrs, alerts=done.alerts)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""The rating worker: joins the group, takes partitions over, and rates and commits batch after batch.

Outages make it wait, never lose or skip; a lost claim, or a record that the store refuses, makes it forget everything
and join anew; a contradiction in the ledger stops it. What a batch is and how it counts: `engine`, `commit`.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final, Self, TypeVar

import numpy as np

from pipeline.codec.records import Records
from pipeline.errors import BrokerError, BrokerUnavailableError, DeliveryError, FencedError, StoreUnavailableError
from pipeline.kafka import Message
from pipeline.ledger import Claim, Marker
from pipeline.log import Log
from pipeline.metering.signed import Verifier
from pipeline.metrics import Figure
from pipeline.rate.commit import prepare
from pipeline.rate.doors import Doors, RealDoors
from pipeline.rate.engine import Engine
from pipeline.rate.lane import Flight, Lane, store_snapshot
from pipeline.rate.ledger_history import READING_PAST, LedgerHistory
from pipeline.rate.memory import give_back
from pipeline.rate.progress import Progress
from pipeline.rate.records import Glance, by_partition, cut
from pipeline.rate.recover import Recovery
from pipeline.rate.retire import KEEPING
from pipeline.rate.snapshot import StateCopy, take
from pipeline.rate.tables import tables_of
from pipeline.reference import ReferenceData
from pipeline.settings import Settings

LOG: Final = Log("rate")
_BACK_OFF_MAX_S: Final = 30.0
_REPORT_S: Final = 10.0
_SLOW: Final = 0.5  # of max_poll_interval_s
_NEVER: Final = (1 << 63) - 1
_COPIED: Final = 50_000  # connectors, whose state is copied after one batch: some 0.1 s
_BEHIND: Final = 2  # so many full batches in a row: it does not keep up
_AT_ONCE_S: Final = 0.001  # the client counts in whole ms
_AT_FIRST: Final = 64  # records of a batch's first call; what they weigh says how many more fit
_AT_ONCE: Final = 2_000  # records of one call: the client holds the interpreter meanwhile, and the lane waits
Result = TypeVar("Result")


class Worker:
    """One rating process. Not for threads: everything happens where `run` is called."""

    at_ease = 50_000  # records of a batch while the worker keeps up: larger ones cost less and take longer
    # Records of a partition after which a snapshot is due whatever the time, at least and for each of its connectors:
    # what a recovery replays stays short, and copying the state costs little beside rating so much.
    replayed, replayed_each = 50_000, 2
    recovery: type[Recovery] = Recovery
    keeping = KEEPING  # of snapshots

    def __init__(self, settings: Settings, doors: Doors) -> None:
        """Open the doors. Raises outages as they are."""
        self._settings, self._doors, self._clock = settings, doors, doors.clock
        self._ledger = doors.ledger()
        self._history = LedgerHistory(doors.past(), self._through_outages)
        self._sender = doors.sender()
        self._reader = doors.reader()
        self._verifier, self._glance = Verifier(settings.verify_processes), Glance()
        self.engine = Engine(doors.partitions, self._history, self._load, verifier=self._verifier)
        self._lane = Lane(doors, self._sender, self.engine.sheets.data, self.keeping)
        self._recovery = self.recovery(self.engine, self._ledger, self._history, self._sender, doors)
        self._claims: dict[int, Claim] = {}
        self._snapshots: dict[int, tuple[float, int]] = {}  # when the last one was due, and the first offset after it
        self._ends: dict[int, int] = {}  # last offset that counts, by partition
        self._next: dict[int, int] = {}  # the next offset to rate, by partition owned
        self._stopping = False
        self._rebalancing = False
        self._ahead = False  # nothing is owned yet: what can't be read now is read when it is needed
        self._full_batches = 0  # in a row
        self._waiting = False  # in an outage: the engine may be ahead of what was sent
        self._moved: set[int] = set()  # partitions that left while records were gathered
        self.progress = Progress(self._clock.monotonic(), self._clock.monotonic())
        self._reported_s = self._clock.monotonic()

    @classmethod
    def connect(cls, settings: Settings, *, wait: Callable[[], bool]) -> Self:
        """A worker, as soon as broker, topics and store are there; `wait` says whether to go on waiting."""
        delay_s = 0.2
        while True:
            try:
                return cls(settings, RealDoors.of_topic(settings))
            except (BrokerUnavailableError, StoreUnavailableError) as error:
                LOG.warning("waiting for broker and store", why=str(error), retry_s=round(delay_s, 1))
                if not wait():
                    raise
                time.sleep(delay_s)  # the other side needs time; nothing else is to be done
                delay_s = min(2 * delay_s, _BACK_OFF_MAX_S)

    def figures(self) -> list[Figure]:
        """For the metrics page; may be asked from another thread."""
        return self.progress.figures(self._clock.monotonic())

    def stop(self) -> None:
        """Finish the batch at hand, store the state, leave the group."""
        self._stopping = True

    def run(self, *, drain_s: float | None = None) -> Progress:
        """Rate until `stop`, or until nothing came for `drain_s` seconds."""
        self._reader.subscribe(on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        LOG.info("worker joins the group", group=self._settings.group_id, member=self._doors.member)
        finished = False
        try:
            self._read_ahead()
            while not self._stopping:
                began_s = self._clock.monotonic()
                records = self._gather()
                if records:
                    self.progress.first_batch_s = self.progress.first_batch_s or began_s
                    gathered_s = self._clock.monotonic()
                    self._rate(records)
                    self._warn_if_slow(
                        self._clock.monotonic() - gathered_s, sum(len(r.values) for r in records.values())
                    )
                    self._report()
                    continue
                self._land()
                if drain_s is not None and self._claims and self._idle_s() > drain_s:
                    break
            self._land()
            self._store_snapshots(self._claims)
            finished = True
        finally:
            if not finished:  # the engine may be ahead of the ledger: nothing of it may be stored on the way out
                self._lane.drop()
                self._forget(list(self._claims))
            self._reader.close()
            self._lane.close()
            self._verifier.close()
            self._sender.close()
            self._doors.close()
        return self.progress

    def _read_ahead(self) -> None:
        """While the group settles who gets what: the reference data that was in use last.

        In an outage it is left: a member that does not poll keeps its partitions from whoever could rate them.
        """
        if self._stopping:
            return
        self._ahead = True
        try:
            self.engine.sheets.data(self._ledger.newest_reference())
            give_back()
        except (StoreUnavailableError, BrokerUnavailableError) as error:
            LOG.warning("outage: reference data is not read ahead", why=str(error))
        self._ahead = False

    def _idle_s(self) -> float:
        return self._clock.monotonic() - self.progress.idle_since_s

    def _gather(self) -> dict[int, Records]:
        """Records for one batch: as many as fit, or what came in the time that a batch may wait, and waits after it."""
        gathered: list[Message] = []
        most = self._settings.batch_records
        limit = most if self._full_batches >= _BEHIND else min(self.at_ease, most)
        room, at_once = self._settings.batch_bytes, _AT_FIRST
        until_s, waits = self._clock.monotonic() + self._settings.batch_wait_s, True
        while len(gathered) < limit and room > 0 and not self._stopping:
            left_s = until_s - self._clock.monotonic()
            if left_s < _AT_ONCE_S and not waits:
                break
            self._moved.clear()
            asked = min(at_once, limit - len(gathered))
            found = self._reader.consume(asked, max(left_s, _AT_ONCE_S))
            waits = len(found) == asked
            self._foresee(found)
            gathered = [m for m in gathered if m.partition() not in self._moved] if self._moved else gathered
            gathered += found
            taken = sum(map(len, found))
            room -= taken
            at_once = min(_AT_ONCE, max(1, room * len(found) // taken)) if taken else at_once
        self._full_batches = self._full_batches + 1 if len(gathered) >= limit or room <= 0 else 0
        return self._unrated(by_partition(gathered))

    def _foresee(self, found: list[Message]) -> None:
        """Have signatures verified from when their records are read.

        What a glance overlooks the engine foresees when it has the batch; what a wrong key foresaw it judges again.
        """
        if self._verifier.ahead and (signed := self._glance.signed(found)):
            self.engine.foresee(by_partition(signed))

    def _unrated(self, found: dict[int, Records]) -> dict[int, Records]:
        """The records of partitions owned now that were not rated yet."""
        owned = {}
        for partition, records in found.items():
            first = int(np.searchsorted(records.offsets, self._next.get(partition, _NEVER)))
            if first < len(records.values):
                owned[partition] = cut(records, first, None) if first else records
        return owned

    def _rate(self, records: dict[int, Records]) -> None:
        """One batch through the engine; it is committed in the lane while the next one is read and rated."""
        self._history.begin({partition: int(found.offsets[0]) for partition, found in records.items()})
        batch = self.engine.process(records, self._recovery.refused)
        claims = {partition: self._claims[partition] for partition in records}
        numbers = {partition: claim.claim for partition, claim in claims.items()}
        tables = tables_of(batch, self.engine.directory, self.engine.sheets, self._doors.log_id, numbers)
        written = prepare(batch, tables, claims, self._clock.now_ms())
        self._next.update({marker.partition: marker.last_offset + 1 for marker in written.markers})
        snapshots = self._due_snapshots(written.markers)
        self._land()
        self._lane.send(Flight(written, claims, snapshots))

    def _land(self) -> None:
        """Wait until the batch in the lane counts, through any outage."""
        if self._lane.empty:
            return
        written = self._through_outages("committing a batch", self._lane.land)
        if written is None:
            return
        self._hint({marker.partition: marker.last_offset + 1 for marker in written.markers})
        self._ends.update({marker.partition: marker.last_offset for marker in written.markers})
        self._note(written.markers)

    def _hint(self, offsets: dict[int, int]) -> None:
        """Step 7. Recovery asks the ledger, so that a group that can't take it now is no reason to stop."""
        try:
            self._reader.commit(offsets)
        except BrokerError as error:
            LOG.warning("the group's offset is not stored; the ledger has it", why=str(error))

    def _load(self, data: ReferenceData, version: int) -> ReferenceData:
        return self._through_outages("loading reference data", lambda: self._doors.load(data, version))

    def _through_outages(self, doing: str, step: Callable[[], Result]) -> Result:
        """Do a step that may be repeated, through any outage: pause, keep polling, back off, go on.

        Reading a session's past comes through here too: what an earlier batch wrote must count before it is read.
        """
        if doing == READING_PAST:
            self._land()
        delay_s, paused = 0.2, False
        while True:
            try:
                result = step()
            except (StoreUnavailableError, BrokerUnavailableError, DeliveryError) as error:
                LOG.warning("outage: partitions are paused, nothing is lost", doing=doing, why=str(error))
                if self._stopping or self._ahead:  # whoever comes next does it, or the take-over
                    raise
                self.progress.waits_for = doing
                self._wait_out(delay_s)
                paused = True
                delay_s = min(2 * delay_s, _BACK_OFF_MAX_S)
                continue
            if paused:
                LOG.info("the outage is over", doing=doing)
                self.progress.waits_for = ""
                if not self._waiting:  # else this was inside another wait, which goes on
                    self._reader.resume(self._claims)
            return result

    def _wait_out(self, delay_s: float) -> None:
        """Keep the group membership alive while waiting; inside a rebalance only wait."""
        if self._rebalancing:
            self._clock.sleep(delay_s)  # polling is not allowed inside a rebalance
            return
        self._reader.pause(self._claims)
        owned, handed_out = dict(self._claims), set[int]()
        self._waiting = True
        until_s = self._clock.monotonic() + delay_s
        while (left_s := until_s - self._clock.monotonic()) > 0:
            handed_out.update(by_partition(self._reader.consume(1, left_s)))
        self._waiting = False
        if owned != self._claims:
            raise FencedError("partitions moved to another worker during an outage: the batch at hand is dropped")
        for partition in handed_out & owned.keys():  # it came and went meanwhile, or came back: nothing is passed over
            self._reader.seek(partition, self._next[partition])

    def _assigned(self, partitions: Iterable[int]) -> dict[int, int]:
        """Take partitions over; where each starts."""
        wanted = list(partitions)
        self._rebalancing = True
        self._land()
        claims = self._through_outages("taking partitions over", lambda: self._recovery.take_over(wanted))
        give_back()
        self._rebalancing = False
        self._claims.update(claims)
        self.progress.idle_since_s = self._clock.monotonic()
        starts = {partition: claim.first_offset for partition, claim in claims.items()}
        self._snapshots.update({p: (self._clock.monotonic(), first) for p, first in starts.items()})
        self._next.update(starts)
        return starts

    def _revoked(self, partitions: Iterable[int]) -> None:
        """Commit what is in the lane, store the state for whoever comes next, and forget it."""
        mine = [partition for partition in partitions if partition in self._claims]
        try:
            written = self._lane.land()
        except (StoreUnavailableError, BrokerUnavailableError, DeliveryError) as error:
            raise FencedError(f"partitions leave during an outage, the last batch is rated again: {error}") from error
        if written is not None:
            self._ends.update({marker.partition: marker.last_offset for marker in written.markers})
            self._note(written.markers)
        if not self._waiting:
            self._store_snapshots(mine)
        self._forget(mine)
        LOG.info("partitions given away", partitions=mine)

    def _lost(self, partitions: Iterable[int]) -> None:
        """Another worker may have them already: write nothing, forget everything of them."""
        gone = list(partitions)
        kept = sorted(self._claims.keys() - gone)
        self._lane.drop()
        self._forget(list(self._claims))
        LOG.warning("partitions lost", partitions=gone)
        if kept:
            raise FencedError(f"the batch that was dropped also held partitions {kept}: joining again")

    def _forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.engine.drop(partition)
            self._moved.add(partition)
            self._claims.pop(partition, None)
            self._ends.pop(partition, None)
            self._next.pop(partition, None)
            self.progress.forget(partition)

    def _due_snapshots(self, markers: Iterable[Marker]) -> list[StateCopy]:
        """The state after a batch, of partitions whose last snapshot is old, or behind by many records.

        The oldest first, and as many as are copied while a batch may wait: large ones come one after the other.
        """
        now_s, copied, due = self._clock.monotonic(), 0, list[StateCopy]()
        for marker in sorted(markers, key=lambda marker: self._snapshots[marker.partition]):
            connectors = self.engine.directory.count(marker.partition)
            if not self._is_due(marker, connectors, now_s) or (due and copied + connectors > _COPIED):
                continue
            copied += connectors
            self._land()  # with the copies that it carries: those of two batches are never held at once
            self._snapshots[marker.partition] = now_s, marker.last_offset + 1
            due.append(take(self.engine, marker.partition, marker.last_offset, marker.claim, self._clock.now_ms()))
        return due

    def _is_due(self, marker: Marker, connectors: int, now_s: float) -> bool:
        taken_s, first = self._snapshots[marker.partition]
        records = marker.last_offset + 1 - first
        old = now_s - taken_s >= self._settings.snapshot_interval_s
        return old or records >= max(self.replayed, self.replayed_each * connectors)

    def _store_snapshots(self, partitions: Iterable[int]) -> None:
        """Store the state now, when nothing is in the lane; failing only costs recovery time."""
        for partition in partitions:
            if partition not in self._ends:
                continue
            snapshot = take(
                self.engine, partition, self._ends[partition], self._claims[partition].claim, self._clock.now_ms()
            ).packed()
            store_snapshot(self._ledger, snapshot, self._claims[partition], self.keeping)

    def _note(self, markers: Iterable[Marker]) -> None:
        self.progress.note(markers, self._clock.monotonic())
        for partition, first in self._next.items():
            end = self._reader.high_watermark(partition)
            if end is not None:
                self.progress.lag[partition] = max(0, end - first)

    def _warn_if_slow(self, unpolled_s: float, records: int) -> None:
        """Say so before the group takes the worker for dead, not only after."""
        if unpolled_s > _SLOW * self._settings.max_poll_interval_s:
            LOG.warning(
                "slow: this batch came near max_poll_interval_s, after which the group takes a worker for dead; "
                "lower batch_records, or look why the store takes so long",
                seconds=round(unpolled_s, 1), max_poll_interval_s=self._settings.max_poll_interval_s, records=records,
            )  # fmt: skip

    def _report(self) -> None:
        if self._clock.monotonic() - self._reported_s < _REPORT_S:
            return
        self._reported_s = self._clock.monotonic()
        done = self.progress
        LOG.info("rated", records=done.records, readings=done.readings, cdrs=done.cdrs, alerts=done.alerts)

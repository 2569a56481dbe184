"""Protocols that are broken on purpose, each by one step: the simulation must catch every one of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from pipeline.codec.records import Records
from pipeline.ledger import ROW_TABLES, Claim, Marker, Snapshot, Span, Taken
from pipeline.rate.lane import store_snapshot
from pipeline.rate.snapshot import StateCopy, take
from pipeline.reference import ReferenceData
from pipeline.tiling import UNBOUNDED, Extent
from tests.simulation.ledger import SimulatedLedger
from tests.simulation.log import SimulatedSender
from tests.simulation.world import Broken, HastyWorker, World


class CommitsBeforeRows(SimulatedLedger):
    """The marker first, the rows after it."""

    _waiting: Sequence[tuple[str, pa.Table]] = ()

    def insert(self, table: str, rows: pa.Table) -> None:
        """Rows wait."""
        if table in ROW_TABLES:
            self._waiting = [*self._waiting, (table, rows)]
        else:
            super().insert(table, rows)

    def read_back(self, written: Mapping[str, pa.Table], spans: Sequence[Span]) -> None:
        """There is nothing to read yet."""

    def add_markers(self, markers: Sequence[Marker]) -> None:
        """Then the rows."""
        super().add_markers(markers)
        for table, rows in self._waiting:
            super().insert(table, rows)
        self._waiting = ()


class TrustsAcknowledgements(SimulatedLedger):
    """A marker without reading the rows back."""

    def read_back(self, written: Mapping[str, pa.Table], spans: Sequence[Span]) -> None:
        """They were acknowledged."""


class ReadsBeforeItAsks(SimulatedLedger):
    """The markers are read before anyone is told of the claim; one that lands in between is passed over."""

    def take(self, partitions: Sequence[int], member: str, now_ms: int) -> dict[int, Taken]:
        """Tiles that may be stale."""
        self._stale = self.tiled_ends(self.extents(partitions))
        try:
            return super().take(partitions, member, now_ms)
        finally:
            self._stale = None

    _stale: dict[int, int] | None = None

    def tiled_ends(self, extents: Mapping[int, Sequence[Extent]]) -> dict[int, int]:
        """As read before."""
        return super().tiled_ends(extents) if self._stale is None else self._stale


class NeverLooksAgain(SimulatedLedger):
    """Nobody asks, after the marker, whether someone else asked for the partition."""

    _marked = False

    def add_markers(self, markers: Sequence[Marker]) -> None:
        """The next look is left out."""
        super().add_markers(markers)
        self._marked = True

    def check_claims(self, claims: Sequence[Claim]) -> None:
        """Unless it is the one after a marker."""
        if self._marked:
            self._marked = False
            return
        super().check_claims(claims)


class ClaimsWithoutAsking(SimulatedLedger):
    """Two who take one number at the same moment both keep it."""

    def _intend(self, partitions: list[int], member: str, now_ms: int) -> dict[int, int]:
        """The next number, whoever else has it."""
        before = self.highest_claims(partitions)
        return {p: before[p].claim + 1 if p in before else 1 for p in partitions}

    def check_claims(self, claims: Sequence[Claim]) -> None:
        """Only a higher number counts."""
        now = self.highest_claims([claim.partition for claim in claims])
        for claim in claims:
            if now[claim.partition].claim != claim.claim:
                self._fenced(claim, now[claim.partition])


class TrustsAnAnchor(SimulatedLedger):
    """Tilings begin at an older snapshot: it was taken when all before it was marked."""

    def tiled_ends(self, extents: Mapping[int, Sequence[Extent]]) -> dict[int, int]:
        """From there on."""
        ends = super().tiled_ends(extents)
        for partition in extents:
            anchor = self.snapshot(partition, UNBOUNDED, skip=1)
            tail = [m for m in self.markers([partition]) if anchor and m.first_offset > anchor.last_offset]
            if anchor and tail and tail[0].first_offset == anchor.last_offset + 1:
                ends[partition] = self._tiled(partition, tail)[-1].last_offset + 1
        return ends


class RetiresUnseen(SimulatedLedger):
    """Older snapshots go when a newer one was acknowledged."""

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Without reading it back."""
        super().add_snapshot(snapshot)
        older = self.snapshots(snapshot.partition, snapshot.last_offset - 1)
        self.drop_snapshots(snapshot.partition, older)


class SkipsPublishedRows(SimulatedLedger):
    """Nothing says how far outputs were published."""

    def add_published(self, offsets: Mapping[int, tuple[int, int]], now_ms: int) -> None:
        """Left out."""


class StateAheadOfItsOffset(HastyWorker):
    """Snapshots hold more than they say: a batch that does not count yet."""

    def _due_snapshots(self, markers: Iterable[Marker]) -> list[StateCopy]:
        firsts = {marker.partition: marker.first_offset for marker in markers}
        for due in super()._due_snapshots(markers):
            partition = due.header.partition
            first = firsts[partition]
            if first:
                ahead = take(self.engine, partition, first - 1, due.claim, due.taken_at_ms)
                store_snapshot(self._ledger, ahead.packed(), self._claims[partition], self.keeping)
        return []


class OffsetBeforeMarker(HastyWorker):
    """The group's offset is stored when a batch is rated, not when it counts."""

    def _rate(self, records: dict[int, Records]) -> None:
        self._hint({partition: int(found.offsets[-1]) + 1 for partition, found in records.items()})
        super()._rate(records)


class ConfirmsUnsent(SimulatedSender):
    """A flush that returns before anything is on its topic."""

    def flush(self) -> None:
        """What was sent before the last flush goes out."""
        waiting, self._queued = self._queued, list(self._early)
        self._early = waiting
        super().flush()

    _early: Sequence[Any] = ()


def newest_reference(world: World, data: ReferenceData, version: int) -> ReferenceData:
    """Whatever was published by now, under the version that the log names."""
    late = world.schedule.now > 5.0
    changes = [change for at in sorted(world.workload.changes) if at <= version or late
               for change in world.workload.changes[at]]  # fmt: skip
    return ReferenceData().changed(version, [change._replace(version=version) for change in changes])


_OFTEN: Final = {"late": 0.15, "lost_answer": 0.1, "freeze": 0.5, "kill": 0.01}


def _mutant(name: str, **given: Any) -> tuple[str, Broken]:
    return name, Broken(name, **given)


MUTANTS: Final[dict[str, Broken]] = dict(
    [
        _mutant("commit before rows", ledger=CommitsBeforeRows),
        _mutant("marker before read-back", ledger=TrustsAcknowledgements, weather={"swallowed": 0.2}),
        _mutant("markers read before the intent", ledger=ReadsBeforeItAsks, weather=_OFTEN),
        _mutant("no look after the marker", ledger=NeverLooksAgain, weather=_OFTEN),
        _mutant("two claimants with one number", ledger=ClaimsWithoutAsking, weather={**_OFTEN, "nap": 0.3}),
        _mutant("state ahead of its offset", worker=StateAheadOfItsOffset, weather={"kill": 0.02, "torn": 0.0}),
        _mutant("group offset before the marker", worker=OffsetBeforeMarker),
        _mutant("reference applied outside the log", load=newest_reference, weather={"kill": 0.02}),
        _mutant("published before it is sent", sender=ConfirmsUnsent, weather={"kill": 0.02}),
        _mutant("an anchor hides a hole", ledger=TrustsAnAnchor, weather={"forgets": 0.3, "torn": 0.0}),
        _mutant("the only snapshot is dropped", ledger=RetiresUnseen, weather={"torn": 0.4}),
        _mutant("published row skipped", ledger=SkipsPublishedRows),
    ]
)


def caught(broken: Broken, seeds: Iterable[int], told: Callable[[int, str], None]) -> bool:
    """Whether one of the seeds finds it."""
    for seed in seeds:
        try:
            World(seed, broken).run()
        except AssertionError as error:
            told(seed, str(error))
            return True
    return False

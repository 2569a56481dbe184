"""Batches rated again from the log, beside the ledger: the same log gives the checksum that its marker promised.

Begins at the newest snapshot before the offsets asked for, or at the start of the log. Nothing is written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import RetentionGapError
from pipeline.ledger import Claim, Ledger, Marker
from pipeline.rate.commit import prepare
from pipeline.rate.doors import Doors
from pipeline.rate.engine import Engine
from pipeline.rate.ledger_history import LedgerHistory
from pipeline.rate.recover import Tape, from_snapshot
from pipeline.rate.refusals import ByClaim, in_force
from pipeline.rate.tables import tables_of

Result = TypeVar("Result")


@dataclass(frozen=True)
class Recomputed:
    """A marker, and what its batch gives now."""

    marker: Marker
    checksum: int
    code_version: str

    @property
    def holds(self) -> bool:
        """Whether both are the same."""
        return self.checksum == self.marker.checksum


class Recomputation:
    """Over one log; for one partition after the other."""

    def __init__(self, doors: Doors) -> None:
        """Raises outages as they are: whoever asks may ask again."""
        self._doors = doors
        self._ledger: Ledger = doors.ledger()
        self._history = LedgerHistory(doors.past(), _at_once)
        self._engine = Engine(doors.partitions, self._history, doors.load)
        self.beyond = 0  # batches asked for that end after the log does: of kept records, the newest

    def of(self, partition: int, since_ms: int = 0) -> Iterator[Recomputed]:
        """Every batch of a partition that was marked at this log time or later, in order."""
        tiles = self._ledger.tilings([partition])[partition]
        wanted = [marker for marker in tiles if marker.log_time >= since_ms]
        if not wanted:
            return
        self._engine.own(partition)
        refused = in_force(self._ledger, [partition])[partition]
        before = wanted[0].first_offset - 1
        first = from_snapshot(self._engine, self._ledger, partition, before) + 1 if before >= 0 else 0
        with self._doors.tape() as reader:
            reader.assign({partition: first})
            end = reader.high_watermark(partition)  # Kafka's log tells none before it is read
            if end is not None:
                self.beyond += sum(marker.last_offset >= end for marker in wanted)
                tiles = [marker for marker in tiles if marker.last_offset < end]
            tape = Tape(reader, partition, self._doors.clock, tiles[-1].last_offset if tiles else -1)
            for marker in (m for m in tiles if m.last_offset >= first):
                found = self._again(marker, tape, refused)
                if marker.first_offset >= wanted[0].first_offset:
                    yield found
        self._engine.drop(partition)

    def _again(self, marker: Marker, tape: Tape, refused: ByClaim) -> Recomputed:
        partition = marker.partition
        [piece] = tape.until(marker.last_offset, whole=True)
        if len(piece.values) != marker.records:
            raise RetentionGapError(
                f"partition {partition}: {marker.records} records were rated of offsets {marker.first_offset} to "
                f"{marker.last_offset}, the log holds {len(piece.values)}: they can't be rated again (docs/recovery.md)"
            )
        self._history.begin({partition: int(piece.offsets[0])})
        batch = self._engine.process({partition: piece}, {partition: refused.get(marker.claim, {})})
        tables = tables_of(
            batch, self._engine.directory, self._engine.sheets, self._doors.log_id, {partition: marker.claim}
        )
        claims = {partition: Claim(partition, marker.claim, 0, "")}
        [again] = prepare(batch, tables, claims, self._doors.clock.now_ms()).markers
        return Recomputed(marker, again.checksum, again.code_version)


def _at_once(doing: str, step: Callable[[], Result]) -> Result:
    return step()

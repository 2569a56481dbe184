"""From nothing to the state after the last marker: claim, reconcile, snapshot, replay, publish.

1. claim      from the end of the tiled markers on, told from sums: whoever wrote before is fenced (`Ledger.take`)
2. adopt      what the store is known to refuse of the offsets to come is in force under the new claim
3. reconcile  the markers of the last hour of work are held against their rows
4. snapshot   the newest that fits and that no broken marker lies before; torn, foreign or other code's are refused
5. replay     the log from there to the last marker: the same function gives the same state, and a broken marker's rows
6. publish    outputs that were marked and perhaps not sent
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.codec.records import Records
from pipeline.errors import BrokerError, BrokerUnavailableError, IntegrityError, RetentionGapError
from pipeline.ledger import (
    ALERTS,
    CDRS,
    QUARANTINE,
    RATED_USAGE,
    READINGS,
    ROW_TABLES,
    Claim,
    Ledger,
    Marker,
    Span,
    Taken,
)
from pipeline.log import Log
from pipeline.rate.doors import Clock, Doors, Playing, Sending
from pipeline.rate.engine import Engine
from pipeline.rate.isolate import insert
from pipeline.rate.ledger_history import LedgerHistory
from pipeline.rate.outputs import publish
from pipeline.rate.records import by_partition, cut, joined
from pipeline.rate.refusals import ByClaim, adopt
from pipeline.rate.session_events import session_events
from pipeline.rate.snapshot import restore
from pipeline.rate.tables import tables_of

LOG: Final = Log("rate")
_REPLAY_RECORDS: Final = 20_000
_RUNS: Final = 200  # of markers in one question: the store takes texts up to a length
_SILENT_S: Final = 30.0
_REPORT_S: Final = 10.0


class Recovery:
    """Brings partitions of one worker to the state after their last marker."""

    # Markers are doubted that were written so long before the last one, and later; all before that is for `verify`.
    # How many offsets that is nobody knows before: what is asked for grows by eight from so many on.
    doubted_ms, doubted_at_first = 3_600_000, 50_000

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        history: LedgerHistory,
        sender: Sending,
        doors: Doors,
    ) -> None:
        """`doors` gives readers of the readings topic that are in no group, the clock and the worker's name."""
        self._engine, self._ledger, self._history = engine, ledger, history
        self._sender, self._doors = sender, doors
        self._by_claim: dict[int, ByClaim] = {}
        self.refused: dict[int, dict[int, str]] = {}  # records to come that the store refuses, as `Engine` takes them

    def take_over(self, partitions: list[int]) -> dict[int, Claim]:
        """Claim partitions and rebuild their state. Raises FencedError when another member was first."""
        clock = self._doors.clock
        started_s = clock.monotonic()
        taken = self._ledger.take(partitions, self._doors.member, clock.now_ms())
        claims = {partition: one.claim for partition, one in taken.items()}
        self._by_claim = adopt(self._ledger, claims, clock.now_ms())
        self.refused.update({p: self._by_claim[p].get(claim.claim, {}) for p, claim in claims.items()})
        broken = self._broken(self._doubted(taken))
        for partition in partitions:
            self._rebuild(taken[partition], broken[partition])
        self._publish_rest(claims)
        LOG.info("partitions taken over", partitions=len(partitions), seconds=round(clock.monotonic() - started_s, 2))
        return claims

    def _rebuild(self, taken: Taken, broken: list[Marker]) -> None:
        """The state right before the claim's first offset, whatever markers there are: it is never behind the claim."""
        partition, last = taken.claim.partition, taken.claim.first_offset - 1
        self._engine.drop(partition)
        self._engine.own(partition)
        if last < 0:
            return
        whole = broken[0].first_offset - 1 if broken else last
        first = from_snapshot(self._engine, self._ledger, partition, whole) + 1
        if first <= last:
            self._replay(taken, first, broken)

    def _doubted(self, taken: Mapping[int, Taken]) -> dict[int, list[Marker]]:
        """Partition → its last markers, those of an hour of work."""
        found: dict[int, list[Marker]] = {p: [] for p, one in taken.items() if not one.claim.first_offset}
        width = self.doubted_at_first
        while asked := {p: one for p, one in taken.items() if p not in found}:
            spans = [span for one in asked.values() for span in one.spans(one.claim.first_offset - width)]
            markers = self._ledger.markers_within(spans)
            for partition, one in asked.items():
                tiles = [marker for marker in markers if marker.partition == partition]
                since_ms = tiles[-1].written_at - self.doubted_ms if tiles else 0
                old = [at for at, marker in enumerate(tiles) if marker.written_at <= since_ms]
                if old or width >= one.claim.first_offset:
                    found[partition] = tiles[old[-1] + 1 :] if old else tiles
            width *= 8
        return found

    def _broken(self, doubted: dict[int, list[Marker]]) -> dict[int, list[Marker]]:
        """Markers, by partition, whose rows are not what they promise: acknowledged, marked, and lost by the store.

        The store may lose what it acknowledged and showed when it is opened again, so that a snapshot taken since is no
        proof. Whole runs of markers are asked for first, without telling repeats apart: seldom is more needed.
        """
        runs = [run for tiles in doubted.values() for run in _runs(tiles)]
        left = {partition: -sum(marker.checksum for marker in tiles) for partition, tiles in doubted.items()}
        for at in range(0, len(runs), _RUNS):
            for (_, partition), sums in self._ledger.sums(ROW_TABLES, runs[at : at + _RUNS], repeats=True).items():
                left[partition] += sums.check
        return {
            partition: [marker for marker in tiles if left[partition] % (1 << 64) and not self._holds(marker)]
            for partition, tiles in doubted.items()
        }

    def _holds(self, marker: Marker) -> bool:
        span = Span(marker.partition, marker.claim, marker.first_offset, marker.last_offset)
        found = self._ledger.sums(ROW_TABLES, [span])
        return sum(sums.check for sums in found.values()) % (1 << 64) == marker.checksum

    def _replay(self, taken: Taken, first: int, broken: list[Marker]) -> None:
        """Run the log again, cut at claims and broken markers; only these have rows written, under their own claim."""
        partition, last = taken.claim.partition, taken.claim.first_offset - 1
        with self._doors.tape() as reader:
            reader.assign({partition: first})
            records = Tape(reader, partition, self._doors.clock, last)
            for span, mend in _pieces(taken, first, broken):
                refused = {partition: self._by_claim[partition].get(span.claim, {})}
                for piece in records.until(span.last_offset, whole=mend is not None):
                    self._history.begin({partition: int(piece.offsets[0])})
                    batch = self._engine.process({partition: piece}, refused)
                    if mend is not None:
                        tables = tables_of(
                            batch, self._engine.directory, self._engine.sheets, self._ledger.log_id,
                            {partition: span.claim},
                        )  # fmt: skip
                        self._mend(mend, tables)

    def _mend(self, marker: Marker, tables: dict[str, pa.Table]) -> None:
        LOG.error(
            "the store lost rows under a marker; they are written again",
            partition=marker.partition, first_offset=marker.first_offset, last_offset=marker.last_offset,
        )  # fmt: skip
        for table, rows in tables.items():
            refused = insert(self._ledger, table, rows)
            if refused:  # it took them when the marker was written
                raise refused[0].error
        if not self._holds(marker):
            raise IntegrityError(
                f"partition {marker.partition}: rated again, offsets {marker.first_offset} to {marker.last_offset} "
                f"give other rows than their marker promised (code {marker.code_version}): the worker stops; "
                "run `wattrate verify` and compare the code versions"
            )

    def _publish_rest(self, claims: dict[int, Claim]) -> None:
        """Send what was marked after the last published row."""
        done = self._ledger.published(list(claims))
        for partition, claim in claims.items():
            first, last = done.get(partition, -1) + 1, claim.first_offset - 1
            if first > last:
                continue
            tables = {table: self._ledger.covered_rows(table, partition, first, last) for table in _PUBLISHED}
            if any(rows.num_rows for rows in tables.values()):
                events = session_events(tables, self._ledger, self._engine.sheets.data)
                publish(self._sender, tables, events)
            self._ledger.add_published({partition: (claim.claim, last)}, self._doors.clock.now_ms())


def _pieces(taken: Taken, first: int, broken: list[Marker]) -> Iterator[tuple[Span, Marker | None]]:
    """The offsets from one on to the claim's, by the claim they were marked under; a broken marker is a piece."""
    for span in taken.spans(first):
        at = span.first_offset
        for marker in (m for m in broken if m.claim == span.claim and m.first_offset >= at):
            if at < marker.first_offset:
                yield replace(span, first_offset=at, last_offset=marker.first_offset - 1), None
            yield replace(span, first_offset=marker.first_offset, last_offset=marker.last_offset), marker
            at = marker.last_offset + 1
        if at <= span.last_offset:
            yield replace(span, first_offset=at), None


def _runs(tiles: list[Marker]) -> list[Span]:
    """The offsets of markers that tile, one span a claim."""
    spans: list[Span] = []
    for m in tiles:
        if spans and spans[-1].claim == m.claim:
            spans[-1] = replace(spans[-1], last_offset=m.last_offset)
        else:
            spans.append(Span(m.partition, m.claim, m.first_offset, m.last_offset))
    return spans


def from_snapshot(engine: Engine, ledger: Ledger, partition: int, last: int) -> int:
    """Take in the newest snapshot at or before `last`; the offset that it is of, -1 where none fits."""
    skip = 0
    while last >= 0 and (snapshot := ledger.snapshot(partition, last, skip)) is not None:
        try:
            restore(engine, snapshot)
        except IntegrityError as error:
            LOG.warning("snapshot refused, an older one is tried", partition=partition, why=str(error))
            skip += 1
            continue
        return snapshot.last_offset
    engine.drop(partition)
    engine.own(partition)
    return -1


_PUBLISHED: Final = (READINGS, RATED_USAGE, CDRS, ALERTS, QUARANTINE)


class Tape:
    """The records of one partition in order, cut where the caller asks; says how far it is while it takes long.

    A log that has nothing to say for _SILENT_S is an outage: the take-over is begun anew, for as long as it lasts.
    """

    def __init__(self, reader: Playing, partition: int, clock: Clock, last_offset: int) -> None:
        self._reader, self._partition, self._clock, self._last_offset = reader, partition, clock, last_offset
        self._told_s = clock.monotonic()
        self._ahead: Records | None = None

    def until(self, last_offset: int, *, whole: bool) -> Iterator[Records]:
        """Records up to an offset, in pieces, or as one where `whole` asks so."""
        kept: list[Records] = []
        while True:
            piece = self._next()
            count = int(np.searchsorted(piece.offsets, last_offset, side="right"))
            if not count:
                raise RetentionGapError(
                    f"partition {self._partition}: the log goes on at offset {piece.offsets[0]}, but {last_offset} was "
                    "rated and is gone (docs/recovery.md)"
                )
            self._ahead = cut(piece, count, None) if count < len(piece.values) else None
            if whole:
                kept.append(cut(piece, 0, count))
            else:
                yield cut(piece, 0, count)
            if int(piece.offsets[count - 1]) == last_offset:
                break
        if kept:
            yield joined(kept)

    def _next(self) -> Records:
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        began_s = self._clock.monotonic()
        while True:
            found = by_partition(self._reader.consume(_REPLAY_RECORDS, 1.0))
            if self._partition in found:
                self._tell(int(found[self._partition].offsets[-1]))
                return found[self._partition]
            if self._clock.monotonic() - began_s > _SILENT_S:
                raise self._silent()

    def _silent(self) -> BrokerError:
        """Why nothing comes: by what the broker said last of the log's end."""
        where = f"partition {self._partition}: its markers go to offset {self._last_offset}"
        end = self._reader.high_watermark(self._partition)
        if end is not None and end <= self._last_offset:
            return RetentionGapError(
                f"{where}, but the log no longer has the next offset: it ends at {end} (docs/recovery.md)"
            )
        return BrokerUnavailableError(f"{where}, but the log gives nothing for {_SILENT_S:.0f} s: is the broker away?")

    def _tell(self, offset: int) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._told_s > _REPORT_S:
            self._told_s = now_s
            LOG.info("replaying", partition=self._partition, offset=offset, until=self._last_offset)

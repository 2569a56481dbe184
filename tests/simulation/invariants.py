"""What must hold at every step of a run, and at its end. Raises AssertionError with what does not."""

import io
from bisect import bisect_left
from collections import defaultdict
from typing import Any, Final

import msgspec
import pyarrow as pa

from pipeline import topics
from pipeline.kafka import Headers
from pipeline.ledger import ALERTS, CDRS, RATED_USAGE, ROW_TABLES
from tests.simulation.store import UNBOUNDED, Identity, Part, Row, SimulatedStore, identity
from tests.simulation.workload import Rows, without_claim

_TABLE_OF: Final = {topics.CDRS: CDRS, topics.ALERTS: ALERTS, topics.RATED_USAGE: RATED_USAGE}
_TILES: Final = ("marker_rows", "claim_rows", "published_rows")


class Invariants:
    """Over one store and one log; `rows` are those of the undisturbed run."""

    def __init__(self, store: SimulatedStore, rows: Rows, partitions: int, tried: Rows) -> None:
        """Before anything lands. Rows of `tried` may land, before the store's refusal is known, and never count."""
        self._store, self._rows, self._partitions, self._tried = store, rows, partitions, tried
        self._sent: dict[str, dict[Identity, bytes]] = defaultdict(dict)
        self._wanted: dict[tuple[str, int], list[Identity]] = defaultdict(list)  # in order
        for table, of_table in rows.items():
            for at in sorted(of_table):
                self._wanted[table, at[0]].append(at)
        # What was found, with how many rows the store had of the partition, or what its view showed.
        self._ends: dict[int, tuple[int, int]] = {}
        self._looked: dict[int, int] = {}
        self._checked: dict[tuple[str, int], tuple[list[Row], int]] = {}
        self._ids: dict[tuple[str, int], tuple[list[Row], set[Identity]]] = {}
        self._wounds: dict[int, int] = {}  # partition → where its markers must reach again, since some were lost
        self.checked = self.drops = 0

    def lost(self, partition: int) -> None:
        """Markers of a partition are about to go: till they reach as far again, readers may lack rows."""
        self._wounds[partition] = max(self._wounds.get(partition, 0), self._end(partition))

    def landed(self, part: Part) -> None:
        """After each part: its rows are those of the undisturbed run, and what counts is a prefix of them."""
        self.checked += 1
        if part.table in self._rows:
            for row in part.rows:
                wanted = self._rows[part.table].get(identity(row))
                if self._tried and self._tried[part.table].get(identity(row)) == without_claim(row):
                    continue
                assert wanted is not None, f"{part.table} {identity(row)} is no row of the undisturbed run"
                assert wanted == without_claim(row), f"{part.table} {identity(row)}: {_difference(row, wanted)}"
        if part.table in self._rows or part.table in _TILES:
            self._prefix()

    def _usable(self, partition: int) -> bool:
        """Whether a snapshot is stored that recovery would take in now."""
        end = self._end(partition)
        rows = self._store.shelf("state_rows", partition).rows
        return any("spoiled" not in row and row["last_offset"] < end for row in rows)

    def dropped(self, partition: int) -> None:
        """After snapshots were dropped: one is left to begin with, except while lost markers are not there again."""
        self.drops += 1
        assert self._usable(partition) or partition in self._wounds, f"partition {partition} has no snapshot left"

    def ends(self) -> dict[int, int]:
        """Partition → offset after the last that counts. The markers tile."""
        return {partition: self._end(partition) for partition in range(self._partitions)}

    def _end(self, partition: int) -> int:
        rows, end = self._ends.get(partition, (-1, 0))
        if rows == self._store.rows[partition]:
            return end
        end = 0
        for marker in self._store.markers(partition):
            first = marker["first_offset"]
            if first > end and partition in self._wounds:
                break
            what = "overlap" if first < end else "leave a gap"
            assert first == end, f"markers of partition {partition} {what} at {end}: {marker}"
            end = marker["last_offset"] + 1
        self._ends[partition] = self._store.rows[partition], end
        if end >= self._wounds.get(partition, UNBOUNDED):
            del self._wounds[partition]
        return end

    def _prefix(self) -> None:
        """The views show what counts. Only where something landed since is looked at again."""
        assert self._store.rows.keys() <= set(range(self._partitions)), f"rows of partitions {set(self._store.rows)}"
        for partition, end in self.ends().items():
            if self._looked.get(partition) == self._store.rows[partition] or partition in self._wounds:
                continue
            for table in ROW_TABLES:
                shown = self._store.shown(table, partition)
                known, until = self._checked.get((table, partition), (None, -1))
                if known is not shown or until != end:
                    self._shows(table, partition, shown, end)
                    self._checked[table, partition] = shown, end
            said = self._said(partition)
            assert said <= end, f"partition {partition} is published up to {said}, and only {self.ends()} counts"
            self._looked[partition] = self._store.rows[partition]

    def _said(self, partition: int) -> int:
        """The offset after the last that is said to be published."""
        stored = self._store.shelf("published_rows", partition).rows
        return max((row["last_offset"] + 1 for row in stored), default=0)

    def _shows(self, table: str, partition: int, rows: list[Row], end: int) -> None:
        """Exactly the undisturbed rows up to the markers' end, each once."""
        shown = [identity(row) for row in rows]
        every = self._wanted[table, partition]
        wanted = every[: bisect_left(every, (partition, end, 0))]
        assert len(shown) == len(set(shown)), f"{table} shows a row twice"
        assert shown == wanted, (
            f"{table} of partition {partition} up to {end}: lacks {sorted(set(wanted) - set(shown))}, "
            f"has more {sorted(set(shown) - set(wanted))}"
        )
        for row in rows if self._tried else ():
            assert self._rows[table][identity(row)] == without_claim(row), f"{table} {identity(row)} was refused"

    def committed(self, partition: int, offset: int) -> None:
        """The group's offset is never ahead of the markers."""
        end = max(self._end(partition), self._wounds.get(partition, 0))
        assert offset <= end, f"partition {partition}: the group's offset {offset} is ahead of the markers' {end}"

    def delivered(self, topic: str, value: bytes, headers: Headers) -> None:
        """What is published is in the ledger; the same id is the same bytes."""
        if topic not in _TABLE_OF:
            return
        for at, body in _identities(topic, value, headers):
            if at[0] not in self._wounds:
                assert at in self._shown(_TABLE_OF[topic], at[0]), f"{topic} has {at}, which does not count"
            assert self._sent[topic].setdefault(at, body) == body, f"{topic} has {at} with two contents"

    def _shown(self, table: str, partition: int) -> set[Identity]:
        """What a view shows now."""
        rows = self._store.shown(table, partition)
        known, ids = self._ids.get((table, partition), (None, set[Identity]()))
        if known is not rows:
            ids = {identity(row) for row in rows}
            self._ids[table, partition] = rows, ids
        return ids

    def finished(self) -> None:
        """At the end: everything counts, everything was published and is said to be."""
        ends = self.ends()
        assert not self._wounds, f"markers that were lost are not there again: {self._wounds}, {ends}"
        self._prefix()
        for table in ROW_TABLES:
            assert len(self._store.visible(table)) == len(self._rows[table]), f"{table} is not whole: {ends}"
        for topic, table in _TABLE_OF.items():
            lacking = self._rows[table].keys() - self._sent[topic].keys()
            assert not lacking, f"{topic} lacks {sorted(lacking)}"
        assert self.published(), f"not everything up to {ends} is said to be published"

    def published(self) -> bool:
        """Whether everything that counts is said to be published."""
        return all(self._said(partition) == end for partition, end in self.ends().items())


def _identities(topic: str, value: bytes, headers: Headers) -> list[tuple[Identity, bytes]]:
    """The ids in one published record, and what must be the same whenever it is sent again."""
    if topic == topics.RATED_USAGE:
        rows = pa.ipc.open_stream(io.BytesIO(value)).read_all()
        columns: list[list[Any]] = [rows.column(name).to_pylist() for name in ("partition", "offset", "line", "cost")]
        return [((p, offset, line), b"%d" % cost) for p, offset, line, cost in zip(*columns, strict=True)]
    if topic == topics.CDRS:
        text = dict(headers)["id"]
        partition, offset, line = (text if isinstance(text, str) else (text or b"").decode()).split("-")
        return [((int(partition), int(offset), int(line)), value)]
    alert = msgspec.json.decode(value)
    return [((alert["partition"], alert["offset"], alert["line"]), value)]


def _difference(row: dict[str, Any], wanted: dict[str, Any]) -> str:
    return ", ".join(f"{name} {row[name]!r} not {value!r}" for name, value in wanted.items() if row[name] != value)

"""What must hold at every step of a run, and at its end. Raises AssertionError with what does not."""

import io
from collections import defaultdict
from typing import Any, Final

import msgspec
import pyarrow as pa

from pipeline import topics
from pipeline.kafka import Headers
from pipeline.ledger import ALERTS, CDRS, RATED_USAGE, ROW_TABLES
from tests.simulation.store import Identity, Part, SimulatedStore, identity
from tests.simulation.workload import Rows, without_claim

_TABLE_OF: Final = {topics.CDRS: CDRS, topics.ALERTS: ALERTS, topics.RATED_USAGE: RATED_USAGE}
_TILES: Final = ("marker_rows", "claim_rows", "published_rows")


class Invariants:
    """Over one store and one log; `rows` are those of the undisturbed run."""

    def __init__(self, store: SimulatedStore, rows: Rows, partitions: int, tried: Rows) -> None:
        """Before anything lands. Rows of `tried` may land, before the store's refusal is known, and never count."""
        self._store, self._rows, self._partitions, self._tried = store, rows, partitions, tried
        self._sent: dict[str, dict[Identity, bytes]] = defaultdict(dict)
        self.checked = 0

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

    def ends(self) -> dict[int, int]:
        """Partition → offset after the last that counts. The markers tile."""
        ends = dict.fromkeys(range(self._partitions), 0)
        for marker in self._store.markers():
            partition, first = marker["partition"], marker["first_offset"]
            what = "overlap" if first < ends[partition] else "leave a gap"
            assert first == ends[partition], f"markers of partition {partition} {what} at {ends[partition]}: {marker}"
            ends[partition] = marker["last_offset"] + 1
        return ends

    def _prefix(self) -> None:
        ends = self.ends()
        for table in ROW_TABLES:
            visible = self._store.visible(table)
            shown = [identity(row) for row in visible]
            wanted = {at for at in self._rows[table] if at[1] < ends[at[0]]}
            assert len(shown) == len(set(shown)), f"{table} shows a row twice"
            assert set(shown) == wanted, (
                f"{table} up to {ends}: lacks {sorted(wanted - set(shown))}, has more {sorted(set(shown) - wanted)}"
            )
            for row in visible if self._tried else ():
                assert self._rows[table][identity(row)] == without_claim(row), f"{table} {identity(row)} was refused"
        for row in self._store.stored("published_rows"):
            assert row["last_offset"] < ends[row["partition"]], (
                f"partition {row['partition']} is published up to {row['last_offset']}, and only {ends} counts"
            )

    def committed(self, partition: int, offset: int) -> None:
        """The group's offset is never ahead of the markers."""
        end = self.ends()[partition]
        assert offset <= end, f"partition {partition}: the group's offset {offset} is ahead of the markers' {end}"

    def delivered(self, topic: str, value: bytes, headers: Headers) -> None:
        """What is published is in the ledger; the same id is the same bytes."""
        if topic not in _TABLE_OF:
            return
        shown = {identity(row) for row in self._store.visible(_TABLE_OF[topic])}
        for at, body in _identities(topic, value, headers):
            assert at in shown, f"{topic} has {at}, which does not count"
            assert self._sent[topic].setdefault(at, body) == body, f"{topic} has {at} with two contents"

    def finished(self) -> None:
        """At the end: everything counts, everything was published and is said to be."""
        ends = self.ends()
        self._prefix()
        for table in ROW_TABLES:
            assert len(self._store.visible(table)) == len(self._rows[table]), f"{table} is not whole: {ends}"
        for topic, table in _TABLE_OF.items():
            lacking = self._rows[table].keys() - self._sent[topic].keys()
            assert not lacking, f"{topic} lacks {sorted(lacking)}"
        assert self.published(), f"not everything up to {ends} is said to be published"

    def published(self) -> bool:
        """Whether everything that counts is said to be published."""
        said: dict[int, int] = {}
        for row in self._store.stored("published_rows"):
            said[row["partition"]] = max(row["last_offset"] + 1, said.get(row["partition"], 0))
        return said == self.ends()


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

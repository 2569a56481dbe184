"""The ledger over the simulated store: each question answered from what landed, where the real one has SQL."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import starmap
from operator import itemgetter
from typing import Any, Final

import pyarrow as pa

from pipeline.errors import StoreError
from pipeline.ledger import (
    READINGS,
    SUMMED,
    Answer,
    Claim,
    Heard,
    Intent,
    Ledger,
    Marker,
    Refusal,
    Snapshot,
    Span,
    StateAt,
    Sums,
)
from pipeline.metering import kinds
from pipeline.tiling import Marked, seam
from tests.simulation.store import Row, SimulatedStore

_WRAP: Final = 1 << 64
_ASKING: Final = ("claim_intent_rows", "claim_rows")
# Enumerations that the ledger's covered rows have as numbers.
_NUMBERED: Final = {READINGS: {"verdict": kinds.VERDICTS, "disposition": kinds.DISPOSITIONS}}


class SimulatedLedger(Ledger):
    """The ledger of one log over the simulated store; `step` is called at every door."""

    def __init__(self, store: SimulatedStore, log_id: int, step: Callable[[str], None] = lambda _point: None) -> None:
        """One worker's connection."""
        super().__init__("the simulated store", log_id)
        self.store, self._step = store, step

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows."""
        if not rows.num_rows:
            return
        self._step(f"insert {table}, before")
        self.store.insert(table, rows)
        self._step(f"insert {table}, after")

    def each(self, steps: Sequence[Callable[[], Answer]]) -> list[Answer]:
        """One after the other, but none waits for the luck of another; a worker that is killed does no more."""
        found, problems = list[Answer](), list[StoreError]()
        for step in steps:
            try:
                found.append(step())
            except StoreError as problem:
                problems.append(problem)
        if problems:
            raise problems[0]
        return found

    def _ask(self, what: str) -> None:
        self._step(what)
        self.store.ask()

    def sums(
        self, tables: Iterable[str], spans: Sequence[Span], *, repeats: bool = False
    ) -> dict[tuple[str, int], Sums]:
        """By (table, partition)."""
        self._ask("read back")
        found: dict[tuple[str, int], Sums] = {}
        for table in tables:
            for partition in {span.partition for span in spans}:
                shelf = self.store.shelf(table, partition)
                rows = [row for row in (shelf.rows if repeats else shelf.final()) if _inside(row, spans)]
                if rows:
                    check = sum(_check_of(row, SUMMED[table]) for row in rows) % _WRAP
                    found[table, partition] = Sums(len(rows), check)
        return found

    def covered_rows(self, table: str, partition: int, first_offset: int, last_offset: int) -> pa.Table:
        """Rows that count."""
        self._ask(f"covered rows of {table}")
        rows = [r for r in self.store.shown(table, partition) if first_offset <= r["offset"] <= last_offset]
        found = self._table(table, rows)
        for name, words in _NUMBERED.get(table, {}).items() if found.num_columns else ():
            numbers = pa.array([words.index(row[name]) for row in rows], pa.int8())
            found = found.set_column(found.schema.get_field_index(name), name, numbers)
        return found

    def _table(self, table: str, rows: list[Row]) -> pa.Table:
        schema = self.store.schemas.get(table)
        return pa.table({}) if schema is None else pa.Table.from_pylist(rows, schema=schema)

    def heard(self, sessions: Iterable[tuple[str, int, int, int]]) -> dict[int, Heard]:
        """What readings tell of sessions."""
        asked = {key: (name, offset) for name, key, _, offset in sessions}
        if not asked:
            return {}
        self._ask("heard")
        found: dict[int, list[Row]] = defaultdict(list)
        for row in self.store.visible("reading_rows"):
            name, offset = asked.get(row["session_key"], ("", -1))
            if row["charge_point_id"] == name and row["offset"] <= offset and row["verdict"] != "duplicate":
                found[row["session_key"]].append(row)
        return {
            key: Heard(
                next((row["id_token"] for row in rows if row["id_token"]), ""), min(row["time"] for row in rows),
                max(row["time"] for row in rows), max(row["reference_version"] for row in rows),
            )
            for key, rows in found.items()
        }  # fmt: skip

    def stored_markers(self, keys: Sequence[tuple[int, int, int]]) -> list[Marker]:
        """Whether they are valid or not."""
        self._ask("markers read back")
        wanted = set(keys)
        rows = [row for p in {key[0] for key in keys} for row in self.store.shelf("marker_rows", p).final()]
        return [_marker(row) for row in rows if (row["partition"], row["claim"], row["first_offset"]) in wanted]

    def markers(self, partitions: Sequence[int]) -> list[Marker]:
        """The valid ones."""
        self._ask("markers")
        return [_marker(row) for partition in sorted(partitions) for row in self.store.markers(partition)]

    def newest_reference(self) -> int:
        """Of all markers."""
        self._ask("markers")
        return max((row["reference_version"] for row in self.store.stored("marker_rows")), default=0)

    def intents(self, partitions: Sequence[int]) -> dict[int, Intent]:
        """The highest number asked for."""
        self._ask("intents")
        found: dict[int, Intent] = {}
        for partition in partitions:
            rows = [row for table in _ASKING for row in self.store.shelf(table, partition).rows]
            if rows:
                highest = max(row["claim"] for row in rows)
                members = {row["member"] for row in rows if row["claim"] == highest}
                found[partition] = Intent(highest, tuple(sorted(members)))
        return found

    def claims(self, partitions: Sequence[int]) -> list[tuple[Claim, int]]:
        """The claims that count."""
        self._ask("claims")
        kept = [reversed(self.store.claims(p)) for p in sorted(partitions)]
        return [(Claim(*_claimed(row)), end) for claims in kept for row, end in claims]

    def marked(self, partitions: Sequence[int]) -> dict[int, dict[int, Marked]]:
        """Summed up as they landed, repeats too."""
        self._ask("markers summed up")
        found: dict[int, dict[int, Marked]] = {}
        for partition in partitions:
            by_claim: dict[int, list[Row]] = defaultdict(list)
            for row in self.store.shelf("marker_rows", partition).rows:
                by_claim[row["claim"]].append(row)
            found[partition] = {claim: _summed_up(claim, rows) for claim, rows in by_claim.items()}
        return found

    def markers_within(self, spans: Sequence[Span]) -> list[Marker]:
        """By claim and offsets."""
        self._ask("markers within")
        rows = [
            row
            for span in spans
            for row in self.store.shelf("marker_rows", span.partition).final()
            if row["claim"] == span.claim
            and row["first_offset"] >= span.first_offset
            and row["last_offset"] <= span.last_offset
        ]
        return [_marker(row) for row in sorted(rows, key=itemgetter("partition", "first_offset"))]

    def published(self, partitions: Sequence[int]) -> dict[int, int]:
        """Last offset on Kafka."""
        self._ask("published")
        stored = {p: self.store.shelf("published_rows", p).rows for p in partitions}
        return {p: max(row["last_offset"] for row in rows) for p, rows in stored.items() if rows}

    def refusals(self, partitions: Sequence[int]) -> list[Refusal]:
        """Of repeats the least in words."""
        self._ask("refusals")
        said: dict[tuple[int, int, int], tuple[int, str]] = {}
        for row in self.store.stored("refused_rows"):
            at = (row["partition"], row["claim"], row["offset"])
            if row["partition"] in partitions:
                said[at] = min((row["code"], row["message"]), said.get(at, (row["code"], row["message"])))
        return [Refusal(*at, *words) for at, words in sorted(said.items())]

    def insert_again(self, table: str) -> bool:
        """The first that landed."""
        self._ask(f"a row of {table}")
        rows = self.store.stored(table)[:1]
        self.insert(table, self._table(table, rows))
        return bool(rows)

    def snapshot(self, partition: int, not_beyond: int, skip: int = 0) -> Snapshot | None:
        """The newest."""
        self._ask("snapshot")
        stored = self.store.shelf("state_rows", partition).rows
        rows = [row for row in stored if row["last_offset"] <= not_beyond]
        rows.sort(key=lambda row: (row["last_offset"], row["claim"]), reverse=True)
        return Snapshot(*_taken(rows[skip])) if skip < len(rows) else None

    def snapshots(self, partition: int, not_beyond: int) -> list[StateAt]:
        """The newest first."""
        self._ask("snapshots")
        rows = self.store.shelf("state_rows", partition).rows
        found = {StateAt(row["claim"], row["last_offset"]) for row in rows if row["last_offset"] <= not_beyond}
        return sorted(found, key=lambda one: (one.last_offset, one.claim), reverse=True)

    def drop_snapshots(self, partition: int, gone: Sequence[StateAt]) -> None:
        """By name."""
        self._step("drop snapshots, before")
        self.store.drop("state_rows", partition, [(one.claim, one.last_offset) for one in gone])
        self._step("drop snapshots, after")


def _fields_of(kind: type[Any]) -> Callable[[Row], tuple[Any, ...]]:
    """The values of a row that a ledger's dataclass has, in its order."""
    return itemgetter(*(f.name for f in fields(kind)))


_marked: Final = _fields_of(Marker)
_claimed: Final = _fields_of(Claim)
_taken: Final = _fields_of(Snapshot)


def _inside(row: Row, spans: Sequence[Span]) -> bool:
    at, claim, offset = row["partition"], row["claim"], row["offset"]
    for span in spans:
        if claim == span.claim and span.first_offset <= offset <= span.last_offset and at == span.partition:
            return True
    return False


def _check_of(row: Row, summed: Iterable[str]) -> int:
    """What a row adds to the sum that is read back; the store's own arithmetic, as the real one has SQL."""
    offset: int = row["offset"]
    check: int = offset + offset * offset + row["line"]
    for column in summed:
        check += row[column]
    return check


def _summed_up(claim: int, rows: list[Row]) -> Marked:
    """What the store's projection tells, by the function that the real one names in SQL."""
    offsets = [(row["first_offset"], row["last_offset"]) for row in rows]
    lengths = sum(last + 1 - first for first, last in offsets)
    return Marked(claim, min(offsets)[0], lengths, sum(starmap(seam, offsets)))


def _marker(row: Row) -> Marker:
    return Marker(*_marked(row))

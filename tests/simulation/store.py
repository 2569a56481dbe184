"""A store in memory that keeps ClickHouse's promises and no more, and the ledger over it.

An insert becomes a part a table partition (month), and each part lands by itself: all of them, some of them, later, or
none although the insert was acknowledged. Repeats are told apart when they are read, as ReplacingMergeTree FINAL does.
Sort keys and partitions are read from the migrations; which rows count is written here a second time, beside the views,
and tests/contract holds both to the same.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar, cast

import pyarrow as pa

from pipeline.errors import StoreRefusedError, StoreUnavailableError
from pipeline.ledger import (
    READINGS,
    Claim,
    Heard,
    Intent,
    Ledger,
    Marker,
    Refusal,
    Snapshot,
    Span,
    Sums,
    expected_sums,
)
from pipeline.metering import kinds
from pipeline.migrations import shipped

Row = dict[str, Any]
_Answer = TypeVar("_Answer")
Identity = tuple[int, int, int]  # partition, offset, line
UNBOUNDED: Final = (1 << 64) - 1
NOT_SAID: Final = (1 << 32) - 1
REFUSED: Final = "Constraint of the simulated store is violated"
_MONTHS_MAX: Final = 100  # of one insert
_TABLE = re.compile(
    r"CREATE TABLE IF NOT EXISTS (\w+)\n.*?\nENGINE = (\w+)(?:\((\w+)\))?\n"
    r"(?:PARTITION BY toYYYYMM\((\w+)\)\n)?ORDER BY \(?([\w, ]+)\)?",
    re.DOTALL,
)


class Layout(NamedTuple):
    """How a table tells repeats apart, and cuts an insert into parts."""

    engine: str
    version: str
    partition_by: str
    key: tuple[str, ...]


def _layouts() -> dict[str, Layout]:
    sql = "\n".join(migration.sql for migration in shipped())
    return {
        name: Layout(engine, version, by, tuple(key.split(", ")))
        for name, engine, version, by, key in _TABLE.findall(sql)
    }


LAYOUTS: Final = _layouts()
# Enumerations that the ledger's covered rows have as numbers.
_NUMBERED: Final = {READINGS: {"verdict": kinds.VERDICTS, "disposition": kinds.DISPOSITIONS}}


@dataclass
class Part:
    """Rows of one insert in one table partition."""

    table: str
    month: int
    rows: list[Row]


@dataclass
class Fate:
    """What becomes of one insert: when each of its parts lands (seconds from now, None: never), and the answer."""

    lands: list[float | None]
    answered: bool = True


def all_well(parts: list[Part]) -> Fate:
    """Every part lands at once."""
    return Fate([0.0] * len(parts))


class SimulatedStore:
    """The server. `fate` decides what becomes of inserts, `down` whether anyone gets an answer."""

    def __init__(self, later: Callable[[float, Callable[[], None]], None]) -> None:
        """`later` has something happen so many seconds from now."""
        self._later = later
        self.parts: dict[str, list[Part]] = defaultdict(list)
        self.schemas: dict[str, pa.Schema] = {}
        self.fate: Callable[[list[Part]], Fate] = all_well
        self.down: Callable[[], bool] = lambda: False
        self.refuses: Callable[[str, Row], bool] = lambda _table, _row: False
        self.landed: Callable[[Part], None] = lambda _part: None
        self.state = 0  # grows with every part that lands
        self._seen: dict[Any, tuple[int, Any]] = {}

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows; raises StoreUnavailableError where no answer comes."""
        if not rows.num_rows:
            return
        self.schemas.setdefault(table, _plain(rows.schema))
        parts = _parts(table, rows_of(rows))
        self._check(parts)
        fate = self.fate(parts)
        for part, seconds in zip(parts, fate.lands, strict=True):
            if seconds == 0.0:
                self.land(part)
            elif seconds is not None:
                self._later(seconds, lambda part=part: self.land(part))  # type: ignore[misc]
        if not fate.answered:
            raise StoreUnavailableError("the simulated store does not answer (inserting)")

    def _check(self, parts: list[Part]) -> None:
        if self.down():
            return  # nobody judges the rows
        if len(parts) > _MONTHS_MAX:
            raise StoreRefusedError("Too many partitions for single INSERT block", 252)
        if any(self.refuses(part.table, row) for part in parts for row in part.rows):
            raise StoreRefusedError(REFUSED, 469)

    def land(self, part: Part) -> None:
        """A part is in place."""
        self.parts[part.table].append(part)
        self.state += 1
        self.landed(part)

    def ask(self) -> None:
        """Before each question."""
        if self.down():
            raise StoreUnavailableError("the simulated store does not answer (asking)")

    # what readers see

    def stored(self, table: str) -> list[Row]:
        """Every row, repeats too."""
        return [row for part in self.parts[table] for row in part.rows]

    def final(self, table: str) -> list[Row]:
        """Rows with one of each sort key and table partition: of the highest version, and of those the last."""
        return self._kept(("final", table), lambda: self._final(table))

    def _final(self, table: str) -> list[Row]:
        layout = LAYOUTS[table]
        found: dict[tuple[Any, ...], Row] = {}
        for part in self.parts[table]:
            for row in part.rows:
                key = (part.month, *(row[name] for name in layout.key))
                if key not in found or row[layout.version] >= found[key][layout.version]:
                    found[key] = row
        return list(found.values())

    def claims(self) -> dict[int, list[tuple[Row, int]]]:
        """Partition → the claims that count with the offset at which each ends, the highest first."""
        return self._kept("claims", self._claims)

    def _claims(self) -> dict[int, list[tuple[Row, int]]]:
        lowest: dict[tuple[int, int], Row] = {}
        for row in self.stored("claim_rows"):
            at = (row["partition"], row["claim"])
            if at not in lowest or row["member"] < lowest[at]["member"]:
                lowest[at] = row
        kept: dict[int, list[tuple[Row, int]]] = defaultdict(list)
        below: dict[int, int] = {}
        for (partition, claim), row in sorted(lowest.items(), reverse=True):
            if claim <= below.get(partition, NOT_SAID):
                above = [one["first_offset"] for one, _ in kept[partition]]
                kept[partition].append((row, min(above, default=UNBOUNDED)))
                below[partition] = min(row.get("previous", NOT_SAID), claim - 1)
        return kept

    def markers(self) -> list[Row]:
        """The markers that hold, by partition and offset."""
        return self._kept("markers", self._markers)

    def _markers(self) -> list[Row]:
        bounds = {
            (partition, row["claim"]): (row["first_offset"], end)
            for partition, kept in self.claims().items()
            for row, end in kept
        }
        found = []
        for row in self.final("marker_rows"):
            first, end = bounds.get((row["partition"], row["claim"]), (0, 0))
            if row["first_offset"] >= first and row["last_offset"] < end:
                found.append(row)
        return sorted(found, key=lambda row: (row["partition"], row["first_offset"]))

    def covered(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(partition, claim) → first and last offset that count."""
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for row in self.markers():
            at = (row["partition"], row["claim"])
            first, last = found.get(at, (row["first_offset"], row["last_offset"]))
            found[at] = min(first, row["first_offset"]), max(last, row["last_offset"])
        return found

    def visible(self, table: str) -> list[Row]:
        """What a view shows, in the order of identity."""
        return self._kept(("visible", table), lambda: self._visible(table))

    def _visible(self, table: str) -> list[Row]:
        covered = self.covered()
        found = []
        for row in self.final(table):
            first, last = covered.get((row["partition"], row["claim"]), (1, 0))
            if first <= row["offset"] <= last:
                found.append(row)
        return sorted(found, key=identity)

    def _kept(self, name: Any, make: Callable[[], _Answer]) -> _Answer:
        """An answer, until something lands."""
        state, answer = self._seen.get(name, (-1, None))
        if state != self.state:
            answer = make()
            self._seen[name] = self.state, answer
        return cast("_Answer", answer)


def identity(row: Row) -> Identity:
    """Within its log."""
    return row["partition"], row["offset"], row["line"]


def rows_of(table: pa.Table) -> list[Row]:
    """Rows with instants in ms and words as text."""
    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        column = table.column(name)
        columns[name] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _parts(table: str, rows: list[Row]) -> list[Part]:
    by = LAYOUTS[table].partition_by
    months: dict[int, list[Row]] = {}
    for row in rows:
        instant = datetime.fromtimestamp(row[by] / 1000, UTC) if by else None
        months.setdefault(instant.year * 100 + instant.month if instant else 0, []).append(row)
    return [Part(table, month, found) for month, found in months.items()]


def _plain(schema: pa.Schema) -> pa.Schema:
    return pa.schema([(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in schema])


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
            all_rows = self.store.stored(table) if repeats else self.store.final(table)
            rows = [row for row in all_rows if any(_inside(row, span) for span in spans)]
            if rows:
                found.update(expected_sums(table, self._table(table, rows)))
        return found

    def covered_rows(self, table: str, partition: int, first_offset: int, last_offset: int) -> pa.Table:
        """Rows that count."""
        self._ask(f"covered rows of {table}")
        shown = self.store.visible(table)
        rows = [r for r in shown if r["partition"] == partition and first_offset <= r["offset"] <= last_offset]
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
        rows = self.store.final("marker_rows")
        return [_marker(row) for row in rows if (row["partition"], row["claim"], row["first_offset"]) in wanted]

    def markers(self, partitions: Sequence[int]) -> list[Marker]:
        """The valid ones."""
        self._ask("markers")
        return [_marker(row) for row in self.store.markers() if row["partition"] in partitions]

    def intents(self, partitions: Sequence[int]) -> dict[int, Intent]:
        """The highest number asked for."""
        self._ask("intents")
        asked: dict[int, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for table in ("claim_intent_rows", "claim_rows"):
            for row in self.store.stored(table):
                asked[row["partition"]][row["claim"]].add(row["member"])
        highest = {partition: max(numbers) for partition, numbers in asked.items() if partition in partitions}
        return {p: Intent(number, tuple(sorted(asked[p][number]))) for p, number in highest.items()}

    def highest_claims(self, partitions: Sequence[int]) -> dict[int, Claim]:
        """The claim that counts now."""
        self._ask("claims")
        names = [f.name for f in fields(Claim)]
        kept = self.store.claims()
        return {p: Claim(**{n: kept[p][0][0][n] for n in names}) for p in partitions if kept.get(p)}

    def published(self, partitions: Sequence[int]) -> dict[int, int]:
        """Last offset on Kafka."""
        self._ask("published")
        found: dict[int, int] = {}
        for row in self.store.stored("published_rows"):
            if row["partition"] in partitions:
                found[row["partition"]] = max(row["last_offset"], found.get(row["partition"], 0))
        return found

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
        rows = [
            row
            for row in self.store.stored("snapshot_rows")
            if row["partition"] == partition and row["last_offset"] <= not_beyond
        ]
        rows.sort(key=lambda row: (row["last_offset"], row["claim"]), reverse=True)
        return Snapshot(**{f.name: rows[skip][f.name] for f in fields(Snapshot)}) if skip < len(rows) else None


def _inside(row: Row, span: Span) -> bool:
    return (row["partition"], row["claim"]) == (span.partition, span.claim) and (
        span.first_offset <= row["offset"] <= span.last_offset
    )


def _marker(row: Row) -> Marker:
    return Marker(**{f.name: row[f.name] for f in fields(Marker)})

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
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar, cast

import pyarrow as pa

from pipeline.errors import StoreRefusedError, StoreUnavailableError
from pipeline.ledger import (
    READINGS,
    SUMMED,
    Claim,
    Heard,
    Intent,
    Ledger,
    Marker,
    Refusal,
    Snapshot,
    Span,
    Sums,
)
from pipeline.metering import kinds
from pipeline.migrations import shipped

Row = dict[str, Any]
_Answer = TypeVar("_Answer")
Identity = tuple[int, int, int]  # partition, offset, line
UNBOUNDED: Final = (1 << 64) - 1
NOT_SAID: Final = (1 << 32) - 1
REFUSED: Final = "Constraint of the simulated store is violated"
_WRAP: Final = 1 << 64
_COVERING: Final = ("claim_rows", "marker_rows")  # what says which rows count
_ASKING: Final = ("claim_intent_rows", "claim_rows")
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


class Shelf:
    """The rows of one table in one partition of the log, as they landed and with repeats told apart."""

    def __init__(self, layout: Layout) -> None:
        """Empty."""
        self.rows: list[Row] = []
        self._version, self._key = layout.version, itemgetter(*layout.key)
        self._final: dict[tuple[int, Any], Row] = {}

    def put(self, month: int, row: Row) -> None:
        """One row has landed."""
        self.rows.append(row)
        if self._version:
            key = month, self._key(row)
            held = self._final.get(key)
            if held is None or row[self._version] >= held[self._version]:
                self._final[key] = row

    def final(self) -> Iterable[Row]:
        """One of each sort key and table partition: of the highest version, and of those the last."""
        return self._final.values()


class SimulatedStore:
    """The server. `fate` decides what becomes of inserts, `down` whether anyone gets an answer.

    Answers are kept by partition until something lands that they are made from; the same list is the same answer.
    """

    def __init__(self, later: Callable[[float, Callable[[], None]], None]) -> None:
        """`later` has something happen so many seconds from now."""
        self._later = later
        self.schemas: dict[str, pa.Schema] = {}
        self.fate: Callable[[list[Part]], Fate] = all_well
        self.down: Callable[[], bool] = lambda: False
        self.refuses: Callable[[str, Row], bool] = lambda _table, _row: False
        self.landed: Callable[[Part], None] = lambda _part: None
        self.rows: dict[int, int] = defaultdict(int)  # by partition, of all tables: what did not grow says the same
        self._shelves: dict[tuple[str, int], Shelf] = {}
        self._seen: dict[tuple[str, str, int], tuple[int, Any]] = {}

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows; raises StoreUnavailableError where no answer comes."""
        if not rows.num_rows:
            return
        if table not in self.schemas:
            self.schemas[table] = _plain(rows.schema)
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
        for row in part.rows:
            self.shelf(part.table, row["partition"]).put(part.month, row)
            self.rows[row["partition"]] += 1
        self.landed(part)

    def ask(self) -> None:
        """Before each question."""
        if self.down():
            raise StoreUnavailableError("the simulated store does not answer (asking)")

    # what readers see

    def shelf(self, table: str, partition: int) -> Shelf:
        """What landed."""
        found = self._shelves.get((table, partition))
        if found is None:
            found = self._shelves[table, partition] = Shelf(LAYOUTS[table])
        return found

    def stored(self, table: str) -> list[Row]:
        """Every row, repeats too."""
        return [row for partition in sorted(self.rows) for row in self.shelf(table, partition).rows]

    def claims(self, partition: int) -> list[tuple[Row, int]]:
        """The claims that count with the offset at which each ends, the highest first."""
        return self._kept("claims", "", partition, ("claim_rows",), lambda: self._claims(partition))

    def _claims(self, partition: int) -> list[tuple[Row, int]]:
        lowest: dict[int, Row] = {}
        for row in self.shelf("claim_rows", partition).rows:
            claim = row["claim"]
            if claim not in lowest or row["member"] < lowest[claim]["member"]:
                lowest[claim] = row
        kept: list[tuple[Row, int]] = []
        below = NOT_SAID
        for claim, row in sorted(lowest.items(), reverse=True):
            if claim <= below:
                kept.append((row, min((one["first_offset"] for one, _ in kept), default=UNBOUNDED)))
                below = min(row.get("previous", NOT_SAID), claim - 1)
        return kept

    def markers(self, partition: int) -> list[Row]:
        """The markers that hold, by offset."""
        return self._kept("markers", "", partition, _COVERING, lambda: self._markers(partition))

    def _markers(self, partition: int) -> list[Row]:
        bounds = {row["claim"]: (row["first_offset"], end) for row, end in self.claims(partition)}
        found = []
        for row in self.shelf("marker_rows", partition).final():
            first, end = bounds.get(row["claim"], (0, 0))
            if row["first_offset"] >= first and row["last_offset"] < end:
                found.append(row)
        return sorted(found, key=itemgetter("first_offset"))

    def covered(self, partition: int) -> dict[int, tuple[int, int]]:
        """Claim → first and last offset that count."""
        return self._kept("covered", "", partition, _COVERING, lambda: self._covered(partition))

    def _covered(self, partition: int) -> dict[int, tuple[int, int]]:
        found: dict[int, tuple[int, int]] = {}
        for row in self.markers(partition):
            first, last = found.get(row["claim"], (row["first_offset"], row["last_offset"]))
            found[row["claim"]] = min(first, row["first_offset"]), max(last, row["last_offset"])
        return found

    def shown(self, table: str, partition: int) -> list[Row]:
        """What a view shows of a partition, in the order of identity."""
        return self._kept("shown", table, partition, (table, *_COVERING), lambda: self._shown(table, partition))

    def _shown(self, table: str, partition: int) -> list[Row]:
        covered = self.covered(partition)
        found = []
        for row in self.shelf(table, partition).final():
            first, last = covered.get(row["claim"], (1, 0))
            if first <= row["offset"] <= last:
                found.append(row)
        return sorted(found, key=identity)

    def visible(self, table: str) -> list[Row]:
        """What a view shows, in the order of identity."""
        return [row for partition in sorted(self.rows) for row in self.shown(table, partition)]

    def _kept(self, what: str, of: str, partition: int, tables: Iterable[str], make: Callable[[], _Answer]) -> _Answer:
        """An answer, until something lands in one of these tables: rows only ever come."""
        landed = sum(len(self.shelf(table, partition).rows) for table in tables)
        before, answer = self._seen.get((what, of, partition), (-1, None))
        if before != landed:
            answer = make()
            self._seen[what, of, partition] = landed, answer
        return cast("_Answer", answer)


def identity(row: Row) -> Identity:
    """Within its log."""
    return row["partition"], row["offset"], row["line"]


def rows_of(table: pa.Table) -> list[Row]:
    """Rows with instants in ms and words as text."""
    if not table.num_rows:
        return []
    names = table.column_names
    return [dict(zip(names, values, strict=True)) for values in zip(*map(_values, table.columns), strict=True)]


def _values(column: "pa.ChunkedArray[Any]") -> list[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    elif not pa.types.is_integer(kind):
        return column.to_pylist()
    return column.to_pylist() if column.null_count else cast("list[Any]", column.to_numpy().tolist())


def _parts(table: str, rows: list[Row]) -> list[Part]:
    by = LAYOUTS[table].partition_by
    months: dict[int, list[Row]] = {}
    for row in rows:
        months.setdefault(_month(row[by]) if by else 0, []).append(row)
    return [Part(table, month, found) for month, found in months.items()]


@lru_cache(maxsize=4096)
def _month(instant_ms: int) -> int:
    instant = datetime.fromtimestamp(instant_ms / 1000, UTC)
    return instant.year * 100 + instant.month


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

    def highest_claims(self, partitions: Sequence[int]) -> dict[int, Claim]:
        """The claim that counts now."""
        self._ask("claims")
        kept = {p: self.store.claims(p) for p in partitions}
        return {p: Claim(*_claimed(claims[0][0])) for p, claims in kept.items() if claims}

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
        stored = self.store.shelf("snapshot_rows", partition).rows
        rows = [row for row in stored if row["last_offset"] <= not_beyond]
        rows.sort(key=lambda row: (row["last_offset"], row["claim"]), reverse=True)
        return Snapshot(*_taken(rows[skip])) if skip < len(rows) else None


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


def _marker(row: Row) -> Marker:
    return Marker(*_marked(row))

"""A store in memory that keeps ClickHouse's promises and no more.

An insert becomes a part a table partition (month), and each part lands by itself: all of them, some of them, later, or
none although the insert was acknowledged. Repeats are told apart when they are read, as ReplacingMergeTree FINAL does.
Sort keys and partitions are read from the migrations; which rows count is written here a second time, beside the views,
and tests/contract holds both to the same.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar, cast

import pyarrow as pa

from pipeline.errors import StoreRefusedError, StoreUnavailableError
from pipeline.migrations import shipped

Row = dict[str, Any]
_Answer = TypeVar("_Answer")
Identity = tuple[int, int, int]  # partition, offset, line
DROPPED: Final = "dropped"  # what `fate` is asked by where nothing is inserted
UNBOUNDED: Final = (1 << 64) - 1
NOT_SAID: Final = (1 << 32) - 1
REFUSED: Final = "Constraint of the simulated store is violated"
_COVERING: Final = ("claim_rows", "marker_rows")  # what says which rows count
_MONTHS_MAX: Final = 100  # of one insert
_TABLE = re.compile(
    r"CREATE TABLE IF NOT EXISTS (\w+)\n.*?\nENGINE = (\w+)(?:\((\w+)\))?\n"
    r"(?:PARTITION BY (?:toYYYYMM\((\w+)\)|\([\w, ]+\))\n)?ORDER BY \(?([\w, ]+)\)?",
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

    def lose(self, row: Row) -> None:
        """A row and its repeats are gone."""
        self.rows = [one for one in self.rows if self._key(one) != self._key(row)]
        self._final = {key: one for key, one in self._final.items() if self._key(one) != self._key(row)}

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
        self.dropped: Callable[[int], None] = lambda _partition: None
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

    def lose(self, table: str, row: Row) -> None:
        """A part that was shown is put aside when the store is opened anew."""
        partition = row["partition"]
        self.shelf(table, partition).lose(row)
        self.rows[partition] += 1  # what was found before is looked for again
        self._seen = {key: kept for key, kept in self._seen.items() if key[2] != partition}

    def drop(self, table: str, partition: int, gone: Iterable[tuple[int, int]]) -> None:
        """Rows of these claims and last offsets go, perhaps later, perhaps without an answer, as an insert lands."""
        names = set(gone)
        fate = self.fate([Part(DROPPED, 0, [])])

        def done() -> None:
            shelf = self.shelf(table, partition)
            shelf.rows = [row for row in shelf.rows if (row["claim"], row["last_offset"]) not in names]
            self.dropped(partition)

        if fate.lands[0] == 0.0:
            done()
        elif fate.lands[0] is not None:
            self._later(fate.lands[0], done)
        if not fate.answered:
            raise StoreUnavailableError("the simulated store does not answer (dropping)")

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

"""The ledger in ClickHouse: each of its questions as one statement over the tables and views of deploy/clickhouse.

What is asked is in `ledger`; nothing is decided here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.ledger import (
    ALERTS,
    CDRS,
    QUARANTINE,
    RATED_USAGE,
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
from pipeline.tiling import Marked

# table → its view, and its columns as a batch's own table has them: an enumeration's words, not its numbers
_VIEWS: Final = {
    READINGS: ("readings", "*"),
    RATED_USAGE: ("rated_usage", "* REPLACE (toString(dimension) AS dimension)"),
    CDRS: ("cdrs", "*"),
    ALERTS: ("alerts", "* REPLACE (toString(severity) AS severity, toString(action) AS action)"),
    QUARANTINE: ("quarantine", "* REPLACE (toString(action) AS action)"),
}

STATES: Final = "state_rows"
# That servers of a cluster have all done it is not waited for: one that is away does it when it comes back.
NOT_AWAITED: Final = {"distributed_ddl_task_timeout": "0"}
_BLOCK_BITS: Final = 14
_BLOCK: Final = f"bitShiftLeft(toUInt64(partition), 48) + bitShiftRight(offset, {_BLOCK_BITS})"  # as the index has it
_BLOCKS: Final = 64  # of one span, named one by one; a longer span is as good without
BlockNumbers = Mapping[tuple[str, str], int]  # (table, table partition) → the number of an insert, as parts are named
_NONE: Final[BlockNumbers] = MappingProxyType({})


class StoreLedger(Ledger):
    """The ledger of one log behind a connection. One per thread, as its Store."""

    def __init__(self, store: Store, log_id: int) -> None:
        """Over an open connection."""
        super().__init__(store.where, log_id)
        self.store = store
        self._known = dict(_NONE)  # of the last batch that was read back, and all before it
        self._newest = _NONE  # of what was asked for last

    # rows

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows; they count for nobody until a marker covers them."""
        self.store.insert(table, rows)

    def each(self, steps: Sequence[Callable[[], Answer]]) -> list[Answer]:
        """What steps that do not wait for each other come to, side by side."""
        return self.store.each(steps)

    def sums(
        self, tables: Iterable[str], spans: Sequence[Span], *, repeats: bool = False
    ) -> dict[tuple[str, int], Sums]:
        """What the store holds, by (table, partition), of these spans; a repeated row counts once, or each time."""
        if not spans:
            return {}
        return _sums(self._summed(tables, spans, "" if repeats else "FINAL"))

    def new_sums(self, tables: Iterable[str], spans: Sequence[Span]) -> dict[tuple[str, int], Sums]:
        """`sums` with repeats, without parts that hold nothing younger than what was read back last.

        Offsets tell little about parts: a batch's first offsets share a block with the last ones of the batch before,
        which may have been merged with millions of rows, and a log of few, large records has one block in all. So the
        more was stored, the more was read for each batch: eleven rows for each one written in 40 batches of Arrow. On a
        cluster parts are numbered by each server for itself, and all are read.
        """
        found = self._summed(tables, spans, "", _NONE if self.store.cluster else self._known)
        self._newest = _block_numbers(found)
        return _sums(found)

    def read_back(self, written: Mapping[str, pa.Table], spans: Sequence[Span]) -> None:
        """As every ledger does; what is as it was written is known from then on."""
        super().read_back(written, spans)
        self._known |= self._newest

    def _summed(
        self, tables: Iterable[str], spans: Sequence[Span], final: str, known: BlockNumbers = _NONE
    ) -> list[dict[str, Any]]:
        return self.store.rows(_sums_query(tables, spans, final, known), {"log": self.log_id})

    def covered_rows(self, table: str, partition: int, first_offset: int, last_offset: int) -> pa.Table:
        """The rows of a table that count, of these offsets (both included), in the order of their identity."""
        view, columns = _VIEWS[table]
        return self.store.arrow(
            f"SELECT {columns} FROM {view} WHERE log_id = {{log:UInt64}} AND partition = {{partition:UInt16}} "
            "AND offset BETWEEN {first:UInt64} AND {last:UInt64} ORDER BY offset, line",
            {"log": self.log_id, "partition": partition, "first": first_offset, "last": last_offset},
        )

    def heard(self, sessions: Iterable[tuple[str, int, int, int]]) -> dict[int, Heard]:
        """What readings tell of sessions (charge point, key, partition, offset), each up to its offset."""
        asked = list(sessions)
        if not asked:
            return {}
        names, keys, _, offsets = zip(*asked, strict=True)
        rows = self.store.rows(
            "SELECT session_key, toString(argMinIf(r.id_token, (offset, line), r.id_token != '')) AS token, "
            "toUnixTimestamp64Milli(min(r.time)) AS first_ms, toUnixTimestamp64Milli(max(r.time)) AS last_ms, "
            "max(r.reference_version) AS version FROM readings AS r WHERE log_id = {log:UInt64} "
            "AND charge_point_id IN {names:Array(String)} AND session_key IN {keys:Array(UInt64)} "
            "AND offset <= transform(session_key, {keys:Array(UInt64)}, {offsets:Array(UInt64)}, toUInt64(0)) "
            "AND verdict != 'duplicate' GROUP BY session_key",
            {"log": self.log_id, "names": sorted(set(names)), "keys": list(keys), "offsets": list(offsets)},
        )
        return {r["session_key"]: Heard(r["token"], r["first_ms"], r["last_ms"], r["version"]) for r in rows}

    # markers

    def stored_markers(self, keys: Sequence[tuple[int, int, int]]) -> list[Marker]:
        """Markers by (partition, claim, first offset), whether they are valid or not."""
        named = ", ".join(f"({partition:d}, {claim:d}, {first:d})" for partition, claim, first in keys)
        return self._markers(
            "SELECT {columns} FROM marker_rows FINAL WHERE log_id = {log} "
            "AND (partition, claim, first_offset) IN ({keys})",
            keys=named,
        )

    def markers(self, partitions: Sequence[int]) -> list[Marker]:
        """The valid markers of partitions, by partition and offset."""
        return self._markers(
            "SELECT {columns} FROM markers WHERE log_id = {log} AND partition IN ({names}) "
            "ORDER BY partition, first_offset",
            names=", ".join(f"{partition:d}" for partition in partitions) or "NULL",
        )

    def markers_within(self, spans: Sequence[Span]) -> list[Marker]:
        """The markers of these claims that lie within their spans, by partition and offset."""
        if not spans:
            return []
        within = [
            f"(partition = {s.partition:d} AND claim = {s.claim:d} AND first_offset >= {s.first_offset:d} "
            f"AND last_offset <= {s.last_offset:d})"
            for s in spans
        ]
        return self._markers(
            "SELECT {columns} FROM marker_rows FINAL WHERE log_id = {log} AND ({within}) "
            "ORDER BY partition, first_offset",
            within=" OR ".join(within),
        )

    def marked(self, partitions: Sequence[int]) -> dict[int, dict[int, Marked]]:
        """Partition → claim → what its markers sum up to, valid or not; asked of a projection of 0010."""
        rows = self.store.rows(
            "SELECT partition, claim, min(first_offset) AS low, sum(last_offset + 1 - first_offset) AS lengths, "
            "sum(intHash64(last_offset + 1) - intHash64(first_offset)) AS seams FROM marker_rows "
            "WHERE log_id = {log:UInt64} AND partition IN {partitions:Array(UInt16)} GROUP BY partition, claim",
            {"log": self.log_id, "partitions": list(partitions)},
        )
        found: dict[int, dict[int, Marked]] = {}
        for row in rows:
            one = Marked(row["claim"], row["low"], row["lengths"], row["seams"])
            found.setdefault(row["partition"], {})[one.claim] = one
        return found

    def newest_reference(self) -> int:
        """The newest reference version that a marker names, valid or not; 0 where none does."""
        sql = (
            "SELECT max(version) FROM (SELECT partition, claim, max(reference_version) AS version FROM marker_rows "
            "WHERE log_id = {log:UInt64} GROUP BY partition, claim)"
        )
        return int(self.store.scalar(sql, {"log": self.log_id}) or 0)

    def _markers(self, sql: str, **values: int | str) -> list[Marker]:
        names = [f.name for f in fields(Marker)]
        instants = {"log_time", "written_at"}
        columns = ", ".join(
            f"toUnixTimestamp64Milli(toDateTime64({n}, 3)) AS {n}_ms" if n in instants else n for n in names
        )
        rows = self.store.rows(_bind(sql, columns=columns, log=self.log_id, **values))
        return [Marker(**{n: row[f"{n}_ms" if n in instants else n] for n in names}) for row in rows]

    # claims

    def intents(self, partitions: Sequence[int]) -> dict[int, Intent]:
        """Partition → the highest number asked for; partitions that nobody ever asked for are absent."""
        where = "WHERE log_id = {log:UInt64} AND partition IN {partitions:Array(UInt16)}"
        rows = self.store.rows(
            "SELECT partition AS part, claim AS number, arraySort(groupUniqArray(member)) AS members FROM "
            f"(SELECT partition, claim, member FROM claim_intent_rows {where} "
            f"UNION ALL SELECT partition, claim, member FROM claim_rows {where}) "
            "GROUP BY part, number ORDER BY number DESC LIMIT 1 BY part",
            {"log": self.log_id, "partitions": list(partitions)},
        )
        return {row["part"]: Intent(row["number"], tuple(row["members"])) for row in rows}

    def claims(self, partitions: Sequence[int]) -> list[tuple[Claim, int]]:
        """The claims that count, with the offset at which each ends, by partition and number."""
        rows = self.store.rows(
            "SELECT partition, claim, first_offset, member, end_offset FROM claims "
            "WHERE log_id = {log:UInt64} AND partition IN {partitions:Array(UInt16)} ORDER BY partition, claim",
            {"log": self.log_id, "partitions": list(partitions)},
        )
        return [(Claim(**{f.name: row[f.name] for f in fields(Claim)}), row["end_offset"]) for row in rows]

    # refusals

    def refusals(self, partitions: Sequence[int]) -> list[Refusal]:
        """Records of which the store refused a row, by partition, claim and offset; of repeats the least in words."""
        rows = self.store.rows(
            "SELECT partition, claim, offset, min((code, message)) AS said FROM refused_rows "
            "WHERE log_id = {log:UInt64} AND partition IN {partitions:Array(UInt16)} "
            "GROUP BY partition, claim, offset ORDER BY partition, claim, offset",
            {"log": self.log_id, "partitions": list(partitions)},
        )
        return [Refusal(row["partition"], row["claim"], row["offset"], *row["said"]) for row in rows]

    def insert_again(self, table: str) -> bool:
        """Insert a row that the table holds once more, if it holds one."""
        self.store.command(f"INSERT INTO {table} SELECT * FROM {table} LIMIT 1")
        return bool(self.store.rows(f"SELECT 1 FROM {table} LIMIT 1"))

    # published, snapshots, coverage

    def published(self, partitions: Sequence[int]) -> dict[int, int]:
        """Partition → last offset whose outputs are surely on Kafka; partitions without any are absent."""
        rows = self.store.rows(
            "SELECT partition, max(last_offset) AS last FROM published_rows "
            "WHERE log_id = {log:UInt64} AND partition IN {partitions:Array(UInt16)} GROUP BY partition",
            {"log": self.log_id, "partitions": list(partitions)},
        )
        return {row["partition"]: row["last"] for row in rows}

    def snapshot(self, partition: int, not_beyond: int, skip: int = 0) -> Snapshot | None:
        """The newest snapshot at or before offset `not_beyond`, older by `skip`; None when none is left."""
        standing = self._standing(partition, not_beyond)
        if skip >= len(standing):
            return None
        names = [f.name for f in fields(Snapshot) if f.name != "taken_at"]
        at, table = standing[skip]
        found = self.store.arrow(
            f"SELECT {', '.join(names)}, toUnixTimestamp64Milli(taken_at) AS taken_ms FROM {table} "
            "WHERE log_id = {log:UInt64} AND partition = {partition:UInt16} AND last_offset = {last:UInt64} "
            "AND claim = {claim:UInt32} LIMIT 1",
            {"log": self.log_id, "partition": partition, "last": at.last_offset, "claim": at.claim},
        )
        if not found.num_rows:  # dropped since
            return self.snapshot(partition, not_beyond, skip)
        row = {name: found.column(name)[0].as_py() for name in names if name not in ("payload", "code_version")}
        payload = found.column("payload").cast(pa.binary())[0].as_py()
        version = found.column("code_version").cast(pa.string())[0].as_py()
        return Snapshot(**row, payload=payload, code_version=version, taken_at=found.column("taken_ms")[0].as_py())

    def snapshots(self, partition: int, not_beyond: int) -> list[StateAt]:
        """Where snapshots stand at or before an offset, the newest first."""
        return [at for at, table in self._standing(partition, not_beyond) if table == STATES]

    def _standing(self, partition: int, not_beyond: int) -> list[tuple[StateAt, str]]:
        """With the table of each; the old table's, which nobody writes to any more, stand behind."""
        rows = self.store.rows(
            " UNION ALL ".join(
                f"SELECT DISTINCT claim, last_offset, '{table}' AS held, {age} AS age FROM {table} WHERE "
                "log_id = {log:UInt64} AND partition = {partition:UInt16} AND last_offset <= {last:UInt64}"
                for age, table in enumerate((STATES, "snapshot_rows"))
            ),
            {"log": self.log_id, "partition": partition, "last": not_beyond},
        )
        rows.sort(key=lambda row: (-row["age"], row["last_offset"], row["claim"]), reverse=True)
        return [(StateAt(row["claim"], row["last_offset"]), row["held"]) for row in rows]

    def drop_snapshots(self, partition: int, gone: Sequence[StateAt]) -> None:
        """Delete snapshots; those that are gone already are no error."""
        self.store.command(drop_statement(self.log_id, partition, gone, self.store.cluster), NOT_AWAITED)

    def covered_ends(self) -> dict[int, int]:
        """Partition → offset after the last one that counts."""
        rows = self.store.rows(
            "SELECT partition, max(last_offset) + 1 AS next FROM covered "
            "WHERE log_id = {log:UInt64} GROUP BY partition",
            {"log": self.log_id},
        )
        return {row["partition"]: row["next"] for row in rows}

    def complete_up_to(self, partitions: int) -> int | None:
        """Log time (ms) that every one of the topic's partitions has been rated up to; None while one has no marker."""
        row = self.store.rows(
            "SELECT count() AS seen, toUnixTimestamp64Milli(min(reached)) AS reached_ms FROM "
            "(SELECT partition, max(log_time) AS reached FROM markers WHERE log_id = {log:UInt64} GROUP BY partition)",
            {"log": self.log_id},
        )[0]
        return int(row["reached_ms"]) if row["seen"] == partitions else None


def drop_statement(log_id: int, partition: int, gone: Sequence[StateAt], cluster: str = "") -> str:
    """Each snapshot is a table partition. A Distributed table has none: on a cluster its local part is named."""
    table = f"{STATES}_local ON CLUSTER '{cluster}'" if cluster else STATES
    names = [f"({log_id:d}, {partition:d}, {one.claim:d}, {one.last_offset:d})" for one in gone]
    return f"ALTER TABLE {table} {', '.join(f'DROP PARTITION {name}' for name in names)}"


def _sums(found: list[dict[str, Any]]) -> dict[tuple[str, int], Sums]:
    return {(row["name"], row["partition"]): Sums(row["rows"], row["check_sum"]) for row in found}


def _block_numbers(found: list[dict[str, Any]]) -> BlockNumbers:
    """The highest of the parts that were read: a part is called PARTITION_FIRST_LAST_LEVEL, and _MUTATION after one."""
    numbers: dict[tuple[str, str], int] = {}
    for row in found:
        for of, _, last, *_ in (part.split("_") for part in row["parts"]):
            numbers[row["name"], of] = max(numbers.get((row["name"], of), 0), int(last))
    return numbers


def _younger(table: str, known: BlockNumbers) -> str:
    """The condition of parts with an insert above the one that is known; where none is known, of all parts."""
    numbers = {of: number for (name, of), number in known.items() if name == table}
    if not numbers:
        return ""
    oldest = f"transform(_partition_id, {list(numbers)}, {list(numbers.values())}, toInt64(-1))"
    return f"WHERE toInt64(splitByChar('_', _part)[3]) > {oldest}"


def _sums_query(tables: Iterable[str], spans: Sequence[Span], final: str, known: BlockNumbers) -> str:
    """Rows and wrapping sums by table and partition. Only integers of ours are put into the text.

    One question over the tables' union: to plan one for each takes the store twice as long, and longer than the rows.
    """
    of_tables = " UNION ALL ".join(
        f"SELECT '{table}' AS name, log_id, partition, claim, offset, line, _part AS part, {amounts} AS amounts "
        f"FROM {table} {final} {_younger(table, known)}"
        for table in tables
        for amounts in [" + ".join(map(_unsigned, SUMMED[table])) or "toUInt64(0)"]
    )
    return (
        "SELECT name, partition, count() AS rows, sum(offset * offset + offset + line + amounts) AS check_sum, "
        "groupUniqArray(part) AS parts "
        f"FROM ({of_tables}) WHERE log_id = {{log:UInt64}} AND ({' OR '.join(map(_within, spans))}) "
        "GROUP BY name, partition"
    )


def _unsigned(column: str) -> str:
    return column if column == "session_key" else f"reinterpretAsUInt64({column})"


def _within(span: Span) -> str:
    """Rows of a span; by their blocks too where these are few, which an index of the tables knows (0007)."""
    first, last = span.first_offset >> _BLOCK_BITS, span.last_offset >> _BLOCK_BITS
    blocks = ", ".join(str((span.partition << 48) + block) for block in range(first, min(last, first + _BLOCKS) + 1))
    return (
        f"(partition = {span.partition:d} AND claim = {span.claim:d} "
        f"AND offset BETWEEN {span.first_offset:d} AND {span.last_offset:d}"
        + (f" AND {_BLOCK} IN ({blocks}))" if last - first < _BLOCKS else ")")
    )


def _bind(sql: str, **values: int | str) -> str:
    """Put names and integers of ours into a statement."""
    return sql.format(**values)

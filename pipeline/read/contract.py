"""What billing may rely on: rows that count, once each, in a fixed order, from one cursor to the next.

    covered(store)                     -> how far every partition is rated without a gap: the newest cursor
    batches(store, CDRS, since, until) -> the rows in between, as Arrow batches of a fixed size and schema
    cdrs(store, since, until)          -> the same as typed values
    complete_up_to(store, until, n)    -> the log time that all n partitions had reached at that cursor

Rows are ordered by (log, partition, offset, line), which is also their identity. A row between two cursors never
changes, goes away or gets a neighbour: markers only grow at the end. What arrives late lies behind the newer cursor.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.errors import DocumentError
from pipeline.read.cursor import Cursor

BATCH_ROWS: Final = 65_536
_ASK_ROWS: Final = 2_000_000  # rows asked of the store at once, about

_UTC_MS: Final = pa.timestamp("ms", "UTC")
_IDENTITY: Final[tuple[tuple[str, pa.DataType], ...]] = (
    ("log_id", pa.uint64()),
    ("partition", pa.uint16()),
    ("offset", pa.uint64()),
    ("line", pa.uint64()),
    ("charge_point_id", pa.string()),
    ("connector_id", pa.uint16()),
    ("session_key", pa.uint64()),
)


@dataclass(frozen=True)
class Kind:
    """What can be exported: its name, its table, the marker's count of its rows, the columns that go out."""

    name: str
    table: str
    counted: str
    schema: pa.Schema


CDRS: Final = Kind(
    "cdrs",
    "cdr_rows",
    "cdrs",
    pa.schema(
        [
            *_IDENTITY,
            ("cdr_id", pa.string()),
            ("revision", pa.uint16()),
            ("credit", pa.uint8()),
            ("transaction_id", pa.string()),
            ("id_token", pa.string()),
            ("location_id", pa.string()),
            ("start", _UTC_MS),
            ("end", _UTC_MS),
            ("settled_at", _UTC_MS),
            ("tariff", pa.string()),
            ("currency", pa.string()),
            ("energy_mwh", pa.int64()),
            ("charging_ms", pa.int64()),
            ("parking_ms", pa.int64()),
            ("held_mwh", pa.int64()),
            ("held_reason", pa.string()),
            ("rated_cost", pa.int64()),
            ("total_excl_e4", pa.int64()),
            ("total_incl_e4", pa.int64()),
            ("readings", pa.uint32()),
            ("signed", pa.int8()),
            ("flags", pa.uint32()),
            ("document", pa.string()),
        ]
    ),
)
RATED: Final = Kind(
    "rated",
    "rated_usage_rows",
    "rated",
    pa.schema(
        [
            *_IDENTITY,
            ("start", _UTC_MS),
            ("end", _UTC_MS),
            ("dimension", pa.string()),
            ("quantity", pa.int64()),
            ("cost", pa.int64()),
            ("price_e4", pa.int64()),
            ("currency", pa.string()),
            ("tariff", pa.string()),
            ("element", pa.int16()),
            ("component", pa.int16()),
            ("state", pa.int8()),
            ("split", pa.int8()),
            ("flags", pa.uint32()),
        ]
    ),
)
KINDS: Final = {kind.name: kind for kind in (CDRS, RATED)}


@dataclass(frozen=True, slots=True)
class CdrRecord:
    """One CDR, or the credit of one (`credit` 1, every amount negated). Amounts in 1e-4 of the currency, energy mWh."""

    log_id: int
    partition: int
    offset: int
    line: int
    charge_point_id: str
    connector_id: int
    session_key: int
    cdr_id: str
    revision: int
    credit: int
    transaction_id: str
    id_token: str
    location_id: str
    start_ms: int
    end_ms: int
    settled_ms: int
    tariff: str
    currency: str
    energy_mwh: int
    held_mwh: int
    held_reason: str
    total_excl_e4: int
    total_incl_e4: int
    document: bytes  # the OCPI CDR object

    @property
    def id(self) -> str:
        """The row's identity: what a billing job keeps to read each CDR exactly once."""
        return f"{self.log_id:016x}-{self.partition}-{self.offset}-{self.line}"


def covered(store: Store) -> Cursor:
    """How far every partition is rated without a gap, and is surely rated for ever.

    A marker alone is not enough: one that lands while another worker takes the partition over may yet be passed over,
    and its rows come again under the next claim. What is said to be published was confirmed after its marker (step 5 of
    `pipeline.rate.commit`), so no later claim begins before it.
    """
    published = {
        (row["log_id"], row["part"]): row["next"]
        for row in store.rows(
            "SELECT log_id, partition AS part, max(last_offset) + 1 AS next FROM published_rows GROUP BY log_id, part"
        )
    }
    rows = store.rows(
        "SELECT log_id, partition AS part, max(last_offset) + 1 AS next, countIf(first_offset > should) AS holes, "
        "minIf(should, first_offset > should) AS hole FROM (SELECT log_id, partition, first_offset, last_offset, "
        "lagInFrame(last_offset + 1, 1, first_offset) OVER (PARTITION BY log_id, partition ORDER BY first_offset "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS should FROM markers) GROUP BY log_id, partition"
    )
    ends = {(row["log_id"], row["part"]): row["hole"] if row["holes"] else row["next"] for row in rows}
    return Cursor.of({at: min(end, published.get(at, 0)) for at, end in ends.items()})


def batches(store: Store, kind: Kind, since: Cursor, until: Cursor) -> Iterator[pa.RecordBatch]:
    """Rows from `since` up to `until`, in batches of BATCH_ROWS (the last one smaller); memory does not grow with them.

    Raises DocumentError where a cursor lies beyond what is covered, or `since` beyond `until`.
    """
    check_range(store, since, until)
    waiting: list[pa.Table] = []
    rows = 0
    for table in _tables(store, kind, since, until):
        waiting.append(table)
        rows += table.num_rows
        if rows >= BATCH_ROWS:
            whole = pa.concat_tables(waiting).combine_chunks()
            full = rows - rows % BATCH_ROWS
            yield from _cut(whole.slice(0, full))
            waiting, rows = [whole.slice(full)], rows - full
    if rows:
        yield from _cut(pa.concat_tables(waiting).combine_chunks())


def cdrs(store: Store, since: Cursor, until: Cursor) -> Iterator[CdrRecord]:
    """CDRs and credits from `since` up to `until`, in order."""
    for batch in batches(store, CDRS, since, until):
        yield from records(batch)


def records(batch: pa.RecordBatch) -> Iterator[CdrRecord]:
    """The rows of an exported batch of CDRs as typed values."""
    names = [field.name for field in fields(CdrRecord)]
    columns = [_column(batch, name) for name in names]
    for values in zip(*columns, strict=True):
        yield CdrRecord(*values)


def complete_up_to(store: Store, until: Cursor, log_id: int, partitions: int) -> int | None:
    """Log time (UTC ms) that all partitions of a log had reached at a cursor; None while one has nothing marked."""
    rows = store.rows(
        "SELECT partition AS part, toUnixTimestamp64Milli(max(log_time)) AS reached_ms FROM markers "
        "WHERE log_id = {log:UInt64} AND last_offset < {ends:Array(UInt64)}[partition + 1] GROUP BY part",
        {"log": log_id, "ends": [until.next_offset(log_id, partition) for partition in range(partitions)]},
    )
    return min(row["reached_ms"] for row in rows) if len(rows) == partitions else None


def check_range(store: Store, since: Cursor, until: Cursor) -> None:
    """Raise DocumentError unless since <= until <= what is covered, in every partition."""
    now = covered(store)
    for name, early, late in (("--since", since, until), ("--until", until, now)):
        for log_id, partition, offset in early.items():
            if offset > late.next_offset(log_id, partition):
                raise DocumentError(
                    f"{name} is at offset {offset} of partition {partition} of log {log_id:016x}, beyond "
                    f"{late.next_offset(log_id, partition)}: was it taken from another store?"
                )


def _column(batch: pa.RecordBatch, name: str) -> list[Any]:
    if name == "document":
        return list(batch.column(name).cast(pa.binary()).to_pylist())
    if name.endswith("_ms"):
        source = {"settled_ms": "settled_at"}.get(name, name.removesuffix("_ms"))
        return list(batch.column(source).cast(pa.int64()).to_pylist())
    return list(batch.column(name).to_pylist())


def _cut(table: pa.Table) -> Iterator[pa.RecordBatch]:
    yield from table.to_batches(max_chunksize=BATCH_ROWS)


def _tables(store: Store, kind: Kind, since: Cursor, until: Cursor) -> Iterator[pa.Table]:
    """Rows in order, asked for by spans of offsets that one claim wrote."""
    columns = ", ".join(_expression(field) for field in kind.schema)
    for log_id, partition, end in until.items():
        first = since.next_offset(log_id, partition)
        for claim, begin, stop in _spans(store, kind, log_id, partition, first, end):
            found = store.arrow(
                f"SELECT {columns} FROM {kind.table} AS r WHERE log_id = {{log:UInt64}} "
                "AND partition = {partition:UInt32} AND claim = {claim:UInt32} AND offset >= {begin:UInt64} "
                "AND offset < {stop:UInt64} ORDER BY offset, line LIMIT 1 BY offset, line",
                {"log": log_id, "partition": partition, "claim": claim, "begin": begin, "stop": stop},
            )
            if found.num_rows:
                yield found.rename_columns(kind.schema.names).cast(kind.schema)


def _expression(field: "pa.Field[Any]") -> str:
    text = pa.types.is_string(field.type) and field.name != "document"
    return f"toString(r.{field.name}) AS c_{field.name}" if text else f"r.{field.name} AS c_{field.name}"


def _spans(
    store: Store, kind: Kind, log_id: int, partition: int, first: int, end: int
) -> Iterator[tuple[int, int, int]]:
    """(claim, first offset, offset after the last), of about _ASK_ROWS rows each, out of the markers in between."""
    if first >= end:
        return
    markers = store.rows(
        f"SELECT claim, first_offset AS begin, last_offset + 1 AS stop, m.{kind.counted} AS rows FROM markers AS m "
        "WHERE log_id = {log:UInt64} AND partition = {partition:UInt32} AND last_offset >= {first:UInt64} "
        "AND first_offset < {end:UInt64} ORDER BY begin",
        {"log": log_id, "partition": partition, "first": first, "end": end},
    )
    claim, begin, stop, rows = -1, first, first, 0
    for marker in markers:
        if rows and (marker["claim"] != claim or rows + marker["rows"] > _ASK_ROWS):
            yield claim, begin, stop
            begin, rows = stop, 0
        elif marker["claim"] != claim:
            begin = stop
        claim, stop, rows = marker["claim"], min(marker["stop"], end), rows + marker["rows"]
    if rows:
        yield claim, begin, stop

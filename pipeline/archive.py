"""The log's own records, kept in the store: what Kafka has forgotten can be rated again, to the last byte.

`Archive` copies them, as a consumer group of its own beside the workers, who know nothing of it. A record's row is a
function of the log alone, so that a record copied twice is one row, and neither claims nor markers are needed: insert,
read back, then commit the group's offset. `KeptLog` reads them like a consumer; through `KeptDoors` batches are rated
from it again. Whether records are missing is for `wattrate verify` (`records_kept`).
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np
import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.codec.records import Records
from pipeline.errors import DocumentError, IntegrityError, RetentionGapError
from pipeline.kafka import Admin, Reader
from pipeline.ledger import RECORDS
from pipeline.log import Log
from pipeline.rate.doors import RealDoors
from pipeline.rate.records import by_partition
from pipeline.settings import Settings
from pipeline.topics import CONTENT_TYPE, READINGS

LOG: Final = Log("archive")
_RECORDS_AT_ONCE: Final = 20_000
_WAIT_S: Final = 1.0  # for so many: small inserts make many parts
_LOG_APPEND_TIME: Final = 2  # the kind of a record's time, as Kafka numbers it


class Copied(NamedTuple):
    """What one step copied."""

    records: int
    size: int  # bytes


class Archive:
    """A member of the archive's group that copies what its partitions give."""

    def __init__(self, settings: Settings, *, again: bool = False) -> None:
        """`again`: from the oldest record that Kafka has, not from where the group is.

        Raises TopicError, outages as they are.
        """
        self._again, self._admin = again, Admin(settings)
        self._log_id = self._admin.log_id(READINGS)
        self._store = Store(settings)
        self._reader = Reader(settings, READINGS, group_id=f"{settings.group_id}-archive")
        self._next: dict[int, int] = {}

    def __enter__(self) -> Self:
        self._reader.subscribe(self._assigned, self._left, self._left)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._reader.close()
        self._store.close()

    @property
    def member(self) -> bool:
        """Whether it has partitions."""
        return bool(self._next)

    def step(self) -> Copied:
        """Copy what is there, waiting a moment for it.

        Raises RetentionGapError where Kafka no longer has what was not copied, IntegrityError where the store does not
        show what it took, outages as they are. Whatever it raises, the next member goes on where this one began.
        """
        found = by_partition(self._reader.consume(_RECORDS_AT_ONCE, _WAIT_S))
        if not found:
            return Copied(0, 0)
        for partition, records in found.items():
            self._store.insert(RECORDS, _rows(self._log_id, partition, records))
        self._read_back(found)
        ends = {partition: int(records.offsets[-1]) + 1 for partition, records in found.items()}
        mine = {partition: end for partition, end in ends.items() if partition in self._next}
        self._next.update(mine)
        if mine:  # a partition that left meanwhile is its next reader's
            self._reader.commit(mine)
        values = [value for records in found.values() for value in records.values]
        return Copied(len(values), sum(map(len, values)))

    def behind(self) -> dict[int, int]:
        """Partition → records that are not copied yet, as the last fetch told it."""
        ends = {partition: self._reader.high_watermark(partition) for partition in self._next}
        return {p: max(0, end - self._next[p]) for p, end in ends.items() if end is not None}

    def _assigned(self, partitions: list[int]) -> Mapping[int, int]:
        """From where the group is, but never beyond what the store shows: it may have lost what came last."""
        committed = {} if self._again else self._reader.committed(partitions)
        shown = {} if self._again else self._shown_ends(partitions)
        oldest = {p: at for p, at in self._admin.start_offsets(READINGS).items() if p in partitions}
        starts = {p: min(committed.get(p, shown.get(p, oldest[p])), shown.get(p, oldest[p])) for p in partitions}
        self._next.update(starts)
        LOG.info("copies partitions", partitions=partitions, first_offsets=[starts[p] for p in partitions])
        return starts

    def _left(self, partitions: list[int]) -> None:
        for partition in partitions:
            self._next.pop(partition, None)

    def _shown_ends(self, partitions: Sequence[int]) -> dict[int, int]:
        rows = self._store.rows(
            f"SELECT partition, max(offset) + 1 AS next FROM {RECORDS} "
            "WHERE log_id = {log:UInt64} AND partition IN {partitions:Array(UInt16)} GROUP BY partition",
            {"log": self._log_id, "partitions": list(partitions)},
        )
        return {row["partition"]: row["next"] for row in rows}

    def _read_back(self, found: Mapping[int, Records]) -> None:
        """What the store shows must equal what was sent: an acknowledgement is no proof."""
        for partition, records in found.items():
            first, last = int(records.offsets[0]), int(records.offsets[-1])
            shown = self._store.rows(
                f"SELECT count() AS records, sum(CRC32(raw)) AS check_sum FROM {RECORDS} FINAL WHERE "
                "log_id = {log:UInt64} AND partition = {partition:UInt16} "
                "AND offset BETWEEN {first:UInt64} AND {last:UInt64}",
                {"log": self._log_id, "partition": partition, "first": first, "last": last},
            )[0]
            sent = {"records": len(records.values), "check_sum": sum(map(zlib.crc32, records.values))}
            if shown != sent:
                raise IntegrityError(
                    f"{self._store.where}: {RECORDS} of partition {partition} shows {shown} of offsets {first} to "
                    f"{last} where {sent} was written: they are copied again"
                )


def _rows(log_id: int, partition: int, records: Records) -> pa.Table:
    count = len(records.values)
    return pa.table(
        {
            "log_id": pa.array(np.full(count, log_id, np.uint64)),
            "partition": pa.array(np.full(count, partition, np.uint16)),
            "offset": pa.array(records.offsets.astype(np.uint64)),
            "record_time": pa.array(np.asarray(records.times_ms, np.int64)).cast(pa.timestamp("ms", "UTC")),
            "record_key": pa.array(records.keys, pa.binary()),
            "content_type": pa.array(records.content_types or [None] * count, pa.string()),
            "raw": pa.array(records.values, pa.binary()),
        }
    )


class KeptMessage:
    """As much of Kafka's Message as is asked: the library makes none itself."""

    def __init__(
        self, partition: int, offset: int, time_ms: int, key: bytes | None, kind: str | None, raw: bytes
    ) -> None:
        self._partition, self._offset, self._time_ms = partition, offset, time_ms
        self._key, self._kind, self._raw = key, kind, raw

    def __len__(self) -> int:
        """Of its value."""
        return len(self._raw)

    def partition(self) -> int:
        """Its partition."""
        return self._partition

    def offset(self) -> int:
        """Its offset."""
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        """Which time, and the time (UTC ms)."""
        return _LOG_APPEND_TIME, self._time_ms

    def key(self) -> bytes | None:
        """Its key."""
        return self._key

    def value(self) -> bytes:
        """Its bytes."""
        return self._raw

    def headers(self) -> list[tuple[str, bytes]] | None:
        """The one header that is kept."""
        return [(CONTENT_TYPE, self._kind.encode())] if self._kind is not None else None


class KeptLog:
    """The kept records of one log, read as `pipeline.rate.doors.Playing`. It is never silent: it has an end."""

    def __init__(self, store: Store, log_id: int) -> None:
        self._store, self._log_id = store, log_id
        self._next: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The connection is its owner's."""

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read these partitions from these offsets."""
        self._next = dict(offsets)

    def consume(self, records: int, timeout_s: float) -> list[Any]:
        """The next records of each partition. Raises RetentionGapError where a partition has none any more."""
        return [message for partition in list(self._next) for message in self._following(partition, records)]

    def high_watermark(self, partition: int) -> int:
        """Offset after the last record that is kept; 0 where there is none."""
        found = self._store.rows(
            f"SELECT max(offset) + 1 AS next FROM {RECORDS} WHERE log_id = {{log:UInt64}} "
            "AND partition = {partition:UInt16} HAVING count() > 0",
            {"log": self._log_id, "partition": partition},
        )
        return int(found[0]["next"]) if found else 0

    def _following(self, partition: int, records: int) -> Iterator[KeptMessage]:
        rows = self._store.arrow(
            "SELECT offset, toUnixTimestamp64Milli(record_time) AS time_ms, record_key, "
            f"CAST(content_type, 'Nullable(String)') AS kind, raw FROM {RECORDS} FINAL WHERE log_id = {{log:UInt64}} "
            "AND partition = {partition:UInt16} AND offset >= {next:UInt64} ORDER BY offset LIMIT {records:UInt32}",
            {"log": self._log_id, "partition": partition, "next": self._next[partition], "records": records},
        )
        if not rows.num_rows:
            raise RetentionGapError(
                f"{self._store.where}: no record of partition {partition} is kept from offset {self._next[partition]} "
                f"on (it ends at {self.high_watermark(partition)}): `wattrate archive` has not copied them, "
                "or they were deleted"
            )
        names = ("offset", "time_ms", "record_key", "kind", "raw")
        kinds: dict[str, Any] = {"record_key": pa.binary(), "kind": pa.string(), "raw": pa.binary()}
        columns = [rows.column(name).cast(kinds.get(name, pa.int64())).to_pylist() for name in names]
        yield from (KeptMessage(partition, *row) for row in zip(*columns, strict=True))
        self._next[partition] = int(rows.column("offset")[-1].as_py()) + 1


class KeptDoors(RealDoors):
    """The doors of a worker, its log being the kept one: for rating again, with no Kafka anywhere."""

    def __init__(self, settings: Settings, log_id: int | None = None) -> None:
        """Of the log named, or of the one that was written to last. Raises DocumentError where it has no record."""
        with Store(settings) as store:
            found = _logs(store)
            where = store.where
        if not found:
            raise DocumentError(f"{where}: there are no kept records; `wattrate archive` keeps them")
        chosen = next(iter(found)) if log_id is None else log_id
        if chosen not in found:
            kept = ", ".join(f"{one:016x}" for one in found)
            raise DocumentError(f"{where}: of log {chosen:016x} no records are kept, only of {kept}")
        super().__init__(settings, found[chosen], chosen)

    def tape(self) -> KeptLog:
        """The kept records."""
        return KeptLog(self.connection(), self.log_id)


def _logs(store: Store) -> dict[int, int]:
    """Log → partitions of its topic, the one written to last first. Workers claim every partition of a topic."""
    rows = store.rows(
        "SELECT log_id, max(last) AS written, max(next) AS partitions FROM (SELECT log_id, max(record_time) AS last, "
        f"max(partition) + 1 AS next FROM {RECORDS} GROUP BY log_id UNION ALL "
        "SELECT log_id, toDateTime64(0, 3, 'UTC'), max(partition) + 1 FROM claim_rows "
        f"WHERE log_id IN (SELECT DISTINCT log_id FROM {RECORDS}) GROUP BY log_id) "
        "GROUP BY log_id ORDER BY written DESC"
    )
    return {row["log_id"]: row["partitions"] for row in rows}

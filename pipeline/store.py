"""The ledger: typed calls for what the commit protocol writes and reads back. It decides nothing.

Rows are Arrow tables with the columns of deploy/clickhouse/0001_ledger.sql. A `Span` names the offsets that one claim
wrote in one partition, both ends included. Energy mWh, cost in cost units, instants UTC ms. There is no delete: rows
beyond the last marker are written again under the next claim, and the old ones are seen by nobody.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.errors import FencedError, IntegrityError

READINGS: Final = "reading_rows"
RATED_USAGE: Final = "rated_usage_rows"
CDRS: Final = "cdr_rows"
ALERTS: Final = "alert_rows"
QUARANTINE: Final = "quarantine_rows"
DEAD_LETTERS: Final = "dead_letter_rows"

# table → the columns whose sums are read back, beside count, offset and line
_SUMMED: Final[dict[str, tuple[str, ...]]] = {
    READINGS: ("energy_mwh", "session_key"),
    RATED_USAGE: ("cost", "quantity"),
    CDRS: ("rated_cost", "total_incl_e4"),
    ALERTS: ("session_key",),
    QUARANTINE: ("held_mwh",),
    DEAD_LETTERS: (),
}
ROW_TABLES: Final = tuple(_SUMMED)
# table → its view, and its columns as a batch's own table has them: an enumeration's words, not its numbers
_VIEWS: Final = {
    READINGS: ("readings", "*"),
    RATED_USAGE: ("rated_usage", "* REPLACE (toString(dimension) AS dimension)"),
    CDRS: ("cdrs", "*"),
    ALERTS: ("alerts", "* REPLACE (toString(severity) AS severity, toString(action) AS action)"),
    QUARANTINE: ("quarantine", "* REPLACE (toString(action) AS action)"),
}

_MS_UTC: Final = pa.timestamp("ms", "UTC")
_WRAP: Final = (1 << 64) - 1


@dataclass(frozen=True)
class Span:
    """Offsets first_offset … last_offset of a partition, written under a claim."""

    partition: int
    claim: int
    first_offset: int
    last_offset: int


@dataclass(frozen=True)
class Sums:
    """What a read-back compares: number of rows, and a wrapping 64-bit sum of identities and amounts."""

    rows: int
    check: int


@dataclass(frozen=True)
class Marker:
    """The commit point of one batch in one partition; markers tile a partition."""

    partition: int
    claim: int
    first_offset: int
    last_offset: int
    records: int
    control: int
    used: int
    duplicate: int
    quarantined: int
    dead_lettered: int
    readings: int
    rated: int
    cdrs: int
    alerts: int
    quarantine: int
    energy_mwh: int
    cost: int
    checksum: int
    log_time: int
    reference_version: int
    code_version: str
    written_at: int


@dataclass(frozen=True)
class Claim:
    """The right to write a partition from `first_offset` on: the highest number, and of equals the lowest member."""

    partition: int
    claim: int
    first_offset: int
    member: str


@dataclass(frozen=True)
class Snapshot:
    """Worker state of a partition after `last_offset`; `payload` is the worker's own, `checksum` guards it."""

    partition: int
    claim: int
    last_offset: int
    code_version: str
    checksum: int
    payload: bytes
    taken_at: int


@dataclass(frozen=True)
class Heard:
    """What a session's readings tell of it: its token, first and last instant, newest reference version."""

    id_token: str
    first_ms: int
    last_ms: int
    reference_version: int


_MARKER_TYPES: Final[dict[str, pa.DataType]] = {
    "partition": pa.uint16(),
    "claim": pa.uint32(),
    "energy_mwh": pa.int64(),
    "cost": pa.int64(),
    "log_time": _MS_UTC,
    "written_at": _MS_UTC,
    "code_version": pa.string(),
}


class Ledger:
    """The rows of one log (a topic's life) in the store. One per thread, as its Store."""

    def __init__(self, store: Store, log_id: int) -> None:
        self.store = store
        self.log_id = log_id

    # rows

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows; they count for nobody until a marker covers them."""
        self.store.insert(table, rows)

    def sums(self, tables: Iterable[str], spans: Sequence[Span]) -> dict[tuple[str, int], Sums]:
        """What the store holds, by (table, partition), of these spans; repeats of an identity count once."""
        if not spans:
            return {}
        parts = [_sums_query(table, spans) for table in tables]
        found = self.store.rows(" UNION ALL ".join(parts), {"log": self.log_id})
        return {(row["name"], row["partition"]): Sums(row["rows"], row["check_sum"]) for row in found}

    def read_back(self, written: Mapping[str, pa.Table], spans: Sequence[Span]) -> None:
        """Hold what was inserted against what the store shows. Raises IntegrityError naming the first difference.

        `written` must hold every table of the batch, empty ones too: rows that should not be there are found as well.
        """
        expected = {key: sums for table, rows in written.items() for key, sums in expected_sums(table, rows).items()}
        found = self.sums(written, spans)
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) != found.get(key):
                table, partition = key
                raise IntegrityError(
                    f"{self.store.where}: {table} of partition {partition} holds {found.get(key, Sums(0, 0))} where "
                    f"{expected.get(key, Sums(0, 0))} was written: the batch gets no marker and is driven again"
                )

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

    def add_markers(self, markers: Sequence[Marker]) -> None:
        """Write the commit points and read them back. Raises IntegrityError when they are not there."""
        columns = {
            f.name: pa.array([getattr(m, f.name) for m in markers], _MARKER_TYPES.get(f.name, pa.uint64()))
            for f in fields(Marker)
        }
        self.store.insert("marker_rows", self._with_log(columns, len(markers)))
        keys = ", ".join(f"({m.partition:d}, {m.claim:d}, {m.first_offset:d})" for m in markers)
        shown = self._markers(
            "SELECT {columns} FROM marker_rows FINAL WHERE log_id = {log} "
            "AND (partition, claim, first_offset) IN ({keys})",
            keys=keys,
        )
        missing = set(markers) - set(shown)
        if missing:
            named = ", ".join(f"{m.partition} from offset {m.first_offset}" for m in missing)
            raise IntegrityError(
                f"{self.store.where} acknowledged markers of partition {named} but does not show them: "
                "the batch is driven again"
            )

    def markers(self, partition: int, from_offset: int = 0) -> list[Marker]:
        """The valid markers of a partition that end at or after `from_offset`, in order."""
        return self._markers(
            "SELECT {columns} FROM markers WHERE log_id = {log} AND partition = {partition} "
            "AND last_offset >= {first} ORDER BY first_offset",
            partition=partition,
            first=from_offset,
        )

    def tiling(self, partition: int, from_offset: int = 0) -> list[Marker]:
        """Like `markers`, up to the first hole. Raises IntegrityError where two overlap."""
        return self._tiled(partition, self.markers(partition, from_offset))

    def tilings(self, partitions: Sequence[int]) -> dict[int, list[Marker]]:
        """The tiling of each partition from its first marker on, asked for at once."""
        found: dict[int, list[Marker]] = {partition: [] for partition in partitions}
        names = ", ".join(str(int(partition)) for partition in partitions) or "NULL"
        for marker in self._markers(
            "SELECT {columns} FROM markers WHERE log_id = {log} AND partition IN ({names}) "
            "ORDER BY partition, first_offset",
            names=names,
        ):
            found[marker.partition].append(marker)
        return {partition: self._tiled(partition, markers) for partition, markers in found.items()}

    def _tiled(self, partition: int, markers: Iterable[Marker]) -> list[Marker]:
        tiles: list[Marker] = []
        for marker in markers:
            end = tiles[-1].last_offset + 1 if tiles else marker.first_offset
            if marker.first_offset < end:
                raise IntegrityError(
                    f"{self.store.where}: markers of partition {partition} overlap at offset {marker.first_offset}: "
                    "two workers wrote under valid claims; stop all workers and run `wattrate verify`"
                )
            if marker.first_offset > end:
                break
            tiles.append(marker)
        return tiles

    def _markers(self, sql: str, **values: int | str) -> list[Marker]:
        names = [f.name for f in fields(Marker)]
        instants = {"log_time", "written_at"}
        columns = ", ".join(
            f"toUnixTimestamp64Milli(toDateTime64({n}, 3)) AS {n}_ms" if n in instants else n for n in names
        )
        rows = self.store.rows(_bind(sql, columns=columns, log=self.log_id, **values))
        return [Marker(**{n: row[f"{n}_ms" if n in instants else n] for n in names}) for row in rows]

    # claims

    def claim(self, starts: Mapping[int, int], member: str, now_ms: int) -> list[Claim]:
        """Take the next claim number on each partition, from its first offset on (partition → offset).

        Raises FencedError when another member took the same number first.
        """
        highest = self.highest_claims(list(starts))
        mine = [
            Claim(partition, highest[partition].claim + 1 if partition in highest else 1, first, member)
            for partition, first in starts.items()
        ]
        columns = {
            "partition": pa.array([c.partition for c in mine], pa.uint16()),
            "claim": pa.array([c.claim for c in mine], pa.uint32()),
            "first_offset": pa.array([c.first_offset for c in mine], pa.uint64()),
            "member": pa.array([member] * len(mine), pa.string()),
            "claimed_at": pa.array([now_ms] * len(mine), _MS_UTC),
        }
        self.store.insert("claim_rows", self._with_log(columns, len(mine)))
        self.check_claims(mine)
        return mine

    def highest_claims(self, partitions: Sequence[int]) -> dict[int, Claim]:
        """Partition → the claim that counts now; partitions never claimed are absent."""
        rows = self.store.rows(
            "SELECT partition, claim, first_offset, member FROM claims "
            "WHERE log_id = {log:UInt64} AND partition IN {partitions:Array(UInt16)} ORDER BY partition, claim",
            {"log": self.log_id, "partitions": list(partitions)},
        )
        return {row["partition"]: Claim(**row) for row in rows}

    def check_claims(self, claims: Sequence[Claim]) -> None:
        """Raise FencedError unless each of these is still the one that counts."""
        now = self.highest_claims([claim.partition for claim in claims])
        for claim in claims:
            held = now.get(claim.partition)
            if held != claim:
                owner = f"{held.member} with claim {held.claim}" if held else "nobody"
                raise FencedError(
                    f"partition {claim.partition} belongs to {owner}, not to {claim.member} with claim {claim.claim}: "
                    "this worker drops what it has not marked"
                )

    # published, snapshots, coverage

    def add_published(self, offsets: Mapping[int, tuple[int, int]], now_ms: int) -> None:
        """Note that outputs went to Kafka up to an offset: partition → (claim, last offset)."""
        columns = {
            "partition": pa.array(list(offsets), pa.uint16()),
            "claim": pa.array([claim for claim, _ in offsets.values()], pa.uint32()),
            "last_offset": pa.array([last for _, last in offsets.values()], pa.uint64()),
            "published_at": pa.array([now_ms] * len(offsets), _MS_UTC),
        }
        self.store.insert("published_rows", self._with_log(columns, len(offsets)))

    def published(self, partitions: Sequence[int]) -> dict[int, int]:
        """Partition → last offset whose outputs are surely on Kafka; partitions without any are absent."""
        rows = self.store.rows(
            "SELECT partition, max(last_offset) AS last FROM published_rows "
            "WHERE log_id = {log:UInt64} AND partition IN {partitions:Array(UInt16)} GROUP BY partition",
            {"log": self.log_id, "partitions": list(partitions)},
        )
        return {row["partition"]: row["last"] for row in rows}

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Store worker state; it is an aid to recovery, so it is checked when it is read."""
        types = {
            "partition": pa.uint16(),
            "claim": pa.uint32(),
            "code_version": pa.string(),
            "payload": pa.binary(),
            "taken_at": _MS_UTC,
        }
        columns = {name: pa.array([value], types.get(name, pa.uint64())) for name, value in asdict(snapshot).items()}
        self.store.insert("snapshot_rows", self._with_log(columns, 1))

    def snapshot(self, partition: int, not_beyond: int, skip: int = 0) -> Snapshot | None:
        """The newest snapshot at or before offset `not_beyond`, older by `skip`; None when none is left."""
        names = [f.name for f in fields(Snapshot) if f.name != "taken_at"]
        sql = (
            f"SELECT {', '.join(names)}, toUnixTimestamp64Milli(taken_at) AS taken_ms FROM snapshot_rows "
            "WHERE log_id = {log:UInt64} AND partition = {partition:UInt16} AND last_offset <= {last:UInt64} "
            "ORDER BY last_offset DESC, claim DESC LIMIT 1 OFFSET {skip:UInt32}"
        )
        values = {"log": self.log_id, "partition": partition, "last": not_beyond, "skip": skip}
        found = self.store.arrow(sql, values)
        if not found.num_rows:
            return None
        row = {name: found.column(name)[0].as_py() for name in names if name not in ("payload", "code_version")}
        payload = found.column("payload").cast(pa.binary())[0].as_py()
        version = found.column("code_version").cast(pa.string())[0].as_py()
        return Snapshot(**row, payload=payload, code_version=version, taken_at=found.column("taken_ms")[0].as_py())

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

    def _with_log(self, columns: Mapping[str, Any], rows: int) -> pa.Table:
        return pa.table({"log_id": pa.array([self.log_id] * rows, pa.uint64()), **columns})


def expected_sums(table: str, rows: pa.Table) -> dict[tuple[str, int], Sums]:
    """What `Ledger.sums` must find after these rows went in, by (table, partition)."""
    if not rows.num_rows:
        return {}
    partitions = _integers(rows, "partition")
    check = _integers(rows, "offset").copy()
    for column in ("line", *_SUMMED[table]):
        check += _integers(rows, column)
    return {
        (table, int(partition)): Sums(int(np.count_nonzero(chosen)), int(check[chosen].sum(dtype=np.uint64)) & _WRAP)
        for partition in np.unique(partitions)
        for chosen in [partitions == partition]
    }


def _integers(rows: pa.Table, column: str) -> npt.NDArray[np.uint64]:
    return (
        rows.column(column).to_numpy().astype(np.int64, copy=False).view(np.uint64)
        if _signed(rows, column)
        else (rows.column(column).to_numpy().astype(np.uint64, copy=False))
    )


def _signed(rows: pa.Table, column: str) -> bool:
    return bool(pa.types.is_signed_integer(rows.schema.field(column).type))


def _sums_query(table: str, spans: Sequence[Span]) -> str:
    """One SELECT: rows and wrapping sums a partition. Only integers of ours are put into the text."""
    unsigned = ("offset", "line", "session_key")
    terms = ["offset", "line", *_SUMMED[table]]
    check = " + ".join(f"sum({t})" if t in unsigned else f"sum(reinterpretAsUInt64({t}))" for t in terms)
    ranges = " OR ".join(
        f"(partition = {s.partition:d} AND claim = {s.claim:d} "
        f"AND offset BETWEEN {s.first_offset:d} AND {s.last_offset:d})"
        for s in spans
    )
    return (
        f"SELECT '{table}' AS name, partition, count() AS rows, {check} AS check_sum FROM {table} "
        f"WHERE log_id = {{log:UInt64}} AND offset BETWEEN {min(s.first_offset for s in spans):d} "
        f"AND {max(s.last_offset for s in spans):d} AND ({ranges}) GROUP BY partition"
    )


def _bind(sql: str, **values: int | str) -> str:
    """Put names and integers of ours into a statement."""
    return sql.format(**values)

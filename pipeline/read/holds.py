"""What is held back from billing now, and what became of it: quarantine as people ask for it.

A session is held when the last thing said of it is "held". Records that were set apart because nobody knows their
session (`no_session`, `no_start`) are kept too, with their bytes; there is nothing to release in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.errors import DocumentError

SET_APART: Final = ("no_session", "no_start", "unusable_time")
_MWH_PER_KWH: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Hold:
    """A session with held usage, or a record set apart (`decidable` False). Energy mWh, instants UTC ms."""

    log_id: int
    partition: int
    offset: int
    charge_point_id: str
    connector_id: int
    session_key: int
    action: str
    reason: str
    held_mwh: int
    since_ms: int

    @property
    def key(self) -> str:
        """The session key as people write it."""
        return f"{self.session_key:016x}"

    @property
    def decidable(self) -> bool:
        """Whether a person can release or reject it."""
        return self.action == "held" and not (self.reason in SET_APART and self.held_mwh == 0)


# The last action of each session, and the last "held" beside it.
_LAST: Final = (
    "SELECT log_id, toString(charge_point_id) AS charge_point, session_key AS the_key, any(q.partition) AS part, "
    "max(q.connector_id) AS connector, argMax(toString(q.action), (q.offset, q.line)) AS last_action, "
    "argMax(toString(q.reason), (q.offset, q.line)) AS last_reason, "
    "argMax(q.held_mwh, (q.offset, q.line)) AS last_mwh, "
    "max(q.offset) AS last_offset, toUnixTimestamp64Milli(argMax(q.time, (q.offset, q.line))) AS last_ms "
    "FROM quarantine AS q {where} GROUP BY log_id, charge_point, the_key"
)


def held(store: Store, reason: str = "", charge_point_id: str = "", everything: bool = False) -> list[Hold]:
    """What is held now, oldest first; with `everything`, what was decided too."""
    conditions = ["1" if everything else "last_action = 'held'"]
    conditions += ["last_reason = {reason:String}"] if reason else []
    where = "WHERE charge_point_id = {charge_point:String}" if charge_point_id else ""
    rows = store.rows(
        f"SELECT * FROM ({_LAST.format(where=where)}) WHERE {' AND '.join(conditions)} ORDER BY last_ms, the_key",
        {"reason": reason, "charge_point": charge_point_id},
    )
    return [_hold(row) for row in rows]


def held_by_key(store: Store, keys: Sequence[int]) -> dict[int, Hold]:
    """Session key → what is said of it last, of the sessions that were ever held."""
    where = "WHERE session_key IN {keys:Array(UInt64)}"
    rows = store.rows(f"SELECT * FROM ({_LAST.format(where=where)}) ORDER BY last_ms", {"keys": list(keys)})
    return {row["the_key"]: _hold(row) for row in rows}


def acted_after(store: Store, holds: Sequence[Hold]) -> set[int]:
    """Session keys of these that something was done about since."""
    since = {(hold.log_id, hold.session_key): hold.offset for hold in holds}
    rows = store.rows(
        "SELECT log_id, session_key, max(q.offset) AS last_offset FROM quarantine AS q "
        "WHERE session_key IN {keys:Array(UInt64)} AND action != 'held' GROUP BY log_id, session_key",
        {"keys": sorted({hold.session_key for hold in holds})},
    )
    return {
        row["session_key"]
        for row in rows
        if row["last_offset"] > since.get((row["log_id"], row["session_key"]), row["last_offset"])
    }


@dataclass(frozen=True, slots=True)
class Kept:
    """A quarantine row with the bytes of the record behind it."""

    action: str
    reason: str
    held_mwh: int
    time_ms: int
    partition: int
    offset: int
    actor: str
    note: str
    raw: bytes


def kept(store: Store, log_id: int, session_key: int) -> list[Kept]:
    """All that quarantine says of a session, in log order. Raises DocumentError where that is nothing."""
    rows = store.arrow(
        "SELECT toString(q.action) AS act, toString(q.reason) AS why, q.held_mwh AS mwh, "
        "toUnixTimestamp64Milli(q.time) AS at_ms, q.partition AS part, q.offset AS at_offset, q.actor AS who, "
        "q.note AS said, q.raw AS bytes FROM quarantine AS q "
        "WHERE log_id = {log:UInt64} AND session_key = {key:UInt64} ORDER BY q.offset, q.line",
        {"log": log_id, "key": session_key},
    )
    if not rows.num_rows:
        raise DocumentError(f"session {session_key:016x} was never held")
    columns = [rows.column(at).to_pylist() for at in range(8)]
    raw = rows.column(8).cast(pa.binary()).to_pylist()
    return [Kept(*row) for row in zip(*columns, raw, strict=True)]


def as_json(hold: Hold) -> dict[str, Any]:
    """A hold as it is printed."""
    return {
        "session_key": hold.key,
        "charge_point_id": hold.charge_point_id,
        "connector_id": hold.connector_id,
        "action": hold.action,
        "reason": hold.reason,
        "held_mwh": hold.held_mwh,
        "since_ms": hold.since_ms,
        "partition": hold.partition,
        "offset": hold.offset,
        "log_id": f"{hold.log_id:016x}",
        "decidable": hold.decidable,
    }


def _hold(row: dict[str, Any]) -> Hold:
    return Hold(
        row["log_id"], row["part"], row["last_offset"], row["charge_point"], row["connector"], row["the_key"],
        row["last_action"], row["last_reason"], row["last_mwh"], row["last_ms"],
    )  # fmt: skip

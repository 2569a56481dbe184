"""Alerts of the worker and of watch, each with its life so far: what is open, and every step of one."""

from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline.clickhouse import Store
from pipeline.errors import DocumentError


@dataclass(frozen=True, slots=True)
class AlertNow:
    """An alert as it stands; `action` is its last step, instants UTC ms."""

    alert_id: str
    kind: str
    severity: str
    action: str
    charge_point_id: str
    connector_id: int
    session_key: int
    log_id: int
    partition: int
    first_ms: int
    last_ms: int
    steps: int

    @property
    def target(self) -> str:
        """Its name in the log."""
        return f"{self.charge_point_id}/{self.alert_id}"


@dataclass(frozen=True, slots=True)
class AlertStep:
    """One step in the life of an alert, with what it was told by."""

    action: str
    severity: str
    time_ms: int
    partition: int
    offset: int
    source: str
    evidence: dict[str, Any]


_NOW = (
    "SELECT alert_id, toString(any(a.kind)) AS the_kind, toString(max(a.severity)) AS the_severity, "
    "toString(if(max(a.action) = 'resolved', max(a.action), argMax(a.action, (a.time, a.action)))) AS last_action, "
    "toString(any(a.charge_point_id)) AS charge_point, max(a.connector_id) AS connector, "
    "max(a.session_key) AS the_key, argMin(a.log_id, (a.time, a.action)) AS log, "
    "argMin(a.partition, (a.time, a.action)) AS part, toUnixTimestamp64Milli(min(a.time)) AS first_ms, "
    "toUnixTimestamp64Milli(max(a.time)) AS last_ms, count() AS steps FROM all_alerts AS a {where} GROUP BY alert_id"
)


def alerts(
    store: Store, kind: str = "", severity: str = "", charge_point_id: str = "", resolved: bool = False, limit: int = 0
) -> list[AlertNow]:
    """Alerts that are not resolved (with `resolved`: all), newest last; the newest `limit` of them, 0 = all."""
    where = "WHERE ({kind:String} = '' OR kind = {kind:String}) AND ({cp:String} = '' OR charge_point_id = {cp:String})"
    having = "({severity:String} = '' OR the_severity = {severity:String})"
    having += "" if resolved else " AND last_action != 'resolved'"
    rows = store.rows(
        f"SELECT * FROM ({_NOW.format(where=where)}) WHERE {having} ORDER BY last_ms DESC, alert_id"
        f"{f' LIMIT {limit:d}' if limit else ''}",
        {"kind": kind, "severity": severity, "cp": charge_point_id},
    )
    return [_now(row) for row in rows[::-1]]


def alert(store: Store, alert_id: str) -> AlertNow:
    """One alert by its id. Raises DocumentError when there is none."""
    rows = store.rows(_NOW.format(where="WHERE alert_id = {id:String}"), {"id": alert_id})
    if not rows:
        raise DocumentError(f"there is no alert {alert_id!r}: `wattrate alerts list` shows them")
    return _now(rows[0])


def steps(store: Store, alert_id: str) -> list[AlertStep]:
    """The life of one alert, in order."""
    rows = store.rows(
        "SELECT toString(a.action) AS act, toString(a.severity) AS grade, toUnixTimestamp64Milli(a.time) AS at_ms, "
        "a.partition AS part, a.offset AS at_offset, a.source AS who, a.evidence AS told FROM all_alerts AS a "
        "WHERE alert_id = {id:String} ORDER BY at_ms, a.action, part, at_offset, a.line",
        {"id": alert_id},
    )
    return [
        AlertStep(
            row["act"], row["grade"], row["at_ms"], row["part"], row["at_offset"], row["who"],
            msgspec.json.decode(row["told"] or "{}"),
        )
        for row in rows
    ]  # fmt: skip


def _now(row: dict[str, Any]) -> AlertNow:
    return AlertNow(
        row["alert_id"], row["the_kind"], row["the_severity"], row["last_action"], row["charge_point"],
        row["connector"], row["the_key"], row["log"], row["part"], row["first_ms"], row["last_ms"], row["steps"],
    )  # fmt: skip

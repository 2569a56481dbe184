"""What watch reads and writes in the store: alerts, deliveries, and its own caches. Every write may be repeated."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from zlib import crc32

import msgspec
import pyarrow as pa

from pipeline.anomaly.events import AlertEvent
from pipeline.clickhouse import Store
from pipeline.errors import IntegrityError

Outcome = Literal["delivered", "dead", "suppressed", "muted", "old"]

_MS_UTC: Final = pa.timestamp("ms", "UTC")
_OUTCOMES: Final[dict[str, int]] = {"delivered": 1, "dead": 2, "suppressed": 3, "muted": 4, "old": 5}
_SEVERITIES: Final[dict[str, int]] = {"info": 1, "warning": 2, "critical": 3}
_ACTIONS: Final[dict[str, int]] = {"opened": 1, "updated": 2, "acknowledged": 3, "resolved": 4}
_ALERT_COLUMNS: Final = (
    "alert_id, kind, toString(severity) AS severity, toString(action) AS action, charge_point_id, connector_id, "
    "lower(hex(session_key)) AS session_key, id_token, toUnixTimestamp64Milli(time) AS time_ms, evidence, "
    "partition, offset, line, location_id"
)


@dataclass(frozen=True)
class Settled:
    """What became of an alert event at one sink."""

    sink: str
    event_id: str
    alert_id: str
    outcome: Outcome
    attempts: int = 1
    detail: str = ""


@dataclass(frozen=True)
class State:
    """A cache: all that was read before `position` is in `payload`."""

    scope: str
    position: int
    payload: bytes = b""


class WatchLedger:
    """Typed calls on the watch tables. One per thread, as its Store."""

    def __init__(self, store: Store) -> None:
        """On an open store."""
        self.store = store

    def add_alerts(self, alerts: Sequence[AlertEvent], log_id: int) -> None:
        """Write alerts that watch found and read them back. Raises IntegrityError when they are not there."""
        if not alerts:
            return
        self.store.insert("watch_alert_rows", _alert_table(alerts, log_id))
        found = self.store.scalar(
            "SELECT uniqExact(alert_id, action) FROM watch_alert_rows WHERE alert_id IN {ids:Array(String)}",
            {"ids": sorted({alert.alert_id for alert in alerts})},
        )
        if found < len({(alert.alert_id, alert.action) for alert in alerts}):
            raise IntegrityError(
                f"{self.store.where} acknowledged {len(alerts)} alerts of watch but does not show them"
            )

    def alerts(self, since_ms: int = 0) -> list[AlertEvent]:
        """Every step of every alert from this instant on, and of those that are open, in the order of time."""
        return self._alerts(
            "SELECT {columns} FROM all_alerts WHERE time >= {since} OR alert_id NOT IN "
            "(SELECT alert_id FROM all_alerts WHERE action = 'resolved')",
            since_ms,
        )

    def open_alerts(self, kinds: Sequence[str] = ()) -> dict[str, list[AlertEvent]]:
        """The steps of each alert that is not resolved, by its id; of these kinds, or of all."""
        rows = self._alerts(
            "SELECT {columns} FROM all_alerts WHERE alert_id NOT IN "
            "(SELECT alert_id FROM all_alerts WHERE action = 'resolved') AND time >= {since} "
            "AND (empty({kinds:Array(String)}) OR kind IN {kinds:Array(String)})",
            0,
            kinds,
        )
        found: dict[str, list[AlertEvent]] = {}
        for row in rows:
            found.setdefault(row.alert_id, []).append(row)
        return found

    def alert(self, alert_id: str) -> list[AlertEvent]:
        """The steps of one alert."""
        rows = self.store.rows(
            f"SELECT {_ALERT_COLUMNS} FROM all_alerts WHERE alert_id = {{id:String}} "
            "ORDER BY time_ms, action, partition, offset, line",
            {"id": alert_id},
        )
        return [_alert(row) for row in rows]

    def _alerts(self, sql: str, since_ms: int, kinds: Sequence[str] = ()) -> list[AlertEvent]:
        text = sql.replace("{columns}", _ALERT_COLUMNS).replace("{since}", "fromUnixTimestamp64Milli({since:Int64})")
        rows = self.store.rows(
            text + " ORDER BY time_ms, all_alerts.action, partition, offset, line",
            {"since": since_ms, "kinds": list(kinds)},
        )
        return [_alert(row) for row in rows]

    def settled(self, sink: str) -> set[str]:
        """Event ids that need no delivery to this sink any more."""
        rows = self.store.rows(
            "SELECT DISTINCT event_id FROM watch_delivery_rows WHERE sink = {sink:String}", {"sink": sink}
        )
        return {row["event_id"] for row in rows}

    def settle(self, outcomes: Sequence[Settled]) -> None:
        """Note what became of alert events."""
        now = time.time_ns() // 1_000_000
        self.store.insert(
            "watch_delivery_rows",
            pa.table(
                {
                    "sink": pa.array([o.sink for o in outcomes], pa.string()),
                    "event_id": pa.array([o.event_id for o in outcomes], pa.string()),
                    "alert_id": pa.array([o.alert_id for o in outcomes], pa.string()),
                    "outcome": pa.array([_OUTCOMES[o.outcome] for o in outcomes], pa.int8()),
                    "attempts": pa.array([o.attempts for o in outcomes], pa.uint32()),
                    "detail": pa.array([o.detail[:1000] for o in outcomes], pa.string()),
                    "settled_at": pa.array([now] * len(outcomes), _MS_UTC),
                }
            ),
        )

    def save(self, states: Iterable[State]) -> None:
        """Store caches; the one with the highest position of a scope counts."""
        kept = list(states)
        now = time.time_ns() // 1_000_000
        self.store.insert(
            "watch_state_rows",
            pa.table(
                {
                    "scope": pa.array([s.scope for s in kept], pa.string()),
                    "position": pa.array([s.position for s in kept], pa.uint64()),
                    "checksum": pa.array([crc32(s.payload) for s in kept], pa.uint64()),
                    "payload": pa.array([s.payload for s in kept], pa.binary()),
                    "written_at": pa.array([now] * len(kept), _MS_UTC),
                }
            ),
        )

    def states(self, prefix: str) -> dict[str, State]:
        """Scope → cache, of the scopes that begin so; one whose checksum is wrong is as good as none."""
        found = self.store.arrow(
            "SELECT scope, position, checksum, payload FROM watch_state_rows FINAL "
            "WHERE startsWith(scope, {prefix:String})",
            {"prefix": prefix},
        )
        columns = [found.column(name) for name in ("scope", "position", "checksum")]
        payloads = found.column("payload").cast(pa.binary()).to_pylist()
        rows = zip(*(column.to_pylist() for column in columns), payloads, strict=True)
        return {
            scope: State(scope, position, payload)
            for scope, position, checksum, payload in rows
            if crc32(payload) == checksum
        }


def _alert(row: Mapping[str, Any]) -> AlertEvent:
    evidence = msgspec.json.decode(row["evidence"] or b"{}", type=dict[str, int | float | str])
    return AlertEvent(**{**row, "session_key": row["session_key"].rjust(16, "0"), "evidence": evidence})


def _alert_table(alerts: Sequence[AlertEvent], log_id: int) -> pa.Table:
    now = time.time_ns() // 1_000_000

    def column(name: str, kind: Any) -> Any:
        return pa.array([getattr(alert, name) for alert in alerts], kind)

    return pa.table(
        {
            "log_id": pa.array([log_id] * len(alerts), pa.uint64()),
            "partition": column("partition", pa.uint16()),
            "offset": column("offset", pa.uint64()),
            "line": column("line", pa.uint64()),
            "charge_point_id": column("charge_point_id", pa.string()),
            "connector_id": column("connector_id", pa.uint16()),
            "session_key": pa.array([int(alert.session_key or "0", 16) for alert in alerts], pa.uint64()),
            "location_id": column("location_id", pa.string()),
            "alert_id": column("alert_id", pa.string()),
            "kind": column("kind", pa.string()),
            "severity": pa.array([_SEVERITIES[alert.severity] for alert in alerts], pa.int8()),
            "action": pa.array([_ACTIONS[alert.action] for alert in alerts], pa.int8()),
            "time": column("time_ms", _MS_UTC),
            "id_token": column("id_token", pa.string()),
            "evidence": pa.array([msgspec.json.encode(alert.evidence) for alert in alerts], pa.binary()),
            "written_at": pa.array([now] * len(alerts), _MS_UTC),
        }
    )

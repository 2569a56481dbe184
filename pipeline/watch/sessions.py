"""Settled sessions of the ledger in the order of log time: the first CDR of each, and where its charge point stands."""

from typing import Any, Final, NamedTuple

from pipeline.anomaly.sessions import SessionFacts
from pipeline.clickhouse import Store
from pipeline.watch.places import Places

_CDRS: Final = """
SELECT charge_point_id, connector_id, lower(hex(session_key)) AS key, location_id, id_token, energy_mwh, charging_ms,
    toUnixTimestamp64Milli(start) AS start_ms, toUnixTimestamp64Milli(end) AS end_ms,
    toUnixTimestamp64Milli(settled_at) AS settled_ms, partition, offset, line
FROM cdrs
WHERE credit = 0 AND revision <= 1 AND ({log:UInt64} = 0 OR log_id = {log:UInt64})
    AND settled_at >= fromUnixTimestamp64Milli({from:Int64}) AND settled_at < fromUnixTimestamp64Milli({until:Int64})
ORDER BY settled_ms, partition, offset, line
"""
_FOREVER_MS: Final = 4_000_000_000_000


class Settled(NamedTuple):
    """A session, when it settled (UTC ms of log time), and the identity of its CDR."""

    facts: SessionFacts
    settled_ms: int
    partition: int
    offset: int
    line: int


def settled_sessions(
    store: Store, places: Places, from_ms: int, until_ms: int = _FOREVER_MS, log_id: int = 0
) -> list[Settled]:
    """Sessions settled in [from_ms, until_ms); `log_id` 0 = of all logs."""
    found = store.rows(_CDRS, {"log": log_id, "from": from_ms, "until": until_ms})
    identity = ("settled_ms", "partition", "offset", "line")
    return [Settled(_facts(row, places), *(row[name] for name in identity)) for row in found]


def _facts(row: dict[str, Any], places: Places) -> SessionFacts:
    charge_point, connector = row["charge_point_id"], row["connector_id"]
    return SessionFacts(
        key=row["key"].rjust(16, "0"),
        charge_point=charge_point,
        connector=connector,
        site=row["location_id"],
        model=places.model(charge_point),
        token=row["id_token"],
        rating_w=places.rating_w(charge_point, connector),
        start_ms=row["start_ms"],
        end_ms=row["end_ms"],
        energy_mwh=row["energy_mwh"],
        charging_ms=row["charging_ms"] or None,
    )

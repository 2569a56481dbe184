"""What a ledger holds, in one value: control totals, energy, cost by tariff and band, sessions, alerts. Views only."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from pipeline.clickhouse import Store
from pipeline.read.bands import band_of
from rating.money import cost_decimal, e4_text

_COUNTS: Final = ("records", "control", "used", "duplicate", "quarantined", "dead_lettered", "readings")


@dataclass(frozen=True)
class Usage:
    """Rated usage under one tariff component: energy or time, and what it cost in currency units."""

    tariff: str
    band: str
    dimension: str
    currency: str
    energy_kwh: float
    hours: float
    cost: Decimal  # exact, before rounding and limits


@dataclass(frozen=True)
class Summary:
    """Totals of one log."""

    counts: dict[str, int]
    energy_kwh: float
    usage: list[Usage]
    cost: dict[str, Decimal]  # billed incl. tax by currency
    sessions_settled: int
    sessions_held: int
    credits: int
    alerts: dict[str, int]

    @property
    def adds_up(self) -> bool:
        """Whether every record has exactly one outcome."""
        given = self.counts
        return given["records"] == sum(given[n] for n in _COUNTS[1:6])


def summarise(store: Store, log_id: int) -> Summary:
    """Sum a log up."""
    where = {"log": log_id}
    markers = store.rows(
        "SELECT " + ", ".join(f"sum({n}) AS {n}" for n in _COUNTS) + " FROM markers WHERE log_id = {log:UInt64}", where
    )[0]
    cdrs = store.rows(
        "SELECT currency, count() AS rows, sum(credit) AS credits, sum(total_incl_e4) AS incl_e4, "
        "sum(energy_mwh) AS mwh, uniqExact(session_key) AS sessions FROM cdrs "
        "WHERE log_id = {log:UInt64} GROUP BY currency",
        where,
    )
    held = store.scalar(
        "SELECT countIf(last = 'held') FROM (SELECT session_key, argMax(toString(action), (offset, line)) AS last "
        "FROM quarantine WHERE log_id = {log:UInt64} GROUP BY session_key)",
        where,
    )
    alerts = store.rows(
        "SELECT kind, uniqExact(alert_id) AS count FROM alerts WHERE log_id = {log:UInt64} GROUP BY kind ORDER BY kind",
        where,
    )
    return Summary(
        counts={n: int(markers[n] or 0) for n in _COUNTS},
        energy_kwh=sum(row["mwh"] for row in cdrs) / 1e6,
        usage=_usage(store, where),
        cost={row["currency"]: Decimal(e4_text(row["incl_e4"])) for row in cdrs},
        sessions_settled=sum(row["sessions"] for row in cdrs),
        sessions_held=int(held or 0),
        credits=sum(row["credits"] for row in cdrs),
        alerts={row["kind"]: row["count"] for row in alerts},
    )


def _usage(store: Store, where: dict[str, Any]) -> list[Usage]:
    rows = store.rows(
        "SELECT toString(tariff) AS tariff, toString(dimension) AS dimension, toString(currency) AS currency, element, "
        "sum(quantity) AS quantity, sum(toInt128(cost)) AS cost FROM rated_usage WHERE log_id = {log:UInt64} "
        "GROUP BY tariff, dimension, currency, element ORDER BY tariff, dimension, element",
        where,
    )
    return [
        Usage(
            row["tariff"], band_of(store, row["tariff"], row["element"]), row["dimension"], row["currency"],
            row["quantity"] / 1e6 if row["dimension"] == "ENERGY" else 0.0,
            row["quantity"] / 3.6e6 if "TIME" in row["dimension"] else 0.0,
            cost_decimal(row["cost"]),
        )
        for row in rows
    ]  # fmt: skip


def largest_session(store: Store, log_id: int) -> str:
    """A CDR with much to explain: the largest, of a time-of-use tariff where there is one; "" for none."""
    found = store.scalar(
        "SELECT cdr_id FROM cdrs WHERE log_id = {log:UInt64} "
        "ORDER BY position(toString(tariff), 'TOU') > 0 DESC, energy_mwh DESC, cdr_id LIMIT 1",
        {"log": log_id},
    )
    return str(found or "")

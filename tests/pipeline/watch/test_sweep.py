"""Rules over settled sessions, on the embedded store: the same findings however often it is cut off."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import topics
from pipeline.anomaly.sites import HOUR_MS
from pipeline.clickhouse import Store
from pipeline.kafka import Admin
from pipeline.ledger import CDRS, Marker
from pipeline.settings import Settings
from pipeline.store import StoreLedger
from pipeline.watch import sweep
from pipeline.watch.ledger import WatchLedger
from pipeline.watch.places import Places
from pipeline.watch.rules import Rules
from pipeline.watch.sweep import Sweep

FIRST_HOUR = 490_000
WEEKS = 6
UTC_MS = pa.timestamp("ms", "UTC")


def ledger_with_history(settings: Settings) -> None:
    """Two sites, a session or two each hour for weeks; site B falls silent in the last week."""
    dice = np.random.default_rng(7)
    log_id = Admin(settings).log_id(topics.READINGS)
    hours = WEEKS * 168
    rows: list[dict[str, Any]] = []
    for hour in range(hours):
        for site in ("A", "B"):
            if site == "B" and hour > hours - 120:
                continue
            numbers = range(int(dice.integers(1, 3)))
            rows += [_cdr(site, hour, number, float(dice.normal(20.0, 2.0))) for number in numbers]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    for name in ("start", "end", "settled_at"):
        columns[name] = pa.array(columns[name], UTC_MS)
    with Store(settings) as store:
        store.insert(CDRS, pa.table({**columns, "log_id": pa.array([log_id] * len(rows), pa.uint64())}))
        ledger = StoreLedger(store, log_id)
        ledger.take(range(4), "test", 1)
        ledger.add_markers([_marker(p, len(rows), (FIRST_HOUR + hours) * HOUR_MS) for p in range(4)])


def _cdr(site: str, hour: int, number: int, kwh: float) -> dict[str, Any]:
    at = (FIRST_HOUR + hour) * HOUR_MS + number * 60_000
    return {
        "partition": 0, "offset": hour, "line": number + (10 if site == "B" else 0), "claim": 1,
        "charge_point_id": f"CP-{site}", "connector_id": 1, "session_key": hour * 100 + number * 10 + (site == "B"),
        "location_id": site, "id_token": "T", "energy_mwh": int(kwh * 1e6), "charging_ms": 2 * HOUR_MS,
        "revision": 1, "start": at - 2 * HOUR_MS, "end": at, "settled_at": at,
    }  # fmt: skip


def _marker(partition: int, last: int, log_time: int) -> Marker:
    counts = dict.fromkeys(
        ("control", "used", "duplicate", "quarantined", "dead_lettered", "readings", "rated", "cdrs", "alerts",
         "quarantine", "energy_mwh", "cost", "checksum", "reference_version"), 0,
    )  # fmt: skip
    return Marker(
        partition=partition, claim=1, first_offset=0, last_offset=last, records=last + 1, log_time=log_time,
        code_version="test", written_at=1, **counts,
    )  # fmt: skip


def found_by(settings: Settings, *, cut_every_round: bool) -> list[tuple[str, str, int]]:
    places, rules = Places(), Rules()
    one = Sweep(settings, rules, places)
    while one.round():
        one = Sweep(settings, rules, places) if cut_every_round else one
    with Store(settings) as store:
        return [(alert.alert_id, alert.action, alert.time_ms) for alert in WatchLedger(store).alerts()]


def test_a_silent_site_is_found_and_the_same_however_often_the_sweep_is_cut_off(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger_with_history(ready)
    whole = found_by(ready, cut_every_round=False)
    kinds = {alert_id.split("-")[0] for alert_id, _, _ in whole}
    assert {"site_silence", "site_usage_shift"} <= kinds
    assert all("-B-" in alert_id for alert_id, _, _ in whole if alert_id.startswith("site_"))
    with Store(ready) as store:
        store.command("TRUNCATE TABLE watch_state_rows")
        store.command("TRUNCATE TABLE watch_alert_rows")
    monkeypatch.setattr(sweep, "_HOURS_A_ROUND", 100)
    assert found_by(ready, cut_every_round=True) == whole


def test_nothing_is_judged_before_the_log_is_complete(ready: Settings) -> None:
    assert not Sweep(replace(ready), Rules(), Places()).round()

"""Does the drift detector find a meter that tells too little, and how often is it wrong? Real sessions, injected loss.

SAP sessions (idle seconds known), all connectors in the order of time, the peers' histogram learned on the way. The
threshold is set on every second connector (at most 1 false alarm in 1,000 sessions) and judged on the others, where
from a third, half or two thirds of its sessions on one connector tells 50, 33, 20 or 10 % too little. Beside it in the
same run: a CUSUM of standardised log kW, and a detector told change point and size of the loss. Then the Dundee file
against its labels.

Run: python -m benchmarks.anomalies SESSIONS_FOLDER [--json]
"""

import argparse
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.surroundings import surroundings
from pipeline.anomaly.backtest import by_kind, scores
from pipeline.anomaly.detectors import F64, I64, cusum
from pipeline.anomaly.sessions import SessionWatch, replayed
from pipeline.anomaly.shift import BIN, ShiftState, bin_of, forget_sums, judge, learn, log_ratio, shift_state
from pipeline.anomaly.tuning import DEFAULTS
from pipeline.commands.anomalies import read_labels, read_sessions
from rating.jit import kernel

LOSSES = (0.50, 1 / 3, 0.20, 0.10)
WITHIN = 50  # sessions after the change
AT = (1 / 3, 1 / 2, 2 / 3)  # of a connector's sessions
LEAST_SESSIONS = 150
PER_1000 = 1.0
_TUNED = DEFAULTS["under_registration"]


class Network(NamedTuple):
    """Sessions in the order of their ends: log kW and the row of the connector."""

    log_kw: F64
    rows: I64
    counts: I64  # sessions a row


class Injection(NamedTuple):
    """From its `first`-th session on connector `row` tells `shift` (log) less; row −1: nothing is injected."""

    row: int
    first: int
    shift: float


def read_network(path: Path) -> Network:
    """The sessions that tell a power."""
    sessions, _ = read_sessions(path, "sap")
    rows: dict[tuple[str, int], int] = {}
    told = []
    for session in sorted(sessions, key=lambda s: (s.end_ms or 0, s.key)):
        kwh, charging_ms = (session.energy_mwh or 0) / 1e6, session.charging_ms or 0
        if kwh >= _TUNED["least_kwh"] and charging_ms >= 300_000:
            row = rows.setdefault((session.charge_point, session.connector), len(rows))
            told.append((math.log(kwh / (charging_ms / 3_600_000)), row))
    at = np.array([row for _, row in told], np.int64)
    return Network(np.array([x for x, _ in told]), at, np.bincount(at))


@kernel
def run_shift(network: Network, state: ShiftState, inject: Injection, threshold: float, alarms: I64, at: I64) -> float:
    """Alarms a row without injection; with it the row's alarms from the change on, and the told detector's best sum.

    `alarms[row]` counts; `at` gets [sessions from the change to the first alarm, sessions to the told detector's
    best]. Returns that best sum within the horizon.
    """
    told, best, seen = 0.0, 0.0, 0
    shift = round(-inject.shift / BIN)
    for i in range(network.rows.shape[0]):
        row, x = network.rows[i], network.log_kw[i]
        changed = False
        if row == inject.row:
            seen += 1
            changed = seen > inject.first
            if seen > inject.first + WITHIN:
                return best
            if changed:
                x += inject.shift
                told += log_ratio(state, row, 0, bin_of(x), shift, 15.0, 6.0)
                best = max(best, told)
        statistic = judge(state, row, 0, x, 15.0, 2.0, 20)
        learn(state, row, 0, x)
        if statistic > threshold:
            forget_sums(state, row)
            if row != inject.row or changed or inject.first < 0:
                alarms[row] += 1
            if changed and at[0] == 0:
                at[0] = seen - inject.first
    return best


@kernel
def run_cusum(
    network: Network, moments: F64, sums: F64, inject: Injection, threshold: float, alarms: I64, at: I64
) -> None:
    """The same with a CUSUM of (mean − x) / sd, mean and sd running (Welford), drift ½, clipped at 3."""
    seen = 0
    for i in range(network.rows.shape[0]):
        row, x = network.rows[i], network.log_kw[i]
        changed = False
        if row == inject.row:
            seen += 1
            changed = seen > inject.first
            if seen > inject.first + WITHIN:
                return
            if changed:
                x += inject.shift
        n = moments[row, 0]
        statistic = 0.0
        if n >= 20:
            spread = math.sqrt(moments[row, 2] / (n - 1))
            statistic = cusum(sums, row, (moments[row, 1] - x) / max(spread, 0.02), 0.5, 3.0)
        moments[row, 0] = n + 1
        delta = x - moments[row, 1]
        moments[row, 1] += delta / (n + 1)
        moments[row, 2] += delta * (x - moments[row, 1])
        if statistic > threshold:
            sums[row] = 0.0
            if row != inject.row or changed or inject.first < 0:
                alarms[row] += 1
            if changed and at[0] == 0:
                at[0] = seen - inject.first


NOTHING = Injection(-1, -1, 0.0)


class Run(NamedTuple):
    """Alarms by row, sessions from the change to the first alarm (0 = none), the told detector's sum."""

    alarms: I64
    delay: int
    told: float


def run(network: Network, detector: str, threshold: float, inject: Injection = NOTHING) -> Run:
    """One pass over the whole network."""
    rows = len(network.counts)
    alarms, at, told = np.zeros(rows, np.int64), np.zeros(1, np.int64), 0.0
    if detector == "shift":
        told = run_shift(network, shift_state(rows), inject, threshold, alarms, at)
    else:
        run_cusum(network, np.zeros((rows, 3)), np.zeros(rows), inject, threshold, alarms, at)
    return Run(alarms, int(at[0]), told)


def per_1000(network: Network, alarms: I64, rows: list[int]) -> float:
    """False alarms in 1,000 sessions of these connectors."""
    return float(alarms[rows].sum() / network.counts[rows].sum() * 1000)


def threshold_of(network: Network, detector: str, rows: list[int]) -> float:
    """The lowest that keeps to the limit on these connectors and has no neighbour above it."""
    candidates = np.arange(4.0, 60.0, 1.0)
    rates = [per_1000(network, run(network, detector, float(h)).alarms, rows) for h in candidates]
    good = [i for i in range(len(candidates)) if all(rate <= PER_1000 for rate in rates[i:])]
    return float(candidates[good[0]])


def experiments(network: Network, rows: list[int], loss: float) -> list[Injection]:
    """Every connector at every change point that leaves room."""
    return [
        Injection(row, int(network.counts[row] * share), math.log(1 - loss))
        for row in rows
        for share in AT
        if int(network.counts[row] * share) + WITHIN <= network.counts[row]
    ]


def told_threshold(network: Network, rows: list[int], loss: float) -> float:
    """What the told detector may take as proof: wrong in as many of 50 sessions as 1 in 1,000 allows (5 %)."""
    sums = [told_clean(network, shift_state(len(network.counts)), one) for one in experiments(network, rows, loss)]
    return float(np.quantile(sums, 1 - PER_1000 * WITHIN / 1000))


@kernel
def told_clean(network: Network, state: ShiftState, inject: Injection) -> float:
    """The told detector's best sum where it was told of a change that never came."""
    told, best, seen = 0.0, 0.0, 0
    shift = round(-inject.shift / BIN)
    for i in range(network.rows.shape[0]):
        row, x = network.rows[i], network.log_kw[i]
        if row == inject.row:
            seen += 1
            if seen > inject.first + WITHIN:
                return best
            if seen > inject.first:
                told += log_ratio(state, row, 0, bin_of(x), shift, 15.0, 6.0)
                best = max(best, told)
        learn(state, row, 0, x)
    return best


def drift_table(network: Network) -> dict[str, Any]:
    """False alarms and detections, by loss."""
    large = [row for row in range(len(network.counts)) if network.counts[row] >= LEAST_SESSIONS]
    held_out, judged = large[::2], large[1::2]
    table: dict[str, Any] = {"sessions": len(network.rows), "connectors": {"set": len(held_out), "judged": len(judged)}}
    thresholds = {name: threshold_of(network, name, held_out) for name in ("shift", "cusum")}
    for name, threshold in thresholds.items():
        alarms = run(network, name, threshold).alarms
        rates = {"set": per_1000(network, alarms, held_out), "judged": per_1000(network, alarms, judged)}
        table[name] = {"threshold": threshold, "false_alarms_per_1000": rates}
    table["losses"] = [_loss_row(network, held_out, judged, thresholds, loss) for loss in LOSSES]
    return table


def _loss_row(
    network: Network, held_out: list[int], judged: list[int], thresholds: dict[str, float], loss: float
) -> dict[str, Any]:
    proof = told_threshold(network, held_out, loss)
    tried = experiments(network, judged, loss)
    shift = [run(network, "shift", thresholds["shift"], one) for one in tried]
    plain = [run(network, "cusum", thresholds["cusum"], one) for one in tried]
    delays = [one.delay for one in shift if one.delay]
    return {
        "loss": round(loss, 3),
        "tried": len(tried),
        "found": sum(one.delay > 0 for one in shift) / len(tried),
        "sessions_to_alarm": float(np.median(delays)) if delays else None,
        "told": sum(one.told > proof for one in shift) / len(tried),
        "cusum": sum(one.delay > 0 for one in plain) / len(tried),
    }


def dundee_table(folder: Path) -> dict[str, Any]:
    """Findings and how they compare with the labels."""
    sessions, rejected = read_sessions(folder / "dundee_2018-06_2018-09.csv", "dundee")
    findings = list(replayed(sessions, SessionWatch()))
    labels = read_labels(folder / "dundee_natural_anomalies.csv", "Charging event")
    rows = scores(findings, labels, sessions)
    return {
        "sessions": len(sessions),
        "rejected": rejected,
        "findings": dict(by_kind(findings)),
        "labels": [{**row._asdict(), "recall": row.recall, "precision": row.precision} for row in rows],
    }


def kernel_ns(network: Network) -> float:
    """ns a session of the detector, warm."""
    rows = len(network.counts)
    best = math.inf
    for _ in range(5):
        state, alarms, at = shift_state(rows), np.zeros(rows, np.int64), np.zeros(1, np.int64)
        began = time.perf_counter()
        run_shift(network, state, NOTHING, 1e9, alarms, at)
        best = min(best, time.perf_counter() - began)
    return best / len(network.rows) * 1e9


def measure(folder: Path) -> dict[str, Any]:
    """All of it, with a hash of the answers."""
    network = read_network(folder / "sap_labs_mougins.csv")
    answers = {"drift": drift_table(network), "dundee": dundee_table(folder)}
    digest = hashlib.sha256(json.dumps(answers, sort_keys=True).encode()).hexdigest()[:16]
    return {**answers, "ns_a_session": kernel_ns(network), "hash": digest, **surroundings("numba", "numpy")}


def report(found: dict[str, Any]) -> str:
    """The tables for people."""
    drift = found["drift"]
    lines = [f"SAP: {drift['sessions']:,} sessions, thresholds of {drift['connectors']['set']} connectors"]
    for name in ("shift", "cusum"):
        rates = drift[name]["false_alarms_per_1000"]
        lines.append(
            f"  {name:<6} threshold {drift[name]['threshold']:g}: false alarms per 1,000 sessions "
            f"{rates['set']:.2f} where it was set, {rates['judged']:.2f} on the others"
        )
    lines.append(f"  {'loss':>6}{'tried':>7}{'found':>8}{'sessions':>10}{'told':>8}{'found/told':>12}{'cusum':>8}")
    for row in drift["losses"]:
        share = row["found"] / row["told"] if row["told"] else math.nan
        lines.append(
            f"  {row['loss']:>6.0%}{row['tried']:>7}{row['found']:>8.1%}{row['sessions_to_alarm'] or 0:>10.0f}"
            f"{row['told']:>8.1%}{share:>12.2f}{row['cusum']:>8.1%}"
        )
    lines.append(f"Dundee: {found['dundee']['sessions']:,} sessions, {found['dundee']['findings']}")
    lines += [
        f"  {row['label']:<30} found {row['found']:>4} missed {row['missed']:>3} extra {row['extra']:>4} "
        f"recall {row['recall']:.3f} precision {row['precision']:.3f}"
        for row in found["dundee"]["labels"]
    ]
    tail = f"{found['ns_a_session']:.0f} ns a session; result {found['hash']}; {found['versions']}; {found['commit']}"
    return "\n".join([*lines, tail])


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path, help="with sap_labs_mougins.csv and the two Dundee files")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    found = measure(chosen.folder)
    print(json.dumps(found, indent=2) if chosen.json else report(found))


if __name__ == "__main__":
    main()

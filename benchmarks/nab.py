"""General-purpose detectors on the 32 real NAB series under 6,000 points: VUS-PR and µs a point. A report, no gate.

Causal, one fixed setting for all series. The setting was chosen on every second series; both halves are shown. VUS-PR
(Paparrizos et al. 2022) is the mean over buffers of 0, 25, 50, 75 and 100 points around the labelled windows. river and
stumpy are measured in the same run where they are asked for: `pip install -e '.[nab]'`; stumpy takes minutes.

Run: python -m benchmarks.nab NAB_FOLDER [--peers river,stumpy] [--json]
"""

import argparse
import csv
import hashlib
import importlib
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.surroundings import surroundings
from pipeline.anomaly.detectors import F64, I64, cusum, page_hinkley, robust_z, seasonal_z, surprise
from rating.jit import kernel

MOST_POINTS = 6000
BUFFERS = (0, 25, 50, 75, 100)
THRESHOLDS = 250
WARM_UP = 50
STUMPY_WINDOW = 50


class Series(NamedTuple):
    """One series: values, hours of the week, and 1 inside a labelled window."""

    name: str
    values: F64
    slots: I64
    labels: F64


def read_series(folder: Path) -> list[Series]:
    """The real series that are short enough and have a window."""
    windows = json.loads((folder / "labels" / "combined_windows.json").read_text())
    found = []
    for name, spans in sorted(windows.items()):
        path = folder / name
        if not spans or not name.startswith("real") or not path.exists():
            continue
        with path.open(newline="") as file:
            rows = [(datetime.fromisoformat(row[0]), float(row[1])) for row in list(csv.reader(file))[1:]]
        if len(rows) < MOST_POINTS:
            bounds = [(datetime.fromisoformat(a), datetime.fromisoformat(b)) for a, b in spans]
            labels = [float(any(a <= at <= b for a, b in bounds)) for at, _ in rows]
            slots = [at.weekday() * 24 + at.hour for at, _ in rows]
            found.append(Series(name, np.array([v for _, v in rows]), np.array(slots), np.array(labels)))
    return found


def vus_pr(labels: F64, scores: F64) -> float:
    """Volume under the precision-recall surface."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    thresholds = ranked[np.linspace(0, len(scores) - 1, THRESHOLDS).astype(int)]
    taken = np.searchsorted(-ranked, -thresholds, side="right")
    return float(np.mean([_range_ap(labels, scores, order, thresholds, taken, buffer) for buffer in BUFFERS]))


def _range_ap(labels: F64, scores: F64, order: I64, thresholds: F64, taken: I64, buffer: int) -> float:
    """Average precision with windows that fade out over `buffer` points, recall weighted by windows hit at all."""
    soft = _faded(labels, buffer)
    hits = np.cumsum(soft[order])[taken - 1]
    highest = np.array([scores[first:last].max() for first, last in _segments(soft)])
    seen = np.array([(highest >= threshold).mean() for threshold in thresholds])
    recall = np.minimum(hits / ((labels.sum() + soft.sum()) / 2), 1.0) * seen
    return float(np.sum(np.diff(np.concatenate([[0.0], recall])) * (hits / taken)))


def _faded(labels: F64, buffer: int) -> F64:
    soft = labels.copy()
    for first, last in _segments(labels) if buffer else []:
        after = np.arange(last, min(last + buffer // 2, len(labels)))
        before = np.arange(max(first - buffer // 2, 0), first)
        soft[after] += np.sqrt(1 - (after - last + 1) / buffer)
        soft[before] += np.sqrt(1 - (first - before) / buffer)
    return np.minimum(soft, 1.0)


def _segments(labels: F64) -> list[tuple[int, int]]:
    edges = np.diff(np.concatenate([[0], (labels > 0).astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


# ours, each over a whole series in one compiled loop


@kernel
def run_surprise(values: F64, scores: F64, state: F64, seen: I64) -> None:
    """A quick mean of |z| against slow statistics."""
    for i in range(values.shape[0]):
        scores[i] = surprise(state[0:1], state[1:2], state[2:3], seen, 0, values[i], 0.002, 0.02, 8.0, WARM_UP)


@kernel
def run_cusum(values: F64, scores: F64, state: F64, seen: I64) -> None:
    """Two CUSUMs of the residual against a slow mean."""
    for i in range(values.shape[0]):
        seen[0] += 1
        rate = max(0.002, 1.0 / seen[0])
        residual = values[i] - state[0]
        z = residual / (1.2533 * state[1]) if state[1] > 1e-9 and i >= WARM_UP else 0.0
        state[0] += rate * residual
        state[1] += rate * (abs(residual) - state[1])
        scores[i] = max(cusum(state[2:3], 0, z, 0.5, 4.0), cusum(state[3:4], 0, -z, 0.5, 4.0))


@kernel
def run_page_hinkley(values: F64, scores: F64, state: F64, seen: I64) -> None:
    """Page-Hinkley upwards, on values in units of a slow mean deviation."""
    counts = seen[1:2]
    for i in range(values.shape[0]):
        seen[0] += 1
        rate = max(0.002, 1.0 / seen[0])
        residual = values[i] - state[0]
        scale = 1.2533 * state[1]
        state[0] += rate * residual
        state[1] += rate * (abs(residual) - state[1])
        z = residual / scale if scale > 1e-9 and i >= WARM_UP else 0.0
        scores[i] = page_hinkley(counts, state[2:3], state[3:4], state[4:5], 0, z, 0.1)


@kernel
def run_robust(values: F64, scores: F64, window: F64, filled: I64, scratch: F64) -> None:
    """|z| by median and MAD of the last 64."""
    for i in range(values.shape[0]):
        scores[i] = abs(robust_z(window, filled, scratch, 0, values[i], 20, 1e-6))


@kernel
def run_seasonal(values: F64, slots: I64, scores: F64, levels: F64, spreads: F64, seen: I64) -> None:
    """|residual| against the hour of the week."""
    for i in range(values.shape[0]):
        scores[i] = abs(seasonal_z(levels, spreads, seen, 0, slots[i], values[i], 0.15, 1e-6))


def _plain(loop: Callable[[F64, F64, F64, I64], None]) -> Callable[[Series], F64]:
    def run(series: Series) -> F64:
        scores = np.zeros(len(series.values))
        loop(series.values, scores, np.zeros(8), np.zeros(2, np.int64))
        return scores

    return run


def _robust(series: Series) -> F64:
    scores = np.zeros(len(series.values))
    run_robust(series.values, scores, np.zeros((1, 64)), np.zeros(1, np.int64), np.zeros(64))
    return scores


def _seasonal(series: Series) -> F64:
    scores = np.zeros(len(series.values))
    run_seasonal(series.values, series.slots, scores, np.zeros((1, 168)), np.zeros(1), np.zeros((1, 169), np.int64))
    return scores


OURS: dict[str, Callable[[Series], F64]] = {
    "surprise": _plain(run_surprise),
    "cusum": _plain(run_cusum),
    "page_hinkley": _plain(run_page_hinkley),
    "robust_z": _robust,
    "seasonal_z": _seasonal,
}


def _river(series: Series) -> F64:
    anomaly, preprocessing = importlib.import_module("river.anomaly"), importlib.import_module("river.preprocessing")
    scaler, trees = preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=1)
    scores = np.zeros(len(series.values))
    for i, value in enumerate(series.values.tolist()):
        scaler.learn_one({"x": value})
        scaled = scaler.transform_one({"x": value})
        scores[i] = trees.score_one(scaled)
        trees.learn_one(scaled)
    return scores


def _stumpy(series: Series) -> F64:
    stumpy = importlib.import_module("stumpy")
    first = 2 * STUMPY_WINDOW
    profile = stumpy.stumpi(series.values[:first], m=STUMPY_WINDOW, egress=False)
    scores = np.zeros(len(series.values))
    for i in range(first, len(series.values)):
        profile.update(series.values[i])
        scores[i] = profile.left_P_[-1] if np.isfinite(profile.left_P_[-1]) else 0.0
    return scores


PEERS: dict[str, Callable[[Series], F64]] = {"river": _river, "stumpy": _stumpy}


def measure(folder: Path, peers: list[str]) -> dict[str, Any]:
    """Every detector on every series."""
    series = read_series(folder)
    points = sum(len(one.values) for one in series)
    rows: dict[str, Any] = {}
    for name, detector in {**OURS, **{name: PEERS[name] for name in peers}}.items():
        detector(series[0])  # compiled, imported
        began = time.process_time()
        scores = [detector(one) for one in series]
        spent = time.process_time() - began
        found = [vus_pr(one.labels, score) for one, score in zip(series, scores, strict=True)]
        rows[name] = {
            "vus_pr": float(np.mean(found)),
            "chosen_on": float(np.mean(found[::2])),
            "others": float(np.mean(found[1::2])),
            "us_a_point": spent / points * 1e6,
        }
    answers = {name: round(row["vus_pr"], 6) for name, row in rows.items()}
    digest = hashlib.sha256(json.dumps(answers, sort_keys=True).encode()).hexdigest()[:16]
    where = surroundings("numba", "numpy", *peers)
    return {"series": len(series), "points": points, "detectors": rows, "hash": digest, **where}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--peers", default="", help="river,stumpy: pip install them first")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    found = measure(chosen.folder, [name for name in chosen.peers.split(",") if name])
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['series']} series, {found['points']:,} points; result {found['hash']}")
    print(f"{found['machine']}, {found['cores']} cores; {found['versions']}; {found['commit']}")
    print(f"{'detector':<14}{'VUS-PR':>8}{'chosen on':>11}{'others':>8}{'µs/point':>10}")
    for name, row in sorted(found["detectors"].items(), key=lambda item: -item[1]["vus_pr"]):
        print(
            f"{name:<14}{row['vus_pr']:>8.3f}{row['chosen_on']:>11.3f}{row['others']:>8.3f}{row['us_a_point']:>10.2f}"
        )


if __name__ == "__main__":
    main()

"""Is every session of a lying fleet billed what flowed, or held? A seeded fleet with every fault, against its truth.

The simulator's messages go through the worker's own engine, chunk by chunk, with a ledger in memory that forgets what
no later message may ask for. At the end each true session is billed right, held, or wrong in silence, by fault; control
totals are summed over all of it; and each kind of alert is held against what the faults should raise.

Run: python -m benchmarks.truth [--charge-points 8000] [--days 30] [--fault-rate 0.01] [--seed 1] [--json] [--keep DIR]
"""

import argparse
import hashlib
import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.surroundings import surroundings
from benchmarks.truth_alerts import Confusion, confusion
from benchmarks.truth_ledger import RollingLedger
from benchmarks.truth_tokens import KIND as TOKEN_KIND
from benchmarks.truth_tokens import TokenRule
from benchmarks.truth_totals import Totals
from pipeline.simulate.faults import FAULTS
from pipeline.simulate.fleet import Fleet, FleetPlan
from tests.pipeline.rate.drive import Drive, Record, chunk_log, fleet_changes, lead

PACKAGES: Final = ("numba", "numpy", "pyarrow", "msgspec")
PARTITIONS: Final = 4
DAY_MS: Final = 86_400_000
# A hold that reached its limit was settled by a CDR that names what it leaves out: held, not silent.
VERDICTS: Final = ("billed right", "held", "held though billable", "wrong in silence")


def plan_of(charge_points: int, days: float, rate: float, seed: int, sample_s: int, sessions: float) -> FleetPlan:
    """A fleet with every fault at one rate: of sessions, or of charge points for the faults that stay with one."""
    return FleetPlan(
        seed=seed, charge_points=charge_points, hours=24 * days, faults=dict.fromkeys(FAULTS, rate),
        partitions=PARTITIONS, sample_ms=1000 * sample_s, sessions_per_day=sessions, tick_ms=900_000,
    )  # fmt: skip


class Run:
    """One fleet on its way through the engine."""

    def __init__(self, plan: FleetPlan, progress: bool) -> None:
        """Nothing sent yet."""
        self.fleet = Fleet(plan)
        self.ledger = RollingLedger()
        self.totals = Totals()
        self.tokens = TokenRule(self.ledger)
        self.drive = Drive(fleet_changes(self.fleet), PARTITIONS, ledger=self.ledger)
        self.truth: list[pa.Table] = []
        self.messages = self.readings = 0
        self._progress = progress
        self._places: dict[bytes, int] = {}

    def go(self) -> pa.Table:
        """Send everything; returns the truth."""
        self._take(lead(self.fleet))
        forget_ms = self.fleet.plan.start_ms + DAY_MS
        for chunk in self.fleet.chunks():
            self.truth.append(chunk.truth)
            self.readings += chunk.readings
            self._take(chunk_log(chunk, PARTITIONS, self._places))
            if chunk.until_ms >= forget_ms:
                self.ledger.forget(chunk.until_ms - 4 * DAY_MS, self._waiting())
                forget_ms += DAY_MS
                self._say(chunk.until_ms)
        return pa.concat_tables(self.truth)

    def _take(self, log: dict[int, list[Record]]) -> None:
        self.messages += sum(map(len, log.values()))
        batch = self.drive.take(log)
        self.totals.add(batch, self.drive.engine)
        self.tokens.take(batch, self.drive.engine)

    def _waiting(self) -> set[int]:
        """Sessions that a later message, tick or person may still ask for."""
        connectors = self.drive.engine.directory.state.connectors
        waiting = set(connectors["session_key"][connectors["open"] == 1].tolist())
        for state in self.drive.engine.partitions.values():
            waiting |= state.held.keys() | state.apart.keys()
        return waiting

    def _say(self, until_ms: int) -> None:
        if self._progress:
            day = (until_ms - self.fleet.plan.start_ms) // DAY_MS
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            print(f"day {day}: {self.messages:,} records, {memory:,} MB", file=sys.stderr, flush=True)


def judged(ledger: RollingLedger, truth: pa.Table, held: dict[int, str]) -> list[tuple[dict[str, Any], list[int], str]]:
    """Each true session, the sessions that metering made of it, and what became of it: one of VERDICTS."""
    found = []
    for session, keys in ledger.matched(truth.to_pylist()):
        if any(key in held or ledger.holds.get(key) == "expired" for key in keys):
            verdict = "held" if session["outcome"] != "billed" else "held though billable"
        else:
            right = session["outcome"] != "held" and ledger.billed_mwh(keys) == session["expected_mwh"]
            verdict = "billed right" if right else "wrong in silence"
        found.append((session, keys, verdict))
    return found


def result_hash(judgements: list[tuple[dict[str, Any], list[int], str]], ledger: RollingLedger) -> str:
    """Of every session's fate and energy; the same on every machine."""
    digest = hashlib.sha256()
    for session, keys, verdict in judgements:
        digest.update(f"{session['session']} {verdict} {ledger.billed_mwh(keys)}\n".encode())
    return digest.hexdigest()[:16]


def run(plan: FleetPlan, keep: Path | None = None, progress: bool = False) -> dict[str, Any]:
    """The whole comparison as one report."""
    started = time.process_time()
    one = Run(plan, progress)
    truth = one.go()
    held = {k: h.reason for state in one.drive.engine.partitions.values() for k, h in state.held.items()}
    judgements = judged(one.ledger, truth, held)
    table: dict[str, Counter[str]] = {name: Counter() for name in ("", *FAULTS)}
    for session, _, verdict in judgements:
        table[session["fault"]][verdict] += 1
    matched = [(session, keys) for session, keys, _ in judgements]
    for key in one.tokens.told(matched):
        one.ledger.kinds[key].add(TOKEN_KIND)
    kinds = confusion(one.ledger, matched)
    if keep is not None:
        _keep(keep, truth, one.ledger, judgements)
    wrong = [(s, keys, verdict) for s, keys, verdict in judgements if verdict in VERDICTS[2:]]
    return {
        **surroundings(*PACKAGES),
        "connectors": one.fleet.network.connectors, "sessions": len(judgements), "records": one.messages,
        "readings": one.readings, "billed_mwh": one.ledger.total_mwh(),
        "faults": {name: dict(counts) for name, counts in table.items()},
        "alerts": {kind: found._asdict() for kind, found in kinds.items()},
        "control_totals": one.totals.report(one.ledger, held),
        "expired": sum(action == "expired" for action in one.ledger.holds.values()),
        "wrong": [_wrong(one.ledger, *each, held) for each in wrong[:50]],
        "cpu_s": round(time.process_time() - started), "result_hash": result_hash(judgements, one.ledger),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }  # fmt: skip


def _wrong(
    ledger: RollingLedger, session: dict[str, Any], keys: list[int], verdict: str, held: dict[int, str]
) -> dict[str, Any]:
    names = ("session", "charge_point_id", "connector_id", "transaction_id", "shape", "start_ms", "stop_ms", "fault",
             "outcome", "true_mwh", "expected_mwh")  # fmt: skip
    return {
        **{name: session[name] for name in names}, "verdict": verdict, "billed_mwh": ledger.billed_mwh(keys),
        "keys": [f"{key:016x}" for key in keys], "held": [held[key] for key in keys if key in held],
    }  # fmt: skip


def _keep(folder: Path, truth: pa.Table, ledger: RollingLedger, judgements: list[Any]) -> None:
    """Truth with its verdicts, and alerts, as Parquet, to be looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = pa.array([verdict for _, _, verdict in judgements])
    keys = pa.array([[f"{key:016x}" for key in keys] for _, keys, _ in judgements])
    pq.write_table(truth.append_column("verdict", verdicts).append_column("keys", keys), folder / "truth.parquet")
    pq.write_table(pa.Table.from_pylist(ledger.alert_rows()), folder / "alerts.parquet")


def show(report: dict[str, Any]) -> None:
    """Tables for people."""
    print(f"{'fault':28}{'injected':>10}" + "".join(f"{name:>22}" for name in VERDICTS))
    for name, counts in report["faults"].items():
        total = sum(counts.values())
        print(f"{name or '(none)':28}{total:10,}" + "".join(f"{counts.get(v, 0):22,}" for v in VERDICTS))
    print(f"\n{'alert':28}{'expected':>10}{'raised':>10}{'missing':>10}{'unasked':>10}{'precision':>11}{'recall':>8}")
    for kind, found in report["alerts"].items():
        one = Confusion(**found)
        print(
            f"{kind:28}{one.expected:10,}{one.raised:10,}{one.missing:10,}{one.unasked:10,}"
            f"{one.precision:11.4f}{one.recall:8.4f}"
        )
    for name, total in report["control_totals"].items():
        print(f"{name}: {total}")
    for name in ("machine", "commit", "connectors", "sessions", "records", "readings", "expired", "cpu_s", "peak_mb"):
        print(f"{name}: {report[name]}")
    print(f"result hash {report['result_hash']}")


def main() -> None:
    """Prints the tables, or JSON; the exit code is 1 where anything is wrong in silence or a total does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--charge-points", type=int, default=8_000)
    parser.add_argument("--days", type=float, default=30)
    parser.add_argument("--fault-rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample-seconds", type=int, default=300)
    parser.add_argument("--sessions-per-day", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for truth.parquet and alerts.parquet")
    given = parser.parse_args()
    plan = plan_of(
        given.charge_points, given.days, given.fault_rate, given.seed, given.sample_seconds, given.sessions_per_day
    )
    report = run(plan, given.keep, progress=True)
    if given.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)
        for one in report["wrong"]:
            print(json.dumps(one))
    silent = sum(counts.get(VERDICTS[-1], 0) for counts in report["faults"].values())
    sys.exit(bool(silent or not report["control_totals"]["exact"]))


if __name__ == "__main__":
    main()

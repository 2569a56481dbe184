"""What do the anomaly rules of the hot path cost a reading, and how soon after its reading is an alert on the topic?

Cost: the compiled metering pass with its rules and a twin compiled without them, in turns, over the same readings
(register and power, every charge point charging); both must bill the same to the last cost unit. Latency: see
`benchmarks.alert_latency`. Recall and precision by kind: `benchmarks.truth`.

Run: python -m benchmarks.rules [--points 10000] [--rounds 200] [--turns 3] [--json]
"""

import argparse
import json
import subprocess
import sys
from typing import Any, Final

from benchmarks.surroundings import show, surroundings

RUNS: Final = 3
TARGET_NS: Final = 30.0


def measured(how: str, points: int, rounds: int) -> dict[str, Any]:
    """One turn: `with` or `without` the rules, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.rules_process", how, str(points), str(rounds), str(RUNS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(points: int, rounds: int, turns: int) -> dict[str, Any]:
    """Both, in turns; the difference of their best."""
    found: dict[str, list[dict[str, Any]]] = {"with": [], "without": []}
    for _ in range(turns):
        for how, told in found.items():
            told.append(measured(how, points, rounds))
    hashes = {one["billed"] for told in found.values() for one in told}
    assert len(hashes) == 1, f"with and without rules other sums are billed: {hashes}"
    best = {how: min(one["ns_a_reading"] for one in told) for how, told in found.items()}
    return {
        "readings": points * (rounds + 2),
        "connectors": points,
        "turns": turns,
        "pass_with_rules_ns": round(best["with"], 1),
        "pass_without_rules_ns": round(best["without"], 1),
        "rules_ns": round(best["with"] - best["without"], 1),
        "target_ns": TARGET_NS,
        "every_run": {how: [round(ns, 1) for one in told for ns in one["runs"]] for how, told in found.items()},
        "result_hash": hashes.pop(),
        **surroundings("numba", "numpy", "pyarrow"),
    }


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--points", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    show(run(chosen.points, chosen.rounds, chosen.turns), as_json=chosen.json)


if __name__ == "__main__":
    main()

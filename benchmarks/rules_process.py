"""The compiled metering pass alone, with its anomaly rules or without: a process of its own, since it compiles once.

Started by `benchmarks.rules`: `python -m benchmarks.rules_process with|without POINTS ROUNDS RUNS`. Without, the rules
are replaced by functions that do nothing before anything is compiled; what sessions and time-outs need stays. Prints
JSON: ns a reading of the pass, best of the runs, and the hash of what was billed.
"""

import json
import sys
import time
from typing import Any

from pipeline.metering import rules
from pipeline.metering.output import Record
from pipeline.metering.run import Desk
from rating.jit import inlined


@inlined
def _after_interval(desk: Desk, cause: int, connector: int, start_ms: int, end_ms: int, energy_mwh: int) -> None:
    return


@inlined
def _interval(desk: Desk, cause: int, connector: int, start_ms: int, end_ms: int) -> None:
    return


@inlined
def _on_close(desk: Desk, cause: int, connector: int, end_ms: int) -> None:
    return


@inlined
def _sample(desk: Desk, cause: int, connector: int, sample: Record) -> None:
    return


@inlined
def _heard(desk: Desk, cause: int, connector: int, sample: Record) -> None:
    desk.connectors[connector].heard_ms = max(desk.connectors[connector].heard_ms, sample.received_ms)


@inlined
def _outside(desk: Desk, cause: int, connector: int, energy_mwh: int, time_ms: int) -> None:
    return


def leave_out_rules() -> None:
    """Before `pipeline.metering.meter` is imported: the pass is compiled as if there were no rules."""
    assert "pipeline.metering.meter" not in sys.modules, "too late: the pass may be compiled already"
    replaced: dict[str, Any] = {
        "after_interval": _after_interval, "parked": _interval, "on_close": _on_close, "phases": _sample,
        "heard": _heard, "outside": _outside,
    }  # fmt: skip
    for name, nothing in replaced.items():
        assert hasattr(rules, name)
        setattr(rules, name, nothing)


class Stopwatch:
    """The compiled pass with a clock around it: CPU time of this thread."""

    def __init__(self, meter: Any) -> None:
        self._meter, self.spent_ns = meter, 0

    def __call__(self, *arguments: Any) -> Any:
        """As `pipeline.metering.meter.meter`."""
        began = time.thread_time_ns()
        answer = self._meter(*arguments)
        self.spent_ns += time.thread_time_ns() - began
        return answer


def measured(points: int, rounds: int, runs: int) -> dict[str, Any]:
    """The pass over Arrow readings of charge points that all charge, in batches of a million."""
    from benchmarks.metering import Log, arrow_values, network, one_run, starts, stops
    from pipeline.rate import segment

    data, log = network(points), Log()
    before = [log.reference(), *log.json(starts(points), 20_000)]
    timed = log.arrow(arrow_values(points, rounds, 10_000), 100)
    after = log.json(stops(points, rounds), 20_000)
    watch = Stopwatch(vars(segment)["meter"])
    vars(segment)["meter"] = watch  # called the same way
    spent, billed, alerts = [], "", 0
    for _ in range(runs + 1):
        watch.spent_ns = 0
        _, found = one_run(before, timed, after, data)
        spent.append(watch.spent_ns / (points * (rounds + 2)))
        billed = found.checked(points, rounds)
        alerts = found.alerts
    return {"ns_a_reading": min(spent[1:]), "runs": spent[1:], "billed": billed, "alerts": alerts}


def main() -> None:
    """Measure one of the two."""
    how, points, rounds, runs = sys.argv[1:]
    if how == "without":
        leave_out_rules()
    print(json.dumps(measured(int(points), int(rounds), int(runs))))


if __name__ == "__main__":
    main()

"""How much work does a reading cost, in things that can be counted? The gate against slow creep: no clock is asked.

    python -m benchmarks.counted [--json] [--check] [--record]

Calls of Python and C functions in a batch (sys.setprofile), the peak of what is allocated (tracemalloc), bytes that
go to the store, statements and rows read back in a batch's commit (a real worker on the embedded parts), each for one
fixed batch of periodic readings. `--check` holds them against the recorded budget, `tests/benchmarks/budget.json`,
and fails above it; `--record` writes a new budget, for a change that is worth it: say why in the commit.
"""

import argparse
import json
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import numpy as np
import pyarrow as pa

from benchmarks.stand import stand
from benchmarks.surroundings import show, surroundings
from benchmarks.workload import Workload, batches, documents, publish_reference, send
from pipeline.clickhouse import Store, arrow_stream
from pipeline.codec.control import Reference, encode_control
from pipeline.codec.records import Records
from pipeline.rate.engine import Engine
from pipeline.rate.past import NoPast
from pipeline.rate.tables import tables_of
from pipeline.rate.worker import Worker
from pipeline.reference import Change, ReferenceData

BUDGET: Final = Path(__file__).parents[1] / "tests" / "benchmarks" / "budget.json"
SLACK: Final = 1.1  # above its budget by a tenth a count fails
FLAT: Final = Workload(connectors=500, sweeps=21, minutes=1_000, partitions=1)
_COMMITTED: Final = Workload(connectors=500, sweeps=20, minutes=1_000, partitions=2)
_BATCH: Final = 2_000
_TABLE: Final = "reading_rows"


def run() -> dict[str, Any]:
    """All counts; the first batch, of starts, is not counted, nor is the second, which fills caches."""
    found: dict[str, Any] = {"question": "counted", "counts": {}}
    for shape in ("flat", "ocpp16", "ocpp201"):
        found["counts"] |= {f"{shape}.{name}": value for name, value in _of_a_batch(shape).items()}
    found["counts"] |= _of_a_commit()
    return {**found, **surroundings("numpy", "pyarrow", "numba")}


def _of_a_batch(shape: str) -> dict[str, float]:
    """What rating a batch of 10,000 readings takes, from records to Arrow tables."""
    workload = Workload(**{**vars(FLAT), "shape": shape})
    engine = engine_of(workload)
    first, second, third, fourth = records_of(workload, (1, 20, 20, 20))
    for records in (first, second):
        rated(engine, records)
    calls, tables = _calls(lambda: rated(engine, third))
    readings = tables[_TABLE].num_rows
    tracemalloc.start()
    rated(engine, fourth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(len(arrow_stream(table)) for table in tables.values())
    return {
        "calls_per_batch": calls,
        "peak_bytes_per_reading": round(peak / readings, 1),
        "inserted_bytes_per_reading": round(size / readings, 1),
        "rows_per_reading": round(sum(table.num_rows for table in tables.values()) / readings, 3),
    }


def engine_of(workload: Workload) -> Engine:
    """An engine that knows the workload's fleet, and nobody's past."""
    changes = [Change(1, one.kind, one.id, False, one.body) for one in documents(workload)]
    data = ReferenceData.loaded(1, changes)
    return Engine(1, NoPast(), lambda _data, _version: data)


def records_of(workload: Workload, sweeps: tuple[int, ...]) -> list[Records]:
    """One Records a number of sweeps, in log order; the first begins with the reference data."""
    longer = Workload(**{**vars(workload), "sweeps": sum(sweeps)})
    found: list[Records] = []
    first = offset = 0
    for count in sweeps:
        (made, _), *_ = batches(longer, first, first + count)
        keys, values = list(made.keys), list(made.values)
        if not found:
            keys.insert(0, None)
            values.insert(0, encode_control(Reference(1)))
        times = np.full(len(values), 1_767_625_200_000)
        found.append(Records(values, keys, np.arange(offset, offset + len(values)), None, times))
        first, offset = first + count, offset + len(values)
    return found


def rated(engine: Engine, records: Records) -> dict[str, pa.Table]:
    """The tables that a worker inserts for these records."""
    return tables_of(engine.process({0: records}), engine.directory, engine.sheets, 1, {0: 1})


def _calls(work: Callable[[], dict[str, pa.Table]]) -> tuple[int, dict[str, pa.Table]]:
    """Calls of Python functions and of C functions from Python."""
    count = 0

    def note(_frame: FrameType, event: str, _arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        tables = work()
    finally:
        sys.setprofile(None)
    return count, tables


def _of_a_commit() -> dict[str, float]:
    """Statements and rows read back a batch, by the worker's commit thread."""
    with stand(_COMMITTED.partitions, batch_records=_BATCH, batch_wait_s=5.0) as one:
        publish_reference(one.settings, _COMMITTED)
        send(one.settings, _COMMITTED)
        with _counted_statements() as seen:
            progress = Worker.connect(one.settings, wait=lambda: False).run(drain_s=0.5)
    assert progress.readings == _COMMITTED.readings, f"{progress.readings} readings rated"
    return {
        "commit.statements_per_batch": round(seen["statements"] / progress.batches, 2),
        "commit.rows_read_back_per_batch": round(seen["rows"] / progress.batches, 2),
    }


@contextmanager
def _counted_statements() -> Iterator[dict[str, int]]:
    """Counts what threads other than this one ask of the store, but for reference data, which is read beside it."""
    seen = {"statements": 0, "rows": 0}
    here = threading.get_ident()
    methods = {name: getattr(Store, name) for name in ("rows", "arrow", "insert", "command")}

    def counting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            result = method(*given, **named)
            if threading.get_ident() != here and "reference_rows" not in str(given[1]):
                seen["statements"] += 1 if name != "insert" or result else 0  # no rows: nothing is sent
                seen["rows"] += len(result) if name in ("rows", "arrow") else 0
            return result

        return call

    for name, method in methods.items():
        setattr(Store, name, counting(name, method))
    try:
        yield seen
    finally:
        for name, method in methods.items():
            setattr(Store, name, method)


def above(counts: dict[str, float], budget: dict[str, float]) -> list[str]:
    """What is above its budget, in words."""
    return [
        f"{name}: {counts[name]:,} where {allowed:,} is the budget"
        for name, allowed in budget.items()
        if counts[name] > allowed * SLACK
    ]


def budget() -> dict[str, float]:
    """The recorded budget."""
    found: dict[str, float] = json.loads(BUDGET.read_text("utf-8"))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = run()
    show(found, as_json=given.json)
    if given.record:
        BUDGET.write_text(json.dumps(found["counts"], indent=2) + "\n", "utf-8")
    elif given.check and (over := above(found["counts"], budget())):
        raise SystemExit("more work than budgeted:\n" + "\n".join(over))


if __name__ == "__main__":
    main()

"""What a user might run instead, on the same topic: the client alone, the store alone, Faust, pandas, plain Python.

Each gives its readings (or rows) a second, its CPU, and where it rates, the cost of every transaction: those must be
equal to the worker's to the cost unit.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from benchmarks import pandas_job
from benchmarks.plain_meter import TABLE, Meter
from benchmarks.stand import settings_text
from benchmarks.workload import Workload
from pipeline.clickhouse import Store
from pipeline.kafka import Admin, Message, Reader
from pipeline.settings import Settings
from pipeline.topics import CONTROL_PREFIX, READINGS

FAUST_TABLE: Final = "faust_rows"
_CONSUME: Final = 10_000
_ROUNDS: Final = 3
_SHORT: Final = 5_000_000  # records of a topic
_INSERT_ROWS: Final = 50_000
_FAUST_TIMEOUT_S: Final = 900.0


class Run(NamedTuple):
    """So many readings or rows, in how long, with how much CPU of its own process."""

    times: int
    seconds: float
    cpu_s: float
    costs: dict[str, int] | None = None

    @property
    def per_s(self) -> float:
        """Readings or rows a second."""
        return self.times / max(self.seconds, 1e-9)


def consume_and_discard(settings: Settings, records: int) -> Run:
    """The ceiling of the Kafka client: records of the topic, consumed and dropped; of a short topic the best round."""
    rounds = _ROUNDS if records < _SHORT else 1
    return max((_consume(settings, None) for _ in range(rounds)), key=lambda run: run.per_s)


def messages(settings: Settings) -> list[bytes]:
    """All values of the topic but control records, by partition in their order."""
    kept: list[Message] = []
    _consume(settings, kept)
    values = [(message.partition(), message.value() or b"") for message in kept]
    values.sort(key=lambda one: one[0] or 0)  # stable: the order within a partition stays
    return [value for _, value in values if not value.startswith(CONTROL_PREFIX)]


def _consume(settings: Settings, kept: list[Message] | None) -> Run:
    """From the first answer on, as a worker is measured from its first batch on: connecting is nobody's rate."""
    ends = {p: end for p, end in Admin(settings).end_offsets(READINGS, {}).items() if end}
    first, seen, total = 0, 0, sum(ends.values())
    with Reader(settings, READINGS) as reader:
        reader.assign(dict.fromkeys(ends, 0))
        while seen < total:
            found = reader.consume(min(_CONSUME, -(-total // 10)), 1.0)
            seen += len(found)
            if kept is not None:
                kept += found
            if not first and found:
                first, began, cpu = len(found), time.perf_counter(), time.process_time()
        return Run(seen - first, time.perf_counter() - began, time.process_time() - cpu)


class Inserts(NamedTuple):
    """What the store alone takes for the worker's rows."""

    rows: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Rows a second."""
        return self.rows / max(self.seconds, 1e-9)


def raw_inserts(
    store: Store,
    tables: tuple[str, ...] = ("reading_rows", "rated_usage_rows", "cdr_rows"),
    most: int = 500_000,
    at_once: int = _INSERT_ROWS,
) -> Inserts:
    """The ceiling of the store: the worker's rows into empty tables of the same form, `at_once` of them.

    Of each table no more than `most` are inserted; what the rest would take is reckoned from them.
    """
    every, whole_s = 0, 0.0
    for table in tables:
        store.command(f"CREATE TABLE again_{table} AS {table}")
        rows = int(store.scalar(f"SELECT count() FROM {table}"))
        taken = store.arrow(f"SELECT * FROM {table} LIMIT {most}")
        began = time.perf_counter()
        for at in range(0, taken.num_rows, at_once):
            store.insert(f"again_{table}", taken.slice(at, at_once))
        whole_s += (time.perf_counter() - began) * rows / max(1, taken.num_rows)
        every += rows
        store.command(f"DROP TABLE again_{table}")
    return Inserts(every, whole_s)


def by_faust(settings: Settings, store: Store, workload: Workload) -> Run:
    """The Faust agent in a process of its own, from its first event to its last insert."""
    store.command(TABLE.format(name=FAUST_TABLE))
    given = "\n".join((settings_text(settings), json.dumps(asdict(workload)), FAUST_TABLE, ""))
    command = [sys.executable, "-m", "benchmarks.faust_agent"]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_FAUST_TIMEOUT_S, check=False)
    told = [line for line in done.stdout.splitlines() if '{"readings"' in line]
    if not told:
        raise SystemExit(f"the Faust agent ended without a report: {done.stderr[-2000:]}")
    found = json.loads(told[-1][told[-1].index("{") :])
    rows = store.rows(f"SELECT transaction_id AS name, sum(cost) AS cost FROM {FAUST_TABLE} GROUP BY name")
    return Run(found["readings"], found["seconds"], found["cpu_s"], {row["name"]: row["cost"] for row in rows})


def by_pandas(values: list[bytes], workload: Workload) -> Run:
    """Decode, sort, rate; nothing is inserted."""
    began, cpu = time.perf_counter(), time.process_time()
    costs = pandas_job.rate(values, workload)
    return Run(len(values), time.perf_counter() - began, time.process_time() - cpu, costs)


def by_plain_python(values: list[bytes], workload: Workload) -> Run:
    """Decode, meter and rate one by one; nothing is inserted."""
    meter = Meter(workload)
    began, cpu = time.perf_counter(), time.process_time()
    for value in values:
        meter.read(value)
    return Run(len(values), time.perf_counter() - began, time.process_time() - cpu, dict(meter.costs))


def by_worker(store: Store, log_id: int) -> dict[str, int]:
    """What the worker's rated rows cost by transaction, without what settlement added."""
    rows = store.rows(
        "SELECT c.transaction AS name, sum(r.cost) AS cost FROM rated_usage AS r INNER JOIN "
        "(SELECT charge_point_id, session_key, any(transaction_id) AS transaction FROM cdrs "
        "WHERE log_id = {log:UInt64} GROUP BY charge_point_id, session_key) AS c "
        "ON c.charge_point_id = r.charge_point_id AND c.session_key = r.session_key "
        "WHERE r.log_id = {log:UInt64} AND r.dimension <= 'FLAT' GROUP BY name",
        {"log": log_id},
    )
    return {row["name"]: row["cost"] for row in rows}


def check_equal(theirs: dict[str, int], ours: dict[str, int], who: str) -> None:
    """Raise where a transaction costs something else."""
    differ = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    shown: list[Any] = [(name, theirs.get(name), ours.get(name)) for name in sorted(differ)[:3]]
    assert not differ, f"{who}: {len(differ)} of {len(ours)} transactions cost something else: {shown}"

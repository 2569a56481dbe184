"""Kafka to queryable rated rows, exactly-once on, beside everything a user might run instead: in one run, on one topic.

    python -m benchmarks.end_to_end [--shape flat|ocpp16|ocpp201|arrow] [--connectors N] [--readings N] [--tariff mixed]
                                    [--session-readings N] [--faulty] [--kafka] [--beside faust,pandas,python] [--json]
                                    [--batch-records N] [--batch-bytes N]

In turn: a loop that consumes and discards; the rating worker, from its first batch to its last marker; an insert of
the worker's rows into empty tables; and on flat JSON without faults those named by --beside. Control totals, sessions
and energy are held against the workload's truth, the others' costs against the worker's, transaction by transaction.
Broker, store and worker share the machine; CPU is that of each process.
"""

import argparse
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from benchmarks import competitors, pandas_job
from benchmarks.stand import PACKAGES, Stand, rate, readings_per_s, stand
from benchmarks.surroundings import show, surroundings
from benchmarks.workload import (
    SESSION_READINGS,
    Sent,
    Workload,
    described,
    energies_mwh,
    publish_reference,
    send,
    whole_sessions,
)
from pipeline.clickhouse import Store
from pipeline.read.summary import summarise
from pipeline.settings import Settings

BESIDE: Final = ("faust", "pandas", "python")
_LOOK_S: Final = 2.0
_EVENTS: Final = ("InsertedRows", "MergedRows")  # the store's own counters
_PARTS: Final = (
    "FROM system.parts WHERE active AND database = currentDatabase() "
    "AND table IN ('reading_rows', 'rated_usage_rows', 'cdr_rows', 'marker_rows', 'published_rows')"
)


def checked(store: Store, log_id: int, workload: Workload) -> dict[str, Any]:
    """The result's hash; raises where a total differs from the truth."""
    found = summarise(store, log_id)
    names = "charge_point_id, start, cdr_id, energy_mwh, total_incl_e4"
    cdrs = store.arrow(f"SELECT {names} FROM cdrs WHERE log_id = {log_id} ORDER BY charge_point_id, start, cdr_id")
    energy = pc.sum(cdrs.column("energy_mwh")).as_py() or 0
    truth = int(energies_mwh(workload).sum()) * (workload.sweeps // workload.minutes)
    assert found.adds_up, f"control totals do not add up: {found.counts}"
    assert cdrs.num_rows == workload.sessions, f"{cdrs.num_rows} CDRs for {workload.sessions} sessions"
    assert energy == truth, f"{energy} mWh billed, {truth} flowed"
    digest = hashlib.sha256("\n".join(map(str, cdrs.to_pylist())).encode()).hexdigest()[:16]
    return {"result_hash": digest, "cdrs": cdrs.num_rows, "energy_kwh": energy / 1e6, "outcomes": found.counts}


def worker_figures(one: Stand, sent: Sent) -> dict[str, Any]:
    """The worker over the whole topic, and what it, broker and store used."""
    before, merging_s, counted = one.cpu_s(), one.merging_s(), store_events(one.settings)
    with watched_parts(one.settings) as parts:
        found = rate(one.settings)
    used = {name: seconds - before[name] for name, seconds in one.cpu_s().items()} | {"worker": found["cpu_s"]}
    merging_s = one.merging_s() - merging_s
    events = {name: value - counted[name] for name, value in store_events(one.settings).items()}
    per_s = readings_per_s(found)
    return {
        "readings_per_s": round(per_s),
        "records_per_s": round(per_s * found["records"] / found["readings"]),
        "seconds": round(found["last_batch_s"] - found["first_batch_s"], 2),
        "readings_per_s_by_minute": by_minute(found),
        "batches": found["batches"],
        "most_parts_of_a_table": max(parts),
        "merged_rows_per_inserted": round(events["MergedRows"] / events["InsertedRows"], 2),
        "cpu_us_per_reading": {name: round(1e6 * seconds / sent.readings, 2) for name, seconds in used.items()},
        "merges_cpu_us_per_reading": round(1e6 * merging_s / sent.readings, 2),
        "first_batch_after_start_s": round(found["first_batch_s"] - found["started_s"], 2),
        "resident_mb": round(found["resident_mb"]),
    }


@contextmanager
def watched_parts(settings: Settings) -> Iterator[list[int]]:
    """While the block runs: active parts of the table that has most, every other second. The store throws at 3,000."""
    seen, done = [0], threading.Event()

    def look() -> None:
        with Store(settings) as store:
            while not done.wait(_LOOK_S):
                seen.append(int(store.scalar(f"SELECT max(n) FROM (SELECT count() AS n {_PARTS} GROUP BY table)") or 0))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def store_events(settings: Settings) -> dict[str, int]:
    """What the store counted since its start, of inserts and merges."""
    with Store(settings) as store:
        found = store.rows(
            "SELECT event, value FROM system.events WHERE event IN {names:Array(String)}", {"names": list(_EVENTS)}
        )
    return dict.fromkeys(_EVENTS, 0) | {row["event"]: int(row["value"]) for row in found}


def by_minute(found: dict[str, Any]) -> list[int]:
    """Readings a second in each whole minute between the first batch and the last."""
    at, readings = np.array(found["course"]).T
    edges = np.arange(found["first_batch_s"], found["last_batch_s"], 60.0)
    return [round(many / 60) for many in np.diff(np.interp(edges, at, readings))]


def stored(store: Store, readings: int) -> dict[str, Any]:
    """What the ledger's tables take on disk, and their active parts."""
    found = store.rows(f"SELECT sum(bytes_on_disk) AS bytes, count() AS parts {_PARTS}")[0]
    return {"bytes_per_reading": round(found["bytes"] / readings, 1), "parts": found["parts"]}


def beside(one: Stand, store: Store, workload: Workload, names: tuple[str, ...]) -> dict[str, Any]:
    """Those who do the same work; their costs must be the worker's."""
    if not names or workload.shape != "flat" or workload.faulty:
        return {}
    ours = competitors.by_worker(store, one.log_id())
    values = competitors.messages(one.settings)
    runs: dict[str, competitors.Run] = {}
    if "python" in names:
        runs["plain_python"] = competitors.by_plain_python(values, workload)
    if "pandas" in names and pandas_job.can_do(workload):
        runs["pandas"] = competitors.by_pandas(values, workload)
    if "faust" in names:
        runs["faust"] = competitors.by_faust(one.settings, store, workload)
    for name, run in runs.items():
        competitors.check_equal(run.costs or {}, ours, name)
    return {name: _told(run, "reading") for name, run in runs.items()}


def run(workload: Workload, names: tuple[str, ...] = (), *, kafka: bool = False, **chosen: Any) -> dict[str, Any]:
    """One workload, side by side."""
    with stand(workload.partitions, kafka=kafka, **chosen) as one:
        publish_reference(one.settings, workload)
        sent = send(one.settings, workload)
        bare = competitors.consume_and_discard(one.settings, sent.messages)
        worker = worker_figures(one, sent)
        with Store(one.settings) as store:
            result = checked(store, one.log_id(), workload)
            kept = stored(store, sent.readings)
            inserts = competitors.raw_inserts(store, at_once=max(50_000, sent.readings // worker["batches"]))
            others = beside(one, store, workload, names)
    samples = sent.readings / sent.messages
    ratios = {
        f"worker_to_{name}": round(worker["readings_per_s"] / it["readings_per_s"], 2) for name, it in others.items()
    }
    raw_per_s = sent.readings / inserts.seconds
    ratios["worker_to_raw_inserts"] = round(worker["readings_per_s"] / raw_per_s, 3)
    ratios["worker_to_bare_consume"] = round(worker["readings_per_s"] / (bare.per_s * samples), 3)
    return {
        "question": "end_to_end", "broker": "Apache Kafka" if kafka else "embedded", "workload": described(workload),
        "sent": {**sent._asdict(), "bytes_per_message": round(sent.bytes / sent.messages, 1),
                 "samples_per_message": round(samples, 3)},
        "bare_consume": {"records_per_s": round(bare.per_s), "readings_per_s": round(bare.per_s * samples)},
        "worker": worker, "raw_insert": {"rows_per_s": round(inserts.per_s), "readings_per_s": round(raw_per_s)},
        "stored": kept, "settings": chosen, **others,
        "ratios": ratios, **result, **surroundings(*PACKAGES),
    }  # fmt: skip


def _told(run: competitors.Run, what: str) -> dict[str, Any]:
    return {f"{what}s_per_s": round(run.per_s), f"cpu_us_per_{what}": round(1e6 * run.cpu_s / run.times, 2)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="flat", choices=("flat", "ocpp16", "ocpp201", "arrow"))
    parser.add_argument("--tariff", default="time_of_use", choices=("flat", "time_of_use", "mixed"))
    parser.add_argument("--connectors", type=int, default=1_000)
    parser.add_argument("--readings", type=int, default=300_000)
    parser.add_argument("--session-readings", type=int, default=SESSION_READINGS, help="a minute apart")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--faulty", action="store_true", help="1 %% of the readings")
    parser.add_argument("--kafka", action="store_true", help="on Apache Kafka")
    parser.add_argument("--batch-records", type=int, help="the worker's setting; with --batch-bytes")
    parser.add_argument("--batch-bytes", type=int, help="the worker's setting")
    parser.add_argument("--beside", default="", help="comma-separated: " + ", ".join(BESIDE))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    chosen = {name: getattr(given, name) for name in ("shape", "tariff", "connectors", "partitions", "faulty")}
    names = tuple(name for name in given.beside.split(",") if name)
    workload = whole_sessions(given.readings, minutes=given.session_readings, **chosen)
    settings = {name: value for name in ("batch_records", "batch_bytes") if (value := vars(given)[name])}
    show(run(workload, names, kafka=given.kafka, **settings), as_json=given.json)


if __name__ == "__main__":
    main()

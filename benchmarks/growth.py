"""What does a reading cost as the fleet grows? By connectors, tariffs, partitions and workers; memory by connectors.

    python -m benchmarks.growth [--by connectors,tariffs,partitions,workers] [--sizes 1000,10000,100000,1000000]
                                [--readings 1000000] [--kafka] [--plots FOLDER] [--json]

By connectors: every connector begins a session, a worker rates that and stores its state; then another worker takes
over and rates at least `--readings` periodic readings of all connectors in turn. Only that one is measured, so that a
reading costs the same work at every size; its memory holds all sessions, and its start is a recovery. By workers: all
start at once on a full topic. Energy and record counts are held against the workload's truth each time.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.plots import Series, line_chart
from benchmarks.stand import DRAIN_S, PACKAGES, Stand, rate, readings_per_s, stand, told, worker
from benchmarks.surroundings import show, surroundings
from benchmarks.workload import Workload, energies_mwh, publish_reference, send, whole_sessions
from pipeline.clickhouse import Store

BY: Final = ("connectors", "tariffs", "partitions", "workers")
SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
TARIFFS: Final = (1, 10, 100, 1_000)
PARTITIONS: Final = (1, 4, 16, 64)
WORKERS: Final = (1, 2, 4)
_MIDDLE: Final = 8_000  # connectors, where something else grows
_ENDLESS: Final = 100_000  # minutes: no session ends


def by_connectors(sizes: list[int], readings: int, *, kafka: bool = False) -> list[dict[str, Any]]:
    """Cost, memory and start of a worker with so many open sessions."""
    found = []
    for size in sizes:
        sweeps = 1 + max(1, -(-readings // size))
        one = Workload(connectors=size, sweeps=sweeps, minutes=_ENDLESS, tariff="mixed")
        found.append({"connectors": size, **_steady(one, kafka=kafka)})
    least = found[0]
    for one_size in found[1:]:
        more = one_size["resident_mb"] - least["resident_mb"]
        one_size["bytes_per_connector"] = round(1e6 * more / (one_size["connectors"] - least["connectors"]))
    return found


def by_tariffs(counts: list[int], readings: int, *, kafka: bool = False) -> list[dict[str, Any]]:
    """Cost with so many tariffs in use."""
    sweeps = 1 + max(1, readings // _MIDDLE)
    return [
        {
            "tariffs": count,
            **_steady(Workload(connectors=_MIDDLE, sweeps=sweeps, minutes=_ENDLESS, own_tariffs=count), kafka=kafka),
        }
        for count in counts
    ]


def by_partitions(counts: list[int], readings: int, *, kafka: bool = False) -> list[dict[str, Any]]:
    """Cost with the same readings in so many partitions."""
    sweeps = 1 + max(1, readings // _MIDDLE)
    return [
        {
            "partitions": count,
            **_steady(Workload(connectors=_MIDDLE, sweeps=sweeps, minutes=_ENDLESS, partitions=count), kafka=kafka),
        }
        for count in counts
    ]


def by_workers(counts: list[int], readings: int, *, kafka: bool = False) -> list[dict[str, Any]]:
    """Readings a second of so many processes together."""
    return [{"workers": count, **_together(count, readings, kafka=kafka)} for count in counts]


def _steady(workload: Workload, *, kafka: bool) -> dict[str, Any]:
    """Starts by one worker, the readings after them by the next."""
    with stand(workload.partitions, kafka=kafka) as one:
        publish_reference(one.settings, workload)
        send(one.settings, workload, 0, 1)
        rate(one.settings)
        sent = send(one.settings, workload, 1)
        before = one.cpu_s()
        found = rate(one.settings)
        used = {name: seconds - before[name] for name, seconds in one.cpu_s().items()} | {"worker": found["cpu_s"]}
        _check(one, workload, sent.readings + workload.connectors)
    return {
        "readings": found["readings"],
        "us_per_reading": round(1e6 / readings_per_s(found), 2),
        "cpu_us_per_reading": {name: round(1e6 * s / found["readings"], 2) for name, s in used.items()},
        "resident_mb": round(found["resident_mb"]),
        "compiled_mb": round(found["compiled_mb"]),
        "first_batch_after_start_s": round(found["first_batch_s"] - found["started_s"], 2),
        "workload_hash": sent.hash,
    }


def _check(one: Stand, workload: Workload, readings: int) -> None:
    truth = int((energies_mwh(Workload(**{**vars(workload), "minutes": 31})) // 27 * (workload.sweeps - 1)).sum())
    with Store(one.settings) as store:
        used = store.scalar("SELECT sum(used) FROM markers")
        energy = store.scalar("SELECT sum(quantity) FROM rated_usage WHERE dimension = 'ENERGY'")
    assert used == readings, f"{used} readings used of {readings}"
    assert energy == truth, f"{energy} mWh rated, {truth} flowed"


def _together(count: int, readings: int, *, kafka: bool) -> dict[str, Any]:
    workload = whole_sessions(readings, connectors=_MIDDLE, partitions=8, tariff="mixed")
    with stand(workload.partitions, kafka=kafka) as one:
        publish_reference(one.settings, workload)
        sent = send(one.settings, workload)
        before = one.cpu_s()
        with ExitStack() as stack:
            processes = [stack.enter_context(worker(one.settings, 4 * DRAIN_S)) for _ in range(count)]
            found = [told(process) for process in processes]
        used = {name: seconds - before[name] for name, seconds in one.cpu_s().items()}
        with Store(one.settings) as store:
            energy = store.scalar("SELECT sum(energy_mwh) FROM cdrs")
    truth = int(energies_mwh(workload).sum()) * (workload.sweeps // workload.minutes)
    assert energy == truth, f"{energy} mWh billed, {truth} flowed"
    busy = [one_worker for one_worker in found if one_worker["batches"]]
    seconds = max(w["last_batch_s"] for w in busy) - min(w["first_batch_s"] for w in busy)
    used["workers"] = sum(w["cpu_s"] for w in busy)
    return {
        "busy": len(busy),
        "readings": sent.readings,
        "readings_per_s": round(sent.readings / seconds),
        "cpu_us_per_reading": {name: round(1e6 * s / sent.readings, 2) for name, s in used.items()},
    }


def run(by: list[str], sizes: list[int], readings: int, *, kafka: bool = False) -> dict[str, Any]:
    """Those asked for."""
    found: dict[str, Any] = {"question": "growth", "broker": "Apache Kafka" if kafka else "embedded"}
    if "connectors" in by:
        found["connectors"] = by_connectors(sizes, readings, kafka=kafka)
    if "tariffs" in by:
        found["tariffs"] = by_tariffs([n for n in TARIFFS if n <= sizes[-1]], readings, kafka=kafka)
    if "partitions" in by:
        found["partitions"] = by_partitions([n for n in PARTITIONS if n <= sizes[-1]], readings, kafka=kafka)
    if "workers" in by:
        found["workers"] = by_workers([n for n in WORKERS if n <= sizes[-1]], readings, kafka=kafka)
    return {**found, **surroundings(*PACKAGES)}


def plot(found: dict[str, Any], folder: Path) -> None:
    """A chart for each thing that grew."""
    for name in ("connectors", "tariffs", "partitions"):
        if name in found:
            x = [one[name] for one in found[name]]
            parts = ("worker", "store", "broker")
            series = [Series(f"{p}, CPU", x, [one["cpu_us_per_reading"][p] for one in found[name]]) for p in parts]
            series.insert(0, Series("elapsed", x, [one["us_per_reading"] for one in found[name]]))
            line_chart(folder / f"cost_by_{name}.svg", f"Cost of a reading by {name}", name, "µs", series, log_x=True)
    if "connectors" in found:
        x = [one["connectors"] for one in found["connectors"]]
        memory = [Series("resident memory of the worker", x, [one["resident_mb"] for one in found["connectors"]])]
        line_chart(
            folder / "memory_by_connectors.svg", "Memory by open sessions", "connectors", "MB", memory, log_x=True
        )
        starts = [
            Series("a worker that takes over", x, [one["first_batch_after_start_s"] for one in found["connectors"]])
        ]
        path = folder / "recovery_by_connectors.svg"
        line_chart(path, "From start to first batch by open sessions", "connectors", "s", starts, log_x=True)
    if "workers" in found:
        x = [one["workers"] for one in found["workers"]]
        rates = [Series("readings a second", x, [one["readings_per_s"] for one in found["workers"]])]
        line_chart(folder / "rate_by_workers.svg", "Readings a second by workers, on 2 cores", "workers", "1/s", rates)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", default=",".join(BY))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--readings", type=int, default=1_000_000)
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = run(given.by.split(","), [int(n) for n in given.sizes.split(",")], given.readings, kafka=given.kafka)
    if given.plots:
        plot(found, given.plots)
    show(found, as_json=given.json)


if __name__ == "__main__":
    main()

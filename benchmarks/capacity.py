"""What fleets of 10,000, 1 million and 10 million connectors need: docs/capacity.md, computed from measured figures.

    python -m benchmarks.capacity

Costs a reading come from the results of `standard` (`ocpp201`, the dearest input; `growth`), what a fleet sends from
the assumptions below. A model on paper: nothing larger than this machine was run.
"""

import math
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.report import Result, results

OUT: Final = Path(__file__).parents[1] / "docs" / "capacity.md"
FLEETS: Final = (10_000, 1_000_000, 10_000_000)
CHARGING_SHARE: Final = 0.15  # of connectors, at a usual moment
PEAK: Final = 3.0  # busiest moment to usual moment
SAMPLE_S: Final = 60
BUSY: Final = 0.5  # of a core, at peak: the rest is for recovery and for lost machines
REPLICAS: Final = 2  # of each row
CORES: Final = 16  # of a ClickHouse machine
PARTITIONS_MIN: Final = 64
BATCH_S: Final = 1.0  # a marker for each partition with readings and batch; batches last about so long under load
_DAY_S: Final = 86_400


class Costs(NamedTuple):
    """What one reading takes, measured."""

    worker_us: float
    store_us: float
    broker_us: float
    disk_bytes: float
    message_bytes: float
    base_mb: float
    connector_bytes: float


class Need(NamedTuple):
    """What one fleet needs."""

    connectors: int
    readings_per_s: float
    peak_per_s: float
    workers: int
    partitions: int
    worker_mb: float
    store_cores: float
    shards: int
    broker_mb_per_s: float
    disk_tb_per_year: float
    markers_per_day: float


def costs(found: dict[str, Result]) -> Costs:
    """From the results; says which one is missing."""
    missing = {"ocpp201", "growth"} - found.keys()
    if missing:
        raise SystemExit(f"no result of {', '.join(sorted(missing))} in benchmarks/results: run `make bench` first")
    one, cpu = found["ocpp201"], found["ocpp201"]["worker"]["cpu_us_per_reading"]
    sizes: list[dict[str, Any]] = found.get("growth_to_a_million", found["growth"])["connectors"]
    return Costs(
        cpu["worker"], cpu["store"], cpu["broker"], one["stored"]["bytes_per_reading"],
        one["sent"]["bytes_per_message"], sizes[0]["resident_mb"], max(sizes[-1].get("bytes_per_connector", 0), 0),
    )  # fmt: skip


def need(connectors: int, cost: Costs) -> Need:
    """The model."""
    usual = connectors * CHARGING_SHARE / SAMPLE_S
    peak = usual * PEAK
    workers = max(2, math.ceil(peak * cost.worker_us / 1e6 / BUSY))  # two, so that one may be lost
    partitions = max(PARTITIONS_MIN, 2 ** math.ceil(math.log2(4 * workers)))
    store_cores = peak * cost.store_us / 1e6 / BUSY
    busy_partitions = min(partitions, usual * BATCH_S)
    return Need(
        connectors, usual, peak, workers, partitions,
        cost.base_mb + connectors / workers * cost.connector_bytes / 1e6,
        store_cores, max(1, math.ceil(store_cores / CORES)), peak * cost.message_bytes / 1e6,
        usual * _DAY_S * 365 * cost.disk_bytes * REPLICAS / 1e12, busy_partitions * _DAY_S / BATCH_S,
    )  # fmt: skip


def bottleneck(one: Need) -> str:
    """What gives out first when the fleet doubles."""
    if one.disk_tb_per_year / one.shards > 5:
        return "disk of a shard: keep raw readings for less than a year, or add shards"
    if one.store_cores > one.workers:
        return "the store's CPU: merges and inserts"
    return "the worker's CPU" if one.workers > 2 else "none: the smallest set-up that may lose a machine is larger"


def table(needs: list[Need]) -> list[str]:
    """The model as a table, one column a fleet."""
    lines = [
        "| connectors | " + " | ".join(f"{one.connectors:,}" for one in needs) + " |",
        "| --- | " + " | ".join("---:" for _ in needs) + " |",
    ]
    rows = {
        "readings/s, usual": lambda one: f"{one.readings_per_s:,.0f}",
        "readings/s, peak": lambda one: f"{one.peak_per_s:,.0f}",
        "workers (1 core each)": lambda one: f"{one.workers:,}",
        "partitions": lambda one: f"{one.partitions:,}",
        "memory of a worker, MB": lambda one: f"{one.worker_mb:,.0f}",
        "store, cores": lambda one: f"{one.store_cores:,.1f}",
        f"ClickHouse shards of {CORES} cores": lambda one: f"{one.shards:,}",
        "into Kafka at peak, MB/s": lambda one: f"{one.broker_mb_per_s:,.1f}",
        f"disk a year, TB, {REPLICAS} replicas": lambda one: f"{one.disk_tb_per_year:,.2f}",
        "markers a day, million": lambda one: f"{one.markers_per_day / 1e6:,.1f}",
        "first bottleneck": bottleneck,
    }
    return lines + [f"| {name} | " + " | ".join(told(one) for one in needs) + " |" for name, told in rows.items()]


def document(found: dict[str, Result]) -> str:
    """docs/capacity.md."""
    cost = costs(found)
    where = found["ocpp201"]
    return "\n".join([
        "# Capacity: what a fleet needs", "",
        "Written by `python -m benchmarks.capacity` from the results of `make bench`; a model on paper, run on nothing",
        "larger than the machine below. Change the assumptions at the top of `benchmarks/capacity.py` to yours.", "",
        f"**Assumed**: {CHARGING_SHARE:.0%} of connectors charge at a usual moment, {PEAK:g} times as many at the ",
        f"busiest; a reading every {SAMPLE_S} s, each in an OCPP 2.0.1 message of its own; a core is used to",
        f"{BUSY:.0%} at peak; {REPLICAS} replicas of each row; a batch every {BATCH_S:g} s.", "",
        f"**Measured** ({where['machine']}, {where['cores']} cores shared by all, commit {where['commit']}): worker "
        f"{cost.worker_us} CPU-µs a reading, store {cost.store_us}, broker {cost.broker_us}; {cost.disk_bytes} bytes a "
        f"reading on disk before merges, {cost.message_bytes} in the log; {cost.base_mb:,} MB of memory and "
        f"{cost.connector_bytes:,} bytes a connector in a session.", "",
        *table([need(connectors, cost) for connectors in FLEETS]), "",
        "Workers share nothing but the log and the store, so they are added until the partitions run out: choose the",
        "partitions for the fleet that you expect, as they can't grow later. Rows of a partition stay on one shard.",
    ]) + "\n"  # fmt: skip


def main() -> None:
    """Write the document."""
    OUT.write_text(document(results()), "utf-8")
    print(OUT)


if __name__ == "__main__":
    main()

"""What exactly-once costs: the worker as it is beside the same worker without markers, snapshots and verification.

    python -m benchmarks.protocol_cost [--connectors 2000] [--readings 400000] [--pairs 7] [--kafka]

Both rate the same log, in turn, each into a database of its own: rows inserted and outputs published alike. The bare
one asks for no claim before it writes, reads nothing back, writes no marker and no snapshot. Its rows are counted in
the tables, the other's in the views; count, energy and cost must be equal. Median of the pairs, and their spread.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import pyarrow as pa

from benchmarks.stand import DRAIN_S, PACKAGES, Stand, readings_per_s, settings_from, settings_text, stand
from benchmarks.surroundings import surroundings
from benchmarks.workload import Workload, publish_reference, send, whole_sessions
from pipeline.clickhouse import Store
from pipeline.ledger import Claim, Ledger, Marker, Snapshot, Span
from pipeline.migrations import migrate
from pipeline.rate.doors import RealDoors
from pipeline.rate.warm import compile_all
from pipeline.rate.worker import Worker
from pipeline.settings import Settings
from pipeline.store import StoreLedger

FULL, BARE = "exactly_once", "bare"
_NEVER_S: Final = 86_400.0
_SUMS: Final = (
    "SELECT count() AS rows, sumIf(quantity, dimension = 'ENERGY') AS energy_mwh, sum(toInt128(cost)) AS cost FROM {}"
)


class BareLedger(StoreLedger):
    """Takes rows and answers that all is well."""

    def check_claims(self, claims: Sequence[Claim]) -> None:
        """Nobody else is there."""

    def read_back(self, written: Mapping[str, pa.Table], spans: Sequence[Span]) -> None:
        """Trusts the acknowledgement."""

    def add_markers(self, markers: Sequence[Marker]) -> None:
        """Writes none."""

    def add_published(self, offsets: Mapping[int, tuple[int, int]], now_ms: int) -> None:
        """Writes none."""

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Writes none."""


class BareDoors(RealDoors):
    """Kafka and ClickHouse, without the protocol between them."""

    def ledger(self) -> Ledger:
        """Over a connection of its own."""
        return BareLedger(self.connection(), self.log_id)


def rate_here(kind: str) -> None:
    """One worker in this process, until nothing is left; settings come on standard input, its progress goes out."""
    settings = settings_from(sys.stdin.readline())
    compile_all()
    doors = (BareDoors if kind == BARE else RealDoors).of_topic(settings)
    print(json.dumps(asdict(Worker(settings, doors).run(drain_s=DRAIN_S))))


def rate_once(one: Stand, kind: str, number: int) -> tuple[float, dict[str, Any]]:
    """Readings/s of one worker in a new database and group, and what its rows sum to."""
    name = f"{kind}_{number}"
    settings = replace(
        one.settings, clickhouse_database=name, group_id=name,
        snapshot_interval_s=_NEVER_S if kind == BARE else one.settings.snapshot_interval_s,
    )  # fmt: skip
    _prepare(one.settings, settings)
    command = [sys.executable, "-m", "benchmarks.protocol_cost", "--worker", kind]
    done = subprocess.run(command, input=settings_text(settings) + "\n", stdout=subprocess.PIPE, text=True, check=True)
    with Store(settings) as store:
        [sums] = store.rows(_SUMS.format("rated_usage_rows" if kind == BARE else "rated_usage"))
    with Store(one.settings) as store:
        store.command(f"DROP DATABASE {name} SYNC")
    return readings_per_s(json.loads(done.stdout.splitlines()[-1])), sums


def _prepare(given: Settings, settings: Settings) -> None:
    """Tables of its own, with the reference data that the log announces."""
    name = settings.clickhouse_database
    with Store(given) as store:
        store.command(f"CREATE DATABASE {name}")
    with Store(settings) as store:
        migrate(store)
        store.command(f"INSERT INTO reference_rows SELECT * FROM {given.clickhouse_database}.reference_rows")


def run(workload: Workload, pairs: int, *, kafka: bool) -> dict[str, Any]:
    """Pair after pair; who begins alternates."""
    speeds: dict[str, list[float]] = {FULL: [], BARE: []}
    with stand(workload.partitions, kafka=kafka, snapshot_interval_s=10.0) as one:
        publish_reference(one.settings, workload)
        sent = send(one.settings, workload)
        results = []
        for pair in range(pairs):
            for kind in (FULL, BARE) if pair % 2 else (BARE, FULL):
                speed, sums = rate_once(one, kind, pair)
                speeds[kind].append(speed)
                results.append(sums)
    assert all(sums == results[0] for sums in results), f"the two gave different rows: {results}"
    below = [1 - full / bare for full, bare in zip(speeds[FULL], speeds[BARE], strict=True)]
    return {
        **vars(workload),
        "readings": sent.readings,
        "pairs": pairs,
        "below_bare": {
            "median": _share(statistics.median(below)),
            "least": _share(min(below)),
            "most": _share(max(below)),
        },
        "readings_per_s": {kind: [round(speed) for speed in found] for kind, found in speeds.items()},
        "result": results[0],
        "workload_hash": sent.hash,
        "machine": surroundings(*PACKAGES),
    }


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connectors", type=int, default=2_000)
    parser.add_argument("--readings", type=int, default=400_000)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--kafka", action="store_true", help="Apache Kafka instead of the embedded broker")
    parser.add_argument("--worker", choices=(FULL, BARE), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        rate_here(given.worker)
        return
    workload = whole_sessions(given.readings, connectors=given.connectors, tariff="mixed")
    json.dump(run(workload, given.pairs, kafka=given.kafka), sys.stdout, indent=2, default=str)
    print()


if __name__ == "__main__":
    main()

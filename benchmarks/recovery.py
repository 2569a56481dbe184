"""From kill -9 of a worker to the first new row that counts, with many sessions open.

    python -m benchmarks.recovery [--connectors 100000] [--snapshot-seconds 60] [--times 3] [--kafka] [--json]

A worker rates a sweep of starts and some readings of every connector, so that all of them have an open session, and is
killed; the next one is started at once and one more reading of every connector is sent. Measured: from the kill to the
first marker over a record that was sent after it; the group waits for the dead member's session time-out meanwhile.
When the group gave the partitions away is told too: the embedded broker takes longer over it than its time-out.
Every reading must be used once and the energy must be what flowed. With --no-snapshots the log is read from its start.
"""

import argparse
import signal
import statistics
import subprocess
import time
from typing import Any, Final

from benchmarks.stand import PACKAGES, Stand, await_claims, stand, told, worker
from benchmarks.surroundings import show, surroundings
from benchmarks.workload import Workload, energies_mwh, publish_reference, send
from pipeline.clickhouse import Store
from pipeline.kafka import Admin
from pipeline.topics import READINGS

_LOOK_S: Final = 0.05
_PATIENCE_S: Final = 1_800.0
_READINGS_EACH: Final = 4  # of every connector before the kill
_NEVER_S: Final = 86_400.0


def once(connectors: int, snapshot_s: float, *, kafka: bool) -> dict[str, Any]:
    """One kill and one recovery."""
    workload = Workload(connectors=connectors, sweeps=_READINGS_EACH + 1, partitions=4, tariff="mixed")
    with stand(workload.partitions, kafka=kafka, snapshot_interval_s=snapshot_s) as one:
        publish_reference(one.settings, workload)
        with worker(one.settings, 0.0) as first:
            for sweep in range(_READINGS_EACH):
                send(one.settings, workload, sweep, sweep + 1)
                _await_covered(one, _ends(one), first)
            before = _ends(one)
            first.kill()
            killed_s = time.monotonic()
        with worker(one.settings, 0.0) as second:
            sent = send(one.settings, workload, _READINGS_EACH)
            await_claims(one, second.pid)
            claimed_s = time.monotonic() - killed_s
            first_row_s = _await_beyond(one, before, second) - killed_s
            _await_covered(one, _ends(one), second)
            second.send_signal(signal.SIGTERM)
            found = told(second)
        _check(one, workload)
        time_out_s = one.settings.session_timeout_s
    return {
        "first_new_row_s": round(first_row_s, 2),
        "beyond_session_time_out_s": round(first_row_s - time_out_s, 2),
        "session_time_out_s": time_out_s,
        "claimed_s": round(claimed_s, 2),
        "start_to_first_batch_s": round(found["first_batch_s"] - found["started_s"], 2),
        "resident_mb": round(found["resident_mb"]),
        "workload_hash": sent.hash,
    }


def _ends(one: Stand) -> dict[int, int]:
    return {p: end for p, end in Admin(one.settings).end_offsets(READINGS).items() if end}


def _covered(store: Store) -> dict[int, int]:
    rows = store.rows("SELECT toInt32(partition) AS p, toInt64(max(last_offset)) + 1 AS next FROM covered GROUP BY p")
    return {row["p"]: row["next"] for row in rows}


def _await_covered(one: Stand, ends: dict[int, int], process: "subprocess.Popen[str]") -> None:
    """Until markers reach so far."""
    deadline = time.monotonic() + _PATIENCE_S
    with Store(one.settings) as store:
        while _covered(store) != ends:
            assert process.poll() is None, "the worker has ended; its words stand above"
            assert time.monotonic() < deadline, f"rated up to {_covered(store)} of {ends} only"
            time.sleep(_LOOK_S)


def _await_beyond(one: Stand, ends: dict[int, int], process: "subprocess.Popen[str]") -> float:
    """When the first marker lay beyond these offsets."""
    deadline = time.monotonic() + _PATIENCE_S
    with Store(one.settings) as store:
        while not any(next_ > ends.get(p, 0) for p, next_ in _covered(store).items()):
            assert process.poll() is None, "the worker has ended; its words stand above"
            assert time.monotonic() < deadline, "nothing new counts"
            time.sleep(_LOOK_S)
    return time.monotonic()


def _check(one: Stand, workload: Workload) -> None:
    """Every reading once, and the energy that flowed between the first and the last."""
    charging_minutes = 27  # of a session of 31 readings: none of them rests yet
    a_minute = energies_mwh(Workload(**{**vars(workload), "minutes": 31})) // charging_minutes
    with Store(one.settings) as store:
        used = store.scalar("SELECT sum(used) FROM markers")
        energy = store.scalar("SELECT sum(quantity) FROM rated_usage WHERE dimension = 'ENERGY'")
    assert used == workload.readings, f"{used} readings used of {workload.readings}"
    truth = int(a_minute.sum()) * (workload.sweeps - 1)
    assert energy == truth, f"{energy} mWh rated, {truth} flowed"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connectors", type=int, default=100_000)
    parser.add_argument("--snapshot-seconds", type=float, default=60.0)
    parser.add_argument("--no-snapshots", action="store_true")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--kafka", action="store_true", help="Apache Kafka instead of the embedded broker")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    snapshot_s = _NEVER_S if given.no_snapshots else given.snapshot_seconds
    runs = [once(given.connectors, snapshot_s, kafka=given.kafka) for _ in range(given.times)]
    beyond = [run["beyond_session_time_out_s"] for run in runs]
    found = {
        "question": "recovery",
        "broker": "Apache Kafka" if given.kafka else "embedded",
        "connectors": given.connectors,
        "snapshot_interval_s": snapshot_s,
        "beyond_session_time_out_s": {"median": statistics.median(beyond), "least": min(beyond), "most": max(beyond)},
        "runs": runs,
        **surroundings(*PACKAGES),
    }
    show(found, as_json=given.json)


if __name__ == "__main__":
    main()

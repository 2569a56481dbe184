"""How long from a reading's event to its rated row being queryable, under steady load?

    python -m benchmarks.latency [--connectors 1000] [--seconds 30] [--shares 0.25,0.5,0.9] [--kafka] [--json]

First a backlog is drained to learn the capacity of worker, broker and store on this machine. Then, at each share of it,
messages are sent open-loop: every message has an instant at which it is due, is stamped with it, and is sent then or as
soon after as the sender can; its latency counts from the due instant, so that nothing waits unseen (no coordinated
omission). A row is queryable when a marker covers its offset; markers are asked for every 50 ms, so figures are up to
that too high. The sender shares the machine. How soon an alert comes is asked by `alert_latency`.
"""

import argparse
import threading
import time
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from benchmarks.alert_latency import LINGER_MS
from benchmarks.stand import PACKAGES, Stand, await_claims, rate, readings_per_s, stand, told, worker
from benchmarks.surroundings import show, surroundings
from benchmarks.workload import Workload, publish_reference, send, whole_sessions
from pipeline.clickhouse import Store
from pipeline.kafka import Admin, Sender
from pipeline.simulate.partitioning import partition_of
from pipeline.topics import READINGS

_LOOK_S: Final = 0.05
_SLICE_S: Final = 0.005
_WARM_S: Final = 3.0
_DRAINED_S: Final = 60.0


class Looker:
    """Notes when each offset became queryable."""

    def __init__(self, one: Stand) -> None:
        self.covered: list[tuple[float, dict[int, int]]] = []
        self._stand, self._log_id = one, one.log_id()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        sql = (
            "SELECT partition AS part, max(last_offset) AS last FROM marker_rows WHERE log_id = {log:UInt64} GROUP BY 1"
        )
        with Store(self._stand.settings) as store:
            while not self._done.wait(_LOOK_S):
                rows = store.rows(sql, {"log": self._log_id})
                self.covered.append((time.time(), {row["part"]: row["last"] for row in rows}))


class Schedule:
    """Messages that are due one after the other at an even rate, each with its instant in it."""

    def __init__(self, workload: Workload, due_s: npt.NDArray[np.float64], kind: str, since_s: float) -> None:
        count = len(due_s)
        self.due_s = due_s
        self._since_s = since_s
        self._connectors = np.arange(count) % workload.connectors
        by_connector = partition_of([b"CP%07d" % n for n in range(workload.connectors)], workload.partitions)
        self.partitions = by_connector[self._connectors]
        pairs = zip(self._connectors.tolist(), due_s.tolist(), strict=True)
        self.messages = [self._message(connector, due, kind) for connector, due in pairs]

    def _message(self, connector: int, due_s: float, kind: str) -> tuple[bytes, bytes]:
        moment = np.datetime64(int(due_s * 1000), "ms")
        register_wh = 10_000 + int((due_s - self._since_s) / 0.6)  # 6 kW
        key = b"CP%07d" % connector
        value = (
            f'{{"charge_point_id":"{key.decode()}","connector_id":1,'
            f'"transaction_id":"{self._since_s:.0f}-{connector}","timestamp":"{moment}Z","energy_wh":{register_wh},'
            f'"power_w":6000,"state":"Charging"{kind},"received_at":"{moment}Z"}}'
        )
        return key, value.encode()

    def send(self, sender: Sender) -> float:
        """All of it in time; the longest that a message was sent after it was due."""
        late, at = 0.0, 0
        while at < len(self.messages):
            now = time.time()
            until = int(np.searchsorted(self.due_s, now, side="right"))
            if until > at:
                late = max(late, now - float(self.due_s[at]))
            for key, value in self.messages[at:until]:
                sender.send(READINGS, value, key)
            at = max(at, until)
            time.sleep(_SLICE_S)
        sender.flush()
        return late

    def latencies_s(self, looks: list[tuple[float, dict[int, int]]], first: dict[int, int]) -> npt.NDArray[np.float64]:
        """From due to queryable, of each message; `first`: the offset of the first one in each partition."""
        found = np.empty(len(self.due_s))
        at_s = np.array([at for at, _ in looks])
        for partition in np.unique(self.partitions).tolist():
            mine = np.flatnonzero(self.partitions == partition)
            last = np.array([covered.get(partition, -1) for _, covered in looks])
            places = np.searchsorted(last, first[partition] + np.arange(len(mine)), side="left")
            found[mine] = at_s[places] - self.due_s[mine]
        return found


def under_load(one: Stand, workload: Workload, per_s: float, seconds: float) -> dict[str, Any]:
    """One share of the capacity: sessions begin, then readings come at that rate."""
    with Looker(one) as looker, Sender(one.settings, linger_ms=LINGER_MS) as sender:
        begin_s = time.time() + 0.5
        starts = Schedule(workload, np.full(workload.connectors, begin_s), ',"event":"start"', begin_s)
        starts.send(sender)
        time.sleep(_WARM_S)
        first = Admin(one.settings).end_offsets(READINGS)
        count = int(per_s * seconds)
        # Messages are made before the first is due.
        begin_s = time.time() + 1.0 + count * 1e-5
        schedule = Schedule(workload, begin_s + np.arange(count) / per_s, "", starts.due_s[0])
        late_s = schedule.send(sender)
        _await(looker, schedule, first)
    took = schedule.latencies_s(looker.covered, first)
    return {
        "readings_per_s": round(per_s),
        "readings": count,
        "queryable_s": _quantiles(took),
        "sent_late_s": round(late_s, 3),
    }


def _await(looker: Looker, schedule: Schedule, first: dict[int, int]) -> None:
    ends = {p: first[p] + int(np.count_nonzero(schedule.partitions == p)) - 1 for p in np.unique(schedule.partitions)}
    deadline = time.monotonic() + _DRAINED_S
    while time.monotonic() < deadline:
        covered = looker.covered[-1][1] if looker.covered else {}
        if all(covered.get(p, -1) >= end for p, end in ends.items()):
            return
        time.sleep(_LOOK_S)
    missing = {p: end - looker.covered[-1][1].get(p, -1) for p, end in ends.items()}
    raise SystemExit(f"after {_DRAINED_S:g} s so many readings of each partition are not queryable: {missing}")


def _quantiles(took_s: npt.NDArray[np.float64]) -> dict[str, float]:
    return {name: round(float(np.quantile(took_s, q)), 3) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


def run(connectors: int, readings: int, seconds: float, shares: list[float], *, kafka: bool = False) -> dict[str, Any]:
    """The capacity, then each share of it."""
    workload = whole_sessions(readings, connectors=connectors, tariff="time_of_use")
    found: dict[str, Any] = {"question": "latency", "broker": "Apache Kafka" if kafka else "embedded"}
    with stand(workload.partitions, kafka=kafka) as one:
        publish_reference(one.settings, workload)
        sent = send(one.settings, workload)
        capacity = readings_per_s(rate(one.settings))
        found |= {"capacity_per_s": round(capacity), "workload_hash": sent.hash, "shares": {}}
        for share in shares:
            # A worker and sessions of its own for each, and time for the group to let the one before go.
            with worker(one.settings, 0.0) as process:
                await_claims(one, process.pid)
                found["shares"][f"{share:.0%}"] = under_load(one, workload, share * capacity, seconds)
                process.terminate()
                told(process)
    return {**found, **surroundings(*PACKAGES)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connectors", type=int, default=1_000)
    parser.add_argument("--readings", type=int, default=300_000, help="of the backlog that tells the capacity")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--shares", default="0.25,0.5,0.9")
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    shares = [float(share) for share in given.shares.split(",")]
    show(run(given.connectors, given.readings, given.seconds, shares, kafka=given.kafka), as_json=given.json)


if __name__ == "__main__":
    main()

"""How soon after its reading is an alert on the topic? Open loop, at a quarter, half and 90 % of what is rated at most.

A fleet of N connectors, each with a session, a reading of each in turn. First the worker rates what lies in the topic,
as fast as it can: that is the full load. Then readings are sent at a fixed rate, a share of it after the other, each at
its own instant whether or not anything came back; every so often one tells a power far above its connector's rating.
The connector's next reading ends the interval in which that power held. Latency runs from the instant at which that
one was due to the arrival of the alert at a consumer of the topic, so a sender that falls behind makes it longer, not
shorter. Every probe must come back, each once.

Run: python -m benchmarks.alert_latency [--connectors 10000] [--seconds 30] [--shares 0.25,0.5,0.9] [--probes 1000]
                                        [--json]
"""

import argparse
import hashlib
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from benchmarks.stand import PACKAGES, Stand, cpu_of, stand, told, worker
from benchmarks.surroundings import show, surroundings
from benchmarks.workload import Sweeps, Workload, make_fleet, publish_reference
from pipeline import topics
from pipeline.anomaly.events import alert_decoder
from pipeline.clickhouse import Store
from pipeline.kafka import Admin, Reader, Sender
from pipeline.settings import Settings
from pipeline.simulate.encode import Encoder
from pipeline.simulate.message import Batch
from pipeline.store import StoreLedger

PROBE_MW: Final = 90_000_000  # of a connector that can give 50 kW
WARM_SWEEPS: Final = 5  # rated at full speed, before anything is timed
KIND: Final = "power_above_rating"
LINGER_MS: Final = 20.0  # of the sender, as a gateway's: at 2 ms it takes most of a core of what is measured
_SLICE_S: Final = 0.005
_GIVE_UP_S: Final = 120.0
_TURNS: Final = 4  # at most; an alert that is open is not opened again
_MINUTES: Final = 1_000_000  # nobody leaves while it is measured


class Probes:
    """Waits for the alerts of the probes in a thread: charge point → when its alert arrived (monotonic s)."""

    def __init__(self, settings: Settings) -> None:
        """From the topic's end on."""
        self.arrived_s: dict[str, float] = {}
        self.repeats = 0
        self._ending = threading.Event()
        self._starts = Admin(settings).end_offsets(topics.ALERTS)
        self._thread = threading.Thread(target=self._run, args=(settings,), daemon=True)
        self._thread.start()

    def _run(self, settings: Settings) -> None:
        with Reader(settings, topics.ALERTS) as reader:
            reader.assign(self._starts)
            while not self._ending.is_set():
                messages = reader.consume(1000, 0.02)
                now_s = time.monotonic()
                for message in messages:
                    self._note(message.value() or b"", now_s)

    def _note(self, value: bytes, now_s: float) -> None:
        alert = alert_decoder.decode(value)
        if alert.kind == KIND and alert.action == "opened":
            self.repeats += alert.charge_point_id in self.arrived_s
            self.arrived_s.setdefault(alert.charge_point_id, now_s)

    def stop(self) -> None:
        """End the thread."""
        self._ending.set()
        self._thread.join()


def batches(workload: Workload, sweeps: range, probes: Mapping[int, int]) -> Iterator[Batch]:
    """The messages of some sweeps, one a connector; `probes` says who tells the impossible power in which. No ticks."""
    encoder, made = Encoder(make_fleet(workload), workload.partitions), Sweeps(workload)
    for sweep in sweeps:
        rows = made.rows(sweep)
        rows["power_mw"][[connector for connector, at in probes.items() if at == sweep]] = PROBE_MW
        yield encoder.batch(rows, np.zeros(0, np.int64))


def fill(settings: Settings, workload: Workload, sweeps: range) -> int:
    """Send sweeps as fast as it goes; how many readings."""
    sent = 0
    with Sender(settings, linger_ms=LINGER_MS) as sender:
        for batch in batches(workload, sweeps, {}):
            for key, value in zip(batch.keys, batch.values, strict=True):
                sender.send(topics.READINGS, value, key)
            sent += len(batch.values)
        sender.flush()
    return sent


def await_covered(one: Stand, process: "subprocess.Popen[str]") -> float:
    """Wait until the worker's markers cover the whole log; the monotonic instant at which they did."""
    admin = Admin(one.settings)
    ends = {p: end for p, end in admin.end_offsets(topics.READINGS).items() if end}
    deadline = time.monotonic() + 20 * _GIVE_UP_S
    with Store(one.settings) as store:
        ledger = StoreLedger(store, one.log_id())
        while {p: end for p, end in ledger.covered_ends().items() if end} != ends:
            assert process.poll() is None, "the worker has ended; its words stand above"
            assert time.monotonic() < deadline, "the worker does not come to the end of the log"
            time.sleep(0.05)
    return time.monotonic()


def open_loop(
    settings: Settings, messages: list[tuple[bytes | None, bytes]], per_s: float
) -> tuple[list[float], float]:
    """Send each message at its instant: when each was due, and how far the sender fell behind at worst (s)."""
    began, behind, at = time.monotonic() + 0.2, 0.0, 0
    due = [began + number / per_s for number in range(len(messages))]
    with Sender(settings, linger_ms=LINGER_MS) as sender:
        while at < len(messages):
            now = time.monotonic()
            if due[at] > now:
                time.sleep(min(_SLICE_S, due[at] - now))
                continue
            behind = max(behind, now - due[at])
            while at < len(messages) and due[at] <= now:
                key, value = messages[at]
                sender.send(topics.READINGS, value, key)
                at += 1
        sender.flush()
    return due, behind


def chosen(workload: Workload, sweeps: range, count: int, turn: int) -> dict[int, int]:
    """Who tells the impossible, and in which sweep but the last: evenly over connectors and time, others each turn."""
    connectors = (np.unique(np.linspace(0, workload.connectors - _TURNS, count).astype(int)) + turn).tolist()
    return {connector: sweeps[at * (len(sweeps) - 1) // len(connectors)] for at, connector in enumerate(connectors)}


def run(connectors: int, seconds: float, shares: list[float], probes: int, backlog: int = 200_000) -> dict[str, Any]:
    """The whole measurement on a stack of its own."""
    workload = Workload(connectors=connectors, minutes=_MINUTES, sweeps=_MINUTES, tariff="flat")
    with stand() as one, worker(one.settings, 0.0) as process:
        publish_reference(one.settings, workload)
        warm = fill(one.settings, workload, range(WARM_SWEEPS))
        await_covered(one, process)  # compiled, joined, state of every connector made
        sweeps = range(WARM_SWEEPS, WARM_SWEEPS + max(2, backlog // connectors))
        began = time.monotonic()
        full = fill(one.settings, workload, sweeps) / (await_covered(one, process) - began)
        found = {}
        for turn, share in enumerate(shares):
            sweeps = range(sweeps.stop, sweeps.stop + max(2, round(full * share * seconds / connectors)))
            telling = chosen(workload, sweeps, probes, turn)
            found[f"{share:.0%}"] = _at_load(one, process.pid, workload, full * share, sweeps, telling)
        process.terminate()
        ended = told(process)
    return {
        "question": "alert_latency", "connectors": connectors, "warm_readings": warm,
        "full_load_readings_per_s": round(full), "shares": found, "worker_mb": round(ended["resident_mb"]),
        **surroundings(*PACKAGES),
    }  # fmt: skip


def _at_load(
    one: Stand, worker_pid: int, workload: Workload, per_s: float, sweeps: range, probes: dict[int, int]
) -> dict[str, Any]:
    """Send at a fixed rate, wait for the alerts, and tell how long each took."""
    messages: list[tuple[bytes | None, bytes]] = []
    for batch in batches(workload, sweeps, probes):
        messages += zip(batch.keys, batch.values, strict=True)
    at = {f"CP{c:07d}": (sweep + 1 - sweeps.start) * workload.connectors + c for c, sweep in probes.items()}
    assert all(messages[number][0] == name.encode() for name, number in at.items())
    waiting = Probes(one.settings)
    before = _cpu_s(one, worker_pid)
    due, behind_s = open_loop(one.settings, messages, per_s)
    used = {name: round(cpu_s - before[name], 1) for name, cpu_s in _cpu_s(one, worker_pid).items()}
    deadline = time.monotonic() + _GIVE_UP_S
    while len(waiting.arrived_s) < len(at) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)  # for one that comes twice
    waiting.stop()
    lost = at.keys() - waiting.arrived_s.keys()
    assert not lost and not waiting.repeats, f"{len(lost)} alerts did not come, {waiting.repeats} came twice"
    took = np.array([waiting.arrived_s[name] - due[number] for name, number in at.items()])
    p50, p99 = np.quantile(took, (0.5, 0.99))
    return {
        "readings_per_s": round(per_s), "seconds": round(len(messages) / per_s, 1), "alerts": len(took),
        "p50_s": round(float(p50), 3), "p99_s": round(float(p99), 3), "max_s": round(float(took.max()), 3),
        "sender_behind_at_most_s": round(behind_s, 3), "cpu_s": used,
        "result_hash": hashlib.sha256("\n".join(sorted(at)).encode()).hexdigest()[:16],
    }  # fmt: skip


def _cpu_s(one: Stand, worker_pid: int) -> dict[str, float]:
    """CPU seconds used so far by each process; the sender is this one, with the consumer of the alerts."""
    return {"worker": cpu_of(worker_pid), **one.cpu_s(), "sender": time.process_time()}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--connectors", type=int, default=10_000)
    options.add_argument("--seconds", type=float, default=30.0)
    options.add_argument("--shares", default="0.25,0.5,0.9")
    options.add_argument("--probes", type=int, default=1_000)
    options.add_argument("--backlog", type=int, default=200_000, help="readings by which the full load is told")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    shares = [float(share) for share in given.shares.split(",")]
    if len(shares) > _TURNS:
        options.error(f"at most {_TURNS} shares: each has connectors of its own tell the impossible")
    show(run(given.connectors, given.seconds, shares, given.probes, given.backlog), as_json=given.json)


if __name__ == "__main__":
    main()

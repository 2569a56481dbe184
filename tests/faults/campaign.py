"""kill -9 of everything that may die, under load: three workers of one group, the store, Apache Kafka, a billing job.

Between the kills workers are frozen beyond their session time-out and the network to the store misbehaves. The embedded
broker keeps its log in memory, so it lives. In the end the views must be the oracle's, the control
totals must hold, and the billing job must have booked every CDR once. `run.py` is the command.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from pipeline.clickhouse import Store
from pipeline.embedded.apache_kafka import ApacheKafka
from pipeline.embedded.stack import EmbeddedStore, Stack
from pipeline.settings import Settings
from tests.contract.proxy import Fault, Proxy
from tests.faults.billing_job import opened
from tests.faults.rig import START_S, Counts, Feeder, await_rated, environment, equal_to_oracle, faulty_fleet, publish
from tests.faults.zygote import Zygote

WORKERS: Final = 3
WORKER, STORE, KAFKA, BILLING = "worker", "store", "Apache Kafka", "billing job"
FROZEN, NETWORK = "frozen worker", "network fault"
_SHARES: Final = {WORKER: 60, STORE: 14, BILLING: 9, KAFKA: 3, FROZEN: 6, NETWORK: 8}
_DIE: Final = (WORKER, STORE, BILLING, KAFKA)
_BURSTS: Final = 0.3  # share of kills that come right after another
_CALM_S: Final = (0.5, 2.5)
_BURST_S: Final = (0.05, 0.3)
_KILL_S: Final = 1.5  # a kill and the wait before it, on average: how long the load must last
_FAULTS: Final = (
    Fault(cut_answer_after=0, times=3), Fault(cut_answer_after=120, times=3), Fault(cut_request_after=2_000, times=3),
    Fault(refuse=True, times=5), Fault(delay_s=0.3, times=5), Fault(late_s=0.3, times=5),
)  # fmt: skip
_CONTRADICTION: Final = 7  # a worker that was told of a difference ends, and whoever started it starts it again


@dataclass
class Report:
    """What a round did. Seconds are wall time."""

    seed: int
    broker: str
    done: Counter[str] = field(default_factory=Counter)  # by kind
    messages: int = 0
    seconds: float = 0.0
    said: Counter[str] = field(default_factory=Counter)  # by the workers
    came_back: int = 0  # workers that ended by themselves to recover
    booked: int = 0
    counts: Counts | None = None

    @property
    def kills(self) -> int:
        """Of all kinds."""
        return sum(self.done[kind] for kind in _DIE)

    def row(self) -> str:
        """A line of the table in docs/recovery.md."""
        rows = Counter(self.counts.rows if self.counts else {})
        done = ", ".join(f"{self.done[kind]} {kind}" for kind in _SHARES if self.done[kind])
        views = " | ".join(f"{rows[view]:,}" for view in ("rated_usage", "cdrs", "alerts"))
        return (
            f"| {self.broker} | {self.seed} | {self.kills} ({done}) | {self.messages:,} | "
            f"{self.said['taken over']} | "
            f"{self.said['lost or fenced']} | {views} | {self.booked:,} | {self.seconds:.0f} |"
        )


# The embedded broker's group may stand still for minutes after a leader left in mid-rebalance (docs/embedded.md).
_STANDS_STILL_S: Final = 400.0
HEADER: Final = (
    "| broker | seed | kills (and what else happened) | messages | partitions taken over | lost or fenced | "
    "rated rows | CDRs | alerts | CDRs booked once | s |\n" + "| --- " * 11 + "|"
)


class Workers:
    """Three workers of one group that are started again whenever they end."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._log = log
        self._environ = environment(settings)
        self._parts = ExitStack()
        self._zygotes = [self._parts.enter_context(Zygote({})) for _ in range(WORKERS)]
        self._pids = [self._start(zygote) for zygote in self._zygotes]
        self._frozen: dict[int, float] = {}  # process → when it may go on
        self.came_back = 0

    def kill(self, number: int) -> None:
        """One worker, and start it again."""
        if self._ended(number, 0.0) is None:
            os.kill(self._pids[number], signal.SIGKILL)
            code = self._zygotes[number].poll(START_S)
            assert code in (-signal.SIGKILL, _CONTRADICTION), f"worker {number} ended with {code}: see {self._log}"
        self._pids[number] = self._start(self._zygotes[number])

    def freeze(self, number: int, seconds: float) -> None:
        """SIGSTOP now, SIGCONT after so long, unless it was killed meanwhile."""
        if self._ended(number, 0.0) is not None:
            return
        pid = self._pids[number]
        os.kill(pid, signal.SIGSTOP)
        self._frozen[pid] = time.monotonic() + seconds

    def thaw(self, *, now: bool = False) -> None:
        """Let those go on whose time is over, or all."""
        for pid, until_s in list(self._frozen.items()):
            if now or time.monotonic() > until_s:
                del self._frozen[pid]
                if pid in self._pids:
                    os.kill(pid, signal.SIGCONT)

    def revive(self) -> None:
        """Start those again that ended by themselves."""
        for number in range(WORKERS):
            if self._ended(number, 0.0) is not None:
                self._pids[number] = self._start(self._zygotes[number])

    def stop(self) -> None:
        """As a person does."""
        for pid in self._pids:
            os.kill(pid, signal.SIGTERM)
        codes = [zygote.poll(START_S) for zygote in self._zygotes]
        self._pids = []
        # one that was just started again has no handler yet: SIGTERM ends it
        assert set(codes) <= {0, -signal.SIGTERM}, f"workers ended with {codes}: see {self._log}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._parts.close()

    def _start(self, zygote: Zygote) -> int:
        return zygote.start(self._environ, self._log, "rate")

    def _ended(self, number: int, timeout_s: float) -> int | None:
        code = self._zygotes[number].poll(timeout_s)
        if code is not None:
            assert code == _CONTRADICTION, f"worker {number} ended with {code}: see {self._log}"
            self.came_back += 1
        return code


class Billing:
    """The billing job, killed and started again."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.path = folder / "books.sqlite"
        self._log = folder / "billing.log"
        self._environ = environment(settings)
        self._process = self._start()

    def kill(self) -> None:
        """kill -9, and start it again."""
        assert self._process.poll() is None, f"the billing job ended: {self._log.read_text()}"
        self._process.kill()
        self._process.wait()
        self._process = self._start()

    def finish(self) -> None:
        """Kill it once more and let the next one read what is left."""
        self._process.kill()
        self._process.wait()
        assert self._start("--once").wait(START_S) == 0, self._log.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.faults.billing_job", str(self.path), *arguments]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, env=self._environ, stdout=log, stderr=log)


def campaign(stack: Stack, settings: Settings, folder: Path, seed: int, kills: int, charge_points: int = 60) -> Report:
    """One round: `kills` kills under load, then what everyone reads is compared."""
    rng = random.Random(seed)
    began = time.monotonic()
    is_kafka = isinstance(stack.broker, ApacheKafka)
    report = Report(seed, "Apache Kafka" if is_kafka else "embedded")
    fleet = faulty_fleet(seed, charge_points=charge_points)
    folder.mkdir(parents=True, exist_ok=True)
    publish(settings, fleet, folder / "reference")
    feeder = Feeder(settings, fleet, _KILL_S * kills)
    report.messages = feeder.messages
    shares = {kind: share for kind, share in _SHARES.items() if is_kafka or kind != KAFKA}
    with (
        Proxy(settings.clickhouse_port) as proxy,
        Workers(replace(settings, clickhouse_port=proxy.port), folder / "workers.log") as workers,
        Billing(settings, folder) as billing,
    ):
        bench = _Bench(stack, proxy, workers, billing, settings.session_timeout_s)
        while report.kills < kills:
            time.sleep(rng.uniform(*(_BURST_S if rng.random() < _BURSTS else _CALM_S)))
            workers.revive()
            workers.thaw()
            kind = rng.choices(list(shares), list(shares.values()))[0]
            bench.strike(kind, rng)
            report.done[kind] += 1
        workers.thaw(now=True)
        feeder.done()
        _await_all(settings, workers)
        workers.stop()
        billing.finish()
        report.came_back = workers.came_back
    report.booked = _booked_once(settings, billing.path)
    _read(folder / "workers.log", report)
    report.counts = equal_to_oracle(settings)
    report.seconds = time.monotonic() - began
    return report


@dataclass(frozen=True)
class _Bench:
    """What a round may strike."""

    stack: Stack
    proxy: Proxy
    workers: Workers
    billing: Billing
    session_timeout_s: float

    def strike(self, kind: str, rng: random.Random) -> None:
        """One of the things that happen."""
        stack = self.stack
        match kind:
            case "worker":
                self.workers.kill(rng.randrange(WORKERS))
            case "billing job":
                self.billing.kill()
            case "frozen worker":
                self.workers.freeze(rng.randrange(WORKERS), self.session_timeout_s + 1.5)
            case "network fault":
                with self.proxy.fault(rng.choice(_FAULTS)):
                    time.sleep(rng.uniform(0.2, 1.0))
            case "store":
                stack.store.child.kill()
                time.sleep(rng.uniform(0.0, 0.5))
                stack.store = EmbeddedStore.start(stack.settings, stack.folder, port=stack.store.port)
            case _:
                stack.broker.child.kill()
                stack.broker = ApacheKafka.start(stack.settings, stack.folder, port=stack.broker.port)


def _await_all(settings: Settings, workers: Workers) -> None:
    """Until the whole log is rated; workers that end to recover are started again."""
    deadline = time.monotonic() + _STANDS_STILL_S
    while True:
        workers.revive()
        try:
            await_rated(settings, timeout_s=5.0)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def _booked_once(settings: Settings, books: Path) -> int:
    """CDRs booked. Raises AssertionError where they are not what readers see."""
    with opened(books) as connection:
        booked = dict(connection.execute("SELECT id, total_e4 FROM booked"))
    sql = "SELECT log_id, partition, offset, line, total_incl_e4 FROM cdrs"
    with Store(settings) as store:
        there = {
            f"{r['log_id']:016x}-{r['partition']}-{r['offset']}-{r['line']}": r["total_incl_e4"]
            for r in store.rows(sql)
        }
    assert booked == there, f"booked {len(booked)} of {len(there)}: {sorted(booked.items() ^ there.items())[:5]}"
    return len(booked)


def _read(log: Path, report: Report) -> None:
    said = log.read_text("utf-8", "replace")
    assert "Traceback" not in said, said[said.index("Traceback") :][:3000]
    report.said["taken over"] = said.count("partitions taken over")
    report.said["lost or fenced"] = said.count("partitions lost") + said.count("forgetting all: joining anew")
    report.said["outages"] = said.count("outage: partitions are paused")
    report.said["snapshots refused"] = said.count("snapshot refused")
    report.said["mended"] = said.count("the store lost rows under a marker")

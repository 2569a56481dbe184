"""One crash point: store and worker run a few batches, one call of one of them is struck, and both recover.

Each run begins with a copy of the same prepared folder and rates the same log on the embedded broker, so that a call's
number means the same step in each (give or take the engine's own threads). In the end the store is opened anew, a new
worker takes over, and what readers see is compared with an undisturbed run, row by row.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from pipeline.clickhouse import Store
from pipeline.commands.init import prepare
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.processes import accepts, start_on_free_port
from pipeline.errors import StoreRefusedError
from pipeline.kafka import Admin
from pipeline.logwriter import write
from pipeline.settings import Settings, load
from pipeline.simulate.fleet import Fleet, FleetPlan
from pipeline.topics import READINGS
from tests.faults.interpose import Action, Interposer, build
from tests.faults.rig import FAULT_SHARES, VIEWS, environment, publish
from tests.faults.zygote import STORE, WORKER, Zygote

ACTIONS: Final = {
    STORE: (Action.KILL_BEFORE, Action.KILL_AFTER, Action.TORN, Action.DISK_FULL, Action.IO_ERROR),
    WORKER: (Action.KILL_BEFORE, Action.KILL_AFTER, Action.TORN, Action.IO_ERROR),
}
REFUSED: Final = StoreRefusedError.exit_code
_LIMIT_S: Final = 300.0  # on a machine that is busy with other things
_DRAIN_S: Final = "2"  # on a busy machine the first record takes long
_OUTAGE: Final = "outage: partitions are paused"
_PATIENCE: Final = 3  # times that a worker says so, before somebody opens the store anew
_LIVES: Final = 5  # of workers in one run, before it counts as not recovering
Identity = tuple[str, int, int, int]


@dataclass(frozen=True)
class Point:
    """Which call of which process is struck, and how."""

    target: str
    action: Action
    call: int

    def __str__(self) -> str:
        return f"{self.target}:{self.action.name.lower()}:{self.call}"


@dataclass(frozen=True)
class Outcome:
    """What a run came to; rows are those that readers see, of all views."""

    fired: int
    struck: str
    rows: int
    lost: int
    repeated: int
    exits: Sequence[int]  # of workers, in order

    @property
    def call(self) -> str:
        """What was struck: `write`, `rename`, …"""
        name = self.struck.split()[0]
        return {"pwrite": "write", "writev": "write", "sendmsg": "send"}.get(name, name)

    @property
    def bad(self) -> bool:
        """Whether readers would notice, or a worker gave up where it should wait."""
        return bool(self.lost or self.repeated or REFUSED in self.exits)


def points_of(calls: dict[str, list[str]]) -> list[Point]:
    """Every call of each process, struck in every way that makes sense."""
    return [
        Point(target, action, at)
        for target, kinds in calls.items()
        for action in ACTIONS[target]
        for at, kind in enumerate(kinds, 1)
        if action is not Action.TORN or kind in ("write", "send")
    ]


class Bed:
    """Broker, log, prepared folder and undisturbed result, for any number of runs."""

    def __init__(
        self, folder: Path, *, seed: int = 1, charge_points: int = 8, batches: int = 2, port: int = 21_500
    ) -> None:
        self._folder, self._seed = folder, seed
        self._parts = ExitStack()
        library = build(folder)
        broker = EmbeddedBroker.start(load(environ={}), folder)
        self._parts.callback(broker.stop)
        self._port = start_on_free_port(port, lambda port: port)
        base = replace(
            load(environ={}), data_dir=folder, partitions=1, replication=1, kafka_bootstrap=broker.bootstrap,
            clickhouse_port=self._port, kafka_timeout_s=60.0, session_timeout_s=2.0, batch_wait_s=0.2,
        )  # fmt: skip
        self._shims = {
            STORE: self._parts.enter_context(Interposer(library, folder / "store.control", f"{folder}/run/store/")),
            WORKER: self._parts.enter_context(Interposer(library, folder / "worker.control", "socket:", self._port)),
        }
        self._zygotes = {
            kind: self._parts.enter_context(Zygote(shim.environ, kind)) for kind, shim in self._shims.items()
        }
        self._groups = 0
        messages = self._fill(base, charge_points)
        self._end = Admin(base).end_offsets(READINGS)[0]
        self._settings = replace(base, batch_records=-(-messages // batches), snapshot_interval_s=0.0)
        whole = replace(base, batch_records=100_000, snapshot_interval_s=3_600.0)
        self._expected = self._undisturbed(whole)
        self.calls = self._counted()  # what each process calls in an undisturbed run, in order

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    @property
    def rows(self) -> int:
        """Rows that readers see of an undisturbed run."""
        return len(self._expected)

    def run(self, point: Point) -> Outcome:
        """Strike one point, recover, compare."""
        try:
            return self._run(point, self._shims[point.target])
        finally:
            self._zygotes[WORKER].kill()  # one that did not end

    def _run(self, point: Point, shim: Interposer) -> Outcome:
        with self._store_opened(fresh=True) as store:
            shim.arm(point.call, point.action)
            exits = [self._first_life(point, store, shim)]
            fired, struck = shim.fired, shim.struck
            shim.disarm()
            if store.replaced and exits == [0] and self._covered():
                return self._compared(fired, struck, exits)  # the folder was opened anew, the worker went on
        with self._store_opened(fresh=False):
            while len(exits) < _LIVES:
                exits.append(self._life(self._settings))
                if exits[-1] == 0 and self._covered():
                    break
            return self._compared(fired, struck, exits)

    def keep(self, folder: Path) -> None:
        """Copy what the last run left: data and logs."""
        shutil.copytree(self._folder / "run", folder, symlinks=True)

    def log(self) -> str:
        """What the workers of the last run said."""
        return (self._folder / "run" / "worker.log").read_text("utf-8", "replace")

    def _first_life(self, point: Point, store: "_Served", shim: Interposer) -> int:
        """A worker from its start until it has rated all or died; a store that dies is opened again meanwhile.

        Where the store dies, every second worker dies with it and the others ride it out. A store that lives and can't
        read what it wrote is opened again too, as whoever is paged would do: the worker waits for that.
        """
        worker = self._start(self._settings)
        began = time.monotonic()
        seen = False
        while (code := worker.poll(0.05)) is None:
            if store.ended() and not seen:
                seen = True
                if point.call % 2:
                    worker.kill()
                    return -signal.SIGKILL
                store.again()
            if not seen and shim.fired and self.log().count(_OUTAGE) >= _PATIENCE:
                seen = True
                store.again()
            assert time.monotonic() - began < _LIMIT_S, f"{point}: the worker does not end: {self.log()}"
        return code

    def _life(self, settings: Settings) -> int:
        code = self._start(settings).poll(_LIMIT_S)
        assert code is not None, f"the worker does not end: {self.log()}"
        return code

    def _start(self, settings: Settings) -> Zygote:
        """A worker in a group of its own: nobody waits for a dead member's session."""
        self._groups += 1
        named = replace(settings, group_id=f"crash-{self._groups}")
        worker = self._zygotes[WORKER]
        worker.start(environment(named), self._folder / "run" / "worker.log", "rate", "--drain", _DRAIN_S)
        return worker

    def _fill(self, base: Settings, charge_points: int) -> int:
        """Tables, topics, reference data and messages; the folder as each run finds it."""
        fleet = Fleet(
            FleetPlan(
                seed=self._seed, charge_points=charge_points, hours=6.0, sample_ms=900_000, sessions_per_day=6.0,
                faults=FAULT_SHARES, partitions=1, tick_ms=3_600_000, settle_hours=72,
            )
        )  # fmt: skip
        run = self._folder / "run"
        (run / "store").mkdir(parents=True)
        with _Served(run, self._port, self._zygotes[STORE]):
            prepare(base)
            publish(base, fleet, self._folder / "reference")
            write(base, (chunk.batch for chunk in fleet.chunks()))
        run.rename(self._folder / "template")
        return Admin(base).end_offsets(READINGS)[0]

    def _undisturbed(self, settings: Settings) -> dict[Identity, str]:
        with self._store_opened(fresh=True):
            assert self._life(settings) == 0 and self._covered(), self.log()
            return self._seen()

    def _counted(self) -> dict[str, list[str]]:
        with self._store_opened(fresh=True):
            before = {name: shim.count for name, shim in self._shims.items()}
            assert self._life(self._settings) == 0 and self._covered(), self.log()
            assert self._seen() == self._expected, "batches of another size give other rows"
            return {name: shim.kinds(before[name]) for name, shim in self._shims.items()}

    @contextmanager
    def _store_opened(self, *, fresh: bool) -> Iterator["_Served"]:
        run = self._folder / "run"
        if fresh:
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(self._folder / "template", run, symlinks=True)
        with _Served(run, self._port, self._zygotes[STORE]) as served:
            yield served

    def _covered(self) -> bool:
        with Store(self._settings) as store:
            return bool(store.scalar("SELECT toInt64(max(last_offset)) + 1 FROM covered") == self._end)

    def _seen(self) -> dict[Identity, str]:
        """Every row of every view, by identity. Raises AssertionError where one is there twice."""
        rows = list(self._shown())
        found = dict(rows)
        assert len(found) == len(rows), "an undisturbed run repeats rows"
        return found

    def _shown(self) -> Iterator[tuple[Identity, str]]:
        sql = " UNION ALL ".join(
            f"SELECT '{view}' AS name, partition, offset, line, hex(sipHash128(toString(tuple(*)))) AS content "
            f"FROM (SELECT * EXCEPT (claim) FROM {view})"
            for view in VIEWS
        )
        with Store(self._settings) as store:
            for row in store.rows(sql):
                yield (row["name"], row["partition"], row["offset"], row["line"]), row["content"]

    def _compared(self, fired: int, struck: str, exits: list[int]) -> Outcome:
        rows = list(self._shown())
        right = {identity for identity, content in rows if self._expected.get(identity) == content}
        return Outcome(fired, struck, len(rows), len(self._expected) - len(right), len(rows) - len(right), tuple(exits))


class _Served:
    """A store server under the shim."""

    def __init__(self, folder: Path, port: int, zygote: Zygote) -> None:
        self._folder, self._port, self._zygote = folder, port, zygote
        self.replaced = False
        self._open()

    def ended(self) -> bool:
        """Whether it has died."""
        return not self._zygote.running or self._zygote.poll(0.0) is not None

    def again(self) -> None:
        """Open the folder anew after it died, or instead of it."""
        self._zygote.kill()
        self.replaced = True
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zygote.kill()

    def _open(self) -> None:
        log = self._folder / "store.log"
        self._zygote.start(os.environ, log, str(self._folder / "store"), str(self._port))
        deadline = time.monotonic() + _LIMIT_S
        while not accepts(self._port):
            assert not self.ended(), log.read_text()
            assert time.monotonic() < deadline, "the store does not open"
            time.sleep(0.01)

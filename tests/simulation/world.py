"""One seed: workers over a simulated log and store, faults by the dice, and the invariants.

A worker is the real one, from its group's callbacks to its commits; only its doors lead here. It is killed, frozen,
expelled and started again like a process. The seed decides the log, the settings, which faults there are and how
often, and every turn of the scheduler.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Final

from pipeline.errors import BrokerError, DroppedError, IntegrityError, StoreError
from pipeline.ledger import READINGS, Ledger
from pipeline.rate.doors import Clock, Reading, Sending, Thread
from pipeline.rate.ledger_history import PastRows
from pipeline.rate.recover import Recovery
from pipeline.rate.retire import Keeping
from pipeline.rate.worker import Worker
from pipeline.reference import ReferenceData
from pipeline.settings import Settings, load
from tests.simulation.invariants import Invariants
from tests.simulation.ledger import SimulatedLedger
from tests.simulation.log import SESSION_TIMEOUT_S, SimulatedLog, SimulatedReader, SimulatedSender
from tests.simulation.past import SimulatedPast
from tests.simulation.schedule import Process, Schedule, SimulatedThread, StuckError
from tests.simulation.store import Fate, Part, Row, SimulatedStore, all_well
from tests.simulation.workload import LOG_ID, PARTITIONS, Workload, workload

WORKLOADS: Final = 64  # logs that seeds share: making one costs as much as rating it
_STEPS_MAX: Final = 60_000
_STORMY_S: Final = 60.0  # after that all is well, and the rest must be rated
_CALM_S: Final = 400.0
_AWAKE_S: Final = SESSION_TIMEOUT_S + 0.5  # a worker that was frozen as long wakes about when another takes over
_EPOCH_MS: Final = 1_800_000_000_000


class HastyRecovery(Recovery):
    """Doubts what was written in the last second, so that seeds have markers before that."""

    doubted_ms, doubted_at_first = 1_000, 4


class HastyWorker(Worker):
    """The worker, whose hour is a second, and who drops every snapshot that it may."""

    recovery = HastyRecovery
    keeping = Keeping(1, 1)


@dataclass
class Weather:
    """How often what happens, by seed: a fault in one insert, question, flush or step."""

    kill: float = 0.0  # a step
    lost_answer: float = 0.0  # an insert
    late: float = 0.0
    partial: float = 0.0
    swallowed: float = 0.0  # acknowledged, and not all of it there
    torn: float = 0.0  # a snapshot
    broker: float = 0.0  # a flush or commit
    outage: float = 0.0  # a turn of the director
    freeze: float = 0.0
    nap: float = 0.0  # a step of a claim: frozen there until somebody else claims
    rewind: float = 0.0
    stop: float = 0.0
    skew: float = 0.0
    forgets: float = 0.0  # a turn of the director: the store is opened anew, and a marker that it showed is gone


class SimulatedClock:
    """The scheduler's time."""

    def __init__(self, schedule: Schedule, process: Process) -> None:
        self._schedule, self._process = schedule, process

    def monotonic(self) -> float:
        """Seconds."""
        return self._schedule.now

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._schedule.step("sleep")
        self._schedule.wait(seconds)

    def now_ms(self) -> int:
        """UTC, as wrong as the process's clock is."""
        return _EPOCH_MS + int(self._schedule.now * 1000) + self._process.skew_ms


class SimulatedDoors:
    """The doors of one worker."""

    def __init__(self, world: "World", process: Process, number: int) -> None:
        self._world, self._process = world, process
        self.member = f"{process.name}-{number}"
        self.partitions = PARTITIONS
        self.log_id = LOG_ID
        self.clock: Clock = SimulatedClock(world.schedule, process)

    def ledger(self) -> Ledger:
        """A connection."""
        return self._world.broken.ledger(self._world.store, LOG_ID, self._world.schedule.step)

    def past(self) -> PastRows:
        """Through the views."""
        return SimulatedPast(self._world.store, self._world.schedule.step)

    def load(self, data: ReferenceData, version: int) -> ReferenceData:
        """By version."""
        self._world.schedule.step(f"reference version {version}")
        self._world.store.ask()
        return self._world.broken.load(self._world, data, version)

    def sender(self) -> Sending:
        """A producer."""
        return self._world.broken.sender(self._world.log)

    def reader(self) -> Reading:
        """In the group."""
        return SimulatedReader(self._world.log, self._process)

    def tape(self) -> Reading:
        """In no group."""
        return SimulatedReader(self._world.log, self._process)

    def thread(self, name: str) -> Thread:
        """A task."""
        return SimulatedThread(self._world.schedule, self._process, name)

    def close(self) -> None:
        """Nothing is open."""


def _load(world: "World", data: ReferenceData, version: int) -> ReferenceData:
    return world.workload.load(data, version)


@dataclass(frozen=True)
class Broken:
    """Parts of the protocol that a mutant replaces; as they stand, nothing is broken."""

    name: str = "none"
    ledger: Callable[[SimulatedStore, int, Callable[[str], None]], Ledger] = SimulatedLedger
    worker: type[Worker] = HastyWorker
    load: Callable[["World", ReferenceData, int], ReferenceData] = _load
    sender: type[SimulatedSender] = SimulatedSender
    weather: Mapping[str, float] = field(default_factory=dict)  # faults that it needs


@dataclass
class Told:
    """What one run did."""

    seed: int
    steps: int = 0
    checked: int = 0
    drops: int = 0
    kills: int = 0
    faults: int = 0
    exits: list[str] = field(default_factory=list)


@lru_cache(maxsize=WORKLOADS)
def _workload(number: int) -> Workload:
    return workload(number)


class World:
    """One run of a seed."""

    def __init__(self, seed: int, broken: Broken | None = None) -> None:
        """Everything is made from the seed."""
        self.broken = broken or Broken()
        self.told = Told(seed)
        self.workload = _workload(seed % WORKLOADS)
        self.schedule = Schedule(seed, _STEPS_MAX)
        self.dice = self.schedule.dice
        self.store = SimulatedStore(self.schedule.at)
        self.log = SimulatedLog(self.schedule, PARTITIONS)
        self.invariants = Invariants(self.store, self.workload.rows, PARTITIONS, self.workload.tried)
        self.settings = self._settings()
        self.weather = self._weather()
        self._processes: list[Process] = []
        self._workers: dict[str, Worker] = {}
        self._numbered = 0
        self._down_until = 0.0
        self.schedule.pace_s = self.dice.choice((0.004, 0.004, 0.05, 0.3))
        self._connect()

    def _settings(self) -> Settings:
        return replace(
            load(environ={}), batch_records=self.dice.choice((3, 6, 12)), batch_wait_s=self.dice.choice((0.1, 1.0)),
            verify_processes=0, snapshot_interval_s=self.dice.choice((0.2, 1.0, 1e9)),
        )  # fmt: skip

    def _weather(self) -> Weather:
        """Some faults, each often enough to meet the others."""
        dice = self.dice
        most = Weather(
            kill=0.004, lost_answer=0.06, late=0.06, partial=0.05, swallowed=0.03, torn=0.4, broker=0.1, outage=0.1,
            freeze=0.15, nap=0.05, rewind=0.05, stop=0.05, skew=0.05,
            forgets=0.05,
        )  # fmt: skip
        some = {name: value if dice.random() < 0.6 else 0.0 for name, value in vars(most).items()}
        return replace(most, **{**some, **self.broken.weather})

    def _connect(self) -> None:
        self.store.landed = self.invariants.landed
        self.store.dropped = self.invariants.dropped
        self.store.fate = self._fate
        self.store.down = lambda: self.schedule.now < self._down_until
        self.store.refuses = self._refuses
        self.log.committed = self.invariants.committed
        self.log.delivered = self.invariants.delivered
        self.log.fails = self._broker
        self.schedule.kill = self._kill

    # faults

    def _kill(self, process: Process, point: str) -> bool:
        killed = bool(self.weather.kill) and self.dice.random() < self.weather.kill and process.name != "director"
        self.told.kills += killed
        if "claim" in point and self.dice.random() < self.weather.nap:
            process.frozen_until = self.schedule.now + _AWAKE_S + self.dice.random()
        return killed

    def _fate(self, parts: list[Part]) -> Fate:
        weather, dice = self.weather, self.dice
        if self.store.down():
            return Fate([None] * len(parts), answered=False)
        if parts[0].table == "state_rows" and dice.random() < weather.torn:
            _spoil(parts[0], dice.choice(("torn", "foreign", "other code")))
            return all_well(parts)
        for name in ("lost_answer", "late", "partial", "swallowed"):
            if dice.random() < getattr(weather, name):
                self.told.faults += 1
                return self._bad_fate(name, parts)
        return all_well(parts)

    def _bad_fate(self, name: str, parts: list[Part]) -> Fate:
        dice = self.dice
        match name:
            case "lost_answer":
                return Fate([0.0] * len(parts), answered=False)
            case "late":
                return Fate([dice.choice((0.01, 0.5, 20.0)) * dice.random() for _ in parts], answered=False)
            case "partial":
                return Fate([dice.choice((0.0, None, 3.0)) for _ in parts], answered=False)
        return Fate([dice.choice((0.0, None)) for _ in parts])

    def _refuses(self, table: str, row: Row) -> bool:
        return table == READINGS and row["offset"] in self.workload.refused.get(row["partition"], {})

    def _broker(self, what: str) -> str:
        if self.dice.random() >= self.weather.broker:
            return ""
        self.told.faults += 1
        return self.dice.choice(("lost", "unanswered") if what == "commit" else ("lost", "refused", "unanswered"))

    # workers

    def start(self) -> None:
        """One more process that rates until it is told to stop."""
        self._numbered += 1
        process = Process(f"w{self._numbered}")
        if self.dice.random() < self.weather.skew:
            process.skew_ms = self.dice.choice((-86_400_000, 86_400_000))
        self._processes.append(process)
        self.schedule.spawn(process.name, process, lambda: self._rate(process))

    def _rate(self, process: Process) -> None:
        """As `wattrate rate` does: what was fenced joins again, what stops is started again by whoever watches it."""
        number = 0
        while True:
            number += 1
            worker = self.broken.worker(self.settings, SimulatedDoors(self, process, number))
            self._workers[process.name] = worker
            try:
                worker.run()
            except DroppedError as error:
                self.told.exits.append(str(error))
                continue
            except (IntegrityError, StoreError, BrokerError) as error:
                assert "overlap" not in str(error), error
                assert "other rows than their marker promised" not in str(error), error
                self.told.exits.append(str(error))
            break
        process.dead = True

    def _living(self) -> list[Process]:
        return [process for process in self._processes if not process.dead]

    # the run

    def run(self) -> Told:
        """Raises AssertionError where an invariant does not hold."""
        try:
            self._run()
        except BaseException as error:
            trace = "\n".join(self.schedule.trace)
            error.add_note(f"last steps of seed {self.told.seed}:\n{trace}\nagain: {again(self)}")
            raise
        finally:
            self.told.steps, self.told.checked = self.schedule.steps, self.invariants.checked
            self.told.drops = self.invariants.drops
            self.schedule.end()
        return self.told

    def _run(self) -> None:
        self._feed()
        wanted = self.dice.choice((1, 2, 2, 3))
        while self.schedule.now < _STORMY_S and not self._rated():
            while len(self._living()) < wanted:
                self.start()
            self.schedule.wait(self.dice.random() * 3.0)
            self._disturb()
        self._calm()
        self._finish(wanted)

    def _feed(self) -> None:
        for partition, records in self.workload.log.items():
            for record, seconds in zip(records, self._instants(len(records)), strict=True):
                self.schedule.at(seconds, partial(self.log.append, partition, record))

    def _instants(self, count: int) -> list[float]:
        """When the records of a partition come."""
        dice = self.dice
        return sorted(0.0 if dice.random() < 0.3 else dice.random() * 20.0 for _ in range(count))

    def _rated(self) -> bool:
        return self.invariants.ends() == {p: len(records) for p, records in self.workload.log.items()}

    def _disturb(self) -> None:
        dice, weather = self.dice, self.weather
        living = self._living()
        if living and dice.random() < weather.freeze:
            dice.choice(living).frozen_until = self.schedule.now + dice.choice((1.0, 20.0, _AWAKE_S + dice.random()))
        if living and dice.random() < weather.stop:
            self._stop(dice.choice(living))
        if dice.random() < weather.outage:
            self._down_until = self.schedule.now + dice.choice((0.5, 4.0, 15.0))
        if dice.random() < weather.rewind:
            self.log.offsets.clear()
        if dice.random() < weather.forgets:
            self._forget()

    def _forget(self) -> None:
        """Store and workers die together; of the markers that a partition had, one is gone, however old."""
        for process in self._living():
            process.dead = True
        partition = self.dice.randrange(PARTITIONS)
        markers = self.store.markers(partition)
        if markers:
            self.told.faults += 1
            self.invariants.lost(partition)
            self.store.lose("marker_rows", self.dice.choice(markers))

    def _stop(self, process: Process) -> None:
        worker = self._workers.get(process.name)
        if worker is not None:
            worker.stop()

    def _calm(self) -> None:
        """No faults from here on."""
        self.weather = Weather()
        self._down_until = 0.0
        self.schedule.pace_s = 0.004
        for process in self._processes:
            process.frozen_until = min(process.frozen_until, self.schedule.now)

    def _finish(self, wanted: int) -> None:
        """What is left is rated; then all stop, and one more comes and finds everything in order."""
        until_s = self.schedule.now + _CALM_S
        while not self._rated():
            if self.schedule.now > until_s:
                raise StuckError(f"rated up to {self.invariants.ends()} only, {_CALM_S:.0f} s after the last fault")
            while len(self._living()) < wanted:
                self.start()
            self.schedule.wait(1.0)
        self._end_all()
        self.start()
        self.schedule.wait(_CALM_S, self._taken_over)
        self._end_all()
        self.invariants.finished()

    def _taken_over(self) -> bool:
        """Whether somebody has every partition and has published what was left."""
        return all(not self.log.free(p) for p in self.log.records) and self.invariants.published()

    def _end_all(self) -> None:
        for process in self._living():
            self._stop(process)
        until_s = self.schedule.now + _CALM_S
        while self._living():
            if self.schedule.now > until_s:
                raise StuckError(f"{[process.name for process in self._living()]} were told to stop and did not")
            self.schedule.wait(0.5)
            for process in self._living():
                self._stop(process)


def _spoil(part: Part, how: str) -> None:
    """A snapshot that must be refused."""
    [row] = part.rows
    row["spoiled"] = how
    match how:
        case "torn":
            row["payload"] = row["payload"][: len(row["payload"]) // 2]
        case "foreign":
            row["partition"] = 1 - row["partition"]
        case _:
            row["code_version"] = "0-none"


def again(world: World) -> str:
    """How to repeat a run."""
    mutant = f" --mutant '{world.broken.name}'" if world.broken.name != "none" else ""
    return f"python -m tests.simulation --seed {world.told.seed}{mutant}"

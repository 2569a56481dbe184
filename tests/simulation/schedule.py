"""A seeded scheduler: tasks that run one at a time and change places only at the doors, and a clock that it moves.

Every task is a thread, so that the worker's code runs as it is; a baton lets one of them run. Who goes on after a step
is the dice's choice, so one seed is one run, to the last instruction. A process that is killed raises `Killed` at its
next door and at every door after that: nothing that it does on the way out reaches anybody.
"""

import heapq
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

FOREVER = float("inf")


class Killed(BaseException):
    """The process is dead; not an Exception, so that no handler of the worker's takes it for an error."""


class StuckError(AssertionError):
    """Nothing can go on, or it goes on for ever."""


@dataclass
class Process:
    """Tasks that live and die together."""

    name: str
    dead: bool = False
    frozen_until: float = 0.0
    skew_ms: int = 0  # how wrong its wall clock is


@dataclass(eq=False)
class Task:
    """One thread of a process; `ready` and `until` say what it waits for."""

    name: str
    process: Process
    ready: Callable[[], bool] | None = None
    until: float = 0.0
    done: bool = False
    baton: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.baton.acquire()


class Schedule:
    """Time in seconds since the start of the run."""

    def __init__(self, seed: int, steps_max: int) -> None:
        """The calling thread becomes the first task."""
        self.dice = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.pace_s = 0.004  # what a step takes at most
        self.kill: Callable[[Process, str], bool] = lambda _process, _point: False
        self._trace: deque[tuple[float, str, str]] = deque(maxlen=80)
        self.failure: BaseException | None = None
        self._steps_max = steps_max
        self._ending = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbered = 0
        self.current = Task("director", Process("director"))
        self._tasks = [self.current]

    @property
    def trace(self) -> list[str]:
        """The last steps."""
        return [f"{at_s:8.3f} {name}: {point}" for at_s, name, point in self._trace]

    def spawn(self, name: str, process: Process, work: Callable[[], None]) -> Task:
        """A task that begins at someone's next step."""
        task = Task(name, process)
        threading.Thread(target=self._body, args=(task, work), daemon=True).start()
        self._tasks.append(task)
        return task

    def _body(self, task: Task, work: Callable[[], None]) -> None:
        task.baton.acquire()
        try:
            if not task.process.dead:
                work()
        except Killed:
            self._trace.append((self.now, task.name, "killed"))
        except BaseException as error:  # noqa: BLE001 (told to the director, who raises it)
            self.failure = self.failure or error
        task.done = True
        self._tasks.remove(task)
        self._pass_on(task)

    def step(self, point: str) -> None:
        """A door: here a process may be killed, and another task may go on."""
        task = self.current
        self.steps += 1
        if self.steps > self._steps_max:
            raise StuckError(f"{self.steps} steps and no end")
        self.now += self.dice.random() * self.pace_s
        if not task.process.dead and self.kill(task.process, point):
            task.process.dead = True
        self._alive(task)
        self._trace.append((self.now, task.name, point))
        if self.dice.random() < 0.5 or task.process.frozen_until > self.now:
            self._pass_on(task)

    def wait(self, seconds: float, ready: Callable[[], bool] | None = None) -> None:
        """Return when it is `ready`, or after so many seconds."""
        task = self.current
        self._alive(task)
        task.ready, task.until = ready, self.now + seconds
        self._pass_on(task)
        task.ready, task.until = None, 0.0

    def at(self, seconds: float, event: Callable[[], None]) -> None:
        """Have something happen so many seconds from now; it must not take a step itself."""
        self._numbered += 1
        heapq.heappush(self._events, (self.now + seconds, self._numbered, event))

    def end(self) -> None:
        """Kill everything; called by the director."""
        self._ending = True
        for task in self._tasks[1:]:
            task.process.dead = True
        while len(self._tasks) > 1:
            self._pass_on(self.current)

    def _alive(self, task: Task) -> None:
        if task.process.dead:
            raise Killed

    def _pass_on(self, task: Task) -> None:
        following = self._choose()
        if following is not task:
            self.current = following
            following.baton.release()
            if task.done:
                return
            task.baton.acquire()
        if task is not self._tasks[0]:
            self._alive(task)
        elif self.failure is not None and not self._ending:
            raise self.failure

    def _choose(self) -> Task:
        director = self._tasks[0]
        while True:
            if self._ending:
                return self._tasks[-1]
            if self.failure is not None:
                return director
            try:
                while self._events and self._events[0][0] <= self.now:
                    heapq.heappop(self._events)[2]()
            except AssertionError as error:
                self.failure = error
                continue
            able = [task for task in self._tasks if self._able(task)]
            if able:
                return able[0] if len(able) == 1 else self.dice.choice(able)
            self._skip()

    def _able(self, task: Task) -> bool:
        if task.process.dead:
            return True
        if task.process.frozen_until > self.now:
            return False
        return task.until <= self.now or (task.ready is not None and task.ready())

    def _skip(self) -> None:
        """Nobody can go on now: on to the next instant at which somebody can."""
        instants = [instant for task in self._tasks for instant in (task.until, task.process.frozen_until)]
        instants += [self._events[0][0]] if self._events else []
        later = [instant for instant in instants if self.now < instant < FOREVER]
        if later:
            self.now = min(later)
        else:
            self.failure = StuckError(f"nobody can go on: {', '.join(task.name for task in self._tasks)}")


class SimulatedFuture:
    """What `Thread.submit` gives back."""

    def __init__(self, schedule: Schedule, work: Callable[[], Any]) -> None:
        self._schedule, self._work = schedule, work
        self._result: Any = None
        self._error: Exception | None = None
        self.state = "waiting"

    def run(self) -> None:
        """Do it, in the thread."""
        self.state = "running"
        try:
            self._result = self._work()
        except Exception as error:  # noqa: BLE001 (raised again by `result`)
            self._error = error
        self.state = "done"

    def cancel(self) -> bool:
        """Don't begin it; what has begun goes on."""
        if self.state == "waiting":
            self.state = "cancelled"
        return self.state == "cancelled"

    def result(self, timeout: float | None = None) -> Any:
        """Wait for it."""
        self._schedule.wait(FOREVER if timeout is None else timeout, lambda: self.state == "done")
        if self._error is not None:
            raise self._error
        return self._result


class SimulatedThread:
    """One thing after the other, beside whoever asks."""

    def __init__(self, schedule: Schedule, process: Process, name: str) -> None:
        self._schedule = schedule
        self._queue: deque[SimulatedFuture] = deque()
        self._closed = False
        self._task = schedule.spawn(f"{process.name}/{name}", process, self._run)

    def submit(self, work: Callable[..., Any], /, *given: Any) -> Any:
        """Do it when what was given before is done."""
        future = SimulatedFuture(self._schedule, lambda: work(*given))
        self._queue.append(future)
        return future

    def shutdown(self, wait: bool = True) -> None:
        """End, after what is being done."""
        self._closed = True
        if wait:
            self._schedule.wait(FOREVER, lambda: self._task.done)

    def _run(self) -> None:
        while True:
            self._schedule.wait(FOREVER, lambda: bool(self._queue) or self._closed)
            if not self._queue:
                return
            future = self._queue.popleft()
            if future.state == "waiting":
                future.run()

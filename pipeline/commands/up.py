"""`wattrate up`: the embedded broker and store on this machine, with topics and tables made."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click

from pipeline.commands.init import prepare
from pipeline.embedded.services import Services
from pipeline.embedded.stack import Run, Stack, stop_running
from pipeline.errors import EmbeddedError
from pipeline.settings import Settings

SERVICES = ("rate", "watch")
_BACKGROUND_TIMEOUT_S = 900.0  # the first start with --kafka fetches its jars


@click.command()
@click.option("--background", is_flag=True, help="Return when it runs; `wattrate up --stop` ends it.")
@click.option("--stop", is_flag=True, help="Stop the stack that runs in the data folder.")
@click.option("--kafka", is_flag=True, help="Apache Kafka instead of the embedded broker (Java 17; fetched once).")
@click.option("--bare", is_flag=True, help="Only broker and store: no rating worker, no watch.")
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as one JSON object.")
@click.pass_obj
def command(settings: Settings, background: bool, stop: bool, kafka: bool, bare: bool, as_json: bool) -> None:
    """Start the embedded broker and store in the data folder (WATTRATE_DATA_DIR), loopback only, a worker and watch.

    Other wattrate commands that use the same data folder find them by themselves. The store keeps its data; the
    embedded broker keeps its log in memory, so a restart begins a new log: publish again after it.
    """
    if stop:
        stopped = stop_running(settings.data_dir)
        print("stopped" if stopped else f"nothing runs in {settings.data_dir}")
        return
    if background:
        _tell(_start_background(settings, kafka, bare), settings, as_json)
    else:
        _run_foreground(settings, kafka, bare, as_json)


def _run_foreground(settings: Settings, kafka: bool, bare: bool, as_json: bool) -> None:
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    with Stack.start(settings, kafka=kafka) as stack:
        prepare(stack.settings)
        commands = () if bare else SERVICES
        with Services.start(stack.settings, commands, _config()) as services:
            run = stack.write_run_file(os.getpid(), ready=True, services=services.pids())
            _tell(run, settings, as_json)
            while not done.wait(0.5):
                services.check()
                if dead := stack.dead_part():
                    raise EmbeddedError(dead)


def _config() -> Path | None:
    given: Path | None = click.get_current_context().find_root().params.get("config")
    return given


def _start_background(settings: Settings, kafka: bool, bare: bool) -> Run:
    """Run `wattrate up` in a process of its own and wait for its run file."""
    if Run.read(settings.data_dir):
        raise EmbeddedError(f"a stack runs in {settings.data_dir} already; `wattrate up --stop` ends it")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    same = ["--config", str(_config())] if _config() else []
    chosen = [*(["--kafka"] if kafka else []), *(["--bare"] if bare else [])]
    log = settings.data_dir / "up.log"
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *same, "up", *chosen],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _BACKGROUND_TIMEOUT_S
    while time.monotonic() < deadline and child.poll() is None:
        run = Run.read(settings.data_dir)
        if run and run.ready:
            return run
        time.sleep(0.05)
    said = log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"]
    raise EmbeddedError(f"the stack did not start: {said[-1]} (all of it: {log})")


def _tell(run: Run, settings: Settings, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"pid": run.pid, "data_dir": str(settings.data_dir), **run.settings}), flush=True)
        return
    print(f"broker     {run.settings['kafka_bootstrap']}  (Kafka protocol)")
    print(f"store      http://{run.settings['clickhouse_host']}:{run.settings['clickhouse_port']}  (ClickHouse)")
    for name in SERVICES:
        if name in run.parts:
            print(f"{name:<10} process {run.parts[name]}, log {settings.data_dir.absolute() / name}.log")
    print(f"data       {settings.data_dir.absolute()}", flush=True)

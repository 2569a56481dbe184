"""Limits and slowness: parts, memory, queues, a read-only disk, an insert slower than the poll interval, odd clocks."""

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clickhouse import Store
from pipeline.embedded.stack import EmbeddedStore, Stack
from pipeline.settings import Settings
from tests.contract.proxy import Fault, Proxy
from tests.faults.interpose import Action, Interposer, build
from tests.faults.kills import TAKEN_OVER
from tests.faults.rig import (
    Process,
    await_rated,
    environment,
    equal_to_oracle,
    repeatable,
    tell,
)
from tests.faults.test_outages import OUTAGE, fed, small
from tests.faults.zygote import Zygote
from tests.stack import prepared

SEED = 10_001
DAY_S = 86_400


@contextmanager
def working(settings: Settings, folder: Path) -> Iterator[Process]:
    """A worker that must rate all of the log, end well and have said no traceback."""
    with Process(settings, folder / "worker.log") as worker:
        assert worker.await_word(TAKEN_OVER), worker.said()
        yield worker
        await_rated(settings)
        assert worker.stop() == 0, worker.said()
        assert "Traceback" not in worker.said(), worker.said()


def test_too_many_parts_are_an_outage(ready: Settings, tmp_path: Path) -> None:
    settings = small(ready)
    few = {"parts_to_throw_insert": "1", "parts_to_delay_insert": "1"}
    with working(settings, tmp_path) as worker, Store(settings) as store:
        store.command("SYSTEM STOP MERGES reading_rows")
        changes = ", ".join(f"{name} = {value}" for name, value in few.items())
        store.command(f"ALTER TABLE reading_rows MODIFY SETTING {changes}")
        feeder = fed(settings, tmp_path, SEED, 1.0)
        assert worker.await_word(OUTAGE), worker.said()
        assert "Too many parts" in worker.said()
        store.command(f"ALTER TABLE reading_rows RESET SETTING {', '.join(few)}")
        store.command("SYSTEM START MERGES reading_rows")
        feeder.done()
    tell(equal_to_oracle(settings))


def test_a_disk_that_is_read_only_for_a_while_is_an_outage(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Interposer(build(tmp_path), tmp_path / "control", str(tmp_path / "store")) as shim:
        with monkeypatch.context() as patch:
            for name, value in shim.environ.items():
                patch.setenv(name, value)
            part = EmbeddedStore.start(stack.settings, tmp_path)
        try:
            settings = small(prepared(replace(stack.settings, clickhouse_port=part.port)))
            feeder = fed(settings, tmp_path, SEED + 1, 3.0)
            with working(settings, tmp_path) as worker:
                shim.arm(1, Action.READ_ONLY, calls=1 << 31)
                assert worker.await_word(OUTAGE), worker.said()
                assert "Read-only file system" in worker.said()
                shim.disarm()
                feeder.done()
            assert shim.fired
            tell(equal_to_oracle(settings))
        finally:
            part.stop()


def test_a_store_without_memory_is_an_outage(ready: Settings, tmp_path: Path) -> None:
    settings = small(ready)
    feeder = fed(settings, tmp_path, SEED + 2, 0.5)
    poor = replace(settings, clickhouse_settings={"max_memory_usage": "60000"})
    with Process(poor, tmp_path / "worker.log") as worker:
        assert worker.await_word(OUTAGE), worker.said()  # of its take-over: before that it is not in the group yet
        assert "emory limit" in worker.said(), worker.said()
        assert worker.stop() in (0, 5), worker.said()  # an outage is no reason not to end when asked
    feeder.done()
    with working(settings, tmp_path):
        pass
    tell(equal_to_oracle(settings))


def test_a_worker_without_memory_dies_and_the_next_one_goes_on(ready: Settings, tmp_path: Path) -> None:
    settings = small(ready)
    feeder = fed(settings, tmp_path, SEED + 3, 4.0)
    with Process(settings, tmp_path / "poor.log") as worker:
        assert worker.await_word(TAKEN_OVER), worker.said()
        used = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
        worker.ended(6.0)  # it may die of it or get by
        worker.kill()
    feeder.done()
    with working(settings, tmp_path):
        pass
    tell(equal_to_oracle(settings))


def test_a_producer_whose_queue_is_full_waits(ready: Settings, tmp_path: Path) -> None:
    settings = small(ready)
    feeder = fed(settings, tmp_path, SEED + 4, 0.5)
    with working(replace(settings, kafka_options={"queue.buffering.max.messages": "3"}), tmp_path):
        feeder.done()
    tell(equal_to_oracle(settings))


@contextmanager
def slow_inserts(
    ready: Settings, folder: Path, seed: int, *, max_poll_interval_s: float, fault: Fault
) -> Iterator[Process]:
    """A worker under load whose store is slow while the block runs; equal to the oracle in the end."""
    settings = replace(small(ready), max_poll_interval_s=max_poll_interval_s, clickhouse_timeout_s=40.0)
    feeder = fed(settings, folder, seed, 3.0)
    with Proxy(settings.clickhouse_port) as proxy, \
            working(replace(settings, clickhouse_port=proxy.port), folder) as worker:  # fmt: skip
        with proxy.fault(fault):
            yield worker
        proxy.drop_all()  # a connection that was hit stays slow
        feeder.done()
    tell(equal_to_oracle(settings))


def test_an_insert_slower_than_the_poll_interval_costs_the_partitions_and_nothing_else(
    ready: Settings, tmp_path: Path
) -> None:
    slow = Fault(delay_s=16.0, times=2)
    with slow_inserts(ready, tmp_path, SEED + 5, max_poll_interval_s=10.0, fault=slow) as worker:
        assert worker.await_word("too slow"), worker.said()


def test_a_batch_that_comes_near_the_poll_interval_is_told_before_the_group_acts(
    ready: Settings, tmp_path: Path
) -> None:
    slow = Fault(delay_s=4.5, times=1)  # a batch waits for three answers or so: tables are inserted side by side
    with slow_inserts(ready, tmp_path, SEED + 8, max_poll_interval_s=20.0, fault=slow) as worker:
        assert worker.await_word("slow: this batch came near"), worker.said()
    assert "too slow" not in worker.said(), worker.said()


def test_an_insert_that_lands_after_the_worker_gave_it_up(ready: Settings, tmp_path: Path) -> None:
    settings = small(ready)
    with repeatable(SEED + 6, "pytest tests/faults/test_limits.py -k lands_after") as rng, \
            Proxy(settings.clickhouse_port) as proxy:  # fmt: skip
        feeder = fed(settings, tmp_path, SEED + 6, 6.0)
        hasty = replace(settings, clickhouse_port=proxy.port, clickhouse_timeout_s=1.0)
        with working(hasty, tmp_path) as worker:
            for _ in range(3):
                with proxy.fault(Fault(late_s=1.5, times=2)):
                    time.sleep(rng.uniform(2.0, 3.0))
            feeder.done()
            assert OUTAGE in worker.said()
        tell(equal_to_oracle(settings))


def test_a_clock_that_jumps_a_day_changes_no_row(ready: Settings, tmp_path: Path) -> None:
    settings = small(ready)
    feeder = fed(settings, tmp_path, SEED + 7, 4.0)
    log = tmp_path / "worker.log"
    with Interposer(build(tmp_path), tmp_path / "control", "none") as shim, Zygote(shim.environ) as zygote:
        pid = zygote.start(environment(settings) | shim.environ, log, "rate")
        try:
            for jump_s in (DAY_S, -DAY_S, 0, 3 * DAY_S):
                shim.shift_clock(jump_s)
                time.sleep(1.0)
            feeder.done()
            await_rated(settings)
        finally:
            os.kill(pid, signal.SIGTERM)
        assert zygote.poll(60.0) == 0, log.read_text()
    days = {line[:10] for line in log.read_text().splitlines() if line[:2] == "20"}
    assert len(days) > 1, "the clock did not jump"
    tell(equal_to_oracle(settings))

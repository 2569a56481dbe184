"""A Faust agent that does the work of one reading after the other and inserts in batches: the usual way, done well.

Raw bytes (no models), msgspec, one agent, the memory table of `plain_meter`, Arrow inserts of 10,000 rows in a thread
so that the loop goes on. At least once, as Faust is: no markers, no read-back. Started by `competitors`.
"""

import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
import time
from typing import Any, Final

import faust

from benchmarks.plain_meter import Meter, Row, table_of
from benchmarks.stand import settings_from
from benchmarks.workload import Workload
from pipeline.clickhouse import Store
from pipeline.embedded.processes import die_with_parent
from pipeline.settings import Settings
from pipeline.topics import CONTROL_PREFIX, READINGS

INSERT_ROWS: Final = 10_000


class Job:
    """What the agent holds between events."""

    def __init__(self, settings: Settings, workload: Workload, table: str) -> None:
        self.meter = Meter(workload)
        self.first_s = 0.0
        self.first_cpu_s = 0.0
        self._expected = workload.readings
        self._store = Store(settings)
        self._table = table
        self._rows: list[Row] = []

    async def take(self, value: bytes) -> bool:
        """One event; whether it was the last."""
        if value.startswith(CONTROL_PREFIX):
            return False
        if not self.first_s:
            self.first_s, self.first_cpu_s = time.monotonic(), cpu_s()
        self._rows += self.meter.read(value)
        last = self.meter.readings == self._expected
        if len(self._rows) >= INSERT_ROWS or last:
            rows, self._rows = self._rows, []
            await asyncio.to_thread(self._store.insert, self._table, table_of(rows))
        return last

    def report(self) -> dict[str, Any]:
        """What it did."""
        return {
            "readings": self.meter.readings,
            "seconds": time.monotonic() - self.first_s,
            "cpu_s": cpu_s() - self.first_cpu_s,
        }


def cpu_s() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def make_app(settings: Settings, job: Job, folder: str) -> faust.App:
    """The application with its agent."""
    app = faust.App(
        f"{settings.group_id}-faust",
        broker=f"kafka://{settings.kafka_bootstrap}",
        store="memory://",
        datadir=folder,
        web_enabled=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        stream_buffer_maxsize=16_384,
        consumer_max_fetch_size=4 << 20,
        broker_commit_interval=2.0,
        broker_session_timeout=6.0,  # the embedded broker lets a group begin after half of it
        broker_heartbeat_interval=1.0,
    )
    readings = app.topic(settings.topic(READINGS), key_type=bytes, value_type=bytes, value_serializer="raw")

    @app.agent(readings)
    async def rate(stream: Any) -> None:
        async for value in stream:
            if await job.take(value):
                print(json.dumps(job.report()), flush=True)
                os.kill(os.getpid(), signal.SIGTERM)  # an agent that waits for its own application's end waits for ever

    return app


def main() -> None:
    """Settings, workload and table come as JSON lines on standard input."""
    die_with_parent()
    settings = settings_from(sys.stdin.readline())
    workload = Workload(**json.loads(sys.stdin.readline()))
    job = Job(settings, workload, sys.stdin.readline().strip())
    with tempfile.TemporaryDirectory() as folder:
        app = make_app(settings, job, folder)
        faust.Worker(app, loglevel="ERROR", quiet=True, redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()

"""Writing a stream of messages into meter.readings: in its order, at a chosen speed, every record confirmed.

Or into a file, one JSON object a line, for those who want to look at them first.
"""

import base64
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.clickhouse import Store
from pipeline.kafka import Sender
from pipeline.publication import Published, publish, read_documents
from pipeline.settings import Settings
from pipeline.simulate.message import Batch
from pipeline.topics import READINGS


@dataclass(frozen=True)
class Written:
    """What went into the log."""

    messages: int
    bytes: int
    elapsed_s: float


class Pace:
    """Waits so that simulated time runs `speed` times as fast as the clock; 0 never waits."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._first_ms = -1
        self._began = 0.0

    def reach(self, time_ms: int) -> None:
        """Return when the simulated instant `time_ms` is due."""
        if not self._speed:
            return
        if self._first_ms < 0:
            self._first_ms, self._began = time_ms, time.monotonic()
        due = self._began + (time_ms - self._first_ms) / 1_000 / self._speed
        wait = due - time.monotonic()
        if wait > 0.001:
            time.sleep(wait)


def write(
    settings: Settings,
    batches: Iterable[Batch],
    *,
    speed: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Send all batches to meter.readings and return when every record is confirmed.

    Records of one partition keep their order: one idempotent producer sends them all. `speed` is simulated
    seconds a second, 0 as fast as possible. `progress` is called after each batch with the messages so far and
    the simulated time in ms. Raises DeliveryError, BrokerUnavailableError or TopicError.
    """
    began = time.monotonic()
    size = 0
    pace = Pace(speed)
    with Sender(settings, linger_ms=20.0 if not speed else 5.0) as sender:
        sender.partition_count(READINGS)  # a missing topic is told before the first record
        for batch in batches:
            size += _send(sender, batch, pace)
            if progress and batch.times_ms:
                progress(sender.sent, batch.times_ms[-1])
        sender.flush()
        sent = sender.sent
    return Written(sent, size, time.monotonic() - began)


def _send(sender: Sender, batch: Batch, pace: Pace) -> int:
    size, last_ms = 0, -1
    for time_ms, key, value, partition, headers in zip(*batch, strict=True):
        if time_ms != last_ms:
            pace.reach(time_ms)
            last_ms = time_ms
        size += len(value)
        sender.send(
            READINGS, value, key, partition=-1 if partition is None else partition, headers=list(headers) or None
        )
    return size


def publish_folder(settings: Settings, folder: Path) -> Published:
    """Publish the tariffs, locations and tokens of a folder. Raises DocumentError, StoreError or BrokerError."""
    documents = read_documents([folder])
    with Store(settings) as store, Sender(settings) as sender:
        return publish(store, sender, documents)


def write_lines(file: IO[str], batches: Iterable[Batch]) -> int:
    """Write messages as JSON lines (time_ms, key, partition, headers, value or value_base64); returns their number."""
    count = 0
    for batch in batches:
        for time_ms, key, value, partition, headers in zip(*batch, strict=True):
            record: dict[str, object] = {
                "time_ms": time_ms,
                "key": key.decode() if key is not None else None,
                "partition": partition,
                "headers": {name: content.decode() for name, content in headers},
            }
            try:
                record["value"] = value.decode()
            except UnicodeDecodeError:
                record["value_base64"] = base64.b64encode(value).decode()
            file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
            count += 1
    return count

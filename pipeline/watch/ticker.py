"""Writes the time into the log: a `tick` to every partition of meter.readings, never earlier than the one before.

Time-outs, silence and hold limits fire on ticks, in the worker, so that a replay of the log decides the same.
"""

import time
from collections.abc import Callable

from pipeline.codec.control import Tick, encode_control
from pipeline.errors import BrokerUnavailableError
from pipeline.kafka import Sender
from pipeline.log import Log
from pipeline.settings import Settings
from pipeline.topics import READINGS

LOG = Log("watch")


def wall_clock_ms() -> int:
    """UTC ms."""
    return time.time_ns() // 1_000_000


class Ticker:
    """Used by one thread at a time."""

    def __init__(self, settings: Settings, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        """`clock_ms` is the wall clock."""
        self._settings, self._clock_ms = settings, clock_ms
        self._sender: Sender | None = None
        self.last_ms = 0
        self.ticks = 0
        self.trouble = ""
        self.beat_s = time.monotonic()

    def tick(self) -> None:
        """Write one, or say that the broker is away; a tick that is late by then tells its own time."""
        self.beat_s = time.monotonic()
        try:
            if self._sender is None:
                self._sender = Sender(self._settings)
            self.last_ms = max(self.last_ms, self._clock_ms())
            self._sender.broadcast(READINGS, encode_control(Tick(time_ms=self.last_ms)))
        except BrokerUnavailableError as outage:
            if not self.trouble:
                LOG.warning("ticks wait", reason=outage.message)
            self.trouble = outage.message
            return
        self.ticks += 1
        self.trouble = ""
        self.beat_s = time.monotonic()

    def close(self) -> None:
        """Let go of the producer."""
        if self._sender is not None:
            self._sender.close()

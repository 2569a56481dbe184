"""What a worker touches of the outside: the log, the ledger, reference data, clock and thread.

A worker is given its doors, so that the simulation can give it others; `RealDoors` are Kafka and ClickHouse. Nothing
is decided here.
"""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, Self

from pipeline.clickhouse import Store
from pipeline.kafka import Admin, Headers, Message, Reader, Sender
from pipeline.ledger import Ledger
from pipeline.rate.ledger_history import PastRows, StorePast
from pipeline.reference import ReferenceData
from pipeline.settings import Settings
from pipeline.store import StoreLedger
from pipeline.topics import READINGS


class Clock(Protocol):
    """Time as the worker sees it; no row depends on it."""

    def monotonic(self) -> float:
        """Seconds that only grow."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def now_ms(self) -> int:
        """UTC, for what is only looked at by people."""


class Sending(Protocol):
    """A producer that knows what was confirmed; as `pipeline.kafka.Sender`."""

    def send(self, topic: str, value: bytes, key: bytes | None = None, *, headers: Headers | None = None) -> None:
        """Queue one record."""

    def flush(self) -> None:
        """Return once every record is confirmed."""

    def purge(self) -> None:
        """Forget what is queued."""

    def close(self) -> None:
        """Let go of the connection."""


class Playing(Protocol):
    """A reader of partitions from offsets on, in no group."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read these partitions from these offsets, outside any group."""

    def consume(self, records: int, timeout_s: float) -> list[Message]:
        """Up to `records` records, waiting `timeout_s` at most."""

    def high_watermark(self, partition: int) -> int | None:
        """End of the partition as the last fetch told it."""


class Reading(Playing, Protocol):
    """A consumer of the readings topic; as `pipeline.kafka.Reader`."""

    def subscribe(
        self,
        on_assign: Callable[[list[int]], Mapping[int, int]],
        on_revoke: Callable[[list[int]], None],
        on_lost: Callable[[list[int]], None],
    ) -> None:
        """Join the group."""

    def pause(self, partitions: Iterable[int]) -> None:
        """Hand out no more records of these partitions."""

    def resume(self, partitions: Iterable[int]) -> None:
        """Go on with them."""

    def seek(self, partition: int, offset: int) -> None:
        """Go on with `offset` in an assigned partition."""

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Store the next offsets with the group."""

    def close(self) -> None:
        """Leave the group."""


class Thread(Protocol):
    """Does one thing after the other, beside the caller; as a ThreadPoolExecutor of one."""

    def submit(self, work: Callable[..., Any], /, *given: Any) -> "Future[Any]":
        """Do it when what was given before is done."""

    def shutdown(self, wait: bool = True) -> None:
        """End, after what is being done."""


class Doors(Protocol):
    """All of them. Each call opens one; what is opened is closed by whoever asked, the connections by `close`."""

    @property
    def member(self) -> str:
        """The name under which this worker claims; no two have ever the same."""

    @property
    def partitions(self) -> int:
        """Of the readings topic."""

    @property
    def log_id(self) -> int:
        """Of the readings topic."""

    @property
    def clock(self) -> Clock:
        """The clock."""

    def ledger(self) -> Ledger:
        """The ledger over a connection of its own: one a thread."""

    def past(self) -> PastRows:
        """The past of sessions, for the worker's own thread."""

    def load(self, data: ReferenceData, version: int) -> ReferenceData:
        """Reference data at a version, made from an earlier one; for the worker's own thread."""

    def sender(self) -> Sending:
        """A producer."""

    def reader(self) -> Reading:
        """A consumer in the worker's group."""

    def tape(self) -> Playing:
        """The log again, in no group."""

    def thread(self, name: str) -> Thread:
        """A thread of the worker's."""

    def close(self) -> None:
        """Close every connection to the store."""


class WallClock:
    """This machine's."""

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)  # the other side of an outage needs time; nothing else is to be done

    def now_ms(self) -> int:
        """UTC."""
        return time.time_ns() // 1_000_000


class RealDoors:
    """Kafka and ClickHouse as the settings name them."""

    def __init__(self, settings: Settings, partitions: int, log_id: int) -> None:
        """Connect to the store. Raises outages as they are."""
        self._settings = settings
        self.member = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.partitions, self.log_id = partitions, log_id
        self.clock = WallClock()
        self._stores = [Store(settings)]

    @classmethod
    def of_topic(cls, settings: Settings) -> Self:
        """Of the readings topic. Raises TopicError where `wattrate init` was not run, outages as they are."""
        admin = Admin(settings)
        return cls(settings, admin.partition_count(READINGS), admin.log_id(READINGS))

    def connection(self) -> Store:
        """One more to the store, closed with the others."""
        self._stores.append(Store(self._settings))
        return self._stores[-1]

    def ledger(self) -> Ledger:
        """The ledger over a connection of its own."""
        return StoreLedger(self.connection(), self.log_id)

    def past(self) -> PastRows:
        """Over the connection of the worker's own thread."""
        return StorePast(self._stores[0], self.log_id)

    def load(self, data: ReferenceData, version: int) -> ReferenceData:
        """Over the connection of the worker's own thread."""
        return data.advance(self._stores[0], version)

    def sender(self) -> Sending:
        """A producer."""
        return Sender(self._settings)

    def reader(self) -> Reading:
        """A consumer in the worker's group."""
        return Reader(self._settings, READINGS, group_id=self._settings.group_id)

    def tape(self) -> Playing:
        """A consumer in no group."""
        return Reader(self._settings, READINGS)

    def thread(self, name: str) -> Thread:
        """A thread."""
        return ThreadPoolExecutor(1, name)

    def close(self) -> None:
        """Close every connection to the store."""
        for store in self._stores:
            store.close()

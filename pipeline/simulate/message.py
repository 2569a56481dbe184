"""What a generator hands to the log: one message, or many in columns."""

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

Headers = tuple[tuple[str, bytes], ...]
ARROW_HEADERS: Headers = (("content-type", b"application/vnd.apache.arrow.stream"),)


class Message(NamedTuple):
    """One record of meter.readings. `time_ms` is its arrival at the gateway, which orders the log."""

    time_ms: int
    key: bytes | None
    value: bytes
    partition: int | None  # None: by key, as the producer's murmur2_random partitioner does
    headers: Headers = ()


class Batch(NamedTuple):
    """Messages in columns, in log order; all lists have one length."""

    times_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes]
    partitions: list[int | None]
    headers: list[Headers]

    def messages(self) -> Iterator[Message]:
        """The same messages one by one."""
        return map(Message._make, zip(*self, strict=True))


class Chunk(NamedTuple):
    """What a fleet did in one window of simulated time, up to and including the tick of `until_ms`."""

    until_ms: int
    batch: Batch
    truth: pa.Table  # of the sessions that began in this window; see `truth.SCHEMA`
    readings: int  # meter values in the batch; Arrow messages hold many

"""Kafka messages to records by partition: the one place where each message is touched in Python."""

from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Final

import numpy as np

from pipeline.codec.records import Records
from pipeline.kafka import Message
from pipeline.topics import CONTENT_TYPE

_BRACE: Final = 0x7B
_SIGNED: Final = b"igned"  # of SignedData in OCPP 1.6, of signedMeterValue in 2.x
_ONE_IN: Final = 16  # records are looked at while none is signed: to look at each took a tenth of a worker


class Glance:
    """Which of the messages that were just read seem to bear a signed meter value.

    From one that is seen on, each message is looked at, until there is none among those of a call.
    """

    def __init__(self) -> None:
        self._seen = False

    def signed(self, messages: Sequence[Message]) -> list[Message]:
        """Some or all of those that do; of messages without any, never one."""
        if not self._seen and not _signed(messages[::_ONE_IN]):
            return []
        found = _signed(messages)
        self._seen = bool(found)
        return found


def by_partition(messages: Sequence[Message]) -> dict[int, Records]:
    """Partition → its records in offset order."""
    if not messages:
        return {}
    count, message = len(messages), type(messages[0])  # its methods, called by `map`, take no frame of Python each
    partitions = np.fromiter(map(message.partition, messages), np.int32, count)
    values = [value or b"" for value in map(message.value, messages)]
    keys = list(map(message.key, messages))
    offsets = np.fromiter(map(message.offset, messages), np.int64, count)
    times_ms = np.fromiter(map(itemgetter(1), map(message.timestamp, messages)), np.int64, count)
    whole = Records(values, keys, offsets, _content_types(messages, values), times_ms)
    found: dict[int, list[Records]] = {}
    edges = [0, *(np.flatnonzero(np.diff(partitions)) + 1).tolist(), count]
    for first, stop in pairwise(edges):  # the client hands out runs of one partition
        found.setdefault(int(partitions[first]), []).append(cut(whole, first, stop))
    return {partition: joined(runs) for partition, runs in sorted(found.items())}


def cut(records: Records, first: int, stop: int | None) -> Records:
    """Records from place `first` to `stop`."""
    return Records(
        records.values[first:stop],
        records.keys[first:stop],
        records.offsets[first:stop],
        None if records.content_types is None else records.content_types[first:stop],
        None if records.times_ms is None else records.times_ms[first:stop],
    )


def joined(parts: list[Records]) -> Records:
    """Records one behind the other."""
    if len(parts) == 1:
        return parts[0]
    kinds = [part.content_types for part in parts]
    content_types = None
    if any(kind is not None for kind in kinds):
        content_types = [k for part in parts for k in (part.content_types or [None] * len(part.values))]
    times = [part.times_ms for part in parts]
    return Records(
        [value for part in parts for value in part.values],
        [key for part in parts for key in part.keys],
        np.concatenate([part.offsets for part in parts]),
        content_types,
        None if any(t is None for t in times) else np.concatenate([t for t in times if t is not None]),
    )


def _content_types(messages: Sequence[Message], values: Sequence[bytes]) -> list[str | None] | None:
    """The content type of each record; None where no record names one. JSON objects begin with a brace: not asked."""
    asked = {at: _content_type(messages[at]) for at, value in enumerate(values) if not value or value[0] != _BRACE}
    return [asked.get(at) for at in range(len(values))] if any(asked.values()) else None


def _content_type(message: Message) -> str | None:
    """The content type that the record's headers name."""
    headers: Sequence[tuple[str, bytes | str | None]] = message.headers() or ()  # type: ignore[assignment]
    for name, value in headers:
        if name == CONTENT_TYPE and value is not None:
            return value.decode() if isinstance(value, bytes) else value
    return None


def _signed(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if _SIGNED in (message.value() or b"")]

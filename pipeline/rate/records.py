"""Kafka messages to records by partition: the one place where each message is touched in Python."""

from collections.abc import Sequence

import numpy as np

from pipeline.codec.records import Records
from pipeline.kafka import Message
from pipeline.topics import CONTENT_TYPE


def by_partition(messages: Sequence[Message]) -> dict[int, Records]:
    """Partition → its records in offset order."""
    if not messages:
        return {}
    partitions = np.fromiter((message.partition() for message in messages), np.int32, len(messages))
    values = [message.value() or b"" for message in messages]
    keys = [message.key() for message in messages]
    offsets = np.fromiter((message.offset() for message in messages), np.int64, len(messages))
    times = np.fromiter((message.timestamp()[1] for message in messages), np.int64, len(messages))
    kinds = [
        None if value[:1] == b"{" else _content_type(message) for value, message in zip(values, messages, strict=True)
    ]
    plain = all(kind is None for kind in kinds)
    found = {}
    for partition in np.unique(partitions).tolist():
        at = np.flatnonzero(partitions == partition)
        chosen = at.tolist()
        found[partition] = Records(
            [values[i] for i in chosen], [keys[i] for i in chosen], offsets[at],
            None if plain else [kinds[i] for i in chosen], times[at],
        )  # fmt: skip
    return found


def cut(records: Records, first: int, stop: int | None) -> Records:
    """Records from place `first` to `stop`."""
    return Records(
        records.values[first:stop],
        records.keys[first:stop],
        records.offsets[first:stop],
        None if records.content_types is None else records.content_types[first:stop],
        None if records.times_ms is None else records.times_ms[first:stop],
    )


def _content_type(message: Message) -> str | None:
    """The record's content type; JSON objects are not asked, they begin with a brace."""
    headers: Sequence[tuple[str, bytes | str | None]] = message.headers() or ()  # type: ignore[assignment]
    for name, value in headers:
        if name == CONTENT_TYPE and value is not None:
            return value.decode() if isinstance(value, bytes) else value
    return None

"""The one fact about an Arrow IPC stream that must be known before it is read: whether its buffers are compressed.

A compressed body may unfold to any size, so such streams are refused. Only the flatbuffer fields on the way
there are looked at (Arrow columnar format: Message.header, RecordBatch.compression); everything else is pyarrow's.
"""

from typing import Any

import numpy as np

from pipeline.codec.bytescan import Bytes
from pipeline.codec.records import UndecodableError
from rating.jit import kernel, part

_CONTINUATION = 0xFFFFFFFF
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3  # fields of Message
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # members of the union MessageHeader
_DATA = 1  # field of DictionaryBatch
_COMPRESSION = 3  # field of RecordBatch
_ABSENT, _BROKEN = 0, -1


def check_uncompressed(stream: bytes) -> None:
    """Raises UndecodableError when any batch of the stream has compressed buffers, or the framing is broken."""
    found = _compressed(np.frombuffer(stream, np.uint8))
    if found == _BROKEN:
        raise UndecodableError("bad_arrow", "the framing of the Arrow IPC stream is broken")
    if found:
        raise UndecodableError("bad_arrow", "its buffers are compressed: let Kafka compress the message instead")


@part
def _number(stream: Bytes, at: int, size: int) -> int:
    """The little-endian unsigned number of `size` bytes at `at`; _BROKEN where that is outside."""
    if at < 0 or at + size > len(stream):
        return _BROKEN
    number: Any = 0
    for byte in range(size):
        number |= np.int64(stream[at + byte]) << (8 * byte)
    found: int = number
    return found


@part
def _field(stream: Bytes, table: int, field: int) -> int:
    """Where a flatbuffer table's field stands; _ABSENT when it has none, _BROKEN when it points outside."""
    back = _number(stream, table, 4)
    vtable = table - (back if back < 1 << 31 else back - (1 << 32))
    size = _number(stream, vtable, 2)
    if back == _BROKEN or size == _BROKEN:
        return _BROKEN
    if 4 + 2 * field >= size:
        return _ABSENT
    offset = _number(stream, vtable + 4 + 2 * field, 2)
    return table + offset if offset > 0 else offset


@part
def _batch_compressed(stream: Bytes, message: int) -> int:
    kind_at, header = _field(stream, message, _HEADER_TYPE), _field(stream, message, _HEADER)
    if kind_at <= 0 or header <= 0:
        return min(kind_at, header)
    kind, batch = _number(stream, kind_at, 1), header + _number(stream, header, 4)
    if kind == _DICTIONARY_BATCH:
        data = _field(stream, batch, _DATA)
        if data <= 0:
            return data
        batch = data + _number(stream, data, 4)
    elif kind != _RECORD_BATCH:
        return _ABSENT
    return _field(stream, batch, _COMPRESSION)


@kernel
def _compressed(stream: Bytes) -> int:
    """More than 0 when a message of the stream is compressed, 0 when none is, _BROKEN when the framing is."""
    at = 0
    while at + 4 <= len(stream):
        size = _number(stream, at, 4)
        at += 4
        if size == _CONTINUATION:
            size = _number(stream, at, 4)
            at += 4
        if size == 0:
            return 0
        message = at + _number(stream, at, 4)
        found = _batch_compressed(stream, message)
        body = _field(stream, message, _BODY_LENGTH)
        if found != 0 or body < 0 or size < 0:
            return found if found > 0 else _BROKEN
        body_bytes = _number(stream, body, 8) if body else 0
        if body_bytes < 0 or body_bytes > len(stream):
            return _BROKEN
        at += size + body_bytes
    return 0

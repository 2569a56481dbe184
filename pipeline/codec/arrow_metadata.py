"""The one fact about an Arrow IPC stream that must be known before it is read: whether its buffers are compressed.

A compressed body may unfold to any size, so such streams are refused. Only the flatbuffer fields on the way
there are looked at (Arrow columnar format: Message.header, RecordBatch.compression); everything else is pyarrow's.
"""

import struct

from pipeline.codec.records import UndecodableError

_CONTINUATION = 0xFFFFFFFF
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3  # fields of Message
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # members of the union MessageHeader
_DATA = 1  # field of DictionaryBatch
_COMPRESSION = 3  # field of RecordBatch


def is_compressed(stream: bytes) -> bool:
    """Whether any batch of the stream has compressed buffers; raises UndecodableError when the framing is broken."""
    try:
        return _any_compressed(stream)
    except struct.error as error:
        raise UndecodableError("bad_arrow", "the framing of the Arrow IPC stream is broken") from error


def _any_compressed(stream: bytes) -> bool:
    at = 0
    while at + 4 <= len(stream):
        (size,) = struct.unpack_from("<I", stream, at)
        at += 4
        if size == _CONTINUATION:
            (size,) = struct.unpack_from("<I", stream, at)
            at += 4
        if size == 0:
            return False
        message = at + _u32(stream, at)
        if _compressed(stream, message):
            return True
        body = _field(stream, message, _BODY_LENGTH)
        body_bytes = struct.unpack_from("<q", stream, body)[0] if body else 0
        if body_bytes < 0:
            raise UndecodableError("bad_arrow", "a message of the Arrow IPC stream has a negative length")
        at += size + body_bytes
    return False


def _compressed(stream: bytes, message: int) -> bool:
    kind_at, header = _field(stream, message, _HEADER_TYPE), _field(stream, message, _HEADER)
    if not kind_at or not header:
        return False
    batch = header + _u32(stream, header)
    kind = struct.unpack_from("<B", stream, kind_at)[0]
    if kind == _DICTIONARY_BATCH:
        data = _field(stream, batch, _DATA)
        return bool(data) and bool(_field(stream, data + _u32(stream, data), _COMPRESSION))
    return kind == _RECORD_BATCH and bool(_field(stream, batch, _COMPRESSION))


def _field(stream: bytes, table: int, number: int) -> int:
    """Where a flatbuffer table's field stands; 0 when it is absent."""
    vtable = table - struct.unpack_from("<i", stream, table)[0]
    if vtable < 0:
        raise UndecodableError("bad_arrow", "the metadata of the Arrow IPC stream points outside itself")
    if 4 + 2 * number >= struct.unpack_from("<H", stream, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", stream, vtable + 4 + 2 * number)[0]
    return table + int(offset) if offset else 0


def _u32(stream: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", stream, at)[0])

"""Single JSON fields that chargers write in more than one way: text or number, null or absent."""

import re
from typing import Annotated

import msgspec

from pipeline.codec import instants
from pipeline.codec import vocabulary as words
from pipeline.codec.records import TRANSACTION_ID_BYTES, UndecodableError
from pipeline.metering import columns

NOTHING = msgspec.Raw(b"")
Small = Annotated[int, msgspec.Meta(ge=0, le=65535)]  # connector and EVSE numbers
Name = Annotated[str, msgspec.Meta(max_length=255)]
_INTEGER = re.compile(rb"-?[0-9]+")
_text_decoder = msgspec.json.Decoder(str)


def text_of(raw: msgspec.Raw) -> tuple[bytes, bool]:
    """The field's characters without quotes, and whether it was a JSON string. Absent, null: (b"", False)."""
    data = bytes(raw)
    if data[:1] == b'"':
        return (_text_decoder.decode(data).encode() if b"\\" in data else data[1:-1]), True
    return (b"" if data == b"null" else data), False


def transaction_id(*candidates: msgspec.Raw) -> bytes:
    """The first usable id among the places where one may stand; b"" when there is none.

    Raises UndecodableError when an id is longer than the standard's 36 bytes or holds control characters: cut
    short it could meet another session's.
    """
    for raw in candidates:
        text, quoted = text_of(raw)
        if text in words.UNUSABLE_TRANSACTION_IDS:
            continue
        if len(text) > TRANSACTION_ID_BYTES or min(text) < 0x20 or not (quoted or _INTEGER.fullmatch(text)):
            raise UndecodableError(
                "bad_transaction_id",
                f"transaction id {text[:48]!r} is no integer and no printable text of {TRANSACTION_ID_BYTES} bytes",
            )
        return text
    return b""


def event_time(raw: msgspec.Raw, received_ms: int | None) -> tuple[int, int]:
    """UTC ms of a timestamp field and its flags; the arrival time where the field is unusable.

    Raises UndecodableError (no_time) when there is no arrival time either.
    """
    text, quoted = text_of(raw)
    found = instants.instant(text) if quoted else None
    if found is not None:
        return found[0], 0 if found[1] else columns.FLAG_TIME_NO_ZONE
    if received_ms is None:
        raise UndecodableError(
            "no_time", f"timestamp {text[:40]!r} is unusable and neither received_at nor a record time stands in for it"
        )
    return received_ms, columns.FLAG_TIME_UNUSABLE


def arrival_ms(raw: msgspec.Raw, record_ms: int | None) -> int | None:
    """When the gateway had it: received_at, else Kafka's record time, else unknown."""
    text, quoted = text_of(raw)
    found = instants.instant(text) if quoted else None
    return found[0] if found else record_ms


def state_of(word: str | None) -> tuple[int, int]:
    """State code of a status word and its flags; an unknown word is dropped, not guessed."""
    if word is None:
        return columns.STATE_UNKNOWN, 0
    state = words.STATES.get(word)
    return (columns.STATE_UNKNOWN, columns.FLAG_VALUE_DROPPED) if state is None else (state, 0)

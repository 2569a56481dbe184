"""One JSON record to a message, by msgspec: complete and plain. The fast scanners must agree with it to the bit."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from pipeline.codec import messages
from pipeline.codec.fields import NOTHING, Name, arrival_ms
from pipeline.codec.messages import Message
from pipeline.codec.records import UndecodableError

MAX_JSON_BYTES = 1 << 20


class Envelope(msgspec.Struct, gc=False):
    """What stands around a message of the standard."""

    charge_point_id: Name
    ocpp_version: str
    action: str
    payload: msgspec.Raw
    received_at: msgspec.Raw = NOTHING
    transaction_id: msgspec.Raw = NOTHING


class FlatRecord(messages.Flat, gc=False, kw_only=True):
    """The flat form with its charge point."""

    charge_point_id: Name
    received_at: msgspec.Raw = NOTHING


class Arrived(NamedTuple):
    """A message, who sent it and when it was received."""

    charge_point_id: str
    received_ms: int | None
    message: Message


_Reader = Callable[[Any, int | None, msgspec.Raw], Message]
_VERSIONS = {
    "1.6": 1,
    "1.6J": 1,
    "ocpp1.6": 1,
    "2.0.1": 2,
    "ocpp2.0.1": 2,
    "2.1": 2,
    "ocpp2.1": 2,
}
_ACTIONS: dict[tuple[int, str], tuple[msgspec.json.Decoder[Any], _Reader]] = {
    (1, "StartTransaction"): (msgspec.json.Decoder(messages.StartTransaction), messages.read_start16),
    (1, "MeterValues"): (msgspec.json.Decoder(messages.MeterValues16), messages.read_values16),
    (1, "StopTransaction"): (msgspec.json.Decoder(messages.StopTransaction), messages.read_stop16),
    (1, "StatusNotification"): (msgspec.json.Decoder(messages.StatusNotification16), messages.read_status16),
    (2, "TransactionEvent"): (msgspec.json.Decoder(messages.TransactionEvent), messages.read_event2),
    (2, "MeterValues"): (msgspec.json.Decoder(messages.MeterValues2), messages.read_values2),
    (2, "StatusNotification"): (msgspec.json.Decoder(messages.StatusNotification2), messages.read_status2),
}
_PAYLOAD = re.compile(rb'"payload"[ \t\r\n]*:')  # only an envelope has this member
_envelope_decoder = msgspec.json.Decoder(Envelope)
_flat_decoder = msgspec.json.Decoder(FlatRecord)


def read_record(value: bytes, key: bytes | None, record_ms: int | None) -> Arrived:
    """The message in a JSON record; raises UndecodableError with a reason for anything else."""
    if len(value) > MAX_JSON_BYTES:
        raise UndecodableError("too_large", f"{len(value):,} bytes of JSON; the limit is {MAX_JSON_BYTES:,}")
    try:
        if not value.isascii():
            value.decode()
        arrived = _read(value, record_ms)
    except msgspec.ValidationError as error:
        raise UndecodableError("bad_shape", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UndecodableError("bad_json", str(error)) from error
    except RecursionError as error:
        raise UndecodableError("bad_json", "nested deeper than any message of the standard") from error
    _check_sender(arrived, key)
    return arrived


def _read(value: bytes, record_ms: int | None) -> Arrived:
    if _PAYLOAD.search(value) is None:
        flat = _flat_decoder.decode(value)
        received_ms = arrival_ms(flat.received_at, record_ms)
        return Arrived(flat.charge_point_id, received_ms, messages.read_flat(flat, received_ms))
    envelope = _envelope_decoder.decode(value)
    version = _VERSIONS.get(envelope.ocpp_version)
    if version is None:
        raise UndecodableError(
            "unsupported_version", f"OCPP {envelope.ocpp_version[:40]!r}: 1.6, 2.0.1 and 2.1 are read"
        )
    found = _ACTIONS.get((version, envelope.action))
    if found is None:
        raise UndecodableError(
            "unsupported_action", f"{envelope.action[:60]!r} tells of no meter value, transaction or status"
        )
    decoder, read = found
    received_ms = arrival_ms(envelope.received_at, record_ms)
    message = read(decoder.decode(envelope.payload), received_ms, envelope.transaction_id)
    if not message.lines:
        raise UndecodableError("no_values", f"{envelope.action} without a single meterValue entry")
    return Arrived(envelope.charge_point_id, received_ms, message)


def _check_sender(arrived: Arrived, key: bytes | None) -> None:
    name = arrived.charge_point_id
    if not name or not name.isprintable():
        raise UndecodableError("bad_charge_point_id", f"charge_point_id {name[:40]!r} is empty or not printable")
    if key != name.encode():
        shown = "no key" if key is None else f"key {key[:40]!r}"
        raise UndecodableError(
            "key_mismatch", f"{shown} on a record of {name!r}: its readings could be split over partitions"
        )

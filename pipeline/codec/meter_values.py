"""The meterValue lists of OCPP 1.6 and 2.x: the same words, a string or a number for the value."""

import base64
from typing import Annotated

import msgspec

from pipeline.codec import ocmf
from pipeline.codec import vocabulary as words
from pipeline.codec.fields import NOTHING, event_time, text_of
from pipeline.codec.lines import Line, Signed, Value, read_amount, read_line
from pipeline.metering import columns


class UnitOfMeasure(msgspec.Struct, gc=False):
    """OCPP 2.x: true value = value * 10^multiplier."""

    unit: str | None = None
    multiplier: Annotated[int, msgspec.Meta(ge=-30, le=30)] | None = 0


class SignedMeterValue(msgspec.Struct, gc=False):
    """OCPP 2.x, and the JSON that OCPP 1.6 carries in `value` (OCA: signed meter values in OCPP)."""

    signedMeterData: str
    signingMethod: str | None = None
    encodingMethod: str | None = None
    publicKey: str | None = None


class SampledValue(msgspec.Struct, gc=False):
    """SampledValue of 1.6 (`format`, `unit`) and of 2.x (`unitOfMeasure`, `signedMeterValue`)."""

    value: msgspec.Raw = NOTHING
    context: str | None = None
    format: str | None = None
    measurand: str | None = None
    phase: str | None = None
    location: str | None = None
    unit: str | None = None
    unitOfMeasure: UnitOfMeasure | None = None
    signedMeterValue: SignedMeterValue | None = None


class MeterValue(msgspec.Struct, gc=False):
    """MeterValue of 1.6 and 2.x."""

    timestamp: msgspec.Raw = NOTHING
    sampledValue: list[SampledValue] | None = None


class Bucket(msgspec.Struct, gc=False):
    """All values of one instant in one message."""

    time_ms: int
    flags: int
    values: list[Value]

    def line(self) -> Line:
        """The one sample that these values are."""
        line = read_line(self.time_ms, self.values)
        line.flags |= self.flags
        return line


_signed_decoder = msgspec.json.Decoder(SignedMeterValue)


def buckets(entries: list[MeterValue] | None, received_ms: int | None, quoted: bool) -> list[Bucket]:
    """Entries by instant, ascending, entries of one instant together. `quoted`: values are strings by the standard."""
    by_time: dict[int, Bucket] = {}
    for entry in entries or ():
        time_ms, flags = event_time(entry.timestamp, received_ms)
        bucket = by_time.setdefault(time_ms, Bucket(time_ms, 0, []))
        bucket.flags |= flags
        for sampled in entry.sampledValue or ():
            bucket.values.extend(_read(sampled, quoted))
    return sorted(by_time.values(), key=lambda bucket: bucket.time_ms)


def has_context(bucket: Bucket, context: int) -> bool:
    """Whether any value of the bucket was taken in this context."""
    return any(value.context == context for value in bucket.values)


def _read(sampled: SampledValue, quoted: bool) -> list[Value]:
    """No value, one, or two (a plain one and its signed twin)."""
    quantity = words.MEASURANDS.get(sampled.measurand or words.DEFAULT_MEASURAND)
    phase = words.PHASES.get(sampled.phase, -1) if sampled.phase else 0
    place = words.LOCATIONS.get(sampled.location or "Outlet", -1) if quantity != words.SOC else words.OUTLET
    if quantity is None or phase < 0 or place < 0:
        return []
    context = words.CONTEXTS.get(sampled.context or "Sample.Periodic", columns.CONTEXT_OTHER)
    value = Value(quantity, context, phase, place, None, 0)
    if sampled.format == "SignedData":
        return [_signed(value, _signed_in_text(text_of(sampled.value)[0]))]
    plain = _plain(value, sampled, quoted)
    if sampled.signedMeterValue is None:
        return plain
    twin = Value(quantity, context, 0, place, None, 0)
    return [*plain, _signed(twin, _signed_in_struct(sampled.signedMeterValue))]


def _plain(value: Value, sampled: SampledValue, quoted: bool) -> list[Value]:
    text, was_quoted = text_of(sampled.value)
    if not text:
        return []  # null or empty: not said
    measure = sampled.unitOfMeasure
    unit = measure.unit if measure else sampled.unit
    places = words.UNITS[value.quantity].get(unit) if unit else words.DEFAULT_PLACES[value.quantity]
    if places is None:
        value.flags = columns.FLAG_VALUE_DROPPED
        return [value]
    multiplier = (measure.multiplier or 0) if measure else 0
    value.amount, value.flags = read_amount(value.quantity, text, places + multiplier)
    if was_quoted != quoted:
        value.flags |= columns.FLAG_NUMBER_REPAIRED
    if not unit and value.quantity in (words.REGISTER, words.INTERVAL):
        value.flags |= columns.FLAG_UNIT_DEFAULTED
    return [value]


def _signed(value: Value, signed: Signed) -> Value:
    value.signed = signed
    value.amount = ocmf.register_mwh(signed.data) if signed.method == ocmf.METHOD else None
    return value


def _signed_in_text(text: bytes) -> Signed:
    """OCPP 1.6, format SignedData: the blob itself, or the JSON object that wraps it."""
    if text[:1] == b"{":
        try:
            return _signed_in_struct(_signed_decoder.decode(text))
        except (msgspec.DecodeError, RecursionError):
            return Signed(text, "", "")
    bare = ocmf.unwrap(text)
    return Signed(bare or text, ocmf.METHOD if bare else "", "")


def _signed_in_struct(sent: SignedMeterValue) -> Signed:
    data = sent.signedMeterData.encode()
    bare = ocmf.unwrap(data)
    method = ocmf.METHOD if bare else sent.encodingMethod or sent.signingMethod or ""
    return Signed(bare or data, method, _opened_key(sent.publicKey or ""))


def _opened_key(sent: str) -> str:
    """The key as sent; OCPP wraps it in base64 as `oca:base16:asn1:<hex>` or sends the DER itself."""
    try:
        opened = base64.b64decode(sent, validate=True)
    except ValueError:
        return sent
    return opened.decode("ascii") if opened.isascii() else sent

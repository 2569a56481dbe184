"""The register that an OCMF blob states, read without judging its signature (that is `metering.signed`'s)."""

import base64
import binascii
import re

import msgspec

from pipeline.codec import vocabulary as words
from pipeline.codec.numbers import energy_mwh, is_sentinel
from pipeline.codec.records import UndecodableError

METHOD = "OCMF"
_PREFIX = b"OCMF|"
# Import registers by OBIS: 1.8.0 of any channel, B0 and B1 of the OCMF tables; B2 and B3 count the transaction alone.
_LIFETIME = re.compile(r"\w+-\w+:(?:0?1|[Bb][01]|98|9[Ee])\.0?8\.0?0\b.*")
_TRANSACTION = re.compile(r"\w+-\w+:[Bb][23]\.0?8\.0?0\b.*")


class _Reading(msgspec.Struct, gc=False):
    RV: msgspec.Raw = msgspec.Raw(b"")
    RI: str | None = None
    RU: str | None = None


class _Payload(msgspec.Struct, gc=False):
    RD: list[_Reading]


_decoder = msgspec.json.Decoder(_Payload)


def unwrap(data: bytes) -> bytes:
    """The bare OCMF text of a blob that may be wrapped in base64 or hex; b"" when there is none inside."""
    data = data.strip()
    if data.startswith(_PREFIX):
        return data
    for opened in (_from_hex(data), _from_base64(data)):
        if opened.startswith(_PREFIX):
            return opened
    return b""


def _from_hex(data: bytes) -> bytes:
    try:
        return binascii.unhexlify(data)
    except ValueError:
        return b""


def _from_base64(data: bytes) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        return b""


def register_mwh(text: bytes) -> int | None:
    """The last import register in the payload of an OCMF text; None when it states none that can be read.

    A reading inherits what it leaves out from the one before it (OCMF: reading inheritance). Lifetime registers
    come before registers of the transaction.
    """
    sections = text.split(b"|", 2)
    try:
        readings = _decoder.decode(sections[1] if len(sections) == 3 else b"").RD
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found: dict[bool, int] = {}
    code = unit = None
    for reading in readings:
        code, unit = reading.RI or code, reading.RU or unit
        amount = _amount(reading.RV, unit)
        if amount is not None and _imports(code):
            found[bool(code and _TRANSACTION.fullmatch(code))] = amount
    return found.get(False, found.get(True))


def _imports(code: str | None) -> bool:
    return code is None or bool(_LIFETIME.fullmatch(code) or _TRANSACTION.fullmatch(code))


def _amount(raw: msgspec.Raw, unit: str | None) -> int | None:
    places = words.UNITS[words.REGISTER].get(unit or "")
    if places is None:
        return None
    try:
        value, _ = energy_mwh(bytes(raw).strip(b'"'), places)
    except UndecodableError:
        return None
    return None if value < 0 or is_sentinel(value) else value

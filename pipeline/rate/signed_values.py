"""Signed meter values on their way to the CDR: kept by session until it is settled, then told as OCPI's SignedData.

Of a session are kept: the first and the last value, and those that say that they begin or end it. Which ones these are
does not depend on the order of arrival. Whether a signature is right was judged before (`metering.signed`).
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pipeline.codec.records import SignedBlob
from pipeline.metering import kinds
from pipeline.metering.columns import CONTEXT_BEGIN, CONTEXT_END, SIGNED_FORGED
from pipeline.metering.signed import key_der_hex
from pipeline.rate.segment import Samples

_NATURES: Final = {CONTEXT_BEGIN: "Start", CONTEXT_END: "End"}
_PLAIN_MAX: Final = 512  # OCPI: SignedValue plain_data string(512), signed_data string(5000)
_SIGNED_MAX: Final = 5000
_KEPT_MAX: Final = 8


class SignedValue(NamedTuple):
    """One signed value of a session; `data` as it travelled. They sort by time."""

    time_ms: int
    context: int
    method: str
    data: bytes


class Signed(NamedTuple):
    """A blob of a batch, and the sample that it came with."""

    samples: Samples
    at: int
    blob: SignedBlob

    @property
    def partition(self) -> int:
        """Whose log it is in."""
        return int(self.samples.facts["partition"][self.at])


def by_session(found: Iterable[Signed]) -> dict[int, list[SignedValue]]:
    """Session key → its signed values of a batch; without forged ones, repeats, and values of no session."""
    values: dict[int, list[SignedValue]] = {}
    for given, at, blob in found:
        sample, fact = given.samples[at], given.facts[at]
        key = int(fact["session_key"])
        if key and int(fact["verdict"]) != kinds.DUPLICATE and int(sample["signed"]) != SIGNED_FORGED:
            value = SignedValue(int(sample["time_ms"]), int(sample["context"]), blob.method, blob.data)
            values.setdefault(key, []).append(value)
    return values


def kept(values: Iterable[SignedValue]) -> tuple[SignedValue, ...]:
    """What is worth keeping of a session's values, in order."""
    ordered = sorted(set(values))
    ends = [value for value in ordered if value.context in _NATURES]
    return tuple(sorted({*ordered[:1], *ordered[-1:], *ends[: _KEPT_MAX // 2], *ends[-_KEPT_MAX // 2 :]}))


def signed_data(values: Sequence[SignedValue], public_key: str) -> Mapping[str, Any] | None:
    """OCPI SignedData (mod_cdrs): encoding_method, public_key in base64, signed_values; None without any value.

    `plain_data` is the readable part of an OCMF value; where that is longer than OCPI takes, its readings alone.
    """
    told = [
        {"nature": _NATURES.get(value.context, "Intermediate"), "plain_data": _plain(value.data), "signed_data": blob}
        for value in values
        if len(blob := base64.b64encode(value.data).decode()) <= _SIGNED_MAX
    ]
    if not told:
        return None
    key = base64.b64encode(bytes.fromhex(key_der_hex(public_key))).decode() if public_key else ""
    named = {"public_key": key} if 0 < len(key) <= _PLAIN_MAX else {}
    return {"encoding_method": values[0].method[:36] or "OCMF", **named, "signed_values": told}


def _plain(data: bytes) -> str:
    """The text that was signed: of `OCMF|{payload}|{signature}` the payload."""
    text = data.decode("utf-8", "replace")
    parts = text.split("|")
    payload = parts[1] if parts[0] == "OCMF" and len(parts) >= 3 else text
    return payload if len(payload) <= _PLAIN_MAX else _readings(payload)[:_PLAIN_MAX]


def _readings(payload: str) -> str:
    try:
        told = json.loads(payload)
    except json.JSONDecodeError:
        return payload
    readings = told.get("RD") if isinstance(told, dict) else None
    return json.dumps({"RD": readings}, separators=(",", ":")) if readings else payload

"""Reading single fields out of decoded OCPI JSON, each with an error that names path, expectation and finding.

Pure functions on dicts; no OCPI object is known here. Numbers become integers at once, so no float
travels further (OCPI types: "number": 4 decimals unless stated otherwise).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from rating.errors import TariffError

JsonObject = Mapping[str, Any]

MAX_E4: Final = 10**15  # 100 billion units: far beyond any price, and safe to multiply in Python and compare in int64
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def text_field(source: JsonObject, key: str, path: str) -> str:
    """A required, non-empty string."""
    value = source.get(key)
    if not isinstance(value, str) or not value.strip():
        raise TariffError(f"{path}.{key}", "a string", value)
    return value


def optional_text(source: JsonObject, key: str, path: str) -> str | None:
    """A string, or None where the field is absent or null."""
    return None if source.get(key) is None else text_field(source, key, path)


def choice_field(source: JsonObject, key: str, path: str, choices: Sequence[str]) -> str:
    """A string out of an OCPI enum."""
    value = source.get(key)
    if not isinstance(value, str) or value not in choices:
        raise TariffError(f"{path}.{key}", f"one of {', '.join(choices)}", value)
    return value


def list_field(source: JsonObject, key: str, path: str) -> Sequence[Any]:
    """A required list with at least one entry (OCPI cardinality +)."""
    value = source.get(key)
    if not isinstance(value, list | tuple) or not value:
        raise TariffError(f"{path}.{key}", "a list with at least one entry", value)
    return value


def object_at(value: Any, path: str) -> JsonObject:
    """A JSON object."""
    if not isinstance(value, Mapping):
        raise TariffError(path, "an object", value)
    return value


def number_e4(value: Any, path: str, *, minimum: int | None = None) -> int:
    """A JSON number as an integer of 1e-4; more than 4 decimals are an error, never rounded."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TariffError(path, "a number", value)
    try:
        scaled = Decimal(str(value)).scaleb(4)
        exact = int(scaled)
    except (InvalidOperation, ValueError, OverflowError):
        raise TariffError(path, "a finite number", value) from None
    if exact != scaled:
        raise TariffError(path, "a number with at most 4 decimals (OCPI types: number)", value)
    if abs(exact) > MAX_E4:
        raise TariffError(path, f"a number between -{MAX_E4 // 10_000} and {MAX_E4 // 10_000}", value)
    if minimum is not None and exact < minimum:
        raise TariffError(path, f"a number of at least {Decimal(minimum).scaleb(-4)}", value)
    return exact


def optional_e4(source: JsonObject, key: str, path: str, *, minimum: int | None = 0) -> int | None:
    """A number as an integer of 1e-4, or None where the field is absent or null."""
    value = source.get(key)
    return None if value is None else number_e4(value, f"{path}.{key}", minimum=minimum)


def count_field(source: JsonObject, key: str, path: str, *, maximum: int = 10**9) -> int:
    """A required whole number from 0 to `maximum`."""
    value = source.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise TariffError(f"{path}.{key}", f"a whole number from 0 to {maximum}", source.get(key))
    return value


def minute_of_day(value: Any, path: str, *, end: bool) -> int:
    """Minutes since local midnight of "HH:MM"; "24:00" is tolerated as an end (the linter names it)."""
    shape = (
        isinstance(value, str) and len(value) == 5 and value[2] == ":" and value[:2].isdigit() and value[3:].isdigit()
    )
    if shape and value.isascii():
        hour, minute = int(value[:2]), int(value[3:])
        if (hour < 24 and minute < 60) or (end and (hour, minute) == (24, 0)):
            return hour * 60 + minute
    raise TariffError(path, 'a local time "HH:MM" from 00:00 to 23:59', value)


def local_day(value: Any, path: str) -> int:
    """Days since 1970-01-01 of "YYYY-MM-DD"."""
    if isinstance(value, str) and len(value) == 10:
        try:
            return date.fromisoformat(value).toordinal() - _EPOCH_DAY
        except ValueError:
            pass
    raise TariffError(path, 'a local date "YYYY-MM-DD"', value)


def instant_ms(value: Any, path: str) -> int:
    """UTC ms of an OCPI DateTime (RFC 3339; without a zone it is UTC, as OCPI says)."""
    if isinstance(value, str) and len(value) >= 19:
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            parsed = None
        if parsed is not None:
            parsed = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed
            delta = parsed - _EPOCH
            return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
    raise TariffError(path, 'a UTC timestamp such as "2026-01-31T10:00:00Z"', value)


def optional_instant(source: JsonObject, key: str, path: str) -> int | None:
    """UTC ms of an OCPI DateTime, or None where the field is absent or null."""
    value = source.get(key)
    return None if value is None else instant_ms(value, f"{path}.{key}")

"""Timestamps as chargers write them, to UTC ms: any zone, any fraction, or the honest answer that it is unusable."""

import datetime
import re

EARLIEST_MS = 1_262_304_000_000  # 2010-01-01: before OCPP 1.6; earlier is a clock that was never set
LATEST_MS = 4_102_444_800_000  # 2100-01-01

_RFC3339 = re.compile(
    rb"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,18}))?)?"
    rb"(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2})?)?"
)
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()


def instant(text: bytes) -> tuple[int, bool] | None:
    """UTC ms and whether a zone was given (none is read as UTC); None when the text names no usable instant.

    Fractions are cut to the millisecond; second 60 is the first of the next minute.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zulu, sign, zone_hour, zone_minute = match.groups(default=b"")
    date_ms = _date_ms(int(year), int(month), int(day))
    time_ms = _time_ms(int(hour), int(minute), int(second or b"0"), fraction)
    zone_ms = _zone_ms(sign, int(zone_hour or b"0"), int(zone_minute or b"0"))
    if date_ms is None or time_ms is None or zone_ms is None:
        return None
    at = date_ms + time_ms - zone_ms
    return (at, bool(zulu or sign)) if EARLIEST_MS <= at < LATEST_MS else None


def _date_ms(year: int, month: int, day: int) -> int | None:
    try:
        return (datetime.date(year, month, day).toordinal() - _EPOCH_DAY) * 86_400_000
    except ValueError:
        return None  # 0000-00-00, 30 February


def _time_ms(hour: int, minute: int, second: int, fraction: bytes) -> int | None:
    if hour > 23 or minute > 59 or second > 60:
        return None
    return hour * 3_600_000 + minute * 60_000 + second * 1000 + int((fraction + b"000")[:3])


def _zone_ms(sign: bytes, hour: int, minute: int) -> int | None:
    if hour > 23 or minute > 59:
        return None
    offset = hour * 3_600_000 + minute * 60_000
    return -offset if sign == b"-" else offset

"""When restrictions on the local clock flip, as UTC instants: exact across every change of a zone's offset.

A zone is cut into stretches of constant UTC offset. Inside one, local time is UTC plus a constant, so
midnights, starts and ends of windows are arithmetic; at its edges everything is looked at again. So a
skipped or a repeated local hour is right by construction. Pure but for the zone data that `zoneinfo` loads.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from rating.columns import I64
from rating.errors import SheetError
from rating.tariff import Window

DAY_MS: Final = 86_400_000
MINUTE_MS: Final = 60_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PROBE: Final = timedelta(hours=6)  # no zone has ever changed its offset twice within six hours

Membership = npt.NDArray[np.bool_]


class Stretches(NamedTuple):
    """Stretches of constant offset: from `start_ms[i]` (UTC) local time is UTC + `offset_ms[i]`."""

    start_ms: I64
    offset_ms: I64


@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo:
    """The IANA zone; SheetError where it is not known."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SheetError(
            f"time zone {name!r} is not in the IANA database: give Location.time_zone a name such as Europe/Berlin"
        ) from None


def stretches(zone: str, from_ms: int, until_ms: int) -> Stretches:
    """The stretches of constant offset that cover [from_ms, until_ms); the first starts at `from_ms`."""
    starts, offsets = [from_ms], [_offset_ms(zone_named(zone), from_ms)]
    for year in range(_year(from_ms), _year(until_ms) + 1):
        for start, offset in _changes(zone, year):
            if starts[-1] < start < until_ms and offset != offsets[-1]:
                starts.append(start)
                offsets.append(offset)
    return Stretches(np.array(starts, np.int64), np.array(offsets, np.int64))


def flips(
    zone: str, windows: Sequence[Window], from_ms: int, until_ms: int, *, equal_is_day: bool = True
) -> tuple[I64, Membership]:
    """The instants in [from_ms, until_ms) from which another set of `windows` holds.

    Returns ascending UTC ms, the first being `from_ms`, and a row a instant, a column a window:
    whether it holds from there until the next. `equal_is_day` is Policy.equal_times.
    """
    cut = stretches(zone, from_ms, until_ms)
    instants = _candidates(cut, windows, until_ms)
    offset = cut.offset_ms[np.searchsorted(cut.start_ms, instants, side="right") - 1]
    holds = np.stack([_holds(window, instants + offset, equal_is_day) for window in windows], axis=1)
    changed = np.ones(len(instants), np.bool_)
    changed[1:] = (holds[1:] != holds[:-1]).any(axis=1)
    return instants[changed], holds[changed]


def _candidates(cut: Stretches, windows: Sequence[Window], until_ms: int) -> I64:
    """Every instant at which a window could flip: edges of stretches, local midnights, starts and ends."""
    minutes = sorted({0} | {w.start_minute % 1440 for w in windows} | {w.end_minute % 1440 for w in windows})
    of_day = np.array(minutes, np.int64) * MINUTE_MS
    found = [cut.start_ms]
    ends = np.append(cut.start_ms[1:], until_ms)
    for start, end, offset in zip(cut.start_ms.tolist(), ends.tolist(), cut.offset_ms.tolist(), strict=True):
        days = np.arange((start + offset) // DAY_MS, (end + offset) // DAY_MS + 1, dtype=np.int64)
        instants = (days[:, None] * DAY_MS + of_day[None, :]).ravel() - offset
        found.append(instants[(instants > start) & (instants < end)])
    return np.unique(np.concatenate(found))


def _holds(window: Window, local_ms: I64, equal_is_day: bool) -> Membership:
    """Whether the window holds at these local times: starts inclusive, ends exclusive, days by the local date."""
    day: I64 = local_ms // DAY_MS
    weekday = (day + 3) % 7  # 1970-01-01 was a Thursday
    holds: Membership = _in_day(window, local_ms - day * DAY_MS, equal_is_day)
    holds &= (window.weekdays >> weekday) & 1 == 1
    if window.start_day is not None:
        holds &= day >= window.start_day
    if window.end_day is not None:
        holds &= day < window.end_day
    return holds


def _in_day(window: Window, time_ms: I64, equal_is_day: bool) -> Membership:
    start, end = window.start_minute * MINUTE_MS, window.end_minute * MINUTE_MS
    if start == end or (start, end) == (0, DAY_MS):
        return np.full(len(time_ms), equal_is_day or start != end)
    if start < end:
        return (time_ms >= start) & (time_ms < end)
    return (time_ms >= start) | (time_ms < end)  # end_time < start_time wraps past midnight


def _year(instant_ms: int) -> int:
    return (_EPOCH + timedelta(milliseconds=instant_ms)).year


def _offset_ms(zone: ZoneInfo, instant_ms: int) -> int:
    offset = (_EPOCH + timedelta(milliseconds=instant_ms)).astimezone(zone).utcoffset()
    assert offset is not None  # noqa: S101 - a ZoneInfo always has one
    return int(offset.total_seconds()) * 1000


@lru_cache(maxsize=65_536)
def _changes(name: str, year: int) -> tuple[tuple[int, int], ...]:
    """The offset changes of a zone in a year: (first UTC ms of the new offset, new offset in ms)."""
    zone = zone_named(name)
    step = int(_PROBE.total_seconds()) * 1000
    start = int((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * 1000
    end = int((datetime(year + 1, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * 1000
    found = []
    before = _offset_ms(zone, start - step)
    for probe in range(start, end, step):
        now = _offset_ms(zone, probe)
        if now != before:
            found.append((_change_between(zone, probe - step, probe), now))
            before = now
    return tuple(found)


def _change_between(zone: ZoneInfo, low_ms: int, high_ms: int) -> int:
    """The first whole second after `low_ms` with the offset of `high_ms`."""
    after = _offset_ms(zone, high_ms)
    low, high = low_ms // 1000, high_ms // 1000
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_ms(zone, middle * 1000) == after:
            high = middle
        else:
            low = middle
    return high * 1000

"""Local windows across every clock change of every zone, against a look at the wall clock once a minute."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import numpy.typing as npt
import pytest

from rating.localtime import flips
from rating.tariff import Window, parse_tariff

MINUTE_MS = 60_000
FIRST, LAST = datetime(2024, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
PROBE = timedelta(hours=3)
AROUND = timedelta(hours=48)
WEEKDAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")

Change = tuple[datetime, timedelta, timedelta]
"""Instant, offset before, offset after."""


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


@lru_cache(maxsize=1024)
def _changes(name: str, first: datetime = FIRST, last: datetime = LAST) -> tuple[Change, ...]:
    """Found by asking zoneinfo every three hours, then minute by minute."""
    zone = ZoneInfo(name)
    found = []
    before, at = _offset(zone, first), first
    while at < last:
        after = _offset(zone, at + PROBE)
        if after != before:
            minutes = (at + timedelta(minutes=minute) for minute in range(1, 181))
            found.append((next(minute for minute in minutes if _offset(zone, minute) == after), before, after))
        before, at = after, at + PROBE
    return tuple(found)


@lru_cache(maxsize=1)
def _zones() -> list[str]:
    """Every zone of the IANA database, one name for those that are links to another (equal bytes of data)."""
    data = files("tzdata.zoneinfo")
    names = sorted(name for name in available_timezones() if data.joinpath(name).is_file())
    assert len(names) > 500, "the IANA database seems to be missing"
    return sorted({data.joinpath(name).read_bytes(): name for name in names}.values())


@lru_cache(maxsize=1)
def _behaviours() -> dict[tuple[Change, ...], str]:
    """One zone of each kind that changes its clock in these years."""
    return {changes: name for name in _zones() if (changes := _changes(name))}


def _restrictions(day: date) -> list[dict[str, Any]]:
    """Every half hour of the day, windows over midnight, whole days, the days around the change and the week."""
    clock = [f"{hour:02}:{minute:02}" for hour in range(24) for minute in (0, 30)]
    halves = [{"start_time": start, "end_time": end} for start, end in pairwise([*clock, "00:00"])]
    odd = [{"start_time": "22:00", "end_time": "06:00"}, {"start_time": "23:45", "end_time": "00:10"}]
    odd += [{"start_time": "02:30", "end_time": "02:30"}, {"start_time": "02:15"}, {"end_time": "01:50"}]
    before, after = (day + timedelta(days=by) for by in (-1, 1))
    dates = [{"start_date": f"{day}"}, {"end_date": f"{day}"}, {"start_date": f"{before}", "end_date": f"{after}"}]
    dated = [{"start_date": f"{day}", "start_time": "22:00", "end_time": "02:30"}]
    return [*halves, *odd, *dates, *dated, *({"day_of_week": [name]} for name in WEEKDAYS)]


def _windows(restrictions: Sequence[dict[str, Any]]) -> list[Window]:
    component = {"type": "ENERGY", "price": 1, "step_size": 1}
    elements = [{"price_components": [component], "restrictions": one} for one in restrictions]
    head = {"country_code": "NL", "party_id": "TST", "id": "1", "currency": "EUR"}
    return [element.window for element in parse_tariff({**head, "elements": elements}).elements]


def _looked_up(zone: str, restrictions: Sequence[dict[str, Any]], minutes: Sequence[int]) -> npt.NDArray[np.bool_]:
    """For every UTC minute and restriction whether it holds, from the wall clock of that minute alone."""
    local = ZoneInfo(zone)
    walls = [datetime.fromtimestamp(minute * 60, local) for minute in minutes]
    time = np.array([wall.hour * 60 + wall.minute for wall in walls])
    day = np.array([wall.toordinal() for wall in walls])
    return np.stack([_holds(one, time, day) for one in restrictions], axis=1)


def _holds(restriction: dict[str, Any], time: npt.NDArray[Any], day: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """mod_tariffs TariffRestrictions, for arrays of minutes of the day and of proleptic days."""
    start, end = (_minute(restriction.get(name, "00:00")) for name in ("start_time", "end_time"))
    holds = (time >= start) & (time < end) if start < end else (time >= start) | (time < end)
    if "start_date" in restriction:
        holds &= day >= date.fromisoformat(restriction["start_date"]).toordinal()
    if "end_date" in restriction:
        holds &= day < date.fromisoformat(restriction["end_date"]).toordinal()
    if "day_of_week" in restriction:
        names = np.array([date.fromordinal(one).isoweekday() - 1 for one in range(1, 8)])
        holds &= names[(day - 1) % 7] == WEEKDAYS.index(restriction["day_of_week"][0])
    return holds


def _minute(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def _check(zone: str, change: datetime) -> None:
    """The compiled flips say the same as the wall clock at every minute within 48 hours of the change."""
    restrictions = _restrictions(change.astimezone(ZoneInfo(zone)).date())
    first, last = (int((change + by).timestamp()) // 60 for by in (-AROUND, AROUND))
    minutes = range(first, last)
    instants, holds = flips(zone, _windows(restrictions), first * MINUTE_MS, last * MINUTE_MS)
    assert (instants % MINUTE_MS == 0).all(), zone
    at = np.searchsorted(instants, np.arange(first, last) * MINUTE_MS, side="right") - 1
    wrong = np.argwhere(holds[at] != _looked_up(zone, restrictions, minutes))
    if len(wrong):
        minute, which = wrong[0]
        when = datetime.fromtimestamp(minutes[minute] * 60, UTC)
        raise AssertionError(f"{zone} {when:%Y-%m-%d %H:%M} UTC: {restrictions[which]} differs from the wall clock")
    assert (holds[1:] != holds[:-1]).any(axis=1).all(), f"{zone}: an instant at which nothing flips"


def test_every_change_of_every_zone_in_four_years_is_right_to_the_minute() -> None:
    for changes, zone in _behaviours().items():
        for change, _, _ in changes:
            _check(zone, change)


def test_zones_that_never_change_their_clock_are_right_too() -> None:
    steady = [name for name in _zones() if not _changes(name)]
    first_of_each = {_offset(ZoneInfo(name), FIRST): name for name in reversed(steady)}
    for zone in first_of_each.values():
        _check(zone, datetime(2026, 3, 1, 12, tzinfo=UTC))


def test_lord_howe_moves_its_clock_by_half_an_hour() -> None:
    changes = _changes("Australia/Lord_Howe")
    assert {abs(after - before) for _, before, after in changes} == {timedelta(minutes=30)}
    for change, _, _ in changes:
        _check("Australia/Lord_Howe", change)


def test_troll_moves_its_clock_by_two_hours() -> None:
    changes = _changes("Antarctica/Troll")
    assert {abs(after - before) for _, before, after in changes} == {timedelta(hours=2)}
    for change, _, _ in changes:
        _check("Antarctica/Troll", change)


def test_chatham_is_a_quarter_of_an_hour_off_every_hour() -> None:
    changes = _changes("Pacific/Chatham")
    assert all(before % timedelta(hours=1) == timedelta(minutes=45) for _, before, _ in changes)
    for change, _, _ in changes:
        _check("Pacific/Chatham", change)


def test_casablanca_goes_back_for_ramadan() -> None:
    changes = _changes("Africa/Casablanca")
    assert len(changes) == 8, "two changes a year, at dates that follow the moon"
    for change, _, _ in changes:
        _check("Africa/Casablanca", change)


def test_apia_skipped_the_30th_of_december_2011() -> None:
    first, last = datetime(2011, 12, 20, tzinfo=UTC), datetime(2012, 1, 10, tzinfo=UTC)
    [(change, before, after)] = _changes("Pacific/Apia", first, last)
    assert after - before == timedelta(days=1)
    assert change.astimezone(ZoneInfo("Pacific/Apia")).date() == date(2011, 12, 31)
    _check("Pacific/Apia", change)


def test_a_window_inside_a_skipped_hour_never_holds() -> None:
    restrictions = [{"start_time": "02:00", "end_time": "03:00"}]
    first = int(datetime(2026, 3, 28, 23, tzinfo=UTC).timestamp()) * 1000  # 00:00 in Berlin, on the day it springs
    _, holds = flips("Europe/Berlin", _windows(restrictions), first, first + 23 * 3_600_000)
    assert not holds.any()


@pytest.mark.parametrize(
    ("hours", "zone", "night"), [(2, "Europe/Berlin", "2026-10-25"), (1, "Europe/Berlin", "2026-10-24")]
)
def test_a_window_inside_a_repeated_hour_holds_for_both(hours: int, zone: str, night: str) -> None:
    restrictions = [{"start_time": "02:00", "end_time": "03:00"}]
    first = int(datetime.fromisoformat(f"{night}T00:00+02:00").timestamp()) * 1000
    instants, holds = flips(zone, _windows(restrictions), first, first + 6 * 3_600_000)
    lengths = np.diff(np.append(instants, first + 6 * 3_600_000))
    assert lengths[holds[:, 0]].sum() == hours * 3_600_000

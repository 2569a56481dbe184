"""What OCPI says a session costs, slowly and exactly: the second opinion that the engine is compared with by `==`.

Written to be read beside the standard: above every rule stands the section it comes from (mod_tariffs, mod_cdrs of
OCPI 2.2.1-d2 and 2.3.0; "Policy" marks what the standard leaves open). Money is a `Fraction` of the currency unit,
energy whole mWh, time whole ms. It works on the raw OCPI objects as JSON gives them and shares no code with `rating`.
It does not parse, validate or explain: feed it valid tariffs of at most 4 decimals and instants after 1972.
What depends on the tariff alone, or on a zone and a day, is worked out once and kept: ten million sessions wait for it.
"""

import sys
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

MINUTE_MS = 60_000
MINUTES_A_DAY = 1440
DAY_MS = MINUTES_A_DAY * MINUTE_MS
WEEKDAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
# What in a `Moment` the restrictions min_… and max_… look at, and how many of ours one of their units is.
SCALES = {
    "energy_mwh": ("kwh", 1_000_000),
    "duration_ms": ("duration", 1000),
    "current_ma": ("current", 1000),
    "power_mw": ("power", 1_000_000),
}
CLOCK_RESTRICTIONS = ("start_time", "end_time", "start_date", "end_date", "day_of_week")

Component = tuple[int, int]
"""(index of the element in the tariff, index of the price component in the element)."""


class Mark(NamedTuple):
    """What holds from `start_ms` until the next mark; None = not known."""

    start_ms: int
    state: str  # CHARGING | PARKING
    power_mw: int | None = None
    current_ma: int | None = None


class Interval(NamedTuple):
    """Two neighbouring register readings: `energy_mwh` flowed in [start_ms, end_ms).

    `state` is for the periods of a published CDR, whose volumes may overlap in time: it then holds throughout.
    """

    start_ms: int
    end_ms: int
    energy_mwh: int
    state: str | None = None


class Reservation(NamedTuple):
    """The EVSE was kept free in [start_ms, end_ms); expired: no session followed before the expiry."""

    start_ms: int
    end_ms: int
    expired: bool


@dataclass(frozen=True)
class Session:
    """Intervals in their order, the first starting at the session's start; none if a reservation expired."""

    intervals: Sequence[Interval]
    marks: Sequence[Mark]
    reservation: Reservation | None = None

    @property
    def start_ms(self) -> int:
        """Start of the session proper; a reservation lies before it."""
        if self.intervals:
            return self.intervals[0].start_ms
        assert self.reservation is not None
        return self.reservation.end_ms


class Moment(NamedTuple):
    """Everything that a restriction can look at."""

    instant_ms: int
    duration_ms: int
    energy_mwh: int
    power_mw: int | None
    current_ma: int | None


class Piece(NamedTuple):
    """A charging period: one price per dimension from its start to its end."""

    start_ms: int
    end_ms: int
    state: str  # CHARGING | PARKING | RESERVATION | RESERVATION_EXPIRES
    energy_mwh: int
    energy: Component | None
    time: Component | None


# ---------------------------------------------------------------- the local clock


Minutes = int
"""A set of UTC minutes, as the bits of a number: bit 0 is the last minute before a UTC day, bit m + 1 its minute m."""


class LocalDay(NamedTuple):
    """The wall clock of a zone in the minutes of one UTC day."""

    times: Sequence[str]  # "HH:MM" at the last minute before the day and at its 1440 minutes
    dates: Mapping[tuple[str, str], Minutes]  # (ISO date, name of the weekday): when the wall shows it


@lru_cache(maxsize=4096)
def local_day(zone: str, day: int) -> LocalDay:
    """The wall clock in `zone` at each of the 1440 UTC minutes of the UTC day `day` (days since 1970).

    A skipped local hour never shows on the wall, a repeated one shows twice: nothing else needs to be said of DST.
    """
    clock = ZoneInfo(zone)
    first = day * MINUTES_A_DAY - 1
    minutes = range(first, first + 1 + MINUTES_A_DAY)
    walls = [datetime.fromtimestamp(at * 60, clock).isoformat() for at in minutes]  # 2026-03-29T01:59:00+01:00
    shown = [wall[:10] for wall in walls]
    dates = {
        (one, WEEKDAYS[date.fromisoformat(one).weekday()]): minutes_where([one == other for other in shown])
        for one in dict.fromkeys(shown)
    }
    return LocalDay([sys.intern(wall[11:16]) for wall in walls], dates)


def minutes_where(holds: Sequence[bool]) -> Minutes:
    """The set of those minutes, from bit 0 on, for which it holds."""
    return int("".join(["1" if one else "0" for one in reversed(holds)]), 2)


@lru_cache(maxsize=65536)
def minutes_between(zone: str, day: int, start: str, end: str) -> Minutes:
    """mod_tariffs TariffRestrictions: when the wall shows a time of start_time, end_time.

    "If end_time < start_time then the period wraps around to the next day. To stop at end of the day use: 00:00."
    """
    times = local_day(zone, day).times
    if start < end:
        return minutes_where([start <= now < end for now in times])
    # Policy: equal times are the whole day; both halves of the line below together are just that.
    return minutes_where([now >= start or now < end for now in times])


def date_matches(restrictions: Mapping[str, Any], day: str, weekday: str) -> bool:
    """mod_tariffs TariffRestrictions: start_date, end_date, day_of_week, all in local time."""
    # "start_date: valid from this day (inclusive)"; "end_date: valid until this day (exclusive)".
    if "start_date" in restrictions and day < restrictions["start_date"]:
        return False
    if "end_date" in restrictions and day >= restrictions["end_date"]:
        return False
    # "day_of_week: Which day(s) of the week this tariff is active." Policy: the local day of the instant, also
    # in a window that began the evening before. An empty list restricts nothing.
    return not restrictions.get("day_of_week") or weekday in restrictions["day_of_week"]


def clock_minutes(restrictions: Mapping[str, Any], zone: str, day: int) -> Minutes:
    """When both the date and the time on the wall match."""
    dates = local_day(zone, day).dates.items()
    matching = sum(minutes for shown, minutes in dates if date_matches(restrictions, *shown))
    times = restrictions.get("start_time", "00:00"), restrictions.get("end_time", "00:00")
    return matching & minutes_between(zone, day, *times)


class ClockDay(NamedTuple):
    """What the clock does to a tariff in one UTC day."""

    minutes: Mapping[int, Minutes]  # of each element with a clock restriction: when it matches
    changes: Sequence[int]  # ms at which some element matches that did not in the minute before, or the reverse


# ---------------------------------------------------------------- the tariff


@lru_cache(maxsize=4096)
def exact(number: Any) -> Fraction:
    """The decimal number that was written in the JSON."""
    return Fraction(str(number))


def within(value: int | None, minimum: int | None, maximum: int | None) -> bool:
    """Minima are inclusive, maxima exclusive. Policy: an unknown value matches no restriction on it."""
    if value is None:
        return minimum is None and maximum is None
    return (minimum is None or value >= minimum) and (maximum is None or value < maximum)


class Limit(NamedTuple):
    """A minimum and a maximum, in our units, of one thing that is measured."""

    measured: str
    minimum: int | None
    maximum: int | None


class Tariff:
    """An OCPI Tariff object read in one time zone; `version` is "2.1.1", "2.2.1" or "2.3.0"."""

    def __init__(self, raw: Mapping[str, Any], zone: str, version: str) -> None:
        self.raw = raw
        self.zone = zone
        self.version = version
        self.restrictions: list[dict[str, Any]] = [
            {name: limit for name, limit in (element.get("restrictions") or {}).items() if limit is not None}
            for element in raw["elements"]
        ]
        self.limits = [list(_limits(restrictions)) for restrictions in self.restrictions]
        self.clocked = [
            index
            for index, limits in enumerate(self.restrictions)
            if any(name in limits for name in CLOCK_RESTRICTIONS)
        ]
        self.energies = self._thresholds("energy_mwh")
        self.durations = self._thresholds("duration_ms")
        self._clock_days: dict[int, ClockDay] = {}
        self._candidates: dict[tuple[str, str | None], list[tuple[int, Component | None]]] = {}

    def component(self, which: Component) -> Mapping[str, Any]:
        """The PriceComponent object itself."""
        found: Mapping[str, Any] = self.raw["elements"][which[0]]["price_components"][which[1]]
        return found

    # ---- restrictions

    def clock_changes(self, start_ms: int, end_ms: int) -> list[int]:
        """Instants strictly inside (start_ms, end_ms) at which the clock makes an element match or stop matching."""
        if not self.clocked:
            return []
        days = range(start_ms // DAY_MS, end_ms // DAY_MS + 1)
        return [change for day in days for change in self._clock_day(day).changes if start_ms < change < end_ms]

    def _clock_day(self, day: int) -> ClockDay:
        """When the clocked elements match in a UTC day, and when that changes: at a minute unlike the one before."""
        if day not in self._clock_days:
            minutes = {index: clock_minutes(self.restrictions[index], self.zone, day) for index in self.clocked}
            unlike = 0
            for one in minutes.values():
                unlike |= (one ^ one >> 1) & ~(1 << MINUTES_A_DAY)
            found = [minute for minute, bit in enumerate(reversed(f"{unlike:b}")) if bit == "1"]
            changes = [day * DAY_MS + minute * MINUTE_MS for minute in found]
            self._clock_days[day] = ClockDay(minutes, changes)
        return self._clock_days[day]

    def element_matches(self, index: int, moment: Moment) -> bool:
        """mod_tariffs TariffRestrictions: all of them must hold; `reservation` is looked at by the caller."""
        if index in self.clocked:
            day, minute = divmod(moment.instant_ms // MINUTE_MS, MINUTES_A_DAY)
            if not self._clock_day(day).minutes[index] >> minute + 1 & 1:
                return False
        for measured, minimum, maximum in self.limits[index]:
            if not within(getattr(moment, measured), minimum, maximum):
                return False
        return True

    # ---- selection

    def select(self, dimension: str, moment: Moment, reservation: str | None = None) -> Component | None:
        """The component that prices `dimension` at `moment`; None: it is free.

        mod_tariffs Tariff object: "the first Tariff Element with that dimension whose restrictions match".
        ReservationRestrictionType: an element with `reservation` is about reservations only, one without never.
        """
        candidates = self._candidates.get((dimension, reservation))
        if candidates is None:
            candidates = self._candidates[dimension, reservation] = list(self._supplying(dimension, reservation))
        for index, found in candidates:
            if self.element_matches(index, moment):
                return found
        return None

    def _supplying(self, dimension: str, reservation: str | None) -> Iterator[tuple[int, Component | None]]:
        """The elements that price `dimension` where they match, in their order, and the component they do it with."""
        for index, restrictions in enumerate(self.restrictions):
            if restrictions.get("reservation") != reservation:
                continue
            found = self._first_component(index, dimension)
            # 2.1.1 mod_tariffs TariffElement: the first element whose restrictions match supplies everything.
            if found is not None or self.version == "2.1.1":
                yield index, found

    def _first_component(self, index: int, dimension: str) -> Component | None:
        """Policy: of two components of one dimension in an element the first counts."""
        for position, component in enumerate(self.raw["elements"][index]["price_components"]):
            if component["type"] == dimension:
                return index, position
        return None

    def select_reservation_time(self, moment: Moment, *, expired: bool) -> Component | None:
        """ReservationRestrictionType: for an expired reservation RESERVATION_EXPIRES' TIME replaces RESERVATION's."""
        replaced = self.select("TIME", moment, "RESERVATION_EXPIRES") if expired else None
        return replaced if replaced is not None else self.select("TIME", moment, "RESERVATION")

    def _thresholds(self, measured: str) -> list[int]:
        """The limits on this in the whole tariff, ascending."""
        limits = [limit for limits in self.limits for limit in limits if limit.measured == measured]
        values = {value for limit in limits for value in (limit.minimum, limit.maximum) if value is not None}
        return sorted(values)


def _limits(restrictions: Mapping[str, Any]) -> Iterator[Limit]:
    """Metered values are whole mWh, ms, mA and mW: a limit is reached at the next whole number."""
    for measured, (unit, scale) in SCALES.items():
        low, high = (restrictions.get(f"{end}_{unit}") for end in ("min", "max"))
        if low is not None or high is not None:
            yield Limit(measured, *(None if value is None else ceil(exact(value) * scale) for value in (low, high)))


# ---------------------------------------------------------------- splitting (mod_cdrs ChargingPeriod)


class Curve:
    """The register inside one interval: first + floor(E · a(t) / a(e)), a = ms charged since s, or elapsed if none."""

    def __init__(self, interval: Interval, spans: Sequence[tuple[int, int]], first_mwh: int) -> None:
        start, end, self.energy_mwh, _ = interval
        self.spans = [(since, until) for since, until in spans if until > since] or [(start, end)]
        self.first_mwh = first_mwh
        self.whole = sum([until - since for since, until in self.spans])

    def register(self, instant_ms: int) -> int:
        """mWh of the session at an instant of the interval."""
        gone = 0
        for since, until in self.spans:
            if instant_ms > since:
                gone += min(instant_ms, until) - since
        return self.first_mwh + self.energy_mwh * gone // self.whole


def marks_within(marks: Sequence[Mark], start_ms: int, end_ms: int) -> list[Mark]:
    """The mark that holds at start_ms, as of start_ms, then those that begin before end_ms."""
    before = [mark for mark in marks if mark.start_ms <= start_ms]
    inside = [mark for mark in marks if start_ms < mark.start_ms < end_ms]
    return [Mark(start_ms, *before[-1][1:]), *inside]


def rate_interval(tariff: Tariff, session: Session, interval: Interval, energy_before_mwh: int) -> list[Piece]:
    """mod_cdrs ChargingPeriod: a new period starts at every moment that is relevant for the cost."""
    start, end, _, state = interval
    marks = marks_within(session.marks, start, end) if state is None else [Mark(start, state)]
    edges = [*[mark.start_ms for mark in marks], end]
    charging = [
        (mark.start_ms, until) for mark, until in zip(marks, edges[1:], strict=True) if mark.state == "CHARGING"
    ]
    after_mwh = energy_before_mwh + interval.energy_mwh
    if start == end:
        return _split_by_energy(tariff, session, marks[0], (start, energy_before_mwh), (end, after_mwh), None)
    curve = Curve(interval, charging, energy_before_mwh)
    cuts = {*edges, *tariff.clock_changes(start, end)}
    cuts.update([session.start_ms + limit for limit in tariff.durations])
    pieces: list[Piece] = []
    readings = [(cut, curve.register(cut)) for cut in sorted(cuts) if start <= cut <= end]
    for left, right in pairwise(readings):
        mark = [mark for mark in marks if mark.start_ms <= left[0]][-1]
        pieces += _split_by_energy(tariff, session, mark, left, right, curve)
    return pieces


def _split_by_energy(
    tariff: Tariff, session: Session, mark: Mark, left: tuple[int, int], right: tuple[int, int], curve: Curve | None
) -> list[Piece]:
    """One slice in which only the energy can change the price: cut it at the kWh thresholds it reaches.

    A threshold is cut at the first ms whose register reaches it and the piece before carries exactly the threshold.
    What flowed before an instant is priced by what held before it, so the rest of the slice's last ms stays in it.
    """
    (since, at_mwh), (until, end_mwh) = left, right
    slice_start = since
    pieces: list[Piece] = []
    for threshold in tariff.energies:
        if not at_mwh < threshold <= end_mwh:
            continue
        reached = until
        if curve is not None:
            reached = since + bisect_left(range(since, until), threshold, key=curve.register)
        pieces.append(_price(tariff, session, mark, slice_start, (since, at_mwh), (reached, threshold)))
        since, at_mwh = reached, threshold
    pieces.append(_price(tariff, session, mark, slice_start, (since, at_mwh), (until, end_mwh)))
    return [piece for piece in pieces if piece.end_ms > piece.start_ms or piece.energy_mwh > 0]


def _price(
    tariff: Tariff, session: Session, mark: Mark, clock_ms: int, left: tuple[int, int], right: tuple[int, int]
) -> Piece:
    """mod_tariffs TariffDimensionType: TIME is time charging, PARKING_TIME time connected and not charging."""
    (since, at_mwh), (until, end_mwh) = left, right
    moment = Moment(clock_ms, max(0, clock_ms - session.start_ms), at_mwh, mark.power_mw, mark.current_ma)
    time = tariff.select("TIME" if mark.state == "CHARGING" else "PARKING_TIME", moment)
    return Piece(since, until, mark.state, end_mwh - at_mwh, tariff.select("ENERGY", moment), time)


def rate_reservation(tariff: Tariff, reservation: Reservation) -> list[Piece]:
    """mod_tariffs ReservationRestrictionType: TIME of the reservation; Policy: it is no part of the duration."""
    start, end, expired = reservation
    state = "RESERVATION_EXPIRES" if expired else "RESERVATION"
    pieces = []
    for since, until in pairwise(sorted({start, end, *tariff.clock_changes(start, end)})):
        moment = Moment(since, 0, 0, None, None)
        component = tariff.select_reservation_time(moment, expired=expired)
        pieces.append(Piece(since, until, state, 0, None, component))
    return pieces


def rate(tariff: Tariff, session: Session) -> list[Piece]:
    """Every charging period of the session in order, the reservation's first."""
    pieces = [] if session.reservation is None else rate_reservation(tariff, session.reservation)
    energy_mwh = 0
    for interval in session.intervals:
        pieces += rate_interval(tariff, session, interval, energy_mwh)
        energy_mwh += interval.energy_mwh
    return pieces


def flat_components(tariff: Tariff, session: Session) -> tuple[Component | None, list[Component]]:
    """mod_tariffs TariffDimensionType FLAT: once. Policy: the first match at the session's start.

    ReservationRestrictionType: an expired reservation pays the FLAT of both, only TIME is
    replaced. Policy: a reservation's FLAT comes on top of the session's, the first match at the reservation's start.
    """
    session_flat = None
    if session.intervals:
        mark = marks_within(session.marks, session.start_ms, session.start_ms)[0]
        session_flat = tariff.select("FLAT", Moment(session.start_ms, 0, 0, mark.power_mw, mark.current_ma))
    if session.reservation is None:
        return session_flat, []
    start = session.reservation.start_ms
    moment = Moment(start, 0, 0, None, None)
    kinds = ["RESERVATION", "RESERVATION_EXPIRES"] if session.reservation.expired else ["RESERVATION"]
    chosen = [tariff.select("FLAT", moment, kind) for kind in kinds]
    return session_flat, [component for component in chosen if component is not None]

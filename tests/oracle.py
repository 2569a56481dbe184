"""What OCPI says a session costs, slowly and exactly: the second opinion that the engine is compared with by `==`.

Written to be read beside the standard: above every rule stands the section it comes from (mod_tariffs, mod_cdrs of
OCPI 2.2.1-d2 and 2.3.0; "Policy" marks what the standard leaves open). Money is a `Fraction` of the currency unit,
energy whole mWh, time whole ms. It works on the raw OCPI objects as JSON gives them and shares no code with `rating`.
It does not parse, validate or explain: feed it valid tariffs of at most 4 decimals and instants after 1972.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
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
# What one unit of a restriction is in the unit that we count: mWh, ms, mA, mW.
SCALES = {
    **dict.fromkeys(("min_kwh", "max_kwh"), 1_000_000),
    **dict.fromkeys(("min_duration", "max_duration"), 1000),
    **dict.fromkeys(("min_current", "max_current"), 1000),
    **dict.fromkeys(("min_power", "max_power"), 1_000_000),
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
    mark: Mark


class Piece(NamedTuple):
    """A charging period: one price per dimension from its start to its end."""

    start_ms: int
    end_ms: int
    state: str  # CHARGING | PARKING | RESERVATION | RESERVATION_EXPIRES
    energy_mwh: int
    energy: Component | None
    time: Component | None


# ---------------------------------------------------------------- the local clock


class LocalMinute(NamedTuple):
    """A wall clock: ISO date, "HH:MM", name of the weekday."""

    date: str
    time: str
    weekday: str


@lru_cache(maxsize=4096)
def local_day(zone: str, day: int) -> list[LocalMinute]:
    """The wall clock in `zone` at each of the 1440 UTC minutes of the UTC day `day` (days since 1970).

    A skipped local hour never shows on the wall, a repeated one shows twice: nothing else needs to be said of DST.
    """
    first = day * MINUTES_A_DAY
    return [_wall_clock(zone, minute) for minute in range(first, first + MINUTES_A_DAY)]


def _wall_clock(zone: str, minute: int) -> LocalMinute:
    local = datetime.fromtimestamp(minute * 60, ZoneInfo(zone))
    text = local.isoformat()  # 2026-03-29T01:59:00+01:00
    return LocalMinute(text[:10], text[11:16], WEEKDAYS[local.weekday()])


def clock_matches(restrictions: Mapping[str, Any], now: LocalMinute) -> bool:
    """mod_tariffs TariffRestrictions: start_time, end_time, start_date, end_date, day_of_week, all in local time."""
    # "start_date: valid from this day (inclusive)"; "end_date: valid until this day (exclusive)".
    if "start_date" in restrictions and now.date < restrictions["start_date"]:
        return False
    if "end_date" in restrictions and now.date >= restrictions["end_date"]:
        return False
    # "day_of_week: Which day(s) of the week this tariff is active." Policy: the local day of the instant, also
    # in a window that began the evening before. An empty list restricts nothing.
    if restrictions.get("day_of_week") and now.weekday not in restrictions["day_of_week"]:
        return False
    # "If end_time < start_time then the period wraps around to the next day. To stop at end of the day use: 00:00."
    start, end = restrictions.get("start_time", "00:00"), restrictions.get("end_time", "00:00")
    if start < end:
        return bool(start <= now.time < end)
    # Policy: equal times are the whole day; both halves of the line below together are just that.
    return bool(now.time >= start or now.time < end)


# ---------------------------------------------------------------- the tariff


@lru_cache(maxsize=4096)
def exact(number: Any) -> Fraction:
    """The decimal number that was written in the JSON."""
    return Fraction(str(number))


def within(value: int | None, minimum: int | None, maximum: int | None) -> bool:
    """Minima are inclusive, maxima exclusive. Policy: an unknown value matches no restriction on it."""
    if minimum is None and maximum is None:
        return True
    if value is None:
        return False
    return (minimum is None or value >= minimum) and (maximum is None or value < maximum)


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
        # Metered values are whole mWh, ms, mA and mW: a limit is reached at the next whole number.
        self.limits: list[dict[str, int]] = [
            {name: ceil(exact(limits[name]) * scale) for name, scale in SCALES.items() if name in limits}
            for limits in self.restrictions
        ]
        self.clocked = [
            index
            for index, limits in enumerate(self.restrictions)
            if any(name in limits for name in CLOCK_RESTRICTIONS)
        ]
        self.energies = self._thresholds("min_kwh", "max_kwh")
        self.durations = self._thresholds("min_duration", "max_duration")
        self._clock_days: dict[int, tuple[list[tuple[bool, ...]], list[int]]] = {}

    def component(self, which: Component) -> Mapping[str, Any]:
        """The PriceComponent object itself."""
        found: Mapping[str, Any] = self.raw["elements"][which[0]]["price_components"][which[1]]
        return found

    # ---- restrictions

    def clock_pattern(self, instant_ms: int) -> tuple[bool, ...]:
        """Which of the clocked elements match the local clock at this instant."""
        day, minute = divmod(instant_ms // MINUTE_MS, MINUTES_A_DAY)
        return self._clock_day(day)[0][minute]

    def clock_changes(self, start_ms: int, end_ms: int) -> list[int]:
        """Instants strictly inside (start_ms, end_ms) at which the clock makes an element match or stop matching."""
        if not self.clocked:
            return []
        days = range(start_ms // DAY_MS, end_ms // DAY_MS + 1)
        return [change for day in days for change in self._clock_day(day)[1] if start_ms < change < end_ms]

    def _clock_day(self, day: int) -> tuple[list[tuple[bool, ...]], list[int]]:
        """The pattern at each minute of a UTC day, and the minutes (in ms) whose pattern is not that before."""
        if day not in self._clock_days:
            walls = [_wall_clock(self.zone, day * MINUTES_A_DAY - 1), *local_day(self.zone, day)]
            columns = [[clock_matches(self.restrictions[index], now) for now in walls] for index in self.clocked]
            patterns = list(zip(*columns, strict=True))
            changes = [
                day * DAY_MS + minute * MINUTE_MS
                for minute, (before, after) in enumerate(pairwise(patterns))
                if before != after
            ]
            self._clock_days[day] = patterns[1:], changes
        return self._clock_days[day]

    def element_matches(self, index: int, moment: Moment) -> bool:
        """mod_tariffs TariffRestrictions: all of them must hold; `reservation` is looked at by the caller."""
        if index in self.clocked and not self.clock_pattern(moment.instant_ms)[self.clocked.index(index)]:
            return False
        limits = self.limits[index]
        return not limits or (
            within(moment.energy_mwh, limits.get("min_kwh"), limits.get("max_kwh"))
            and within(moment.duration_ms, limits.get("min_duration"), limits.get("max_duration"))
            and within(moment.mark.current_ma, limits.get("min_current"), limits.get("max_current"))
            and within(moment.mark.power_mw, limits.get("min_power"), limits.get("max_power"))
        )

    # ---- selection

    def select(self, dimension: str, moment: Moment, reservation: str | None = None) -> Component | None:
        """The component that prices `dimension` at `moment`; None: it is free.

        mod_tariffs Tariff object: "the first Tariff Element with that dimension whose restrictions match".
        ReservationRestrictionType: an element with `reservation` is about reservations only, one without never.
        """
        for index, limits in enumerate(self.restrictions):
            if limits.get("reservation") != reservation:
                continue
            found = self._first_component(index, dimension)
            # 2.1.1 mod_tariffs TariffElement: the first element whose restrictions match supplies everything.
            if (found is not None or self.version == "2.1.1") and self.element_matches(index, moment):
                return found
        return None

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

    def _thresholds(self, *names: str) -> list[int]:
        """The limits of these restrictions in the whole tariff, ascending."""
        return sorted({limits[name] for limits in self.limits for name in names if name in limits})


# ---------------------------------------------------------------- splitting (mod_cdrs ChargingPeriod)


class Curve:
    """The register inside one interval: first + floor(E · a(t) / a(e)), a = ms charged since s, or elapsed if none."""

    def __init__(self, interval: Interval, spans: Sequence[tuple[int, int]], first_mwh: int) -> None:
        start, end, self.energy_mwh, _ = interval
        charged = any(until > since for since, until in spans)
        self.spans = spans if charged else [(start, end)]
        self.first_mwh = first_mwh
        self.whole = sum(until - since for since, until in self.spans)

    def register(self, instant_ms: int) -> int:
        """mWh of the session at an instant of the interval."""
        gone = sum(max(0, min(instant_ms, until) - since) for since, until in self.spans)
        return self.first_mwh + self.energy_mwh * gone // self.whole


def marks_within(marks: Sequence[Mark], start_ms: int, end_ms: int) -> list[Mark]:
    """The mark that holds at start_ms, as of start_ms, then those that begin before end_ms."""
    before = [mark for mark in marks if mark.start_ms <= start_ms]
    inside = [mark for mark in marks if start_ms < mark.start_ms < end_ms]
    return [before[-1]._replace(start_ms=start_ms), *inside]


def rate_interval(tariff: Tariff, session: Session, interval: Interval, energy_before_mwh: int) -> list[Piece]:
    """mod_cdrs ChargingPeriod: a new period starts at every moment that is relevant for the cost."""
    start, end, _, state = interval
    marks = marks_within(session.marks, start, end) if state is None else [Mark(start, state)]
    edges = [*(mark.start_ms for mark in marks), end]
    charging = [
        (since, until) for mark, (since, until) in zip(marks, pairwise(edges), strict=True) if mark.state == "CHARGING"
    ]
    after_mwh = energy_before_mwh + interval.energy_mwh
    if start == end:
        return _split_by_energy(tariff, session, marks[0], (start, energy_before_mwh), (end, after_mwh), None)
    curve = Curve(interval, charging, energy_before_mwh)
    cuts = {*edges, *tariff.clock_changes(start, end)}
    cuts.update(session.start_ms + limit for limit in tariff.durations)
    pieces: list[Piece] = []
    for since, until in pairwise(sorted(cut for cut in cuts if start <= cut <= end)):
        mark = [mark for mark in marks if mark.start_ms <= since][-1]
        left, right = (since, curve.register(since)), (until, curve.register(until))
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
    moment = Moment(clock_ms, max(0, clock_ms - session.start_ms), at_mwh, mark)
    time = tariff.select("TIME" if mark.state == "CHARGING" else "PARKING_TIME", moment)
    return Piece(since, until, mark.state, end_mwh - at_mwh, tariff.select("ENERGY", moment), time)


def rate_reservation(tariff: Tariff, reservation: Reservation) -> list[Piece]:
    """mod_tariffs ReservationRestrictionType: TIME of the reservation; Policy: it is no part of the duration."""
    start, end, expired = reservation
    state = "RESERVATION_EXPIRES" if expired else "RESERVATION"
    pieces = []
    for since, until in pairwise(sorted({start, end, *tariff.clock_changes(start, end)})):
        moment = Moment(since, 0, 0, Mark(since, state))
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
        session_flat = tariff.select("FLAT", Moment(session.start_ms, 0, 0, mark))
    if session.reservation is None:
        return session_flat, []
    start = session.reservation.start_ms
    moment = Moment(start, 0, 0, Mark(start, "RESERVATION"))
    kinds = ["RESERVATION", "RESERVATION_EXPIRES"] if session.reservation.expired else ["RESERVATION"]
    chosen = [tariff.select("FLAT", moment, kind) for kind in kinds]
    return session_flat, [component for component in chosen if component is not None]

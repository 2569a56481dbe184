"""Seeded random tariffs and sessions where rating goes wrong first: DST changes, thresholds hit to the unit,
intervals without length or energy, values far beyond any charger. Plain JSON objects and `tests.oracle` sessions.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tests.oracle import WEEKDAYS, Interval, Mark, Reservation, Session

MINUTE = 60_000
HOUR = 60 * MINUTE
VERSIONS = ("2.1.1", "2.2.1", "2.2.1", "2.3.0", "2.3.0")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/Lisbon",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Antarctica/Troll",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Pacific/Apia",
)
TIMES = (
    "00:00",
    "00:30",
    "01:00",
    "01:30",
    "02:00",
    "02:15",
    "02:30",
    "03:00",
    "07:00",
    "12:00",
    "17:45",
    "22:00",
    "23:59",
)
PRICES = (0, 0.1, 0.25, 0.3333, 1, 1.5, 2.0, 7.77, 0.0001, 12, 99.9999)
VATS = (None, 0, 5.5, 10, 19, 20.0, 21, 0.0001)
KWH = (0, 0.0001, 0.5, 1, 3.3333, 10, 20, 5000)
DURATIONS = (0, 1, 60, 1800, 3599, 3600, 7200)
POWERS = (0, 3.7, 11, 22.0001, 50, 150)
CURRENTS = (0, 16, 32.0001, 32, 63)
STEPS = (0, 1, 1, 7, 60, 300, 500, 900, 3600)


class Pair(NamedTuple):
    """One tariff with the sessions to rate by it."""

    tariff: dict[str, Any]
    zone: str
    version: str
    sessions: list[Session]


def pairs(seed: int, tariffs: int, sessions_each: int) -> Iterator[Pair]:
    """`tariffs` tariffs, each with `sessions_each` sessions near one DST change (or ordinary day) of its zone."""
    random = Random(seed)
    for number in range(tariffs):
        zone, version = random.choice(ZONES), random.choice(VERSIONS)
        tariff = random_tariff(random, version, str(number))
        anchor = random.choice(anchors(zone))
        sessions = [random_session(random, tariff, anchor, version) for _ in range(sessions_each)]
        yield Pair(tariff, zone, version, sessions)


@lru_cache(maxsize=64)
def anchors(zone: str) -> list[int]:
    """Changes of the UTC offset in 2024 to 2027, and two ordinary Saturdays (ms)."""
    first = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1000
    noons = range(first, first + 4 * 365 * 24 * HOUR, 12 * HOUR)
    changes = [
        before + bisect_right(range(before, after, MINUTE), False, key=lambda at: _offset(zone, at) == end) * MINUTE
        for before, after in pairwise(noons)
        if (end := _offset(zone, after)) != _offset(zone, before)
    ]
    return [*changes, 1_736_553_600_000, 1_752_278_400_000]


def _offset(zone: str, instant_ms: int) -> timedelta | None:
    return datetime.fromtimestamp(instant_ms / 1000, ZoneInfo(zone)).utcoffset()


# ---------------------------------------------------------------- tariffs


def random_tariff(random: Random, version: str, name: str) -> dict[str, Any]:
    """A valid Tariff object of one to six elements."""
    tariff: dict[str, Any] = {
        "id": name,
        "currency": random.choice(("EUR", "EUR", "EUR", "JPY", "KWD")),
        "elements": [random_element(random, version) for _ in range(random.randint(1, 6))],
        "last_updated": "2024-01-01T00:00:00Z",
    }
    if version == "2.1.1":
        return tariff
    tariff |= {"country_code": "NL", "party_id": "TST"}
    if version == "2.3.0":
        tariff["tax_included"] = random.choice(("YES", "NO", "NO", "N/A"))
    for name, amounts in (("min_price", (0.5, 3, 20)), ("max_price", (25, 4.99, 0.01))):
        if random.random() < 0.2:
            tariff[name] = _limit(random, random.choice(amounts), version)
    return tariff


def _limit(random: Random, amount: float, version: str) -> dict[str, float]:
    names = ("before_taxes", "after_taxes") if version == "2.3.0" else ("excl_vat", "incl_vat")
    limit = {names[0]: amount}
    if random.random() < 0.5:
        limit[names[1]] = random.choice((amount, round(amount * 1.2, 4)))
    return limit


def random_element(random: Random, version: str) -> dict[str, Any]:
    """One to three components, most often with restrictions."""
    components = [random_component(random, version) for _ in range(random.randint(1, 3))]
    restrictions = random_restrictions(random, version) if random.random() < 0.8 else {}
    return {"price_components": components} | ({"restrictions": restrictions} if restrictions else {})


def random_component(random: Random, version: str) -> dict[str, Any]:
    """A price of up to four decimals."""
    component: dict[str, Any] = {
        "type": random.choice(("ENERGY", "ENERGY", "TIME", "TIME", "PARKING_TIME", "FLAT")),
        "price": random.choice(PRICES),
        "step_size": random.choice(STEPS),
    }
    vat = random.choice(VATS)
    if version != "2.1.1" and vat is not None:
        component["vat"] = vat
    return component


def random_restrictions(random: Random, version: str) -> dict[str, Any]:
    """A few restrictions at once; the limits come from short lists so that sessions can hit them to the unit."""
    chosen: dict[str, Any] = {}
    for names, values, share in (
        (("start_time", "end_time"), TIMES, 0.5),
        (("min_kwh", "max_kwh"), KWH, 0.25),
        (("min_duration", "max_duration"), DURATIONS, 0.2),
        (("min_power", "max_power"), POWERS, 0.15),
    ):
        if random.random() < share:
            for name in random.choice((names, names[:1], names[1:])):
                chosen[name] = random.choice(values)
    if random.random() < 0.2:
        chosen["day_of_week"] = random.sample(WEEKDAYS, random.randint(1, 6))
    if random.random() < 0.1:
        chosen |= _dates(random)
    if version != "2.1.1" and random.random() < 0.1:
        chosen[random.choice(("min_current", "max_current"))] = random.choice(CURRENTS)
    if version != "2.1.1" and random.random() < 0.15:
        chosen["reservation"] = random.choice(("RESERVATION", "RESERVATION", "RESERVATION_EXPIRES"))
    return chosen


def _dates(random: Random) -> dict[str, str]:
    first = random.choice(("2024-01-01", "2024-10-27", "2025-03-30", "2026-03-29", "2026-11-01"))
    last = random.choice(("2025-03-31", "2026-11-01", "2027-01-01", "2028-01-01"))
    return random.choice(({"start_date": first}, {"end_date": last}, {"start_date": first, "end_date": last}))


# ---------------------------------------------------------------- sessions


def random_session(random: Random, tariff: dict[str, Any], anchor: int, version: str) -> Session:
    """A session within a day and a half of the anchor."""
    start = anchor + random.randint(-36 * 60, 36 * 60) * MINUTE
    start += random.choice((0, 0, 0, random.randrange(MINUTE), random.randrange(60) * 1000, -1))
    reservation = _reservation(random, start) if version != "2.1.1" and random.random() < 0.15 else None
    if reservation is not None and reservation.expired:
        return Session([], [], reservation)
    intervals = random_intervals(random, start, thresholds(tariff))
    return Session(intervals, random_marks(random, intervals), reservation)


def _reservation(random: Random, start: int) -> Reservation:
    length = random.choice((0, 1000, 15 * MINUTE, 22 * MINUTE + 1, 3 * HOUR))
    return Reservation(start - length, start, random.random() < 0.4)


def thresholds(tariff: dict[str, Any]) -> list[int]:
    """mWh at which some element of the tariff starts or stops to match."""
    limits = [element.get("restrictions", {}) for element in tariff["elements"]]
    return [round(one[name] * 1_000_000) for one in limits for name in ("min_kwh", "max_kwh") if name in one]


def random_intervals(random: Random, start: int, limits: Sequence[int]) -> list[Interval]:
    """One to four intervals; energy that lands on a threshold, beside it, or anywhere."""
    intervals: list[Interval] = []
    energy = 0
    for _ in range(random.randint(1, 4)):
        length = _length(random)
        gained = _energy(random, energy, limits)
        intervals.append(Interval(start, start + length, gained))
        start += length
        energy += gained
    return intervals


def _length(random: Random) -> int:
    kind = random.random()
    if kind < 0.1:
        return random.choice((0, 0, 1, 2, 999))
    if kind < 0.5:
        return random.randint(1, 90) * MINUTE
    return random.randrange(2 * HOUR)


def _energy(random: Random, so_far: int, limits: Sequence[int]) -> int:
    kind = random.random()
    if kind < 0.15:
        return 0
    if kind < 0.35 and limits:
        return max(0, random.choice(limits) - so_far + random.choice((0, 0, -1, 1)))
    if kind < 0.4:
        return random.choice((1, 2, 10**10))
    return random.randrange(30_000_000)


def random_marks(random: Random, intervals: Sequence[Interval]) -> list[Mark]:
    """What holds from the start, and up to three changes, some of them on the edge of an interval."""
    start, end = intervals[0].start_ms, intervals[-1].end_ms
    at = {start}
    for _ in range(random.choice((0, 0, 1, 2, 3))):
        at.add(random.choice((random.randint(start, end), random.choice(intervals).start_ms)))
    return [_mark(random, instant) for instant in sorted(at)]


def _mark(random: Random, instant: int) -> Mark:
    power = random.choice((None, random.choice(POWERS) * 1_000_000, random.randrange(160_000_000)))
    current = random.choice((None, random.choice(CURRENTS) * 1000, random.randrange(70_000)))
    return Mark(
        instant,
        random.choice(("CHARGING", "CHARGING", "PARKING")),
        None if power is None else round(power),
        None if current is None else round(current),
    )

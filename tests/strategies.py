"""Hypothesis strategies for tariffs, sessions and zones: what `tests.generated` makes in bulk, made to shrink."""

from itertools import accumulate
from typing import Any
from zoneinfo import available_timezones

from hypothesis import strategies as st

from tests import generated
from tests.generated import CURRENTS, DURATIONS, KWH, POWERS, PRICES, STEPS, TIMES, VATS, Pair, anchors, thresholds
from tests.malformed import broken
from tests.oracle import WEEKDAYS, Interval, Mark, Reservation, Session

MINUTE = 60_000
DATES = ("2024-01-01", "2025-03-30", "2026-03-29", "2026-10-25", "2027-01-01")

Json = dict[str, Any]

versions = st.sampled_from(("2.2.1", "2.3.0", "2.1.1"))
zones = st.sampled_from(generated.ZONES)
all_zones = st.sampled_from(sorted(available_timezones()))


def prices(minimum: float = 0) -> st.SearchStrategy[float]:
    """Up to four decimals."""
    exact = st.integers(round(minimum * 10_000), 999_999).map(lambda e4: e4 / 10_000)
    return st.sampled_from(PRICES) | exact


@st.composite
def components(draw: st.DrawFn, version: str) -> Json:
    """A PriceComponent of any dimension."""
    component: Json = {
        "type": draw(st.sampled_from(("ENERGY", "TIME", "PARKING_TIME", "FLAT"))),
        "price": draw(prices()),
        "step_size": draw(st.sampled_from(STEPS)),
    }
    vat = draw(st.sampled_from(VATS))
    return component if vat is None or version == "2.1.1" else component | {"vat": vat}


@st.composite
def restrictions(draw: st.DrawFn, version: str) -> Json:
    """Any restrictions at once, the contradictory ones too."""
    later = version != "2.1.1"
    return draw(
        st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys(("start_time", "end_time"), st.sampled_from(TIMES)),
                **dict.fromkeys(("start_date", "end_date"), st.sampled_from(DATES)),
                **dict.fromkeys(("min_kwh", "max_kwh"), st.sampled_from(KWH)),
                **dict.fromkeys(("min_duration", "max_duration"), st.sampled_from(DURATIONS)),
                **dict.fromkeys(("min_power", "max_power"), st.sampled_from(POWERS)),
                "day_of_week": st.lists(st.sampled_from(WEEKDAYS), unique=True),
            }
            | (dict.fromkeys(("min_current", "max_current"), st.sampled_from(CURRENTS)) if later else {})
            | ({"reservation": st.sampled_from(("RESERVATION", "RESERVATION_EXPIRES"))} if later else {}),
        )
    )


@st.composite
def limits(draw: st.DrawFn, version: str) -> Json:
    """A min_price or max_price, with or without its second side."""
    names = ("before_taxes", "after_taxes") if version == "2.3.0" else ("excl_vat", "incl_vat")
    limit = {names[0]: draw(prices())}
    return draw(st.sampled_from((limit, limit | {names[1]: draw(prices())})))


@st.composite
def tariffs(draw: st.DrawFn, version: str) -> Json:
    """A valid Tariff object of one to four elements."""
    price_components = st.lists(components(version), min_size=1, max_size=3)
    element = st.fixed_dictionaries(
        {"price_components": price_components}, optional={"restrictions": restrictions(version)}
    )
    tariff: Json = {
        "id": "t",
        "currency": draw(st.sampled_from(("EUR", "JPY", "KWD"))),
        "elements": draw(st.lists(element, min_size=1, max_size=4)),
        "last_updated": "2024-01-01T00:00:00Z",
    }
    if version == "2.1.1":
        return tariff
    tariff |= {"country_code": "NL", "party_id": "TST"}
    if version == "2.3.0":
        tariff["tax_included"] = draw(st.sampled_from(("NO", "YES", "N/A")))
    return tariff | draw(
        st.fixed_dictionaries({}, optional={"min_price": limits(version), "max_price": limits(version)})
    )


@st.composite
def sessions(draw: st.DrawFn, tariff: Json, zone: str, version: str) -> Session:
    """A session near a clock change of the zone; energy may land on the tariff's thresholds to the mWh."""
    start = (
        draw(st.sampled_from(anchors(zone)))
        + draw(st.integers(-2000, 2000)) * MINUTE
        + draw(st.sampled_from((0, 0, 1, -1)))
    )
    reservation = None
    if version != "2.1.1" and draw(st.booleans()):
        length = draw(st.sampled_from((0, 1, 15 * MINUTE, 200 * MINUTE)))
        reservation = Reservation(start - length, start, draw(st.booleans()))
        if reservation.expired:
            return Session([], [], reservation)
    intervals = draw(intervals_from(start, tariff))
    return Session(intervals, draw(marks_for(intervals)), reservation)


@st.composite
def intervals_from(draw: st.DrawFn, start: int, tariff: Json) -> list[Interval]:
    """One to four neighbouring intervals."""
    lengths = st.integers(0, 120).map(lambda minutes: minutes * MINUTE) | st.integers(0, 5) | st.integers(0, 10_000_000)
    energies = st.integers(0, 40_000_000) | st.integers(0, 3) | st.sampled_from((*thresholds(tariff), 10**9))
    parts = draw(st.lists(st.tuples(lengths, energies), min_size=1, max_size=4))
    starts = list(accumulate((length for length, _ in parts), initial=start))
    return [Interval(at, at + length, energy) for at, (length, energy) in zip(starts, parts, strict=False)]


@st.composite
def marks_for(draw: st.DrawFn, intervals: list[Interval]) -> list[Mark]:
    """What holds from the start, and up to three changes anywhere in the session."""
    start, end = intervals[0].start_ms, intervals[-1].end_ms
    at = {
        start,
        *draw(st.lists(st.integers(start, end) | st.sampled_from([one.start_ms for one in intervals]), max_size=3)),
    }
    power = st.none() | st.sampled_from(POWERS).map(lambda kw: round(kw * 1_000_000)) | st.integers(0, 160_000_000)
    current = st.none() | st.sampled_from(CURRENTS).map(lambda a: round(a * 1000)) | st.integers(0, 70_000)
    return [
        Mark(instant, draw(st.sampled_from(("CHARGING", "PARKING"))), draw(power), draw(current))
        for instant in sorted(at)
    ]


@st.composite
def pairs(draw: st.DrawFn, most: int = 3) -> Pair:
    """A tariff with one to `most` sessions."""
    version, zone = draw(versions), draw(zones)
    tariff = draw(tariffs(version))
    found = draw(st.lists(sessions(tariff, zone, version), min_size=1, max_size=most))
    return Pair(tariff, zone, version, found)


@st.composite
def broken_tariffs(draw: st.DrawFn) -> tuple[Json, str, str]:
    """(a tariff broken in one place, the JSON path of the place, its version)."""
    version = draw(versions)
    source, path = broken(draw(tariffs(version)), draw(st.integers(0, 10_000)))
    return source, path, version


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)

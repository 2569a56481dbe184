"""What is legal in a tariff but probably not meant, each with its place, a sentence and what to do.

Reads a decoded OCPI Tariff object; nothing here changes what a tariff costs. A tariff that can't be read at all is
one finding too, with the parser's JSON path. Which local hours a clock change skips is asked per time zone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, Final, Literal

import numpy as np

from rating import localtime
from rating.coverage import (
    CURRENT,
    DAY_MINUTES,
    DURATION,
    ENERGY,
    POWER,
    Cells,
    Coverage,
    clock_text,
    contradiction,
    coverage,
)
from rating.errors import TariffError
from rating.localtime import MINUTE_MS
from rating.tariff import (
    CHARGING_ELEMENT,
    DIMENSION_NAMES,
    EVERY_DAY,
    EXPIRED_ELEMENT,
    FLAT,
    PARKING_TIME,
    RESERVATION_ELEMENT,
    TIME,
    Element,
    Tariff,
    Window,
    parse_tariff,
)
from rating.tariff import ENERGY as ENERGY_DIMENSION

Severity = Literal["error", "warning", "info"]
SEVERITIES: Final = ("error", "warning", "info")

_RESTRICTIONS: Final = frozenset(
    (
        *("start_time", "end_time", "start_date", "end_date", "day_of_week", "reservation"),
        *("min_kwh", "max_kwh", "min_current", "max_current", "min_power", "max_power", "min_duration", "max_duration"),
    )
)
_COMPONENT_FIELDS: Final = frozenset(("type", "price", "vat", "step_size"))
_ELEMENT_FIELDS: Final = frozenset(("price_components", "restrictions"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at. `path` is the JSON path, `sentence` what is the case, `advice` what to do."""

    code: str
    severity: Severity
    path: str
    sentence: str
    advice: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """For which zones and UTC instants clock changes are looked at."""

    zones: Sequence[str]
    from_ms: int
    until_ms: int


def lint(source: Any, ocpi_version: str | None = None, clocks: Stretch | None = None) -> list[Finding]:
    """Everything to look at in a decoded Tariff object, in the order of the document, errors first.

    Raises SheetError where `clocks` names a zone that is not in the IANA database.
    """
    try:
        tariff = parse_tariff(source, ocpi_version)
    except TariffError as error:
        return [
            Finding(
                "unreadable",
                "error",
                error.path,
                f"The tariff can't be read: {error}.",
                "Correct this field; nothing can be priced with the tariff until then.",
            )
        ]
    checks: list[Iterator[Finding]] = [
        _whole_tariff(tariff),
        *(check(index, element) for index, element in enumerate(tariff.elements) for check in _ELEMENT_CHECKS),
        *(_unknown_fields(index, element) for index, element in enumerate(tariff.source["elements"])),
        *(_end_of_day(index, element) for index, element in enumerate(tariff.source["elements"])),
        _cells(tariff),
    ]
    if clocks is not None:
        checks += [_skipped_hours(tariff, zone, clocks) for zone in clocks.zones]
    found = [finding for check in checks for finding in check]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


# ---------------------------------------------------------------- the tariff as a whole


def _whole_tariff(tariff: Tariff) -> Iterator[Finding]:
    low, high = (None if limit is None else limit.excl_e4 for limit in (tariff.min_price, tariff.max_price))
    if low is not None and high is not None and low > high:
        yield Finding(
            "limits-cross",
            "error",
            "$.min_price",
            "min_price is above max_price, so every session costs max_price.",
            "Swap the two, or leave one out.",
        )
    if tariff.start_ms is not None and tariff.end_ms is not None and tariff.end_ms <= tariff.start_ms:
        yield Finding(
            "never-valid",
            "error",
            "$.end_date_time",
            "end_date_time is not after start_date_time, so the tariff is never valid.",
            "Correct one of the two.",
        )
    charged = [element for element in tariff.elements if element.reservation == CHARGING_ELEMENT]
    if not any(component.price_e4 for element in charged for component in element.components):
        yield Finding(
            "all-free",
            "info",
            "$.elements",
            "Every price is 0 or concerns a reservation only, so charging is free of charge.",
            "Nothing, if a free tariff is meant.",
        )
    vats = {component.vat_e4 for element in tariff.elements for component in element.components}
    if None in vats and len(vats) > 1:
        yield Finding(
            "vat-missing",
            "warning",
            "$.elements",
            "Some components have a vat and others have none; those without are not taxed.",
            "Give every component its vat (0 where it is 0 %).",
        )


def _unknown_fields(index: int, element: Mapping[str, Any]) -> Iterator[Finding]:
    """A misspelt restriction restricts nothing, which no one notices until the bill."""
    path = f"$.elements[{index}]"
    places = [
        (path, element, _ELEMENT_FIELDS),
        (f"{path}.restrictions", element.get("restrictions") or {}, _RESTRICTIONS),
    ]
    for number, component in enumerate(element["price_components"]):
        places.append((f"{path}.price_components[{number}]", component, _COMPONENT_FIELDS))
    for where, found, known in places:
        for name in sorted(set(found) - known):
            yield Finding(
                "unknown-field",
                "warning",
                f"{where}.{name}",
                f"OCPI has no field {name} here; it is carried along and means nothing.",
                f"Check the spelling (known: {', '.join(sorted(known))}) or remove it.",
            )


# ---------------------------------------------------------------- one element


def _end_of_day(index: int, element: Mapping[str, Any]) -> Iterator[Finding]:
    restrictions = element.get("restrictions") or {}
    path = f"$.elements[{index}].restrictions"
    if restrictions.get("end_time") == "24:00":
        yield Finding(
            "end-24-00",
            "error",
            f"{path}.end_time",
            '"24:00" is no time in OCPI; it is read as the end of the day here, other parties may refuse it.',
            'Write "00:00": OCPI says that this stops at the end of the day.',
        )
    start, end = restrictions.get("start_time"), restrictions.get("end_time")
    if start is not None and start == end:
        yield Finding(
            "equal-times",
            "warning",
            f"{path}.end_time",
            f"start_time and end_time are both {start}; OCPI does not say what that means, it is the whole day here.",
            "Leave both out for the whole day.",
        )


def _duplicates(index: int, element: Element) -> Iterator[Finding]:
    seen: dict[int, int] = {}
    for number, component in enumerate(element.components):
        if component.dimension in seen:
            name = DIMENSION_NAMES[component.dimension]
            yield Finding(
                "duplicate-component",
                "error",
                f"$.elements[{index}].price_components[{number}]",
                f"The element prices {name} twice; only component {seen[component.dimension]} counts.",
                "Remove one of the two, or put it into an element with restrictions of its own.",
            )
        seen.setdefault(component.dimension, number)


def _contradictions(index: int, element: Element) -> Iterator[Finding]:
    path = f"$.elements[{index}].restrictions"
    crossed = contradiction(element.limits)
    if crossed is not None:
        low, high = crossed
        yield Finding(
            "never-matches",
            "error",
            f"{path}.{high}",
            f"No session can satisfy {low} and {high} together (minima are inclusive, maxima exclusive).",
            f"Make {high} larger than {low}, or remove the element.",
        )
    window = element.window
    if window.start_day is not None and window.end_day is not None and window.end_day <= window.start_day:
        yield Finding(
            "never-matches",
            "error",
            f"{path}.end_date",
            "end_date is not after start_date, and is itself excluded, so the element never matches.",
            "Set end_date to the day after the last one.",
        )


def _reserved(index: int, element: Element) -> Iterator[Finding]:
    if element.reservation == CHARGING_ELEMENT:
        return
    for number, component in enumerate(element.components):
        if component.dimension not in (TIME, FLAT):
            name = DIMENSION_NAMES[component.dimension]
            yield Finding(
                "reservation-dimension",
                "error",
                f"$.elements[{index}].price_components[{number}]",
                f"{name} next to a reservation restriction is never used: reservations have TIME and FLAT only.",
                "Move the component into an element without the reservation restriction.",
            )


def _flat_too_late(index: int, element: Element) -> Iterator[Finding]:
    limits = element.limits
    if not (limits.min_mwh or limits.min_duration_ms):
        return
    for number, component in enumerate(element.components):
        if component.dimension == FLAT:
            yield Finding(
                "flat-never-due",
                "error",
                f"$.elements[{index}].price_components[{number}]",
                "A FLAT fee is decided once, at the start of the session; this element only matches later.",
                "Move the FLAT component into an element without min_kwh and min_duration.",
            )


def _over_midnight(index: int, element: Element) -> Iterator[Finding]:
    window = element.window
    if window.weekdays != EVERY_DAY and 0 < window.end_minute < window.start_minute:
        yield Finding(
            "overnight-weekday",
            "warning",
            f"$.elements[{index}].restrictions.day_of_week",
            f"The window {clock_text(window.start_minute)}–{clock_text(window.end_minute)} crosses midnight, and "
            "day_of_week is the local day of each instant: the hours after midnight belong to the next day's name.",
            "If the night that begins on these days is meant, split the window at 00:00 and name both days.",
        )


_ELEMENT_CHECKS: Final[tuple[Callable[[int, Element], Iterator[Finding]], ...]] = (
    _duplicates,
    _contradictions,
    _reserved,
    _flat_too_late,
    _over_midnight,
)


# ---------------------------------------------------------------- all elements together


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question put to the cells: who prices `dimension` for these elements?"""

    dimension: int
    kind: int
    name: str
    at_start: bool  # decided once, with no energy and no duration yet


_ASKED: Final = (
    _Asked(ENERGY_DIMENSION, CHARGING_ELEMENT, "ENERGY", at_start=False),
    _Asked(TIME, CHARGING_ELEMENT, "TIME", at_start=False),
    _Asked(PARKING_TIME, CHARGING_ELEMENT, "PARKING_TIME", at_start=False),
    _Asked(FLAT, CHARGING_ELEMENT, "FLAT", at_start=True),
    _Asked(TIME, RESERVATION_ELEMENT, "reservation TIME", at_start=True),
    _Asked(TIME, EXPIRED_ELEMENT, "TIME of an expired reservation", at_start=True),
    _Asked(FLAT, RESERVATION_ELEMENT, "reservation FLAT", at_start=True),
    _Asked(FLAT, EXPIRED_ELEMENT, "FLAT of an expired reservation", at_start=True),
)


def _cells(tariff: Tariff) -> Iterator[Finding]:
    covered = coverage(tariff)
    if covered is None:
        yield Finding(
            "too-many-cases",
            "info",
            "$.elements",
            "The restrictions make so many combinations that gaps and overlaps were not looked for.",
            "Check the tariff's parts by themselves.",
        )
        return
    for asked in _ASKED:
        yield from _answers(tariff, covered, asked)


def _answers(tariff: Tariff, covered: Coverage, asked: _Asked) -> Iterator[Finding]:
    """Who prices the dimension in each cell: elements that never do, cells that no one prices, double claims."""
    asking = [index for index, element in enumerate(tariff.elements) if element.reservation == asked.kind]
    pricing = [index for index in asking if _component(tariff, index, asked.dimension) is not None]
    if not pricing:
        return
    left = covered.possible.copy()
    if asked.at_start:
        left[_later(left)] = False
    free = np.zeros_like(left)
    for index in asking if tariff.whole_element else pricing:
        claimed = covered.matches[index] & left
        if index not in pricing:
            free |= claimed
        elif not claimed.any() and _could_match(tariff.elements[index], asked):
            yield _never_used(tariff, index, asked)
        left &= ~claimed
    yield from _gaps(tariff, covered, asked, pricing, left | free)
    yield from _overlaps(tariff, covered, asked, pricing)


def _component(tariff: Tariff, index: int, dimension: int) -> int | None:
    components = tariff.elements[index].components
    return next((number for number, one in enumerate(components) if one.dimension == dimension), None)


def _later(cells: Cells) -> Cells:
    """Every cell with energy or duration, as far as the tariff tells them apart from none."""
    index = [slice(None)] * cells.ndim
    index[ENERGY], index[DURATION] = slice(0, 1), slice(0, 1)
    later = np.ones_like(cells)
    later[tuple(index)] = False
    return later


def _could_match(element: Element, asked: _Asked) -> bool:
    """Whether the element matches anything at all by itself; if not, that was already said."""
    window = element.window
    dated = window.start_day is None or window.end_day is None or window.start_day < window.end_day
    late = asked.at_start and (element.limits.min_mwh or element.limits.min_duration_ms)
    return dated and not late and contradiction(element.limits) is None


def _never_used(tariff: Tariff, index: int, asked: _Asked) -> Finding:
    earlier = f"an earlier one prices {asked.name} already"
    why = "an earlier one does too, and OCPI 2.1.1 takes that alone" if tariff.whole_element else earlier
    return Finding(
        "never-used",
        "error",
        f"$.elements[{index}].price_components[{_component(tariff, index, asked.dimension)}]",
        f"This price for {asked.name} is never used: wherever the element matches, {why}, or the tariff is not valid.",
        "Move the element before those that cover it, or remove it.",
    )


def _gaps(tariff: Tariff, covered: Coverage, asked: _Asked, pricing: Sequence[int], left: Cells) -> Iterator[Finding]:
    used = any((covered.matches[index] & ~left).any() for index in pricing)
    if asked.dimension == FLAT or asked.kind == EXPIRED_ELEMENT or not left.any() or not used:
        return  # a price that is never used was said to be so
    path = f"$.elements[{pricing[-1]}].restrictions"
    reported = left.copy()
    for axis in (POWER, CURRENT):
        if covered.axes[axis][0][0] < 0:
            reported[tuple(slice(0, 1) if at == axis else slice(None) for at in range(left.ndim))] = False
    if not reported.any():
        yield Finding(
            "missing-fallback",
            "warning",
            path,
            f"{asked.name} is free whenever the charger does not report what the restrictions ask for "
            f"({covered.describe(left)}).",
            f"Add a last element that prices {asked.name} without restrictions.",
        )
        return
    yield Finding(
        "gap",
        "warning",
        path,
        f"{asked.name} is free where no element matches, for example: {covered.describe(left, reported)}.",
        f"Add a last element that prices {asked.name} without restrictions (price 0 if it is meant to be free).",
    )


def _overlaps(tariff: Tariff, covered: Coverage, asked: _Asked, pricing: Sequence[int]) -> Iterator[Finding]:
    for first, second in combinations(pricing, 2):
        one, other = covered.matches[first], covered.matches[second]
        both = one & other
        if (
            not both.any()
            or not (one & ~other).any()
            or not (other & ~one).any()
            or _same_price(tariff, first, second, asked)
        ):
            continue
        yield Finding(
            "overlap",
            "warning",
            f"$.elements[{second}].restrictions",
            f"Elements {first} and {second} both price {asked.name}, for example: {covered.describe(both)}; "
            f"element {first} wins because it comes first.",
            "Nothing, if this order is meant; else make the restrictions exclude each other.",
        )


def _same_price(tariff: Tariff, first: int, second: int, asked: _Asked) -> bool:
    one, other = (_component(tariff, index, asked.dimension) for index in (first, second))
    assert one is not None and other is not None  # noqa: S101 - both price the dimension
    return tariff.elements[first].components[one] == tariff.elements[second].components[other]


# ---------------------------------------------------------------- clock changes


def _skipped_hours(tariff: Tariff, zone: str, clocks: Stretch) -> Iterator[Finding]:
    """Windows that begin, end or lie in a local hour that the clock change of `zone` skips."""
    starts, offsets = localtime.stretches(zone, clocks.from_ms, clocks.until_ms)
    for (_, before), (instant, after) in pairwise(zip(starts.tolist(), offsets.tolist(), strict=True)):
        if after <= before:
            continue
        gone = tuple((instant + offset) // MINUTE_MS % DAY_MINUTES for offset in (before, after))
        day = (instant + before) // localtime.DAY_MS
        for index, element in enumerate(tariff.elements):
            window = element.window
            if window.start_minute == window.end_minute or not _on_day(window, day):
                continue
            inside = [name for name, at in _edges(window.start_minute, window.end_minute) if gone[0] < at < gone[1]]
            lost = gone[0] <= window.start_minute < window.end_minute <= gone[1]
            if lost or inside:
                yield _skipped(index, zone, str(np.datetime64(day, "D")), gone, lost, inside)
        return  # one clock change shows it; the next years' are the same


def _on_day(window: Window, day: int) -> bool:
    """Whether the window's dates and weekdays allow a local day (1970-01-01 was a Thursday)."""
    dated = (window.start_day is None or window.start_day <= day) and (window.end_day is None or day < window.end_day)
    return dated and bool(window.weekdays >> (day + 3) % 7 & 1)


def _edges(start: int, end: int) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("start_time", start), ("end_time", end)


def _skipped(index: int, zone: str, day: str, gone: tuple[int, ...], lost: bool, inside: Sequence[str]) -> Finding:
    hours = f"{clock_text(gone[0])}–{clock_text(gone[1])}"
    what = "the whole window lies" if lost else f"{' and '.join(inside)} {'lie' if len(inside) > 1 else 'lies'}"
    return Finding(
        "skipped-hour",
        "warning" if lost else "info",
        f"$.elements[{index}].restrictions.{'start_time' if lost else inside[0]}",
        f"In {zone} the clock skips {hours} on {day}, and {what} in it: "
        + ("the element does not match on that day." if lost else "the window is shorter on that day."),
        "Nothing, if that is meant; else let the window begin or end outside the skipped hour.",
    )

"""OCPI rating in plain Python integers, an interval at a time: what a careful program without kernels does.

One of the competitors, and the judge of the others: it shares nothing with `rating.kernel` but the parsed tariff and
the meaning of its units, so equal sums are worth something. Follows README.md of rating, "Selection and cutting".
Whole intervals charge or park; reservations and 2.1.1 tariffs are not done.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from rating.money import COST_PER_E4, ENERGY_COST, TIME_COST
from rating.tariff import ENERGY, FLAT, PARKING_TIME, TIME, Element, PriceComponent, Tariff, Window

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Priced(NamedTuple):
    """A piece of an interval under one price."""

    dimension: int
    start_ms: int
    end_ms: int
    quantity: int  # mWh, or ms
    price_e4: int
    cost: int


class Rater:
    """One tariff in one zone."""

    def __init__(self, tariff: Tariff, zone: str) -> None:
        self._elements = tariff.elements
        self._zone = ZoneInfo(zone)
        self._minutes = _minutes_of(tariff)
        self._thresholds = _limits_of(tariff, "min_mwh", "max_mwh")
        self._durations = _limits_of(tariff, "min_duration_ms", "max_duration_ms")
        self._cached_flips = lru_cache(4096)(self._flips_of_day)

    def flat(self, start_ms: int, power_mw: int) -> list[Priced]:
        """The FLAT that a session owes when it starts."""
        found = self._component(FLAT, start_ms, 0, 0, power_mw)
        return [Priced(FLAT, start_ms, start_ms, 1, found.price_e4, found.price_e4 * COST_PER_E4)] if found else []

    def interval(
        self, begun_ms: int, before_mwh: int, start_ms: int, end_ms: int, energy_mwh: int, power_mw: int, parked: bool
    ) -> list[Priced]:
        """The priced pieces of an interval of a session that began at `begun_ms` and had `before_mwh` until here."""
        priced: list[Priced] = []
        at_ms = clock_ms = start_ms
        used = 0
        for until_ms, moves_clock, register in self._cuts(begun_ms, before_mwh, start_ms, end_ms, energy_mwh):
            so_far, elapsed = before_mwh + used, clock_ms - begun_ms
            energy = register - used
            found = self._component(ENERGY, clock_ms, so_far, elapsed, power_mw) if energy else None
            if found:
                cost = energy * found.price_e4 * ENERGY_COST
                priced.append(Priced(ENERGY, at_ms, until_ms, energy, found.price_e4, cost))
            dimension, length = PARKING_TIME if parked else TIME, until_ms - at_ms
            found = self._component(dimension, clock_ms, so_far, elapsed, power_mw) if length else None
            if found:
                cost = length * found.price_e4 * TIME_COST
                priced.append(Priced(dimension, at_ms, until_ms, length, found.price_e4, cost))
            at_ms, used = until_ms, register
            clock_ms = until_ms if moves_clock else clock_ms
        return priced

    def _cuts(
        self, begun_ms: int, before_mwh: int, start_ms: int, end_ms: int, energy_mwh: int
    ) -> list[tuple[int, bool, int]]:
        """(instant, whether the clock moves there, energy until there), ascending, the end last."""
        length = end_ms - start_ms
        cuts = [(end_ms, True, energy_mwh)]
        for threshold in self._thresholds:
            need = threshold - before_mwh
            if 0 < need < energy_mwh:
                cuts.append((start_ms - (-need * length // energy_mwh), False, need))
        durations = (begun_ms + duration for duration in self._durations if start_ms < begun_ms + duration < end_ms)
        instants = chain(self._flips(start_ms, end_ms), durations)
        cuts += [(instant, True, energy_mwh * (instant - start_ms) // length) for instant in instants]
        return sorted(cuts) if len(cuts) > 1 else cuts

    def _flips(self, start_ms: int, end_ms: int) -> Iterator[int]:
        if not self._minutes:
            return
        for day in range(start_ms // 86_400_000, end_ms // 86_400_000 + 1):
            yield from (instant for instant in self._cached_flips(day) if start_ms < instant < end_ms)

    def _flips_of_day(self, day: int) -> list[int]:
        """Instants of a UTC day at which the local clock shows an edge of a window."""
        first = _EPOCH + timedelta(days=day)
        minutes = (first + timedelta(minutes=minute) for minute in range(1440))
        edges = (moment for moment in minutes if _minute_of_day(moment.astimezone(self._zone)) in self._minutes)
        return [int(moment.timestamp()) * 1000 for moment in edges]

    def _component(
        self, dimension: int, clock_ms: int, so_far_mwh: int, elapsed_ms: int, power_mw: int
    ) -> PriceComponent | None:
        local = datetime.fromtimestamp(clock_ms // 1000, self._zone) if self._minutes else _EPOCH
        for element in self._elements:
            for component in element.components:
                if component.dimension == dimension and _holds(element, local, so_far_mwh, elapsed_ms, power_mw):
                    return component
        return None


def _holds(element: Element, local: datetime, so_far_mwh: int, elapsed_ms: int, power_mw: int) -> bool:
    limits = element.limits
    return (
        (element.window.always or _in_window(element.window, local))
        and _within(so_far_mwh, limits.min_mwh, limits.max_mwh)
        and _within(elapsed_ms, limits.min_duration_ms, limits.max_duration_ms)
        and _within(power_mw, limits.min_power_mw, limits.max_power_mw)
    )


def _within(value: int, low: int | None, high: int | None) -> bool:
    return (low is None or value >= low) and (high is None or value < high)


def _in_window(window: Window, local: datetime) -> bool:
    if not window.weekdays >> local.weekday() & 1:
        return False
    minute, start, end = _minute_of_day(local), window.start_minute, window.end_minute
    if start == end:
        return True
    return start <= minute < end if start < end else minute >= start or minute < end


def _minute_of_day(local: datetime) -> int:
    return local.hour * 60 + local.minute


def _minutes_of(tariff: Tariff) -> frozenset[int]:
    windows = [element.window for element in tariff.elements if not element.window.always]
    edges = {edge % 1440 for window in windows for edge in (window.start_minute, window.end_minute)}
    return frozenset(edges | {0} if edges else edges)


def _limits_of(tariff: Tariff, *names: str) -> list[int]:
    found = {getattr(element.limits, name) for element in tariff.elements for name in names}
    return sorted(found - {None, 0})

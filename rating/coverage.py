"""Which element prices what, everywhere at once: the space of sessions cut into cells by a tariff's own limits.

Seven axes (local date, weekday, time of day, energy, duration, power, current), each cut at every limit that the
tariff names, so that inside a cell every element matches throughout or nowhere. What the elements leave free, never
reach or claim twice is then array arithmetic. Used by the linter; prices nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt

from rating.columns import ABSENT
from rating.tariff import WEEKDAYS, Element, Limits, Tariff, Window

CELLS_MAX: Final = 4_000_000
DAY_MINUTES: Final = 24 * 60
DATE, WEEKDAY, CLOCK, ENERGY, DURATION, POWER, CURRENT = range(7)
_UNBOUNDED: Final = 10**9  # days: later than any date that a tariff can name

Cells = npt.NDArray[np.bool_]
Range = tuple[int, int]
"""From (inclusive) to (exclusive), in the unit of `rating.tariff`."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """The cells of a tariff: `axes[i]` are the ranges of axis i, `possible` the cells that can happen at all."""

    axes: tuple[tuple[Range, ...], ...]
    possible: Cells
    matches: tuple[Cells, ...]  # one an element

    def describe(self, cells: Cells, among: Cells | None = None) -> str:
        """The first of these cells (that is `among` others) in words, with its neighbours along each axis."""
        first = tuple(int(axis[0]) for axis in np.nonzero(cells if among is None else among))
        texts = (self._along(axis, first, cells) for axis in range(len(self.axes)))
        return ", ".join(text for text in texts if text) or "always"

    def _along(self, axis: int, cell: tuple[int, ...], cells: Cells) -> str:
        line: tuple[int | slice, ...] = (*cell[:axis], slice(None), *cell[axis + 1 :])
        held, possible = cells[line], self.possible[line]
        if (held == possible).all():
            return ""
        ranges = self.axes[axis]
        if axis == WEEKDAY:
            return ", ".join(WEEKDAYS[index].capitalize() for index in np.flatnonzero(held))
        last = cell[axis]
        while last + 1 < len(held) and held[last + 1]:
            last += 1
        return _words(axis, (ranges[cell[axis]][0], ranges[last][1]))


def coverage(tariff: Tariff) -> Coverage | None:
    """The cells of a tariff; None where its limits make more than CELLS_MAX (times elements)."""
    elements = tariff.elements
    axes = _axes(elements)
    if prod(len(axis) for axis in axes) * len(elements) > CELLS_MAX:
        return None
    possible = _outer(_possible(tariff, axes))
    return Coverage(axes, possible, tuple(_outer(_masks(element, axes)) & possible for element in elements))


def _axes(elements: Sequence[Element]) -> tuple[tuple[Range, ...], ...]:
    windows = [element.window for element in elements]
    limits = [element.limits for element in elements]
    days = [day for window in windows for day in (window.start_day, window.end_day)]
    clock = [minute % DAY_MINUTES for window in windows for minute in (window.start_minute, window.end_minute)]
    return (
        _ranges(days, -_UNBOUNDED, _UNBOUNDED),
        tuple((day, day + 1) for day in range(7)),
        _ranges(clock, 0, DAY_MINUTES),
        _ranges([value for one in limits for value in (one.min_mwh, one.max_mwh)], 0, None),
        _ranges([value for one in limits for value in (one.min_duration_ms, one.max_duration_ms)], 0, None),
        _metered([value for one in limits for value in (one.min_power_mw, one.max_power_mw)]),
        _metered([value for one in limits for value in (one.min_current_ma, one.max_current_ma)]),
    )


def _ranges(cuts: Sequence[int | None], first: int, last: int | None) -> tuple[Range, ...]:
    end = 2**62 if last is None else last
    inside = {cut for cut in cuts if cut is not None and first < cut < end}
    return tuple(pairwise(sorted({first, end} | inside)))


def _metered(cuts: Sequence[int | None]) -> tuple[Range, ...]:
    """A value that a charger may not report: then it is ABSENT and matches no limit on it."""
    known = _ranges(cuts, 0, None)
    return known if all(cut is None for cut in cuts) else ((ABSENT, 0), *known)


def _possible(tariff: Tariff, axes: Sequence[Sequence[Range]]) -> list[Cells]:
    """Every cell but those on days when the tariff is not valid (a day's tolerance: zones differ)."""
    masks = [np.ones(len(axis), np.bool_) for axis in axes]
    first = -_UNBOUNDED if tariff.start_ms is None else tariff.start_ms // 86_400_000 - 1
    last = _UNBOUNDED if tariff.end_ms is None else tariff.end_ms // 86_400_000 + 2
    masks[DATE] = np.array([end > first and start < last for start, end in axes[DATE]])
    return masks


def _masks(element: Element, axes: Sequence[Sequence[Range]]) -> list[Cells]:
    window, limits = element.window, element.limits
    return [
        _between(axes[DATE], window.start_day, window.end_day),
        np.array([bool(window.weekdays >> day & 1) for day in range(7)]),
        np.array([_on_clock(window, minute) for minute, _ in axes[CLOCK]]),
        _between(axes[ENERGY], limits.min_mwh, limits.max_mwh),
        _between(axes[DURATION], limits.min_duration_ms, limits.max_duration_ms),
        _between(axes[POWER], limits.min_power_mw, limits.max_power_mw),
        _between(axes[CURRENT], limits.min_current_ma, limits.max_current_ma),
    ]


def _between(axis: Sequence[Range], minimum: int | None, maximum: int | None) -> Cells:
    def inside(start: int) -> bool:
        if minimum is None and maximum is None:
            return True
        return start != ABSENT and (minimum is None or start >= minimum) and (maximum is None or start < maximum)

    return np.array([inside(start) for start, _ in axis])


def _on_clock(window: Window, minute: int) -> bool:
    start, end = window.start_minute, window.end_minute
    if start < end:
        return start <= minute < end
    return minute >= start or minute < end


def _outer(masks: Sequence[Cells]) -> Cells:
    shaped = [
        mask.reshape([-1 if axis == index else 1 for axis in range(len(masks))]) for index, mask in enumerate(masks)
    ]
    return np.asarray(reduce(np.logical_and, shaped))


def contradiction(limits: Limits) -> tuple[str, str] | None:
    """The first pair of limits that no value can satisfy, by their OCPI names."""
    pairs = (
        ("min_kwh", "max_kwh", limits.min_mwh, limits.max_mwh),
        ("min_current", "max_current", limits.min_current_ma, limits.max_current_ma),
        ("min_power", "max_power", limits.min_power_mw, limits.max_power_mw),
        ("min_duration", "max_duration", limits.min_duration_ms, limits.max_duration_ms),
    )
    for low_name, high_name, low, high in pairs:
        if high is not None and high <= (low or 0):
            return low_name, high_name
    return None


def clock_text(minute: int) -> str:
    """Minutes since midnight as "HH:MM"."""
    return f"{minute // 60:02}:{minute % 60:02}"


def _words(axis: int, held: Range) -> str:
    start, end = held
    if axis == DATE:
        return _dates(start, end)
    if axis == CLOCK:
        return f"{clock_text(start)}–{clock_text(end)}"
    scale, unit, name = {
        ENERGY: (1_000_000, " kWh", "energy"),
        DURATION: (1000, " s", "duration"),
        POWER: (1_000_000, " kW", "power"),
        CURRENT: (1000, " A", "current"),
    }[axis]
    if start == ABSENT:
        return f"{name} not reported"
    below = "" if end >= 2**62 else f" below {end / scale:g}{unit}"
    return f"{name} from {start / scale:g}{unit}{below}"


def _dates(start: int, end: int) -> str:
    first, last = (str(np.datetime64(day, "D")) if abs(day) < _UNBOUNDED else "" for day in (start, end))
    if not first:
        return f"before {last}"
    return f"from {first} until {last}" if last else f"from {first}"

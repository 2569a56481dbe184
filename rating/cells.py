"""Cells of a tariff: what prices energy and time wherever nothing can change, written down instead of searched.

A cell is one pattern of windows, and between which thresholds energy, current, power and duration lie. Which component
prices a slot there is the answer of `kernel._searched`, found here another way; the tests compare the two by `==`.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import product
from typing import Final, NamedTuple

from rating.columns import ABSENT, FREE, MISSING_BITS, MISSING_CURRENT, MISSING_POWER

FOREVER: Final = 2**62  # a maximum that is none; negative, a minimum that is none
NO_LIMIT: Final = -1  # of a candidate: it always matches
CELLS_MAX: Final = 512  # of one sheet; where there are more, its elements are searched

Candidates = Sequence[tuple[int, int]]  # (component or FREE, row of limits or NO_LIMIT), in list order


class _Level(NamedTuple):
    """A quantity between two of its thresholds: the limits that hold there, a bit a row."""

    holding: int
    unmeasured: int  # the limits that can't be checked there, as the quantity was not measured


class Grid:
    """The thresholds of a tariff's limits (min and max of mWh, mA, mW, ms), and its cells in any pattern."""

    def __init__(self, limits: Sequence[Sequence[int]], kwh: Sequence[int], durations: Sequence[int]) -> None:
        self.current, self.power = _measured_thresholds(limits, 2), _measured_thresholds(limits, 4)
        self._limits = limits
        self._values = ([0, *kwh], _with_below(self.current), _with_below(self.power), [0, *durations])
        energies, currents, powers, lengths = map(len, self._values)
        self.current_step = energies  # so many cells further is the next threshold of current; of energy the next one
        self.power_step = self.current_step * currents
        self.duration_step = self.power_step * powers
        self.size = self.duration_step * lengths

    def cells(self, slots: Sequence[Candidates]) -> list[tuple[int, ...]]:
        """A row a cell: per slot its component and what could not be checked, `component << MISSING_BITS | missing`."""
        return list(zip(*(self._column(slot) for slot in slots), strict=True))

    def _column(self, slot: Candidates) -> list[int]:
        if not slot or slot[0][1] == NO_LIMIT:
            return [_choice(slot, 0, 0, 0)] * self.size
        return [_choice(slot, *one) for one in self._holding]

    @cached_property
    def _holding(self) -> list[tuple[int, int, int]]:
        """Per cell, energy varying fastest: the limits that hold, and those that lack power, or current."""
        levels = [[_level(self._limits, 2 * axis, value) for value in of] for axis, of in enumerate(self._values)]
        return [
            (kwh.holding & current.holding & power.holding & duration.holding, power.unmeasured, current.unmeasured)
            for duration, power, current, kwh in product(*reversed(levels))
        ]


def _choice(candidates: Candidates, holding: int, no_power: int, no_current: int) -> int:
    """The first that matches, or FREE."""
    missing = 0
    for component, limit in candidates:
        if limit == NO_LIMIT or holding >> limit & 1:
            return component << MISSING_BITS | missing
        missing |= MISSING_POWER * (no_power >> limit & 1) | MISSING_CURRENT * (no_current >> limit & 1)
    return FREE << MISSING_BITS | missing


def _level(limits: Sequence[Sequence[int]], column: int, value: int) -> _Level:
    holding = [row[column] <= value < row[column + 1] for row in limits]
    unmeasured = [value == ABSENT < row[column] for row in limits]
    return _Level(_bits(holding), _bits(unmeasured) if column in (2, 4) else 0)


def _measured_thresholds(limits: Sequence[Sequence[int]], column: int) -> list[int]:
    """Where power or current changes something, and ABSENT, which is nowhere else; nothing where neither is limited."""
    edges = {edge for row in limits if row[column] > ABSENT for edge in row[column : column + 2] if edge < FOREVER}
    return sorted(edges | {ABSENT, 0}) if edges else []


def _with_below(thresholds: list[int]) -> list[int]:
    """A value of each level: below all thresholds, and from each on."""
    return [min(thresholds, default=0) - 1, *thresholds]


def _bits(rows: Sequence[bool]) -> int:
    return sum(1 << at for at, held in enumerate(rows) if held)

"""Which row of the state is which connector: charge point and number to row and back, packed and compiled.

A connector is one number here: its charge point's in the high half, its own in the low half.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.metering.state import NONE
from pipeline.texts import Numbers, Packed, Places, Texts, grown, new_table
from rating.jit import kernel, part

_NOBODY: Final = -1
_LOW: Final = 0xFFFFFFFF
_PRIME: Final = np.uint64(0x9E3779B97F4A7C15)
_SHIFT: Final = np.uint64(32)


class Roll:
    """Connectors by row; as a sequence, the charge point of each row ("" where a row is nobody's)."""

    def __init__(self) -> None:
        """Nobody."""
        self.texts = Texts()  # of charge points
        self._rows = 0
        self._connectors: Places = np.full(8, _NOBODY, np.int64)  # by row
        self._table: Numbers = new_table(8)  # rows by connector
        self._entered = 0  # places of it that are taken
        self._first: Numbers = np.full(8, NONE, np.int32)  # row of a charge point's first connector

    def __len__(self) -> int:
        """How many rows are or were somebody's."""
        return self._rows

    def __getitem__(self, row: int) -> str:
        """The charge point of a row."""
        if not 0 <= row < self._rows:
            raise IndexError(f"row {row} of {self._rows}")
        connector = int(self._connectors[row])
        return self.texts[connector >> 32] if connector != _NOBODY else ""

    def __iter__(self) -> Iterator[str]:
        """The charge points of all rows."""
        return (self[row] for row in range(self._rows))

    def points(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """The numbers of their charge points; -1 where a row is nobody's."""
        found: npt.NDArray[np.int64] = self._connectors[rows] >> 32
        return found

    def names(self, rows: npt.NDArray[np.integer]) -> Packed:
        """Their charge points."""
        return self.texts.taken(self.points(rows))

    def connectors(self, names: Sequence[str], keys: Places) -> Places:
        """Connectors by their charge point's place in `names`, high, and number, low; new names are taken in."""
        at = keys >> 32
        used = np.flatnonzero(np.bincount(at, minlength=len(names)))
        numbers = np.full(len(names), NONE, np.int64)
        numbers[used] = self.texts.numbers(names if len(used) == len(names) else [names[n] for n in used.tolist()])
        return numbers[at] << 32 | keys & _LOW

    def packed_connectors(self, names: Packed, ids: npt.NDArray[np.integer]) -> Places:
        """The same, of as many names as ids."""
        return self.texts.numbers_of(names).astype(np.int64) << 32 | ids

    def find(self, charge_point: str, connector_id: int) -> int:
        """The row of a connector, -1 when it has none."""
        number = self.texts.find(charge_point)
        return NONE if number < 0 else int(self.rows(np.array([number << 32 | connector_id]))[0])

    def rows(self, connectors: Places) -> Numbers:
        """Their rows, -1 where one has none."""
        rows = np.empty(len(connectors), np.int32)
        look_up(self._table, self._connectors, connectors, rows)
        return rows

    def extend(self, rows: int) -> None:
        """So many rows more, nobody's yet."""
        known, self._rows = self._rows, self._rows + rows
        self._connectors = grown(self._connectors, self._rows)
        self._connectors[known : self._rows] = _NOBODY

    def put(self, rows: Places, connectors: Places) -> Numbers:
        """Give rows, nobody's yet, to connectors; the row of the first connector of each one's charge point."""
        self._connectors[rows] = connectors
        self._enter(rows)
        known = len(self._first)
        self._first = grown(self._first, len(self.texts))
        self._first[known:] = NONE
        points = connectors >> 32
        backwards = np.flatnonzero(self._first[points] == NONE)[::-1]  # of several the first one stays
        self._first[points[backwards]] = rows[backwards]
        return self._first[points]

    def drop(self, rows: npt.NDArray[np.integer]) -> None:
        """Make rows nobody's again; charge points without any are forgotten once they are half of all."""
        self._first[self.points(rows)] = NONE
        self._connectors[rows] = _NOBODY
        kept = np.flatnonzero(self._connectors[: self._rows] != _NOBODY)
        if 2 * len(kept) < len(self.texts):
            self._renumber(kept)

    def _enter(self, rows: Places) -> None:
        """Into the table. A row that is nobody's, or another's now, may stay where it was: no search ends there."""
        self._entered += len(rows)
        if 2 * self._entered > len(self._table):
            rows = np.flatnonzero(self._connectors[: self._rows] != _NOBODY)
            self._table, self._entered = new_table(len(rows)), len(rows)
        enter_rows(self._table, self._connectors, rows)

    def _renumber(self, kept: Places) -> None:
        """Keep the charge points of these rows alone."""
        points, numbers = np.unique(self._connectors[kept] >> 32, return_inverse=True)
        self.texts, self._first = self.texts.only(points), self._first[points]
        self._connectors[kept] = numbers << 32 | self._connectors[kept] & _LOW
        self._table, self._entered = new_table(len(kept)), 0
        self._enter(kept)


@part
def slot_of(connector: int, slots: int) -> np.uint64:
    """Where the search for a connector begins."""
    mixed = np.uint64(connector) * _PRIME
    return (mixed ^ (mixed >> _SHIFT)) & np.uint64(slots - 1)


@kernel
def look_up(table: Numbers, known: Places, connectors: Places, rows: Numbers) -> None:
    """Write the row of each connector, -1 for none; `known` holds the connector of each row."""
    mask = np.uint64(len(table) - 1)
    for k in range(len(connectors)):
        slot = slot_of(connectors[k], len(table))
        row = np.int64(table[slot])
        while row >= 0 and known[row] != connectors[k]:
            slot = (slot + np.uint64(1)) & mask
            row = np.int64(table[slot])
        rows[k] = row


@kernel
def enter_rows(table: Numbers, known: Places, rows: Places) -> None:
    """Put rows into the table; none of them is in it."""
    mask = np.uint64(len(table) - 1)
    for k in range(len(rows)):
        row = rows[k]
        slot = slot_of(known[row], len(table))
        while table[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = row

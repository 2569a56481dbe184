"""The rows of the sessions that one fault struck in a window, and the edits that faults are made of.

An edit changes rows in place and may return rows that are sent as well. It sees one window only, so it is
a function of the row's own numbers and its session's: the same whatever the windows are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.simulate.columns import AVAILABLE, DROPPED, POISON, SAMPLE, START, STATE, STOP
from pipeline.simulate.curve import energies_at
from pipeline.simulate.texts import Rows
from pipeline.simulate.variants import POISON_EMPTY
from rating.columns import I64

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Struck:
    """`which` are positions in `rows`; `session` their sessions, aligned with `which`."""

    rows: Rows
    which: npt.NDArray[np.int64]
    session: Rows

    def get(self, column: str) -> npt.NDArray[Any]:
        """A column of the struck rows (a copy)."""
        values: npt.NDArray[Any] = self.rows[column][self.which]
        return values

    def put(self, column: str, where: Mask, values: npt.NDArray[Any] | int) -> None:
        """Set a column of the struck rows where `where`; `values` is one number or aligned with all of them."""
        self.rows[column][self.which[where]] = values[where] if isinstance(values, np.ndarray) else values

    def copies(self, where: Mask) -> Rows:
        """Copies of the struck rows where `where`."""
        return self.rows[self.which[where]]

    @property
    def at(self) -> npt.NDArray[np.int32]:
        """The sample number where the fault strikes, aligned."""
        number: npt.NDArray[np.int32] = self.session["at"]
        return number

    def energy_at_sample(self, k: npt.NDArray[np.int32]) -> I64:
        """Energy in mWh that each row's session had delivered at its sample `k`."""
        return energies_at(self.session, self.session["start_ms"] + k.astype(np.int64) * self.session["period_ms"])


Where = Callable[[Struck], Mask]
Edit = Callable[[Struck], Rows | None]
Edits = Mapping[int, Edit]  # by the number in SESSION_DTYPE.fault


def everywhere(struck: Struck) -> Mask:
    """All rows."""
    return np.ones(len(struck.which), np.bool_)


def samples(struck: Struck) -> Mask:
    """Periodic samples and state changes: all between start and stop."""
    return np.isin(struck.get("kind"), (SAMPLE, STATE))


def at_sample(struck: Struck) -> Mask:
    """The one sample where the fault strikes."""
    mask: Mask = (struck.get("kind") == SAMPLE) & (struck.get("k") == struck.at)
    return mask


def from_sample(struck: Struck) -> Mask:
    """That sample and all after it, the stop too."""
    mask: Mask = np.isin(struck.get("kind"), (SAMPLE, STATE, STOP)) & _at_or_after(struck)
    return mask


def _at_or_after(struck: Struck) -> Mask:
    instant = struck.session["start_ms"] + struck.at.astype(np.int64) * struck.session["period_ms"]
    after: Mask = struck.get("time_ms") >= instant
    return after


def until_sample(struck: Struck) -> Mask:
    """All rows before that sample."""
    mask: Mask = ~_at_or_after(struck)
    return mask


def kinds(*wanted: int) -> Where:
    """Rows of some kinds."""
    return lambda struck: np.isin(struck.get("kind"), wanted)


def first(*places: Where) -> Where:
    """Where any of the places is."""

    def union(struck: Struck) -> Mask:
        mask: Mask = np.logical_or.reduce([place(struck) for place in places])
        return mask

    return union


def run_of_samples(length: int) -> Where:
    """`length` samples from the struck one on; state changes among them too."""

    def inside(struck: Struck) -> Mask:
        begin = struck.session["start_ms"] + struck.at.astype(np.int64) * struck.session["period_ms"]
        end = begin + (length - 1) * struck.session["period_ms"].astype(np.int64)
        time = struck.get("time_ms")
        mask: Mask = np.isin(struck.get("kind"), (SAMPLE, STATE)) & (time >= begin) & (time <= end)
        return mask

    return inside


def tell(variant: int, where: Where) -> Edit:
    """Rows are told as `variant`."""

    def edit(struck: Struck) -> None:
        struck.put("variant", where(struck), variant)

    return edit


def drop(where: Where) -> Edit:
    """Rows are never sent."""

    def edit(struck: Struck) -> None:
        struck.put("kind", where(struck), DROPPED)

    return edit


def change(column: str, where: Where, new: Callable[[Struck], npt.NDArray[Any] | int]) -> Edit:
    """A column becomes `new`."""

    def edit(struck: Struck) -> None:
        struck.put(column, where(struck), new(struck))

    return edit


def both(*edits: Edit) -> Edit:
    """Several edits in turn; at most one of them may add rows."""

    def edit(struck: Struck) -> Rows | None:
        added = [rows for rows in [one(struck) for one in edits] if rows is not None]
        return added[0] if added else None

    return edit


def repeat_some(struck: Struck) -> Rows:
    """A third of the rows arrive twice, the second time 700 ms later."""
    again = struck.copies((struck.get("k") + struck.get("number")) % 3 == 0)
    again["arrival_ms"] += 700
    return again


def poison(struck: Struck) -> Rows:
    """Beside the struck sample comes a record that can never be used; the session's number picks which."""
    bad = struck.copies(at_sample(struck))
    bad["variant"] = POISON_EMPTY + bad["number"] % 5
    bad["kind"] = POISON
    bad["arrival_ms"] += 1
    return bad


def after_the_stop(struck: Struck) -> Rows:
    """Two more samples after the stop, with the last register."""
    stop = struck.get("kind") == STOP
    late = []
    for n in (1, 2):
        rows = struck.copies(stop)
        ahead = n * struck.session["period_ms"][stop].astype(np.int64)
        rows["kind"] = SAMPLE
        rows["time_ms"] += ahead
        rows["arrival_ms"] += ahead
        rows["k"] += n
        rows["seq"] += n
        late.append(rows)
    return np.concatenate(late)


EDGE = kinds(START, STOP)
START_ONLY = kinds(START)
STOP_ONLY = kinds(STOP)
STOP_AND_AVAILABLE = kinds(STOP, AVAILABLE)

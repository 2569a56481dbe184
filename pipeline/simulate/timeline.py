"""Open sessions through time: the rows that arrive in each window, as honest or faulty chargers tell them."""

import numpy as np
import numpy.typing as npt

from pipeline.simulate.columns import DROPPED, ROW_DTYPE, SESSION_DTYPE, sorted_by, take
from pipeline.simulate.curve import AVAILABLE_AFTER_MS, room_for, rows_between
from pipeline.simulate.fault import Which
from pipeline.simulate.struck import Edits, Struck
from pipeline.simulate.texts import Rows


class Timeline:
    """Give it sessions before the window in which they start; take the windows in order, without gaps."""

    def __init__(self, edits: Edits) -> None:
        self._edits = edits
        self.open: Rows = np.empty(0, SESSION_DTYPE)
        self._waiting = np.empty(0, ROW_DTYPE)  # told in an earlier window, arriving later

    def __bool__(self) -> bool:
        """Whether rows are still to come."""
        return bool(len(self.open) or len(self._waiting))

    def begin(self, sessions: Rows) -> None:
        """Sessions that start from now on."""
        self.open = np.concatenate([self.open, sessions])

    def rows(self, begin_ms: int, end_ms: int) -> Rows:
        """Rows of events before `end_ms` that arrive by then, in order of arrival, those of one instant as told."""
        room = room_for(self.open, begin_ms, end_ms)
        rows = room[: rows_between(self.open, begin_ms, end_ms, True, room)] if len(room) else room
        if self._edits:
            rows = _edited(rows, self.open, self._edits)
            rows = take(rows, np.flatnonzero(rows["kind"] != DROPPED))
        if len(self._waiting):
            rows = np.concatenate([self._waiting, rows])
        order = sorted_by(rows["arrival_ms"])
        now = int(np.searchsorted(rows["arrival_ms"], end_ms, side="right", sorter=order))
        self._waiting = take(rows, order[now:])
        return take(rows, order[:now])

    def forget(self, end_ms: int) -> None:
        """Let go of sessions that have told everything before `end_ms`."""
        self.open = take(self.open, np.flatnonzero(self.open["stop_ms"] + AVAILABLE_AFTER_MS >= end_ms))


def by_fault(faults: npt.NDArray[np.int16]) -> list[tuple[int, Which]]:
    """Positions of each fault's members, by ascending number; 0 is left out."""
    struck = np.flatnonzero(faults > 0)
    order = struck[np.argsort(faults[struck], kind="stable")]
    numbers, first = np.unique(faults[order], return_index=True)
    return list(zip(numbers.tolist(), np.split(order, first[1:]), strict=True)) if len(numbers) else []


def _edited(rows: Rows, sessions: Rows, edits: Edits) -> Rows:
    """The rows of a window as faulty chargers tell them; rows that come in addition are appended."""
    added = []
    for number, which in by_fault(sessions["fault"][rows["session"]]):
        edit = edits.get(number)
        if edit is not None:
            more = edit(Struck(rows, which, sessions[rows["session"][which]]))
            if more is not None:
                added.append(more)
    return np.concatenate([rows, *added]) if added else rows

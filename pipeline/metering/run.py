"""Everything one pass works with, as one argument: rate sheets, state, limits, who is on which partition, output.

Few arrays of records, because compiled code pays for each array that it hands on.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.metering.output import Output, Rows
from pipeline.metering.state import State
from rating.ratesheet import Book

# The connectors of each partition, as a chain through `follows`.
ROSTER_DTYPE = np.dtype([("head", np.int32), ("tail", np.int32), ("members", np.int32)])
# What reference data says of each connector row, by reference version in use: shape (slots, rows).
DEFAULT_DTYPE = np.dtype([("rating_mw", np.int64), ("sheet", np.int32)], align=True)


class Desk(NamedTuple):
    """What every step of the pass reads and writes."""

    connectors: Rows
    limits: Rows  # row 0 is the network's; a connector's own is `limits` of its row
    samples: Rows
    facts: Rows
    events: Rows
    count: npt.NDArray[np.int64]  # type: ignore[assignment]  # shadows tuple.count, which nobody calls


class Run(NamedTuple):
    """One pass over one segment of samples in log order."""

    desk: Desk
    book: Book
    marks: Rows
    periods: Rows
    roster: Rows
    defaults: Rows
    detached: npt.NDArray[np.uint64]  # sorted keys of sessions that only `rerate` may touch
    todo: Rows  # TODO_DTYPE: what RESUME takes
    pieces: Rows
    sessions: Rows
    closed: Rows


def new_run(
    book: Book,
    state: State,
    roster: Rows,
    limits: Rows,
    defaults: Rows,
    detached: npt.NDArray[np.uint64],
    samples: Rows,
    facts: Rows,
    out: Output,
    todo: Rows,
) -> Run:
    """A pass over `samples`, or over those of them that `todo` names, with room in `out`."""
    desk = Desk(state.connectors, limits, samples, facts, out.events, out.count)
    return Run(
        desk, book, state.marks, state.periods, roster, defaults, detached, todo, out.pieces, out.sessions, out.closed
    )


def empty_roster(partitions: int) -> Rows:
    """No connectors on any partition."""
    roster = np.full(partitions, -1, ROSTER_DTYPE)
    roster["members"] = 0
    return roster

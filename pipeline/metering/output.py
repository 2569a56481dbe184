"""What the pass writes: facts on every sample, pieces, settled sessions with their periods, and events.

Layout only. Every row names the sample that caused it (`cause`, its index in the segment); the identity in the
ledger follows from that sample alone.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.void]
Record = Any  # a record of a structured array: compiled code reads its fields as attributes
ROOM: Final = 16_384  # rows that one sample may write at most, kept free before it is looked at

INTERVAL_ROOM: Final = 4_096  # pieces that one interval may be cut into; a tariff that cuts finer is held

# One row a sample: what the pass needs to know of it (the first four), and what it says of it.
FACT_DTYPE = np.dtype(
    [
        ("session_key", np.uint64),
        ("energy_mwh", np.int64),  # since the register before
        ("row", np.int32),  # connector row; -1 for a tick
        ("partition", np.int32),
        ("sheet", np.int32),  # rate sheet that its token asks for; -1: the connector's own
        ("slot", np.int32),  # reference version in use, as a row of `Run.defaults`
        ("used_sheet", np.int32),  # rate sheet of its session
        ("verdict", np.int8),
        ("disposition", np.int8),
    ],
    align=True,
)

PIECE_DTYPE = np.dtype(
    [
        ("start_ms", np.int64),
        ("end_ms", np.int64),
        ("energy_mwh", np.int64),
        ("tag", np.int32),  # cause, or index of the settled session
        ("energy_component", np.int32),
        ("time_component", np.int32),
        ("state", np.int8),
        ("split", np.int8),
        ("apportioned", np.int8),
        ("missing", np.int8),
    ],
    align=True,
)

SESSION_DTYPE = np.dtype(
    [
        ("session_key", np.uint64),
        ("start_ms", np.int64),
        ("end_ms", np.int64),
        ("energy_mwh", np.int64),
        ("held_mwh", np.int64),
        ("first_mwh", np.int64),  # ABSENT_I64 where it told no register
        ("last_mwh", np.int64),
        ("unexplained_mwh", np.int64),
        ("connector", np.int32),
        ("cause", np.int32),  # sample that settled it
        ("sheet", np.int32),
        ("token", np.int32),
        ("flat", np.int32),
        ("flat_reserved", np.int32),
        ("flat_expired", np.int32),
        ("first_piece", np.int32),
        ("pieces", np.int32),
        ("readings", np.int32),
        ("flags", np.uint32),
        ("alerted", np.uint32),
        ("hold", np.int8),
        ("signed", np.int8),
    ],
    align=True,
)

# Events: an alert (code = kind), a session begun, a FLAT owed (code = component, value = sheet),
# a sample deferred (code = why), an alert whose condition is over, one that goes on and grows.
ALERT: Final = 0
BEGUN: Final = 1
FLAT: Final = 2
DEFERRED: Final = 3
RESOLVED: Final = 4
UPDATED: Final = 5
PRELUDE: Final = 6  # what a session takes over from its connector: code = kind of sample, value = state
EVENT_DTYPE = np.dtype(
    [
        ("session_key", np.uint64),
        ("time_ms", np.int64),
        ("value", np.int64),
        ("threshold", np.int64),
        ("since_ms", np.int64),
        ("connector", np.int32),
        ("cause", np.int32),
        ("code", np.int32),
        ("token", np.int32),  # of the session
        ("what", np.int8),
    ],
    align=True,
)

# Samples that wait for `rerate`, with the connector they are of.
TODO_DTYPE = np.dtype([("cause", np.int32), ("connector", np.int32)])

# Positions in `Output.count`.
N_PIECES: Final = 0
N_SESSIONS: Final = 1
N_CLOSED: Final = 2
N_EVENTS: Final = 3
COUNTS: Final = 4


def rows_at(rows: Rows, which: Any) -> Rows:
    """The rows at some places, or under a mask. Each is copied whole: numpy copies records field by field."""
    return opaque(rows)[which].view(rows.dtype)


def rows_joined(parts: Sequence[Rows]) -> Rows:
    """Rows of one layout, one part behind the other; copied as in `rows_at`. At least one part."""
    return parts[0] if len(parts) == 1 else np.concatenate([opaque(part) for part in parts]).view(parts[0].dtype)


def opaque(rows: Rows) -> Rows:
    """The same rows without their fields: so they are copied as they lie."""
    return rows.view(np.dtype((np.void, rows.dtype.itemsize)))


class Output(NamedTuple):
    """Arrays with room that one pass fills; `count` says how far."""

    pieces: Rows  # tag = the sample that ended the interval
    sessions: Rows
    closed: Rows  # periods of settled sessions; tag = index into sessions
    events: Rows
    count: npt.NDArray[np.int64]  # type: ignore[assignment]  # shadows tuple.count, which nobody calls


def new_output(samples: int) -> Output:
    """Room for a segment of so many samples; `grown` adds more when the pass asks for it. Not wiped: see `cleared`."""
    rows = 2 * samples
    return Output(
        np.empty(rows + 2 * ROOM, PIECE_DTYPE),
        np.empty(samples + ROOM, SESSION_DTYPE),
        np.empty(rows + 3 * ROOM, PIECE_DTYPE),
        np.empty(rows + 8 * ROOM, EVENT_DTYPE),
        np.zeros(COUNTS, np.int64),
    )


def grown(output: Output) -> Output:
    """The same output with twice the room; what is written stays."""
    used = output.count
    return output._replace(
        pieces=_doubled(output.pieces, int(used[N_PIECES])), sessions=_doubled(output.sessions, int(used[N_SESSIONS])),
        closed=_doubled(output.closed, int(used[N_CLOSED])), events=_doubled(output.events, int(used[N_EVENTS])),
    )  # fmt: skip


def cleared(output: Output) -> Output:
    """The same arrays, to be filled from the start: the pass writes whole rows, so nothing is wiped."""
    output.count[:] = 0
    return output


def _doubled(rows: Rows, used: int) -> Rows:
    """Only what is written is copied: memory that nobody touched costs nothing, and a tick asks for much of it."""
    wider = np.empty(2 * len(rows), rows.dtype)
    wider[:used] = rows[:used]
    return wider

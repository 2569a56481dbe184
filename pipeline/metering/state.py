"""What the worker remembers: one row a connector, marks since its last register, periods of its open session.

Layout and growth only; what changes the state lives in `step`. Everything is arrays of fixed-size rows, so a
snapshot is a copy and the memory of a million connectors is known beforehand (`state_bytes`).
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.metering.output import opaque

MARKS: Final = 5
NONE: Final = -1
MOST_I32: Final = 2**31 - 1

CONNECTOR_DTYPE = np.dtype(
    [
        ("identity", np.uint64),  # hash of the charge point id
        ("session_key", np.uint64),  # 0 = none yet
        ("txn_hash", np.uint64),
        ("start_ms", np.int64),
        ("last_ms", np.int64),  # event time of the last register (or mark) that counted
        ("last_mwh", np.int64),  # the connector's last register, in or out of a session
        ("first_mwh", np.int64),  # register at the session's start, for session-relative samples
        ("energy_mwh", np.int64),  # of the session so far
        ("held_mwh", np.int64),
        ("pend_ms", np.int64),  # a reading that the next one must confirm
        ("pend_mwh", np.int64),
        ("unexplained_mwh", np.int64),  # by which the register moved in the session without energy: resets, rollovers
        ("since_ms", np.int64),  # between sessions reserved since, in one Available without a stop since; 0 = neither
        ("prev_key", np.uint64),  # the session before, for what arrives after its stop
        ("prev_txn", np.uint64),
        ("prev_start_ms", np.int64),
        ("prev_end_ms", np.int64),
        ("power_mw", np.int64),
        ("current_ma", np.int64),
        ("flow_mwh", np.int64),  # integral of the reported power over the session
        ("stuck_mwh", np.int64),  # the same since the register last moved
        ("park_ms", np.int64),  # parked since charging ended
        ("rating_mw", np.int64),  # NONE where reference data does not say
        ("seen_1", np.uint64),  # fingerprints of the last four samples, newest first
        ("seen_2", np.uint64),
        ("seen_3", np.uint64),
        ("seen_4", np.uint64),
        ("heard_ms", np.int64),  # arrival time of the last message
        ("said_ms", np.int64),  # when `said_state` was told
        ("rhythm_ms", np.int32),  # learned interval between messages
        ("lag_s", np.int32),  # arrival minus event time of the last message
        ("drift_ms", np.int64),  # CUSUM of how wrong its clock is; while it is said to drift, since when
        ("zero_since_ms", np.int64),  # start of the session that made a run of 0 kWh worth saying; 0 = none
        ("ratio_level", np.float32),  # log of register over power, of its sessions: see `drift`
        ("ratio_spread", np.float32),
        ("ratio_low", np.float32),
        ("ratio_high", np.float32),
        ("soc_level", np.float32),  # log of register over state of charge
        ("soc_spread", np.float32),
        ("soc_low", np.float32),
        ("soc_high", np.float32),
        ("ratio_seen", np.int32),
        ("soc_seen", np.int32),
        ("seq_no", np.int32),
        ("sheet", np.int32),
        ("token", np.int32),
        ("flat", np.int32),  # component of FLAT that the session pays, and of its reservation
        ("flat_reserved", np.int32),
        ("flat_expired", np.int32),
        ("head", np.int32),  # first and last period of the open session in the pool
        ("tail", np.int32),
        ("periods", np.int32),
        ("readings", np.int32),
        ("sibling", np.int32),  # next connector of the same charge point
        ("flags", np.uint32),
        ("alerted", np.uint32),  # bit per kind: said once a session
        ("connector_id", np.int32),
        ("partition", np.int32),
        ("ordinal", np.int32),  # its place among the connectors of its partition, in order of first appearance
        ("follows", np.int32),  # next connector of the same partition
        ("limits", np.uint32),  # the row of the policy's limits that holds for it; found anew after a snapshot
        ("zero_run", np.int16),
        ("soc_first", np.int16),  # of the session, permille; -1 = not said
        ("soc_last", np.int16),
        ("open", np.int8),
        ("state", np.int8),
        ("pend", np.int8),
        ("relative", np.int8),
        ("hold", np.int8),
        ("n_marks", np.int8),
        ("dirty", np.int8),
        ("signed", np.int8),
        ("has_register", np.int8),
        ("said_state", np.int8),  # told while no session was open: holds for one that starts soon
        ("silent", np.int8),
        ("drifting", np.int8),  # said so, until the clock is right again; counts messages of one in another zone
        ("idle_register", np.int8),  # last_mwh is known from outside the open session
        ("phases_live", np.int8),  # most phases seen live in this session
    ],
    align=True,
)


# Charging periods of open sessions: a pool of linked rows. Row 0 is no period: its `next` is the first free row,
# its `start_ms` how many are free.
PERIOD_DTYPE = np.dtype(
    [
        ("start_ms", np.int64),
        ("end_ms", np.int64),
        ("energy_mwh", np.int64),
        ("next", np.int32),
        ("energy_component", np.int32),
        ("time_component", np.int32),
        ("state", np.int8),
        ("missing", np.int8),
        ("apportioned", np.int8),
    ],
    align=True,
)
MARK_DTYPE = np.dtype(
    [("start_ms", np.int64), ("power_mw", np.int64), ("current_ma", np.int32), ("state", np.int8)], align=True
)


class State(NamedTuple):
    """Connectors, their marks (`marks_per_connector` rows each) and the periods of open sessions."""

    connectors: npt.NDArray[np.void]
    marks: npt.NDArray[np.void]
    periods: npt.NDArray[np.void]


def new_connectors(rows: int) -> npt.NDArray[np.void]:
    """Rows of connectors that nothing was heard of yet."""
    connectors = np.zeros(rows, CONNECTOR_DTYPE)
    for name in (
        "sheet",
        "token",
        "flat",
        "flat_reserved",
        "flat_expired",
        "head",
        "tail",
        "sibling",
        "follows",
        "seq_no",
        "state",
        "said_state",
        "rating_mw",
        "partition",
    ):
        connectors[name] = NONE
    connectors["power_mw"] = NONE
    connectors["current_ma"] = NONE
    return connectors


def new_periods(rows: int) -> npt.NDArray[np.void]:
    """A pool of `rows` free periods."""
    periods = np.zeros(rows + 1, PERIOD_DTYPE)
    periods["next"] = np.arange(1, rows + 2)
    periods["next"][-1] = NONE
    periods["start_ms"][0] = rows
    return periods


def new_state(connectors: int, periods: int, marks_per_connector: int = MARKS) -> State:
    """A worker that has heard nothing, with room for so many connectors and periods."""
    marks = np.zeros(connectors * marks_per_connector, MARK_DTYPE)
    return State(new_connectors(connectors), marks, new_periods(periods))


def with_connectors(state: State, rows: int) -> State:
    """The same state with room for `rows` connectors; what is added is blank once it was `wiped`."""
    connectors = np.zeros(rows, CONNECTOR_DTYPE)  # memory that nobody touched costs nothing
    opaque(connectors)[: len(state.connectors)] = opaque(state.connectors)
    marks = np.zeros(len(state.marks) // len(state.connectors) * rows, MARK_DTYPE)
    opaque(marks)[: len(state.marks)] = opaque(state.marks)
    return state._replace(connectors=connectors, marks=marks)


def wiped(connectors: npt.NDArray[np.void], rows: npt.NDArray[np.integer]) -> None:
    """Make these rows ones that nothing was heard of; each is copied whole."""
    opaque(connectors)[rows] = opaque(new_connectors(1))


def with_periods(state: State, rows: int) -> State:
    """The same state with `rows` more free periods; those in use keep their place."""
    old = state.periods
    known = len(old)
    periods = np.zeros(known + rows, PERIOD_DTYPE)
    opaque(periods)[:known] = opaque(old)
    periods["next"][known:] = np.arange(known + 1, known + rows + 1)
    periods["next"][-1] = old["next"][0]
    periods["next"][0] = known
    periods["start_ms"][0] += rows
    return state._replace(periods=periods)


def periods_of(
    pool: npt.NDArray[np.void], heads: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.int64]]:
    """The periods of open sessions, one session after the other, and how many each has; a head of 0 or less: none."""
    session, at = np.flatnonzero(heads > 0), heads[heads > 0]
    sessions, places = [session], [at]
    while len(at):
        at = pool["next"][at]
        session, at = session[at > 0], at[at > 0]
        sessions.append(session)
        places.append(at)
    whose = np.concatenate(sessions)
    order = np.argsort(whose, kind="stable")
    return pool[np.concatenate(places)[order]], np.bincount(whose, minlength=len(heads))


def state_bytes() -> int:
    """Bytes of state a connector: its row and its marks. Charging periods of open sessions are in a pool beside."""
    return CONNECTOR_DTYPE.itemsize + MARKS * MARK_DTYPE.itemsize

"""The charging curve and the rows it gives in a window: one compiled pass over the open sessions.

Power is constant, then falls in a straight line to a tenth, then the vehicle asks for nothing. The
register is the floor of that curve's integral at the meter's resolution; its last value is the session's
energy exactly.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.simulate.columns import (
    AVAILABLE,
    CHARGING,
    FINISHED,
    PREPARING,
    ROW_DTYPE,
    SAMPLE,
    START,
    STATE,
    STOP,
    SUSPENDED_EV,
)


class Session(Protocol):
    """One row of SESSION_DTYPE as compiled code sees it."""

    start_ms: int
    stop_ms: int
    energy_mwh: int
    target_mwh: int
    power_mw: int
    constant_ms: int
    taper_ms: int
    lead_ms: int
    pause_at_ms: int
    pause_ms: int
    resolution_mwh: int
    period_ms: int


TAPER_END = 0.1  # share of the constant power at which the vehicle stops asking
_MS_MW_PER_MWH = 3_600_000.0
AVAILABLE_AFTER_MS = 15_000


@njit(cache=True)
def _charging_ms(session: Session, time_ms: int) -> int:
    """Time in ms for which the curve has run at `time_ms`: no lead, no power cut."""
    u = time_ms - session.start_ms - session.lead_ms
    if session.pause_ms and u > session.pause_at_ms:
        return max(session.pause_at_ms, u - session.pause_ms)
    return u


@njit(cache=True)
def full_at(session: Session) -> int:
    """When the vehicle has all it wants, ms since 1970; may lie after the stop."""
    return session.start_ms + session.lead_ms + session.constant_ms + session.taper_ms + session.pause_ms


@njit(cache=True)
def curve_energy(session: Session, time_ms: int) -> int:
    """Energy in mWh at `time_ms` if nobody unplugs, floored to the meter's resolution, at most the target."""
    u = _charging_ms(session, time_ms)
    if u <= 0:
        return 0
    if u >= session.constant_ms + session.taper_ms:
        return session.target_mwh
    constant = min(u, session.constant_ms)
    energy = session.power_mw * float(constant) / _MS_MW_PER_MWH
    if u > constant:
        v = float(u - constant)
        energy += session.power_mw * (v - (1.0 - TAPER_END) * 0.5 * v * v / session.taper_ms) / _MS_MW_PER_MWH
    return min(int(energy) // session.resolution_mwh * session.resolution_mwh, session.target_mwh)


@njit(cache=True)
def energy_at(session: Session, time_ms: int) -> int:
    """Energy in mWh delivered from the session's start to `time_ms`; the session's energy from its stop on."""
    if time_ms >= session.stop_ms:
        return session.energy_mwh
    return min(curve_energy(session, time_ms), session.energy_mwh)


@njit(cache=True)
def power_at(session: Session, time_ms: int) -> int:
    """Instantaneous power in mW, to the watt."""
    u = _charging_ms(session, time_ms)
    if u < 0 or u >= session.constant_ms + session.taper_ms or time_ms >= session.stop_ms:
        return 0
    if session.pause_ms and u == session.pause_at_ms:
        return 0
    if u <= session.constant_ms:
        return session.power_mw
    falling = 1.0 - (1.0 - TAPER_END) * (u - session.constant_ms) / session.taper_ms
    return int(session.power_mw * falling) // 1_000 * 1_000


@njit(cache=True)
def state_at(session: Session, time_ms: int) -> int:
    """The charging state: PREPARING, CHARGING or SUSPENDED_EV."""
    if time_ms < session.start_ms + session.lead_ms:
        return PREPARING
    return CHARGING if time_ms < full_at(session) else SUSPENDED_EV


@njit(cache=True)
def close(sessions: npt.NDArray[Any]) -> None:
    """Fill in what follows from the other parameters: each session's energy and number of samples."""
    for i in range(len(sessions)):
        session = sessions[i]
        session.energy_mwh = curve_energy(session, session.stop_ms)
        session.samples = max(0, (session.stop_ms - session.start_ms - 1) // session.period_ms)


@njit(cache=True)
def energies_at(sessions: npt.NDArray[Any], times_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """`energy_at` of each session at its own time."""
    out = np.empty(len(sessions), np.int64)
    for i in range(len(sessions)):
        out[i] = energy_at(sessions[i], times_ms[i])
    return out


@njit(cache=True)
def _put(rows: npt.NDArray[Any], at: int, sessions: npt.NDArray[Any], i: int, kind: int, k: int, t: int) -> int:
    session = sessions[i]
    row = rows[at]
    row.arrival_ms = t + session.latency_ms
    row.time_ms = t
    row.register_mwh = session.base_mwh + (0 if kind == START else energy_at(session, t))
    row.power_mw = power_at(session, t)
    row.other_mwh = 0
    row.number = session.number
    row.connector = session.connector
    row.token = session.token
    row.session = i
    row.k = k
    # State changes come first where they share an instant with a sample.
    lead = session.start_ms + session.lead_ms
    full = full_at(session)
    row.seq = 0 if kind == START else k + (t >= lead) + (t >= full and full < session.stop_ms)
    row.variant = 0
    row.kind = kind
    row.state = FINISHED if kind >= STOP else state_at(session, t)
    row.offline = 0
    return at + 1


@njit(cache=True)
def _first_sample(session: Session, begin_ms: int) -> int:
    behind = begin_ms - session.start_ms
    return max(1, -(-behind // session.period_ms)) if behind > 0 else 1


@njit(cache=True)
def rows_between(sessions: npt.NDArray[Any], begin_ms: int, end_ms: int, states: bool, rows: npt.NDArray[Any]) -> int:
    """Write the rows of `sessions` whose event time lies in [begin_ms, end_ms); returns their number.

    `rows` must hold `room_for(...)` rows. `states` adds a row where the charging state changes and one when
    the connector is free again. Rows of one session are in order of time, a state before a sample.
    """
    at = 0
    for i in range(len(sessions)):
        session = sessions[i]
        start, stop = session.start_ms, session.stop_ms
        if begin_ms <= start < end_ms:
            at = _put(rows, at, sessions, i, START, 0, start)
        if states:
            lead = start + session.lead_ms
            full = full_at(session)
            if begin_ms <= lead < end_ms and lead < stop:
                at = _put(rows, at, sessions, i, STATE, (lead - start - 1) // session.period_ms, lead)
            if begin_ms <= full < end_ms and full < stop:
                at = _put(rows, at, sessions, i, STATE, (full - start - 1) // session.period_ms, full)
        k = _first_sample(session, begin_ms)
        last = min(end_ms, stop)
        while k <= session.samples and start + k * session.period_ms < last:
            at = _put(rows, at, sessions, i, SAMPLE, k, start + k * session.period_ms)
            k += 1
        if begin_ms <= stop < end_ms:
            at = _put(rows, at, sessions, i, STOP, session.samples + 1, stop)
        if states and begin_ms <= stop + AVAILABLE_AFTER_MS < end_ms:
            at = _put(rows, at, sessions, i, AVAILABLE, session.samples + 2, stop + AVAILABLE_AFTER_MS)
    return at


def room_for(sessions: npt.NDArray[Any], begin_ms: int, end_ms: int) -> npt.NDArray[Any]:
    """An array with room for every row that `rows_between` can write for that window."""
    if not len(sessions):
        return np.empty(0, ROW_DTYPE)
    span = np.minimum(sessions["stop_ms"], end_ms) - np.maximum(sessions["start_ms"], begin_ms)
    samples = np.maximum(span, 0) // sessions["period_ms"] + 2
    return np.empty(int(samples.sum()) + 5 * len(sessions), ROW_DTYPE)

"""Under-registration: a meter that from some session on tells only a share of the energy that flows.

What a session tells is its mean active power, log kW: the cars of a charger make a distribution with sharp peaks
(one-phase 7.4, three-phase 11 and 22 kW, …), and a meter that loses a share u moves all of it by log(1 − u). So the
statistic is a clipped likelihood-ratio CUSUM (Page 1954; Lorden 1971) for a few shares at once, its density learned:
a histogram of log kW a connector, shrunk to its peers' histogram (kappa sessions' worth) and smoothed over
neighbouring bins. A CUSUM of the mean alone is blind where the cars differ more than the loss.
"""

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rating.jit import kernel

F64 = npt.NDArray[np.float64]
U16 = npt.NDArray[np.uint16]

BIN: Final = 0.025  # of log kW: 2.5 %
LEAST_LOG_KW: Final = math.log(0.25)
BINS: Final = 296  # up to 400 kW
LOST_SHARES: Final = (0.10, 0.20, 1 / 3, 0.50)
SHIFTS: Final = tuple(round(-math.log(1 - share) / BIN) for share in LOST_SHARES)
_N_SHIFTS: Final = len(SHIFTS)
_REACH: Final = 2  # bins to either side that a session also counts for
_WEIGHTS: Final = 9.0  # 1 + 2 + 3 + 2 + 1
_FORGET_AT: Final = 600  # sessions; then all counts are halved
_POOL_WARM: Final = 200.0  # sessions of peers below which nothing is judged


class ShiftState(NamedTuple):
    """State columns, one row a connector; `pool` is the peers' histogram, one row a group of peers."""

    counts: U16  # [rows, BINS]
    seen: npt.NDArray[np.int64]  # [rows]
    sums: F64  # [rows, shares]
    pool: F64  # [groups, BINS]
    pooled: F64  # [groups]


def shift_state(rows: int, groups: int = 1) -> ShiftState:
    """State of connectors that nothing is known of."""
    return ShiftState(
        np.zeros((rows, BINS), np.uint16),
        np.zeros(rows, np.int64),
        np.zeros((rows, _N_SHIFTS)),
        np.zeros((groups, BINS)),
        np.zeros(groups),
    )


@kernel
def bin_of(log_kw: float) -> int:
    """Where a session belongs in the histogram."""
    at = math.floor((log_kw - LEAST_LOG_KW) / BIN)
    return min(max(at, _REACH), BINS - 1 - _REACH)


@kernel
def density(state: ShiftState, row: int, group: int, at: int, kappa: float) -> float:
    """Probability of a bin: own history shrunk to the peers'."""
    own = 0.0
    peers = 0.0
    for j in range(-_REACH, _REACH + 1):
        k = at + j
        if 0 <= k < BINS:
            weight = (_REACH + 1 - abs(j)) / _WEIGHTS
            own += weight * state.counts[row, k]
            peers += weight * state.pool[group, k]
    peers = (peers + 0.05) / (state.pooled[group] + 0.05 * BINS)
    return float((own + kappa * peers) / (state.seen[row] + kappa))


@kernel
def log_ratio(state: ShiftState, row: int, group: int, at: int, shift: int, kappa: float, clip: float) -> float:
    """Log of how much likelier the session is when the meter loses this share, clipped."""
    lost = density(state, row, group, at + shift, kappa)
    ratio = math.log(lost / density(state, row, group, at, kappa))
    return min(max(ratio, -clip), clip)


@kernel
def judge(state: ShiftState, row: int, group: int, log_kw: float, kappa: float, clip: float, warm_up: int) -> float:
    """The statistic after a session, 0 while it is not warm. Changes the sums only; `learn` takes the session in."""
    if state.seen[row] < warm_up or state.pooled[group] < _POOL_WARM:
        return 0.0
    at = bin_of(log_kw)
    best = 0.0
    for i in range(_N_SHIFTS):
        grown = state.sums[row, i] + log_ratio(state, row, group, at, SHIFTS[i], kappa, clip)
        state.sums[row, i] = max(0.0, grown)
        best = max(best, state.sums[row, i])
    return best


@kernel
def learn(state: ShiftState, row: int, group: int, log_kw: float) -> None:
    """Take a session into the connector's history and its peers'."""
    at = bin_of(log_kw)
    state.counts[row, at] += 1
    state.seen[row] += 1
    state.pool[group, at] += 1.0
    state.pooled[group] += 1.0
    if state.seen[row] >= _FORGET_AT:
        kept = 0
        for k in range(BINS):
            state.counts[row, k] //= 2
            kept += state.counts[row, k]
        state.seen[row] = kept


@kernel
def forget_sums(state: ShiftState, row: int) -> None:
    """Begin anew after an alarm, or after the meter was changed."""
    for i in range(_N_SHIFTS):
        state.sums[row, i] = 0.0

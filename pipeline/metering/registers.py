"""Register arithmetic in integers: may this register follow that one, and what does it mean if it may not?

Pure functions of a few numbers; sessions, time-outs and money are elsewhere.
"""

from typing import Final

import numpy as np

from pipeline.metering.policy import MODULI_MWH, Limits
from rating.jit import kernel

FOLLOWS: Final = 0  # the register moved on (or stood still): energy flowed
WRAPPED: Final = 1  # it passed its modulus
DROPPED: Final = 2  # below the last one: a reset or a glitch, the next reading tells
JUMPED: Final = 3  # more than the connector can have delivered: held until the next reading
NO_BASELINE: Final = 4  # the session began with a 0 that was none

MODULI: Final = np.array(sorted(MODULI_MWH), np.int64)
MOST_WRAPPED_MWH: Final = 200_000_000  # 200 kWh: no car takes more between two readings, so no wrap explains more
MAX_DELTA_MWH: Final = 100_000_000_000  # 100 MWh in one interval: no connector does that


@kernel
def allowed_mwh(elapsed_ms: int, rating_mw: int, limits: Limits) -> int:
    """Most energy (mWh) that a connector of `rating_mw` can be believed to deliver in `elapsed_ms`."""
    power_w = limits.default_power_mw // 1000
    if rating_mw > 0:
        power_w = rating_mw // 1000 * limits.hold_power_permille // 1000
    return min(power_w * elapsed_ms // 3600 + limits.jump_slack_mwh, MAX_DELTA_MWH)


@kernel
def unwrapped(last_mwh: int, register_mwh: int, elapsed_ms: int, rating_mw: int, limits: Limits) -> int:
    """The register's value as if its counter had not passed its modulus; -1 where no known modulus explains it.

    A register that restarts at 0 a little below a modulus looks the same: what the connector is rated for has to
    explain the wrap, not only what it can be believed to deliver.
    """
    most_mwh = min(allowed_mwh(elapsed_ms, rating_mw, limits), MOST_WRAPPED_MWH)
    if rating_mw > 0:
        rated_mwh = rating_mw // 1000 * limits.above_rating_permille // 1000 * elapsed_ms // 3600
        most_mwh = min(most_mwh, rated_mwh + limits.jump_slack_mwh)
    for modulus in MODULI:
        if register_mwh < last_mwh < modulus and register_mwh + modulus - last_mwh <= most_mwh:
            return register_mwh + modulus
    return -1


@kernel
def judge(last_mwh: int, register_mwh: int, elapsed_ms: int, rating_mw: int, zero_start: bool, limits: Limits) -> int:
    """How `register_mwh` follows `last_mwh` after `elapsed_ms`: FOLLOWS, WRAPPED, DROPPED, JUMPED or NO_BASELINE.

    `zero_start` says that `last_mwh` is the session's first register and is 0.
    """
    most_mwh = allowed_mwh(elapsed_ms, rating_mw, limits)
    delta_mwh = register_mwh - last_mwh
    if delta_mwh < 0:
        return WRAPPED if unwrapped(last_mwh, register_mwh, elapsed_ms, rating_mw, limits) >= 0 else DROPPED
    if delta_mwh <= most_mwh:
        return FOLLOWS
    if zero_start and delta_mwh > limits.zero_baseline_mwh:
        return NO_BASELINE
    return JUMPED

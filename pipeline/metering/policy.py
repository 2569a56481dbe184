"""What metering may believe: every threshold that decides verdicts, holds and time-outs, with its reason.

A policy is data: it travels in the log (control record `policy`), never from the wall clock or a host's
configuration.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.metering.kinds import HELD_BY_DEFAULT
from pipeline.metering.state import MARKS

MODULI_MWH: tuple[int, ...] = (
    838_860_800,  # 23 bits of 0.1 Wh
    6_553_600_000,  # 16 bits of 0.1 kWh
    99_999_900_000 + 100_000,  # 99,999.9 kWh
    999_999_900_000 + 100_000,  # 999,999.9 kWh
    4_294_967_296_000,  # 32 bits of Wh
)


@dataclass(frozen=True, slots=True)
class MeteringPolicy:
    """Thresholds of metering; energy mWh, power mW, time ms, ratios in permille."""

    hold_power_permille: int = 3000  # above 3 times the rating for its time an interval is held, not billed
    default_power_mw: int = 1_000_000_000  # 1 MW: where the rating is unknown
    jump_slack_mwh: int = 500_000  # 0.5 kWh: registers are coarse and clocks jitter
    outside_alert_mwh: int = 100_000  # 0.1 kWh outside any transaction is worth a look
    zero_baseline_mwh: int = 10_000_000  # Begin = 0 then more than 10 kWh above what time allows: 0 was no baseline
    available_grace_ms: int = 300_000  # connector Available this long without a stop: the stop is lost
    session_timeout_ms: int = 48 * 3_600_000  # nothing heard for two days: the stop is lost
    hold_limit_ms: int = 30 * 86_400_000  # a held session settles without its held energy after 30 days
    prelude_ms: int = 300_000  # a state told this long before a start still holds when the session starts
    reservation_ms: int = 86_400_000  # a reservation told late belongs to a session that starts within a day
    future_ms: int = 300_000  # a clock further ahead of its message's arrival is not believed
    gap_ms: int = 35 * 86_400_000  # a longer silence inside one session is not billed by interpolation
    stuck_mwh: int = 1_000_000  # 1 kWh of power reported while the register stands still
    above_rating_permille: int = 1150  # power above the rating by this much is an alert
    unit_low_permille: int = 500  # the window around a factor of 1000 between register and power
    unit_high_permille: int = 2000
    unit_min_mwh: int = 100_000  # not judged below 0.1 kWh
    idle_overstay_ms: int = 4 * 3_600_000  # parked this long after charging ended
    zero_run: int = 3  # sessions of 0 kWh in a row
    silence_factor: int = 3  # silent for this many times the learned interval
    silence_min_ms: int = 900_000
    drift_slack_ms: int = 2_000  # clock drift: CUSUM slack on arrival minus event time
    drift_alarm_ms: int = 120_000  # and its alarm level
    meter_drift_alarm_permille: int = 8_000  # register against power: summed so far beyond the slack, in sigma
    meter_drift_slack_permille: int = 1_000  # in sigma
    meter_drift_floor_permille: int = 30  # the least sigma: power is sampled
    soc_drift_alarm_permille: int = 12_000  # register against state of charge: cars differ in size, so it takes longer
    soc_drift_slack_permille: int = 500
    soc_drift_floor_permille: int = 150
    hold_kinds: int = sum(1 << kind for kind in HELD_BY_DEFAULT)  # alert kinds that hold their session, a bit each


LIMITS_DTYPE = np.dtype(
    [(field.name, np.int64) for field in fields(MeteringPolicy)]
    + [
        ("marks_per_connector", np.int64),  # room for changes of state, power and current between two registers
        ("rerun", np.int64),  # 1 where one session is metered again from its readings in order
        ("released", np.int64),  # 1 where a person said that what was held is to be billed
    ]
)
Limits = Any  # a record of LIMITS_DTYPE: compiled code reads its fields as attributes


def limits_of(policies: Iterable[MeteringPolicy]) -> npt.NDArray[np.void]:
    """Policies as the compiled pass reads them: a row of LIMITS_DTYPE each."""
    rows = [(*(getattr(policy, field.name) for field in fields(policy)), MARKS, 0, 0) for policy in policies]
    return np.array(rows, LIMITS_DTYPE)


def limits_again(limits: npt.NDArray[np.void], marks_per_connector: int, released: bool) -> npt.NDArray[np.void]:
    """The same limits for a session that is metered again from its readings in order."""
    again = limits.copy()
    again["marks_per_connector"], again["rerun"], again["released"] = marks_per_connector, 1, released
    return again

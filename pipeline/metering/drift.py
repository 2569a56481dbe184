"""A meter that drifts or is bypassed, as the sessions of one connector give it away: a clipped CUSUM on two ratios.

The register against the integral of the reported power (log ΔE/∫P dt), and against the car's state of charge (log of
mWh a permille). Both have a level and a spread of their own at every connector, learned from its first sessions and
slowly after; the CUSUM (Page 1954) of the standardised residual says when the level has moved, either way. Residuals
are clipped, so no single session makes an alarm. After an alarm the new level is learned: a shift is said once.
"""

import math

import numpy as np

from pipeline.metering import kinds
from pipeline.metering.output import Record
from pipeline.metering.run import Desk
from pipeline.metering.sessions import alert
from rating.jit import part

_WARM = 10  # sessions before anything is said
_MEMORY = 32.0  # sessions over which level and spread are averaged
_CLIP = 4.0
_LEAST_MWH = 500_000
_LEAST_READINGS = 6  # power is sampled: a few samples tell little of its integral
_OTHER_FAULT = math.log(5.0)  # a ratio off by more is a wrong unit, not a drifting meter
_LEAST_SOC_PERMILLE = 100
_DOUBTFUL = (
    kinds.SESSION_LOST_START | kinds.SESSION_LOST_STOP | kinds.SESSION_RESET | kinds.SESSION_ROLLOVER
    | kinds.SESSION_RELATIVE | kinds.SESSION_GLITCH | kinds.SESSION_ZERO_BASELINE
)  # fmt: skip


@part
def _moved(
    seen: int, level: float, spread: float, low: float, high: float, value: float, floor: float, slack: float
) -> tuple[float, float, float, float]:
    """Level, spread and the two sums after a value; `seen` counts it."""
    if seen == 1:
        return value, 0.0, 0.0, 0.0
    scale = max(1.2533 * spread, floor)  # mean absolute deviation to sigma, of a normal distribution
    z = min(max((value - level) / scale, -_CLIP), _CLIP)
    rate = 1.0 / min(float(seen), _MEMORY)
    level += rate * z * scale
    spread += rate * (abs(z) * scale - spread)
    if seen <= _WARM:
        return level, spread, 0.0, 0.0
    return level, spread, max(0.0, low - z - slack), max(0.0, high + z - slack)


@part
def charged(row: Record, sample: Record) -> None:
    """Remember the state of charge at the session's first and last sample."""
    if sample.soc_permille >= 0:
        row.soc_last = sample.soc_permille
        if row.soc_first < 0:
            row.soc_first = sample.soc_permille


@part
def on_close(desk: Desk, cause: int, connector: int, end_ms: int) -> None:
    """Judge a session that was metered without doubt, before it settles."""
    row = desk.connectors[connector]
    doubtful = row.flags & np.uint32(_DOUBTFUL) or row.hold != kinds.HOLD_NONE or row.readings < _LEAST_READINGS
    if desk.limits[0].rerun or doubtful or row.energy_mwh < _LEAST_MWH:
        return
    if row.flow_mwh >= _LEAST_MWH:
        _against_power(desk, cause, connector, end_ms)
    if row.soc_first >= 0 and row.soc_last - row.soc_first >= _LEAST_SOC_PERMILLE:
        _against_charge(desk, cause, connector, end_ms)


@part
def _against_power(desk: Desk, cause: int, connector: int, end_ms: int) -> None:
    row = desk.connectors[connector]
    limits = desk.limits[row.limits]
    value = math.log(row.energy_mwh / row.flow_mwh)
    if abs(value) > _OTHER_FAULT:
        return
    row.ratio_seen += 1
    usual = row.ratio_level
    row.ratio_level, row.ratio_spread, row.ratio_low, row.ratio_high = _moved(
        row.ratio_seen, row.ratio_level, row.ratio_spread, row.ratio_low, row.ratio_high, value,
        limits.meter_drift_floor_permille / 1000, limits.meter_drift_slack_permille / 1000,
    )  # fmt: skip
    if max(row.ratio_low, row.ratio_high) > limits.meter_drift_alarm_permille / 1000:
        row.ratio_seen = 0
        permille, before = round(1000 * math.exp(value)), round(1000 * math.exp(usual))
        alert(desk, cause, connector, row.session_key, kinds.METER_DRIFT, end_ms, permille, before, end_ms)


@part
def _against_charge(desk: Desk, cause: int, connector: int, end_ms: int) -> None:
    row = desk.connectors[connector]
    limits = desk.limits[row.limits]
    value = math.log(row.energy_mwh / (row.soc_last - row.soc_first))
    row.soc_seen += 1
    usual = row.soc_level
    row.soc_level, row.soc_spread, row.soc_low, row.soc_high = _moved(
        row.soc_seen, row.soc_level, row.soc_spread, row.soc_low, row.soc_high, value,
        limits.soc_drift_floor_permille / 1000, limits.soc_drift_slack_permille / 1000,
    )  # fmt: skip
    if max(row.soc_low, row.soc_high) > limits.soc_drift_alarm_permille / 1000:
        row.soc_seen = 0
        told, before = round(math.exp(value)), round(math.exp(usual))
        alert(desk, cause, connector, row.session_key, kinds.SOC_DRIFT, end_ms, told, before, end_ms)

"""The certain, cheap anomalies of one connector, told inside the pass at constant memory.

A rule looks at the state and one reading and says an alert, at most once a session; three of them also hold the
session, because what it would bill is known to be wrong. Cross-connector rules live in `pipeline.watch`.
"""

from pipeline.metering import kinds
from pipeline.metering.columns import ABSENT_I64, FLAG_OFFLINE, FLAG_TIME_UNUSABLE
from pipeline.metering.output import N_EVENTS, UPDATED, Record
from pipeline.metering.policy import Limits
from pipeline.metering.run import Desk
from pipeline.metering.sessions import alert, alert_once, hold, holds, over
from pipeline.metering.state import NONE
from rating.jit import inlined, part

_WHOLE_WH_MWH = 1000  # OCPP 1.6 tells starts and stops so
_JUDGED_MS = 60_000  # the power of a shorter interval says little
_ENOUGH = 6  # readings before a factor of 10 means anything: power is sampled, energy is not
_SAID = 1  # of `silent`: there is an alert
_DRIFTS = 1  # of `drifting`; each live message in a row that is right but for a zone counts one up
_KEEPS_ZONE = 16  # so many: it keeps another zone. A clock that drifts on passes each quarter of an hour in fewer
_ZONE_STEP_MS = 900_000  # zones differ by whole quarters of an hour
_NEAREST_ZONE_MS = 3_600_000  # to UTC
_FARTHEST_ZONE_MS = 14 * 3_600_000


@inlined
def rounded_down(row: Record, register_mwh: int) -> bool:
    """Whether a register less than one Wh below the last one is that one, told in whole Wh."""
    return bool(row.last_mwh - _WHOLE_WH_MWH < register_mwh < row.last_mwh)


@inlined
def after_interval(desk: Desk, cause: int, connector: int, start_ms: int, end_ms: int, energy_mwh: int) -> None:
    """Rules on one metered interval: a register that stands still, and power above the rating."""
    row = desk.connectors[connector]
    elapsed_ms = end_ms - start_ms
    # Before the first power was told, the first one told is the best that is known; good enough for a factor of 1000.
    power_mw = row.power_mw if row.power_mw != NONE else desk.samples[cause].power_mw
    if power_mw > 0:
        row.flow_mwh += power_mw // 1000 * elapsed_ms // 3600
    if row.power_mw > 0:
        flow_mwh = row.power_mw // 1000 * elapsed_ms // 3600
        if energy_mwh > 0:
            row.stuck_mwh = 0
        elif not rounded_down(row, desk.samples[cause].register_mwh):  # else it may have moved by what was cut off
            row.stuck_mwh += flow_mwh
        limits = desk.limits[row.limits]
        if row.stuck_mwh >= limits.stuck_mwh:
            alert_once(desk, cause, connector, kinds.STUCK_REGISTER, end_ms, row.stuck_mwh, limits.stuck_mwh, start_ms)
            if holds(limits, kinds.STUCK_REGISTER):
                hold(row, kinds.HOLD_STUCK)
    if row.rating_mw > 0 and elapsed_ms >= _JUDGED_MS:
        peak_mw = max(energy_mwh * 3600 // elapsed_ms * 1000, row.power_mw)
        most_mw = row.rating_mw // 1000 * desk.limits[row.limits].above_rating_permille
        if peak_mw > most_mw:
            alert_once(desk, cause, connector, kinds.POWER_ABOVE_RATING, end_ms, peak_mw, most_mw, start_ms)


@part
def _unit_error(energy_mwh: int, flow_mwh: int, readings: int, limits: Limits) -> bool:
    """Whether register and integral of the power differ by a factor of about 1000, or of about 10."""
    least, most = min(energy_mwh, flow_mwh), max(energy_mwh, flow_mwh)
    if least <= 0 or most < limits.unit_min_mwh:
        return False
    thousand = most * limits.unit_low_permille <= least * 1_000_000 <= most * limits.unit_high_permille
    return thousand or (readings >= _ENOUGH and _by_ten(least, most))


@part
def _by_ten(least: int, most: int) -> bool:
    return least * 7 <= most <= least * 14


@part
def _register_lies(row: Record, energy_mwh: int, flow_mwh: int, elapsed_ms: int, limits: Limits) -> bool:
    """Whether a unit error may be the register's, so that nothing is billed unasked.

    A register 1000 times above the power is right where the connector can deliver it: nobody charges at 10 W. One that
    is a thousandth of a power that fits the rating is wrong. A factor of 10 says less: what is above may be too much.
    """
    if row.rating_mw <= 0:
        return True
    if _by_ten(min(energy_mwh, flow_mwh), max(energy_mwh, flow_mwh)):
        return energy_mwh > flow_mwh
    most_mwh = row.rating_mw // 1000 * limits.above_rating_permille // 1000 * elapsed_ms // 3600
    if energy_mwh > flow_mwh:
        return energy_mwh > most_mwh + limits.jump_slack_mwh
    return flow_mwh <= most_mwh + limits.jump_slack_mwh


@part
def on_close(desk: Desk, cause: int, connector: int, end_ms: int) -> None:
    """Rules on a whole session, before it settles: unit error, energy above what the rating allows, zero runs."""
    row = desk.connectors[connector]
    energy_mwh = row.energy_mwh
    elapsed_ms = end_ms - row.start_ms
    limits = desk.limits[row.limits]
    if limits.released == 0 and _unit_error(energy_mwh, row.flow_mwh, row.readings, limits):
        alert_once(desk, cause, connector, kinds.UNIT_ERROR, end_ms, energy_mwh, row.flow_mwh, row.start_ms)
        lies = _register_lies(row, energy_mwh, row.flow_mwh, elapsed_ms, limits)
        if lies and holds(limits, kinds.UNIT_ERROR):
            hold(row, kinds.HOLD_UNIT_ERROR)
    if row.rating_mw > 0 and elapsed_ms >= 0:
        most_mwh = row.rating_mw // 1000 * limits.above_rating_permille // 1000 * elapsed_ms // 3600
        if energy_mwh > most_mwh + limits.jump_slack_mwh:
            alert_once(desk, cause, connector, kinds.ENERGY_ABOVE_RATING, end_ms, energy_mwh, most_mwh, row.start_ms)
    _zero_run(desk, cause, connector, end_ms)


@part
def _zero_run(desk: Desk, cause: int, connector: int, end_ms: int) -> None:
    """Sessions of 0 kWh in a row: said once, told again each time the run has doubled, over with the next energy."""
    row = desk.connectors[connector]
    limit = desk.limits[row.limits].zero_run
    run = row.zero_run + 1
    if row.energy_mwh > 0 and row.zero_since_ms > 0:
        over(desk, cause, connector, kinds.ZERO_KWH_RUN, end_ms, row.zero_run, row.zero_since_ms)
        row.zero_since_ms = 0
    elif row.energy_mwh == 0 and row.has_register and run % limit == 0:
        first = run == limit
        if first:
            row.zero_since_ms = row.start_ms
        if first or (row.zero_since_ms > 0 and (run // limit) & (run // limit - 1) == 0):
            since_ms = row.zero_since_ms
            alert(desk, cause, connector, row.session_key, kinds.ZERO_KWH_RUN, end_ms, run, limit, since_ms)
            if not first:
                desk.events[desk.count[N_EVENTS] - 1].what = UPDATED


@inlined
def phases(desk: Desk, cause: int, connector: int, sample: Record) -> None:
    """A phase that carried current in this session carries none while another does."""
    if sample.phases_said != 3:
        return
    row = desk.connectors[connector]
    if row.open and row.phases_live == 3 and 0 < sample.phases_live < 3:
        alert_once(desk, cause, connector, kinds.PHASE_LOSS, sample.time_ms, sample.phases_live, 3, row.last_ms)
    row.phases_live = max(row.phases_live, sample.phases_live)


@inlined
def parked(desk: Desk, cause: int, connector: int, start_ms: int, end_ms: int) -> None:
    """Idle overstay: parked for long after charging ended."""
    row = desk.connectors[connector]
    row.park_ms = row.park_ms + end_ms - start_ms if row.state == 1 else 0
    most_ms = desk.limits[row.limits].idle_overstay_ms
    if row.park_ms >= most_ms:
        since_ms = end_ms - row.park_ms
        alert_once(desk, cause, connector, kinds.IDLE_OVERSTAY, end_ms, row.park_ms, most_ms, since_ms)


@part
def _wrong_ms(lag_ms: int) -> int:
    """How wrong a clock is, beside the zone that it may keep and call UTC: that is constant, and no drift."""
    off_ms = abs(lag_ms)
    zone_ms = (off_ms + _ZONE_STEP_MS // 2) // _ZONE_STEP_MS * _ZONE_STEP_MS
    return abs(off_ms - zone_ms) if _NEAREST_ZONE_MS <= zone_ms <= _FARTHEST_ZONE_MS else off_ms


@part
def _live(arrived_ms: int, slipped_ms: int) -> bool:
    """Whether about as much time passed by the clock as between arrivals: a queue that empties tells hours in seconds.

    What was told at one instant says nothing.
    """
    return 4 * abs(slipped_ms) < arrived_ms - slipped_ms


@inlined
def heard(desk: Desk, cause: int, connector: int, sample: Record) -> None:
    """The rhythm of a connector's messages, and the drift of its clock (CUSUM of Page 1954 on the arrival lag)."""
    row = desk.connectors[connector]
    arrived_ms = sample.received_ms - row.heard_ms
    if row.heard_ms > 0 and arrived_ms > 0:
        interval_ms = min(arrived_ms, 4 * desk.limits[row.limits].silence_min_ms)
        row.rhythm_ms += (interval_ms - row.rhythm_ms) // 8
    if row.silent == _SAID:
        over(desk, cause, connector, kinds.SILENCE, sample.received_ms, arrived_ms, row.heard_ms)
    row.heard_ms = max(row.heard_ms, sample.received_ms)
    row.silent = 0
    if not sample.flags & (FLAG_OFFLINE | FLAG_TIME_UNUSABLE):
        _clock(desk, cause, connector, sample, arrived_ms)


@inlined
def _clock(desk: Desk, cause: int, connector: int, sample: Record, arrived_ms: int) -> None:
    """The clock's drift, by live messages only; `arrived_ms` after the one before."""
    row = desk.connectors[connector]
    lag_ms = sample.received_ms - sample.time_ms
    lag_s = lag_ms // 1000
    live = _live(arrived_ms, 1000 * (lag_s - row.lag_s))
    row.lag_s = lag_s
    wrong_ms, slack_ms = _wrong_ms(lag_ms), desk.limits[row.limits].drift_slack_ms
    if row.drifting:
        if live:
            row.drifting = row.drifting + 1 if wrong_ms <= slack_ms else _DRIFTS
        if abs(lag_ms) <= slack_ms or row.drifting > _KEEPS_ZONE:
            over(desk, cause, connector, kinds.CLOCK_DRIFT, sample.received_ms, lag_ms, row.drift_ms)
            row.drifting = 0
            row.drift_ms = 0
    if row.drifting or not live:
        return
    alarm_ms = desk.limits[row.limits].drift_alarm_ms
    row.drift_ms += min(wrong_ms, alarm_ms) - slack_ms
    row.drift_ms = max(0, row.drift_ms)
    if row.drift_ms > 16 * alarm_ms:
        row.drifting = _DRIFTS
        row.drift_ms = since_ms = sample.received_ms
        alert(desk, cause, connector, row.session_key, kinds.CLOCK_DRIFT, since_ms, lag_ms, alarm_ms, since_ms)


@part
def silence(desk: Desk, cause: int, connector: int, time_ms: int) -> None:
    """No message for several times the interval that the connector was learned to have: said once a session."""
    row = desk.connectors[connector]
    silent_ms = time_ms - row.heard_ms
    limits = desk.limits[row.limits]
    most_ms = max(limits.silence_factor * row.rhythm_ms, limits.silence_min_ms)
    if row.rhythm_ms > 0 and row.silent == 0 and silent_ms > most_ms:
        before = row.alerted
        alert_once(desk, cause, connector, kinds.SILENCE, time_ms, silent_ms, most_ms, row.heard_ms)
        row.silent = _SAID if row.alerted != before else 2


@part
def outside(desk: Desk, cause: int, connector: int, energy_mwh: int, time_ms: int) -> None:
    """Energy that flowed outside any transaction."""
    row = desk.connectors[connector]
    least_mwh = desk.limits[row.limits].outside_alert_mwh
    if energy_mwh >= least_mwh:
        kind = kinds.OUTSIDE_TRANSACTION
        alert(desk, cause, connector, row.session_key, kind, time_ms, energy_mwh, least_mwh, row.last_ms)


@inlined
def note_level(row: Record, sample: Record) -> None:
    """Remember the power and current that hold from this sample on."""
    if sample.power_mw != ABSENT_I64:
        row.power_mw = sample.power_mw
    elif row.open == 0:
        row.power_mw = NONE
    if sample.current_ma != ABSENT_I64:
        row.current_ma = sample.current_ma

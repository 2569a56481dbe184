"""A register reading of the open session, in order: counted, held until the next one tells, or no register at all.

The arithmetic of two registers is in `registers`; which session a reading is of was decided in `step`.
"""

import numpy as np

from pipeline.metering import kinds, rules
from pipeline.metering.columns import FLAG_INTERVAL_MEASURAND, KIND_SAMPLE, KIND_STOP
from pipeline.metering.facts import say
from pipeline.metering.output import Record
from pipeline.metering.policy import Limits
from pipeline.metering.registers import DROPPED, JUMPED, NO_BASELINE, WRAPPED, allowed_mwh, judge, unwrapped
from pipeline.metering.run import Run
from pipeline.metering.sessions import alert_once, hold, rate, reset_marks
from rating.jit import inlined, part


@part
def _pend(row: Record, time_ms: int, register_mwh: int, how: int) -> None:
    row.pend = how
    row.pend_ms = time_ms
    row.pend_mwh = register_mwh


@part
def _new_run(run: Run, cause: int, connector: int) -> None:
    """The pending register is confirmed: a new register run starts there; the time up to it carries no energy."""
    row = run.desk.connectors[connector]
    jumped = row.pend == JUMPED
    rate(run, cause, connector, row.last_ms, row.pend_ms, 0)
    if jumped:
        row.held_mwh += row.pend_mwh - row.last_mwh
        if run.desk.limits[0].released == 0:
            hold(row, kinds.HOLD_REGISTER_JUMP)
            alert_once(
                run.desk,
                cause,
                connector,
                kinds.REGISTER_JUMP,
                row.pend_ms,
                row.pend_mwh - row.last_mwh,
                allowed_mwh(row.pend_ms - row.last_ms, row.rating_mw, run.desk.limits[row.limits]),
                row.last_ms,
            )
    else:
        row.unexplained_mwh += row.pend_mwh - row.last_mwh
        row.flags |= np.uint32(kinds.SESSION_RESET)
        alert_once(
            run.desk, cause, connector, kinds.REGISTER_RESET, row.pend_ms, row.pend_mwh, row.last_mwh, row.last_ms
        )
    row.last_ms = row.pend_ms
    row.last_mwh = row.pend_mwh
    row.pend = 0
    reset_marks(run, connector, row.last_ms)


@part
def _settle_pending(run: Run, cause: int, connector: int, time_ms: int, register_mwh: int) -> None:
    """The next reading confirms or refutes the one that was held; where both could be, what is in doubt stays held."""
    row = run.desk.connectors[connector]
    limits = run.desk.limits[row.limits]
    if register_mwh >= row.last_mwh and (row.pend == DROPPED or register_mwh < row.pend_mwh):
        since_mwh = register_mwh - row.pend_mwh
        lower = row.pend == DROPPED and since_mwh <= allowed_mwh(time_ms - row.pend_ms, row.rating_mw, limits)
        if row.pend == DROPPED:
            alert_once(
                run.desk, cause, connector, kinds.COUNTER_ROLLBACK, row.pend_ms, row.pend_mwh, row.last_mwh, row.last_ms
            )
        if lower and limits.released:
            _new_run(run, cause, connector)
            return
        if lower:
            # A counter that came back lower and a single wrong reading tell the same: the difference is in doubt.
            row.held_mwh += row.last_mwh - row.pend_mwh
            row.unexplained_mwh -= row.last_mwh - row.pend_mwh
            hold(row, kinds.HOLD_UNCONFIRMED)
        row.flags |= np.uint32(kinds.SESSION_GLITCH)
        row.pend = 0
    elif register_mwh >= row.pend_mwh:
        _new_run(run, cause, connector)
    else:
        row.pend = 0


@inlined
def _count_interval(run: Run, cause: int, connector: int, time_ms: int, register_mwh: int, energy_mwh: int) -> None:
    """A metered interval that may cost someone money: rated, and looked at by the rules."""
    row = run.desk.connectors[connector]
    start_ms = row.last_ms
    held_mwh = row.held_mwh
    rules.after_interval(run.desk, cause, connector, start_ms, time_ms, energy_mwh)
    rules.parked(run.desk, cause, connector, start_ms, time_ms)
    rate(run, cause, connector, start_ms, time_ms, energy_mwh)
    row.last_ms = time_ms
    row.last_mwh = register_mwh
    row.readings += 1
    say(run.desk, cause, row, kinds.GOOD, kinds.HELD if row.held_mwh > held_mwh else kinds.RATED, energy_mwh)


@part
def first_register(run: Run, cause: int, connector: int, time_ms: int, register_mwh: int) -> None:
    """The session's baseline; what flowed since the session before is energy outside any transaction."""
    row = run.desk.connectors[connector]
    say(run.desk, cause, row, kinds.FIRST, kinds.NOWHERE, 0)
    if row.idle_register and register_mwh > 0 and row.last_mwh > 0:
        _since_before(run, cause, connector, time_ms, register_mwh)
    elif row.idle_register and register_mwh != row.last_mwh:  # a counter that begins at 0: another register run
        say(run.desk, cause, row, kinds.FIRST, kinds.UNEXPLAINED, register_mwh - row.last_mwh)
    row.first_mwh = register_mwh
    row.last_mwh = register_mwh
    row.last_ms = time_ms
    row.has_register = 1
    row.readings += 1


@part
def _since_before(run: Run, cause: int, connector: int, time_ms: int, register_mwh: int) -> None:
    """Between two sessions: energy of nobody, or where no connector can have delivered it, another register run."""
    row = run.desk.connectors[connector]
    elapsed_ms, limits = time_ms - row.last_ms, run.desk.limits[row.limits]
    most_mwh = allowed_mwh(elapsed_ms, row.rating_mw, limits)
    wrapped_mwh = unwrapped(row.last_mwh, register_mwh, elapsed_ms, row.rating_mw, limits)
    moved_mwh = (register_mwh if wrapped_mwh < 0 else wrapped_mwh) - row.last_mwh
    if 0 < moved_mwh <= most_mwh:
        rules.outside(run.desk, cause, connector, moved_mwh, time_ms)
        say(run.desk, cause, row, kinds.FIRST, kinds.OUTSIDE, moved_mwh)
    elif moved_mwh != 0:
        say(run.desk, cause, row, kinds.FIRST, kinds.UNEXPLAINED, moved_mwh)


@inlined
def _meant(row: Record, sample: Record) -> int:
    """The register that the sample means: interval measurands add up, session-relative ones start at 0.

    Less than one Wh below the last one is the same one, rounded: OCPP 1.6 tells starts and stops in whole Wh.
    """
    register_mwh = sample.register_mwh
    if sample.flags & np.uint32(FLAG_INTERVAL_MEASURAND):
        return row.last_mwh + register_mwh
    if row.relative and not (sample.kind == KIND_STOP and register_mwh >= row.last_mwh):
        return row.first_mwh + register_mwh
    if rules.rounded_down(row, register_mwh):
        return row.last_mwh
    return register_mwh


@part
def _counts_from_zero(row: Record, sample: Record, time_ms: int, limits: Limits) -> bool:
    """Whether a session's first sample is its energy so far: below its start, and no modulus explains it."""
    elapsed_ms = time_ms - row.last_ms
    most_mwh = allowed_mwh(elapsed_ms, row.rating_mw, limits)
    if not 0 <= sample.register_mwh < row.first_mwh or sample.register_mwh > most_mwh:
        return False
    return bool(unwrapped(row.last_mwh, sample.register_mwh, elapsed_ms, row.rating_mw, limits) < 0)


@inlined
def register(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """A register reading of the open session, in order."""
    row = run.desk.connectors[connector]
    if row.has_register == 0 and sample.flags & np.uint32(FLAG_INTERVAL_MEASURAND):
        row.has_register = 1
        row.first_mwh = row.last_mwh
    elif row.has_register == 0:
        first_register(run, cause, connector, time_ms, sample.register_mwh)
        return
    limits = run.desk.limits[row.limits]
    if row.readings == 1 and sample.kind == KIND_SAMPLE and _counts_from_zero(row, sample, time_ms, limits):
        # Session-relative samples beside a lifetime register in start and stop.
        row.relative = 1
        row.flags |= np.uint32(kinds.SESSION_RELATIVE)
    register_mwh = _meant(row, sample)
    if row.pend != 0:
        _settle_pending(run, cause, connector, time_ms, register_mwh)
    zero_start = row.last_mwh == 0 and row.readings == 1
    how = judge(row.last_mwh, register_mwh, time_ms - row.last_ms, row.rating_mw, zero_start, limits)
    if how == DROPPED or (how == JUMPED and limits.released == 0):
        _implausible(run, cause, connector, sample, time_ms, register_mwh, how)
        return
    energy_mwh = register_mwh - row.last_mwh
    if how == WRAPPED:
        elapsed_ms = time_ms - row.last_ms
        energy_mwh = unwrapped(row.last_mwh, register_mwh, elapsed_ms, row.rating_mw, limits) - row.last_mwh
        row.flags |= np.uint32(kinds.SESSION_ROLLOVER)
    elif how == NO_BASELINE:
        energy_mwh = 0
        row.flags |= np.uint32(kinds.SESSION_ZERO_BASELINE)
        alert_once(run.desk, cause, connector, kinds.ZERO_BASELINE, time_ms, register_mwh, 0, row.last_ms)
    if how in (WRAPPED, NO_BASELINE):
        row.unexplained_mwh += register_mwh - row.last_mwh - energy_mwh
    _count_interval(run, cause, connector, time_ms, register_mwh, energy_mwh)
    if how == NO_BASELINE:
        run.desk.facts[cause].disposition = kinds.UNEXPLAINED
        run.desk.facts[cause].energy_mwh = register_mwh


@part
def _implausible(
    run: Run, cause: int, connector: int, sample: Record, time_ms: int, register_mwh: int, how: int
) -> None:
    """A register that dropped or jumped: held until the next one; at a stop there is no next one."""
    row = run.desk.connectors[connector]
    if sample.kind != KIND_STOP:
        _pend(row, time_ms, register_mwh, how)
        say(run.desk, cause, row, kinds.REGRESSED if how == DROPPED else kinds.SUSPECT, kinds.NOWHERE, 0)
        return
    rate(run, cause, connector, row.last_ms, time_ms, 0)
    row.last_ms = time_ms
    if how == DROPPED:
        say(run.desk, cause, row, kinds.REGRESSED, kinds.NOWHERE, 0)
        if run.desk.limits[0].released == 0:
            hold(row, kinds.HOLD_STOP_BELOW_START)
        alert_once(
            run.desk, cause, connector, kinds.NEGATIVE_SESSION, time_ms, register_mwh, row.first_mwh, row.start_ms
        )
        return
    say(run.desk, cause, row, kinds.SUSPECT, kinds.HELD, register_mwh - row.last_mwh)
    row.held_mwh += register_mwh - row.last_mwh
    row.last_mwh = register_mwh
    hold(row, kinds.HOLD_REGISTER_JUMP)
    alert_once(
        run.desk,
        cause,
        connector,
        kinds.REGISTER_JUMP,
        time_ms,
        row.held_mwh,
        allowed_mwh(time_ms - row.start_ms, row.rating_mw, run.desk.limits[row.limits]),
        row.start_ms,
    )

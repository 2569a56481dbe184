"""One sample of a partition's log meets its connector: which session, in order or late, and what its register says.

This is the rule book of design.md section 4 in one direction: seen before? -> which session? -> in order? ->
register -> interval -> rated. What needs a session's past (a late sample, one of another session) is deferred to
`rerate`, which runs these same functions over the session's readings in order.
"""

import numpy as np

from pipeline.metering import kinds, rules
from pipeline.metering.columns import (
    ABSENT_I64,
    CONTEXT_BEGIN,
    FLAG_INTERVAL_MEASURAND,
    FLAG_NEGATIVE,
    FLAG_OFFLINE,
    FLAG_TIME_CORRECTED,
    FLAG_TIME_UNUSABLE,
    FLAG_WHOLE_WH,
    KIND_RESERVE,
    KIND_SAMPLE,
    KIND_START,
    KIND_STATUS,
    KIND_STOP,
    SIGNED_FORGED,
    STATE_AVAILABLE,
    STATE_CHARGING,
    STATE_FINISHING,
    STATE_SUSPENDED_EV,
    STATE_SUSPENDED_EVSE,
)
from pipeline.metering.order import NO_TXN, belongs, event_time, late, seen_before
from pipeline.metering.output import DEFERRED, Record
from pipeline.metering.policy import Limits
from pipeline.metering.registers import DROPPED, FOLLOWS, JUMPED, NO_BASELINE, WRAPPED, allowed_mwh, judge, unwrapped
from pipeline.metering.run import Desk, Run
from pipeline.metering.sessions import (
    alert_once,
    begin,
    charge_flat,
    close,
    hold,
    mixed,
    rate,
    reserve,
    reset_marks,
    set_mark,
    tell,
)
from pipeline.metering.state import NONE
from rating.columns import RESERVATION, RESERVATION_EXPIRED
from rating.jit import part
from rating.ratesheet import SLOT_FLAT

_WHOLE_WH_MWH = 1000


@part
def say(desk: Desk, cause: int, row: Record, verdict: int, disposition: int, energy_mwh: int) -> None:
    """The verdict on sample `cause`, and where the energy since the register before it went."""
    desk.facts[cause].verdict = verdict
    desk.facts[cause].disposition = disposition
    desk.facts[cause].energy_mwh = energy_mwh
    desk.facts[cause].session_key = row.session_key if row.open else np.uint64(0)
    desk.facts[cause].used_sheet = row.sheet if row.open else NONE


@part
def defer(desk: Desk, cause: int, connector: int, why: int) -> None:
    """Leave the sample, and all that follow on its connector in this segment, to `rerate`."""
    row = desk.connectors[connector]
    tell(desk, DEFERRED, why, cause, connector, row.session_key, desk.samples[cause].time_ms, 0)
    row.dirty = 1


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
                allowed_mwh(row.pend_ms - row.last_ms, row.rating_mw, run.desk.limits[0]),
                row.last_ms,
            )
    else:
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
    """The next reading confirms or refutes the one that was held."""
    row = run.desk.connectors[connector]
    if register_mwh >= row.last_mwh and (row.pend == DROPPED or register_mwh < row.pend_mwh):
        row.flags |= np.uint32(kinds.SESSION_GLITCH)
        if row.pend == DROPPED:
            alert_once(
                run.desk, cause, connector, kinds.COUNTER_ROLLBACK, row.pend_ms, row.pend_mwh, row.last_mwh, row.last_ms
            )
        row.pend = 0
    elif register_mwh >= row.pend_mwh:
        _new_run(run, cause, connector)
    else:
        row.pend = 0


@part
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
def _first_register(run: Run, cause: int, connector: int, time_ms: int, register_mwh: int) -> None:
    """The session's baseline; what flowed since the session before is energy outside any transaction."""
    row = run.desk.connectors[connector]
    outside_mwh = register_mwh - row.last_mwh if row.idle_register else 0
    if outside_mwh > 0 and register_mwh > 0 and row.last_mwh > 0:
        rules.outside(run.desk, cause, connector, outside_mwh, time_ms)
        say(run.desk, cause, row, kinds.FIRST, kinds.OUTSIDE, outside_mwh)
    else:
        say(run.desk, cause, row, kinds.FIRST, kinds.NOWHERE, 0)
    row.first_mwh = register_mwh
    row.last_mwh = register_mwh
    row.last_ms = time_ms
    row.has_register = 1
    row.readings += 1


@part
def _meant(row: Record, sample: Record) -> int:
    """The register that the sample means: interval measurands add up, session-relative ones start at 0."""
    register_mwh = sample.register_mwh
    if sample.flags & np.uint32(FLAG_INTERVAL_MEASURAND):
        return row.last_mwh + register_mwh
    if row.relative and not (sample.kind == KIND_STOP and register_mwh >= row.last_mwh):
        return row.first_mwh + register_mwh
    if sample.flags & np.uint32(FLAG_WHOLE_WH) and row.last_mwh - _WHOLE_WH_MWH < register_mwh < row.last_mwh:
        return row.last_mwh
    return register_mwh


@part
def _counts_from_zero(row: Record, sample: Record, time_ms: int, limits: Limits) -> bool:
    """Whether a session's first sample is below its start, and no counter that passed its modulus explains it."""
    if not 0 <= sample.register_mwh < row.first_mwh:
        return False
    most_mwh = allowed_mwh(time_ms - row.last_ms, row.rating_mw, limits)
    return bool(unwrapped(row.last_mwh, sample.register_mwh, most_mwh) < 0)


@part
def register(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """A register reading of the open session, in order."""
    row = run.desk.connectors[connector]
    if row.has_register == 0:
        _first_register(run, cause, connector, time_ms, sample.register_mwh)
        return
    if row.readings == 1 and sample.kind == KIND_SAMPLE and _counts_from_zero(row, sample, time_ms, run.desk.limits[0]):
        # Session-relative samples beside a lifetime register in start and stop.
        row.relative = 1
        row.flags |= np.uint32(kinds.SESSION_RELATIVE)
    register_mwh = _meant(row, sample)
    if row.pend != 0:
        _settle_pending(run, cause, connector, time_ms, register_mwh)
    zero_start = row.last_mwh == 0 and row.readings == 1
    how = judge(row.last_mwh, register_mwh, time_ms - row.last_ms, row.rating_mw, zero_start, run.desk.limits[0])
    if how == WRAPPED:
        most_mwh = allowed_mwh(time_ms - row.last_ms, row.rating_mw, run.desk.limits[0])
        energy_mwh = unwrapped(row.last_mwh, register_mwh, most_mwh) - row.last_mwh
        row.flags |= np.uint32(kinds.SESSION_ROLLOVER)
        _count_interval(run, cause, connector, time_ms, register_mwh, energy_mwh)
    elif how == FOLLOWS or (how == JUMPED and run.desk.limits[0].released):
        _count_interval(run, cause, connector, time_ms, register_mwh, register_mwh - row.last_mwh)
    elif how == NO_BASELINE:
        row.flags |= np.uint32(kinds.SESSION_ZERO_BASELINE)
        alert_once(run.desk, cause, connector, kinds.ZERO_BASELINE, time_ms, register_mwh, 0, row.last_ms)
        _count_interval(run, cause, connector, time_ms, register_mwh, 0)
        run.desk.facts[cause].disposition = kinds.UNEXPLAINED
        run.desk.facts[cause].energy_mwh = register_mwh
    else:
        _implausible(run, cause, connector, sample, time_ms, register_mwh, how)


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
        allowed_mwh(time_ms - row.start_ms, row.rating_mw, run.desk.limits[0]),
        row.start_ms,
    )


@part
def _idle(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """A reading outside any session: the connector's register moves on, and what flowed is nobody's yet."""
    row = run.desk.connectors[connector]
    say(run.desk, cause, row, kinds.IGNORED, kinds.NOWHERE, 0)
    if sample.register_mwh == ABSENT_I64 or sample.flags & np.uint32(FLAG_INTERVAL_MEASURAND):
        return
    moved_mwh = sample.register_mwh - row.last_mwh
    if row.idle_register and 0 < moved_mwh <= allowed_mwh(time_ms - row.last_ms, row.rating_mw, run.desk.limits[0]):
        rules.outside(run.desk, cause, connector, moved_mwh, time_ms)
        say(run.desk, cause, row, kinds.SUSPECT, kinds.OUTSIDE, moved_mwh)
    row.last_mwh = sample.register_mwh
    row.last_ms = max(row.last_ms, time_ms)
    row.idle_register = 1


@part
def lose_stop(run: Run, cause: int, connector: int) -> None:
    """The stop never came: the session ends at its last register."""
    row = run.desk.connectors[connector]
    row.flags |= np.uint32(kinds.SESSION_LOST_STOP)
    end_ms = row.last_ms if row.has_register else row.start_ms
    alert_once(run.desk, cause, connector, kinds.LOST_STOP, end_ms, row.energy_mwh, 0, row.start_ms)
    rules.on_close(run.desk, cause, connector, end_ms)
    close(run, cause, connector, end_ms)
    row.idle_register = row.has_register


@part
def start(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """StartTransaction, TransactionEvent Started, or the first that is heard of a transaction."""
    row = run.desk.connectors[connector]
    if row.open:
        lose_stop(run, cause, connector)
    reserved_ms = row.reserve_ms
    txn = sample.txn_hash
    key = mixed(row.identity, txn if txn != NO_TXN else mixed(np.uint64(time_ms), np.uint64(row.connector_id + 1)))
    begin(run, cause, connector, key, txn, time_ms, sample.token)
    row.reserve_ms = 0
    _note(run, cause, connector, sample, time_ms)
    rules.note_level(row, sample)
    if STATE_CHARGING <= sample.state <= STATE_SUSPENDED_EVSE:
        row.state = sample.state
    if reserved_ms > 0 and reserved_ms < time_ms:
        reserve(run, cause, connector, reserved_ms, time_ms, RESERVATION)
    if sample.kind != KIND_START:
        row.flags |= np.uint32(kinds.SESSION_LOST_START)
        row.lost_start = 1
        alert_once(run.desk, cause, connector, kinds.LOST_START, time_ms, 0, 0, time_ms)
    charge_flat(run, cause, connector, time_ms, SLOT_FLAT)
    say(run.desk, cause, row, kinds.FIRST, kinds.NOWHERE, 0)
    if sample.register_mwh != ABSENT_I64 and not sample.flags & np.uint32(FLAG_INTERVAL_MEASURAND):
        _first_register(run, cause, connector, time_ms, sample.register_mwh)
    else:
        row.last_ms = time_ms
        if sample.flags & np.uint32(FLAG_INTERVAL_MEASURAND):
            row.has_register = 1
            row.first_mwh = row.last_mwh
    reset_marks(run, connector, time_ms)


@part
def _stop(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """StopTransaction or TransactionEvent Ended: its register, then the session closes."""
    row = run.desk.connectors[connector]
    say(run.desk, cause, row, kinds.GOOD, kinds.NOWHERE, 0)
    if sample.register_mwh != ABSENT_I64:
        register(run, cause, connector, sample, time_ms)
    else:
        if row.has_register:
            rate(run, cause, connector, row.last_ms, time_ms, 0)
        row.last_ms = max(row.last_ms, time_ms)
        if sample.flags & np.uint32(FLAG_NEGATIVE):
            say(run.desk, cause, row, kinds.REGRESSED, kinds.NOWHERE, 0)
            if run.desk.limits[0].released == 0:
                hold(row, kinds.HOLD_STOP_BELOW_START)
            alert_once(run.desk, cause, connector, kinds.NEGATIVE_SESSION, time_ms, NONE, row.first_mwh, row.start_ms)
    rules.on_close(run.desk, cause, connector, time_ms)
    close(run, cause, connector, time_ms)
    row.idle_register = row.has_register


@part
def _status(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """StatusNotification, or a reservation: a state of the connector, of no transaction."""
    row = run.desk.connectors[connector]
    say(run.desk, cause, row, kinds.GOOD, kinds.NOWHERE, 0)
    if row.open == 0:
        if sample.kind == KIND_RESERVE and row.reserve_ms == 0:
            row.reserve_ms = time_ms
        elif sample.state == STATE_AVAILABLE and row.reserve_ms > 0:
            _expire(run, cause, connector, sample, time_ms)
        return
    if sample.state == STATE_AVAILABLE:
        row.leave_ms = time_ms
        return
    if STATE_CHARGING <= sample.state <= STATE_SUSPENDED_EVSE:
        row.state = sample.state
        row.leave_ms = 0
    elif sample.state == STATE_FINISHING:
        row.state = STATE_SUSPENDED_EV
    set_mark(run, connector, time_ms)


@part
def _expire(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """A reservation that nobody came for: a session of its own."""
    row = run.desk.connectors[connector]
    reserved_ms = row.reserve_ms
    key = mixed(row.identity, mixed(np.uint64(reserved_ms), np.uint64(row.connector_id + 1)))
    begin(run, cause, connector, key, NO_TXN, time_ms, sample.token)
    row.has_register = 1
    reserve(run, cause, connector, reserved_ms, time_ms, RESERVATION_EXPIRED)
    row.start_ms = reserved_ms
    close(run, cause, connector, time_ms)


@part
def _of_another_session(run: Run, connector: int, sample: Record, time_ms: int) -> bool:
    """Whether the sample is of a session that is not, and will not become, the open one."""
    row = run.desk.connectors[connector]
    txn = sample.txn_hash
    if txn == NO_TXN:
        return bool(time_ms < row.last_ms and row.prev_key != 0 and row.open == 0 and time_ms < row.prev_end_ms)
    if txn == row.prev_txn and not (sample.kind == KIND_START and time_ms > row.prev_end_ms):
        return True
    if time_ms < row.last_ms or sample.kind != KIND_START:
        return True  # unknown transaction: only its start may open a session unasked
    if len(run.detached) > 0:
        key = mixed(row.identity, txn)
        at = np.searchsorted(run.detached, key)
        return bool(at < len(run.detached) and run.detached[at] == key)
    return False


@part
def _after_stop(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> bool:
    """A value after its session's stop: energy outside a transaction. False where it is something else."""
    row = run.desk.connectors[connector]
    same = sample.txn_hash == row.prev_txn and sample.txn_hash != NO_TXN
    if row.open or not same or sample.kind != KIND_SAMPLE or time_ms < max(row.prev_end_ms, row.last_ms):
        return False
    _idle(run, cause, connector, sample, time_ms)
    run.desk.facts[cause].session_key = row.prev_key
    run.desk.facts[cause].verdict = kinds.SUSPECT
    return True


@part
def _note(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """What a sample says of its session beside energy: signature, replay, a clock that was not believed."""
    row = run.desk.connectors[connector]
    if sample.signed > row.signed:
        row.signed = sample.signed
    if sample.signed == SIGNED_FORGED:
        alert_once(run.desk, cause, connector, kinds.FORGED_SIGNATURE, time_ms, sample.register_mwh, 0, time_ms)
    if sample.flags & np.uint32(FLAG_OFFLINE):
        row.flags |= np.uint32(kinds.SESSION_OFFLINE)
    if sample.time_ms > sample.received_ms + run.desk.limits[0].future_ms:
        row.flags |= np.uint32(kinds.SESSION_TIME_CORRECTED)
    if sample.flags & np.uint32(FLAG_TIME_UNUSABLE | FLAG_TIME_CORRECTED):
        row.flags |= np.uint32(kinds.SESSION_TIME_CORRECTED)
        alert_once(run.desk, cause, connector, kinds.UNUSABLE_TIME, time_ms, 0, 0, time_ms)


@part
def _in_session(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """A sample or stop of the open session, in order."""
    row = run.desk.connectors[connector]
    row.seq_no = max(row.seq_no, sample.seq_no)
    row.leave_ms = 0
    _note(run, cause, connector, sample, time_ms)
    if sample.kind == KIND_STOP:
        _stop(run, cause, connector, sample, time_ms)
        return
    if sample.context == CONTEXT_BEGIN and row.readings > 0:
        say(run.desk, cause, row, kinds.IGNORED, kinds.NOWHERE, 0)  # the first register, told again
    elif sample.register_mwh != ABSENT_I64:
        register(run, cause, connector, sample, time_ms)
    else:
        say(run.desk, cause, row, kinds.GOOD, kinds.NOWHERE, 0)
    if STATE_CHARGING <= sample.state <= STATE_SUSPENDED_EVSE:
        row.state = sample.state
    rules.note_level(row, sample)
    rules.phases(run.desk, cause, connector, sample)
    if row.last_ms == time_ms:
        reset_marks(run, connector, time_ms)
    else:
        set_mark(run, connector, time_ms)


@part
def _unopened(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """A sample that is not of the open session: of one before, of none, or the first of a new one."""
    row = run.desk.connectors[connector]
    if _after_stop(run, cause, connector, sample, time_ms):
        return
    if run.desk.limits[0].rerun:
        if row.prev_key != NO_TXN:
            say(run.desk, cause, row, kinds.SUSPECT, kinds.NOWHERE, 0)
        else:
            start(run, cause, connector, sample, time_ms)
    elif _of_another_session(run, connector, sample, time_ms):
        defer(run.desk, cause, connector, kinds.WHY_OTHER_SESSION)
    elif sample.txn_hash == NO_TXN and sample.kind != KIND_START:
        _idle(run, cause, connector, sample, time_ms)
    else:
        start(run, cause, connector, sample, time_ms)


@part
def step(run: Run, cause: int, connector: int) -> None:
    """Meter one sample; `run.detached` holds, sorted, the keys of sessions that only `rerate` may touch."""
    row = run.desk.connectors[connector]
    sample = run.desk.samples[cause]
    rules.heard(run.desk, cause, connector, sample)
    if run.desk.limits[0].rerun == 0 and seen_before(run.desk, connector, sample):
        say(run.desk, cause, row, kinds.DUPLICATE, kinds.NOWHERE, 0)
        return
    time_ms = event_time(row, sample, run.desk.limits[0])
    if row.n_marks >= run.desk.limits[0].marks_per_connector:
        defer(run.desk, cause, connector, kinds.WHY_MARKS)
    elif sample.kind == KIND_STATUS or sample.kind == KIND_RESERVE:
        before_ms = row.last_ms if row.open else row.prev_end_ms
        if time_ms < before_ms and run.desk.limits[0].rerun == 0:
            defer(run.desk, cause, connector, kinds.WHY_LATE)
        else:
            _status(run, cause, connector, sample, time_ms)
    elif not belongs(row, sample, time_ms):
        _unopened(run, cause, connector, sample, time_ms)
    elif run.desk.limits[0].rerun == 0 and late(row, sample, time_ms):
        defer(run.desk, cause, connector, kinds.WHY_LATE)
    else:
        _in_session(run, cause, connector, sample, time_ms)

"""One sample of a partition's log meets its connector: which session, in order or late, and what its register says.

This is the rule book of design.md section 4 in one direction: seen before? -> which session? -> in order? ->
register -> interval -> rated. What needs a session's past (a late sample, one of another session) is deferred to
`rerate`, which runs these same functions over the session's readings in order.
"""

import numpy as np

from pipeline.metering import drift, kinds, rules
from pipeline.metering.columns import (
    ABSENT_I64,
    CONTEXT_BEGIN,
    FLAG_INTERVAL_MEASURAND,
    FLAG_NEGATIVE,
    FLAG_OFFLINE,
    FLAG_TIME_CORRECTED,
    FLAG_TIME_UNUSABLE,
    KIND_RESERVE,
    KIND_SAMPLE,
    KIND_START,
    KIND_STATUS,
    KIND_STOP,
    SIGNED_FORGED,
    STATE_CHARGING,
    STATE_SUSPENDED_EVSE,
)
from pipeline.metering.facts import defer, say
from pipeline.metering.idle import idle, status, take_over
from pipeline.metering.intervals import first_register, register
from pipeline.metering.order import NO_TXN, belongs, event_time, late, seen_before
from pipeline.metering.output import Record
from pipeline.metering.run import Run
from pipeline.metering.sessions import (
    alert_once,
    begin,
    charge_flat,
    close,
    hold,
    key_of,
    mixed,
    rate,
    reset_marks,
    set_mark,
)
from pipeline.metering.state import NONE
from rating.jit import inlined, part
from rating.ratesheet import SLOT_FLAT


@part
def lose_stop(run: Run, cause: int, connector: int) -> None:
    """The stop never came: the session ends at its last register."""
    row = run.desk.connectors[connector]
    row.flags |= np.uint32(kinds.SESSION_LOST_STOP)
    end_ms = row.last_ms if row.has_register else row.start_ms
    alert_once(run.desk, cause, connector, kinds.LOST_STOP, end_ms, row.energy_mwh, 0, row.start_ms)
    rules.on_close(run.desk, cause, connector, end_ms)
    drift.on_close(run.desk, cause, connector, end_ms)
    close(run, cause, connector, end_ms)
    row.idle_register = row.has_register


@part
def _key(row: Record, txn: np.uint64, time_ms: int) -> np.uint64:
    """The key of the session that starts: by its transaction id; by connector and time where that is unusable."""
    if txn == NO_TXN:
        return mixed(row.identity, mixed(np.uint64(time_ms), np.uint64(row.connector_id + 1)))
    key = key_of(row.identity, txn, row.connector_id)
    # An id that was used for the session before is used again: not the same session.
    return key if txn != row.prev_txn else mixed(key, np.uint64(time_ms))


@part
def start(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """StartTransaction, TransactionEvent Started, or the first that is heard of a transaction."""
    row = run.desk.connectors[connector]
    if row.open:
        lose_stop(run, cause, connector)
    reserved_ms = row.since_ms
    txn = sample.txn_hash
    key = _key(row, txn, time_ms)
    begin(run, cause, connector, key, txn, time_ms, sample.token)
    _note(run, cause, connector, sample, time_ms)
    rules.note_level(row, sample)
    take_over(run, cause, connector, sample, time_ms, reserved_ms)
    if sample.kind != KIND_START:
        row.flags |= np.uint32(kinds.SESSION_LOST_START)
        alert_once(run.desk, cause, connector, kinds.LOST_START, time_ms, 0, 0, time_ms)
    charge_flat(run, cause, connector, time_ms, SLOT_FLAT)
    say(run.desk, cause, row, kinds.FIRST, kinds.NOWHERE, 0)
    if sample.register_mwh != ABSENT_I64 and not sample.flags & np.uint32(FLAG_INTERVAL_MEASURAND):
        first_register(run, cause, connector, time_ms, sample.register_mwh)
    else:
        row.last_ms = time_ms
        if sample.flags & np.uint32(FLAG_INTERVAL_MEASURAND):
            row.has_register = 1
            row.first_mwh = row.last_mwh
    reset_marks(run, connector, time_ms)


@part
def _stop(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """StopTransaction or TransactionEvent Ended, when its register, if it has one, was counted: the session closes."""
    row = run.desk.connectors[connector]
    if sample.register_mwh == ABSENT_I64:
        if row.has_register:
            rate(run, cause, connector, row.last_ms, time_ms, 0)
        row.last_ms = max(row.last_ms, time_ms)
        if sample.flags & np.uint32(FLAG_NEGATIVE):
            say(run.desk, cause, row, kinds.REGRESSED, kinds.NOWHERE, 0)
            if run.desk.limits[0].released == 0:
                hold(row, kinds.HOLD_STOP_BELOW_START)
            alert_once(run.desk, cause, connector, kinds.NEGATIVE_SESSION, time_ms, NONE, row.first_mwh, row.start_ms)
    rules.on_close(run.desk, cause, connector, time_ms)
    drift.on_close(run.desk, cause, connector, time_ms)
    close(run, cause, connector, time_ms)
    row.idle_register = row.has_register


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
    return _detached(run, _key(row, txn, time_ms)) or _detached(run, key_of(row.identity, txn, 0))


@part
def _detached(run: Run, key: np.uint64) -> bool:
    """Whether only `rerate` may touch the session."""
    at = np.searchsorted(run.detached, key)
    return bool(at < len(run.detached) and run.detached[at] == key)


@part
def _after_stop(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> bool:
    """A value after its session's stop: energy outside a transaction. False where it is something else."""
    row = run.desk.connectors[connector]
    same = sample.txn_hash == row.prev_txn and sample.txn_hash != NO_TXN
    if row.open or not same or sample.kind != KIND_SAMPLE or time_ms < max(row.prev_end_ms, row.last_ms):
        return False
    idle(run, cause, connector, sample, time_ms)
    run.desk.facts[cause].session_key = row.prev_key
    run.desk.facts[cause].verdict = kinds.SUSPECT
    return True


@inlined
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


@inlined
def _in_session(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """A sample or stop of the open session, in order."""
    row = run.desk.connectors[connector]
    row.seq_no = max(row.seq_no, sample.seq_no)
    drift.charged(row, sample)
    row.since_ms = 0
    _note(run, cause, connector, sample, time_ms)
    if sample.context == CONTEXT_BEGIN and row.readings > 0 and sample.kind != KIND_STOP:
        say(run.desk, cause, row, kinds.IGNORED, kinds.NOWHERE, 0)  # the first register, told again
    elif sample.register_mwh != ABSENT_I64:
        register(run, cause, connector, sample, time_ms)
    else:
        say(run.desk, cause, row, kinds.GOOD, kinds.NOWHERE, 0)
    if sample.kind == KIND_STOP:
        _stop(run, cause, connector, sample, time_ms)
        return
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
        idle(run, cause, connector, sample, time_ms)
    else:
        start(run, cause, connector, sample, time_ms)


@inlined
def step(run: Run, cause: int, connector: int) -> None:
    """Meter one sample; `run.detached` holds, sorted, the keys of sessions that only `rerate` may touch."""
    row = run.desk.connectors[connector]
    sample = run.desk.samples[cause]
    if run.desk.limits[0].rerun == 0:
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
            status(run, cause, connector, sample, time_ms)
    elif not belongs(row, sample, time_ms):
        _unopened(run, cause, connector, sample, time_ms)
    elif run.desk.limits[0].rerun == 0 and late(row, sample, time_ms):
        defer(run.desk, cause, connector, kinds.WHY_LATE)
    else:
        _in_session(run, cause, connector, sample, time_ms)

"""A connector between sessions: its register moves on, and what it tells counts for the session that follows.

A state told shortly before a start and a reservation belong to the session that starts: it takes them over, and they
are written down as readings of it, so that whoever meters the session again from its readings knows them too.
"""

import numpy as np

from pipeline.metering import kinds, rules
from pipeline.metering.columns import (
    ABSENT_I64,
    FLAG_INTERVAL_MEASURAND,
    KIND_RESERVE,
    KIND_STATUS,
    STATE_AVAILABLE,
    STATE_CHARGING,
    STATE_FINISHING,
    STATE_RESERVED,
    STATE_SUSPENDED_EV,
    STATE_SUSPENDED_EVSE,
    STATE_UNKNOWN,
)
from pipeline.metering.facts import say
from pipeline.metering.order import NO_TXN
from pipeline.metering.output import PRELUDE, Record
from pipeline.metering.registers import allowed_mwh
from pipeline.metering.run import Run
from pipeline.metering.sessions import begin, close, mixed, reserve, set_mark, tell
from rating.columns import RESERVATION, RESERVATION_EXPIRED
from rating.jit import part


@part
def idle(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """A reading outside any session: the connector's register moves on, and what flowed is nobody's yet."""
    row = run.desk.connectors[connector]
    say(run.desk, cause, row, kinds.IGNORED, kinds.NOWHERE, 0)
    if sample.register_mwh == ABSENT_I64 or sample.flags & np.uint32(FLAG_INTERVAL_MEASURAND):
        return
    moved_mwh = sample.register_mwh - row.last_mwh
    if row.idle_register and 0 < moved_mwh <= allowed_mwh(
        time_ms - row.last_ms, row.rating_mw, run.desk.limits[row.limits]
    ):
        rules.outside(run.desk, cause, connector, moved_mwh, time_ms)
        say(run.desk, cause, row, kinds.SUSPECT, kinds.OUTSIDE, moved_mwh)
    elif row.idle_register and moved_mwh != 0:
        say(run.desk, cause, row, kinds.IGNORED, kinds.UNEXPLAINED, moved_mwh)
    row.last_mwh = sample.register_mwh
    row.last_ms = max(row.last_ms, time_ms)
    row.idle_register = 1


@part
def status(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """StatusNotification, or a reservation: a state of the connector, of no transaction."""
    row = run.desk.connectors[connector]
    say(run.desk, cause, row, kinds.GOOD, kinds.NOWHERE, 0)
    if row.open == 0:
        _told_before(run, cause, connector, sample, time_ms)
        return
    if sample.state == STATE_AVAILABLE:
        row.since_ms = time_ms
        return
    if STATE_CHARGING <= sample.state <= STATE_SUSPENDED_EVSE:
        row.state = sample.state
        row.since_ms = 0
    elif sample.state == STATE_FINISHING:
        row.state = STATE_SUSPENDED_EV
    set_mark(run, connector, time_ms)


@part
def _told_before(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """What is told while no session is open: kept for the one that follows."""
    row = run.desk.connectors[connector]
    row.said_state = STATE_UNKNOWN
    if STATE_CHARGING <= sample.state <= STATE_SUSPENDED_EVSE:
        row.said_state = sample.state
        row.said_ms = time_ms
    elif sample.kind == KIND_RESERVE and row.since_ms == 0:
        row.since_ms = time_ms
    elif sample.state == STATE_AVAILABLE and row.since_ms > 0:
        _expire(run, cause, connector, sample, time_ms)


@part
def take_over(run: Run, cause: int, connector: int, sample: Record, time_ms: int, reserved_ms: int) -> None:
    """The session just begun takes over the connector's last state, and its reservation."""
    row = run.desk.connectors[connector]
    if STATE_CHARGING <= sample.state <= STATE_SUSPENDED_EVSE:
        row.state = sample.state
    elif row.said_state > STATE_CHARGING and 0 <= time_ms - row.said_ms <= run.desk.limits[0].prelude_ms:
        row.state = row.said_state
        tell(run.desk, PRELUDE, KIND_STATUS, cause, connector, row.session_key, row.said_ms, row.said_state)
    row.said_state = STATE_UNKNOWN
    if 0 < reserved_ms < time_ms:
        reserve(run, cause, connector, reserved_ms, time_ms, RESERVATION)
        tell(run.desk, PRELUDE, KIND_RESERVE, cause, connector, row.session_key, reserved_ms, STATE_RESERVED)


@part
def _expire(run: Run, cause: int, connector: int, sample: Record, time_ms: int) -> None:
    """A reservation that nobody came for: a session of its own."""
    row = run.desk.connectors[connector]
    reserved_ms = row.since_ms
    key = mixed(row.identity, mixed(np.uint64(reserved_ms), np.uint64(row.connector_id + 1)))
    begin(run, cause, connector, key, NO_TXN, time_ms, sample.token)
    row.has_register = 1
    row.first_mwh = row.last_mwh
    reserve(run, cause, connector, reserved_ms, time_ms, RESERVATION_EXPIRED)
    row.start_ms = reserved_ms
    close(run, cause, connector, time_ms)

"""A session's life in the state: begun, its intervals rated and joined to periods, closed for settlement.

Compiled, called by `step` and `timeouts`; decides nothing about registers or order.
"""

import numpy as np

from pipeline.metering import kinds
from pipeline.metering.columns import ABSENT_I64, SIGNED_FORGED
from pipeline.metering.output import (
    ALERT,
    BEGUN,
    FLAT,
    INTERVAL_ROOM,
    N_CLOSED,
    N_EVENTS,
    N_PIECES,
    N_SESSIONS,
    RESOLVED,
    Record,
)
from pipeline.metering.policy import Limits
from pipeline.metering.run import Desk, Run
from pipeline.metering.state import MOST_I32, NONE
from rating.columns import CHARGING, PARKING, RESERVATION_EXPIRED, SPLIT_READING, Marks, Pieces
from rating.jit import inlined, kernel, part
from rating.kernel import NO_ROOM, OUT_OF_BOUNDS, flat_component, rate_interval
from rating.ratesheet import SLOT_EXPIRED_FLAT, SLOT_FLAT, SLOT_RESERVATION_FLAT

_OWN_REASONS = sum(1 << kind for kind in kinds.HELD_BY_DEFAULT)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@inlined
def mixed(a: np.uint64, b: np.uint64) -> np.uint64:
    """A 64-bit hash of two words (splitmix64's finaliser, Steele et al. 2014); never 0."""
    x = a * _GOLDEN + b
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    x = x ^ (x >> np.uint64(31))
    return x if x != np.uint64(0) else _GOLDEN


@kernel
def key_of(identity: np.uint64, txn: np.uint64, connector_id: int) -> np.uint64:
    """The key of the session that a transaction id names on a connector of a charge point.

    Messages that name no connector (OCPP 1.6 stops) mean the first one, unless the state knows better.
    """
    key = mixed(identity, txn)
    return key if connector_id <= 1 else mixed(key, np.uint64(connector_id))


@part
def alert(
    desk: Desk,
    cause: int,
    connector: int,
    session_key: np.uint64,
    kind: int,
    time_ms: int,
    value: int,
    threshold: int,
    since_ms: int,
) -> None:
    """Write one alert row."""
    at = desk.count[N_EVENTS]
    event = desk.events[at]
    event.what = ALERT
    event.code = kind
    event.token = desk.connectors[connector].token
    event.session_key = session_key
    event.time_ms = time_ms
    event.value = value
    event.threshold = threshold
    event.since_ms = since_ms
    event.connector = connector
    event.cause = cause
    desk.count[N_EVENTS] = at + 1


@part
def tell(
    desk: Desk, what: int, code: int, cause: int, connector: int, session_key: np.uint64, time_ms: int, value: int
) -> None:
    """Write an event that is no alert: BEGUN, FLAT or DEFERRED."""
    alert(desk, cause, connector, session_key, code, time_ms, value, 0, 0)
    desk.events[desk.count[N_EVENTS] - 1].what = what


@part
def alert_once(
    desk: Desk, cause: int, connector: int, kind: int, time_ms: int, value: int, threshold: int, since_ms: int
) -> None:
    """Write an alert of the open session, unless this kind was said of it before."""
    row = desk.connectors[connector]
    bit = np.uint32(1) << np.uint32(kind)
    if row.alerted & bit:
        return
    row.alerted |= bit
    alert(desk, cause, connector, row.session_key, kind, time_ms, value, threshold, since_ms)


@part
def over(desk: Desk, cause: int, connector: int, kind: int, time_ms: int, value: int, since_ms: int) -> None:
    """The condition that an alert was said for has ended."""
    alert(desk, cause, connector, desk.connectors[connector].session_key, kind, time_ms, value, 0, since_ms)
    desk.events[desk.count[N_EVENTS] - 1].what = RESOLVED


@part
def _over_with_session(desk: Desk, cause: int, connector: int, end_ms: int) -> None:
    row = desk.connectors[connector]
    for kind in kinds.ENDS_WITH_SESSION:
        if row.alerted & (np.uint32(1) << np.uint32(kind)):
            over(desk, cause, connector, kind, end_ms, row.energy_mwh, row.start_ms)


@part
def hold(row: Record, reason: int) -> None:
    """Hold the session for `reason`; the first reason stays."""
    if row.hold == kinds.HOLD_NONE:
        row.hold = reason


@part
def holds(limits: Limits, kind: int) -> bool:
    """Whether the policy holds sessions that an alert of this kind was said of."""
    return bool(limits.hold_kinds >> kind & 1)


@inlined
def set_mark(run: Run, connector: int, time_ms: int) -> bool:
    """What holds from `time_ms` on; False where the connector has no room for another mark."""
    row = run.desk.connectors[connector]
    base = connector * run.desk.limits[0].marks_per_connector
    at = row.n_marks
    if at > 0 and run.marks[base + at - 1].start_ms >= time_ms:
        at -= 1
    if at >= run.desk.limits[0].marks_per_connector:
        return False
    parking = row.state == 1
    run.marks[base + at].start_ms = time_ms
    run.marks[base + at].state = PARKING if parking else CHARGING
    run.marks[base + at].power_mw = row.power_mw
    run.marks[base + at].current_ma = min(row.current_ma, MOST_I32)
    row.n_marks = at + 1
    return True


@part
def reset_marks(run: Run, connector: int, time_ms: int) -> None:
    """Start afresh at a register: one mark with what holds now."""
    run.desk.connectors[connector].n_marks = 0
    set_mark(run, connector, time_ms)


@part
def begin(run: Run, cause: int, connector: int, key: np.uint64, txn: np.uint64, time_ms: int, token: int) -> None:
    """Open a session on the connector at `time_ms`; the register comes separately."""
    row = run.desk.connectors[connector]
    fact = run.desk.facts[cause]
    default = run.defaults[fact.slot, connector]
    sheet = fact.sheet if fact.sheet >= 0 else default.sheet
    row.rating_mw = default.rating_mw
    row.session_key = key
    row.txn_hash = txn
    row.start_ms = time_ms
    row.open = 1
    row.sheet = sheet
    row.token = token
    row.energy_mwh = 0
    row.held_mwh = 0
    row.unexplained_mwh = 0
    row.flow_mwh = 0
    row.stuck_mwh = 0
    row.park_ms = 0
    row.readings = 0
    row.flags = 0
    row.alerted = 0
    row.hold = kinds.HOLD_NONE
    row.pend = 0
    row.relative = 0
    row.signed = 0
    row.has_register = 0
    row.phases_live = 0
    row.soc_first = NONE
    row.soc_last = NONE
    row.since_ms = 0
    row.power_mw = NONE
    row.current_ma = NONE
    row.state = 0
    row.seq_no = NONE
    row.flat = NONE
    row.flat_reserved = NONE
    row.flat_expired = NONE
    row.head = NONE
    row.tail = NONE
    row.periods = 0
    tell(run.desk, BEGUN, 0, cause, connector, key, time_ms, sheet)
    if sheet < 0:
        hold(row, kinds.HOLD_UNKNOWN_TARIFF)
        alert_once(run.desk, cause, connector, kinds.UNKNOWN_REFERENCE, time_ms, 0, 0, time_ms)


@inlined
def _joined(run: Run, row: Record, at: int) -> None:
    """Join the piece at `at` to the session's last period, or make it a new one."""
    piece = run.pieces[at]
    if row.tail > 0:
        last = run.periods[row.tail]
        if (
            last.end_ms == piece.start_ms
            and last.state == piece.state
            and last.energy_component == piece.energy_component
            and last.time_component == piece.time_component
            and last.missing == piece.missing
        ):
            last.end_ms = piece.end_ms
            last.energy_mwh += piece.energy_mwh
            last.apportioned |= piece.apportioned
            return
    pool = run.periods[0]
    taken = pool.next
    period = run.periods[taken]
    pool.next = period.next
    pool.start_ms -= 1
    period.next = NONE
    period.start_ms = piece.start_ms
    period.end_ms = piece.end_ms
    period.state = piece.state
    period.energy_mwh = piece.energy_mwh
    period.energy_component = piece.energy_component
    period.time_component = piece.time_component
    period.missing = piece.missing
    period.apportioned = piece.apportioned
    if row.tail > 0:
        run.periods[row.tail].next = taken
    else:
        row.head = taken
    row.tail = taken
    row.periods += 1


@part
def rate(run: Run, cause: int, connector: int, start_ms: int, end_ms: int, energy_mwh: int) -> None:
    """Rate [start_ms, end_ms) of the open session under its marks; pieces go to the output and to its periods."""
    row = run.desk.connectors[connector]
    row.energy_mwh += energy_mwh
    if row.sheet < 0:
        row.held_mwh += energy_mwh
        return
    if end_ms - start_ms > run.desk.limits[0].gap_ms and run.desk.limits[0].released == 0:
        row.held_mwh += energy_mwh
        hold(row, kinds.HOLD_GAP)
        return
    first = run.desk.count[N_PIECES]
    base = connector * run.desk.limits[0].marks_per_connector
    marks = Marks(run.marks["start_ms"], run.marks["state"], run.marks["power_mw"], run.marks["current_ma"])
    most = first + INTERVAL_ROOM  # the same for every batch, so that it does not depend on where one begins
    pieces = Pieces(
        run.pieces["tag"][:most],
        run.pieces["start_ms"][:most],
        run.pieces["end_ms"][:most],
        run.pieces["state"][:most],
        run.pieces["split"][:most],
        run.pieces["apportioned"][:most],
        run.pieces["energy_mwh"][:most],
        run.pieces["energy_component"][:most],
        run.pieces["time_component"][:most],
        run.pieces["missing"][:most],
    )
    before_mwh = row.energy_mwh - energy_mwh
    stop = rate_interval(
        run.book,
        row.sheet,
        cause,
        row.start_ms,
        before_mwh,
        marks,
        base,
        row.n_marks,
        start_ms,
        end_ms,
        energy_mwh,
        pieces,
        first,
    )
    if stop in (OUT_OF_BOUNDS, NO_ROOM):
        row.held_mwh += energy_mwh
        hold(row, kinds.HOLD_BOUNDS)
        return
    if stop < 0:
        raise OverflowError("the horizon of the rate sheets does not cover an interval: Sheets.cover comes first")
    for at in range(first, stop):
        _joined(run, row, at)
    run.desk.count[N_PIECES] = stop


@part
def charge_flat(run: Run, cause: int, connector: int, time_ms: int, slot: int) -> None:
    """FLAT, once a session, by what matches at its start (and once more for a reservation)."""
    row = run.desk.connectors[connector]
    if row.sheet < 0:
        return
    component = flat_component(run.book, row.sheet, slot, time_ms, row.power_mw, row.current_ma)
    if component < 0:
        return
    if slot == SLOT_FLAT:
        row.flat = component
    elif slot == SLOT_RESERVATION_FLAT:
        row.flat_reserved = component
    else:
        row.flat_expired = component
    tell(run.desk, FLAT, component, cause, connector, row.session_key, time_ms, row.sheet)


@part
def reserve(run: Run, cause: int, connector: int, start_ms: int, end_ms: int, how: int) -> None:
    """Rate the reservation [start_ms, end_ms) of the session just begun (RESERVATION or RESERVATION_EXPIRED)."""
    row = run.desk.connectors[connector]
    base = connector * run.desk.limits[0].marks_per_connector
    row.n_marks = 1
    run.marks[base].start_ms = start_ms
    run.marks[base].state = how
    run.marks[base].power_mw = NONE
    run.marks[base].current_ma = NONE
    rate(run, cause, connector, start_ms, end_ms, 0)
    charge_flat(run, cause, connector, start_ms, SLOT_RESERVATION_FLAT)
    if how == RESERVATION_EXPIRED:
        charge_flat(run, cause, connector, start_ms, SLOT_EXPIRED_FLAT)


@part
def _hold_or_not(row: Record, limits: Limits) -> None:
    """Whether the session that ends is billed, or waits for a person, and why."""
    if limits.released and row.sheet >= 0:
        row.hold = kinds.HOLD_NONE
    elif row.signed == SIGNED_FORGED and holds(limits, kinds.FORGED_SIGNATURE):
        hold(row, kinds.HOLD_FORGED)
    elif row.pend != 0:
        hold(row, kinds.HOLD_UNCONFIRMED)
    elif row.has_register == 0:
        hold(row, kinds.HOLD_NO_REGISTER)
    elif row.alerted & limits.hold_kinds & ~_OWN_REASONS:
        hold(row, kinds.HOLD_ANOMALY)


@part
def close(run: Run, cause: int, connector: int, end_ms: int) -> None:
    """Close the open session at `end_ms`: its periods go to the output, to be settled or held."""
    row = run.desk.connectors[connector]
    at = run.desk.count[N_SESSIONS]
    session = run.sessions[at]
    session.session_key = row.session_key
    session.start_ms = row.start_ms
    session.end_ms = max(end_ms, row.start_ms)
    session.energy_mwh = row.energy_mwh
    session.held_mwh = row.held_mwh
    session.connector = connector
    session.cause = cause
    session.sheet = row.sheet
    session.token = row.token
    session.readings = row.readings
    session.flags = row.flags
    session.alerted = row.alerted
    session.first_mwh = row.first_mwh if row.has_register else ABSENT_I64
    session.last_mwh = row.last_mwh if row.has_register else ABSENT_I64
    session.unexplained_mwh = row.unexplained_mwh
    session.signed = row.signed
    _hold_or_not(row, run.desk.limits[row.limits])
    session.hold = row.hold
    to = run.desk.count[N_CLOSED]
    session.flat = row.flat
    session.flat_reserved = row.flat_reserved
    session.flat_expired = row.flat_expired
    session.first_piece = to
    session.pieces = row.periods
    at_period = row.head
    while at_period > 0:
        period = run.periods[at_period]
        closed = run.closed[to]
        closed.tag = at
        closed.start_ms = period.start_ms
        closed.end_ms = period.end_ms
        closed.state = period.state
        closed.split = SPLIT_READING
        closed.apportioned = period.apportioned
        closed.missing = period.missing
        closed.energy_mwh = period.energy_mwh
        closed.energy_component = period.energy_component
        closed.time_component = period.time_component
        to += 1
        follows = period.next
        period.next = run.periods[0].next
        run.periods[0].next = at_period
        run.periods[0].start_ms += 1
        at_period = follows
    run.desk.count[N_CLOSED] = to
    run.desk.count[N_SESSIONS] = at + 1
    _over_with_session(run.desk, cause, connector, session.end_ms)
    row.zero_run = row.zero_run + 1 if row.energy_mwh == 0 and row.has_register else 0
    row.open = 0
    row.prev_key = row.session_key
    row.prev_txn = row.txn_hash
    row.prev_start_ms = row.start_ms
    row.prev_end_ms = session.end_ms
    row.head = NONE
    row.tail = NONE
    row.periods = 0
    row.pend = 0
    row.since_ms = 0
    row.n_marks = 0

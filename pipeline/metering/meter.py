"""The compiled pass: a segment of the log through `step`, ticks through `timeout`, in log order.

The Python around it gives it room and does what it defers; results do not depend on where a segment is cut. Numbers of
rows are made int64 where they leave an array: a step that met both widths would be compiled, whole, for each.
"""

from typing import Final

import numpy as np

from pipeline.metering import kinds
from pipeline.metering.columns import ABSENT_I64, KIND_STOP, KIND_TICK
from pipeline.metering.facts import defer
from pipeline.metering.output import N_CLOSED, N_EVENTS, N_PIECES, N_SESSIONS, ROOM
from pipeline.metering.rules import silence
from pipeline.metering.run import Run
from pipeline.metering.step import lose_stop, start, step
from rating.jit import inlined, kernel, part

DONE: Final = -1
WAIT: Final = -2
ADVANCE: Final = 0
RESUME: Final = 1
BEGIN: Final = 2
END: Final = 3


@inlined
def wide(number: int) -> int:
    """The number as an int64, however wide the column is that it stands in."""
    return int(np.int64(number))  # compiled, `int` alone keeps the width


@part
def short_of_room(run: Run, connectors: int) -> bool:
    """Whether the next sample might not find room; a tick may write rows for each connector of its partition."""
    room = ROOM + 2 * connectors
    closing = len(run.periods) if connectors else ROOM
    return bool(
        len(run.pieces) - run.desk.count[N_PIECES] < room
        or len(run.closed) - run.desk.count[N_CLOSED] < room + closing
        or len(run.desk.events) - run.desk.count[N_EVENTS] < 4 * room
        or len(run.sessions) - run.desk.count[N_SESSIONS] < 1 + connectors
    )


@part
def timeout(run: Run, cause: int, connector: int, time_ms: int) -> None:
    """What a tick at `time_ms` does to one connector: lost stops, silence."""
    row = run.desk.connectors[connector]
    if row.open == 0:
        return
    limits = run.desk.limits[row.limits]
    left = row.since_ms > 0 and time_ms - row.since_ms >= limits.available_grace_ms
    if left or time_ms - max(row.heard_ms, row.last_ms) >= limits.session_timeout_ms:
        lose_stop(run, cause, connector)
        return
    silence(run.desk, cause, connector, time_ms)


@part
def tick(run: Run, cause: int) -> None:
    """Time has passed for every connector of the tick's partition."""
    time_ms = run.desk.samples[cause].time_ms
    connector = wide(run.roster[run.desk.facts[cause].partition].head)
    while connector >= 0:
        if run.desk.connectors[connector].dirty:
            defer(run.desk, cause, connector, kinds.WHY_DIRTY)
        else:
            timeout(run, cause, connector, time_ms)
        connector = wide(run.desk.connectors[connector].follows)


@part
def route(run: Run, cause: int, connector: int) -> int:
    """The connector a sample without one belongs to (OCPP 1.6 stops name only the transaction).

    Its own row where nobody knows; WAIT where a connector that waits for `rerate` may turn out to be it.
    """
    sample = run.desk.samples[cause]
    if sample.connector_id != 0 or (sample.txn_hash == 0 and sample.kind != KIND_STOP):
        return connector
    by_id = sample.txn_hash != 0
    found, waits, at, nearest_mwh = connector, False, connector, -1
    while True:
        row = run.desk.connectors[at]
        waits |= row.dirty != 0
        apart_mwh = 0 if sample.register_mwh == ABSENT_I64 else abs(sample.register_mwh - row.last_mwh)
        if row.open and row.txn_hash == sample.txn_hash and (nearest_mwh < 0 or apart_mwh < nearest_mwh):
            found, nearest_mwh = at, apart_mwh
        elif by_id and row.prev_txn == sample.txn_hash and nearest_mwh < 0:
            found = at
        at = wide(row.sibling)
        if at == connector:
            break
    if by_id and nearest_mwh >= 0:
        return found
    return WAIT if waits else found


@part
def advance(run: Run, waiting: bool, first: int, stop: int) -> int:
    """Meter the samples [first, stop) of the segment, or those that `run.todo` names there if they were `waiting`.

    Returns DONE, or the index at which more room is needed. A connector that must wait (again) keeps all its samples
    waiting. One loop for both: what a sample meets is compiled into it, and so only once.
    """
    for k in range(first, stop):
        cause = wide(run.todo[k].cause) if waiting else k
        fact = run.desk.facts[cause]
        is_tick = run.desk.samples[cause].kind == KIND_TICK
        members = run.roster[fact.partition].members if is_tick and not waiting else 0
        if short_of_room(run, members) or run.periods[0].start_ms < ROOM:
            return k
        if is_tick and not waiting:
            tick(run, cause)
            continue
        connector = wide(run.todo[k].connector) if waiting else wide(fact.row)
        routed = connector if is_tick else route(run, cause, connector)
        if routed == WAIT or run.desk.connectors[routed].dirty:
            defer(run.desk, cause, connector if routed == WAIT else routed, kinds.WHY_DIRTY)
        elif is_tick:
            timeout(run, cause, connector, run.desk.samples[cause].time_ms)
        else:
            fact.row = routed
            step(run, cause, routed)
    return DONE


@kernel
def meter(run: Run, how: int, first: int, stop: int, connector: int) -> int:
    """The one way in, so that all of it is compiled once; returns DONE, or the index at which more room is needed.

    ADVANCE meters the samples [first, stop), RESUME those that `run.todo` names in [first, stop). BEGIN opens, for
    sample `first` on `connector`, a session whose start was never heard; END ends one whose stop was not.
    """
    if how in (ADVANCE, RESUME):
        return advance(run, how == RESUME, first, stop)
    if how == BEGIN:
        sample = run.desk.samples[first]
        start(run, first, connector, sample, sample.time_ms)
    else:
        lose_stop(run, first, connector)
    return DONE

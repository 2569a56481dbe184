"""The hot path: one metered interval of one session cut into charging periods, each with its components.

Integers only, no allocation, no float. Energy inside an interval follows the integer curve of the design:
with a(t) the charging time in ms since the interval's start (elapsed time if nothing charged), the register
at t is `first + floor(E · a(t) / a(end))`. A kWh threshold is cut at the first ms whose register reaches it,
and the piece before carries exactly the threshold, so pieces of zero length exist.
What a piece costs is quantity × price of its component; totals, steps, taxes and limits are `settle`'s.

Most intervals are one piece: `rate_interval` finds that out and writes it, and only that much becomes part of its
callers. What prices it is not searched but stands in a cell (`cells`), as flips are looked for in one span of the
calendar. Where it indexes, rows are unsigned: numba tests whether a signed one counts from the end, and in a pass of
nothing but look-ups these tests take a fifth of the time.
"""

from typing import Final

from numpy import uint64

from rating.cells import NO_LIMIT
from rating.columns import (
    ABSENT,
    CHARGING,
    FREE,
    MISSING_BITS,
    MISSING_CURRENT,
    MISSING_POWER,
    PARKING,
    RESERVATION,
    SPLIT_CURRENT,
    SPLIT_DURATION,
    SPLIT_KWH,
    SPLIT_POWER,
    SPLIT_READING,
    SPLIT_STATE,
    SPLIT_TIME,
    Marks,
    Pieces,
)
from rating.jit import inlined, kernel, part
from rating.ratesheet import (
    CELLS,
    CELLS_AT,
    CURRENT_END,
    CURRENT_STEP,
    DURATION_AT,
    DURATION_END,
    DURATION_STEP,
    ENERGY_MAX_MWH,
    FLIPS_AT,
    FLIPS_END,
    FROM_MS,
    KWH_AT,
    KWH_END,
    PATTERNS_AT,
    POWER_END,
    POWER_STEP,
    SLOT_ENERGY,
    SLOT_EXPIRED,
    SLOT_FLAT,
    SLOT_PARKING,
    SLOT_RESERVATION,
    SLOT_TIME,
    SPAN_BITS,
    SPANS_AT,
    TIME_MAX_MS,
    UNTIL_MS,
    Book,
)

NO_ROOM: Final = -1  # `pieces` is full: give a larger one and call again
NOT_COVERED: Final = -2  # the sheet's horizon does not cover the interval: extend the book and call again
OUT_OF_BOUNDS: Final = -3  # quantities at which int64 could overflow, or negative ones: nothing was rated

_FAR: Final = 2**62
_SMALL: Final = 2**31


@inlined
def _segment(book: Book, low: int, high: int, instant_ms: int) -> int:
    """The last flip in [low, high) at or before the instant."""
    while high - low > 1:
        middle = (low + high) >> 1
        if book.flips[uint64(middle)] <= instant_ms:
            low = middle
        else:
            high = middle
    return low


@inlined
def flip_at(book: Book, sheet: int, instant_ms: int) -> int:
    """The last flip of the sheet's calendar at or before an instant of its horizon."""
    first: int = book.sheets[sheet, FLIPS_AT]
    if book.sheets[sheet, FLIPS_END] - first <= 1:
        return first
    span = book.sheets[sheet, SPANS_AT] + ((instant_ms - book.sheets[sheet, FROM_MS]) >> SPAN_BITS)
    return _segment(book, first + book.spans[uint64(span)], first + book.spans[uint64(span + 1)] + 1, instant_ms)


@inlined
def _select(
    book: Book, pattern: int, slot: int, energy_mwh: int, current_ma: int, power_mw: int, duration_ms: int
) -> tuple[int, int]:
    """The component that prices a slot now, or FREE; and what could not be checked on the way.

    "The first Tariff Element with a Price Component for that dimension in the list with matching
    Tariff Restrictions will be used." Minima are inclusive, maxima exclusive.
    """
    missing = 0
    for at in range(book.patterns[uint64(pattern), uint64(slot)], book.patterns[uint64(pattern), uint64(slot + 1)]):
        if book.candidates[uint64(at), 1] == NO_LIMIT:
            return book.candidates[uint64(at), 0], missing
        row = uint64(book.candidates[uint64(at), 1])
        limits = book.limits
        if (
            limits[row, 0] <= energy_mwh < limits[row, 1]
            and limits[row, 2] <= current_ma < limits[row, 3]
            and limits[row, 4] <= power_mw < limits[row, 5]
            and limits[row, 6] <= duration_ms < limits[row, 7]
        ):
            return book.candidates[uint64(at), 0], missing
        if current_ma == ABSENT and limits[row, 2] > ABSENT:
            missing |= MISSING_CURRENT
        if power_mw == ABSENT and limits[row, 4] > ABSENT:
            missing |= MISSING_POWER
    return FREE, missing


@inlined
def _curve_length(marks: Marks, mark: int, last: int, start_ms: int, end_ms: int) -> tuple[int, bool]:
    """a(end): the charging time in [start, end), and whether it is elapsed time because nothing charged."""
    charging = 0
    at = start_ms
    while at < end_ms:
        until = end_ms
        if mark + 1 < last and marks.start_ms[mark + 1] < end_ms:
            until = max(marks.start_ms[mark + 1], at)
        if marks.state[mark] == CHARGING:
            charging += until - at
        at = until
        mark += 1
    if charging == 0:
        return end_ms - start_ms, True
    return charging, False


@inlined
def _mark_split(marks: Marks, before: int, after: int) -> int:
    """Why a cut at a mark: the strongest of what changed there."""
    if marks.state[before] != marks.state[after]:
        return SPLIT_STATE
    if marks.power_mw[before] != marks.power_mw[after]:
        return SPLIT_POWER
    if marks.current_ma[before] != marks.current_ma[after]:
        return SPLIT_CURRENT
    return SPLIT_READING


@inlined
def _in_bounds(book: Book, sheet: int, start_ms: int, end_ms: int, energy_before_mwh: int, energy_mwh: int) -> bool:
    """Whether every product of this interval stays in int64: cost at the dearest price, and energy × time."""
    length = end_ms - start_ms
    if length < 0 or energy_mwh < 0 or energy_before_mwh < 0:
        return False
    if energy_mwh > book.sheets[sheet, ENERGY_MAX_MWH] - energy_before_mwh or length > book.sheets[sheet, TIME_MAX_MS]:
        return False
    small = energy_mwh < _SMALL and length < _SMALL
    return small or length == 0 or energy_mwh <= _FAR // length


@inlined
def _slots(state: int) -> tuple[int, int]:
    """The slots that price energy and time in a state; -1 = nothing prices energy there."""
    if state == CHARGING:
        return SLOT_ENERGY, SLOT_TIME
    if state == PARKING:
        return SLOT_ENERGY, SLOT_PARKING
    if state == RESERVATION:
        return -1, SLOT_RESERVATION
    return -1, SLOT_EXPIRED


@kernel
def check_bounds(book: Book, sheet: int, start_ms: int, end_ms: int, energy_before_mwh: int, energy_mwh: int) -> bool:
    """Whether `rate_interval` can rate this interval without leaving int64 (it checks the same itself)."""
    return _in_bounds(book, sheet, start_ms, end_ms, energy_before_mwh, energy_mwh)


@inlined
def _next_mark(marks: Marks, mark: int, last: int, now: int) -> int:
    """The last mark at or before now."""
    while mark + 1 < last and marks.start_ms[mark + 1] <= now:
        mark += 1
    return mark


@inlined
def _next_threshold(book: Book, at: int, end: int, reached: int) -> int:
    """The first of the thresholds [at, end) that is not reached yet."""
    while at < end and book.thresholds[uint64(at)] <= reached:
        at += 1
    return at


@inlined
def _reached(book: Book, at: int, end: int, value: int) -> int:
    """How many of the thresholds [at, end) a value reaches. All are compared: where power stops can't be guessed."""
    count = 0
    for row in range(at, end):
        count += book.thresholds[uint64(row)] <= value
    return count


@inlined
def _cell(book: Book, sheet: int, flip: int, kwh: int, duration: int, power_mw: int, current_ma: int) -> int:
    """The cell of the pattern that holds, between the thresholds that are reached and those that are not."""
    sheets = book.sheets
    cell: int = sheets[sheet, CELLS_AT] + sheets[sheet, CELLS] * book.flip_pattern[uint64(flip)]
    cell += kwh - sheets[sheet, KWH_AT] + (duration - sheets[sheet, DURATION_AT]) * sheets[sheet, DURATION_STEP]
    power_at, current_at, end = sheets[sheet, DURATION_END], sheets[sheet, POWER_END], sheets[sheet, CURRENT_END]
    if power_at < end:
        cell += _reached(book, power_at, current_at, power_mw) * sheets[sheet, POWER_STEP]
        cell += _reached(book, current_at, end, current_ma) * sheets[sheet, CURRENT_STEP]
    return cell


@inlined
def _components(
    book: Book, sheet: int, flip: int, marks: Marks, mark: int, kwh: int, duration: int, so_far_mwh: int, lasted_ms: int
) -> tuple[int, int, int]:
    """What prices energy and time now, and what could not be checked (MISSING_* bits): of the cell, or searched."""
    row = uint64(mark)
    state = marks.state[row]
    if state > PARKING or book.sheets[sheet, CELLS] == 0 or lasted_ms < 0:
        return _searched(book, sheet, flip, marks, mark, so_far_mwh, lasted_ms)
    cell = uint64(_cell(book, sheet, flip, kwh, duration, marks.power_mw[row], marks.current_ma[row]))
    energy, time = book.cells[cell, SLOT_ENERGY], book.cells[cell, uint64(SLOT_TIME + state)]
    return energy >> MISSING_BITS, time >> MISSING_BITS, (energy | time) & (MISSING_POWER | MISSING_CURRENT)


@part
def _searched(
    book: Book, sheet: int, flip: int, marks: Marks, mark: int, so_far_mwh: int, lasted_ms: int
) -> tuple[int, int, int]:
    """The same by a search of the sheet's elements: of reservations, and where cells would be too many."""
    row = uint64(mark)
    energy_slot, time_slot = _slots(marks.state[row])
    pattern = book.sheets[sheet, PATTERNS_AT] + book.flip_pattern[uint64(flip)]
    current, power = marks.current_ma[row], marks.power_mw[row]
    if energy_slot < 0:  # a reservation: no energy, and its time is not the session's
        component, missing = _select(book, pattern, time_slot, 0, current, power, 0)
        return FREE, component, missing
    energy, missing = _select(book, pattern, energy_slot, so_far_mwh, current, power, lasted_ms)
    time, more = _select(book, pattern, time_slot, so_far_mwh, current, power, lasted_ms)
    return energy, time, missing | more


@inlined
def _until(
    book: Book, marks: Marks, mark: int, last_mark: int, flip: int, last_flip: int, lasts_until: int, end_ms: int
) -> tuple[int, int]:
    """Until when that holds: the next mark, flip or duration threshold, or the end; and why."""
    until, reason = end_ms, SPLIT_READING
    if mark + 1 < last_mark and marks.start_ms[mark + 1] < until:
        until, reason = marks.start_ms[mark + 1], _mark_split(marks, mark, mark + 1)
    if flip + 1 < last_flip and book.flips[uint64(flip + 1)] < until:
        until, reason = book.flips[uint64(flip + 1)], SPLIT_TIME
    if lasts_until < until:
        until, reason = lasts_until, SPLIT_DURATION
    return until, reason


@inlined
def _write(
    pieces: Pieces, first: int, at: int, tag: int, now: int, until: int, energy_mwh: int, state: int, split: int,
    energy_component: int, time_component: int, missing: int,
) -> int:  # fmt: skip
    """Write a piece, or lengthen the one before; the row after it, or NO_ROOM."""
    last = at - 1
    if (
        at > first
        and pieces.state[last] == state
        and pieces.energy_component[last] == energy_component
        and pieces.time_component[last] == time_component
        and pieces.missing[last] == missing
    ):
        pieces.end_ms[last] = until
        pieces.energy_mwh[last] += energy_mwh
        return at
    if at >= len(pieces.start_ms):
        return NO_ROOM
    row = uint64(at)
    pieces.tag[row], pieces.start_ms[row], pieces.end_ms[row] = tag, now, until
    pieces.state[row], pieces.split[row], pieces.apportioned[row] = state, split, 0
    pieces.energy_mwh[row], pieces.missing[row] = energy_mwh, missing
    pieces.energy_component[row], pieces.time_component[row] = energy_component, time_component
    return at + 1


@part
def _cut(
    book: Book, sheet: int, tag: int, session_start_ms: int, energy_before_mwh: int, marks: Marks, first_mark: int,
    n_marks: int, start_ms: int, end_ms: int, energy_mwh: int, pieces: Pieces, at: int,
) -> int:  # fmt: skip
    """`rate_interval` of an interval that may be several pieces; what it looks up is looked up again here."""
    last_mark, last_flip = first_mark + n_marks, book.sheets[sheet, FLIPS_END]
    mark = _next_mark(marks, first_mark, last_mark, start_ms)
    curve, elapsed = _curve_length(marks, mark, last_mark, start_ms, end_ms)
    flip = flip_at(book, sheet, start_ms)
    last_kwh, last_duration = book.sheets[sheet, KWH_END], book.sheets[sheet, DURATION_END]
    kwh = _next_threshold(book, book.sheets[sheet, KWH_AT], last_kwh, energy_before_mwh)
    duration = _next_threshold(book, book.sheets[sheet, DURATION_AT], last_duration, start_ms - session_start_ms)

    first = at
    now, used, passed, split = start_ms, 0, 0, SPLIT_READING  # passed = a(now), used = energy of the curve so far
    while now < end_ms or used < energy_mwh:
        # 1. What holds from now on. Behind a kWh cut the rest of the ms is priced by the duration before it.
        lasts_until = session_start_ms + book.thresholds[duration] if duration < last_duration else _FAR
        lasted = now - session_start_ms if now < lasts_until else lasts_until - 1 - session_start_ms
        energy_component, time_component, missing = _components(
            book, sheet, flip, marks, mark, kwh, duration, energy_before_mwh + used, lasted
        )
        # 2. Until when, and how far the curve gets until then: to its end, or so far as what charged by then says.
        until, reason = _until(book, marks, mark, last_mark, flip, last_flip, lasts_until, end_ms)
        step = until - now if elapsed or marks.state[mark] == CHARGING else 0
        reached = energy_mwh * (passed + step) // curve if until < end_ms and energy_mwh > 0 else energy_mwh
        # 3. But no further than the next kWh threshold: there, at the first ms that reaches it, exactly it.
        if kwh < last_kwh and book.thresholds[kwh] - energy_before_mwh <= reached:
            reached = book.thresholds[kwh] - energy_before_mwh
            step = -(-reached * curve // energy_mwh) - passed
            until, reason = now + step, SPLIT_KWH
            kwh += 1
        if until > now or reached > used:
            at = _write(
                pieces, first, at, tag, now, until, reached - used, marks.state[mark], split,
                energy_component, time_component, missing,
            )  # fmt: skip
            if at < 0:
                return at
        # 4. Move there. What the curve brought beyond a threshold by then flowed before: nothing else changes yet.
        now, used, passed, split = until, reached, passed + step, reason
        if reason != SPLIT_KWH:
            mark = _next_mark(marks, mark, last_mark, now)
            while flip + 1 < last_flip and book.flips[flip + 1] <= now:
                flip += 1
            duration = _next_threshold(book, duration, last_duration, now - session_start_ms)

    if at - first > 1:
        pieces.apportioned[first:at] = 1
    return at


@inlined
def rate_interval(
    book: Book, sheet: int, tag: int, session_start_ms: int, energy_before_mwh: int, marks: Marks, first_mark: int,
    n_marks: int, start_ms: int, end_ms: int, energy_mwh: int, pieces: Pieces, at: int,
) -> int:  # fmt: skip
    """Cut [start, end) of a session into pieces, from row `at` on; returns the row after the last.

    `energy_before_mwh` is the session's energy at `start_ms`, `energy_mwh` what the interval adds.
    `marks[first_mark : first_mark + n_marks]`, ascending, say what holds; the first covers `start_ms`.
    `session_start_ms` is where duration counts from (the charging session; a reservation before it has none).
    Neighbouring pieces of equal state and components are one piece. An interval of zero length may carry energy.
    Returns NO_ROOM, NOT_COVERED or OUT_OF_BOUNDS instead, with nothing to be kept from `pieces`.
    """
    sheets = book.sheets
    if start_ms < sheets[sheet, FROM_MS] or end_ms > sheets[sheet, UNTIL_MS]:
        return NOT_COVERED
    if not _in_bounds(book, sheet, start_ms, end_ms, energy_before_mwh, energy_mwh):
        return OUT_OF_BOUNDS
    # One piece, as most are: the loop of `_cut` would end where it begins. Only this much is inlined.
    last_mark, last_flip = first_mark + n_marks, sheets[sheet, FLIPS_END]
    mark = _next_mark(marks, first_mark, last_mark, start_ms)
    flip = flip_at(book, sheet, start_ms)
    kwh = _next_threshold(book, sheets[sheet, KWH_AT], sheets[sheet, KWH_END], energy_before_mwh)
    elapsed = start_ms - session_start_ms
    duration = _next_threshold(book, sheets[sheet, DURATION_AT], sheets[sheet, DURATION_END], elapsed)
    lasts_until = (
        session_start_ms + book.thresholds[uint64(duration)] if duration < sheets[sheet, DURATION_END] else _FAR
    )
    until, _ = _until(book, marks, mark, last_mark, flip, last_flip, lasts_until, end_ms)
    below = kwh == sheets[sheet, KWH_END] or book.thresholds[uint64(kwh)] - energy_before_mwh > energy_mwh
    if until < end_ms or not below:
        return _cut(
            book, sheet, tag, session_start_ms, energy_before_mwh, marks, first_mark, n_marks, start_ms, end_ms,
            energy_mwh, pieces, at,
        )  # fmt: skip
    if start_ms == end_ms and energy_mwh == 0:
        return at
    energy_component, time_component, missing = _components(
        book, sheet, flip, marks, mark, kwh, duration, energy_before_mwh, elapsed
    )
    return _write(
        pieces, at, at, tag, start_ms, end_ms, energy_mwh, marks.state[uint64(mark)], SPLIT_READING, energy_component,
        time_component, missing,
    )  # fmt: skip


@kernel
def flat_component(book: Book, sheet: int, slot: int, instant_ms: int, power_mw: int, current_ma: int) -> int:
    """The FLAT component that a session owes at its start: SLOT_FLAT, SLOT_RESERVATION_FLAT or SLOT_EXPIRED_FLAT.

    Several may match: the first at the start counts, once per session (energy 0, duration 0). FREE = none,
    NOT_COVERED = extend the book and ask again.
    """
    if instant_ms < book.sheets[sheet, FROM_MS] or instant_ms >= book.sheets[sheet, UNTIL_MS]:
        return NOT_COVERED
    flip = flip_at(book, sheet, instant_ms)
    pattern = book.sheets[sheet, PATTERNS_AT] + book.flip_pattern[flip]
    component, _ = _select(book, pattern, slot, 0, current_ma, power_mw, 0)
    return component


__all__ = ["NOT_COVERED", "NO_ROOM", "OUT_OF_BOUNDS", "SLOT_FLAT", "check_bounds", "flat_component", "rate_interval"]

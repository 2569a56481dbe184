"""Settlement: the pieces of ended (or still open) sessions become totals, one row a session, exactly.

    Σ cost of rated pieces and flats + STEP + MIN_PRICE + MAX_PRICE + ROUNDING = the CDR's total

in the tariff's own sense: exclusive of tax, or inclusive where `tax_included` is YES. Every amount is kept in
cost units (rating.money); taxes and scaled limits go through 128 bits and more (rating.wide).
OCPI: mod_cdrs "step_size", mod_tariffs Tariff `min_price`, `max_price`, `tax_included`, PriceComponent `vat`.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy import uint64

from rating import wide
from rating.columns import CHARGING, FREE, I8, I32, I64, PARKING, Pieces
from rating.jit import inlined, kernel
from rating.money import COST_PER_E4, ENERGY_COST, TIME_COST
from rating.ratesheet import (
    DENOMINATOR,
    ENERGY_MAX_MWH,
    MAX_EXCL,
    MAX_INCL,
    MIN_EXCL,
    MIN_INCL,
    NO_AMOUNT,
    PRICE_E4,
    RATE,
    RATE_EXCL,
    RATE_INCL,
    RATES_AT,
    RATES_END,
    RATES_MAX,
    ROUND_TO,
    STEP,
    STEPS_COUNT,
    TAX_MODE,
    TIME_MAX_MS,
    Book,
)
from rating.tariff import TAX_INCLUDED, TAX_NONE

# Quantities (columns of metered, priced, step...): ENERGY in mWh, the others in ms.
Q_ENERGY: Final = 0
Q_TIME: Final = 1
Q_PARKING: Final = 2
Q_RESERVATION: Final = 3
QUANTITIES: Final = 4

# Categories of cost, as OCPI's CDR totals: the four quantities and FLAT. Flats of a reservation are RESERVATION.
C_FLAT: Final = 4
CATEGORIES: Final = 5

SETTLED: Final = 0
BEYOND_BOUNDS: Final = 1

# Notes: what a person who checks the bill should know.
NOTE_STEP: Final = 1 << 0  # a step_size rounded a quantity up
NOTE_MIN_PRICE: Final = 1 << 1
NOTE_MAX_PRICE: Final = 1 << 2
NOTE_TAX_SCALED: Final = 1 << 3  # a limit moved the total excl. tax, and the tax in proportion
NOTE_EXCL_LOWERED: Final = 1 << 4  # the limit incl. tax lies below the total excl. tax, which was lowered to it
NOTE_MISSING_POWER: Final = 1 << 5  # a restriction on power did not match because no power was measured
NOTE_MISSING_CURRENT: Final = 1 << 6
NOTE_ENERGY_FREE: Final = 1 << 7  # energy that no component prices
NOTE_APPORTIONED: Final = 1 << 8  # a price changed inside a metered interval: energy by the linear curve
NOTE_CODES: Final = (
    "step_size_applied",
    "min_price_applied",
    "max_price_applied",
    "tax_scaled_with_limit",
    "excl_lowered_to_incl_limit",
    "power_not_measured",
    "current_not_measured",
    "energy_free",
    "apportioned",
)


class Sessions(NamedTuple):
    """Which pieces belong to which session, one row a session; pieces of a session are adjacent and in time order."""

    sheet: I32
    first_piece: I64
    n_pieces: I64
    flat: I32  # component, or FREE; see kernel.flat_component
    reservation_flat: I32
    expired_flat: I32


class Settled(NamedTuple):
    """What settlement says of each session. Costs in cost units, amounts `_e4` in 1e-4 of the currency."""

    status: I8  # SETTLED, or BEYOND_BOUNDS: then all else is 0
    metered: I64  # [session, QUANTITIES] energy, charging, parking, reservation time
    priced: I64  # [session, QUANTITIES] the part of it that a component prices
    step: I64  # [session, QUANTITIES] what step_size adds to it
    step_component: I32  # [session, QUANTITIES] at whose price; FREE where nothing was added
    step_cost: I64  # [session, QUANTITIES]
    cost: I64  # [session, CATEGORIES] exact, with its step, in the tariff's own sense
    rated_cost: I64  # Σ of pieces and flats: what rated usage shows before settlement
    min_cost: I64  # row MIN_PRICE, >= 0
    max_cost: I64  # row MAX_PRICE, <= 0
    rounding_cost: I64  # row ROUNDING
    total_excl_e4: I64
    total_incl_e4: I64
    excl_e4: I64  # [session, CATEGORIES], each rounded to 4 decimals
    incl_e4: I64
    tax_e4: I64  # [session, RATES_MAX] tax line per rate of the sheet; they sum to total incl - excl
    notes: npt.NDArray[np.uint32]


def settle(book: Book, sessions: Sessions, pieces: Pieces) -> Settled:
    """Settle sessions; the policy (steps, rounding) is compiled into their sheets."""
    count = len(sessions.sheet)
    settled = empty_settled(count)
    _settle(book, sessions, pieces, settled, np.zeros((CATEGORIES, RATES_MAX), np.int64))
    return settled


def empty_settled(count: int) -> Settled:
    """Zeroed columns for `count` sessions."""
    wide_shape, category_shape = (count, QUANTITIES), (count, CATEGORIES)
    return Settled(
        status=np.zeros(count, np.int8),
        metered=np.zeros(wide_shape, np.int64),
        priced=np.zeros(wide_shape, np.int64),
        step=np.zeros(wide_shape, np.int64),
        step_component=np.full(wide_shape, FREE, np.int32),
        step_cost=np.zeros(wide_shape, np.int64),
        cost=np.zeros(category_shape, np.int64),
        rated_cost=np.zeros(count, np.int64),
        min_cost=np.zeros(count, np.int64),
        max_cost=np.zeros(count, np.int64),
        rounding_cost=np.zeros(count, np.int64),
        total_excl_e4=np.zeros(count, np.int64),
        total_incl_e4=np.zeros(count, np.int64),
        excl_e4=np.zeros(category_shape, np.int64),
        incl_e4=np.zeros(category_shape, np.int64),
        tax_e4=np.zeros((count, RATES_MAX), np.int64),
        notes=np.zeros(count, np.uint32),
    )


def note_codes(notes: int) -> list[str]:
    """The codes of a bit set of notes."""
    return [code for bit, code in enumerate(NOTE_CODES) if notes >> bit & 1]


@inlined
def _round(cost: int, step: int) -> int:
    """Half away from zero to a multiple of `step` (even)."""
    if cost < 0:
        return -((-cost + step // 2) // step * step)
    return (cost + step // 2) // step * step


@inlined
def _price_cost(book: Book, component: int, quantity: int, kind: int) -> int:
    """Cost of a quantity (mWh or ms) at a component's price."""
    return int(quantity * book.components[component, PRICE_E4] * (ENERGY_COST if kind == Q_ENERGY else TIME_COST))


@inlined
def _book_cost(book: Book, sheet: int, component: int, category: int, cost: int, by_rate: I64) -> None:
    by_rate[category, book.components[component, RATE] - book.sheets[sheet, RATES_AT]] += cost


@kernel
def _collect(book: Book, sessions: Sessions, pieces: Pieces, at: int, out: Settled, by_rate: I64) -> int:
    """Sum the pieces of a session; leaves in `step_component` the last priced component of each quantity."""
    sheet = sessions.sheet[at]
    notes = 0
    for piece in range(sessions.first_piece[at], sessions.first_piece[at] + sessions.n_pieces[at]):
        state = pieces.state[piece]
        kind = Q_TIME if state == CHARGING else (Q_PARKING if state == PARKING else Q_RESERVATION)
        energy, length = pieces.energy_mwh[piece], pieces.end_ms[piece] - pieces.start_ms[piece]
        out.metered[at, Q_ENERGY] += energy
        out.metered[at, kind] += length
        if out.metered[at, Q_ENERGY] > book.sheets[sheet, ENERGY_MAX_MWH]:
            return -1
        if out.metered[at, kind] > book.sheets[sheet, TIME_MAX_MS] // 4:
            return -1
        component = pieces.energy_component[piece]
        if component == FREE and energy > 0:
            notes |= NOTE_ENERGY_FREE
        if component != FREE and energy > 0:
            out.priced[at, Q_ENERGY] += energy
            out.step_component[at, Q_ENERGY] = component
            cost = _price_cost(book, component, energy, Q_ENERGY)
            out.cost[at, Q_ENERGY] += cost
            _book_cost(book, sheet, component, Q_ENERGY, cost, by_rate)
        component = pieces.time_component[piece]
        if component != FREE and length > 0:
            out.priced[at, kind] += length
            out.step_component[at, kind] = component
            cost = _price_cost(book, component, length, kind)
            out.cost[at, kind] += cost
            _book_cost(book, sheet, component, kind, cost, by_rate)
        notes |= (pieces.missing[piece] & 3) * NOTE_MISSING_POWER
        if pieces.apportioned[piece]:
            notes |= NOTE_APPORTIONED
    return notes


@inlined
def _flats(book: Book, sessions: Sessions, at: int, out: Settled, by_rate: I64) -> None:
    """FLAT once per session; a reservation's own FLATs count as reservation cost."""
    sheet = sessions.sheet[at]
    for which in range(3):
        component = sessions.flat[at]
        category = C_FLAT
        if which == 1:
            component, category = sessions.reservation_flat[at], Q_RESERVATION
        elif which == 2:
            component, category = sessions.expired_flat[at], Q_RESERVATION
        if component != FREE:
            cost = book.components[component, PRICE_E4] * COST_PER_E4
            out.cost[at, category] += cost
            _book_cost(book, sheet, component, category, cost, by_rate)


@kernel
def _steps(book: Book, sheet: int, at: int, out: Settled, by_rate: I64) -> int:
    """Round quantities up to steps (mod_cdrs, step_size): once for ENERGY, once for TIME and PARKING_TIME together.

    "In the cases that TIME and PARKING_TIME Tariff Elements are both used, step_size is only taken into
    account for the total parking duration." The base is the session's total; the step is that of the last
    relevant component, and the excess is billed at its price. Returns notes, or -1 beyond bounds.
    """
    notes = 0
    for kind in range(QUANTITIES):
        component = out.step_component[at, kind]
        out.step_component[at, kind] = FREE
        if component == FREE or book.sheets[sheet, STEPS_COUNT] == 0:
            continue
        if kind == Q_TIME and out.priced[at, Q_PARKING] > 0:
            continue
        step = book.components[component, STEP]
        over = out.priced[at, kind] % step if step > 0 else 0
        if over == 0:
            continue
        excess = step - over
        limit = book.sheets[sheet, ENERGY_MAX_MWH] if kind == Q_ENERGY else book.sheets[sheet, TIME_MAX_MS] // 4
        if out.priced[at, kind] + excess > limit:
            return -1
        cost = _price_cost(book, component, excess, kind)
        out.step[at, kind] = excess
        out.step_component[at, kind] = component
        out.step_cost[at, kind] = cost
        out.cost[at, kind] += cost
        _book_cost(book, sheet, component, kind, cost, by_rate)
        notes |= NOTE_STEP
    return notes


@inlined
def _weighted(book: Book, sheet: int, by_rate: I64, category: int, side: int) -> tuple[uint64, uint64]:
    """Σ over rates of cost × factor, in two's complement over 128 bits; divide by the sheet's DENOMINATOR."""
    low, high = wide.ZERO, wide.ZERO
    first = book.sheets[sheet, RATES_AT]
    for rate in range(book.sheets[sheet, RATES_END] - first):
        if by_rate[category, rate] != 0:
            more_low, more_high = wide.signed_product(by_rate[category, rate], book.rates[first + rate, side])
            low, high = wide.add(low, high, more_low, more_high)
    return low, high


@inlined
def _clamp(value: int, low: int, high: int) -> int:
    if low != NO_AMOUNT and value < low:
        value = low
    if high != NO_AMOUNT and value > high:
        value = high
    return value


@inlined
def _scaled_incl(excl_low: uint64, excl_high: uint64, incl_low: uint64, incl_high: uint64, limited: int) -> int:
    """The total with tax after a limit moved the total without: tax scaled in proportion (policy, README)."""
    if wide.is_negative(excl_high) or (excl_low == wide.ZERO and excl_high == wide.ZERO):
        return limited
    return wide.quotient(incl_low, incl_high, uint64(limited), excl_low, excl_high)


@kernel
def _tax_lines(book: Book, sheet: int, at: int, out: Settled, by_rate: I64, tax: int) -> None:
    """Share the tax among the rates in proportion to what each would bring; the greatest takes what rounding leaves."""
    first = book.sheets[sheet, RATES_AT]
    count = book.sheets[sheet, RATES_END] - first
    denominator, step = book.sheets[sheet, DENOMINATOR], book.sheets[sheet, ROUND_TO]
    total, greatest, of_greatest, negative = 0, 0, -1, tax < 0
    for rate in range(count):
        cost = 0
        for category in range(CATEGORIES):
            cost += by_rate[category, rate]
        low, high = wide.signed_product(cost, book.rates[first + rate, RATE_INCL] - book.rates[first + rate, RATE_EXCL])
        share = wide.divided(low, high, denominator)
        negative = negative or share < 0
        by_rate[0, rate] = share  # the costs are not needed any more
        total += share
        if abs(share) > of_greatest:
            greatest, of_greatest = rate, abs(share)
    rest = tax
    if total > 0 and not negative:
        for rate in range(count):
            low, high = wide.multiply(uint64(tax), uint64(by_rate[0, rate]))
            line = wide.quotient(low, high, wide.ONE, uint64(total), wide.ZERO) // step * step
            out.tax_e4[at, rate] = line // COST_PER_E4
            rest -= line
    out.tax_e4[at, greatest] += rest // COST_PER_E4


@kernel
def _totals(book: Book, sheet: int, at: int, out: Settled, by_rate: I64) -> int:
    """Taxes, limits and rounding of one session; returns notes, or -1 beyond bounds."""
    denominator, mode = book.sheets[sheet, DENOMINATOR], book.sheets[sheet, TAX_MODE]
    excl_low, excl_high, incl_low, incl_high = wide.ZERO, wide.ZERO, wide.ZERO, wide.ZERO
    for category in range(CATEGORIES):
        low, high = _weighted(book, sheet, by_rate, category, RATE_EXCL)
        excl_low, excl_high = wide.add(excl_low, excl_high, low, high)
        part_excl = wide.divided(low, high, denominator)
        low, high = _weighted(book, sheet, by_rate, category, RATE_INCL)
        incl_low, incl_high = wide.add(incl_low, incl_high, low, high)
        part_incl = wide.divided(low, high, denominator)
        if part_excl == wide.TOO_WIDE or part_incl == wide.TOO_WIDE:
            return -1
        out.excl_e4[at, category] = _round(part_excl, COST_PER_E4) // COST_PER_E4
        out.incl_e4[at, category] = _round(part_incl, COST_PER_E4) // COST_PER_E4
    excl, incl = wide.divided(excl_low, excl_high, denominator), wide.divided(incl_low, incl_high, denominator)
    if excl == wide.TOO_WIDE or incl == wide.TOO_WIDE:
        return -1
    before = incl if mode == TAX_INCLUDED else excl

    notes = 0
    limited = _clamp(excl, book.sheets[sheet, MIN_EXCL], book.sheets[sheet, MAX_EXCL])
    if limited != excl:
        incl = _scaled_incl(excl_low, excl_high, incl_low, incl_high, limited)
        if incl == wide.TOO_WIDE:
            return -1
        excl = limited
        notes |= NOTE_TAX_SCALED
    if mode != TAX_NONE:
        limited = _clamp(incl, book.sheets[sheet, MIN_INCL], book.sheets[sheet, MAX_INCL])
        if limited < incl and limited < excl:
            excl = limited
            notes |= NOTE_EXCL_LOWERED
        incl = limited

    after = incl if mode == TAX_INCLUDED else excl
    if after > before:
        out.min_cost[at] = after - before
    else:
        out.max_cost[at] = after - before
    step = book.sheets[sheet, ROUND_TO]
    rounded_excl, rounded_incl = _round(excl, step), _round(incl, step)
    out.rounding_cost[at] = (rounded_incl if mode == TAX_INCLUDED else rounded_excl) - after
    out.total_excl_e4[at] = rounded_excl // COST_PER_E4
    out.total_incl_e4[at] = rounded_incl // COST_PER_E4
    _tax_lines(book, sheet, at, out, by_rate, rounded_incl - rounded_excl)
    if after > before:
        notes |= NOTE_MIN_PRICE
    elif after < before:
        notes |= NOTE_MAX_PRICE
    return notes


@inlined
def _refuse(at: int, out: Settled) -> None:
    out.status[at] = BEYOND_BOUNDS
    out.metered[at, :] = 0
    out.priced[at, :] = 0
    out.step[at, :] = 0
    out.step_component[at, :] = FREE
    out.step_cost[at, :] = 0
    out.cost[at, :] = 0
    out.excl_e4[at, :] = 0
    out.incl_e4[at, :] = 0
    out.rated_cost[at] = 0


@kernel
def _settle(book: Book, sessions: Sessions, pieces: Pieces, out: Settled, by_rate: I64) -> None:
    for at in range(len(sessions.sheet)):
        sheet = sessions.sheet[at]
        by_rate[:, :] = 0
        notes = _collect(book, sessions, pieces, at, out, by_rate)
        if notes < 0:
            _refuse(at, out)
            continue
        _flats(book, sessions, at, out, by_rate)
        for category in range(CATEGORIES):
            out.rated_cost[at] += out.cost[at, category]
        stepped = _steps(book, sheet, at, out, by_rate)
        limited = _totals(book, sheet, at, out, by_rate) if stepped >= 0 else -1
        if limited < 0:
            _refuse(at, out)
            continue
        out.notes[at] = notes | stepped | limited

"""Compiled reading of meterValue lists in their plain form: one entry, one context, at the outlet, not signed.

What `lines` and `meter_values` do for any input is done here for that form; anything else gives FAILED.
"""

import numba
import numpy as np
import numpy.typing as npt

from pipeline.codec import slots
from pipeline.codec import vocabulary as words
from pipeline.codec.bytescan import (
    CLOSE,
    CLOSE_LIST,
    COMMA,
    FAILED,
    OPEN,
    OPEN_LIST,
    QUOTE,
    Bytes,
    after_colon,
    blanks_end,
    instant_at,
    load1,
    number_at,
    string_end,
)
from pipeline.codec.kernels import is_all_ones
from pipeline.codec.numbers import MAX_CURRENT_MA, MAX_ENERGY_MWH, MAX_POWER_MW
from pipeline.codec.wordtable import (
    ABSENT,
    CONTEXT_OF,
    PHASE_OF,
    PLACE_OF,
    PLACES_OF,
    QUANTITY_OF,
    UNKNOWN,
    number_of,
    word_at,
)
from pipeline.metering.columns import ABSENT_I64

Facts = npt.NDArray[np.int64]

_VALUE, _CONTEXT, _FORMAT = number_of("value"), number_of("context"), number_of("format")
_MEASURAND, _PHASE, _LOCATION = number_of("measurand"), number_of("phase"), number_of("location")
_UNIT, _UNIT_OF_MEASURE, _MULTIPLIER = number_of("unit"), number_of("unitOfMeasure"), number_of("multiplier")
_TIMESTAMP, _SAMPLED, _RAW = number_of("timestamp"), number_of("sampledValue"), number_of("Raw")

_LIMITS = np.array([MAX_ENERGY_MWH, MAX_ENERGY_MWH, MAX_POWER_MW, MAX_CURRENT_MA, 1000], np.int64)
_POWERS_OF_TEN = np.array([10**power for power in range(19)], np.int64)


@numba.njit(nogil=True, cache=True)
def scaled_amount(quantity: int, number: int, shift: int) -> int:
    """Floor of number * 10^shift; FAILED beyond the quantity's limit and for registers of all ones."""
    if shift < 0:
        amount = number // _POWERS_OF_TEN[-shift] if shift >= -18 else 0
    elif shift > 18 or number > _LIMITS[quantity] // _POWERS_OF_TEN[shift]:
        return 0 if number == 0 else FAILED
    else:
        amount = number * _POWERS_OF_TEN[shift]
    if amount > _LIMITS[quantity] or (quantity <= words.INTERVAL and is_all_ones(amount)):
        return FAILED
    return amount


@numba.njit(nogil=True, cache=True)
def number_member(buffer: Bytes, at: int, facts: Facts) -> int:
    """A number, bare or as a string, into NUMBER, DECIMALS and QUOTED; the position behind it."""
    quoted: bool = load1(buffer, at) == QUOTE
    end, number, decimals = number_at(buffer, at + quoted, quoted)
    if end == FAILED or (quoted and load1(buffer, end) != QUOTE):
        return FAILED
    facts[slots.NUMBER], facts[slots.DECIMALS], facts[slots.QUOTED] = number, decimals, quoted
    return end + quoted


@numba.njit(nogil=True, cache=True)
def word_member(buffer: Bytes, at: int, facts: Facts, slot: int) -> int:
    """A string that is not empty, as a word number, into `slot`; the position behind it."""
    if load1(buffer, at) != QUOTE:
        return FAILED
    end = string_end(buffer, at + 1)
    if end <= at + 1:
        return FAILED
    facts[slot] = word_at(buffer, at + 1, end - at - 1)
    return end + 1


@numba.njit(nogil=True, cache=True)
def member_name(buffer: Bytes, at: int) -> tuple[int, int]:
    """The word number of the member's name at `at`, and where its value starts (FAILED where it has none)."""
    if load1(buffer, at) != QUOTE:
        return UNKNOWN, FAILED
    end = string_end(buffer, at + 1)
    if end == FAILED:
        return UNKNOWN, FAILED
    return word_at(buffer, at + 1, end - at - 1), after_colon(buffer, end + 1)


@numba.njit(nogil=True, cache=True)
def next_member(buffer: Bytes, at: int, closing: int) -> tuple[bool, int]:
    """Behind a value: whether another one follows, and where; (False, behind the bracket) at the end of the object."""
    at = blanks_end(buffer, at)
    byte = load1(buffer, at)
    if byte == COMMA:
        return True, blanks_end(buffer, at + 1)
    return False, at + 1 if byte == closing else FAILED


@numba.njit(nogil=True, cache=True)
def seen_twice(facts: Facts, slot: int, name: int) -> bool:
    """Marks a member as seen; True when it was seen before in the same object."""
    bit = np.int64(1) << np.int64(name & 63)
    twice: bool = facts[slot] & bit != 0
    facts[slot] |= bit
    return twice


@numba.njit(nogil=True, cache=True)
def _unit_of_measure(buffer: Bytes, at: int, facts: Facts) -> int:
    if load1(buffer, at) != OPEN:
        return FAILED
    at = blanks_end(buffer, at + 1)
    more = True
    while more:
        name, at = member_name(buffer, at)
        if at == FAILED or seen_twice(facts, slots.VALUE, name):
            return FAILED
        if name == _UNIT:
            at = word_member(buffer, at, facts, slots.UNIT)
        elif name == _MULTIPLIER:
            end, facts[slots.MULTIPLIER], decimals = number_at(buffer, at, False)
            at = end if decimals == 0 and facts[slots.MULTIPLIER] <= 30 else FAILED
        else:
            at = FAILED
        if at == FAILED:
            return FAILED
        more, at = next_member(buffer, at, CLOSE)
    return at


@numba.njit(nogil=True, cache=True)
def _value_member(buffer: Bytes, name: int, at: int, facts: Facts) -> int:
    if seen_twice(facts, slots.VALUE, name):
        return FAILED
    if name == _VALUE:
        return number_member(buffer, at, facts)
    if name == _MEASURAND:
        return word_member(buffer, at, facts, slots.MEASURAND)
    if name == _UNIT:
        return word_member(buffer, at, facts, slots.UNIT)
    if name == _CONTEXT:
        return word_member(buffer, at, facts, slots.CONTEXT)
    if name == _PHASE:
        return word_member(buffer, at, facts, slots.PHASE)
    if name == _LOCATION:
        return word_member(buffer, at, facts, slots.LOCATION)
    if name == _FORMAT:
        at = word_member(buffer, at, facts, slots.FORMAT)
        return at if facts[slots.FORMAT] == _RAW else FAILED
    if name == _UNIT_OF_MEASURE:
        return _unit_of_measure(buffer, at, facts)
    return FAILED


@numba.njit(nogil=True, cache=True)
def _sampled_value(buffer: Bytes, at: int, facts: Facts, quoted: bool) -> int:
    if load1(buffer, at) != OPEN:
        return FAILED
    facts[slots.VALUE] = 0
    facts[slots.MEASURAND : slots.MULTIPLIER] = ABSENT
    facts[slots.MULTIPLIER] = 0
    facts[slots.NUMBER] = FAILED
    at = blanks_end(buffer, at + 1)
    more = True
    while more:
        name, at = member_name(buffer, at)
        if at == FAILED:
            return FAILED
        at = _value_member(buffer, name, at, facts)
        if at == FAILED:
            return FAILED
        more, at = next_member(buffer, at, CLOSE)
    return at if facts[slots.NUMBER] != FAILED and _take_value(facts, quoted) else FAILED


@numba.njit(nogil=True, cache=True)
def _take_value(facts: Facts, quoted: bool) -> bool:
    """Puts the sampled value at hand among the entry's amounts; False where it takes the twin to do so."""
    quantity = QUANTITY_OF[facts[slots.MEASURAND]]
    phase = PHASE_OF[facts[slots.PHASE]]
    if quantity == UNKNOWN or phase == UNKNOWN:
        return True
    if quantity == words.SOC:
        if phase != 0:
            return False
    elif PLACE_OF[facts[slots.LOCATION]] != words.OUTLET:
        return False
    context = CONTEXT_OF[facts[slots.CONTEXT]]
    if facts[slots.LINE_CONTEXT] != FAILED and facts[slots.LINE_CONTEXT] != context:
        return False
    facts[slots.LINE_CONTEXT] = context
    places = PLACES_OF[quantity, facts[slots.UNIT]]
    slot = slots.AMOUNTS + 4 * quantity + phase
    if places == ABSENT or facts[slots.QUOTED] != quoted or facts[slot] != ABSENT_I64:
        return False
    if facts[slots.UNIT] == ABSENT and quantity <= words.INTERVAL:
        facts[slots.UNIT_DEFAULTED] = 1
    shift = places + facts[slots.MULTIPLIER] - facts[slots.DECIMALS]
    amount = scaled_amount(quantity, facts[slots.NUMBER], shift)
    facts[slot] = amount
    return amount != FAILED


@numba.njit(nogil=True, cache=True)
def _sampled_values(buffer: Bytes, at: int, facts: Facts, quoted: bool) -> int:
    if load1(buffer, at) != OPEN_LIST:
        return FAILED
    at = blanks_end(buffer, at + 1)
    more = True
    while more:
        at = _sampled_value(buffer, at, facts, quoted)
        if at == FAILED:
            return FAILED
        more, at = next_member(buffer, at, CLOSE_LIST)
    return at


@numba.njit(nogil=True, cache=True)
def meter_values(buffer: Bytes, at: int, facts: Facts, quoted: bool) -> int:
    """A meterValue list of exactly one entry into ENTRY_MS and AMOUNTS; the position behind it."""
    if load1(buffer, at) != OPEN_LIST:
        return FAILED
    at = blanks_end(buffer, at + 1)
    if load1(buffer, at) != OPEN:
        return FAILED
    at = blanks_end(buffer, at + 1)
    facts[slots.ENTRIES] = 1
    facts[slots.ENTRY_MS] = FAILED
    sampled = False
    more = True
    while more:
        name, at = member_name(buffer, at)
        if at == FAILED:
            return FAILED
        if name == _TIMESTAMP and facts[slots.ENTRY_MS] == FAILED:
            at = instant_member(buffer, at, facts, slots.ENTRY_MS)
        elif name == _SAMPLED and not sampled:
            sampled = True
            at = _sampled_values(buffer, at, facts, quoted)
        else:
            return FAILED
        if at == FAILED:
            return FAILED
        more, at = next_member(buffer, at, CLOSE)
    if at == FAILED or not sampled or facts[slots.ENTRY_MS] == FAILED:
        return FAILED
    more, at = next_member(buffer, at, CLOSE_LIST)
    return FAILED if more else at


@numba.njit(nogil=True, cache=True)
def instant_member(buffer: Bytes, at: int, facts: Facts, slot: int) -> int:
    """A timestamp string into `slot`; the position behind it."""
    if load1(buffer, at) != QUOTE:
        return FAILED
    end = string_end(buffer, at + 1)
    if end == FAILED:
        return FAILED
    facts[slot] = instant_at(buffer, at + 1, end)
    return end + 1 if facts[slot] != FAILED else FAILED

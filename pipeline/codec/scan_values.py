"""Compiled reading of meterValue lists in their plain form: one entry, one context, at the outlet, not signed.

What `lines` and `meter_values` do for any input is done here for that form; anything else gives FAILED.
"""

import numpy as np

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
    after_colon,
    blanks_end,
    instant_at,
    load1,
    number_at,
    string_end,
)
from pipeline.codec.kernels import is_all_ones
from pipeline.codec.numbers import MAX_CURRENT_MA, MAX_ENERGY_MWH, MAX_POWER_MW
from pipeline.codec.slots import Facts, fact, put
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
from pipeline.metering import columns
from pipeline.metering.columns import ABSENT_I64
from rating.jit import part

_VALUE, _CONTEXT, _FORMAT = number_of("value"), number_of("context"), number_of("format")
_MEASURAND, _PHASE, _LOCATION = number_of("measurand"), number_of("phase"), number_of("location")
_UNIT, _UNIT_OF_MEASURE, _MULTIPLIER = number_of("unit"), number_of("unitOfMeasure"), number_of("multiplier")
_TIMESTAMP, _SAMPLED, _RAW = number_of("timestamp"), number_of("sampledValue"), number_of("Raw")

_LIMITS = np.array([MAX_ENERGY_MWH, MAX_ENERGY_MWH, MAX_POWER_MW, MAX_CURRENT_MA, 1000], np.int64)
_POWERS_OF_TEN = np.array([10**power for power in range(19)], np.int64)


@part
def scaled_amount(quantity: int, number: int, shift: int) -> int:
    """Floor of number * 10^shift; ABSENT_I64 beyond the quantity's limit."""
    if shift < 0:
        amount = number // _POWERS_OF_TEN[-shift] if shift >= -18 else (-1 if number < 0 else 0)
    elif shift > 18 or abs(number) > _LIMITS[quantity] // _POWERS_OF_TEN[shift]:
        return 0 if number == 0 else ABSENT_I64
    else:
        amount = number * _POWERS_OF_TEN[shift]
    return amount if abs(amount) <= _LIMITS[quantity] else ABSENT_I64


@part
def take_amount(facts: Facts, slot: int, quantity: int, places: int, flag_slot: int) -> bool:
    """Puts the number at hand into `slot` and what is to be said of it into `flag_slot`.

    As `lines.read_amount`: a register below zero or of all ones stays absent. False where the number is out of bounds.
    """
    amount = scaled_amount(quantity, fact(facts, slots.NUMBER), places - fact(facts, slots.DECIMALS))
    if amount == ABSENT_I64 or (quantity == words.SOC and amount < 0):
        return False
    flags = fact(facts, flag_slot)
    if fact(facts, slots.REPAIRED):
        flags |= columns.FLAG_NUMBER_REPAIRED
    if quantity <= words.INTERVAL and is_all_ones(amount):
        flags |= columns.FLAG_SENTINEL
    elif quantity <= words.INTERVAL and amount < 0:
        flags |= columns.FLAG_NEGATIVE
    else:
        put(facts, slot, amount)
    put(facts, flag_slot, flags)
    return True


@part
def number_member(at: int, facts: Facts) -> int:
    """A number, bare or as a string, into NUMBER, DECIMALS and QUOTED; the position behind it."""
    quoted: bool = load1(at) == QUOTE
    end, number, decimals, comma = number_at(at + quoted, quoted)
    if end == FAILED or (quoted and load1(end) != QUOTE):
        return FAILED
    put(facts, slots.NUMBER, number)
    put(facts, slots.DECIMALS, decimals)
    put(facts, slots.QUOTED, quoted)
    put(facts, slots.REPAIRED, comma)
    return end + quoted


@part
def word_member(at: int, facts: Facts, slot: int) -> int:
    """A string that is not empty, as a word number, into `slot`; the position behind it."""
    if load1(at) != QUOTE:
        return FAILED
    end = string_end(at + 1)
    if end <= at + 1:
        return FAILED
    put(facts, slot, word_at(at + 1, end - at - 1))
    return end + 1


@part
def member_name(at: int) -> tuple[int, int]:
    """The word number of the member's name at `at`, and where its value starts (FAILED where it has none)."""
    if load1(at) != QUOTE:
        return UNKNOWN, FAILED
    end = string_end(at + 1)
    if end == FAILED:
        return UNKNOWN, FAILED
    return word_at(at + 1, end - at - 1), after_colon(end + 1)


@part
def next_member(at: int, closing: int) -> tuple[bool, int]:
    """Behind a value: whether another one follows, and where; (False, behind the bracket) at the end of the object."""
    at = blanks_end(at)
    byte = load1(at)
    if byte == COMMA:
        return True, blanks_end(at + 1)
    return False, at + 1 if byte == closing else FAILED


@part
def seen_twice(facts: Facts, slot: int, name: int) -> bool:
    """Marks a member as seen; True when it was seen before in the same object."""
    bit = np.int64(1) << np.int64(name & 63)
    twice: bool = fact(facts, slot) & bit != 0
    put(facts, slot, fact(facts, slot) | bit)
    return twice


@part
def _unit_of_measure(at: int, facts: Facts) -> int:
    if load1(at) != OPEN:
        return FAILED
    at = blanks_end(at + 1)
    more = True
    while more:
        name, at = member_name(at)
        if at == FAILED or seen_twice(facts, slots.VALUE, name):
            return FAILED
        if name == _UNIT:
            at = word_member(at, facts, slots.UNIT)
        elif name == _MULTIPLIER:
            end, multiplier, decimals, _ = number_at(at, False)
            put(facts, slots.MULTIPLIER, multiplier)
            at = end if decimals == 0 and abs(multiplier) <= 30 else FAILED
        else:
            at = FAILED
        if at == FAILED:
            return FAILED
        more, at = next_member(at, CLOSE)
    return at


@part
def _value_member(name: int, at: int, facts: Facts) -> int:
    if seen_twice(facts, slots.VALUE, name):
        return FAILED
    if name == _VALUE:
        return number_member(at, facts)
    if name == _MEASURAND:
        return word_member(at, facts, slots.MEASURAND)
    if name == _UNIT:
        return word_member(at, facts, slots.UNIT)
    if name == _CONTEXT:
        return word_member(at, facts, slots.CONTEXT)
    if name == _PHASE:
        return word_member(at, facts, slots.PHASE)
    if name == _LOCATION:
        return word_member(at, facts, slots.LOCATION)
    if name == _FORMAT:
        at = word_member(at, facts, slots.FORMAT)
        return at if fact(facts, slots.FORMAT) == _RAW else FAILED
    if name == _UNIT_OF_MEASURE:
        return _unit_of_measure(at, facts)
    return FAILED


@part
def _sampled_value(at: int, facts: Facts, quoted: bool) -> int:
    if load1(at) != OPEN:
        return FAILED
    put(facts, slots.VALUE, 0)
    for slot in range(slots.MEASURAND, slots.MULTIPLIER):
        put(facts, slot, ABSENT)
    put(facts, slots.MULTIPLIER, 0)
    put(facts, slots.NUMBER, ABSENT_I64)
    at = blanks_end(at + 1)
    more = True
    while more:
        name, at = member_name(at)
        if at == FAILED:
            return FAILED
        at = _value_member(name, at, facts)
        if at == FAILED:
            return FAILED
        more, at = next_member(at, CLOSE)
    return at if fact(facts, slots.NUMBER) != ABSENT_I64 and _take_value(facts, quoted) else FAILED


@part
def _take_value(facts: Facts, quoted: bool) -> bool:
    """Puts the sampled value at hand among the entry's amounts; False where it takes the twin to do so."""
    quantity = QUANTITY_OF[fact(facts, slots.MEASURAND)]
    phase = PHASE_OF[fact(facts, slots.PHASE)]
    if quantity == UNKNOWN or phase == UNKNOWN:
        return True
    if quantity == words.SOC:
        if phase != 0:
            return False
    elif PLACE_OF[fact(facts, slots.LOCATION)] != words.OUTLET:
        return False
    context = CONTEXT_OF[fact(facts, slots.CONTEXT)]
    if fact(facts, slots.LINE_CONTEXT) != FAILED and fact(facts, slots.LINE_CONTEXT) != context:
        return False
    put(facts, slots.LINE_CONTEXT, context)
    places = PLACES_OF[quantity, fact(facts, slots.UNIT)]
    slot = slots.AMOUNTS + 4 * quantity + phase
    if places == ABSENT or fact(facts, slot) != ABSENT_I64:
        return False
    if fact(facts, slots.QUOTED) != quoted:
        put(facts, slots.REPAIRED, 1)
    if fact(facts, slots.UNIT) == ABSENT and quantity <= words.INTERVAL:
        put(facts, slots.VALUE_FLAGS, fact(facts, slots.VALUE_FLAGS) | columns.FLAG_UNIT_DEFAULTED)
    good = take_amount(facts, slot, quantity, places + fact(facts, slots.MULTIPLIER), slots.VALUE_FLAGS)
    return good and (phase == 0 or fact(facts, slot) != ABSENT_I64)


@part
def _sampled_values(at: int, facts: Facts, quoted: bool) -> int:
    if load1(at) != OPEN_LIST:
        return FAILED
    at = blanks_end(at + 1)
    more = True
    while more:
        at = _sampled_value(at, facts, quoted)
        if at == FAILED:
            return FAILED
        more, at = next_member(at, CLOSE_LIST)
    return at


@part
def meter_values(at: int, facts: Facts, quoted: bool) -> int:
    """A meterValue list of exactly one entry into ENTRY_MS and AMOUNTS; the position behind it."""
    if load1(at) != OPEN_LIST:
        return FAILED
    at = blanks_end(at + 1)
    if load1(at) != OPEN:
        return FAILED
    at = blanks_end(at + 1)
    put(facts, slots.ENTRIES, 1)
    put(facts, slots.ENTRY_MS, FAILED)
    sampled = False
    more = True
    while more:
        name, at = member_name(at)
        if at == FAILED:
            return FAILED
        if name == _TIMESTAMP and fact(facts, slots.ENTRY_MS) == FAILED:
            at = instant_member(at, facts, slots.ENTRY_MS, slots.ENTRY_FLAGS)
        elif name == _SAMPLED and not sampled:
            sampled = True
            at = _sampled_values(at, facts, quoted)
        else:
            return FAILED
        if at == FAILED:
            return FAILED
        more, at = next_member(at, CLOSE)
    if at == FAILED or not sampled or fact(facts, slots.ENTRY_MS) == FAILED:
        return FAILED
    more, at = next_member(at, CLOSE_LIST)
    return FAILED if more else at


@part
def instant_member(at: int, facts: Facts, slot: int, flag_slot: int) -> int:
    """A timestamp string into `slot` (UNUSABLE where it is none) and its flag into `flag_slot`; the position behind."""
    if load1(at) != QUOTE:
        return FAILED
    end = string_end(at + 1)
    if end == FAILED:
        return FAILED
    moment, zoned = instant_at(at + 1, end)
    put(facts, slot, moment)
    if not zoned:
        put(facts, flag_slot, fact(facts, flag_slot) | columns.FLAG_TIME_NO_ZONE)
    return end + 1 if moment != FAILED else FAILED

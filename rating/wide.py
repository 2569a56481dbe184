"""128-bit and wider products for settlement: taxes and scaled limits overflow int64 at a few hundred currency units.

A wide number is two or three 64-bit words (low, middle, high), unsigned, held in scalars: no allocation. Signs
are the caller's, or two's complement where said. Exact results that are no integers are truncated toward zero;
as totals are rounded to even multiples of a cost unit, rounding the truncated value is rounding the exact one
(README: "Rounding a truncated amount").
"""

from typing import Final

from numpy import int64, uint64

from rating.jit import inlined, kernel

ZERO: Final = uint64(0)
ONE: Final = uint64(1)
TOO_WIDE: Final = -(2**63)  # what functions here return instead of a result of 2^62 or more
_LIMIT: Final = uint64(2**62)
_MASK: Final = uint64(0xFFFFFFFF)
_HALF: Final = uint64(32)
_SIGN: Final = uint64(63)


@kernel
def multiply(a: uint64, b: uint64) -> tuple[uint64, uint64]:
    """The 128-bit product (low, high) of two words."""
    a0, a1 = a & _MASK, a >> _HALF
    b0, b1 = b & _MASK, b >> _HALF
    low = a0 * b0
    cross = a1 * b0 + (low >> _HALF)
    carry = a0 * b1 + (cross & _MASK)
    return (carry << _HALF) | (low & _MASK), a1 * b1 + (cross >> _HALF) + (carry >> _HALF)


@inlined
def add(low: uint64, high: uint64, other_low: uint64, other_high: uint64) -> tuple[uint64, uint64]:
    """The sum of two 128-bit numbers, modulo 2^128: two's complement works."""
    total = low + other_low
    carry = ONE if total < low else ZERO
    return total, high + other_high + carry


@inlined
def negate(low: uint64, high: uint64) -> tuple[uint64, uint64]:
    """The two's complement of a 128-bit number."""
    return add(~low, ~high, ONE, ZERO)


@kernel
def signed_product(a: int, b: int) -> tuple[uint64, uint64]:
    """a × b in two's complement over 128 bits, for int64 `a` (not -2^63) and int64 `b` >= 0."""
    if a < 0:
        low, high = multiply(uint64(-a), uint64(b))
        return negate(low, high)
    return multiply(uint64(a), uint64(b))


@inlined
def is_negative(high: uint64) -> bool:
    """Whether a two's complement number with this high word is below zero."""
    return bool((high >> _SIGN) != ZERO)


@inlined
def _times(low: uint64, high: uint64, factor: uint64) -> tuple[uint64, uint64, uint64]:
    """(low, high) × factor as three words."""
    first, carry = multiply(low, factor)
    second, third = multiply(high, factor)
    second, third = add(second, third, carry, ZERO)
    return first, second, third


@inlined
def _at_most(a: tuple[uint64, uint64, uint64], b: tuple[uint64, uint64, uint64]) -> bool:
    if a[2] != b[2]:
        return bool(a[2] < b[2])
    if a[1] != b[1]:
        return bool(a[1] < b[1])
    return bool(a[0] <= b[0])


@inlined
def _result(whole: uint64) -> int:
    return int(int64(whole)) if whole < _LIMIT else TOO_WIDE


@inlined
def _short_quotient(low: uint64, high: uint64, by: uint64) -> int:
    """floor((low, high) / by) for a divisor below 2^32, digit by digit of 32 bits."""
    if high >= by:
        return TOO_WIDE
    rest = (high << _HALF) | (low >> _HALF)  # high < by < 2^32: nothing is lost
    upper = rest // by
    rest = ((rest % by) << _HALF) | (low & _MASK)
    return _result((upper << _HALF) | (rest // by))


@kernel
def quotient(low: uint64, high: uint64, factor: uint64, by_low: uint64, by_high: uint64) -> int:
    """floor((low, high) × factor / (by_low, by_high)); TOO_WIDE where it is 2^62 or more.

    The largest q with q × divisor <= dividend, found bit by bit: no 192-bit division is needed.
    """
    dividend = _times(low, high, factor)
    if by_high == ZERO and by_low >> _HALF == ZERO and dividend[2] == ZERO:
        return _short_quotient(dividend[0], dividend[1], by_low)
    if by_high == ZERO and dividend[2] == ZERO and dividend[1] == ZERO:
        return _result(dividend[0] // by_low)
    if _at_most(_times(by_low, by_high, _LIMIT), dividend):
        return TOO_WIDE
    found = ZERO
    for bit in range(61, -1, -1):
        candidate = found | (ONE << uint64(bit))
        if _at_most(_times(by_low, by_high, candidate), dividend):
            found = candidate
    return int(int64(found))


@kernel
def divided(low: uint64, high: uint64, denominator: int) -> int:
    """A two's complement number over a positive int64, truncated toward zero; TOO_WIDE where it is 2^62 or more."""
    negative = is_negative(high)
    if negative:
        low, high = negate(low, high)
    whole = quotient(low, high, ONE, uint64(denominator), ZERO)
    return -whole if negative and whole != TOO_WIDE else whole

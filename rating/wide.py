"""128-bit and wider products for settlement: taxes and scaled limits overflow int64 at a few hundred currency units.

A wide number is three 64-bit words (low, middle, high), unsigned, held in scalars: no allocation. Signs are the
caller's. Exact results that are no integers are truncated toward zero; as totals are rounded to even multiples
of a cost unit, rounding the truncated value is rounding the exact one (README: "Rounding a truncated amount").
"""

from numba import njit
from numpy import int64, uint64

_NJIT = {"cache": True, "nogil": True, "_nrt": False, "forceinline": True}


@njit(**_NJIT)
def multiply(a: int, b: int) -> tuple[int, int]:
    """The 128-bit product (low, high) of two unsigned 64-bit words."""
    mask = uint64(0xFFFFFFFF)
    shift = uint64(32)
    a0, a1 = uint64(a) & mask, uint64(a) >> shift
    b0, b1 = uint64(b) & mask, uint64(b) >> shift
    low = a0 * b0
    cross = a1 * b0 + (low >> shift)
    carry = a0 * b1 + (cross & mask)
    return (carry << shift) | (low & mask), a1 * b1 + (cross >> shift) + (carry >> shift)


@njit(**_NJIT)
def add(low: int, high: int, other_low: int, other_high: int) -> tuple[int, int]:
    """The sum of two 128-bit numbers, modulo 2^128: two's complement works."""
    total = uint64(low) + uint64(other_low)
    carry = uint64(1) if total < uint64(low) else uint64(0)
    return total, uint64(high) + uint64(other_high) + carry


@njit(**_NJIT)
def negate(low: int, high: int) -> tuple[int, int]:
    """The two's complement of a 128-bit number."""
    return add(~uint64(low), ~uint64(high), uint64(1), uint64(0))


@njit(**_NJIT)
def signed_product(a: int, b: int) -> tuple[int, int]:
    """a × b in two's complement over 128 bits, for int64 `a` (not -2^63) and int64 `b` >= 0."""
    if a < 0:
        low, high = multiply(uint64(-a), uint64(b))
        return negate(low, high)
    return multiply(uint64(a), uint64(b))


@njit(**_NJIT)
def is_negative(high: int) -> bool:
    """Whether a two's complement number with this high word is below zero."""
    return (uint64(high) >> uint64(63)) != uint64(0)


@njit(**_NJIT)
def _times(low: int, high: int, factor: int) -> tuple[int, int, int]:
    """(low, high) × factor as three words."""
    first, carry = multiply(low, factor)
    second, third = multiply(high, factor)
    second, third = add(second, third, carry, uint64(0))
    return first, second, third


@njit(**_NJIT)
def _at_most(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
    if a[2] != b[2]:
        return a[2] < b[2]
    if a[1] != b[1]:
        return a[1] < b[1]
    return a[0] <= b[0]


@njit(**_NJIT)
def _short_quotient(low: int, high: int, by: int) -> int:
    """floor((low, high) / by) for a divisor below 2^32, digit by digit of 32 bits; -1 where it is 2^62 or more."""
    mask, shift = uint64(0xFFFFFFFF), uint64(32)
    if uint64(high) >= uint64(by):
        return int64(-1)
    rest = (uint64(high) << shift) | (uint64(low) >> shift)  # high < by < 2^32: nothing is lost
    upper = rest // uint64(by)
    rest = ((rest % uint64(by)) << shift) | (uint64(low) & mask)
    whole = (upper << shift) | (rest // uint64(by))
    return int64(whole) if whole < uint64(1 << 62) else int64(-1)


@njit(cache=True, nogil=True, _nrt=False)
def quotient(low: int, high: int, factor: int, by_low: int, by_high: int) -> int:
    """floor((low, high) × factor / (by_low, by_high)) as int64; -1 where it is 2^62 or more.

    The largest q with q × divisor <= dividend, found bit by bit: no 192-bit division is needed.
    """
    dividend = _times(low, high, factor)
    if by_high == uint64(0) and uint64(by_low) >> uint64(32) == uint64(0) and dividend[2] == uint64(0):
        return _short_quotient(dividend[0], dividend[1], by_low)
    if by_high == uint64(0) and dividend[2] == uint64(0) and dividend[1] == uint64(0):
        whole = dividend[0] // uint64(by_low)
        return int64(whole) if whole < uint64(1 << 62) else int64(-1)
    if _at_most(_times(by_low, by_high, uint64(1 << 62)), dividend):
        return int64(-1)
    found = uint64(0)
    for bit in range(61, -1, -1):
        candidate = found | (uint64(1) << uint64(bit))
        if _at_most(_times(by_low, by_high, candidate), dividend):
            found = candidate
    return int64(found)


@njit(cache=True, nogil=True, _nrt=False)
def scaled(amount: int, numerator: int, denominator: int) -> int:
    """amount × numerator / denominator, truncated toward zero, exact in between; int64, numerator >= 0, denominator > 0."""
    low, high = multiply(uint64(-amount if amount < 0 else amount), uint64(numerator))
    magnitude = quotient(low, high, uint64(1), uint64(denominator), uint64(0))
    return -magnitude if amount < 0 else magnitude

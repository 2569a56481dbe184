"""Compiled reading of JSON bytes: strings, numbers and instants in their plain forms, eight bytes at a time.

Every function answers -1 (or FAILED) for anything unusual: an escape, a byte beyond ASCII, an exponent, a sign, a rare
date. The caller then gives the whole record to `twin`. Nothing here reads further than PADDING past the buffer's end.
Positions are addresses: an integer argument costs a call far less than an array does.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from pipeline.codec.instants import EARLIEST_MS, LATEST_MS
from rating.jit import part

PADDING = 64  # bytes of zeros after the last record
FAILED = -1
UNUSABLE = -2
MAX_WORD = 32

Bytes = npt.NDArray[np.uint8]

_ONES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_QUOTES = np.uint64(0x2222222222222222)
_BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
_BLANKS = np.uint64(0x2020202020202020)
_ZERO = np.uint64(0)
_EIGHT = np.uint64(8)
_SIXTY_FOUR = np.uint64(64)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)

QUOTE, COMMA, COLON, OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = 0x22, 0x2C, 0x3A, 0x7B, 0x7D, 0x5B, 0x5D
_ZERO_DIGIT, _DOT, _MINUS, _PLUS, _T, _Z = 0x30, 0x2E, 0x2D, 0x2B, 0x54, 0x5A
_MAX_DIGITS = 18  # what an int64 holds without a check
_DAYS_BEFORE = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334], np.int64)
_MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)
_FRACTION_MS = np.array([0, 100, 10, 1], np.int64)


def _loader(bits: int, result: Any) -> Any:
    def typed(_typing: Any, at: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], ir.IntType(bits).as_pointer())
            return builder.zext(builder.load(pointer, align=1), ir.IntType(64))

        return result(types.int64), generate

    return intrinsic(typed)


def _trailing_zeros_code(_typing: Any, word: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


load8: Any = _loader(64, types.uint64)  # eight bytes at an address, little-endian
load1: Any = _loader(8, types.int64)  # the byte at an address
_trailing_zeros: Any = intrinsic(_trailing_zeros_code)


@part
def string_end(at: int) -> int:
    """Where the closing quote of the string that starts at `at` stands."""
    while True:
        word = load8(at)
        quotes = word ^ _QUOTES
        slashes = word ^ _BACKSLASHES
        found = ((quotes - _ONES) & ~quotes) | ((slashes - _ONES) & ~slashes) | ((word - _BLANKS) & ~word) | word
        found &= _HIGH
        if found != _ZERO:
            end: int = at + (_trailing_zeros(found) >> 3)
            return end if load1(end) == QUOTE else FAILED
        at += 8


@part
def masked8(at: int, length: int) -> Any:
    """The first `length` bytes from `at`, at most 8, as a little-endian word; 0 for none."""
    if length <= 0:
        return _ZERO
    word = load8(at)
    if length < 8:
        word &= _ALL >> (_SIXTY_FOUR - _EIGHT * np.uint64(length))
    return word


@part
def same_bytes(one: int, other: int, length: int) -> bool:
    """Whether the same bytes stand at both addresses."""
    for position in range(0, length, 8):
        if masked8(one + position, length - position) != masked8(other + position, length - position):
            return False
    return True


@part
def holds_byte(at: int, length: int, byte: int) -> bool:
    """Whether any of the bytes at `at` is `byte`."""
    pattern = np.uint64(byte) * _ONES
    for position in range(0, length, 8):
        differing = masked8(at + position, length - position) ^ pattern
        if (differing - _ONES) & ~differing & _HIGH != _ZERO:
            return True
    return False


@part
def blanks_end(at: int) -> int:
    """The first position from `at` on that is not JSON white space."""
    while True:
        byte = load1(at)
        if byte != 0x20 and byte != 0x0A and byte != 0x0D and byte != 0x09:
            return at
        at += 1


@part
def after_colon(at: int) -> int:
    """The start of a member's value, from just behind its name."""
    at = blanks_end(at)
    return blanks_end(at + 1) if load1(at) == COLON else FAILED


@part
def number_at(at: int, quoted: bool) -> tuple[int, int, int, bool]:
    """End, digits as an integer, decimals and whether a comma stood for the point, of the number at `at`.

    Numbers in quotes may have a comma and leading zeros, which JSON's own may not.
    """
    negative = load1(at) == _MINUS
    at += negative
    number = 0
    decimals = -1
    start = at
    digits = 0
    comma = False
    while True:
        byte = load1(at)
        digit = byte - _ZERO_DIGIT
        if 0 <= digit <= 9:
            number = number * 10 + digit
            digits += 1
            decimals += decimals >= 0
        elif decimals < 0 and digits > 0 and (byte == _DOT or (quoted and byte == COMMA)):
            decimals = 0
            comma = byte == COMMA
        else:
            break
        at += 1
    leading = load1(start) == _ZERO_DIGIT and digits - max(decimals, 0) > 1
    if digits == 0 or digits > _MAX_DIGITS or decimals == 0 or (leading and not quoted):
        return FAILED, 0, 0, False
    return at, -number if negative else number, max(decimals, 0), comma


@part
def _two_digits(at: int) -> int:
    """The number that two digits make; 1000 when they are none."""
    tens: int = load1(at) - _ZERO_DIGIT
    ones: int = load1(at + 1) - _ZERO_DIGIT
    return tens * 10 + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else 1000


@part
def _date_ms(at: int) -> int:
    century, year = _two_digits(at), _two_digits(at + 2)
    month, day = _two_digits(at + 5), _two_digits(at + 8)
    year += century * 100
    if year < 2009 or year > 2100:
        return UNUSABLE  # no text that begins so is an instant from 2010 to 2099, in any zone
    if load1(at + 4) != _MINUS or load1(at + 7) != _MINUS:
        return FAILED
    if not (2010 <= year <= 2099 and 1 <= month <= 12 and day >= 1):
        return FAILED
    leap = year % 4 == 0  # holds from 2010 to 2099
    if day > _MONTH_DAYS[month - 1] + (leap and month == 2):
        return FAILED
    days: int = (year - 1970) * 365 + (year - 1969) // 4 + _DAYS_BEFORE[month - 1] + (leap and month > 2) + day - 1
    return days * 86_400_000


@part
def _clock_ms(at: int) -> int:
    hour, minute, second = _two_digits(at), _two_digits(at + 3), _two_digits(at + 6)
    colons = load1(at + 2) == COLON and load1(at + 5) == COLON
    if hour > 23 or minute > 59 or second > 59 or not colons:
        return FAILED
    return hour * 3_600_000 + minute * 60_000 + second * 1000


@part
def _zone_ms(at: int, end: int) -> int:
    """Zone offset; LATEST_MS where there is none that is plain."""
    sign = load1(at)
    if sign == _Z:
        return 0 if at + 1 == end else LATEST_MS
    hour, minute = _two_digits(at + 1), _two_digits(at + 4)
    if (sign != _PLUS and sign != _MINUS) or at + 6 != end or load1(at + 3) != COLON:
        return LATEST_MS
    if hour > 23 or minute > 59:
        return LATEST_MS
    offset = hour * 3_600_000 + minute * 60_000
    return offset if sign == _PLUS else -offset


@part
def instant_at(at: int, end: int) -> tuple[int, bool]:
    """UTC ms of the RFC 3339 text in [at, end) and whether it has a zone (if not, it is read as UTC).

    UNUSABLE for what is no usable instant; FAILED where `instants.instant` has to look at it.
    """
    if end - at < 16:
        return UNUSABLE, True
    date = _date_ms(at)
    if date < 0:
        return date, True
    clock = _clock_ms(at + 11)
    if end - at < 19 or load1(at + 10) != _T or clock == FAILED:
        return FAILED, True
    position = at + 19
    fraction = 0
    if load1(position) == _DOT:
        first = position + 1
        position = first
        while position < end and 0 <= load1(position) - _ZERO_DIGIT <= 9:
            if position - first < 3:
                fraction += (load1(position) - _ZERO_DIGIT) * _FRACTION_MS[position - first + 1]
            position += 1
        if position == first or position - first > _MAX_DIGITS:
            return FAILED, True
    zoned = position < end
    zone = _zone_ms(position, end) if zoned else 0
    instant = date + clock + fraction - zone
    return instant if zone != LATEST_MS and EARLIEST_MS <= instant < LATEST_MS else FAILED, zoned

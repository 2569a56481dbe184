"""Decimal text to scaled integers, exactly: no float ever touches a meter value.

12.3456789 kWh is 12345678 mWh: what lies below the last place is cut off (floor).
"""

import re

from pipeline.codec.records import UndecodableError

MAX_ENERGY_MWH = 10**16  # 10 TWh: a hundred thousand times what any meter will ever count
MAX_POWER_MW = 10**13  # 10 GW
MAX_CURRENT_MA = 10**10  # 10 MA

_MAX_DIGITS = 64
_NUMBER = re.compile(rb"([ \t]*)([+-]?)([0-9]*)(?:([.,])([0-9]*))?(?:[eE]([+-]?[0-9]{1,4}))?([ \t]*)")

# All ones, in 32 or 31 bits, in any decimal scale from mWh to kWh: what a dead meter bus reads (design: sentinels).
_ALL_ONES = frozenset(ones * 10**scale for ones in (0xFFFFFFFF, 0x7FFFFFFF) for scale in range(7)) | frozenset(
    ones * 10**scale for ones in (0xFFFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF) for scale in range(7)
)


def scaled(text: bytes, power: int) -> tuple[int, bool]:
    """Floor of the number in `text` times 10^power, and whether it had to be repaired (decimal comma, plus, blanks).

    Raises UndecodableError (bad_number) when `text` is no finite decimal number of sane size.
    """
    match = _NUMBER.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if match is None:
        raise UndecodableError("bad_number", f"{_shown(text)} is not a decimal number")
    blank, sign, whole, comma, fraction, exponent, tail = match.groups(default=b"")
    digits = whole + fraction
    if not digits:
        raise UndecodableError("bad_number", f"{_shown(text)} is not a decimal number")
    number = -int(digits) if sign == b"-" else int(digits)
    repaired = comma == b"," or sign == b"+" or bool(blank) or bool(tail)
    return _shifted(number, power + int(exponent or b"0") - len(fraction), text), repaired


def _shifted(number: int, shift: int, text: bytes) -> int:
    if shift <= 0:
        return int(number // 10 ** min(-shift, 2 * _MAX_DIGITS))
    if number and shift > _MAX_DIGITS:
        raise UndecodableError("bad_number", f"{_shown(text)} is too large for anything that is metered")
    return number * 10**shift if number else 0


def is_sentinel(energy_mwh: int) -> bool:
    """Whether a register reads all ones, which is a fault and no energy."""
    return energy_mwh in _ALL_ONES


def energy_mwh(text: bytes, power: int) -> tuple[int, bool]:
    """As `scaled`; raises UndecodableError also for more than MAX_ENERGY_MWH that is no sentinel."""
    value, repaired = scaled(text, power)
    if abs(value) > MAX_ENERGY_MWH and not is_sentinel(value):
        raise UndecodableError("bad_number", f"an energy of {_shown(text)} is more than any meter can count")
    return value, repaired


def _shown(text: bytes) -> str:
    shown = text[:40].decode("utf-8", "replace")
    return f"{shown!r}" + ("…" if len(text) > 40 else "")

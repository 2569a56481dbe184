"""Money as integers: the cost unit, currencies, rounding and decimal strings. No float ever holds money.

OCPI numbers carry 4 decimals, energy is mWh, time is ms; one currency unit is
lcm(1e10, 3.6e10) = 1.8e11 cost units, so energy and time cost are both exact in int64:

    energy cost = mWh × price_e4 × 18        (price per kWh, in 1e-4)
    time cost   = ms  × price_e4 × 5         (price per hour, in 1e-4)
    flat cost   =       price_e4 × 18,000,000
"""

from decimal import Decimal
from typing import Final

COST_PER_UNIT: Final = 180_000_000_000  # cost units in one unit of any currency
COST_PER_E4: Final = 18_000_000  # cost units in 1e-4 of a unit: FLAT cost of price_e4 = 1
ENERGY_COST: Final = 18  # cost units per mWh and price_e4
TIME_COST: Final = 5  # cost units per ms and price_e4
INT64_MAX: Final = 2**63 - 1

# ISO 4217: decimals of the minor unit; every currency not named here has two.
_NO_DECIMALS: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DECIMALS: Final = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_DECIMALS: Final = "CLF UYW"


def minor_decimals(currency: str) -> int:
    """Decimals of the currency's minor unit (ISO 4217): EUR 2, JPY 0, KWD 3."""
    for decimals, codes in ((0, _NO_DECIMALS), (3, _THREE_DECIMALS), (4, _FOUR_DECIMALS)):
        if currency.upper() in codes.split():
            return decimals
    return 2


def cost_of_decimals(decimals: int) -> int:
    """Cost units in one unit of the last of `decimals` decimals (0 to 4)."""
    if not 0 <= decimals <= 4:
        raise ValueError(f"money has 0 to 4 decimals, not {decimals}")
    return COST_PER_UNIT // int(10**decimals)


def round_half_away(cost: int, step: int) -> int:
    """`cost` rounded to a multiple of `step` (even), halves away from zero."""
    magnitude = (abs(cost) + step // 2) // step * step
    return magnitude if cost >= 0 else -magnitude


def cost_decimal(cost: int) -> Decimal:
    """Cost units as a decimal number of currency units, rounded half away to 12 decimals (for people)."""
    scaled = round_half_away(cost * 10**12 * 2, 2 * COST_PER_UNIT) // (2 * COST_PER_UNIT)
    return Decimal(scaled).scaleb(-12)


def e4_text(amount_e4: int) -> str:
    """An amount in 1e-4 as a decimal string with four decimals: 12375 → "1.2375"."""
    sign = "-" if amount_e4 < 0 else ""
    whole, rest = divmod(abs(int(amount_e4)), 10_000)
    return f"{sign}{whole}.{rest:04d}"


def shown(amount_e4: int, decimals: int) -> str:
    """An amount in 1e-4 with at least `decimals` decimals and no trailing zeros beyond them."""
    text = e4_text(amount_e4)
    keep = len(text.rstrip("0"))
    point = text.index(".")
    text = text[: max(keep, point + 1 + decimals)]
    return text[:-1] if text.endswith(".") else text

"""What OCPI says of the money: step_size, taxes, limits and rounding over the charging periods of `tests.oracle`.

Shares no code with `rating`. Amounts are exact `Fraction`s of the currency unit until the one rounding at the end.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, reduce
from typing import Any, NamedTuple

from tests.oracle import Component, Piece, Session, Tariff, exact, flat_components, rate

MWH_A_KWH = 1_000_000
MS_AN_HOUR = 3_600_000
NO_MINOR_UNIT = (
    "JPY",
    "KRW",
    "ISK",
    "CLP",
    "VND",
    "XAF",
    "XOF",
    "XPF",
    "PYG",
    "UGX",
    "RWF",
    "KMF",
    "GNF",
    "DJF",
    "BIF",
    "VUV",
)
THREE_DECIMALS = ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND")


class Amount(NamedTuple):
    """Money of the same thing without and with taxes."""

    excl: Fraction
    incl: Fraction

    def plus(self, other: "Amount") -> "Amount":
        """Both sums."""
        return Amount(self.excl + other.excl, self.incl + other.incl)


NOTHING = Amount(Fraction(0), Fraction(0))


class Step(NamedTuple):
    """The excess that step_size adds: `quantity` mWh or ms more of `component`."""

    dimension: str
    component: Component
    quantity: int


@dataclass
class Bill:
    """A settled session; every amount exact but `total`, which is rounded once."""

    pieces: list[Piece]
    flats: list[Component]
    steps: list[Step] = field(default_factory=list)
    billed: dict[tuple[str, Component], int] = field(default_factory=dict)
    by_dimension: dict[str, Amount] = field(default_factory=dict)
    before_limits: Amount = NOTHING
    after_limits: Amount = NOTHING
    total: Amount = NOTHING

    def quantity(self, dimension: str) -> int:
        """Billed mWh or ms of a dimension, the step's excess included."""
        return sum(quantity for (name, _), quantity in self.billed.items() if name == dimension)


def excess(quantity: int, step: int) -> int:
    """What is missing to the next whole step; nothing at an exact multiple, and step 0 is no step."""
    return -quantity % step if step else 0


def settle(tariff: Tariff, session: Session) -> Bill:
    """The whole bill: periods, step sizes, taxes, limits, rounding."""
    session_flat, reservation_flats = flat_components(tariff, session)
    bill = Bill(rate(tariff, session), [*([session_flat] if session_flat else []), *reservation_flats])
    priced = _priced(bill.pieces)
    bill.steps = _steps(tariff, priced)
    bill.billed = _billed(priced, bill.steps)
    for (dimension, component), quantity in bill.billed.items():
        _add(tariff, bill, dimension, component, quantity)
    if session_flat is not None:
        _add(tariff, bill, "FLAT", session_flat, 1)
    for component in reservation_flats:
        _add(tariff, bill, "RESERVATION_FLAT", component, 1)
    amounts = list(bill.by_dimension.values())
    bill.before_limits = reduce(Amount.plus, amounts) if amounts else NOTHING
    bill.after_limits = limited(tariff, bill.before_limits)
    digits = minor_digits(tariff.raw["currency"])
    bill.total = Amount(rounded(bill.after_limits.excl, digits), rounded(bill.after_limits.incl, digits))
    return bill


# ---------------------------------------------------------------- quantities and step_size (mod_cdrs step_size)


Priced = Mapping[str, Sequence[tuple[Component, int]]]
"""Per dimension what its components supplied, in order; what is free or nothing at all has no place here."""
TIMED = {"CHARGING": "TIME", "PARKING": "PARKING_TIME"}


def _priced(pieces: Sequence[Piece]) -> Priced:
    found: dict[str, list[tuple[Component, int]]] = defaultdict(list)
    for piece in pieces:
        if piece.energy is not None and piece.energy_mwh > 0:
            found["ENERGY"].append((piece.energy, piece.energy_mwh))
        if piece.time is not None and piece.end_ms > piece.start_ms:
            found[TIMED.get(piece.state, "RESERVATION")].append((piece.time, piece.end_ms - piece.start_ms))
    return found


def _steps(tariff: Tariff, priced: Priced) -> list[Step]:
    """mod_cdrs step_size: once a session for ENERGY and once for TIME and PARKING_TIME together.

    The session's total is rounded up to the step of the last component used, the excess is billed in its period.
    "In the cases that TIME and PARKING_TIME Tariff Elements are both used, step_size is only taken into account for
    the total parking duration." Policy: a reservation's time is rounded by itself.
    """
    steps = []
    for dimension in ("ENERGY", "PARKING_TIME" if "PARKING_TIME" in priced else "TIME", "RESERVATION"):
        parts = priced.get(dimension)
        if not parts:
            continue
        last = parts[-1][0]
        unit = 1000  # step_size is in Wh or in seconds, we count mWh and ms
        missing = excess(sum([quantity for _, quantity in parts]), tariff.component(last)["step_size"] * unit)
        if missing:
            steps.append(Step(dimension, last, missing))
    return steps


def _billed(priced: Priced, steps: Sequence[Step]) -> dict[tuple[str, Component], int]:
    quantities: dict[tuple[str, Component], int] = defaultdict(int)
    for dimension, parts in priced.items():
        for component, quantity in parts:
            quantities[dimension, component] += quantity
    for step in steps:
        quantities[step.dimension, step.component] += step.quantity
    return dict(quantities)


# ---------------------------------------------------------------- price and taxes (mod_tariffs PriceComponent)


def _add(tariff: Tariff, bill: Bill, dimension: str, component: Component, quantity: int) -> None:
    price = unit_price(tariff, dimension, component)
    amount = Amount(price.excl * quantity, price.incl * quantity)
    before = bill.by_dimension.get(dimension)
    bill.by_dimension[dimension] = amount if before is None else before.plus(amount)


@lru_cache(maxsize=1024)
def unit_price(tariff: Tariff, dimension: str, component: Component) -> Amount:
    """Of one mWh, one ms or one FLAT; `price` is per kWh (ENERGY), per hour (TIME, PARKING_TIME) or once (FLAT)."""
    unit = {"ENERGY": MWH_A_KWH, "FLAT": 1, "RESERVATION_FLAT": 1}.get(dimension, MS_AN_HOUR)
    priced = tariff.component(component)
    return taxed(tariff.raw, priced, exact(priced["price"]) / unit)


def vat_of(tariff: Mapping[str, Any], component: Mapping[str, Any]) -> Fraction:
    """Percent. "vat: ... Not provided: no VAT applicable"; 2.3.0 TaxIncluded N/A: no taxes are applicable."""
    if tariff.get("tax_included") == "N/A" or component.get("vat") is None:
        return Fraction(0)
    return exact(component["vat"])


def taxed(tariff: Mapping[str, Any], component: Mapping[str, Any], cost: Fraction) -> Amount:
    """2.2.1: "price ... excluding VAT". 2.3.0 TaxIncluded: YES, the price includes the taxes; NO, it does not."""
    factor = 1 + vat_of(tariff, component) / 100
    if tariff.get("tax_included") == "YES":
        return Amount(cost / factor, cost)
    return Amount(cost, cost * factor)


# ---------------------------------------------------------------- limits (min_price, max_price) and rounding


def limits_of(price: Mapping[str, Any] | None) -> tuple[Fraction | None, Fraction | None]:
    """2.2.1 Price {excl_vat, incl_vat}; 2.3.0 PriceLimit {before_taxes, after_taxes}; None = not limited."""
    found = []
    for names in (("excl_vat", "before_taxes"), ("incl_vat", "after_taxes")):
        given = [exact(price[name]) for name in names if price is not None and price.get(name) is not None]
        found.append(given[0] if given else None)
    return found[0], found[1]


def limited(tariff: Tariff, amount: Amount) -> Amount:
    """min_price: "the Charging Session with this tariff will at least cost this amount"; max_price: "at most".

    Policy: the limit without taxes first, the taxes keeping their proportion; then the limit with taxes by itself;
    where that lies below the amount without taxes, the latter is lowered to it. Of crossed limits max_price wins.
    """
    if "min_price" not in tariff.raw and "max_price" not in tariff.raw:
        return amount
    (low_excl, low_incl), (high_excl, high_incl) = (
        limits_of(tariff.raw.get(name)) for name in ("min_price", "max_price")
    )
    excl = clamped(amount.excl, low_excl, high_excl)
    incl = amount.incl
    if excl != amount.excl:
        incl = amount.incl * excl / amount.excl if amount.excl > 0 else excl
    if tariff.raw.get("tax_included") == "N/A":
        return Amount(excl, incl)
    at_most = clamped(incl, low_incl, high_incl)
    if at_most < incl:
        excl = min(excl, at_most)
    return Amount(excl, at_most)


def clamped(value: Fraction, low: Fraction | None, high: Fraction | None) -> Fraction:
    """Not below `low`, then not above `high`."""
    value = value if low is None else max(value, low)
    return value if high is None else min(value, high)


def minor_digits(currency: str) -> int:
    """ISO 4217, as far as the tests use it."""
    return 0 if currency in NO_MINOR_UNIT else 3 if currency in THREE_DECIMALS else 2


def rounded(amount: Fraction, digits: int) -> Fraction:
    """Policy: half away from zero to the minor unit, once, on the totals."""
    return Fraction(whole_units(amount, digits), 10**digits)


def whole_units(amount: Fraction, digits: int) -> int:
    """The same, in units of the last of these digits."""
    numerator, denominator = abs(amount.numerator) * 10**digits, amount.denominator
    whole: int = (2 * numerator + denominator) // (2 * denominator)
    return whole if amount.numerator >= 0 else -whole

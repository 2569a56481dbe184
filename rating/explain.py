"""Why a session costs what it costs: as data (each amount with its tariff, element, reason and readings) and as a bill.

Takes rows of usage (from the offline engine or from the ledger) and the tariff that priced them; prices nothing.
Readings and held energy come in from metering where they are known.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from rating import money, words
from rating.columns import PARKING, RESERVATION, RESERVATION_EXPIRED
from rating.ratesheet import SheetSource
from rating.settle import note_codes
from rating.tariff import DIMENSION_NAMES, ENERGY, FLAT, TAX_INCLUDED, TAX_NONE
from rating.usage import MAX_PRICE, MIN_PRICE, NO_ELEMENT, ROUNDING, STEP, UsageRow

SPLIT_CODES: Final = ("reading", "time", "kwh", "duration", "power", "current", "state")
_SPLITS: Final = (
    "a meter reading",
    "the tariff's clock: another price from this time on",
    "an amount of energy at which the price changes",
    "a duration at which the price changes",
    "the charging power changed",
    "the charging current changed",
    "charging began or ended",
)
_STATES: Final = {PARKING: "parked", RESERVATION: "reserved", RESERVATION_EXPIRED: "reservation expired"}
_ROWS: Final = {**DIMENSION_NAMES, STEP: "STEP", MIN_PRICE: "MIN_PRICE", MAX_PRICE: "MAX_PRICE", ROUNDING: "ROUNDING"}
_SETTLEMENT: Final = {
    MIN_PRICE: "the tariff's minimum price for a session",
    MAX_PRICE: "the tariff's maximum price for a session",
    ROUNDING: "rounding of the total, half away from zero",
}
_NOTES: Final = {
    "step_size_applied": "A quantity was rounded up to the tariff's billing step.",
    "min_price_applied": "The minimum price applied.",
    "max_price_applied": "The maximum price applied.",
    "tax_scaled_with_limit": "The tax moved in proportion to the limited price.",
    "excl_lowered_to_incl_limit": "The maximum price including tax lowered the price before tax as well.",
    "power_not_measured": "A price depends on power, which was not measured: that price was not used.",
    "current_not_measured": "A price depends on current, which was not measured: that price was not used.",
    "energy_free": "Some energy has no price in this tariff and is free.",
    "apportioned": "A price changed between two meter readings: the energy between them was divided by charging time.",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Totals:
    """The totals of a settled session, in 1e-4 of the currency; tax lines are (VAT in 1e-4 percent or -1, amount)."""

    excl_e4: int
    incl_e4: int
    taxes: Sequence[tuple[int, int]] = ()
    notes: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """A register reading of the session: UTC ms, mWh, and what verification said ("verified", "unsigned"...)."""

    time_ms: int
    register_mwh: int
    signed: str = "unsigned"


@dataclass(frozen=True, slots=True)
class Held:
    """Energy that is not on the bill yet, and why."""

    energy_mwh: int
    reason: str


def explain(
    rows: Sequence[UsageRow],
    source: SheetSource,
    totals: Totals,
    readings: Sequence[Reading] = (),
    held: Sequence[Held] = (),
) -> dict[str, Any]:
    """The explanation as data; amounts are decimal strings. `readings` ascending in time."""
    tariff = source.tariff
    decimals = money.minor_decimals(tariff.currency)
    return {
        "tariff": {"key": source.key, "id": tariff.id, "currency": tariff.currency, "zone": source.zone},
        "prices": {TAX_INCLUDED: "include tax", TAX_NONE: "no tax applies"}.get(tariff.tax, "exclude tax"),
        "lines": [_line(row, source, readings) for row in rows],
        "sum": _cost_text(sum(row.cost for row in rows)),
        "total_excl": money.shown(totals.excl_e4, decimals),
        "total_incl": money.shown(totals.incl_e4, decimals),
        "taxes": [
            {"percentage": None if vat < 0 else words.amount(vat, 10_000), "amount": money.shown(tax, decimals)}
            for vat, tax in totals.taxes
            if tax != 0
        ],
        "notes": [{"code": code, "text": _NOTES[code]} for code in note_codes(totals.notes)],
        "held": [{"energy_kwh": words.amount(one.energy_mwh, 1_000_000), "reason": one.reason} for one in held],
    }


def text(explanation: Mapping[str, Any]) -> str:
    """The explanation as a bill that a customer can follow."""
    zone = ZoneInfo(explanation["tariff"]["zone"])
    currency = explanation["tariff"]["currency"]
    out = [
        f"Tariff {explanation['tariff']['key']}, prices in {currency} {explanation['prices']}, local time {zone.key}",
        "",
    ]
    for line in explanation["lines"]:
        out.append(_bill_line(line, zone))
        out.append(f"    {line['why']}")
        out.extend(f"    {extra}" for extra in _extras(line))
    out += ["", f"{'Sum':<58}{explanation['sum']:>16}"]
    out += [f"{'Total before tax':<58}{explanation['total_excl']:>16}"]
    for tax in explanation["taxes"]:
        name = "VAT" if tax["percentage"] is None else f"VAT {tax['percentage']} %"
        out.append(f"{name:<58}{tax['amount']:>16}")
    out.append(f"{'To pay, ' + currency:<58}{explanation['total_incl']:>16}")
    out.extend(f"* {note['text']}" for note in explanation["notes"])
    out.extend(f"! {one['energy_kwh']} kWh held back, not billed: {one['reason']}" for one in explanation["held"])
    return "\n".join(out) + "\n"


def _line(row: UsageRow, source: SheetSource, readings: Sequence[Reading]) -> dict[str, Any]:
    energy = row.dimension == ENERGY or (row.dimension == STEP and row.steps == ENERGY)
    line: dict[str, Any] = {
        "row": _ROWS[row.dimension],
        "from": _instant(row.start_ms),
        "to": _instant(row.end_ms),
        "quantity": _quantity(row, energy),
        "price": None if row.element == NO_ELEMENT else money.shown(row.price_e4, 2),
        "per": None if row.element == NO_ELEMENT or row.dimension == FLAT else ("kWh" if energy else "h"),
        "cost": _cost_text(row.cost),
        "vat": None if row.vat_e4 < 0 else words.amount(row.vat_e4, 10_000),
        "tariff": source.key,
        "element": None if row.element == NO_ELEMENT else row.element,
        "component": None if row.component == NO_ELEMENT else row.component,
        "state": _STATES.get(row.state, "charging"),
        "why": _why(row, source),
    }
    if row.dimension <= FLAT:
        line |= {"begins_at": SPLIT_CODES[row.split], "apportioned": row.apportioned}
    if readings and row.dimension < FLAT:
        line["readings"] = _behind(row, readings)
    return line


def _why(row: UsageRow, source: SheetSource) -> str:
    """The reason of a row: why this price, or what settlement added."""
    if row.dimension in _SETTLEMENT:
        return _SETTLEMENT[row.dimension]
    if row.element == NO_ELEMENT:
        return "no element of the tariff prices this: free"
    holds = words.condition(source.tariff.elements[row.element], source.zone)
    if row.dimension == STEP:
        step = source.tariff.elements[row.element].components[row.component].step_size
        unit = f"{words.amount(step, 1000)} kWh" if row.steps == ENERGY else words.duration(step * 1000)
        return f"billed in steps of {unit}: the rest of the last step, at the last price"
    first = "once per session" if row.dimension == FLAT else "the first element of the tariff that fits"
    return f"element {row.element + 1} of the tariff: {holds} ({first})"


def _behind(row: UsageRow, readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """The readings that enclose a row: the last at or before its start to the first at or after its end."""
    times = [reading.time_ms for reading in readings]
    first = max(bisect_right(times, row.start_ms) - 1, 0)
    last = min(bisect_left(times, row.end_ms), len(times) - 1)
    return [
        {
            "time": _instant(one.time_ms),
            "register_kwh": words.amount(one.register_mwh, 1_000_000),
            "signed": one.signed,
        }
        for one in (readings[first], readings[last])
    ]


def _quantity(row: UsageRow, energy: bool) -> str | None:
    if row.dimension in _SETTLEMENT or row.dimension == FLAT:
        return None
    return f"{words.amount(row.quantity, 1_000_000)} kWh" if energy else words.duration(row.quantity)


def _instant(instant_ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=instant_ms)).isoformat().replace("+00:00", "Z")


def _cost_text(cost: int) -> str:
    """Cost with 4 decimals, more only where it is finer."""
    digits = f"{money.cost_decimal(cost):.12f}".rstrip("0")
    point = digits.index(".")
    return digits.ljust(point + 5, "0")


def _bill_line(line: Mapping[str, Any], zone: ZoneInfo) -> str:
    start, end = (datetime.fromisoformat(line[key]).astimezone(zone) for key in ("from", "to"))
    span = f"{start:%d %b %H:%M:%S}" + (f"-{end:%H:%M:%S}" if end > start else "")
    what = line["row"] + (f" {line['quantity']}" if line["quantity"] else "")
    if line["price"] is not None:
        what += f" at {line['price']}" + (f"/{line['per']}" if line["per"] else "")
    return f"{span:<26}{what:<48}{line['cost']:>16}"


def _extras(line: Mapping[str, Any]) -> list[str]:
    extras = []
    if line.get("begins_at") not in (None, "reading"):
        extras.append(f"begins at {_SPLITS[SPLIT_CODES.index(line['begins_at'])]}")
    if line.get("apportioned"):
        extras.append("between two meter readings: energy divided by charging time")
    readings = line.get("readings", ())
    return extras + [f"meter {one['time']}: {one['register_kwh']} kWh ({one['signed']})" for one in readings]

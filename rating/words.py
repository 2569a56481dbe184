"""A tariff's conditions in plain words, for explanations and for people who read tariffs."""

from datetime import date, timedelta
from typing import Final

from rating.tariff import EVERY_DAY, RESERVATION_ELEMENT, WEEKDAYS, Element, Limits, Window

_EPOCH: Final = date(1970, 1, 1)


def condition(element: Element, zone: str) -> str:
    """When an element holds: "between 08:00 and 20:00 on Monday to Friday (Europe/Berlin), below 20 kWh"."""
    parts = [*_when(element.window, zone), *_limits(element.limits)]
    if element.reservation:
        parts.insert(
            0, "for a reservation" if element.reservation == RESERVATION_ELEMENT else "for an expired reservation"
        )
    return ", ".join(parts) if parts else "always"


def amount(value: int, per_unit: int) -> str:
    """A quantity in its unit without trailing zeros: amount(20500, 1000) is "20.5"."""
    whole, rest = divmod(abs(value), per_unit)
    digits = len(str(per_unit)) - 1
    text = f"{whole}.{rest:0{digits}d}".rstrip("0").rstrip(".") if rest else str(whole)
    return f"-{text}" if value < 0 else text


def duration(length_ms: int) -> str:
    """Hours, minutes and seconds: "1 h 30 min", "12 s"."""
    seconds, ms = divmod(length_ms, 1000)
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    fraction = f".{ms:03d}".rstrip("0") if ms else ""
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0)
    return " ".join(parts + [f"{rest}{fraction} s"] * (rest > 0 or ms > 0 or not parts))


def _when(window: Window, zone: str) -> list[str]:
    parts = []
    if (window.start_minute, window.end_minute) != (0, 1440) and window.start_minute != window.end_minute:
        parts.append(f"between {_clock(window.start_minute)} and {_clock(window.end_minute)}")
    if window.weekdays != EVERY_DAY:
        parts.append(f"on {_days(window.weekdays)}")
    if window.start_day is not None:
        parts.append(f"from {_EPOCH + timedelta(days=window.start_day)}")
    if window.end_day is not None:
        parts.append(f"before {_EPOCH + timedelta(days=window.end_day)}")
    return [f"{' '.join(parts)} ({zone})"] if parts else []


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _days(bits: int) -> str:
    """Weekdays, runs of three and more as "Monday to Friday"."""
    days = [name.capitalize() for index, name in enumerate(WEEKDAYS) if bits >> index & 1]
    run = bits and "1" * len(days) in f"{bits:b}"
    return f"{days[0]} to {days[-1]}" if run and len(days) > 2 else " and ".join(days) if days else "no day"


def _limits(limits: Limits) -> list[str]:
    pairs = (
        ("{} kWh", limits.min_mwh, limits.max_mwh, 1_000_000),
        ("{} A", limits.min_current_ma, limits.max_current_ma, 1000),
        ("{} kW", limits.min_power_mw, limits.max_power_mw, 1_000_000),
    )
    parts = []
    for unit, low, high, per_unit in pairs:
        if low is not None:
            parts.append(f"from {unit.format(amount(low, per_unit))}")
        if high is not None:
            parts.append(f"below {unit.format(amount(high, per_unit))}")
    if limits.min_duration_ms is not None:
        parts.append(f"after {duration(limits.min_duration_ms)}")
    if limits.max_duration_ms is not None:
        parts.append(f"in the first {duration(limits.max_duration_ms)}")
    return parts

"""What a tariff element is called by people: the hours, days and limits for which it holds."""

from functools import lru_cache
from typing import Any

import msgspec

from pipeline.clickhouse import Store

_DAYS = {
    "MONDAY": "Mo",
    "TUESDAY": "Tu",
    "WEDNESDAY": "We",
    "THURSDAY": "Th",
    "FRIDAY": "Fr",
    "SATURDAY": "Sa",
    "SUNDAY": "Su",
}
_LIMITS = (("kwh", "kWh"), ("power", "kW"), ("current", "A"), ("duration", "s"))


def band_of(store: Store, tariff: str, element: int) -> str:
    """The element's restrictions in a few words; "all the time" where it has none."""
    if element < 0:
        return "free"
    document = _tariff(store, tariff)
    elements = document.get("elements", ())
    return words(elements[element].get("restrictions") or {}) if element < len(elements) else f"element {element}"


def words(restrictions: dict[str, Any]) -> str:
    """Restrictions as people say them (mod_tariffs TariffRestrictions)."""
    said = []
    if "start_time" in restrictions or "end_time" in restrictions:
        said.append(f"{restrictions.get('start_time', '00:00')}–{restrictions.get('end_time', '00:00')}")
    days = restrictions.get("day_of_week")
    if days:
        said.append(" ".join(_DAYS[day] for day in days))
    if "start_date" in restrictions or "end_date" in restrictions:
        said.append(f"{restrictions.get('start_date', '…')} to {restrictions.get('end_date', '…')}")
    for name, unit in _LIMITS:
        low, high = restrictions.get(f"min_{name}"), restrictions.get(f"max_{name}")
        if low is not None or high is not None:
            said.append(f"{low or 0}–{high if high is not None else '∞'} {unit}")
    if "reservation" in restrictions:
        said.append(restrictions["reservation"].lower())
    return ", ".join(said) or "all the time"


@lru_cache(maxsize=1024)
def _tariff(store: Store, key: str) -> dict[str, Any]:
    name, _, version = key.rpartition("@")
    body = store.scalar(
        "SELECT body FROM reference_rows "
        "WHERE kind = 'tariff' AND id = {id:String} AND version = {version:UInt64} LIMIT 1",
        {"id": name, "version": int(version)},
    )
    return msgspec.json.decode(body) if body else {}

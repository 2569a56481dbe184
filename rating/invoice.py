"""A partner's CDR or Session checked: priced again from its charging periods, its published totals held against ours.

OCPI: mod_cdrs CDR object, mod_sessions Session object. Reads 2.1.1 (plain numbers), 2.2.1 and 2.3.0 (Price objects).
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from rating import cases, money
from rating.errors import RatingError, SessionError
from rating.session import decimal_of

# A published total, and what we say of it.
_QUANTITIES: Final = {
    "total_energy": "total_energy_kwh",
    "kwh": "total_energy_kwh",
    "total_time": "total_time_h",
    "total_parking_time": "total_parking_time_h",
}
_COSTS: Final = {
    "total_energy_cost": "energy_cost",
    "total_time_cost": "time_cost",
    "total_parking_cost": "parking_cost",
    "total_fixed_cost": "flat_cost",
    "total_reservation_cost": "reservation_cost",
}
_QUANTITY_DECIMALS: Final = 4  # OCPI number: what a publisher may have rounded hours and kWh to, at the finest


def is_invoice(line: Mapping[str, Any]) -> bool:
    """Whether a line of JSON is a CDR or Session (bare, or under `cdr` or `session` of OCPI's shape)."""
    return "cdr" in line or "start_date_time" in line or "start_date_time" in (line.get("session") or {})


def check_invoice(line: Mapping[str, Any], default_zone: str | None = None) -> dict[str, Any]:
    """Our totals of a CDR or Session, whether the published ones `agree`, and the `differences`.

    The tariff is `tariff` of the line, or the document's own `tariffs`; the zone is `timezone` of the line,
    `time_zone` of its location, or `default_zone`. Never raises for what a line holds: `error` says why.
    """
    document = line.get("cdr") or line.get("session") or line
    name = line.get("id") or document.get("id")
    try:
        computed = _price(line, document, default_zone)
        differences = list(_differences(document, computed))
    except RatingError as error:
        return {"id": name, "error": str(error)}
    return {"id": name, **computed, "agrees": not differences, "differences": differences}


def _price(line: Mapping[str, Any], document: Mapping[str, Any], default_zone: str | None) -> dict[str, Any]:
    given = [line["tariff"]] if line.get("tariff") else []
    tariffs = [*given, *(line.get("other_tariffs") or []), *(document.get("tariffs") or [])]
    if not tariffs:
        raise SessionError("no tariff: give one as `tariff` beside the document, or as its own `tariffs`")
    location = document.get("cdr_location") or {}
    zone = line.get("timezone") or location.get("time_zone") or default_zone
    if zone is None and _needs_zone(tariffs):
        raise SessionError("the tariff has local times and no time zone was given: add `timezone` or --timezone")
    session = {"cdr_charging_periods": _periods(document), "end": _end(document)}
    return cases.price_session(session, _owned(tariffs), zone or "UTC", line.get("ocpi_version"))


def _owned(tariffs: Sequence[Any]) -> list[Any]:
    """One tariff a name: the first given wins."""
    named = {
        one.get("id") if isinstance(one, Mapping) else index: one for index, one in reversed(list(enumerate(tariffs)))
    }
    return [one for one in tariffs if one in named.values()]


def _needs_zone(tariffs: Sequence[Any]) -> bool:
    local = {"start_time", "end_time", "start_date", "end_date", "day_of_week"}
    elements = (element for one in tariffs if isinstance(one, Mapping) for element in one.get("elements") or [])
    return any(local & set((element or {}).get("restrictions") or {}) for element in elements)


def _end(document: Mapping[str, Any]) -> Any:
    """2.1.1 names it `stop_date_time` (CDR); an open Session is checked up to `last_updated`."""
    keys = ("end_date_time", "stop_date_time", "end_datetime", "last_updated")
    return next((document[key] for key in keys if document.get(key)), None)


def _periods(document: Mapping[str, Any]) -> list[Any]:
    """The charging periods; a Session may have none, then all of it is one."""
    periods = document.get("charging_periods")
    if periods:
        return list(periods)
    volume = document.get("kwh", document.get("total_energy", 0))
    start = document.get("start_date_time", document.get("start_datetime"))
    return [{"start_date_time": start, "dimensions": [{"type": "ENERGY", "volume": volume}]}]


def _differences(document: Mapping[str, Any], computed: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    minor = money.minor_decimals(str(document.get("currency") or "EUR"))
    for field, name in _QUANTITIES.items():
        if document.get(field) is not None:
            yield from _compare(field, document[field], computed[name], _QUANTITY_DECIMALS)
    totals = {"excl": computed["total_cost_excl_vat"], "incl": computed["total_cost_incl_vat"]}
    yield from _compare_cost("total_cost", document.get("total_cost"), totals, minor)
    for field, name in _COSTS.items():
        yield from _compare_cost(field, document.get(field), computed[name], minor)


def _compare_cost(field: str, published: Any, ours: Mapping[str, str], decimals: int) -> Iterator[dict[str, str]]:
    """A plain number (2.1.1), {excl_vat, incl_vat} (2.2.1) or {before_taxes, taxes} (2.3.0)."""
    if published is None:
        return
    if not isinstance(published, Mapping):
        yield from _compare(field, published, ours["excl"], decimals)
        return
    for side, names in (("excl", ("excl_vat", "before_taxes")), ("incl", ("incl_vat",))):
        for name in names:
            if published.get(name) is not None:
                yield from _compare(f"{field}.{name}", published[name], ours[side], decimals)
    taxes = published.get("taxes")
    if isinstance(taxes, list):
        amount = sum((decimal_of(tax.get("amount"), f"{field}.taxes") for tax in taxes), Decimal(0))
        ours_tax = Decimal(ours["incl"]) - Decimal(ours["excl"])
        yield from _compare(f"{field}.taxes", amount, str(ours_tax), decimals)


def _compare(field: str, published: Any, ours: str, decimals: int) -> Iterator[dict[str, str]]:
    """A difference beyond half a unit of the published last place (at least `decimals`: JSON drops trailing zeros)."""
    theirs = decimal_of(published, field)
    exponent = theirs.normalize().as_tuple().exponent
    printed = max(decimals, -exponent if isinstance(exponent, int) else 0)
    grain = Decimal(1).scaleb(-printed) / 2 if not field.endswith(".taxes") else Decimal(1).scaleb(-printed)
    if abs(theirs - Decimal(ours)) > grain:
        yield {"field": field, "published": str(published), "computed": ours}

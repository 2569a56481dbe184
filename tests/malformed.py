"""Tariffs that are broken on purpose, each with the JSON path at which a parser must say so."""

import copy
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

NOT_NUMBERS: tuple[Any, ...] = ("0.25", "1,50", None, True, [], {}, float("nan"), float("inf"), 0.12345, 1e16)
NOT_TEXTS: tuple[Any, ...] = (None, "", 7, [], {})
NOT_LISTS: tuple[Any, ...] = (None, [], {}, "x", 3)
NOT_TIMES: tuple[Any, ...] = ("24:01", "12:60", "9:00", "0900", "", 9, [], "aa:bb", "25:00", "٠٩:٠٠")
NOT_DATES: tuple[Any, ...] = ("2024-13-01", "2024-02-30", "01.02.2024", "", 20240101, "2024-1-1")
NOT_LIMITS: tuple[Any, ...] = (-1, "3", [], True, 0.00001)
NOT_SECONDS: tuple[Any, ...] = (-1, "60", 0.5, [], True, 10**10)

Place = tuple[Any, Any, str]
"""Container, key and JSON path of a value."""


def broken(tariff: Mapping[str, Any], seed: int) -> tuple[dict[str, Any], str]:
    """A copy of a valid tariff with one thing broken, and the path of that thing."""
    random = Random(seed)
    source = copy.deepcopy(dict(tariff))
    container, key, path = random.choice(BREAKS)(source, random)
    return source, f"{path}[{key}]" if isinstance(container, list) else f"{path}.{key}"


def _element(source: dict[str, Any], random: Random) -> tuple[dict[str, Any], str]:
    index = random.randrange(len(source["elements"]))
    return source["elements"][index], f"$.elements[{index}]"


def _put(container: Any, key: Any, path: str, value: Any) -> Place:
    container[key] = value
    return container, key, path


def _break_head(source: dict[str, Any], random: Random) -> Place:
    key = random.choice(("id", "currency"))
    return _put(source, key, "$", random.choice((*NOT_TEXTS, "   ")))


def _break_currency(source: dict[str, Any], random: Random) -> Place:
    return _put(source, "currency", "$", random.choice(("EURO", "E", "E1R", "€€€")))


def _break_elements(source: dict[str, Any], random: Random) -> Place:
    return _put(source, "elements", "$", random.choice(NOT_LISTS))


def _break_element(source: dict[str, Any], random: Random) -> Place:
    elements = source["elements"]
    return _put(elements, random.randrange(len(elements)), "$.elements", random.choice((None, 3, "x", [])))


def _break_components(source: dict[str, Any], random: Random) -> Place:
    element, path = _element(source, random)
    return _put(element, "price_components", path, random.choice(NOT_LISTS))


def _component(source: dict[str, Any], random: Random) -> tuple[dict[str, Any], str]:
    element, path = _element(source, random)
    index = random.randrange(len(element["price_components"]))
    return element["price_components"][index], f"{path}.price_components[{index}]"


def _break_type(source: dict[str, Any], random: Random) -> Place:
    component, path = _component(source, random)
    return _put(component, "type", path, random.choice((None, "energy", "SESSION_TIME", 1, [])))


def _break_price(source: dict[str, Any], random: Random) -> Place:
    component, path = _component(source, random)
    return _put(component, "price", path, random.choice(NOT_NUMBERS))


def _break_step(source: dict[str, Any], random: Random) -> Place:
    component, path = _component(source, random)
    return _put(component, "step_size", path, random.choice(NOT_SECONDS))


def _break_vat(source: dict[str, Any], random: Random) -> Place:
    component, path = _component(source, random)
    return _put(component, "vat", path, random.choice((-1, "20", 1000.5, float("nan"))))


def _break_restrictions(source: dict[str, Any], random: Random) -> Place:
    element, path = _element(source, random)
    return _put(element, "restrictions", path, random.choice(([1], "x", 7)))


def _restriction(keys: tuple[str, ...], values: tuple[Any, ...]) -> Callable[[dict[str, Any], Random], Place]:
    def put(source: dict[str, Any], random: Random) -> Place:
        element, path = _element(source, random)
        restrictions = element.setdefault("restrictions", {})
        return _put(restrictions, random.choice(keys), f"{path}.restrictions", random.choice(values))

    return put


def _break_day(source: dict[str, Any], random: Random) -> Place:
    element, path = _element(source, random)
    days = element.setdefault("restrictions", {})["day_of_week"] = ["MONDAY", "TUESDAY"]
    return _put(days, 1, f"{path}.restrictions.day_of_week", random.choice(("Monday", 1, None, [], "MON")))


def _break_validity(source: dict[str, Any], random: Random) -> Place:
    key = random.choice(("start_date_time", "end_date_time"))
    return _put(source, key, "$", random.choice(("2024-01-01", "yesterday", 7, "2024-13-01T00:00:00Z")))


def _break_limit(source: dict[str, Any], random: Random) -> Place:
    key = random.choice(("min_price", "max_price"))
    return _put(
        source, key, "$", random.choice(({}, {"incl_vat": 3}, "x", -1, {"excl_vat": "1"}, {"before_taxes": -1}))
    )


BREAKS: tuple[Callable[[dict[str, Any], Random], Place], ...] = (
    _break_head,
    _break_currency,
    _break_elements,
    _break_element,
    _break_components,
    _break_type,
    _break_price,
    _break_step,
    _break_vat,
    _break_restrictions,
    _restriction(("start_time", "end_time"), NOT_TIMES),
    _restriction(("start_date", "end_date"), NOT_DATES),
    _restriction(("min_kwh", "max_kwh", "min_power", "max_power", "min_current", "max_current"), NOT_LIMITS),
    _restriction(("min_duration", "max_duration"), NOT_SECONDS),
    _restriction(("reservation",), ("reservation", 1, [], "EXPIRED")),
    _break_day,
    _break_validity,
    _break_limit,
)

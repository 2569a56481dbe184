"""Small tariffs for tests, written as short as their meaning."""

from typing import Any

from rating.tariff import Tariff, parse_tariff

HOUR = 3_600_000
KWH = 1_000_000
MONDAY = 1_546_819_200_000  # 2019-01-07T00:00:00Z


def component(kind: str, price: float, step: int = 1, vat: float | None = None) -> dict[str, Any]:
    """A PriceComponent."""
    return {"type": kind, "price": price, "step_size": step} | ({} if vat is None else {"vat": vat})


def element(*components: dict[str, Any], **restrictions: Any) -> dict[str, Any]:
    """A TariffElement; keywords are its restrictions."""
    return {"price_components": list(components)} | ({"restrictions": restrictions} if restrictions else {})


def tariff(*elements: dict[str, Any], version: str = "2.2.1", **more: Any) -> Tariff:
    """A Tariff in euro of the elements."""
    base = {"country_code": "NL", "party_id": "TST", "id": "T", "currency": "EUR", "elements": list(elements)}
    return parse_tariff({**base, **more}, version)

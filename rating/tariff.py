"""OCPI Tariff objects (2.1.1, 2.2.1, 2.3.0) parsed to frozen values in integer units.

Units: price 1e-4 currency per unit, VAT 1e-4 percent, energy mWh, power mW, current mA, durations ms,
local times minutes since midnight, local dates days since 1970-01-01, instants UTC ms.
What this file does not read (alternative texts, energy mix, unknown fields) is kept in `Tariff.source`, untouched.
What is legal but probably wrong is for `lint`; what a tariff means is for `ratesheet` and `settle`.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from rating import fields
from rating.errors import TariffError
from rating.fields import JsonObject

# Dimensions, numbered as in the ledger's rows (mod_tariffs: TariffDimensionType).
ENERGY: Final = 1
TIME: Final = 2
PARKING_TIME: Final = 3
FLAT: Final = 4
DIMENSIONS: Final = {"ENERGY": ENERGY, "TIME": TIME, "PARKING_TIME": PARKING_TIME, "FLAT": FLAT}
DIMENSION_NAMES: Final = {number: name for name, number in DIMENSIONS.items()}

# Whom an element is for (mod_tariffs: ReservationRestrictionType).
CHARGING_ELEMENT: Final = 0
RESERVATION_ELEMENT: Final = 1
EXPIRED_ELEMENT: Final = 2
_RESERVATIONS: Final = {"RESERVATION": RESERVATION_ELEMENT, "RESERVATION_EXPIRES": EXPIRED_ELEMENT}

# Whether prices hold the tax (2.3.0 mod_tariffs: TaxIncluded). Before 2.3.0 prices exclude VAT.
TAX_EXCLUDED: Final = 0
TAX_INCLUDED: Final = 1
TAX_NONE: Final = 2
_TAX: Final = {"NO": TAX_EXCLUDED, "YES": TAX_INCLUDED, "N/A": TAX_NONE}

WEEKDAYS: Final = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
EVERY_DAY: Final = (1 << 7) - 1
VERSIONS: Final = ("2.1.1", "2.2", "2.2.1", "2.3.0")


@dataclass(frozen=True, slots=True)
class PriceComponent:
    """One price of an element. `vat_e4` None means that no VAT applies, which is not the same as 0 %."""

    dimension: int
    price_e4: int
    vat_e4: int | None
    step_size: int  # Wh for ENERGY, s for TIME and PARKING_TIME; 0 = none


@dataclass(frozen=True, slots=True)
class Window:
    """When an element may match by the local clock: times, dates (end exclusive) and weekdays (bit 0 = Monday)."""

    start_minute: int = 0
    end_minute: int = 24 * 60
    start_day: int | None = None
    end_day: int | None = None
    weekdays: int = EVERY_DAY

    @property
    def always(self) -> bool:
        """Whether the local clock never matters."""
        return self == ALWAYS


ALWAYS: Final = Window()


@dataclass(frozen=True, slots=True)
class Limits:
    """What the session itself must fulfil: minima inclusive, maxima exclusive, None = no limit."""

    min_mwh: int | None = None
    max_mwh: int | None = None
    min_current_ma: int | None = None
    max_current_ma: int | None = None
    min_power_mw: int | None = None
    max_power_mw: int | None = None
    min_duration_ms: int | None = None
    max_duration_ms: int | None = None


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Element:
    """A TariffElement: its components, and when they hold."""

    components: tuple[PriceComponent, ...]
    window: Window = ALWAYS
    limits: Limits = NO_LIMITS
    reservation: int = CHARGING_ELEMENT


@dataclass(frozen=True, slots=True)
class PriceLimit:
    """`min_price` or `max_price`, in 1e-4 of the currency; None = not limited."""

    excl_e4: int | None
    incl_e4: int | None


@dataclass(frozen=True, slots=True)
class Tariff:
    """An OCPI Tariff. `source` is the object as it came, for CDRs and for fields that rating does not use."""

    ocpi_version: str
    country_code: str
    party_id: str
    id: str
    currency: str
    elements: tuple[Element, ...]
    tax: int = TAX_EXCLUDED
    min_price: PriceLimit | None = None
    max_price: PriceLimit | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    source: JsonObject = field(default_factory=dict, compare=False, repr=False)

    @property
    def whole_element(self) -> bool:
        """Whether one element supplies all dimensions at once (OCPI 2.1.1), not each its own."""
        return self.ocpi_version == "2.1.1"

    @property
    def depends_on_time(self) -> bool:
        """Whether it has a `start_date_time` or an `end_date_time`."""
        return self.start_ms is not None or self.end_ms is not None

    def valid_at(self, instant_ms: int) -> bool:
        """Whether `start_date_time` <= instant < `end_date_time`."""
        return (self.start_ms is None or self.start_ms <= instant_ms) and (
            self.end_ms is None or instant_ms < self.end_ms
        )


def parse_tariff(source: Any, ocpi_version: str | None = None) -> Tariff:
    """Read a decoded Tariff object.

    The version is told by the object where it is not given: no `country_code` is 2.1.1, a
    `tax_included` is 2.3.0, else 2.2.1. Raises TariffError with the JSON path.
    """
    tariff = fields.object_at(source, "$")
    version = ocpi_version or _told_version(tariff)
    if version not in VERSIONS:
        raise TariffError("$", f"an OCPI version out of {', '.join(VERSIONS)}", version)
    elements = fields.list_field(tariff, "elements", "$")
    return Tariff(
        ocpi_version=version,
        country_code=_owner(tariff, "country_code", 2),
        party_id=_owner(tariff, "party_id", 3),
        id=fields.text_field(tariff, "id", "$"),
        currency=_currency(tariff),
        elements=tuple(_element(one, f"$.elements[{index}]") for index, one in enumerate(elements)),
        tax=_tax(tariff),
        min_price=_limit(tariff, "min_price"),
        max_price=_limit(tariff, "max_price"),
        start_ms=fields.optional_instant(tariff, "start_date_time", "$"),
        end_ms=fields.optional_instant(tariff, "end_date_time", "$"),
        source=tariff,
    )


def _told_version(tariff: JsonObject) -> str:
    if tariff.get("country_code") is None:
        return "2.1.1"
    return "2.3.0" if tariff.get("tax_included") is not None else "2.2.1"


def _owner(tariff: JsonObject, key: str, length: int) -> str:
    """`country_code` or `party_id`: absent before 2.2, and in the wild; a price needs neither."""
    if tariff.get(key) is None:
        return ""
    value = fields.text_field(tariff, key, "$")
    if len(value) != length:
        raise TariffError(f"$.{key}", f"a string of {length} characters", value)
    return value


def _currency(tariff: JsonObject) -> str:
    value = fields.text_field(tariff, "currency", "$")
    if len(value) != 3 or not (value.isascii() and value.isalpha()):
        raise TariffError("$.currency", "an ISO 4217 code of three letters", value)
    return value.upper()


def _tax(tariff: JsonObject) -> int:
    if tariff.get("tax_included") is None:
        return TAX_EXCLUDED
    return _TAX[fields.choice_field(tariff, "tax_included", "$", tuple(_TAX))]


def _limit(tariff: JsonObject, key: str) -> PriceLimit | None:
    """A Price (2.2.1), a PriceLimit or a Price with tax lines (2.3.0), or the plain number of early drafts."""
    value = tariff.get(key)
    path = f"$.{key}"
    if value is None:
        return None
    if not isinstance(value, dict):
        return PriceLimit(fields.number_e4(value, path, minimum=0), None)
    excl = next((name for name in ("excl_vat", "before_taxes") if value.get(name) is not None), None)
    if excl is None:
        raise TariffError(path, "excl_vat (OCPI 2.2.1) or before_taxes (OCPI 2.3.0)", value)
    excl_e4 = fields.number_e4(value[excl], f"{path}.{excl}", minimum=0)
    return PriceLimit(excl_e4, _limit_incl(value, path, excl_e4))


def _limit_incl(value: JsonObject, path: str, excl_e4: int) -> int | None:
    for name in ("incl_vat", "after_taxes"):
        if value.get(name) is not None:
            return fields.number_e4(value[name], f"{path}.{name}", minimum=0)
    lines = value.get("taxes")
    if not lines:
        return None
    amounts = (fields.object_at(line, f"{path}.taxes[{i}]").get("amount") for i, line in enumerate(lines))
    return excl_e4 + sum(fields.number_e4(one, f"{path}.taxes[{i}].amount") for i, one in enumerate(amounts))


def _element(source: Any, path: str) -> Element:
    element = fields.object_at(source, path)
    components = tuple(
        _component(one, f"{path}.price_components[{index}]")
        for index, one in enumerate(fields.list_field(element, "price_components", path))
    )
    if element.get("restrictions") is None:
        return Element(components)
    path = f"{path}.restrictions"
    restrictions = fields.object_at(element["restrictions"], path)
    return Element(
        components, _window(restrictions, path), _limits(restrictions, path), _reservation(restrictions, path)
    )


def _component(source: Any, path: str) -> PriceComponent:
    component = fields.object_at(source, path)
    dimension = DIMENSIONS[fields.choice_field(component, "type", path, tuple(DIMENSIONS))]
    optional_step = dimension == FLAT and component.get("step_size") is None  # "Flat fee without unit for step_size"
    return PriceComponent(
        dimension=dimension,
        price_e4=fields.number_e4(component.get("price"), f"{path}.price"),
        vat_e4=_vat(component, path),
        step_size=0 if optional_step else fields.count_field(component, "step_size", path),
    )


def _vat(component: JsonObject, path: str) -> int | None:
    vat_e4 = fields.optional_e4(component, "vat", path)
    if vat_e4 is not None and vat_e4 > 10_000_000:
        raise TariffError(f"{path}.vat", "a percentage from 0 to 1000", component["vat"])
    return vat_e4


def _window(restrictions: JsonObject, path: str) -> Window:
    start, end = restrictions.get("start_time"), restrictions.get("end_time")
    first, last = restrictions.get("start_date"), restrictions.get("end_date")
    return Window(
        start_minute=0 if start is None else fields.minute_of_day(start, f"{path}.start_time", end=False),
        end_minute=24 * 60 if end is None else fields.minute_of_day(end, f"{path}.end_time", end=True),
        start_day=None if first is None else fields.local_day(first, f"{path}.start_date"),
        end_day=None if last is None else fields.local_day(last, f"{path}.end_date"),
        weekdays=_weekdays(restrictions, path),
    )


def _weekdays(restrictions: JsonObject, path: str) -> int:
    days = restrictions.get("day_of_week")
    if days is None or days == []:  # an empty list restricts nothing: OCPI cardinality *
        return EVERY_DAY
    path = f"{path}.day_of_week"
    if not isinstance(days, list | tuple):
        raise TariffError(path, "a list of days", days)
    bits = 0
    for index, day in enumerate(days):
        if day not in WEEKDAYS:
            raise TariffError(f"{path}[{index}]", f"one of {', '.join(WEEKDAYS)}", day)
        bits |= 1 << WEEKDAYS.index(day)
    return bits


def _limits(restrictions: JsonObject, path: str) -> Limits:
    def scaled(key: str, numerator: int, denominator: int) -> int | None:
        value = fields.optional_e4(restrictions, key, path)
        # Rounded up: for whole mA `x >= 32000.1` and `x >= 32001` are the same, and so are the two `x <`.
        return None if value is None else -(-value * numerator // denominator)

    def seconds(key: str) -> int | None:
        return None if restrictions.get(key) is None else fields.count_field(restrictions, key, path) * 1000

    return Limits(
        min_mwh=scaled("min_kwh", 100, 1),
        max_mwh=scaled("max_kwh", 100, 1),
        min_current_ma=scaled("min_current", 1, 10),
        max_current_ma=scaled("max_current", 1, 10),
        min_power_mw=scaled("min_power", 100, 1),
        max_power_mw=scaled("max_power", 100, 1),
        min_duration_ms=seconds("min_duration"),
        max_duration_ms=seconds("max_duration"),
    )


def _reservation(restrictions: JsonObject, path: str) -> int:
    if restrictions.get("reservation") is None:
        return CHARGING_ELEMENT
    return _RESERVATIONS[fields.choice_field(restrictions, "reservation", path, tuple(_RESERVATIONS))]

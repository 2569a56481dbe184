"""What we read of OCPI's Location and Token objects, and our own fields in them (`reference` names these)."""

import msgspec


class Connector(msgspec.Struct, frozen=True):
    """What we read of an OCPI Connector; power in W."""

    tariff_ids: tuple[str, ...] = ()
    max_electric_power: int | None = None
    max_voltage: int | None = None
    max_amperage: int | None = None


class Evse(msgspec.Struct, frozen=True):
    """What we read of an OCPI EVSE, with our own fields."""

    uid: str
    connectors: tuple[Connector, ...] = ()
    charge_point_id: str | None = None
    evse_id: int | None = None
    meter_public_key: str | None = None
    model: str = ""

    @property
    def charge_point(self) -> str:
        """The charge point that it belongs to."""
        return self.charge_point_id or self.uid

    @property
    def tariff_ids(self) -> tuple[str, ...]:
        """The tariffs it lists: those of its first connector."""
        return self.connectors[0].tariff_ids if self.connectors else ()

    @property
    def max_power_w(self) -> int:
        """What it can give: the largest of its connectors (OCPI: max_electric_power); 0 = not known."""
        return max((connector.max_electric_power or 0 for connector in self.connectors), default=0)


def owner_of(country_code: str, party_id: str) -> str:
    """As keys of a party's objects begin: "CC*PARTY*"."""
    return f"{country_code}*{party_id}*"


class Coordinates(msgspec.Struct, frozen=True):
    """OCPI GeoLocation: degrees as text."""

    latitude: str
    longitude: str


class Location(msgspec.Struct, frozen=True):
    """What we read of an OCPI Location."""

    id: str
    time_zone: str
    country_code: str = ""
    party_id: str = ""
    evses: tuple[Evse, ...] = ()
    coordinates: Coordinates | None = None

    @property
    def owner(self) -> str:
        """Whose it is, as keys of its party's objects begin: "CC*PARTY*"."""
        return owner_of(self.country_code, self.party_id)


class Token(msgspec.Struct, frozen=True):
    """What we read of an OCPI Token, with the driver's own tariff."""

    uid: str
    country_code: str = ""
    party_id: str = ""
    tariff_id: str | None = None

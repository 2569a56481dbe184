"""Which column of a sessions table says what: presets for known files, and a mapping for anyone's own."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.errors import DocumentError


@dataclass(frozen=True)
class TableMapping:
    """Where a table keeps a session's facts. Several columns separated by + are joined by a space.

    Empty = the table does not say. Times without an offset are local to `time_zone`.
    """

    start: str = "start"
    end: str = "end"
    energy: str = "energy_kwh"
    energy_unit: str = "kWh"  # kWh | Wh
    charge_point: str = "charge_point_id"
    connector: str = ""  # number on the charge point; empty: as many as overlapping sessions need
    session: str = ""  # the table's own id of the row; empty: the line number
    token: str = ""
    site: str = ""
    model: str = ""
    duration_h: str = ""  # elapsed hours; decides between the two readings of a repeated local hour
    idle_s: str = ""  # seconds connected without charging
    time_format: str = ""  # strptime format; empty: ISO 8601
    time_zone: str = "UTC"
    delimiter: str = ","
    decimal_comma: bool = False
    rating_kw: float = 22.0  # where neither the model nor anything else tells
    country_code: str = "XX"  # of the locations made for the file's connectors
    country: str = "XXX"
    city: str = ""
    latitude: str = "0.00000"
    longitude: str = "0.00000"
    tariff: str = ""  # id of the sample tariff for the file's connectors
    site_pattern: str = ""  # regular expression: its first group in the site's text is the site


PRESETS: Final[Mapping[str, TableMapping]] = {
    "dundee": TableMapping(
        start="Start Date+Start Time",
        end="End Date+End Time",
        energy="Total kWh",
        charge_point="CP ID",
        connector="Connector",
        session="Charging event",
        token="User ID",  # noqa: S106  a column's name
        site="Site",
        model="Model",
        time_format="%d/%m/%Y %H:%M",
        time_zone="Europe/London",
        country_code="GB",
        country="GBR",
        city="Dundee",
        latitude="56.46200",
        longitude="-2.97070",
        tariff="TOU-GBP",
    ),
    "norway": TableMapping(
        start="plugin_time",
        end="plugout_time",
        energy="energy_session",
        charge_point="user_id",
        session="session_id",
        token="user_id",  # noqa: S106
        site="location",
        duration_h="connection_time",
        time_zone="Europe/Oslo",
        delimiter=";",
        decimal_comma=True,
        country_code="NO",
        country="NOR",
        city="Oslo",
        latitude="59.91390",
        longitude="10.75220",
        tariff="TOU-NOK",
    ),
    "sap": TableMapping(
        start="Date demarrage",
        end="Date fin",
        energy="Consommation totale (Wh)",
        energy_unit="Wh",
        charge_point="ID borne",
        connector="ID connecteur borne",
        session="ID transaction",
        site="ID borne",
        idle_s="Duree inactivite totale (s)",
        time_zone="Europe/Paris",
        delimiter=";",
        rating_kw=50.0,
        country_code="FR",
        country="FRA",
        city="Mougins",
        latitude="43.60050",
        longitude="7.00510",
        tariff="PARK-EUR",
        site_pattern=r"^(SAP-[A-Za-z]+)",
    ),
}
_RATING_KW: Final = {  # by a word in the model's name
    "50kw": 50.0,
    "rapid": 50.0,
    "22kw": 22.0,
    "7kw": 7.4,
}


def with_changes(mapping: TableMapping, changes: Sequence[str]) -> TableMapping:
    """The mapping with NAME=VALUE entries applied. Raises DocumentError for a name that is not a field."""
    kinds = {field.name: type(field.default) for field in dataclasses.fields(mapping)}
    values: dict[str, object] = {}
    for entry in changes:
        name, separator, text = entry.partition("=")
        if name not in kinds or not separator:
            raise DocumentError(f"--map {entry}: write NAME=COLUMN with NAME one of {', '.join(kinds)}")
        values[name] = _value(entry, kinds[name], text)
    return dataclasses.replace(mapping, **values)  # type: ignore[arg-type]


def _value(entry: str, kind: type, text: str) -> object:
    if kind is bool:
        return text.lower() in ("1", "true", "yes")
    if kind is float:
        try:
            return float(text)
        except ValueError as error:
            raise DocumentError(f"--map {entry}: {text!r} is no number") from error
    return {"tab": "\t"}.get(text, text)


def rating_w(mapping: TableMapping, model: str) -> int:
    """The rating of a connector in W: what the model's name says, else the mapping's."""
    name = model.lower()
    named = [kw for word, kw in _RATING_KW.items() if word in name]
    return int((named[0] if named else mapping.rating_kw) * 1_000)

"""Reference data of a fleet: OCPI Tariffs, Locations and Tokens that make its sessions ratable.

The tariffs are the samples that travel with the wheel; locations and tokens are made from the network, with
the fields that wattrate adds to OCPI's (charge_point_id, evse_id, model, meter_public_key on an EVSE;
tariff_id on a Token).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.simulate.network import (
    CITIES,
    KINDS,
    MODELS,
    OWN_TARIFF_EVERY,
    TOKENS_PER_CONNECTOR,
    City,
    Model,
    Network,
)
from pipeline.simulate.signing import public_key

Document = dict[str, Any]
PARTY_ID: Final = "WRT"
UPDATED: Final = "2026-01-01T00:00:00Z"
CLUB_TARIFF: Final = "CLUB-EUR"
# By country: what a fast charger costs, and what the others cost by kind of site.
_TARIFFS: Final = {
    "NO": ("FAST-NOK", {"street": "TOU-NOK", "work": "TOU-NOK", "home": "TOU-NOK"}),
    "GB": ("FLAT-GBP", {"street": "TOU-GBP", "work": "FLAT-GBP", "home": "TOU-GBP"}),
    "FR": ("TIERS-EUR", {"street": "PARK-EUR", "work": "TIERS-EUR", "home": "PARK-EUR"}),
    "PT": ("ALLIN-EUR", {"street": "TIME-EUR", "work": "ALLIN-EUR", "home": "TIME-EUR"}),
}


def tariffs() -> list[Document]:
    """The sample tariffs, in the order of their file names."""
    folder = files("deploy") / "samples" / "tariffs"
    found = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".json")), key=lambda entry: entry.name)
    return [json.loads(entry.read_text(encoding="utf-8")) for entry in found]


def locations(network: Network, *, signed: bool = True) -> Iterator[Document]:
    """One OCPI Location a site, with its EVSEs. `signed` adds each meter's public key (50 µs a charge point)."""
    first = np.searchsorted(network.cp_site, np.arange(len(network.site_city) + 1))
    connector_first = np.searchsorted(network.connector_cp, np.arange(len(network.cp_names) + 1))
    for site in range(len(network.site_city)):
        city = CITIES[network.site_city[site]]
        kind = KINDS[network.site_kind[site]]
        evses = [
            _evse(network, cp, connector, _tariff_of(city, kind, MODELS[network.cp_model[cp]]), signed)
            for cp in range(first[site], first[site + 1])
            for connector in range(connector_first[cp], connector_first[cp + 1])
        ]
        yield _location(city, site, kind, evses)


def _tariff_of(city: City, kind: str, model: Model) -> str:
    fast, others = _TARIFFS[city.country_code]
    return fast if model.power_w >= 50_000 else others.get(kind, others["street"])


def _location(city: City, site: int, kind: str, evses: list[Document]) -> Document:
    # Sites of a city lie within some 5 km of its centre, so cities are always further apart than their sites.
    north, east = site * 7919 % 1_000 / 1_000 - 0.5, site * 104_729 % 1_000 / 1_000 - 0.5
    return {
        "country_code": city.country_code,
        "party_id": PARTY_ID,
        "id": f"{city.code}{site:06d}",
        "publish": True,
        "name": f"{city.name} {kind} {site}",
        "address": f"Street {site}",
        "city": city.name,
        "country": city.country,
        "coordinates": {
            "latitude": f"{city.latitude + north * 0.08:.5f}",
            "longitude": f"{city.longitude + east * 0.08:.5f}",
        },
        "time_zone": city.time_zone,
        "evses": evses,
        "last_updated": UPDATED,
    }


def _evse(network: Network, cp: int, connector: int, tariff_id: str, signed: bool) -> Document:
    name, model = network.cp_names[cp], MODELS[network.cp_model[cp]]
    number = int(network.connector_id[connector])
    evse: Document = {
        "uid": f"{name.decode()}*{number}",
        "status": "AVAILABLE",
        "charge_point_id": name.decode(),
        "evse_id": number,
        "model": model.name,
        "connectors": [_connector(model, tariff_id)],
        "last_updated": UPDATED,
    }
    if signed:
        evse["meter_public_key"] = public_key(name)
    return evse


def _connector(model: Model, tariff_id: str) -> Document:
    fast = model.power_w >= 50_000
    three = model.phases == 3
    return {
        "id": "1",
        "standard": "IEC_62196_T2_COMBO" if fast else "IEC_62196_T2",
        "format": "CABLE" if fast else "SOCKET",
        "power_type": "DC" if fast else "AC_3_PHASE" if three else "AC_1_PHASE",
        "max_voltage": 400 if fast else 230,
        "max_amperage": model.power_w // (400 if fast else 690 if three else 230) + 1,
        "max_electric_power": model.power_w,
        "tariff_ids": [tariff_id],
        "last_updated": UPDATED,
    }


def tokens(network: Network) -> Iterator[Document]:
    """Every token of the fleet; some bring their driver's own tariff."""
    country = network.site_city[network.cp_site[network.connector_cp]]
    for number in range(network.connectors * TOKENS_PER_CONNECTOR):
        yield token(number, CITIES[country[number // TOKENS_PER_CONNECTOR]].country_code)


def token(number: int, country_code: str) -> Document:
    """The OCPI Token of a token number."""
    uid = f"T{number:08d}"
    document: Document = {
        "country_code": country_code,
        "party_id": PARTY_ID,
        "uid": uid,
        "type": "RFID",
        "contract_id": f"{country_code}-{PARTY_ID}-C{number:08d}-1",
        "issuer": "wattrate samples",
        "valid": True,
        "whitelist": "ALLOWED",
        "last_updated": UPDATED,
    }
    if number % OWN_TARIFF_EVERY == 0:
        document["tariff_id"] = CLUB_TARIFF
    return document


def reference_documents(network: Network) -> dict[str, list[Document]]:
    """All of a fleet's reference data at once, by kind: tariffs, locations, tokens."""
    return {"tariffs": tariffs(), "locations": list(locations(network)), "tokens": list(tokens(network))}


def write_documents(folder: Path, tariffs_: Iterable[Document], kinds: Mapping[str, Iterable[Document]]) -> None:
    """Write a folder that `wattrate publish` reads: tariffs/ID.json, and one JSON array for each other kind."""
    (folder / "tariffs").mkdir(parents=True, exist_ok=True)
    for tariff in tariffs_:
        name = f"{tariff['country_code']}-{tariff['party_id']}-{tariff['id']}.json".lower()
        (folder / "tariffs" / name).write_text(json.dumps(tariff, indent=2, ensure_ascii=False) + "\n", "utf-8")
    for kind, documents in kinds.items():
        with (folder / f"{kind}.json").open("w", encoding="utf-8") as file:
            separator = "[\n"
            for document in documents:
                file.write(separator + json.dumps(document, ensure_ascii=False, separators=(",", ":")))
                separator = ",\n"
            file.write("\n]\n" if separator != "[\n" else "[]\n")

"""Where a charge point stands and by which clock, as reference data knew it: without loading all of it."""

from typing import Any, NamedTuple

import msgspec

from pipeline.clickhouse import Store
from pipeline.coverage import Asked
from pipeline.reference import LOCATION, Change, ReferenceData


class Place(NamedTuple):
    """A charge point's location; empty texts where it is not known, and then UTC."""

    zone: str
    name: str
    address: str
    city: str
    evse_uid: str


NOWHERE = Place("UTC", "", "", "", "")


def place_of(asked: Asked, charge_point_id: str, connector_id: int, version: int) -> Place:
    """The place at reference version `version`, or the first one published later; `asked` of `ask_locations`."""
    rows = asked.result()
    changes = [Change(r["version"], LOCATION, r["id"], bool(r["deleted"]), r["body"].encode()) for r in rows]
    data = ReferenceData()
    for change in sorted(changes, key=lambda c: c.version):
        if change.version > version and charge_point_id in data.charge_points:
            break
        data = data.changed(change.version, [change])
    found = data.resolve(charge_point_id, connector_id, "", 0)
    named = data.charge_points.get(charge_point_id)
    if named is None:
        return NOWHERE
    body = data.locations[named if isinstance(named, str) else named[0]].body
    location: dict[str, Any] = msgspec.json.decode(body)
    name, address, city = (str(location.get(field, "")) for field in ("name", "address", "city"))
    return Place(found.zone, name, address, city, found.evse_uid)


def ask_locations(store: Store, charge_point_id: str) -> Asked:
    """Every version of the locations that ever named the charge point; not before what counts was looked up."""
    return store.ask(
        "SELECT version, id, deleted, body FROM reference_rows PREWHERE kind = 'location' AND id IN "
        "(SELECT id FROM reference_rows PREWHERE has(charge_points, {charge_point:String}))",
        {"charge_point": charge_point_id},
    )

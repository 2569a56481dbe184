"""Tariffs, locations and tokens as of one version, and what they say of a session: price, zone, limits, meter key.

A version is a fact: loading it gives the same answers on any machine at any time. The next version is made from the
one before by what it changed. Publishing is in `publication`. OCPI: mod_locations, mod_tariffs, mod_tokens.

Fields that OCPI does not have: on an EVSE `charge_point_id` (default: its uid), `evse_id` (OCPP's connector or EVSE
number; default: its place among the EVSEs of its charge point, from 1), `meter_public_key`, `model`; on a Token
`tariff_id` (the driver's own tariff: it wins over the connector's).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any, Final, NamedTuple, Self, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.errors import StoreRefusedError
from pipeline.locations import ChargePoints, Document, Documents, Draft, Load, Outlet, Place, Shape, outlet_of
from pipeline.ocpi import Coordinates, Evse, Location, Token, owner_of
from pipeline.texts import Packed
from rating.tariff import Tariff, parse_tariff

TARIFF: Final = "tariff"
LOCATION: Final = "location"
TOKEN: Final = "token"  # noqa: S105 (OCPI's word, not a secret)
POLICY: Final = "policy"
_LOCATIONS_KEPT: Final = 2_048  # parsed
_PLACES_KEPT: Final = 16_384  # charge points looked up
_AT_ONCE: Final = 16_384  # changes taken in
_READ: Final = 8_192  # objects read from the store at once
_TOGETHER: Final = 512  # of them, whose charge points are looked up together
KINDS: Final = (TARIFF, LOCATION, TOKEN, POLICY)


_T = TypeVar("_T")


_LOCATION: Final = msgspec.json.Decoder(Location)
_TOKEN: Final = msgspec.json.Decoder(Token)


class Resolution(NamedTuple):
    """What reference data says of a session that starts. `tariff` is None when `reason` says why there is none."""

    reason: str  # "" or unknown_charge_point, unknown_connector, no_tariff, unknown_tariff, tariff_not_valid
    tariff_key: str  # "CC*PARTY*ID@version", "" without a tariff
    tariff: Tariff | None
    zone: str  # IANA name, "UTC" where the charge point is unknown
    max_power_w: int  # 0 = not known
    location_id: str
    evse_uid: str
    public_key: str  # of the meter, "" = none
    model: str
    latitude: str  # degrees, "" = not known
    longitude: str


UNKNOWN: Final = Resolution("unknown_charge_point", "", None, "UTC", 0, "", "", "", "", "", "")


class Where(NamedTuple):
    """Where a connector is; see Resolution."""

    location_id: str
    latitude: str
    longitude: str


NOWHERE: Final = Where("", "", "")


class Priced(NamedTuple):
    """The tariff that holds, or why there is none; see Resolution."""

    reason: str
    tariff_key: str
    tariff: Tariff | None


class Default(NamedTuple):
    """What a connector has by itself; see Resolution."""

    priced: Priced
    zone: str
    max_power_w: int


_Own = tuple[tuple[str, str], ...]  # (token CC*PARTY*UID, its tariff id), sorted; nearly always one


@dataclass(frozen=True)
class ReferenceData:
    """All of it at one version. Immutable; `advance` shares what did not change."""

    version: int = 0
    tariffs: Mapping[str, Document] = field(default_factory=dict)  # by CC*PARTY*ID
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # tariff id → keys that bear it, sorted
    locations: Documents = field(default_factory=Documents)  # by CC*PARTY*ID
    charge_points: ChargePoints = field(default_factory=ChargePoints)
    own_tariffs: Mapping[str, _Own] = field(default_factory=dict)  # by token uid in lower case
    policies: Mapping[str, Document] = field(default_factory=dict)
    _seen: "dict[str, _Place]" = field(default_factory=dict, repr=False, compare=False)  # looked up lately

    @classmethod
    def at(cls, store: Store, version: int) -> Self:
        """Load a version whole. Raises StoreUnavailableError, StoreRefusedError when the version does not exist."""
        return cls().advance(store, version)

    def advance(self, store: Store, version: int) -> Self:
        """The data at a later version, made from this one by what was published in between."""
        if version < self.version:
            return type(self).at(store, version)
        newest = latest_version(store)
        if version > newest:
            raise StoreRefusedError(
                f"{store.where} has reference data up to version {newest}, but the log asks for {version}: "
                "is this the store that it was published to?"
            )
        if version == self.version:
            return self
        rows = _changes(store, self.version, version)
        return self.changed(version, rows) if self.version else self.loaded(version, rows)

    @classmethod
    def loaded(cls, version: int, rows: "Iterable[Change]") -> Self:
        """What `changed` makes of nothing and these objects, each told once; at a tenth of its cost."""
        left, load, maps = iter(rows), Load(), _Maps(cls())
        while part := list(islice(left, _AT_ONCE)):
            maps.put_all([row for row in part if row.kind != LOCATION])
            _load(
                load,
                {row.id: Document(row.version, row.body) for row in part if row.kind == LOCATION and not row.deleted},
            )
        locations, charge_points = load.done()
        return cls(version, **{**maps.done(), "locations": locations, "charge_points": charge_points})

    def changed(self, version: int, rows: "Iterable[Change]") -> Self:
        """The data after these changes; pure."""
        left, data = iter(rows), self
        while part := list(islice(left, _AT_ONCE)):
            maps = _Maps(data)
            for at in range(0, len(part), _TOGETHER):
                maps.put_all(part[at : at + _TOGETHER])
            data = type(self)(version, **maps.done())
        return data if data is not self else type(self)(version, **_Maps(self).done())

    def resolve(self, charge_point_id: str, connector_id: int, id_token: str, at_ms: int) -> Resolution:
        """What holds for a session that starts at `at_ms` (UTC ms); `id_token` may be empty."""
        place = self._place(charge_point_id)
        if place is None:
            return UNKNOWN
        evse, location = place.evse(connector_id), place.location
        if evse is None:
            return UNKNOWN._replace(reason="unknown_connector", zone=location.time_zone, location_id=location.id)
        own = self.own_tariffs.get(id_token.lower(), ()) if id_token else ()
        wanted = (own[0][1], *evse.tariff_ids) if own else evse.tariff_ids
        reason, key, tariff = self._priced(location.owner, wanted, at_ms)
        return Resolution(reason, key, tariff, *_facts(location, evse))

    def where(self, charge_point_id: str, connector_id: int) -> Where:
        """The part of `resolve` that says where a connector is."""
        place = self._place(charge_point_id)
        if place is None:
            return NOWHERE
        location, evse = place.location, place.evse(connector_id)
        if evse is None or location.coordinates is None:
            return Where(location.id, "", "")
        return Where(location.id, location.coordinates.latitude, location.coordinates.longitude)

    def defaults(
        self, names: Packed, ids: npt.NDArray[np.integer], at_ms: int
    ) -> tuple[npt.NDArray[np.int64], list[Default]]:
        """What holds for many connectors (charge point, id) without a token: places in a list, and that.

        Each kind of charge point and each tariff is looked up once.
        """
        shapes, known = self.charge_points.shapes(names)
        where = np.zeros(len(ids), np.int64)
        of_kind = np.flatnonzero(shapes >= 0)
        kinds, where[of_kind] = np.unique(shapes[of_kind].astype(np.int64) << 32 | ids[of_kind], return_inverse=True)
        priced: dict[tuple[str, str, tuple[str, ...]], Priced] = {}
        found = [self._default(known[kind >> 32], kind & 0xFFFFFFFF, at_ms, priced) for kind in kinds.tolist()]
        for at in np.flatnonzero(shapes < 0).tolist():
            resolved = self.resolve(names.text(at).decode(), int(ids[at]), "", at_ms)
            where[at] = len(found)
            found.append(Default(Priced(*resolved[:3]), resolved.zone, resolved.max_power_w))
        return where, found

    def _default(
        self, shape: Shape, connector_id: int, at_ms: int, priced: dict[tuple[str, str, tuple[str, ...]], Priced]
    ) -> Default:
        at = outlet_of([outlet.evse_id for outlet in shape.outlets], connector_id)
        if at is None:
            return Default(Priced("unknown_connector", "", None), shape.time_zone, 0)
        outlet = shape.outlets[at]
        wanted = shape.country_code, shape.party_id, outlet.tariff_ids
        if wanted not in priced:
            priced[wanted] = self._priced(owner_of(*wanted[:2]), outlet.tariff_ids, at_ms)
        return Default(priced[wanted], shape.time_zone, outlet.max_power_w)

    def kinds_of(self, connectors: Iterable[tuple[str, int]]) -> Iterator[tuple[str, str]]:
        """Model and location of many connectors (charge point, id); "" where it is not known."""
        for charge_point_id, connector_id in connectors:
            place = self._place(charge_point_id)
            evse = place.evse(connector_id) if place else None
            yield evse.model if evse else "", place.location.id if place else ""

    def public_key(self, charge_point_id: str, connector_id: int) -> str:
        """The meter's public key, "" when none is known."""
        return self.resolve(charge_point_id, connector_id, "", 0).public_key

    def tariff(self, key: str) -> Tariff | None:
        """The tariff "CC*PARTY*ID@version" if that is the version in force here; else ask `tariff_of_history`."""
        name, _, version = key.rpartition("@")
        document = self.tariffs.get(name)
        return _parsed(document.body) if document and str(document.version) == version else None

    def body_of(self, charge_point_id: str) -> bytes | None:
        """The Location object of a charge point."""
        place = self._place(charge_point_id)
        return place.body if place else None

    def _place(self, charge_point_id: str) -> "_Place | None":
        if (seen := self._seen.get(charge_point_id)) is not None:
            return seen
        found = self.charge_points.get(charge_point_id)
        if found is None:
            return None
        if isinstance(found, tuple):  # a charge point that several locations name is where it was published last
            found = min(found, key=lambda k: (-self.locations[k].version, k))
        if len(self._seen) >= _PLACES_KEPT:
            self._seen.clear()
        place = self._seen[charge_point_id] = _places_kept(self.locations[found].body)[charge_point_id]
        return place

    def _priced(self, owner: str, wanted: Iterable[str], at_ms: int) -> Priced:
        reason = "no_tariff"
        for tariff_id in wanted:
            key = self._tariff_key(tariff_id, owner)
            if key is None:
                reason = "unknown_tariff"
                continue
            document = self.tariffs[key]
            tariff = _parsed(document.body)
            if tariff.valid_at(at_ms):
                return Priced("", f"{key}@{document.version}", tariff)
            reason = "tariff_not_valid"
        return Priced(reason, "", None)

    def _tariff_key(self, tariff_id: str, owner: str) -> str | None:
        """The location's own party first (its connectors list its ids), else the first party that has the id."""
        own = owner + tariff_id
        return own if own in self.tariffs else next(iter(self.owners.get(tariff_id, ())), None)


class _Place(NamedTuple):
    """One charge point at its location."""

    location: Location
    evses: list[Evse]
    body: bytes

    def evse(self, connector_id: int) -> Evse | None:
        """The EVSE of this number; 0 means the only one."""
        at = outlet_of(_numbers(self.evses), connector_id)
        return None if at is None else self.evses[at]


def _numbers(evses: Sequence[Evse]) -> list[int]:
    """The numbers of a charge point's EVSEs."""
    return [evse.evse_id or place for place, evse in enumerate(evses, 1)]


def _shape(location: Location, evses: Sequence[Evse]) -> Shape:
    """What prices sessions at these EVSEs, one charge point's."""
    numbered = zip(_numbers(evses), evses, strict=True)
    outlets = tuple(Outlet(number, evse.tariff_ids, evse.max_power_w) for number, evse in numbered)
    return Shape(location.country_code, location.party_id, location.time_zone, outlets)


class Change(NamedTuple):
    """One published or deleted object."""

    version: int
    kind: str
    id: str
    deleted: bool
    body: bytes


class _Maps:
    """Working copies of a ReferenceData's maps; of the large ones only what changes."""

    def __init__(self, data: ReferenceData) -> None:
        self._data = data
        self.tariffs = dict(data.tariffs)
        self.owners = dict(data.owners)
        self.own_tariffs = dict(data.own_tariffs)
        self.policies = dict(data.policies)
        self.locations = Draft(data.locations.get)
        self.charge_points = Draft(data.charge_points.place)

    def done(self) -> dict[str, Any]:
        """The maps of the ReferenceData after the changes."""
        return {
            "tariffs": self.tariffs, "owners": self.owners, "own_tariffs": self.own_tariffs, "policies": self.policies,
            "locations": self._data.locations.changed(self.locations.changes),
            "charge_points": self._data.charge_points.changed(self.charge_points.changes),
        }  # fmt: skip

    def put_all(self, rows: Sequence[Change]) -> None:
        """Changes in order. New charge points, nearly all of a load, are told from known ones in one question."""
        places = [_places(row.body) if row.kind == LOCATION and not row.deleted else {} for row in rows]
        self.charge_points.absent = self._data.charge_points.absent([name for named in places for name in named])
        for row, named in zip(rows, places, strict=True):
            self._put(row, named)

    def _put(self, row: Change, places: "Mapping[str, _Place]") -> None:
        document = None if row.deleted else Document(row.version, row.body)
        match row.kind:
            case "tariff":
                _set(self.tariffs, row.id, document)
                self._own(row.id, document)
            case "location":
                self._locate(row.id, document, places)
            case "token":
                self._bring(row.id, None if row.deleted else _TOKEN.decode(row.body).tariff_id)
            case "policy":
                _set(self.policies, row.id, document)

    def _bring(self, key: str, tariff_id: str | None) -> None:
        uid = key.split("*", 2)[2].lower()
        others = [pair for pair in self.own_tariffs.get(uid, ()) if pair[0] != key]
        _set(self.own_tariffs, uid, tuple(sorted([*others, *([(key, tariff_id)] if tariff_id else [])])) or None)

    def _own(self, key: str, document: Document | None) -> None:
        tariff_id = key.split("*", 2)[2]
        keys = set(self.owners.get(tariff_id, ())) - {key} | ({key} if document else set())
        _set(self.owners, tariff_id, tuple(sorted(keys)) or None)

    def _locate(self, key: str, document: Document | None, places: "Mapping[str, _Place]") -> None:
        old = self.locations.get(key)
        for name in _places(old.body) if old else ():
            self._claim(name, self._others(name, key), None)
        self.locations.changes[key] = document
        for name, place in places.items():
            self._claim(name, (*self._others(name, key), key), _shape(place.location, place.evses))

    def _others(self, charge_point: str, key: str) -> tuple[str, ...]:
        place = self.charge_points.get(charge_point)
        return tuple(one for one in place.locations if one != key) if place else ()

    def _claim(self, charge_point: str, keys: tuple[str, ...], shape: Shape | None) -> None:
        place = Place(tuple(sorted(keys)), shape if len(keys) == 1 else None)
        self.charge_points.changes[charge_point] = place if keys else None


def _load(load: Load, documents: Mapping[str, Document]) -> None:
    """Take locations in. What a charge point has is mostly what others have: a shape is made where it is new."""
    names: list[str] = []
    counts, shapes = [], []
    known: dict[tuple[Any, ...], int] = {}
    for document in documents.values():
        location = _LOCATION.decode(document.body)
        where = location.country_code, location.party_id, location.time_zone
        ours: dict[str, tuple[Any, ...]] = {}
        for evse in location.evses:
            name = evse.charge_point_id or evse.uid
            ours[name] = (*ours.get(name, ()), evse.evse_id, evse.connectors)
        names += ours
        counts.append(len(ours))
        for name, has in ours.items():
            if (where, has) not in known:
                evses = [evse for evse in location.evses if evse.charge_point == name]
                known[where, has] = load.number(_shape(location, evses))
            shapes.append(known[where, has])
    load.add(documents, names, counts, shapes)


def _set(mapping: dict[str, _T], key: str, value: _T | None) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value


@lru_cache(maxsize=4096)
def _parsed(body: bytes) -> Tariff:
    return parse_tariff(msgspec.json.decode(body))


def _places(body: bytes) -> dict[str, _Place]:
    """The charge points of a location."""
    location = _LOCATION.decode(body)
    ours: dict[str, list[Evse]] = {}
    for evse in location.evses:
        ours.setdefault(evse.charge_point, []).append(evse)
    bare = msgspec.structs.replace(location, evses=())  # what is kept of one charge point holds no other's
    return {name: _Place(bare, evses, body) for name, evses in ours.items()}


_places_kept: Final = lru_cache(maxsize=_LOCATIONS_KEPT)(_places)


def _facts(location: Location, evse: Evse) -> tuple[str, int, str, str, str, str, str, str]:
    """The part of a Resolution that no version of a tariff changes."""
    where = location.coordinates or Coordinates("", "")
    return (
        location.time_zone, evse.max_power_w, location.id, evse.uid, evse.meter_public_key or "", evse.model,
        where.latitude, where.longitude,
    )  # fmt: skip


def latest_version(store: Store) -> int:
    """The newest published version; 0 before the first."""
    return int(store.scalar("SELECT max(version) FROM reference_rows WHERE kind != 'publication'") or 0)


def _changes(store: Store, after: int, until: int) -> Iterator[Change]:
    """The last state of every object that versions after+1 … until touched, read in parts that take little memory.

    Most tokens have no tariff of their own and never get here; one that lost it since does.
    """
    span: dict[str, Any] = {"after": after, "until": until}
    these = "version > {after:UInt64} AND version <= {until:UInt64}"
    own = (
        ""
        if after
        else "AND id IN (SELECT id FROM reference_rows WHERE kind = 'token' "
        "AND version <= {until:UInt64} AND position(body, '\"tariff_id\"') > 0)"
    )
    coming = _last_of(store, f"{these} AND kind = 'token' {own}", span)
    others = f"{these} AND kind NOT IN ('publication', 'token')"
    ids = store.arrow(f"SELECT DISTINCT id FROM reference_rows WHERE {others} ORDER BY id", span).column(0)
    for first, stop in pairwise([*ids[::_READ].to_pylist(), None]):
        mine = f"{others} AND id >= {{first:String}}" + (" AND id < {stop:String}" if stop is not None else "")
        following = _last_of(store, mine, {**span, "first": first, "stop": stop})
        yield from _told(coming.result())
        coming = following  # it is read by the store while this one is taken in
    yield from _told(coming.result())


def _last_of(store: Store, which: str, values: dict[str, Any]) -> "Future[pa.Table]":
    """The last state of the objects that these rows are of."""
    return store.ask_arrow(
        "SELECT max(version) AS last_version, kind, id, argMax(deleted, version) AS last_deleted, "
        f"argMax(body, version) AS last_body FROM reference_rows WHERE {which} GROUP BY kind, id ORDER BY kind, id",
        values,
    )


def _told(found: pa.Table) -> Iterator[Change]:
    """Its rows."""
    versions, kinds, ids, deleted = (found.column(i).to_pylist() for i in range(4))
    bodies = found.column(4).cast(pa.binary()).to_pylist()
    for version, kind, key, gone, body in zip(versions, kinds, ids, deleted, bodies, strict=True):
        yield Change(version, kind, key, bool(gone), body)  # type: ignore[arg-type]  # no column is nullable

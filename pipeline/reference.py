"""Tariffs, locations and tokens as of one version, and what they say of a session: price, zone, limits, meter key.

A version is a fact: loading it gives the same answers on any machine at any time. The next version is made from the
one before by what it changed. Publishing is in `publication`. OCPI: mod_locations, mod_tariffs, mod_tokens.

Fields that OCPI does not have: on an EVSE `charge_point_id` (default: its uid), `evse_id` (OCPP's connector or EVSE
number; default: its place among the EVSEs of its charge point, from 1), `meter_public_key`, `model`; on a Token
`tariff_id` (the driver's own tariff: it wins over the connector's).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple, Self, TypeVar

import msgspec
import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.errors import StoreRefusedError
from rating.errors import TariffError
from rating.tariff import Tariff, parse_tariff

TARIFF: Final = "tariff"
LOCATION: Final = "location"
TOKEN: Final = "token"  # noqa: S105 (OCPI's word, not a secret)
POLICY: Final = "policy"
_LOCATIONS_KEPT: Final = 16_384  # parsed
KINDS: Final = (TARIFF, LOCATION, TOKEN, POLICY)


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
        powers = [connector.max_electric_power or 0 for connector in self.connectors]
        return max(powers) if powers else 0


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
        return f"{self.country_code}*{self.party_id}*"


class Token(msgspec.Struct, frozen=True):
    """What we read of an OCPI Token, with the driver's own tariff."""

    uid: str
    country_code: str = ""
    party_id: str = ""
    tariff_id: str | None = None


_T = TypeVar("_T")


class _EvseIndex(msgspec.Struct, frozen=True):
    uid: str
    charge_point_id: str | None = None


class _LocationIndex(msgspec.Struct, frozen=True):
    evses: tuple[_EvseIndex, ...] = ()


_LOCATION: Final = msgspec.json.Decoder(Location)
_LOCATION_INDEX: Final = msgspec.json.Decoder(_LocationIndex)
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


NO_DEFAULT: Final = Default(Priced(UNKNOWN.reason, "", None), UNKNOWN.zone, 0)


_Own = tuple[tuple[str, str], ...]  # (token CC*PARTY*UID, its tariff id), sorted; nearly always one


class _Document(NamedTuple):
    """A published object: the version that brought it and its JSON."""

    version: int
    body: bytes


@dataclass(frozen=True)
class ReferenceData:
    """All of it at one version. Immutable; `advance` shares what did not change."""

    version: int = 0
    tariffs: Mapping[str, _Document] = field(default_factory=dict)  # by CC*PARTY*ID
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # tariff id → keys that bear it, sorted
    locations: Mapping[str, _Document] = field(default_factory=dict)  # by CC*PARTY*ID
    charge_points: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)  # → location key(s), sorted
    own_tariffs: Mapping[str, _Own] = field(default_factory=dict)  # by token uid in lower case
    policies: Mapping[str, _Document] = field(default_factory=dict)

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
        return self.changed(version, _changes(store, self.version, version)) if version > self.version else self

    def changed(self, version: int, rows: "Iterable[Change]") -> Self:
        """The data after these changes; pure."""
        maps = _Maps(self)
        for row in rows:
            maps.put(row)
        return type(self)(version, **vars(maps))

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
        reason, key, tariff = self._priced(location, wanted, at_ms)
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

    def defaults(self, connectors: Iterable[tuple[str, int]], at_ms: int) -> Iterator[Default]:
        """What holds for many connectors (charge point, id) without a token; each tariff is looked up once."""
        priced: dict[tuple[str, str, tuple[str, ...]], Priced] = {}
        for charge_point_id, connector_id in connectors:
            place = self._place(charge_point_id)
            evse = place.evse(connector_id) if place else None
            if place is None or evse is None:
                yield NO_DEFAULT
                continue
            location = place.location
            wanted = location.country_code, location.party_id, evse.tariff_ids
            if wanted not in priced:
                priced[wanted] = self._priced(location, evse.tariff_ids, at_ms)
            yield Default(priced[wanted], location.time_zone, evse.max_power_w)

    def kinds_of(self, connectors: Iterable[tuple[str, int]]) -> Iterator[tuple[str, str]]:
        """Model and location of many connectors (charge point, id); "" where it is not known."""
        for charge_point_id, connector_id in connectors:
            place = self._place(charge_point_id)
            evse = place.evse(connector_id) if place else None
            yield evse.model if evse else "", place.location.id if place else ""

    def read_locations(self) -> None:
        """Parse locations now that would be parsed when first asked for; as many as are kept."""
        for document in islice(self.locations.values(), _LOCATIONS_KEPT):
            _places(document.body)

    def public_key(self, charge_point_id: str, connector_id: int) -> str:
        """The meter's public key, "" when none is known."""
        return self.resolve(charge_point_id, connector_id, "", 0).public_key

    def tariff(self, key: str) -> Tariff | None:
        """The tariff "CC*PARTY*ID@version" if that is the version in force here; else ask `tariff_of_history`."""
        name, _, version = key.rpartition("@")
        document = self.tariffs.get(name)
        return _parsed(document.body) if document and str(document.version) == version else None

    def _place(self, charge_point_id: str) -> "_Place | None":
        found = self.charge_points.get(charge_point_id)
        if found is None:
            return None
        if isinstance(found, tuple):  # a charge point that several locations name is where it was published last
            found = min(found, key=lambda k: (-self.locations[k].version, k))
        return _places(self.locations[found].body)[charge_point_id]

    def _priced(self, location: Location, wanted: Iterable[str], at_ms: int) -> Priced:
        reason = "no_tariff"
        for tariff_id in wanted:
            key = self._tariff_key(tariff_id, location.owner)
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

    def evse(self, connector_id: int) -> Evse | None:
        """The EVSE of this number; 0 means the only one."""
        if connector_id <= 0:
            numbers = {evse.evse_id or place for place, evse in enumerate(self.evses, 1)}
            return self.evses[-1] if len(numbers) == 1 else None
        for place in range(len(self.evses), 0, -1):
            evse = self.evses[place - 1]
            if (evse.evse_id or place) == connector_id:
                return evse
        return None


class Change(NamedTuple):
    """One published or deleted object."""

    version: int
    kind: str
    id: str
    deleted: bool
    body: bytes


class _Maps:
    """Working copies of a ReferenceData's maps; only those that change are copied."""

    def __init__(self, data: ReferenceData) -> None:
        self.tariffs = dict(data.tariffs)
        self.owners = dict(data.owners)
        self.locations = dict(data.locations)
        self.charge_points = dict(data.charge_points)
        self.own_tariffs = dict(data.own_tariffs)
        self.policies = dict(data.policies)

    def put(self, row: Change) -> None:
        document = None if row.deleted else _Document(row.version, row.body)
        match row.kind:
            case "tariff":
                _set(self.tariffs, row.id, document)
                self._own(row.id, document)
            case "location":
                self._locate(row.id, document)
            case "token":
                self._bring(row.id, None if row.deleted else _TOKEN.decode(row.body).tariff_id)
            case "policy":
                _set(self.policies, row.id, document)

    def _bring(self, key: str, tariff_id: str | None) -> None:
        uid = key.split("*", 2)[2].lower()
        others = [pair for pair in self.own_tariffs.get(uid, ()) if pair[0] != key]
        _set(self.own_tariffs, uid, tuple(sorted([*others, *([(key, tariff_id)] if tariff_id else [])])) or None)

    def _own(self, key: str, document: _Document | None) -> None:
        tariff_id = key.split("*", 2)[2]
        keys = set(self.owners.get(tariff_id, ())) - {key} | ({key} if document else set())
        _set(self.owners, tariff_id, tuple(sorted(keys)) or None)

    def _locate(self, key: str, document: _Document | None) -> None:
        old = self.locations.get(key)
        for name in _charge_points(old.body) if old else ():
            self._claim(name, _keys(self.charge_points.get(name)) - {key})
        _set(self.locations, key, document)
        for name in _charge_points(document.body) if document else ():
            self._claim(name, _keys(self.charge_points.get(name)) | {key})

    def _claim(self, charge_point: str, keys: set[str]) -> None:
        one = next(iter(keys)) if len(keys) == 1 else tuple(sorted(keys)) or None
        _set(self.charge_points, charge_point, one)


def _set(mapping: dict[str, _T], key: str, value: _T | None) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def _keys(found: str | tuple[str, ...] | None) -> set[str]:
    return set() if found is None else {found} if isinstance(found, str) else set(found)


def _charge_points(body: bytes) -> set[str]:
    return {evse.charge_point_id or evse.uid for evse in _LOCATION_INDEX.decode(body).evses}


@lru_cache(maxsize=4096)
def _parsed(body: bytes) -> Tariff:
    return parse_tariff(msgspec.json.decode(body))


@lru_cache(maxsize=_LOCATIONS_KEPT)
def _places(body: bytes) -> dict[str, _Place]:
    """The charge points of a location."""
    location = _LOCATION.decode(body)
    ours: dict[str, list[Evse]] = {}
    for evse in location.evses:
        ours.setdefault(evse.charge_point, []).append(evse)
    return {name: _Place(location, evses) for name, evses in ours.items()}


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
    """The last state of every object that versions after+1 … until touched.

    Most tokens have no tariff of their own and never get here; one that lost it since does.
    """
    own = (
        ""
        if after
        else "AND (kind != 'token' OR id IN (SELECT id FROM reference_rows WHERE kind = 'token' "
        "AND version <= {until:UInt64} AND position(body, '\"tariff_id\"') > 0))"
    )
    found = store.arrow(
        "SELECT max(version) AS last_version, kind, id, argMax(deleted, version) AS last_deleted, "
        "argMax(body, version) AS last_body FROM reference_rows "
        f"WHERE version > {{after:UInt64}} AND version <= {{until:UInt64}} AND kind != 'publication' {own} "
        "GROUP BY kind, id ORDER BY kind, id",
        {"after": after, "until": until},
    )
    versions, kinds, ids, deleted = (found.column(i).to_pylist() for i in range(4))
    bodies = found.column(4).cast(pa.binary()).to_pylist()
    for version, kind, key, gone, body in zip(versions, kinds, ids, deleted, bodies, strict=True):
        yield Change(version, kind, key, bool(gone), body)  # type: ignore[arg-type]  # no column is nullable


def tariff_of_history(store: Store, key: str) -> Tariff | None:
    """The tariff "CC*PARTY*ID@version" whenever it was published; None when it never was."""
    name, _, version = key.rpartition("@")
    body = store.scalar(
        "SELECT body FROM reference_rows "
        "WHERE kind = 'tariff' AND id = {id:String} AND version = {version:UInt64} LIMIT 1",
        {"id": name, "version": int(version)},
    )
    try:
        return None if body is None else parse_tariff(msgspec.json.decode(body))
    except TariffError as error:
        raise StoreRefusedError(f"{store.where}: stored tariff {key} can't be read: {error}") from error

"""Sessions that began and ended, for the rules across connectors: the records of the topic `session.events`.

A function of rows that count and of the reference version that they name, so what is sent again after a crash is the
same: a start from the reading that began the session, a stop from its CDR, or from its hold where it waits for a
person. A session may be told to start twice (its start, and its first register) and to stop twice (held, then settled).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ledger import CDRS, QUARANTINE, READINGS, Heard
from pipeline.metering import kinds
from pipeline.metering.columns import KIND_START
from pipeline.reference import ReferenceData


class Remembers(Protocol):
    """A ledger that knows what readings told of sessions."""

    def heard(self, sessions: Iterable[tuple[str, int, int, int]]) -> Mapping[int, Heard]:
        """By key, for (charge point, key, partition, offset): what was told up to that offset."""


DataOf = Callable[[int], ReferenceData]  # reference data by version

_PLACE: Final = ("partition", "offset", "line", "charge_point_id", "connector_id", "session_key")
_START: Final = (*_PLACE, "time", "id_token", "reference_version")
_STOP: Final = (*_PLACE, "end", "start", "id_token", "energy_mwh", "location_id", "credit", "document")
_HELD: Final = (*_PLACE, "action")


class _Named(msgspec.Struct, gc=False):
    """What every event says first; fields in the order in which they are written."""

    event: str
    partition: int
    offset: int
    line: int
    charge_point_id: str
    connector_id: int
    session_key: str
    time_ms: int


class _Started(_Named, gc=False):
    """A session began."""

    id_token: str
    location_id: str
    latitude: str
    longitude: str


class _Settled(_Named, gc=False):
    """A session ended, or its CDR was credited."""

    start_ms: int
    id_token: str
    energy_mwh: int
    location_id: str
    latitude: str
    longitude: str


class _Waits(_Named, gc=False):
    """A session ended and is held."""

    start_ms: int
    id_token: str
    location_id: str
    latitude: str
    longitude: str


class _Coordinates(msgspec.Struct):
    latitude: str = ""
    longitude: str = ""


class _CdrLocation(msgspec.Struct):
    coordinates: _Coordinates = msgspec.field(default_factory=_Coordinates)


class _Cdr(msgspec.Struct):
    """Where the CDR says that it was."""

    cdr_location: _CdrLocation = msgspec.field(default_factory=_CdrLocation)


class Event(NamedTuple):
    """A record's key (token, else location: what rules look at lies in one partition) and value."""

    key: bytes
    value: bytes


_cdr: Final = msgspec.json.Decoder(_Cdr)
_ENCODER: Final = msgspec.json.Encoder()


def session_events(tables: Mapping[str, pa.Table], ledger: Remembers, data_of: DataOf) -> list[Event]:
    """The events of a batch that is marked, in the order of the log."""
    facts: list[_Started | _Settled | _Waits] = [*_starts(tables[READINGS], data_of), *_stops(tables[CDRS])]
    facts += _held(tables[QUARANTINE], ledger, data_of)
    facts.sort(key=attrgetter("partition", "offset", "line"))
    write = _ENCODER.encode
    return [Event((fact.id_token or fact.location_id).encode(), write(fact)) for fact in facts]


def _starts(readings: pa.Table, data_of: DataOf) -> Iterator[_Started]:
    """The first reading of each session; a start that came late is told when it came."""
    verdict, kind = _numbers(readings, "verdict"), _numbers(readings, "kind")
    begins = (verdict == kinds.FIRST) | ((kind == KIND_START) & (verdict == kinds.LATE))
    begins &= _numbers(readings, "session_key") != 0
    if not begins.any():
        return
    told = columns_of(readings.select(list(_START)).take(np.flatnonzero(begins)), _START)
    versions = {version: data_of(version) for version in set(told[-1])}
    for partition, offset, line, name, connector_id, key, time_ms, token, version in zip(*told, strict=True):
        where = versions[version].where(name, connector_id)
        yield _Started("start", partition, offset, line, name, connector_id, f"{key:016x}", time_ms, token, *where)


def _stops(cdrs: pa.Table) -> Iterator[_Settled]:
    rows = zip(*columns_of(cdrs, _STOP), strict=True)
    for (
        partition,
        offset,
        line,
        name,
        connector_id,
        key,
        end_ms,
        start_ms,
        token,
        mwh,
        location_id,
        credit,
        cdr,
    ) in rows:
        where, event = _cdr.decode(cdr).cdr_location.coordinates, "credit" if credit else "stop"
        yield _Settled(
            event, partition, offset, line, name, connector_id, f"{key:016x}", end_ms, start_ms, token, mwh,
            location_id, where.latitude, where.longitude,
        )  # fmt: skip


def _held(quarantine: pa.Table, ledger: Remembers, data_of: DataOf) -> Iterator[_Waits]:
    """Sessions that ended and are held: they have no CDR yet, but their driver has left."""
    rows = zip(*columns_of(quarantine, _HELD), strict=True)
    places = [place for *place, action in rows if action == "held" and place[-1]]
    known = ledger.heard((name, key, partition, offset) for partition, offset, _, name, _, key in places)
    for partition, offset, line, name, connector_id, key in places:
        heard = known.get(key)
        if heard is None:
            continue  # an orphan: nothing of its session was ever heard
        yield _Waits(
            "stop", partition, offset, line, name, connector_id, f"{key:016x}", heard.last_ms, heard.first_ms,
            heard.id_token, *data_of(heard.reference_version).where(name, connector_id),
        )  # fmt: skip


def _numbers(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """A column as numbers; words of an enumeration as their places in it."""
    column: Any = table.column(name).combine_chunks()
    numbers: npt.NDArray[Any] = (column.indices if pa.types.is_dictionary(column.type) else column).to_numpy()
    return numbers


def columns_of(table: pa.Table, names: Sequence[str]) -> list[list[Any]]:
    """Columns as lists; instants in ms. By way of numpy: Arrow makes an object of its own for each value on the way."""
    return [_as_numpy(table.column(name)).tolist() for name in names] if table.num_rows else [[] for _ in names]


def _as_numpy(column: Any) -> npt.NDArray[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values: npt.NDArray[Any] = column.to_numpy()
    return values


def rows_of(table: pa.Table, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows as dicts."""
    return [dict(zip(names, row, strict=True)) for row in zip(*columns_of(table, names), strict=True)]

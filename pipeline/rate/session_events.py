"""Sessions that began and ended, for the rules across connectors: the records of the topic `session.events`.

A function of rows that count and of the reference version that they name, so what is sent again after a crash is the
same: a start from the reading that began the session, a stop from its CDR, or from its hold where it waits for a
person. A session may be told to start twice (its start, and its first register) and to stop twice (held, then settled).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
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

_IDENTITY: Final = ("partition", "offset", "line")
_PLACE: Final = (*_IDENTITY, "charge_point_id", "connector_id", "session_key")
_START: Final = (*_PLACE, "time", "id_token", "reference_version")
_STOP: Final = (*_PLACE, "id_token", "location_id", "start", "end", "energy_mwh", "credit", "document")
_HELD: Final = (*_PLACE, "action", "time")


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


def session_events(tables: Mapping[str, pa.Table], ledger: Remembers, data_of: DataOf) -> list[Event]:
    """The events of a batch that is marked, in the order of the log."""
    facts = [*_starts(tables[READINGS], data_of), *_stops(tables[CDRS])]
    facts += _held(tables[QUARANTINE], ledger, data_of)
    facts.sort(key=itemgetter(*_IDENTITY))
    return [Event((f["id_token"] or f["location_id"]).encode(), msgspec.json.encode(f)) for f in facts]


def _starts(readings: pa.Table, data_of: DataOf) -> Iterator[dict[str, Any]]:
    """The first reading of each session; a start that came late is told when it came."""
    verdict, kind = _numbers(readings, "verdict"), _numbers(readings, "kind")
    begins = (verdict == kinds.FIRST) | ((kind == KIND_START) & (verdict == kinds.LATE))
    begins &= _numbers(readings, "session_key") != 0
    if not begins.any():
        return
    for row in rows_of(readings.select(list(_START)).take(np.flatnonzero(begins)), _START):
        yield {
            "event": "start", **_named(row), "time_ms": row["time"], "id_token": row["id_token"],
            **_place(row, row["reference_version"], data_of),
        }  # fmt: skip


def _stops(cdrs: pa.Table) -> Iterator[dict[str, Any]]:
    for row in rows_of(cdrs, _STOP):
        where = _cdr.decode(row["document"]).cdr_location.coordinates
        yield {
            "event": "credit" if row["credit"] else "stop", **_named(row), "time_ms": row["end"],
            "start_ms": row["start"], "id_token": row["id_token"], "energy_mwh": row["energy_mwh"],
            "location_id": row["location_id"], "latitude": where.latitude, "longitude": where.longitude,
        }  # fmt: skip


def _held(quarantine: pa.Table, ledger: Remembers, data_of: DataOf) -> Iterator[dict[str, Any]]:
    """Sessions that ended and are held: they have no CDR yet, but their driver has left."""
    rows = [row for row in rows_of(quarantine, _HELD) if row["action"] == "held" and row["session_key"]]
    known = ledger.heard((row["charge_point_id"], row["session_key"], row["partition"], row["offset"]) for row in rows)
    for row in rows:
        heard = known.get(row["session_key"])
        if heard is None:
            continue  # an orphan: nothing of its session was ever heard
        yield {
            "event": "stop", **_named(row), "time_ms": heard.last_ms, "start_ms": heard.first_ms,
            "id_token": heard.id_token, **_place(row, heard.reference_version, data_of),
        }  # fmt: skip


def _place(row: Mapping[str, Any], version: int, data_of: DataOf) -> dict[str, str]:
    found = data_of(version).resolve(row["charge_point_id"], row["connector_id"], "", 0)
    return {"location_id": found.location_id, "latitude": found.latitude, "longitude": found.longitude}


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: row[name] for name in _PLACE}, "session_key": f"{row['session_key']:016x}"}


def _numbers(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """A column as numbers; words of an enumeration as their places in it."""
    column: Any = table.column(name).combine_chunks()
    numbers: npt.NDArray[Any] = (column.indices if pa.types.is_dictionary(column.type) else column).to_numpy()
    return numbers


def rows_of(table: pa.Table, columns: Iterable[str]) -> list[dict[str, Any]]:
    """Rows as dicts; instants in ms, since a datetime for each would take longer than all the rest."""
    if not table.num_rows:
        return []
    chosen: dict[str, Any] = {}
    for name in columns:
        column: Any = table.column(name)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
        chosen[name] = column
    return pa.table(chosen).to_pylist()

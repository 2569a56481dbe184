"""The rows of a batch as Arrow tables with the ledger's columns, and the totals that its markers promise.

One function a table; nothing is decided here. Names travel as dictionaries, instants as timestamps in UTC.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ledger import ALERTS, CDRS, DEAD_LETTERS, QUARANTINE, RATED_USAGE, READINGS
from pipeline.metering import kinds
from pipeline.metering.columns import ABSENT_I64, KIND_TICK
from pipeline.metering.output import Rows, rows_at, rows_joined
from pipeline.rate.batch import Batch, CdrColumns, CdrRow, Column, DeadRow, Place, Places
from pipeline.rate.directory import Directory
from pipeline.rate.rows import RATED_DTYPE
from pipeline.rate.segment import Samples, empty_samples
from pipeline.rate.settlement import REGISTERS
from pipeline.rate.sheets import Sheets
from pipeline.texts import Texts, distinct
from rating.cdr_bytes import Documents, documents_joined, documents_of

_UTC_MS: Final = pa.timestamp("ms", "UTC")
DIMENSIONS: Final = ("", "ENERGY", "TIME", "PARKING_TIME", "FLAT", "STEP", "MIN_PRICE", "MAX_PRICE", "ROUNDING")
Claims = Mapping[int, int]  # partition → claim number


def tables_of(batch: Batch, directory: Directory, sheets: Sheets, log_id: int, claims: Claims) -> dict[str, pa.Table]:
    """Every table of the batch, empty ones too."""
    return {
        READINGS: readings(batch, directory, log_id, claims),
        RATED_USAGE: rated_usage(batch, directory, sheets, log_id, claims),
        CDRS: cdrs(batch, log_id, claims),
        ALERTS: _listed(ALERTS, batch.alerts, log_id, claims),
        QUARANTINE: _listed(QUARANTINE, batch.quarantine, log_id, claims),
        DEAD_LETTERS: _dead_letters(batch.dead, log_id, claims) if batch.dead else _empty(DEAD_LETTERS),
    }


@cache
def _empty(table: str) -> pa.Table:
    """No rows of a table; kept, because most small batches have none of most tables."""
    if table == CDRS:
        return _cdrs([[]], 0, {})
    return _dead_letters([], 0, {}) if table == DEAD_LETTERS else _rows_of(_LISTED[table], [], 0, {})


def readings(batch: Batch, directory: Directory, log_id: int, claims: Claims) -> pa.Table:
    """reading_rows: every sample with what metering says of it."""
    parts = [_readings_of(given) for given in batch.metered] or [_readings_of(empty_samples())]
    samples, facts, texts, versions = (_concatenated(column) for column in zip(*parts, strict=True))
    return pa.table(
        {
            **_identity(facts["partition"], samples["offset"], samples["line"], log_id, claims),
            **_connector(facts["row"], directory),
            "session_key": pa.array(facts["session_key"]),
            "transaction_id": pa.array(texts).cast(pa.binary()),
            "time": _instants(samples["time_ms"]),
            "received_at": _instants(samples["received_ms"]),
            **{name: pa.array(samples[name]) for name in ("kind", "context", "state", "signed", "seq_no")},
            **{name: _nullable(samples[name]) for name in ("register_mwh", "power_mw", "current_ma")},
            "soc_permille": pa.array(samples["soc_permille"]),
            "phases": pa.array(np.where(samples["phases_said"] > 0, samples["phases_live"], -1).astype(np.int16)),
            "id_token": _names(samples["token"], directory.tokens),
            "flags": pa.array(samples["flags"]),
            "reference_version": pa.array(versions.astype(np.uint32)),
            "verdict": _words(facts["verdict"], kinds.VERDICTS),
            "disposition": _words(facts["disposition"], kinds.DISPOSITIONS),
            "energy_mwh": pa.array(facts["energy_mwh"]),
        }
    )


def _readings_of(given: Samples) -> tuple[Rows, Rows, npt.NDArray[np.bytes_], npt.NDArray[np.int64]]:
    """Samples, facts, transaction ids and versions without the ticks."""
    data = given.samples["kind"] != KIND_TICK
    if data.all():
        return given.samples, given.facts, given.transaction_ids, given.versions
    return rows_at(given.samples, data), rows_at(given.facts, data), given.transaction_ids[data], given.versions[data]


def rated_usage(batch: Batch, directory: Directory, sheets: Sheets, log_id: int, claims: Claims) -> pa.Table:
    """rated_usage_rows: charging period × dimension, and the rows that settlement added."""
    rated = rows_joined(batch.rated) if batch.rated else np.zeros(0, RATED_DTYPE)
    sources = sheets.builder.sources if len(rated) else []
    currencies = sorted({source.tariff.currency for source in sources})
    currency = np.array([currencies.index(source.tariff.currency) for source in sources], np.int32)
    return pa.table(
        {
            **_identity(rated["partition"], rated["offset"], rated["line"], log_id, claims),
            **_connector(rated["row"], directory),
            "session_key": pa.array(rated["session_key"]),
            "start": _instants(rated["start_ms"]),
            "end": _instants(rated["end_ms"]),
            "dimension": _words(rated["dimension"], DIMENSIONS),
            **{name: pa.array(rated[name]) for name in ("quantity", "cost", "price_e4")},
            "currency": _dictionary(currency[rated["sheet"]] if len(rated) else rated["sheet"], currencies),
            "tariff": _dictionary(rated["sheet"], [source.key for source in sources]),
            **{name: pa.array(rated[name]) for name in ("element", "component", "state", "split", "flags")},
        }
    )


def cdrs(batch: Batch, log_id: int, claims: Claims) -> pa.Table:
    """cdr_rows: settled sessions and credits."""
    return _cdrs(batch.cdr_parts, log_id, claims) if batch.cdr_parts else _empty(CDRS)


def _cdrs(given: Sequence[CdrColumns | list[CdrRow]], log_id: int, claims: Claims) -> pa.Table:
    parts = [part if isinstance(part, CdrColumns) else _as_columns(part) for part in given]
    places = Places(*(_end_to_end(columns) for columns in zip(*(part.places for part in parts), strict=True)))
    return pa.table(
        {
            **_identity(places.partition, places.offset, places.line, log_id, claims),
            "charge_point_id": pa.array(places.charge_point_id, pa.string()),
            "connector_id": pa.array(places.connector_id, pa.uint16()),
            "session_key": pa.array(places.session_key, pa.uint64()),
            **{
                name: _array(_end_to_end([part.columns[named] for part in parts]), kind)
                for name, (kind, named) in _CDR_COLUMNS.items()
                if name not in REGISTERS
            },
            **{name: _nullable(np.asarray(_end_to_end([part.columns[name] for part in parts]))) for name in REGISTERS},
        }
    )


def _as_columns(rows: Sequence[CdrRow]) -> CdrColumns:
    """CDRs that were made one by one."""
    fields: Any = zip(*(row.place for row in rows), strict=True) if rows else [[]] * len(Place._fields)
    partition, offset, line, row, key, names, connector_id = fields
    places = Places(
        np.array(partition, np.int64), np.array(offset, np.int64), np.array(line, np.uint64), np.array(row, np.int64),
        np.array(key, np.uint64), list(names), np.array(connector_id, np.int64),
    )  # fmt: skip
    return CdrColumns(
        places, {named: _as_column([row.columns[named] for row in rows], kind) for kind, named in _CDR_COLUMNS.values()}
    )


def _as_column(values: list[Any], kind: pa.DataType) -> Column:
    if pa.types.is_large_binary(kind):
        return documents_of(values)
    if pa.types.is_string(kind):
        return values
    return np.array([ABSENT_I64 if value is None else value for value in values], np.int64)


def _end_to_end(parts: Sequence[Any]) -> Any:
    """A column of several parts; lists and arrays may meet."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Documents) for part in parts):
        return documents_joined(parts)
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return list(chain.from_iterable(parts))


def _array(column: Column, kind: pa.DataType) -> "pa.Array[Any]":
    if isinstance(column, Documents):
        buffers: list[Any] = [None, np.concatenate([[0], column.ends]), column.text]
        return pa.Array.from_buffers(kind, len(column.ends), [b if b is None else pa.py_buffer(b) for b in buffers])
    return pa.array(column, kind)


def _dead_letters(rows: Sequence[DeadRow], log_id: int, claims: Claims) -> pa.Table:
    """dead_letter_rows: records that can never be used, with their bytes."""
    return pa.table(
        {
            **_identity(
                np.array([row.partition for row in rows], np.int32), np.array([row.offset for row in rows], np.int64),
                np.zeros(len(rows), np.int64), log_id, claims,
            ),
            "record_time": _instants(np.array([row.record_ms for row in rows], np.int64)),
            "reason": pa.array([row.reason for row in rows], pa.string()),
            "detail": pa.array([row.detail for row in rows], pa.string()),
            "record_key": pa.array([row.key for row in rows], pa.binary()),
            "raw": pa.array([row.raw for row in rows], pa.binary()),
        }
    )  # fmt: skip


_Columns = dict[str, tuple[pa.DataType, Callable[[Sequence[Any]], list[Any]]]]


def _field(name: str) -> Callable[[Sequence[Any]], list[Any]]:
    """One field of rows."""
    return lambda rows: [getattr(row, name) for row in rows]


def _register(name: str) -> Callable[[Sequence[Any]], list[Any]]:
    """A field of rows that is null where it is ABSENT_I64."""
    return lambda rows: [None if (value := getattr(row, name)) == ABSENT_I64 else value for row in rows]


_CDR_TYPES: Final[dict[str, Any]] = {
    "cdr_id": pa.string(), "revision": pa.uint16(), "credit": pa.uint8(), "transaction_id": pa.string(),
    "id_token": pa.string(), "location_id": pa.string(), "tariff": pa.string(), "currency": pa.string(),
    "energy_mwh": pa.int64(), "charging_ms": pa.int64(), "parking_ms": pa.int64(), "held_mwh": pa.int64(),
    "held_reason": pa.string(), "rated_cost": pa.int64(), "total_excl_e4": pa.int64(), "total_incl_e4": pa.int64(),
    "readings": pa.uint32(), "signed": pa.int8(), "flags": pa.uint32(), "document": pa.large_binary(),
    **dict.fromkeys(REGISTERS, pa.int64()),
}  # fmt: skip

# column → its type, and its name in `CdrRow.columns`
_CDR_COLUMNS: Final[dict[str, tuple[Any, str]]] = {
    **{name: (kind, name) for name, kind in _CDR_TYPES.items()},
    "start": (_UTC_MS, "start_ms"),
    "end": (_UTC_MS, "end_ms"),
    "settled_at": (_UTC_MS, "settled_ms"),
}

_ALERT_COLUMNS: Final[_Columns] = {
    "alert_id": (pa.string(), _field("alert_id")),
    "kind": (pa.string(), _field("kind")),
    "severity": (pa.string(), _field("severity")),
    "action": (pa.string(), _field("action")),
    "time": (_UTC_MS, _field("time_ms")),
    "id_token": (pa.string(), _field("id_token")),
    "evidence": (pa.binary(), lambda rows: [msgspec.json.encode(row.evidence) for row in rows]),
}

_QUARANTINE_COLUMNS: Final[_Columns] = {
    "action": (pa.string(), _field("action")),
    "reason": (pa.string(), _field("reason")),
    "held_mwh": (pa.int64(), _field("held_mwh")),
    "time": (_UTC_MS, _field("time_ms")),
    "actor": (pa.string(), _field("actor")),
    "note": (pa.string(), _field("note")),
    "raw": (pa.binary(), _field("raw")),
    **{name: (pa.int64(), _register(name)) for name in REGISTERS},
}


_LISTED: Final = {ALERTS: _ALERT_COLUMNS, QUARANTINE: _QUARANTINE_COLUMNS}


def _listed(table: str, rows: Sequence[Any], log_id: int, claims: Claims) -> pa.Table:
    """A table of rows that are few: each has a place and values of its own."""
    return _rows_of(_LISTED[table], rows, log_id, claims) if rows else _empty(table)


def _rows_of(columns: _Columns, rows: Sequence[Any], log_id: int, claims: Claims) -> pa.Table:
    places: list[Place] = [row.place for row in rows]
    return pa.table(
        {
            **_identity(
                np.array([p.partition for p in places], np.int32), np.array([p.offset for p in places], np.int64),
                np.array([p.line for p in places], np.uint64), log_id, claims,
            ),
            "charge_point_id": pa.array([p.charge_point_id for p in places], pa.string()),
            "connector_id": pa.array([p.connector_id for p in places], pa.uint16()),
            "session_key": pa.array([p.session_key for p in places], pa.uint64()),
            **{name: pa.array(column(rows), kind) for name, (kind, column) in columns.items()},
        }
    )  # fmt: skip


def _identity(
    partitions: npt.NDArray[np.integer], offsets: npt.NDArray[np.integer], lines: npt.NDArray[np.integer], log_id: int,
    claims: Claims,
) -> "dict[str, pa.Array[Any]]":  # fmt: skip
    numbers = np.zeros(max(claims, default=0) + 1, np.uint32)
    for partition, claim in claims.items():
        numbers[partition] = claim
    return {
        "log_id": pa.array(np.full(len(partitions), log_id, np.uint64)),
        "partition": pa.array(partitions.astype(np.uint16)),
        "offset": pa.array(offsets.astype(np.uint64)),
        "line": pa.array(lines.astype(np.uint64)),
        "claim": pa.array(numbers[partitions]),
    }


def _connector(rows: npt.NDArray[np.integer], directory: Directory) -> "dict[str, pa.Array[Any]]":
    connector_ids = directory.state.connectors["connector_id"][rows] if len(rows) else np.zeros(0)
    return {
        "charge_point_id": _names(directory.charge_points.points(rows), directory.charge_points.texts),
        "connector_id": pa.array(connector_ids.astype(np.uint16)),
    }


def _dictionary(indices: npt.NDArray[np.integer], words: Sequence[str]) -> "pa.Array[Any]":
    """Words by number, of which there are few; -1 is the last word. Only words in use are sent."""
    if not len(indices):
        return pa.array([], pa.dictionary(pa.int32(), pa.string()))
    place = np.full(len(words), -1, np.int32)
    place[indices] = 0
    places: dict[str, int] = {}  # sheets of one tariff in several zones: a word stands once in a dictionary
    used = np.flatnonzero(place == 0)
    place[used] = [places.setdefault(words[at], len(places)) for at in used.tolist()]
    return pa.DictionaryArray.from_arrays(place[indices], pa.array(list(places), pa.string()))


def _names(numbers: npt.NDArray[np.integer], texts: Texts) -> "pa.Array[Any]":
    """Texts by number, "" for -1. Only those in use are sent; how many there are in all is no matter."""
    places, used = distinct(numbers)
    words = texts.taken(used[used >= 0]).arrow()
    if len(words) < len(used):
        unsaid = int(np.flatnonzero(used < 0)[0])
        words = pa.concat_arrays([words[:unsaid], pa.array([""], pa.string()), words[unsaid:]])
    return pa.DictionaryArray.from_arrays(places, words)


def _words(codes: npt.NDArray[np.integer], words: Sequence[str]) -> "pa.Array[Any]":
    return pa.DictionaryArray.from_arrays(codes.astype(np.int8), pa.array(list(words), pa.string()))


def _instants(instants_ms: npt.NDArray[np.integer]) -> "pa.Array[Any]":
    return pa.array(instants_ms.astype(np.int64)).cast(_UTC_MS)


def _nullable(values: npt.NDArray[np.int64]) -> "pa.Array[Any]":
    return pa.array(values, mask=values == ABSENT_I64)


def _concatenated(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

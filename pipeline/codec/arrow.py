"""Arrow IPC batches to sample columns: the form for gateways with high rates. No Python object a row.

Columns: charge_point_id (dictionary or string), connector_id, transaction_id, time (timestamp), register_mwh
and, if sent, power_mw, current_ma, event (KIND_*), state (STATE_*), id_token, received_at, seq_no. Others are ignored.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.codec import arrow_kernel
from pipeline.codec.arrow_metadata import is_compressed
from pipeline.codec.assemble import hash_ids
from pipeline.codec.records import (
    TRANSACTION_ID_BYTES,
    TRANSACTION_ID_DTYPE,
    DeadLetter,
    Decoded,
    Records,
    UndecodableError,
)
from pipeline.codec.vocabulary import UNUSABLE_TRANSACTION_IDS
from pipeline.metering import columns
from pipeline.metering.columns import ABSENT_I64, SAMPLE_DTYPE

MAX_ARROW_BYTES = 64 << 20
MAX_ROWS = 1 << 20

_UTC_MS = pa.timestamp("ms", "UTC")
# The order is that of the kernels' `ints`.
_INT_COLUMNS: dict[str, tuple[pa.DataType, int]] = {
    "connector_id": (pa.int32(), 0),
    "register_mwh": (pa.int64(), ABSENT_I64),
    "power_mw": (pa.int64(), ABSENT_I64),
    "current_ma": (pa.int64(), ABSENT_I64),
    "event": (pa.int8(), columns.KIND_SAMPLE),
    "state": (pa.int8(), columns.STATE_UNKNOWN),
    "seq_no": (pa.int32(), -1),
}
_REQUIRED = ("charge_point_id", "connector_id", "time", "register_mwh")
_COMPLAINTS = {
    arrow_kernel.ROW_NO_TIME: ("no_time", "has no usable time, and no received_at or record time stands in for it"),
    arrow_kernel.ROW_BAD_ENERGY: ("bad_number", "has a register_mwh that is more than any meter can count"),
    arrow_kernel.ROW_BAD_CONNECTOR: ("bad_shape", "has a connector_id outside 0..65535"),
    arrow_kernel.ROW_BAD_EVENT: ("bad_shape", "has an event outside 0..4, a state outside -1..7 or a seq_no below -1"),
}


class _Names(NamedTuple):
    """A text column as indices into its distinct values; -1 where the row has none."""

    indices: npt.NDArray[np.int32]
    values: list[str]


class _Sheet(NamedTuple):
    """One record's rows as numpy columns, all of them good."""

    record: int
    points: _Names
    tokens: _Names
    transaction_ids: npt.NDArray[np.bytes_]
    time_ms: npt.NDArray[np.int64]
    received_ms: npt.NDArray[np.int64]
    time_flags: int
    ints: Any  # the arrays of _INT_COLUMNS, in its order


def read_arrow(records: Records, indices: list[int]) -> Decoded:
    """Samples of the Arrow records among `records`; a record with one unusable row is a dead letter as a whole."""
    sheets: list[_Sheet] = []
    dead: list[DeadLetter] = []
    for index in indices:
        record_ms = ABSENT_I64 if records.times_ms is None else int(records.times_ms[index])
        try:
            sheets.append(_read_record(index, records.values[index], records.keys[index], record_ms))
        except UndecodableError as problem:
            dead.append(DeadLetter(index, problem.reason, problem.detail))
    return _assembled(records.offsets, sheets, dead)


def _assembled(offsets: npt.NDArray[np.int64], sheets: list[_Sheet], dead: list[DeadLetter]) -> Decoded:
    lengths = [len(sheet.time_ms) for sheet in sheets]
    samples = np.empty(sum(lengths), SAMPLE_DTYPE)
    ids = np.concatenate([sheet.transaction_ids for sheet in sheets] or [np.empty(0, TRANSACTION_ID_DTYPE)])
    hashes = hash_ids(ids)
    points: dict[str, int] = {}
    tokens: dict[str, int] = {}
    first = 0
    for sheet, length in zip(sheets, lengths, strict=True):
        rows = slice(first, first + length)
        names = (_joint(sheet.points, points), _joint(sheet.tokens, tokens))
        arrow_kernel.fill_rows(
            samples[rows],
            offsets[sheet.record],
            names,
            sheet.time_ms,
            sheet.received_ms,
            sheet.time_flags,
            hashes[rows] != 0,
            sheet.ints,
        )
        first += length
    samples["txn_hash"] = hashes
    owners = np.repeat(np.array([sheet.record for sheet in sheets], np.int32), lengths)
    return Decoded(samples, ids, owners, list(points), list(tokens), dead, [])


def _joint(names: _Names, known: dict[str, int]) -> npt.NDArray[np.int32]:
    table = [known.setdefault(name, len(known)) for name in names.values]
    return np.array([*table, -1], np.int32)[names.indices]


def _read_record(index: int, value: bytes, key: bytes | None, record_ms: int) -> _Sheet:
    if len(value) > MAX_ARROW_BYTES:
        raise UndecodableError("too_large", f"{len(value):,} bytes of Arrow; the limit is {MAX_ARROW_BYTES:,}")
    if is_compressed(value):
        raise UndecodableError("bad_arrow", "its buffers are compressed: let Kafka compress the message instead")
    try:
        sheet = _read_sheet(index, _read_batch(value), record_ms)
    except (pa.ArrowException, OSError) as error:
        raise UndecodableError("bad_arrow", f"not a readable Arrow IPC stream: {str(error)[:300]}") from error
    row, problem = arrow_kernel.first_bad_row(sheet.time_ms, sheet.received_ms, sheet.ints)
    if problem:
        reason, complaint = _COMPLAINTS[problem]
        raise UndecodableError(reason, f"row {row} {complaint}")
    _check_key(key, sheet.points.values)
    return sheet


def _read_batch(value: bytes) -> pa.RecordBatch:
    """All rows of a stream as one batch, fully validated: only then is its memory safe to look at."""
    with pa.ipc.open_stream(value) as reader:
        _check_columns(reader.schema)
        batches = []
        rows = 0
        for batch in reader:
            rows += batch.num_rows
            if rows > MAX_ROWS:
                raise UndecodableError("too_large", f"more than {MAX_ROWS:,} rows in one message")
            batch.validate(full=True)
            batches.append(batch)
    if not rows:
        raise UndecodableError("no_values", "an Arrow message without a single row")
    return batches[0] if len(batches) == 1 else pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _check_columns(schema: pa.Schema) -> None:
    known = ("transaction_id", "id_token", "received_at", *_INT_COLUMNS)
    missing = [name for name in _REQUIRED if schema.get_field_index(name) < 0]
    twice = [name for name in known if len(schema.get_all_field_indices(name)) > 1]
    if missing or twice:
        raise UndecodableError("bad_arrow", f"columns missing or there twice: {', '.join([*missing, *twice])}")


def _read_sheet(index: int, batch: pa.RecordBatch, record_ms: int) -> _Sheet:
    time_ms, zoned = _instants(batch, "time")
    received_ms, _ = _instants(batch, "received_at")
    return _Sheet(
        index,
        _points(batch),
        _names(batch, "id_token"),
        _transaction_ids(batch),
        time_ms,
        np.where(received_ms == ABSENT_I64, record_ms, received_ms),
        0 if zoned else columns.FLAG_TIME_NO_ZONE,
        tuple(_ints(batch, name, kind, absent) for name, (kind, absent) in _INT_COLUMNS.items()),
    )


def _points(batch: pa.RecordBatch) -> _Names:
    points = _names(batch, "charge_point_id")
    if points.indices.min() < 0 or not all(name.isprintable() for name in points.values):
        raise UndecodableError("bad_charge_point_id", "a row's charge_point_id is missing, empty or not printable")
    return points


def _names(batch: pa.RecordBatch, name: str) -> _Names:
    """The text column's values in the order of its dictionary, those that no row refers to left out; "" is none."""
    column = _text_column(batch, name)
    if column is None:
        return _Names(np.full(batch.num_rows, -1, np.int32), [])
    values = column.dictionary.to_pylist()
    indices = _filled(column.indices.cast(pa.int32()), -1)
    used = arrow_kernel.names_used(indices, len(values)) & np.array([bool(value) for value in values], np.bool_)
    table = np.append(np.where(used, np.cumsum(used) - 1, -1), -1).astype(np.int32)
    return _Names(table[indices], [str(value) for value, is_used in zip(values, used.tolist(), strict=True) if is_used])


def _transaction_ids(batch: pa.RecordBatch) -> npt.NDArray[np.bytes_]:
    column = _text_column(batch, "transaction_id")
    if column is None:
        return np.zeros(batch.num_rows, TRANSACTION_ID_DTYPE)
    texts = [(value or "").encode() for value in column.dictionary.to_pylist()]
    for text in texts:
        if len(text) > TRANSACTION_ID_BYTES or (text and min(text) < 0x20):
            raise UndecodableError(
                "bad_transaction_id", f"transaction id {text[:48]!r} is no printable text of 36 bytes"
            )
    usable = [b"" if text in UNUSABLE_TRANSACTION_IDS else text for text in [*texts, b""]]
    ids: npt.NDArray[np.bytes_] = np.array(usable, TRANSACTION_ID_DTYPE)[_filled(column.indices.cast(pa.int32()), -1)]
    return ids


def _text_column(batch: pa.RecordBatch, name: str) -> Any | None:
    at = batch.schema.get_field_index(name)
    if at < 0:
        return None
    column: Any = batch.column(at)
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    if column.dictionary.type != pa.string():
        column = pa.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(pa.string()))
    return column


def _instants(batch: pa.RecordBatch, name: str) -> tuple[npt.NDArray[np.int64], bool]:
    at = batch.schema.get_field_index(name)
    if at < 0:
        return np.full(batch.num_rows, ABSENT_I64), True
    column = batch.column(at)
    if not pa.types.is_timestamp(column.type):
        raise UndecodableError("bad_arrow", f"column {name} is {column.type}, not a timestamp")
    zoned = column.type.tz is not None
    if column.type != _UTC_MS:
        column = column.cast(pa.timestamp("ms", column.type.tz), safe=False)
    return _filled(column.view(pa.int64()), ABSENT_I64), zoned


def _ints(batch: pa.RecordBatch, name: str, kind: pa.DataType, absent: int) -> npt.NDArray[Any]:
    at = batch.schema.get_field_index(name)
    if at < 0:
        return np.full(batch.num_rows, absent, kind.to_pandas_dtype())
    column = batch.column(at)
    if not pa.types.is_integer(column.type):
        raise UndecodableError("bad_arrow", f"column {name} is {column.type}, not {kind}")
    return _filled(column.cast(kind), absent)


def _filled(column: Any, absent: int) -> npt.NDArray[Any]:
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(absent, column.type))
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _check_key(key: bytes | None, names: list[str]) -> None:
    if key is not None and (len(names) != 1 or names[0].encode() != key):
        raise UndecodableError(
            "key_mismatch",
            f"key {key[:40]!r} on readings of {len(names)} charge points: "
            "send such a batch without a key to the partition of all of them",
        )

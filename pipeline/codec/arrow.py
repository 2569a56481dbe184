"""Arrow IPC batches to sample columns: the form for gateways with high rates. No Python object a row.

Columns: charge_point_id (dictionary or string), connector_id, transaction_id, time (timestamp), register_mwh
and, if sent, power_mw, current_ma, event (KIND_*), state (STATE_*), id_token, received_at, seq_no. Others are ignored.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.codec import arrow_kernel
from pipeline.codec.arrow_columns import instants, integers, texts
from pipeline.codec.arrow_kernel import Rows, Texts
from pipeline.codec.arrow_metadata import check_uncompressed
from pipeline.codec.bytescan import PADDING
from pipeline.codec.names import room_for
from pipeline.codec.names import texts as name_texts
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

_REQUIRED = ("charge_point_id", "connector_id", "time", "register_mwh")
_KNOWN = (*_REQUIRED, "transaction_id", "power_mw", "current_ma", "event", "state", "id_token", "received_at", "seq_no")
_COMPLAINTS = {
    arrow_kernel.NO_TIME: ("no_time", "has no usable time, and no received_at or record time stands in for it"),
    arrow_kernel.BAD_ENERGY: ("bad_number", "has a register_mwh that is more than any meter can count"),
    arrow_kernel.BAD_CONNECTOR: ("bad_shape", "has a connector_id outside 0..65535"),
    arrow_kernel.BAD_EVENT: ("bad_shape", "has an event outside 0..4, a state outside -1..7 or a seq_no below -1"),
    arrow_kernel.NO_POINT: ("bad_charge_point_id", "has no charge_point_id, or one of no or more than 255 bytes"),
    arrow_kernel.BAD_ID: ("bad_transaction_id", "has a transaction_id that is no printable text of 36 bytes"),
}
_UNUSABLE_IDS = (
    np.array(sorted(text for text in UNUSABLE_TRANSACTION_IDS if text), TRANSACTION_ID_DTYPE)
    .view(np.uint32)
    .reshape(-1, TRANSACTION_ID_BYTES // 4)
)

_ID_DTYPE = np.dtype([("words", np.uint32, TRANSACTION_ID_BYTES // 4)])  # copied as a whole


class _Sheet(NamedTuple):
    """One record's rows, all of them good."""

    record: int
    rows: Rows
    record_ms: int
    time_flags: int


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
    lengths = [len(sheet.rows.time_ms) for sheet in sheets]
    samples = np.empty(sum(lengths), SAMPLE_DTYPE)
    texts = np.empty(sum(lengths), _ID_DTYPE)
    points, tokens = _Known([sheet.rows.points for sheet in sheets]), _Known([sheet.rows.tokens for sheet in sheets])
    ids = _Ids()
    first = 0
    for sheet, length in zip(sheets, lengths, strict=True):
        arrow_kernel.fill_rows(
            samples[first : first + length], texts[first : first + length], sheet.rows, offsets[sheet.record],
            sheet.record_ms, sheet.time_flags, (points.of(sheet.rows.points), tokens.of(sheet.rows.tokens)),
            ids.of(sheet.rows.ids),
        )  # fmt: skip
        first += length
    return Decoded(
        samples,
        texts.view(TRANSACTION_ID_DTYPE),
        np.repeat(np.array([sheet.record for sheet in sheets], np.int32), lengths),
        name_texts(points.names),
        name_texts(tokens.names),
        dead,
        [],
    )


class _Known:
    """Names of several messages as one list. A sender's dictionary often is that of its message before."""

    def __init__(self, columns_of_texts: list[Texts]) -> None:
        self.names = room_for(
            sum(len(column.bounds) - 1 for column in columns_of_texts),
            sum(len(column.data) - PADDING for column in columns_of_texts),
        )
        self._last: Texts | None = None
        self._found = np.zeros(0, np.int32)

    def of(self, texts: Texts) -> npt.NDArray[np.int32]:
        """The joint index of each value that is in use."""
        if not _same_values(texts, self._last):
            self._last, self._found = texts, np.full(len(texts.bounds), -1, np.int32)
        arrow_kernel.known_names(texts, self.names, self._found)
        return self._found


class _Ids:
    """Transaction ids as samples have them, with their hashes."""

    def __init__(self) -> None:
        self._last: Texts | None = None
        self._words = np.zeros((0, TRANSACTION_ID_BYTES // 4), np.uint32)
        self._hashes = np.zeros(0, np.uint64)

    def of(self, ids: Texts) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint64]]:
        """Each value that is in use."""
        if not _same_values(ids, self._last):
            self._last, self._hashes = ids, np.zeros(len(ids.bounds), np.uint64)
            self._words = np.zeros((len(ids.bounds), TRANSACTION_ID_BYTES // 4), np.uint32)
        arrow_kernel.id_words(ids, _UNUSABLE_IDS, self._words, self._hashes)
        return self._words.view(_ID_DTYPE)[:, 0], self._hashes


def _same_values(one: Texts, other: Texts | None) -> bool:
    """Whether two columns have the same dictionary, whatever their rows say of it."""
    return other is not None and np.array_equal(one.bounds, other.bounds) and np.array_equal(one.data, other.data)


def _read_record(index: int, value: bytes, key: bytes | None, record_ms: int) -> _Sheet:
    if len(value) > MAX_ARROW_BYTES:
        raise UndecodableError("too_large", f"{len(value):,} bytes of Arrow; the limit is {MAX_ARROW_BYTES:,}")
    check_uncompressed(value)
    try:
        sheet = _read_sheet(index, _read_batch(value), record_ms)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UndecodableError("bad_arrow", f"not a readable Arrow IPC stream: {str(error)[:300]}") from error
    row, problem = arrow_kernel.first_bad_row(sheet.rows, record_ms)
    if problem:
        reason, complaint = _COMPLAINTS[problem]
        raise UndecodableError(reason, f"row {row} {complaint}")
    _check_names(sheet.rows.points, key)
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
    names = schema.names
    wrong = [name for name in _REQUIRED if name not in names] + [name for name in _KNOWN if names.count(name) > 1]
    if wrong:
        raise UndecodableError("bad_arrow", f"columns missing or there twice: {', '.join(wrong)}")


def _read_sheet(index: int, batch: pa.RecordBatch, record_ms: int) -> _Sheet:
    count = batch.num_rows
    sent = dict(zip(batch.schema.names, batch.columns, strict=True))
    time_ms, zoned = instants(sent["time"], count)
    received_ms, _ = instants(sent.get("received_at"), count)
    rows = Rows(
        texts(sent.get("charge_point_id"), count),
        texts(sent.get("transaction_id"), count),
        texts(sent.get("id_token"), count),
        time_ms,
        received_ms,
        integers(sent.get("connector_id"), count, pa.int32(), 0),
        integers(sent.get("register_mwh"), count, pa.int64(), ABSENT_I64),
        integers(sent.get("power_mw"), count, pa.int64(), ABSENT_I64),
        integers(sent.get("current_ma"), count, pa.int64(), ABSENT_I64),
        integers(sent.get("event"), count, pa.int8(), columns.KIND_SAMPLE),
        integers(sent.get("state"), count, pa.int8(), columns.STATE_UNKNOWN),
        integers(sent.get("seq_no"), count, pa.int32(), -1),
    )
    return _Sheet(index, rows, record_ms, 0 if zoned else columns.FLAG_TIME_NO_ZONE)


def _check_names(points: Texts, key: bytes | None) -> None:
    """Names are printable and, where the record has a key, all of them are the key."""
    plain = bool(((points.data[: points.bounds[-1]] - np.uint8(0x20)) < 0x5F).all())
    if plain and key is None:
        return
    for index in np.unique(points.indices).tolist():
        name = points.data[points.bounds[index] : points.bounds[index + 1]].tobytes()
        if not name.decode().isprintable():
            raise UndecodableError("bad_charge_point_id", f"charge_point_id {name[:40]!r} is not printable")
        if key is not None and name != key:
            raise UndecodableError(
                "key_mismatch",
                f"key {key[:40]!r} on readings of {name[:40]!r}: send a batch of several charge points without a key, "
                "to the partition of all of them",
            )

"""Columns of a validated Arrow record batch as numpy arrays of one type each, without a copy where it has that type.

All of them are read-only, also those that stand for a column that was not sent: compiled code takes that for a part of
the type, and would be compiled for each mixture anew.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.codec.arrow_kernel import Texts
from pipeline.codec.bytescan import PADDING
from pipeline.codec.records import UndecodableError
from pipeline.metering.columns import ABSENT_I64

_UTC_MS = pa.timestamp("ms", "UTC")
_TEXT = pa.dictionary(pa.int32(), pa.string())
_DTYPES: dict[pa.DataType, Any] = {kind: kind.to_pandas_dtype() for kind in (pa.int8(), pa.int32(), pa.int64())}
_NO_BOUNDS = np.frombuffer(bytes(4), np.int32)
_NO_DATA = np.zeros(PADDING, np.uint8)
_UNSENT: dict[tuple[pa.DataType, int], npt.NDArray[Any]] = {}  # as long as was needed so far; nobody writes to them


def texts(column: Any | None, count: int) -> Texts:
    """A text column of `count` rows; all -1 where it was not sent. A null in the dictionary is as one in the row."""
    if column is None:
        return Texts(_unsent(count, pa.int32(), -1), _NO_BOUNDS, _NO_DATA)
    if column.type != _TEXT:
        column = _as_dictionary(column)
    values = column.dictionary
    if values.null_count:
        column = column.dictionary_decode().dictionary_encode()
        values = column.dictionary
    _, bounds, data = values.buffers()
    starts = np.frombuffer(bounds, np.int32, len(values) + 1, 4 * values.offset) if len(values) else _NO_BOUNDS
    return Texts(_filled(column.indices, -1), starts, _padded(data, int(starts[-1])))


def _as_dictionary(column: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary.cast(pa.string()))
    return column.cast(pa.string()).dictionary_encode()


def _padded(data: Any, size: int) -> npt.NDArray[np.uint8]:
    padded = np.zeros(size + PADDING, np.uint8)
    if size:
        padded[:size] = np.frombuffer(data, np.uint8, size)
    return padded


def instants(column: Any | None, count: int) -> tuple[npt.NDArray[np.int64], bool]:
    """A timestamp column in ms, ABSENT_I64 where it says nothing, and whether it has a zone."""
    if column is None:
        return _unsent(count, pa.int64(), ABSENT_I64), True
    if column.type == _UTC_MS:
        return _filled(column.view(pa.int64()), ABSENT_I64), True
    if not pa.types.is_timestamp(column.type):
        raise UndecodableError("bad_arrow", f"a column that should be a timestamp is {column.type}")
    column = column.cast(pa.timestamp("ms", column.type.tz), safe=False)
    return _filled(column.view(pa.int64()), ABSENT_I64), column.type.tz is not None


def integers(column: Any | None, count: int, kind: pa.DataType, absent: int) -> npt.NDArray[Any]:
    """An integer column as `kind`, with `absent` where it says nothing."""
    if column is None:
        return _unsent(count, kind, absent)
    if column.type != kind:
        if not pa.types.is_integer(column.type):
            raise UndecodableError("bad_arrow", f"a column that should be {kind} is {column.type}")
        column = column.cast(kind)
    return _filled(column, absent)


def _unsent(count: int, kind: pa.DataType, absent: int) -> npt.NDArray[Any]:
    """A column that was not sent."""
    column = _UNSENT.get((kind, absent))
    if column is None or len(column) < count:
        column = _UNSENT[kind, absent] = np.full(count, absent, _DTYPES[kind])
        column.flags.writeable = False
    return column[:count]


def _filled(column: Any, absent: int) -> npt.NDArray[Any]:
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(absent, column.type))
    values: npt.NDArray[Any] = column.to_numpy()
    return values

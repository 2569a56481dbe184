"""Exported batches as files: Parquet, an Arrow stream, or a JSON object a line. The same batches, the same bytes.

Parquet and Arrow bytes are those of one pyarrow version; NDJSON is the same everywhere. In NDJSON `log_id` and
`session_key` are 16 hexadecimal digits, instants RFC 3339 in UTC, and a CDR's `document` is the OCPI object itself.
"""

from collections.abc import Callable, Iterable
from io import RawIOBase
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from rating.cdr import timestamp


def write_parquet(to: RawIOBase, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """One row group a batch; number of rows."""
    rows = 0
    with pq.ParquetWriter(pa.PythonFile(to, mode="w"), schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def write_arrow(to: RawIOBase, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """An Arrow IPC stream; number of rows."""
    rows = 0
    with pa.ipc.new_stream(pa.PythonFile(to, mode="w"), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def write_ndjson(to: RawIOBase, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """A JSON object a line, its members in the order of the columns; number of rows."""
    rows = 0
    for batch in batches:
        columns = [_texts(schema.field(at), batch.column(at)) for at in range(len(schema))]
        encoded = (dict(zip(schema.names, values, strict=True)) for values in zip(*columns, strict=True))
        to.write(msgspec.json.Encoder().encode_lines(encoded))
        rows += batch.num_rows
    return rows


def _texts(field: "pa.Field[Any]", column: "pa.Array[Any]") -> list[Any]:
    """A column as JSON says it."""
    if field.name in ("log_id", "session_key"):
        return [f"{value:016x}" for value in column.to_pylist()]
    if field.name == "document":
        return [msgspec.Raw(value or b"null") for value in column.cast(pa.binary()).to_pylist()]
    if pa.types.is_timestamp(field.type):
        return [timestamp(value) for value in column.cast(pa.int64()).to_numpy(zero_copy_only=False).tolist()]
    return list(column.to_pylist())


Write = Callable[[RawIOBase, pa.Schema, Iterable[pa.RecordBatch]], int]
FORMATS: Final[dict[str, Write]] = {"parquet": write_parquet, "arrow": write_arrow, "ndjson": write_ndjson}

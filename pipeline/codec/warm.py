"""Compiles the decoder's kernels ahead of use, so that a worker's first batch does not wait for the compiler."""

import numpy as np
import pyarrow as pa

from pipeline.codec.decode import decode
from pipeline.codec.records import ARROW_CONTENT_TYPE, Records

_NAME = "CP1"
_MOMENT_MS = 1_767_225_600_000
_PLAIN = (
    b'{"charge_point_id":"CP1","connector_id":1,"transaction_id":"1","timestamp":"2026-01-01T00:00:00Z","energy_wh":1}'
)


def compile_ahead() -> int:
    """Decodes one record of each kind, which compiles all kernels and fills Numba's cache; how many samples it gave."""
    table = pa.table(
        {
            "charge_point_id": pa.array([_NAME]).dictionary_encode(),
            "connector_id": pa.array([1], pa.int32()),
            "transaction_id": pa.array(["1"]).dictionary_encode(),
            "time": pa.array([_MOMENT_MS], pa.timestamp("ms", "UTC")),
            "register_mwh": pa.array([1], pa.int64()),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    values = [_PLAIN, _PLAIN.replace(b"{", b'{"other":[],', 1), sink.getvalue().to_pybytes()]
    keys: list[bytes | None] = [_NAME.encode()] * 3
    offsets = np.arange(3, dtype=np.int64)
    return len(decode(Records(values, keys, offsets, [None, None, ARROW_CONTENT_TYPE], offsets + _MOMENT_MS)).samples)

"""Rows as Arrow IPC batches, as gateways with high rates send them: many readings a message."""

import numpy as np
import pyarrow as pa

from pipeline.metering import columns as sample
from pipeline.simulate.columns import CHARGING, FINISHED, PREPARING, SAMPLE, START, STOP, SUSPENDED_EV
from pipeline.simulate.network import Network
from pipeline.simulate.texts import Rows
from pipeline.simulate.variants import TXN_VALUES

_EVENT = np.full(8, sample.KIND_SAMPLE, np.int8)
_EVENT[START], _EVENT[STOP] = sample.KIND_START, sample.KIND_STOP
_EVENT[SAMPLE] = sample.KIND_SAMPLE
_STATE = np.full(8, sample.STATE_UNKNOWN, np.int8)
_STATE[PREPARING], _STATE[CHARGING] = sample.STATE_PREPARING, sample.STATE_CHARGING
_STATE[SUSPENDED_EV], _STATE[FINISHED] = sample.STATE_SUSPENDED_EV, sample.STATE_FINISHING
_UTC = pa.timestamp("ms", "UTC")


def encode(rows: Rows, network: Network) -> bytes:
    """One IPC stream with one record batch: the rows, in their order."""
    batch = record_batch(rows, network)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def record_batch(rows: Rows, network: Network) -> pa.RecordBatch:
    """The columns of the Arrow form of meter.readings."""
    tokens, token_at = np.unique(np.where(rows["kind"] == START, rows["token"], -1), return_inverse=True)
    names = pa.array([None if token < 0 else "T%08d" % token for token in tokens.tolist()], pa.string())
    columns = {
        "charge_point_id": _charge_points(rows, network),
        "connector_id": pa.array(network.connector_id[rows["connector"]]),
        "transaction_id": _transactions(rows),
        "time": pa.array(rows["time_ms"].copy()).cast(_UTC),
        "register_mwh": pa.array(rows["register_mwh"].copy()),
        "power_mw": pa.array(rows["power_mw"].copy()),
        "event": pa.array(_EVENT[rows["kind"]]),
        "state": pa.array(_STATE[rows["state"]]),
        "id_token": pa.DictionaryArray.from_arrays(pa.array(token_at.astype(np.int32)), names),
        "received_at": pa.array(rows["arrival_ms"].copy()).cast(_UTC),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _charge_points(rows: Rows, network: Network) -> pa.DictionaryArray:
    distinct, which = np.unique(network.connector_cp[rows["connector"]], return_inverse=True)
    names = pa.array([network.cp_names[cp].decode() for cp in distinct.tolist()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(which.astype(np.int32)), names)


def _transactions(rows: Rows) -> pa.DictionaryArray:
    numbers = rows["number"].copy()
    for variant, value in TXN_VALUES.items():
        numbers[rows["variant"] == variant] = value
    distinct, which = np.unique(numbers, return_inverse=True)
    return pa.DictionaryArray.from_arrays(
        pa.array(which.astype(np.int32)), pa.array([str(number) for number in distinct.tolist()], pa.string())
    )

"""Rows as Arrow IPC batches, as gateways with high rates send them: many readings a message."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.metering import columns as sample
from pipeline.simulate.columns import CHARGING, FINISHED, PREPARING, SAMPLE, START, STOP, SUSPENDED_EV
from pipeline.simulate.network import Network
from pipeline.simulate.texts import Rows
from pipeline.simulate.variants import TXN_VALUES
from rating.columns import I64

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
    columns = {
        "charge_point_id": _charge_points(rows, network),
        "connector_id": pa.array(network.connector_id[rows["connector"]]),
        "transaction_id": _transactions(rows),
        "time": pa.array(rows["time_ms"].copy()).view(_UTC),
        "register_mwh": pa.array(rows["register_mwh"].copy()),
        "power_mw": pa.array(rows["power_mw"].copy()),
        "event": pa.array(_EVENT[rows["kind"]]),
        "state": pa.array(_STATE[rows["state"]]),
        "id_token": _tokens(rows),
        "received_at": pa.array(rows["arrival_ms"].copy()).view(_UTC),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _charge_points(rows: Rows, network: Network) -> "pa.DictionaryArray[Any, Any]":
    distinct, codes = _codes(network.connector_cp[rows["connector"]].astype(np.int64))
    return _dictionary(codes, [network.cp_names[cp].decode() for cp in distinct.tolist()])


def _transactions(rows: Rows) -> "pa.DictionaryArray[Any, Any]":
    numbers = rows["number"].copy()
    for variant, value in TXN_VALUES.items():
        numbers[rows["variant"] == variant] = value
    distinct, codes = _codes(numbers)
    return _dictionary(codes, [str(number) for number in distinct.tolist()])


def _tokens(rows: Rows) -> "pa.DictionaryArray[Any, Any]":
    """Only the first row of a session says whose it is."""
    starts = np.flatnonzero(rows["kind"] == START)
    codes = np.zeros(len(rows), np.int32)
    codes[starts] = np.arange(len(starts), dtype=np.int32)
    texts = [f"T{token:08d}" for token in rows["token"][starts].tolist()]
    said = np.ones(len(rows), np.bool_)
    said[starts] = False  # the mask of pyarrow: True is null
    return _dictionary(pa.array(codes, pa.int32(), mask=said), texts)


def _dictionary(codes: "npt.NDArray[np.int32] | pa.Int32Array", texts: list[str]) -> "pa.DictionaryArray[Any, Any]":
    return pa.DictionaryArray.from_arrays(codes, pa.array(texts, pa.string()))


def _codes(values: I64) -> tuple[I64, npt.NDArray[np.int32]]:
    """The distinct values, ascending, and the place of each value among them."""
    least = int(values.min())
    span = int(values.max()) - least + 1
    if span > 8 * len(values) + 1_000_000:
        distinct, places = np.unique(values, return_inverse=True)
        return distinct, places.astype(np.int32)
    present = np.zeros(span, np.bool_)
    present[values - least] = True
    codes = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(present) + least, codes[values - least]

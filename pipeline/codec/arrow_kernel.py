"""Compiled loops over the rows of an Arrow batch."""

import numba
import numpy as np
import numpy.typing as npt

from pipeline.codec.instants import EARLIEST_MS, LATEST_MS
from pipeline.codec.kernels import is_all_ones
from pipeline.codec.numbers import MAX_CURRENT_MA, MAX_ENERGY_MWH, MAX_POWER_MW
from pipeline.metering import columns
from pipeline.metering.columns import ABSENT_I64

ROW_GOOD = 0
ROW_NO_TIME = 1
ROW_BAD_ENERGY = 2
ROW_BAD_CONNECTOR = 3
ROW_BAD_EVENT = 4

_I64 = npt.NDArray[np.int64]
_I32 = npt.NDArray[np.int32]
_I8 = npt.NDArray[np.int8]
_Ints = tuple[_I32, _I64, _I64, _I64, _I8, _I8, _I32]  # connector, register, power, current, event, state, seq_no
_CONTEXT_OF_KIND = np.array(
    [
        columns.CONTEXT_PERIODIC,
        columns.CONTEXT_BEGIN,
        columns.CONTEXT_END,
        columns.CONTEXT_OTHER,
        columns.CONTEXT_OTHER,
    ],
    np.int8,
)


@numba.njit(nogil=True, cache=True)
def first_bad_row(time_ms: _I64, received_ms: _I64, ints: _Ints) -> tuple[int, int]:
    """The first row that can't be used, and why; (-1, ROW_GOOD) when all can."""
    connector, register, _power, _current, event, state, seq_no = ints
    for row in range(len(time_ms)):
        energy = register[row]
        if not (EARLIEST_MS <= time_ms[row] < LATEST_MS or EARLIEST_MS <= received_ms[row] < LATEST_MS):
            return row, ROW_NO_TIME
        if energy != ABSENT_I64 and abs(energy) > MAX_ENERGY_MWH and not is_all_ones(energy):
            return row, ROW_BAD_ENERGY
        if not 0 <= connector[row] <= 65535:
            return row, ROW_BAD_CONNECTOR
        if not (0 <= event[row] <= 4 and -1 <= state[row] <= 7 and seq_no[row] >= -1):
            return row, ROW_BAD_EVENT
    return -1, ROW_GOOD


@numba.njit(nogil=True, cache=True)
def fill_rows(
    rows: npt.NDArray[np.void],
    offset: int,
    names: tuple[_I32, _I32],
    time_ms: _I64,
    received_ms: _I64,
    time_flags: int,
    has_id: npt.NDArray[np.bool_],
    ints: _Ints,
) -> None:
    """Rows that `first_bad_row` found good, as samples; `txn_hash` is left to the caller."""
    connector, register, power, current, event, state, seq_no = ints
    for row in range(len(rows)):
        sample = rows[row]
        flags = time_flags
        at, received = time_ms[row], received_ms[row]
        received_usable = EARLIEST_MS <= received < LATEST_MS
        if not EARLIEST_MS <= at < LATEST_MS:
            at = received
            flags = columns.FLAG_TIME_UNUSABLE
        energy = register[row]
        if energy == ABSENT_I64 or energy < 0 or is_all_ones(energy):
            if energy != ABSENT_I64:
                flags |= columns.FLAG_NEGATIVE if energy < 0 else columns.FLAG_SENTINEL
            if event[row] < columns.KIND_STATUS:
                flags |= columns.FLAG_NO_ENERGY
            energy = ABSENT_I64
        watts, amperes = power[row], current[row]
        if watts != ABSENT_I64 and abs(watts) > MAX_POWER_MW:
            watts = ABSENT_I64
            flags |= columns.FLAG_VALUE_DROPPED
        if amperes != ABSENT_I64 and abs(amperes) > MAX_CURRENT_MA:
            amperes = ABSENT_I64
            flags |= columns.FLAG_VALUE_DROPPED
        if not has_id[row]:
            flags |= columns.FLAG_TXN_UNUSABLE
        sample.offset = offset
        sample.time_ms = at
        sample.received_ms = received if received_usable else at
        sample.register_mwh = energy
        sample.power_mw = watts
        sample.current_ma = amperes
        sample.line = row
        sample.charge_point = names[0][row]
        sample.connector_id = connector[row]
        sample.token = names[1][row]
        sample.seq_no = seq_no[row]
        sample.flags = flags
        sample.soc_permille = -1
        sample.kind = event[row]
        sample.context = _CONTEXT_OF_KIND[event[row]]
        sample.state = state[row]
        sample.signed = columns.SIGNED_NONE
        sample.phases_live = -1
        sample.phases_said = -1


@numba.njit(nogil=True, cache=True)
def names_used(indices: _I32, count: int) -> npt.NDArray[np.bool_]:
    """Which of `count` dictionary values any row refers to."""
    used = np.zeros(count, np.bool_)
    for index in indices:
        if index >= 0:
            used[index] = True
    return used

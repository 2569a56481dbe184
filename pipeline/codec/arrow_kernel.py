"""Compiled loops over the rows of one Arrow message: is each usable, and what sample does it become."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.codec.bytescan import Bytes
from pipeline.codec.instants import EARLIEST_MS, LATEST_MS
from pipeline.codec.kernels import hash_row, is_all_ones
from pipeline.codec.names import Names, index_of
from pipeline.codec.numbers import MAX_CURRENT_MA, MAX_ENERGY_MWH, MAX_POWER_MW
from pipeline.codec.records import TRANSACTION_ID_BYTES
from pipeline.metering import columns
from pipeline.metering.columns import ABSENT_I64
from rating.jit import allocating, kernel, part

GOOD = 0
NO_TIME = 1
BAD_ENERGY = 2
BAD_CONNECTOR = 3
BAD_EVENT = 4
NO_POINT = 5
BAD_ID = 6

_MAX_NAME = 255
_ID_WORDS = TRANSACTION_ID_BYTES // 4

_I64 = npt.NDArray[np.int64]
_I32 = npt.NDArray[np.int32]
_I8 = npt.NDArray[np.int8]
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


class Texts(NamedTuple):
    """A dictionary-encoded text column: an index a row (-1: none), where each value starts and the last ends, bytes."""

    indices: _I32
    bounds: _I32
    data: Bytes


class Rows(NamedTuple):
    """One message's columns. `ids` holds the transaction ids, a row of words an id, as they go into the samples."""

    points: Texts
    ids: Texts
    tokens: Texts
    time_ms: _I64
    received_ms: _I64
    connector: _I32
    register: _I64
    power: _I64
    current: _I64
    event: _I8
    state: _I8
    seq_no: _I32


@allocating
def first_bad_row(rows: Rows) -> tuple[int, int]:
    """The first row that can't be used, and why; (-1, GOOD) when all can."""
    # Arrays are taken out of the tuple once: Numba counts a reference each time.
    times, arrivals, registers, connectors = rows.time_ms, rows.received_ms, rows.register, rows.connector
    events, states, numbers = rows.event, rows.state, rows.seq_no
    points, id_indices = rows.points.indices, rows.ids.indices
    bad_points = _bad_values(rows.points.bounds, rows.points.data, 1, _MAX_NAME)
    bad_ids = _bad_values(rows.ids.bounds, rows.ids.data, 0, TRANSACTION_ID_BYTES)
    bad_ids[-1] = False
    for row in range(len(times)):
        energy = registers[row]
        if not (EARLIEST_MS <= times[row] < LATEST_MS or EARLIEST_MS <= arrivals[row] < LATEST_MS):
            return row, NO_TIME
        if energy != ABSENT_I64 and abs(energy) > MAX_ENERGY_MWH and not is_all_ones(energy):
            return row, BAD_ENERGY
        if not 0 <= connectors[row] <= 65535:
            return row, BAD_CONNECTOR
        if not (0 <= events[row] <= 4 and -1 <= states[row] <= 7 and numbers[row] >= -1):
            return row, BAD_EVENT
        if bad_points[points[row]]:
            return row, NO_POINT
        if bad_ids[id_indices[row]]:
            return row, BAD_ID
    return -1, GOOD


@allocating
def _bad_values(bounds: _I32, data: Bytes, least: int, most: int) -> npt.NDArray[np.bool_]:
    """Which values are too short, too long or hold control characters; the last entry, for index -1, is True."""
    bad = np.ones(len(bounds), np.bool_)
    for index in range(len(bounds) - 1):
        start, end = bounds[index], bounds[index + 1]
        bad[index] = not least <= end - start <= most
        for at in range(start, min(end, start + most)):
            bad[index] |= data[at] < 0x20
    return bad


@allocating
def _used(indices: _I32, count: int) -> npt.NDArray[np.bool_]:
    """Which values any row refers to; index -1 marks the last entry."""
    used = np.zeros(count, np.bool_)
    for index in indices:
        used[index] = True
    return used


@allocating
def known_names(texts: Texts, names: Names) -> _I32:
    """The joint index of each value in use, -1 for empty ones; one more at the end, for the rows that have none."""
    bounds, data = texts.bounds, texts.data
    found = np.full(len(bounds), -1, np.int32)
    used = _used(texts.indices, len(bounds))
    for index in range(len(bounds) - 1):
        length = bounds[index + 1] - bounds[index]
        if length > 0 and used[index]:
            found[index] = index_of(names, data.ctypes.data + bounds[index], length)
    return found


@allocating
def id_words(ids: Texts, unusable: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
    """Each value in use as the 36 bytes that a sample has, with its hash; zeros where it is one of `unusable`."""
    bounds, data = ids.bounds, ids.data
    used = _used(ids.indices, len(bounds))
    table = np.zeros((len(bounds), _ID_WORDS), np.uint32)
    hashes = np.zeros(len(bounds), np.uint64)
    for index in range(len(bounds) - 1):
        start, size = bounds[index], bounds[index + 1] - bounds[index]
        if size > TRANSACTION_ID_BYTES or not used[index]:
            continue
        for at in range(size):
            table[index, at >> 2] |= np.uint32(data[start + at]) << np.uint32(8 * (at & 3))
        for other in range(len(unusable)):
            same = True
            for word in range(_ID_WORDS):
                same &= table[index, word] == unusable[other, word]
            if same:
                table[index] = 0
        hashes[index] = hash_row(table, index)
    return table, hashes


@kernel
def fill_rows(
    samples: npt.NDArray[np.void],
    ids: npt.NDArray[np.uint32],
    rows: Rows,
    offset: int,
    time_flags: int,
    names: tuple[_I32, _I32],
    id_table: tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]],
) -> None:
    """Rows that `first_bad_row` found good, as samples."""
    times, arrivals, registers, connectors = rows.time_ms, rows.received_ms, rows.register, rows.connector
    events, states, numbers, powers, currents = rows.event, rows.state, rows.seq_no, rows.power, rows.current
    points, tokens, id_indices = rows.points.indices, rows.tokens.indices, rows.ids.indices
    point_names, token_names = names
    words, hashes = id_table
    for row in range(len(samples)):
        sample = samples[row]
        number = id_indices[row]
        for word in range(_ID_WORDS):
            ids[row, word] = words[number, word]
        at, received, flags = _time_of(times[row], arrivals[row], time_flags)
        flags |= 0 if hashes[number] else columns.FLAG_TXN_UNUSABLE
        flags |= _put_measured(sample, registers[row], powers[row], currents[row], events[row])
        sample.offset = offset
        sample.time_ms = at
        sample.received_ms = received
        sample.txn_hash = hashes[number]
        sample.line = row
        sample.charge_point = point_names[points[row]]
        sample.connector_id = connectors[row]
        sample.token = token_names[tokens[row]]
        sample.seq_no = numbers[row]
        sample.flags = flags
        sample.soc_permille = -1
        sample.kind = events[row]
        sample.context = _CONTEXT_OF_KIND[events[row]]
        sample.state = states[row]
        sample.signed = columns.SIGNED_NONE
        sample.phases_live = -1
        sample.phases_said = -1


@part
def _put_measured(sample: Any, energy: int, power: int, current: int, event: int) -> int:
    flags = 0
    if energy == ABSENT_I64 or energy < 0 or is_all_ones(energy):
        if energy != ABSENT_I64:
            flags |= columns.FLAG_NEGATIVE if energy < 0 else columns.FLAG_SENTINEL
        if event < columns.KIND_STATUS:
            flags |= columns.FLAG_NO_ENERGY
        energy = ABSENT_I64
    if power != ABSENT_I64 and abs(power) > MAX_POWER_MW:
        power = ABSENT_I64
        flags |= columns.FLAG_VALUE_DROPPED
    if current != ABSENT_I64 and abs(current) > MAX_CURRENT_MA:
        current = ABSENT_I64
        flags |= columns.FLAG_VALUE_DROPPED
    sample.register_mwh = energy
    sample.power_mw = power
    sample.current_ma = current
    return flags


@part
def _time_of(at: int, received: int, time_flags: int) -> tuple[int, int, int]:
    """Event time, arrival time, flags: each stands in for the other where that is unusable."""
    if not EARLIEST_MS <= at < LATEST_MS:
        return received, received, columns.FLAG_TIME_UNUSABLE
    return at, received if EARLIEST_MS <= received < LATEST_MS else at, time_flags

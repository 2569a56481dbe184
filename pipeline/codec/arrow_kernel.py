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
from rating.jit import allocating, inlined, kernel, part

GOOD = 0
NO_TIME = 1
BAD_ENERGY = 2
BAD_CONNECTOR = 3
BAD_EVENT = 4
NO_POINT = 5
BAD_ID = 6

_MAX_NAME = 255
_MAX_CONNECTOR = 65_535
_MAX_EVENT = 4
_MAX_STATE = 7
_MAX_I32 = 2**31 - 1
_BLANK = 0x20
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
def first_bad_row(rows: Rows, record_ms: int) -> tuple[int, int]:
    """The first row that can't be used, and why; (-1, GOOD) when all can. `record_ms` stands in for no arrival time."""
    if _all_plain(rows):
        return -1, GOOD
    # Arrays are taken out of the tuple once: Numba counts a reference each time.
    times, arrivals, registers, connectors = rows.time_ms, rows.received_ms, rows.register, rows.connector
    events, states, numbers = rows.event, rows.state, rows.seq_no
    points, id_indices = rows.points.indices, rows.ids.indices
    bad_points = _bad_values(rows.points.bounds, rows.points.data, 1, _MAX_NAME)
    bad_ids = _bad_values(rows.ids.bounds, rows.ids.data, 0, TRANSACTION_ID_BYTES)
    bad_ids[-1] = False
    for row in range(len(times)):
        energy = registers[row]
        received = record_ms if arrivals[row] == ABSENT_I64 else arrivals[row]
        if not (EARLIEST_MS <= times[row] < LATEST_MS or EARLIEST_MS <= received < LATEST_MS):
            return row, NO_TIME
        if energy != ABSENT_I64 and abs(energy) > MAX_ENERGY_MWH and not is_all_ones(energy):
            return row, BAD_ENERGY
        if not 0 <= connectors[row] <= _MAX_CONNECTOR:
            return row, BAD_CONNECTOR
        if not (0 <= events[row] <= _MAX_EVENT and -1 <= states[row] <= _MAX_STATE and numbers[row] >= -1):
            return row, BAD_EVENT
        if bad_points[points[row]]:
            return row, NO_POINT
        if bad_ids[id_indices[row]]:
            return row, BAD_ID
    return -1, GOOD


@kernel
def _all_plain(rows: Rows) -> bool:
    """Whether nothing is unusual: a column at a time and without a branch, while `first_bad_row` looks at each row."""
    plain = _within(rows.time_ms, EARLIEST_MS, LATEST_MS - 1) and _registers_within(rows.register)
    plain = plain and _within(rows.connector, 0, _MAX_CONNECTOR) and _within(rows.event, 0, _MAX_EVENT)
    plain = plain and _within(rows.state, -1, _MAX_STATE) and _within(rows.seq_no, -1, _MAX_I32)
    plain = plain and _within(rows.points.indices, 0, _MAX_I32)
    plain = plain and _plain_values(rows.points.bounds, rows.points.data, 1, _MAX_NAME)
    return plain and _plain_values(rows.ids.bounds, rows.ids.data, 0, TRANSACTION_ID_BYTES)


@inlined
def _registers_within(registers: _I64) -> bool:
    """Whether every register that was sent may be one."""
    within = True
    for at in range(len(registers)):
        energy = registers[at]
        within &= (energy == ABSENT_I64) | ((energy >= -MAX_ENERGY_MWH) & (energy <= MAX_ENERGY_MWH))
    return within


@inlined
def _within(column: Any, least: int, most: int) -> bool:
    """Whether every number is in [least, most]."""
    within = True
    for at in range(len(column)):
        within &= (column[at] >= least) & (column[at] <= most)
    return within


@inlined
def _plain_values(bounds: _I32, data: Bytes, least: int, most: int) -> bool:
    """Whether no value is too short, too long or holds control characters."""
    plain = True
    for index in range(len(bounds) - 1):
        size = bounds[index + 1] - bounds[index]
        plain &= (size >= least) & (size <= most)
    for at in range(bounds[0], bounds[-1]):
        plain &= data[at] >= _BLANK
    return plain


@allocating
def _bad_values(bounds: _I32, data: Bytes, least: int, most: int) -> npt.NDArray[np.bool_]:
    """Which values are too short, too long or hold control characters; the last entry, for index -1, is True."""
    bad = np.ones(len(bounds), np.bool_)
    for index in range(len(bounds) - 1):
        start, end = bounds[index], bounds[index + 1]
        bad[index] = not least <= end - start <= most
        for at in range(start, min(end, start + most)):
            bad[index] |= data[at] < _BLANK
    return bad


@allocating
def _used(indices: _I32, count: int) -> npt.NDArray[np.bool_]:
    """Which values any row refers to; index -1 marks the last entry."""
    used = np.zeros(count, np.bool_)
    for index in indices:
        used[index] = True
    return used


@allocating
def known_names(texts: Texts, names: Names, found: _I32) -> None:
    """Write to `found` the joint index of each value in use that is not known there; the others, and no name, are -1.

    Its last entry is for the rows that have none.
    """
    bounds, data = texts.bounds, texts.data
    used = _used(texts.indices, len(bounds))
    for index in range(len(bounds) - 1):
        length = bounds[index + 1] - bounds[index]
        if length > 0 and used[index] and found[index] < 0:
            found[index] = index_of(names, data.ctypes.data + bounds[index], length)


@allocating
def id_words(
    ids: Texts, unusable: npt.NDArray[np.uint32], table: npt.NDArray[np.uint32], hashes: npt.NDArray[np.uint64]
) -> None:
    """Write each value in use as the 36 bytes that a sample has, with its hash; zeros where it is one of `unusable`."""
    bounds, data = ids.bounds, ids.data
    used = _used(ids.indices, len(bounds))
    for index in range(len(bounds) - 1):
        start, size = bounds[index], bounds[index + 1] - bounds[index]
        if size > TRANSACTION_ID_BYTES or not used[index] or hashes[index] != 0:
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


@kernel
def fill_rows(
    samples: npt.NDArray[np.void],
    ids: npt.NDArray[np.void],
    rows: Rows,
    offset: int,
    record_ms: int,
    time_flags: int,
    names: tuple[_I32, _I32],
    id_table: tuple[npt.NDArray[np.void], npt.NDArray[np.uint64]],
) -> None:
    """Rows that `first_bad_row` found good, as samples."""
    times, arrivals, registers, connectors = rows.time_ms, rows.received_ms, rows.register, rows.connector
    events, states, numbers, powers, currents = rows.event, rows.state, rows.seq_no, rows.power, rows.current
    points, tokens, id_indices = rows.points.indices, rows.tokens.indices, rows.ids.indices
    point_names, token_names = names
    texts, hashes = id_table
    for row in range(len(samples)):
        sample = samples[row]
        number = id_indices[row]
        ids[row] = texts[number]
        received = record_ms if arrivals[row] == ABSENT_I64 else arrivals[row]
        at, received, flags = _time_of(times[row], received, time_flags)
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

"""Compiled loops over samples before the pass: once over the rows for what numpy does a column at a time.

The columns of a structured array lie a row apart, so that each numpy operation on one reads the whole array.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.metering.columns import FLAG_TIME_CORRECTED, FLAG_TIME_UNUSABLE, KIND_START, KIND_TICK
from pipeline.metering.output import Record, Rows
from pipeline.metering.state import NONE
from rating.jit import inlined, kernel

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_NO_CLOCK = np.uint32(FLAG_TIME_UNUSABLE | FLAG_TIME_CORRECTED)
_FAR_MS = 2**62
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Survey(NamedTuple):
    """What is to be known of samples before they are metered."""

    keys: I64  # charge point << 32 | connector id of each connector that they name, in order of first appearance
    firsts: I64  # its first sample
    numbers: I32  # of each sample, its connector's place in `keys`; -1 for a tick
    starts: I64  # samples that start a session
    first_ms: int
    last_ms: int  # of event and arrival times


def survey(samples: Rows, tokens: I32, stale_ms: int) -> Survey:
    """Who the samples are of and when, in one go; at least one sample.

    Their tokens become the directory's, by `tokens`, the last of which is for none.
    """
    rows = len(samples)
    keys, firsts, starts = (np.empty(rows, np.int64) for _ in range(3))
    numbers = np.empty(rows, np.int32)
    slots = np.full(1 << (2 * rows).bit_length(), -1, np.int32)
    room = _Room(slots, keys, firsts, numbers, starts)
    connectors, started, first_ms, last_ms = _survey(samples, tokens, stale_ms, room)
    return Survey(keys[:connectors], firsts[:connectors], numbers, starts[:started], first_ms, last_ms)


@inlined
def _believe(sample: Record, stale_ms: int) -> None:
    """A clock that is that far behind its message's arrival is no clock."""
    if sample.received_ms - sample.time_ms > stale_ms:
        sample.time_ms = sample.received_ms
        sample.flags |= _NO_CLOCK


@kernel
def believe_clocks(samples: Rows, stale_ms: int) -> None:
    """Time stamps as `survey` leaves them, for those who ask before; done twice it changes nothing more."""
    for at in range(len(samples)):
        _believe(samples[at], stale_ms)


class _Room(NamedTuple):
    """What `_survey` writes to: as in `Survey`, all as long as the samples."""

    slots: (
        I32  # hash table of connectors by key: where they stand in `keys`, -1 where nothing is; at least twice as long
    )
    keys: I64
    firsts: I64
    numbers: I32
    starts: I64


@kernel
def _survey(samples: Rows, tokens: I32, stale_ms: int, room: _Room) -> tuple[int, int, int, int]:
    slots, keys, firsts, numbers, starts = room
    connectors = n_starts = 0
    first_ms, last_ms = _FAR_MS, -_FAR_MS
    mask = np.uint64(len(slots) - 1)
    for at in range(len(samples)):
        sample = samples[at]
        sample.token = tokens[sample.token]
        _believe(sample, stale_ms)
        first_ms = min(first_ms, sample.time_ms)
        last_ms = max(last_ms, max(sample.time_ms, sample.received_ms))
        if sample.kind == KIND_TICK:
            numbers[at] = -1
            continue
        if sample.kind == KIND_START:
            starts[n_starts] = at
            n_starts += 1
        key = np.int64(sample.charge_point) << 32 | np.int64(sample.connector_id)
        mixed = np.uint64(key) * _MIX
        slot = np.int64((mixed ^ (mixed >> np.uint64(32))) & mask)
        while slots[slot] >= 0 and keys[slots[slot]] != key:
            slot = np.int64(np.uint64(slot + 1) & mask)
        if slots[slot] < 0:
            slots[slot] = connectors
            keys[connectors], firsts[connectors] = key, at
            connectors += 1
        numbers[at] = slots[slot]
    return connectors, n_starts, first_ms, last_ms


@kernel
def fill_facts(facts: Rows, versions: I64, partitions: I32, numbers: I32, rows: I32, in_use: I64) -> None:
    """What the pass needs to know beside each sample, and the version of the reference data that is in use for it.

    Whole facts, so that `facts` may be any memory.
    `rows` are those of the connectors by number, and the last that of none; `in_use` is the slot of the sheets and the
    version by partition.
    """
    for at in range(len(facts)):
        fact, partition = facts[at], partitions[at]
        fact.session_key = np.uint64(0)
        fact.energy_mwh = 0
        fact.verdict = fact.disposition = 0
        fact.row = rows[numbers[at]]
        fact.partition = partition
        fact.sheet = fact.used_sheet = NONE
        fact.slot = in_use[0, partition]
        versions[at] = in_use[1, partition]

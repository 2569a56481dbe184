"""Names by the thousand to small indices: an open-addressing hash table over bytes, compiled.

The bytes of every new name are copied behind one another into an arena, so the buffers they came from may go.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.codec.bytescan import PADDING, Bytes, load1, masked8, same_bytes
from rating.jit import allocating, part

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


class Names(NamedTuple):
    """Room for names: hash table, where each name ends in the arena, the arena, one number: how many there are.

    `ends` starts with a 0 that belongs to no name; name number i stands in arena[ends[i] : ends[i + 1]].
    """

    table: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    arena: Bytes
    used: npt.NDArray[np.int64]


def room_for(names: int, size: int) -> Names:
    """An empty table with room for so many names of so many bytes in all."""
    slots = 1 << max(4, (2 * names).bit_length())
    return Names(
        np.full(slots, -1, np.int32),
        np.zeros(names + 1, np.int64),
        np.empty(size + PADDING, np.uint8),
        np.zeros(1, np.int64),
    )


def texts(names: Names) -> list[str]:
    """The names as text, by index."""
    count = int(names.used[0])
    ends = names.ends[: count + 1].tolist()
    data = names.arena[: ends[-1]].tobytes()
    if data.isascii():
        text = data.decode("ascii")
        return [text[start:end] for start, end in itertools.pairwise(ends)]
    return [data[start:end].decode() for start, end in itertools.pairwise(ends)]


def indices_of(names: Names, added: list[str]) -> npt.NDArray[np.int32]:
    """The index of each of some names, which become known by this; one more, -1, at the end for "none"."""
    encoded = [name.encode() for name in added]
    bounds = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(name) for name in encoded], out=bounds[1:])
    return _indices_of(names, np.frombuffer(b"".join([*encoded, bytes(PADDING)]), np.uint8), bounds)


@allocating
def _indices_of(names: Names, data: Bytes, bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    found = np.full(len(bounds), -1, np.int32)
    for number in range(len(bounds) - 1):
        start = data.ctypes.data + bounds[number]
        found[number] = index_of(names, start, bounds[number + 1] - bounds[number])
    return found


@part
def index_of(names: Names, at: int, length: int) -> int:
    """The index of the name of `length` bytes at the address `at`, which becomes known by this."""
    table, ends, arena, used = names
    mixed: Any = np.uint64(length)
    for position in range(0, length, 8):
        mixed = (mixed ^ masked8(at + position, length - position)) * _MIX
        mixed ^= mixed >> _SHIFT
    mask = len(table) - 1
    slot: Any = np.int64(mixed & np.uint64(mask))
    while table[slot] >= 0:
        index = int(table[slot])
        if ends[index + 1] - ends[index] == length and same_bytes(arena.ctypes.data + ends[index], at, length):
            return index
        slot = (slot + 1) & mask
    index = int(used[0])
    start = ends[index]
    for byte in range(length):
        arena[start + byte] = load1(at + byte)
    table[slot] = index
    ends[index + 1] = start + length
    used[0] = index + 1
    return index

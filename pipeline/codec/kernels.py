"""Compiled loops that more than one input form shares: hashes of ids, registers of all ones. No allocation, no GIL."""

from typing import Any

import numpy as np
import numpy.typing as npt

from rating.jit import kernel, part

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_ZERO = np.uint64(0)


@part
def hash_row(table: npt.NDArray[np.uint32], row: int) -> Any:
    """A fixed 64-bit hash of a row of words; 0 where all of them are 0 and nowhere else."""
    mixed = _ZERO
    said = _ZERO
    for column in range(table.shape[1]):
        word = np.uint64(table[row, column])
        said |= word
        mixed = (mixed ^ word) * _PRIME
        mixed ^= mixed >> _SHIFT
    return _ZERO if said == _ZERO else max(mixed, np.uint64(1))


@kernel
def hash_rows(table: npt.NDArray[np.uint32], hashes: npt.NDArray[np.uint64]) -> None:
    """`hash_row` of each row."""
    for row in range(len(table)):
        hashes[row] = hash_row(table, row)


@part
def is_all_ones(energy_mwh: int) -> bool:
    """The int64 half of `numbers.is_sentinel`: 32 or 31 ones in any scale from mWh to kWh, or 63 ones."""
    if energy_mwh < 0x7FFFFFFF:
        return False
    for _ in range(6):
        if energy_mwh % 10 != 0:
            break
        energy_mwh //= 10
    return energy_mwh == 0xFFFFFFFF or energy_mwh == 0x7FFFFFFF or energy_mwh == 0x7FFFFFFFFFFFFFFF

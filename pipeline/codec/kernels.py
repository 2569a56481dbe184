"""Compiled loops that more than one input form shares: hashes of ids, registers of all ones. No allocation, no GIL."""

import numba
import numpy as np
import numpy.typing as npt


@numba.njit(nogil=True, cache=True)
def hash_rows(words: npt.NDArray[np.uint32], hashes: npt.NDArray[np.uint64]) -> None:
    """A fixed 64-bit hash of each row of words; 0 for a row of zeros and for no other."""
    prime, shift, zero = np.uint64(0x9E3779B97F4A7C15), np.uint64(32), np.uint64(0)
    for row in range(words.shape[0]):
        mixed = zero
        said = zero
        for column in range(words.shape[1]):
            word = np.uint64(words[row, column])
            said |= word
            mixed = (mixed ^ word) * prime
            mixed ^= mixed >> shift
        hashes[row] = zero if said == zero else max(mixed, np.uint64(1))


@numba.njit(nogil=True, cache=True)
def is_all_ones(energy_mwh: int) -> bool:
    """The int64 half of `numbers.is_sentinel`: 32 or 31 ones in any scale from mWh to kWh, or 63 ones."""
    if energy_mwh < 0x7FFFFFFF:
        return False
    for _ in range(6):
        if energy_mwh % 10 != 0:
            break
        energy_mwh //= 10
    return energy_mwh == 0xFFFFFFFF or energy_mwh == 0x7FFFFFFF or energy_mwh == 0x7FFFFFFFFFFFFFFF

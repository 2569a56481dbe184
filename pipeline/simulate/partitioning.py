"""Kafka's default partition of a key (murmur2 as in the Java client), for many keys at once.

The producer does this for every keyed message; the fleet needs it too, because an Arrow message holds
many charge points and must go where each of them would go alone.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_M = np.uint32(0x5BD1E995)
_SEED = 0x9747B28C


def partition_of(keys: Sequence[bytes], partitions: int) -> npt.NDArray[np.int32]:
    """The partition of each key among `partitions`, equal to Java's and to librdkafka's `murmur2_random`."""
    lengths = np.array([len(key) for key in keys], np.int64)
    out = np.empty(len(keys), np.int32)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        block = np.frombuffer(b"".join([keys[row] for row in rows.tolist()]), np.uint8).reshape(len(rows), length)
        out[rows] = (_murmur2(block) & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)
    return out


def _murmur2(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    length = keys.shape[1]
    h = np.full(len(keys), np.uint32(_SEED ^ length), np.uint32)
    whole = length // 4 * 4
    words = np.ascontiguousarray(keys[:, :whole]).view("<u4") if whole else np.empty((len(keys), 0), np.uint32)
    for column in range(words.shape[1]):
        k = words[:, column] * _M
        k ^= k >> np.uint32(24)
        h = (h * _M) ^ (k * _M)
    if length > whole:
        for at in range(whole, length):
            h ^= keys[:, at].astype(np.uint32) << np.uint32(8 * (at - whole))
        h *= _M
    h ^= h >> np.uint32(13)
    h *= _M
    return h ^ (h >> np.uint32(15))

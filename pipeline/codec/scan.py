"""The fast way through a batch of JSON: one compiled pass over all bytes, the twin's rows put in where they belong."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.codec import slots
from pipeline.codec.assemble import hash_ids
from pipeline.codec.bytescan import PADDING
from pipeline.codec.names import Names, indices_of, room_for, texts
from pipeline.codec.records import TRANSACTION_ID_BYTES, TRANSACTION_ID_DTYPE, Decoded, Records
from pipeline.codec.scan_rows import scan_batch
from pipeline.metering.columns import ABSENT_I64, SAMPLE_DTYPE
from rating.jit import kernel, part

CHUNK = 2048  # records whose bytes are joined at a time: they fit the cache, and their memory is used again

_END = bytes(PADDING)
_SAMPLE_WORDS = SAMPLE_DTYPE.itemsize // 8


class Scanned(NamedTuple):
    """The plain records: the first `rows` of the arrays, which have room for a row a record; and who is left over."""

    samples: npt.NDArray[np.void]
    ids: npt.NDArray[np.uint8]
    owners: npt.NDArray[np.int32]
    rows: int
    left: list[int]
    points: Names
    tokens: Names


def scan(records: Records) -> Scanned:
    """Reads every record that has a plain form; for those the answer is the twin's to the bit."""
    count = len(records.values)
    samples = np.empty(count + 1, SAMPLE_DTYPE)
    ids = np.empty((count + 1, TRANSACTION_ID_BYTES), np.uint8)
    owners, left = np.empty(count + 1, np.int32), np.empty(count, np.int32)
    values, keys = _Joined(records.values), _Joined([key or b"" for key in records.keys])
    names = room_for(count, int(keys.bounds[-1])), room_for(count, int(values.bounds[-1]))
    times_ms = np.full(count, ABSENT_I64) if records.times_ms is None else records.times_ms
    room = np.empty(slots.COUNT, np.int64)
    rows = lefts = 0
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count)
        rows, lefts = scan_batch(
            (first, last, rows, lefts),
            values.part(first, last),
            keys.part(first, last),
            (records.offsets, times_ms, room),
            (samples, ids, owners, left),
            names,
        )
    return Scanned(samples, ids, owners, rows, left[:lefts].tolist(), *names)


def completed(scanned: Scanned, twin: Decoded) -> Decoded:
    """The plain records together with those that the twin has read, in record order."""
    samples, ids, owners = _with_room(scanned, len(twin.samples))
    points = indices_of(scanned.points, twin.charge_points)
    tokens = indices_of(scanned.tokens, twin.tokens)
    twin.samples["charge_point"] = points[twin.samples["charge_point"]]
    twin.samples["token"] = tokens[twin.samples["token"]]
    places = np.empty(len(twin.samples), np.int64)
    _put_in(
        (samples.view(np.uint64).reshape(-1, _SAMPLE_WORDS), ids, owners),
        scanned.rows,
        (
            twin.samples.view(np.uint64).reshape(-1, _SAMPLE_WORDS),
            twin.transaction_ids.view(np.uint8).reshape(-1, TRANSACTION_ID_BYTES),
            twin.records,
        ),
        places,
    )
    rows = scanned.rows + len(twin.samples)
    transaction_ids = ids[:rows].view(TRANSACTION_ID_DTYPE)[:, 0]
    samples = samples[:rows]
    samples["txn_hash"] = hash_ids(transaction_ids)
    return Decoded(
        samples,
        transaction_ids,
        owners[:rows],
        texts(scanned.points),
        texts(scanned.tokens),
        twin.dead,
        [blob._replace(sample=int(places[blob.sample])) for blob in twin.signed],
    )


_Rows = tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8], npt.NDArray[np.int32]]


def _with_room(
    scanned: Scanned, more: int
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """The arrays with room for so many more rows: a record that the twin reads may have many lines."""
    missing = scanned.rows + more - len(scanned.samples)
    if missing <= 0:
        return scanned.samples, scanned.ids, scanned.owners
    return (
        np.concatenate([scanned.samples, np.empty(missing, SAMPLE_DTYPE)]),
        np.concatenate([scanned.ids, np.empty((missing, TRANSACTION_ID_BYTES), np.uint8)]),
        np.concatenate([scanned.owners, np.empty(missing, np.int32)]),
    )


@kernel
def _put_in(rows: _Rows, count: int, others: _Rows, places: npt.NDArray[np.int64]) -> None:
    """Merges `others` into the first `count` of `rows`, both ascending by record, from the last row backwards."""
    samples, ids, owners = rows
    other_samples, other_ids, other_owners = others
    row = count - 1
    other = len(other_owners) - 1
    at = row + other + 1
    while other >= 0:
        if row >= 0 and owners[row] > other_owners[other]:
            _copy_row(samples, ids, at, samples, ids, row)
            owners[at] = owners[row]
            row -= 1
        else:
            _copy_row(samples, ids, at, other_samples, other_ids, other)
            owners[at] = other_owners[other]
            places[other] = at
            other -= 1
        at -= 1


@part
def _copy_row(
    samples: npt.NDArray[np.uint64],
    ids: npt.NDArray[np.uint8],
    at: int,
    from_samples: npt.NDArray[np.uint64],
    from_ids: npt.NDArray[np.uint8],
    row: int,
) -> None:
    for word in range(_SAMPLE_WORDS):
        samples[at, word] = from_samples[row, word]
    for byte in range(TRANSACTION_ID_BYTES):
        ids[at, byte] = from_ids[row, byte]


class _Joined:
    """Many pieces of bytes, to be laid behind one another some at a time."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.bounds = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)), out=self.bounds[1:])

    def part(self, first: int, last: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The pieces [first, last) as one run of padded bytes, and where each begins and the last ends."""
        run = b"".join([*self._pieces[first:last], _END])
        return np.frombuffer(run, np.uint8), self.bounds[first : last + 1] - self.bounds[first]

"""Messages to columns, and parts of a batch to one batch."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pipeline.codec.kernels import hash_rows
from pipeline.codec.records import TRANSACTION_ID_BYTES, TRANSACTION_ID_DTYPE, DeadLetter, Decoded, SignedBlob
from pipeline.codec.twin import Arrived
from pipeline.metering import columns
from pipeline.metering.columns import SAMPLE_DTYPE

_Row = tuple[int, ...]


class Builder:
    """Collects rows of one part of a batch, record by record, in order."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._records: list[int] = []
        self._transaction_ids: list[bytes] = []
        self._charge_points: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._signed: list[SignedBlob] = []
        self.dead: list[DeadLetter] = []

    def add(self, record: int, offset: int, arrived: Arrived) -> None:
        """All lines of one record."""
        message = arrived.message
        point = self._charge_points.setdefault(arrived.charge_point_id, len(self._charge_points))
        token = self._tokens.setdefault(message.token, len(self._tokens)) if message.token else -1
        flags = message.flags | (0 if message.transaction_id else columns.FLAG_TXN_UNUSABLE)
        for number, line in enumerate(message.lines):
            received_ms = line.time_ms if arrived.received_ms is None else arrived.received_ms
            if line.signed is not None:
                self._signed.append(
                    SignedBlob(len(self._rows), line.signed.data, line.signed.method, line.signed.public_key)
                )
            self._rows.append(
                (
                    offset,
                    line.time_ms,
                    received_ms,
                    line.register_mwh,
                    line.power_mw,
                    line.current_ma,
                    0,
                    number,
                    point,
                    message.connector_id,
                    token,
                    message.seq_no,
                    line.flags | flags,
                    line.soc_permille,
                    line.kind,
                    line.context,
                    line.state,
                    columns.SIGNED_UNVERIFIABLE if line.signed else columns.SIGNED_NONE,
                    line.phases_live,
                    line.phases_said,
                )
            )
        self._records.extend([record] * len(message.lines))
        self._transaction_ids.extend([message.transaction_id] * len(message.lines))

    def finish(self) -> Decoded:
        """The part as columns."""
        samples = np.array(self._rows, dtype=SAMPLE_DTYPE)
        transaction_ids = np.array(self._transaction_ids, dtype=TRANSACTION_ID_DTYPE)
        samples["txn_hash"] = hash_ids(transaction_ids)
        return Decoded(
            samples,
            transaction_ids,
            np.array(self._records, dtype=np.int32),
            list(self._charge_points),
            list(self._tokens),
            self.dead,
            self._signed,
        )


def placed(part: Decoded, positions: npt.NDArray[np.int64]) -> Decoded:
    """The part with the indices that its records have in the whole batch."""
    dead = [DeadLetter(int(positions[letter.index]), letter.reason, letter.detail) for letter in part.dead]
    return part._replace(records=positions[part.records].astype(np.int32), dead=dead)


def merged(parts: list[Decoded]) -> Decoded:
    """Parts that hold different records of one batch, as one part in record order."""
    parts = [part for part in parts if len(part.records) or part.dead]
    if len(parts) == 1:
        return parts[0]
    points: dict[str, int] = {}
    tokens: dict[str, int] = {}
    pieces = [_renamed(part, points, tokens) for part in parts]
    records = np.concatenate([part.records for part in parts] or [np.empty(0, np.int32)])
    order = np.argsort(records, kind="stable")
    return Decoded(
        np.concatenate(pieces or [np.empty(0, SAMPLE_DTYPE)])[order],
        np.concatenate([part.transaction_ids for part in parts] or [np.empty(0, TRANSACTION_ID_DTYPE)])[order],
        records[order],
        list(points),
        list(tokens),
        sorted((letter for part in parts for letter in part.dead), key=lambda letter: letter.index),
        _moved(parts, order),
    )


def _renamed(part: Decoded, points: dict[str, int], tokens: dict[str, int]) -> npt.NDArray[np.void]:
    samples = part.samples.copy()
    samples["charge_point"] = _indices(part.charge_points, points)[samples["charge_point"]]
    samples["token"] = np.append(_indices(part.tokens, tokens), np.int32(-1))[samples["token"]]
    return samples


def _indices(names: Iterable[str], known: dict[str, int]) -> npt.NDArray[np.int32]:
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int32)


def _moved(parts: list[Decoded], order: npt.NDArray[np.int64]) -> list[SignedBlob]:
    row_of = np.empty(len(order), np.int64)
    row_of[order] = np.arange(len(order))
    blobs: list[SignedBlob] = []
    first = 0
    for part in parts:
        blobs.extend(blob._replace(sample=int(row_of[first + blob.sample])) for blob in part.signed)
        first += len(part.records)
    return sorted(blobs, key=lambda blob: blob.sample)


def hash_ids(transaction_ids: npt.NDArray[np.bytes_]) -> npt.NDArray[np.uint64]:
    """A fixed 64-bit hash of each id's 36 bytes (never Python's); 0 for the empty id and for no other."""
    words = np.ascontiguousarray(transaction_ids).view(np.uint32).reshape(-1, TRANSACTION_ID_BYTES // 4)
    hashes = np.empty(len(transaction_ids), np.uint64)
    hash_rows(words, hashes)
    return hashes

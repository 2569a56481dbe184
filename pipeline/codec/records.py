"""What goes into the codec and what comes out. Layout only: nothing is decoded here."""

from itertools import compress
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

TRANSACTION_ID_BYTES = 36  # OCPP 2.x identifierString[36]; a 1.6 integer fits
TRANSACTION_ID_DTYPE = np.dtype(f"S{TRANSACTION_ID_BYTES}")
ARROW_CONTENT_TYPE = "application/vnd.apache.arrow.stream"


class UndecodableError(ValueError):
    """An input that can never be used: `reason` is a code to count by, `detail` a sentence for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Records(NamedTuple):
    """Records of one partition as the Kafka client gave them, in offset order.

    `content_types` None means that all are JSON. `times_ms` are Kafka's record times, which stand in
    for a missing `received_at`; they are part of the log, so a replay sees the same.
    """

    values: list[bytes]
    keys: list[bytes | None]
    offsets: npt.NDArray[np.int64]
    content_types: list[str | None] | None = None
    times_ms: npt.NDArray[np.int64] | None = None


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A record that gives no sample: its index in the Records, a code, a sentence."""

    index: int
    reason: str
    detail: str


class SignedBlob(NamedTuple):
    """A signed meter value beside sample number `sample`; `public_key` is what the charger sent and is not trusted."""

    sample: int
    data: bytes
    method: str
    public_key: str


class Decoded(NamedTuple):
    """Sample columns of a batch; every record is in `records` (one row a sample) or in `dead`, never in both.

    `transaction_ids` is aligned with `samples` (b"" where unusable); `records` holds the index of each
    sample's record, ascending.
    """

    samples: npt.NDArray[np.void]
    transaction_ids: npt.NDArray[np.bytes_]
    records: npt.NDArray[np.int32]
    charge_points: list[str]
    tokens: list[str]
    dead: list[DeadLetter]
    signed: list[SignedBlob]


def taken(records: Records, chosen: npt.NDArray[np.bool_]) -> Records:
    """The records that are chosen: one True or False a record."""
    picks = chosen.tolist()
    return Records(
        list(compress(records.values, picks)),
        list(compress(records.keys, picks)),
        records.offsets[chosen],
        None if records.content_types is None else list(compress(records.content_types, picks)),
        None if records.times_ms is None else records.times_ms[chosen],
    )

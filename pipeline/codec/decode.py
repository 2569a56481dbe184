"""A batch of Kafka records to sample columns: the codec's front door."""

from collections.abc import Sequence

import numba
import numpy as np

from pipeline.codec.arrow import read_arrow
from pipeline.codec.assemble import Builder, merged, placed
from pipeline.codec.instants import EARLIEST_MS, LATEST_MS
from pipeline.codec.records import ARROW_CONTENT_TYPE, DeadLetter, Decoded, Records, UndecodableError, taken
from pipeline.codec.scan import completed, scan
from pipeline.codec.twin import read_record

# The scanners read memory by compiled loads that have no interpreted form.
_SCANS = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


def decode(records: Records) -> Decoded:
    """Samples in record order, then line order, and a dead letter for each record that can't be used.

    Stateless and a pure function of the records; no input bytes raise.
    """
    if records.content_types is None or ARROW_CONTENT_TYPE not in records.content_types:
        return decode_json(records)
    is_arrow = np.array([kind == ARROW_CONTENT_TYPE for kind in records.content_types])
    arrow, json = np.flatnonzero(is_arrow), np.flatnonzero(~is_arrow)
    if not len(json):
        return read_arrow(records, arrow.tolist())
    return merged([read_arrow(records, arrow.tolist()), placed(decode_json(taken(records, ~is_arrow)), json)])


def decode_json(records: Records) -> Decoded:
    """JSON records: the plain ones in one compiled pass, the rest by the twin."""
    if not _SCANS:
        return decode_by_twin(records, range(len(records.values)))
    scanned = scan(records)
    return completed(scanned, decode_by_twin(records, scanned.left))


def decode_by_twin(records: Records, indices: Sequence[int]) -> Decoded:
    """The JSON records at `indices`, one by one through msgspec."""
    builder = Builder()
    for index in indices:
        try:
            arrived = read_record(records.values[index], records.keys[index], _record_ms(records, index))
        except UndecodableError as problem:
            builder.dead.append(DeadLetter(index, problem.reason, problem.detail))
        else:
            builder.add(index, int(records.offsets[index]), arrived)
    return builder.finish()


def _record_ms(records: Records, index: int) -> int | None:
    if records.times_ms is None:
        return None
    record_ms = int(records.times_ms[index])
    return record_ms if EARLIEST_MS <= record_ms < LATEST_MS else None

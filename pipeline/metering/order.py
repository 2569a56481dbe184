"""Order: was a sample seen before, when did it happen, whose is it, and is it behind what already counted?

Pure questions about one connector's state and one sample; what follows from the answers is in `step`.
"""

import numpy as np

from pipeline.metering.columns import ABSENT_I64, KIND_SAMPLE, KIND_START
from pipeline.metering.output import Record
from pipeline.metering.policy import Limits
from pipeline.metering.run import Desk
from pipeline.metering.sessions import mixed
from rating.jit import inlined

NO_TXN = np.uint64(0)


@inlined
def seen_before(desk: Desk, connector: int, sample: Record) -> bool:
    """Whether the same sample is among the connector's last few; it is remembered if not."""
    fingerprint = mixed(np.uint64(sample.time_ms), mixed(np.uint64(sample.register_mwh), sample.txn_hash))
    detail = np.uint64(sample.kind) + np.uint64(sample.seq_no + 1) * np.uint64(16)
    fingerprint = mixed(fingerprint, detail + np.uint64(sample.state + 1) * np.uint64(1 << 40))
    row = desk.connectors[connector]
    if fingerprint in (row.seen_1, row.seen_2, row.seen_3, row.seen_4):
        return True
    row.seen_4, row.seen_3, row.seen_2, row.seen_1 = row.seen_3, row.seen_2, row.seen_1, fingerprint
    return False


@inlined
def event_time(row: Record, sample: Record, limits: Limits) -> int:
    """The instant that counts: a clock in the future is not believed (policy: arrival time), seqNo beats the clock."""
    time_ms = sample.time_ms
    if time_ms > sample.received_ms + limits.future_ms:
        time_ms = sample.received_ms
    by_seq_no = sample.seq_no >= 0 and sample.seq_no >= row.seq_no >= 0
    if row.open and (by_seq_no or limits.rerun) and time_ms < row.last_ms:
        time_ms = row.last_ms
    return time_ms


@inlined
def belongs(row: Record, sample: Record, time_ms: int) -> bool:
    """Whether the sample is of the open session: by transaction id, or by time where it has none.

    A start without a usable id after the session's last reading begins another: the stop before it was lost.
    """
    if sample.txn_hash != NO_TXN:
        return bool(row.open != 0 and sample.txn_hash == row.txn_hash)
    return bool(row.open != 0 and not (sample.kind == KIND_START and time_ms > row.last_ms))


@inlined
def late(row: Record, sample: Record, time_ms: int) -> bool:
    """Behind what already counted: by seqNo where the session has one, by time and register otherwise."""
    if sample.kind == KIND_START:
        return True
    if sample.seq_no >= 0 and row.seq_no >= 0 and sample.seq_no != row.seq_no:
        return bool(sample.seq_no < row.seq_no)
    newest_ms = max(row.last_ms, row.pend_ms) if row.pend != 0 else row.last_ms
    if time_ms != newest_ms:
        return bool(time_ms < newest_ms)
    known = sample.register_mwh == ABSENT_I64 or row.relative or row.pend != 0
    return bool(not known and sample.kind == KIND_SAMPLE and sample.register_mwh < row.last_mwh and row.readings > 1)

"""Records of a batch, by partition, to rounds of samples in log order with control records between them.

A round ends in each partition at its next control record; ticks are samples of their own, and end a round only where
something may be due by then (`Wake`): what comes after must find it done, however the log is cut into batches. Records
that the store is known to refuse become dead letters here (`refusals`).
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.codec.control import Control, ControlAt, Split, Tick, split_controls
from pipeline.codec.decode import decode
from pipeline.codec.records import DeadLetter, Records, SignedBlob, taken
from pipeline.metering.columns import ABSENT_I64, KIND_TICK, SAMPLE_DTYPE
from pipeline.metering.output import Rows, rows_at, rows_joined
from pipeline.rate.records import joined

REFUSED_BY_STORE: Final = "refused_by_store"
Refused = Mapping[int, Mapping[int, str]]  # partition → offset → the store's words


class Break(NamedTuple):
    """A control record that ends a round in its partition."""

    partition: int
    offset: int
    control: Control


class Wake(NamedTuple):
    """From when on a tick may find something to do in a partition beside its connectors: see `PartitionState.wake`."""

    log_time_ms: int
    due_ms: int  # what is known already
    after_ms: int  # what a record brings, so long after its arrival


WakeOf = Callable[[int], Wake]  # by partition


class Input(NamedTuple):
    """All that a batch brings. Records are numbered through, partition after partition (`of_partition`)."""

    values: list[bytes]
    keys: list[bytes | None]
    offsets: npt.NDArray[np.int64]
    times_ms: npt.NDArray[np.int64]
    of_partition: npt.NDArray[np.int32]
    samples: Rows  # by (partition, offset, line); ticks among them
    partitions: npt.NDArray[np.int32]  # of each sample
    rounds: npt.NDArray[np.int32]
    records: npt.NDArray[np.int64]  # of each sample; -1 for a tick
    transaction_ids: npt.NDArray[np.bytes_]
    charge_points: list[str]
    tokens: list[str]
    signed: list[SignedBlob]  # `sample` counts in `samples`
    dead: list[DeadLetter]  # `index` counts in `values`
    breaks: list[list[Break]]  # by round
    controls: npt.NDArray[np.int64]  # index of each control record


def read(batches: Mapping[int, Records], refused: Refused, wake_of: WakeOf | None = None) -> Input:
    """Decode a batch; pure. `batches` maps partition, ascending, to its records in offset order.

    `wake_of` is asked for partitions that have a tick; without it no tick ends a round.
    """
    whole = joined(list(batches.values()))
    of_partition = np.repeat(np.array(list(batches), np.int32), [len(records.values) for records in batches.values()])
    split, set_apart = _set_apart(split_controls(whole), of_partition, refused)
    decoded = decode(split.data)
    records = split.positions[decoded.records]
    ticks = [at for at in split.controls if isinstance(at.control, Tick)]
    others = [at for at in split.controls if not isinstance(at.control, Tick)]
    given = _InOrder(decoded.samples, decoded.transaction_ids, records, None)
    if ticks:
        given = _with_ticks(given, ticks)
    where = of_partition[given.records]
    busy = {int(of_partition[at.index]) for at in others}
    busy.update(where[[given.place(blob.sample) for blob in decoded.signed]].tolist())
    waking = _waking(ticks, of_partition, _earliest(given.samples, where), wake_of, busy) if ticks and wake_of else []
    breaks = _breaks([*others, *waking], of_partition)
    dead = [DeadLetter(int(split.positions[d.index]), d.reason, d.detail) for d in decoded.dead]
    times_ms = whole.times_ms if whole.times_ms is not None else np.zeros(len(whole.values), np.int64)
    return Input(
        values=whole.values, keys=whole.keys, offsets=whole.offsets, times_ms=times_ms, of_partition=of_partition,
        samples=given.samples, partitions=where, rounds=_rounds(given.samples, where, breaks),
        records=np.where(given.samples["kind"] == KIND_TICK, -1, given.records) if ticks else given.records,
        transaction_ids=given.transaction_ids, charge_points=decoded.charge_points, tokens=decoded.tokens,
        signed=[blob._replace(sample=given.place(blob.sample)) for blob in decoded.signed],
        dead=[*split.dead, *set_apart, *dead], breaks=breaks,
        controls=np.array([at.index for at in split.controls], np.int64),
    )  # fmt: skip


class _InOrder(NamedTuple):
    """Samples in log order."""

    samples: Rows
    transaction_ids: npt.NDArray[np.bytes_]
    records: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64] | None  # where each decoded sample is; None where it was

    def place(self, sample: int) -> int:
        """Where a decoded sample is."""
        return sample if self.places is None else int(self.places[sample])


def _with_ticks(given: _InOrder, ticks: list[ControlAt]) -> _InOrder:
    """Two runs, both in order, as one: the samples and the ticks."""
    record = np.concatenate([given.records, np.array([at.index for at in ticks], np.int64)])
    order = np.argsort(record, kind="stable")
    places = np.empty(len(record), np.int64)
    places[order] = np.arange(len(record))
    texts = np.concatenate([given.transaction_ids, np.zeros(len(ticks), given.transaction_ids.dtype)])
    samples = rows_joined([given.samples, _tick_samples(ticks)])
    return _InOrder(rows_at(samples, order), texts[order], record[order], places)


def _set_apart(split: Split, of_partition: npt.NDArray[np.int32], refused: Refused) -> tuple[Split, list[DeadLetter]]:
    """Without the records that the store refuses, and these."""
    if not any(refused.values()):
        return split, []
    where, offsets = of_partition[split.positions], split.data.offsets
    found = np.zeros(len(offsets), np.bool_)
    for partition, words in refused.items():
        if words:
            found |= (where == partition) & np.isin(offsets, list(words))
    if not found.any():
        return split, []
    dead = [
        DeadLetter(int(split.positions[at]), REFUSED_BY_STORE, refused[int(where[at])][int(offsets[at])])
        for at in np.flatnonzero(found).tolist()
    ]
    return split._replace(data=taken(split.data, ~found), positions=split.positions[~found]), dead


def _tick_samples(ticks: list[ControlAt]) -> Rows:
    samples = np.zeros(len(ticks), SAMPLE_DTYPE)
    samples["kind"] = KIND_TICK
    samples["register_mwh"] = ABSENT_I64
    samples["token"] = samples["charge_point"] = -1
    samples["offset"] = [at.offset for at in ticks]
    samples["time_ms"] = samples["received_ms"] = [tick_ms(at.control) for at in ticks]
    return samples


def tick_ms(control: Control) -> int:
    """The time that a tick tells."""
    if not isinstance(control, Tick):
        raise TypeError(f"{control!r} is no tick")
    return control.time_ms


def _breaks(controls: list[ControlAt], of_partition: npt.NDArray[np.int32]) -> list[list[Break]]:
    by_partition: dict[int, list[Break]] = {}
    for at in sorted(controls, key=lambda c: c.index):
        partition = int(of_partition[at.index])
        by_partition.setdefault(partition, []).append(Break(partition, at.offset, at.control))
    count = max((len(found) for found in by_partition.values()), default=0)
    return [[found[n] for _, found in sorted(by_partition.items()) if n < len(found)] for n in range(count)]


def _earliest(samples: Rows, partitions: npt.NDArray[np.int32]) -> dict[int, int]:
    """The earliest arrival of a partition's samples, which lie together."""
    firsts = np.flatnonzero(np.diff(partitions, prepend=-1))
    arrived = np.minimum.reduceat(samples["received_ms"], firsts)
    return dict(zip(partitions[firsts].tolist(), arrived.tolist(), strict=True))


def _waking(
    ticks: list[ControlAt], of_partition: npt.NDArray[np.int32], earliest: Mapping[int, int], wake_of: WakeOf,
    busy: set[int],
) -> list[ControlAt]:  # fmt: skip
    """The ticks by which something may be due; all of a partition that is `busy`: its limits, holds or signed values
    may become others within the batch."""
    wakes: dict[int, Wake] = {}
    found = []
    for at in sorted(ticks, key=lambda tick: tick.index):
        partition = int(of_partition[at.index])
        wake = wakes.get(partition) or wake_of(partition)
        wakes[partition] = wake = wake._replace(log_time_ms=max(wake.log_time_ms, tick_ms(at.control)))
        if partition in busy or wake.log_time_ms >= min(wake.due_ms, earliest[partition] + wake.after_ms):
            found.append(at)
    return found


def _rounds(samples: Rows, partitions: npt.NDArray[np.int32], breaks: list[list[Break]]) -> npt.NDArray[np.int32]:
    offsets: dict[int, list[int]] = {}
    for place in (place for ending in breaks for place in ending):
        offsets.setdefault(place.partition, []).append(place.offset)
    rounds = np.zeros(len(samples), np.int32)
    for partition, ends in offsets.items():
        of_it = partitions == partition
        rounds[of_it] = np.searchsorted(np.array(ends), samples["offset"][of_it])
    return rounds

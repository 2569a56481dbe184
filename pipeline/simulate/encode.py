"""Rows of a network in log order as messages: each charge point in its own shape, with ticks between."""

from typing import Final

import numpy as np

from pipeline.simulate import arrow, flat, ocpp16, ocpp201
from pipeline.simulate.columns import AVAILABLE, POISON, sorted_by, take
from pipeline.simulate.message import ARROW_HEADERS, Batch, Headers
from pipeline.simulate.network import SHAPES, Network
from pipeline.simulate.partitioning import partition_of
from pipeline.simulate.texts import Rows, Texts
from pipeline.simulate.variants import (
    AS_PLAIN,
    BROKEN_JSON,
    POISON_EMPTY,
    POISON_GIANT,
    POISON_NAN,
    POISON_NOT_UTF8,
    POISON_NULL_KEY,
)
from rating.columns import I64

_GIANT: Final = 200_000
_ENCODERS: Final = {"ocpp16": ocpp16, "ocpp201": ocpp201, "flat": flat}
_HAS_STATUS: Final = np.array([shape in ("ocpp16", "ocpp201") for shape in SHAPES])


class Encoder:
    """Turns rows into a batch of messages for a topic with `partitions` partitions."""

    def __init__(self, network: Network, partitions: int) -> None:
        self._network = network
        self._texts = Texts(network)
        self._partitions = partitions
        self._cp_partition = partition_of(network.cp_names, partitions)
        self._all_arrow = bool(np.all(network.cp_shape == SHAPES.index("arrow")))

    def batch(self, rows: Rows, ticks_ms: I64) -> Batch:
        """Messages of `rows` (ascending arrival), and after all that arrived up to each tick that tick, everywhere."""
        cuts = np.searchsorted(rows["arrival_ms"], ticks_ms, side="right").tolist()
        if self._all_arrow:
            return self._arrow(rows, cuts, ticks_ms.tolist())
        rows = take(rows, np.flatnonzero(_HAS_STATUS[self._shape_of(rows)] | (rows["kind"] != AVAILABLE)))
        cuts = np.searchsorted(rows["arrival_ms"], ticks_ms, side="right").tolist()
        keys, values = self._json(rows)
        times = rows["arrival_ms"].tolist()
        batch, begin = Batch([], [], [], [], []), 0
        for end, tick in zip([*cuts, len(rows)], [*ticks_ms.tolist(), None], strict=True):
            _extend(batch, times[begin:end], keys[begin:end], values[begin:end])
            if tick is not None:
                self._tick(batch, tick)
            begin = end
        return batch

    def _shape_of(self, rows: Rows) -> np.ndarray:
        shapes: np.ndarray = self._network.cp_shape[self._network.connector_cp[rows["connector"]]]
        return shapes

    def _tick(self, batch: Batch, tick_ms: int) -> None:
        value = b'{"control":"tick","time_ms":%d}' % tick_ms
        count = self._partitions
        batch.times_ms.extend([tick_ms] * count)
        batch.keys.extend([None] * count)
        batch.values.extend([value] * count)
        batch.partitions.extend(range(count))
        batch.headers.extend([()] * count)

    def _json(self, rows: Rows) -> tuple[list[bytes | None], list[bytes]]:
        keys: list[bytes | None] = list(self._texts.charge_points(rows))
        values = [b""] * len(rows)
        shapes = self._shape_of(rows)
        plain = np.isin(rows["variant"], list(AS_PLAIN))
        plain &= rows["register_mwh"] >= -(2**62)
        for name, encoder in _ENCODERS.items():
            mine = shapes == SHAPES.index(name)
            for which, tell in (
                (np.flatnonzero(mine & plain), encoder.encode),
                (np.flatnonzero(mine & ~plain), encoder.encode_special),
            ):
                if len(which):
                    for at, value in zip(which.tolist(), tell(take(rows, which), self._texts), strict=True):
                        values[at] = value
        self._spoil(rows, keys, values)
        return keys, values

    def _spoil(self, rows: Rows, keys: list[bytes | None], values: list[bytes]) -> None:
        for at in np.flatnonzero((rows["variant"] == BROKEN_JSON) | (rows["kind"] == POISON)).tolist():
            keys[at], values[at] = _spoiled(int(rows["variant"][at]), keys[at], values[at])

    def _arrow(self, rows: Rows, cuts: list[int], ticks: list[int]) -> Batch:
        batch, begin = Batch([], [], [], [], []), 0
        for end, tick in zip([*cuts, len(rows)], [*ticks, None], strict=True):
            self._arrow_messages(batch, rows[begin:end])
            if tick is not None:
                self._tick(batch, tick)
            begin = end
        return batch

    def _arrow_messages(self, batch: Batch, rows: Rows) -> None:
        sent = np.flatnonzero(rows["kind"] != AVAILABLE)
        partition = self._cp_partition[self._network.connector_cp[rows["connector"][sent]]].astype(np.int64)
        order = sorted_by(partition)
        numbers, first = np.unique(partition[order], return_index=True)
        for number, part in zip(numbers.tolist(), np.split(sent[order], first[1:]), strict=False):
            mine = take(rows, part)
            batch.times_ms.append(int(mine["arrival_ms"][-1]))
            batch.keys.append(None)
            batch.values.append(arrow.encode(mine, self._network))
            batch.partitions.append(number)
            batch.headers.append(ARROW_HEADERS)


def _extend(batch: Batch, times: list[int], keys: list[bytes | None], values: list[bytes]) -> None:
    none: list[int | None] = [None] * len(times)
    empty: list[Headers] = [()] * len(times)
    batch.times_ms.extend(times)
    batch.keys.extend(keys)
    batch.values.extend(values)
    batch.partitions.extend(none)
    batch.headers.extend(empty)


def _spoiled(variant: int, key: bytes | None, value: bytes) -> tuple[bytes | None, bytes]:
    spoiled = {
        BROKEN_JSON: (key, value[: len(value) // 2]),
        POISON_EMPTY: (key, b""),
        POISON_NULL_KEY: (None, value),
        POISON_NOT_UTF8: (key, b"\xff\xfe" + value),
        POISON_NAN: (key, b"[NaN]"),
        POISON_GIANT: (key, b"[" * _GIANT),
    }
    return spoiled[variant]

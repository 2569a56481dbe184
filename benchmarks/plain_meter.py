"""The work of one reading in plain Python: decode, follow the session, rate its interval, keep a row for the store.

What the Faust agent does for every event, here without Faust, so that both can be told apart. Messages in order and
without faults only: no verdicts, no late readings, no holds, no CDRs; so it does less than the worker.
"""

from collections import defaultdict
from datetime import datetime
from typing import Final

import msgspec
import pyarrow as pa

from benchmarks.plain_python import Priced, Rater
from benchmarks.workload import SITE, Workload, tariff_documents, zone_of
from rating.tariff import parse_tariff

_UTC_MS: Final = pa.timestamp("ms", "UTC")
_TYPES: Final[dict[str, pa.DataType]] = {
    "charge_point_id": pa.string(), "transaction_id": pa.string(), "start": _UTC_MS, "end": _UTC_MS,
    "dimension": pa.int8(), "quantity": pa.int64(), "price_e4": pa.int64(), "cost": pa.int64(),
}  # fmt: skip
TABLE: Final = (
    "CREATE TABLE {name} (charge_point_id LowCardinality(String), transaction_id String, "
    "start DateTime64(3, 'UTC'), end DateTime64(3, 'UTC'), dimension Int8, quantity Int64, price_e4 Int64, cost Int64) "
    "ENGINE = MergeTree ORDER BY (charge_point_id, transaction_id, start)"
)


class Reading(msgspec.Struct):
    """The flat JSON form."""

    charge_point_id: str
    transaction_id: str
    timestamp: datetime
    energy_wh: int
    power_w: int
    state: str
    event: str = ""


class _Running:
    """A session that is going on."""

    __slots__ = ("begun_ms", "first_mwh", "last_ms", "last_mwh", "parked", "power_mw")

    def __init__(self, at_ms: int, register_mwh: int) -> None:
        self.begun_ms = self.last_ms = at_ms
        self.first_mwh = self.last_mwh = register_mwh
        self.power_mw = 0
        self.parked = False


Row = tuple[str, str, int, int, int, int, int, int]


class Meter:
    """All sessions of a workload's fleet."""

    def __init__(self, workload: Workload) -> None:
        self._raters = [Rater(parse_tariff(one), zone_of(one)) for one in tariff_documents(workload)]
        self._running: dict[str, _Running] = {}
        self._decoder = msgspec.json.Decoder(Reading)
        self.readings = 0
        self.costs: dict[str, int] = defaultdict(int)  # by transaction, in cost units

    def read(self, value: bytes) -> list[Row]:
        """The rated rows of one message."""
        reading = self._decoder.decode(value)
        self.readings += 1
        rater = self._raters[int(reading.charge_point_id[2:]) // SITE % len(self._raters)]
        priced = self._rated(reading, rater)
        self.costs[reading.transaction_id] += sum(piece.cost for piece in priced)
        name, transaction = reading.charge_point_id, reading.transaction_id
        return [(name, transaction, p.start_ms, p.end_ms, p.dimension, p.quantity, p.price_e4, p.cost) for p in priced]

    def _rated(self, reading: Reading, rater: Rater) -> list[Priced]:
        at_ms = round(reading.timestamp.timestamp() * 1000)
        register_mwh, power_mw = reading.energy_wh * 1000, reading.power_w * 1000
        if reading.event == "start":
            running = self._running[reading.charge_point_id] = _Running(at_ms, register_mwh)
            priced = rater.flat(at_ms, power_mw)
        else:
            running = self._running[reading.charge_point_id]
            used, before = register_mwh - running.last_mwh, running.last_mwh - running.first_mwh
            priced = rater.interval(
                running.begun_ms, before, running.last_ms, at_ms, used, running.power_mw, running.parked
            )
        running.last_ms, running.last_mwh, running.power_mw = at_ms, register_mwh, power_mw
        running.parked = reading.state == "SuspendedEV"
        if reading.event == "stop":
            del self._running[reading.charge_point_id]
        return priced


def table_of(rows: list[Row]) -> pa.Table:
    """Rows as the store takes them."""
    columns = zip(*rows, strict=True)
    return pa.table(
        {name: pa.array(column, kind) for (name, kind), column in zip(_TYPES.items(), columns, strict=True)}
    )

"""Decoding, metering and rating on one core: how many messages a second become rated usage?

What is timed is the worker's own path from a batch of Kafka records to rated rows: the codec, the directory, the
compiled pass (order, registers, sessions, rules, rating), the rated rows as arrays, one outcome for each record. Not
timed are the client that reads the log, the ledger, and the settlement of sessions: they begin before and end after the
timed batches. When they have ended, each CDR is held against (last - first) x price in exact fractions.

Run: python -m benchmarks.metering [--json] [--points 2000] [--rounds 100] [--batch 20000]
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from fractions import Fraction
from math import floor
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks.surroundings import surroundings
from pipeline.codec.control import Reference, encode_control
from pipeline.codec.records import ARROW_CONTENT_TYPE, Records
from pipeline.rate.batch import Batch
from pipeline.rate.engine import Engine
from pipeline.rate.memory import keep_memory
from pipeline.rate.past import NoPast
from pipeline.reference import LOCATION, TARIFF, Change, ReferenceData

START_MS: Final = 1_767_607_200_000  # Monday 2026-01-05 10:00 UTC
STEP_MS: Final = 60_000
STEP_WH: Final = 150
BEST_OF: Final = 3
PRICE: Final = Fraction(3, 10)
_TARIFF: Final = {
    "country_code": "DE", "party_id": "WRT", "id": "FLAT", "currency": "EUR", "last_updated": "2026-01-01T00:00:00Z",
    "elements": [{"price_components": [{"type": "ENERGY", "price": 0.3, "step_size": 1}]}],
}  # fmt: skip


class Result(NamedTuple):
    """One form's rate: CPU time of one thread in the best of some runs."""

    form: str
    records: int
    readings: int
    bytes_per_record: float
    ns_per_reading: float
    records_per_second: int
    readings_per_second: int
    sessions: int
    result_hash: str


def network(points: int) -> ReferenceData:
    """One tariff, and a site of 11 kW charge points."""
    connector = {
        "id": "1", "standard": "IEC_62196_T2", "format": "SOCKET", "power_type": "AC_3_PHASE", "tariff_ids": ["FLAT"],
        "max_electric_power": 11_000,
    }  # fmt: skip
    site = {
        "country_code": "DE", "party_id": "WRT", "id": "L1", "time_zone": "Europe/Berlin",
        "coordinates": {"latitude": "52.5", "longitude": "13.4"},
        "evses": [{"uid": name_of(point), "connectors": [connector]} for point in range(points)],
    }  # fmt: skip
    changes = [
        Change(1, TARIFF, "DE*WRT*FLAT", False, json.dumps(_TARIFF).encode()),
        Change(1, LOCATION, "DE*WRT*L1", False, json.dumps(site).encode()),
    ]
    return ReferenceData().changed(1, changes)


def name_of(point: int) -> str:
    """The charge point's id."""
    return f"CP{point:07d}"


def _instant(moment_ms: int) -> str:
    return f"{np.datetime64(moment_ms, 'ms')}Z"


def _envelope(point: int, action: str, moment: str, payload: str, more: str = "") -> tuple[bytes, bytes]:
    name = name_of(point)
    value = (
        f'{{"charge_point_id":"{name}","ocpp_version":"1.6","action":"{action}","received_at":"{moment}",{more}'
        f'"payload":{payload}}}'
    )
    return name.encode(), value.encode()


def starts(points: int) -> Iterator[tuple[bytes, bytes]]:
    """StartTransaction of every charge point."""
    moment = _instant(START_MS)
    for point in range(points):
        payload = f'{{"connectorId":1,"idTag":"T1","meterStart":{base_wh(point)},"timestamp":"{moment}"}}'
        yield _envelope(point, "StartTransaction", moment, payload, f'"transaction_id":{point + 1},')


def base_wh(point: int) -> int:
    """The register when the session starts."""
    return 100_000 + 997 * point


def values(points: int, rounds: int) -> Iterator[tuple[bytes, bytes]]:
    """MeterValues of every charge point, minute after minute: register and power, about 430 bytes."""
    for number in range(1, rounds + 1):
        moment = _instant(START_MS + number * STEP_MS)
        for point in range(points):
            payload = (
                f'{{"connectorId":1,"transactionId":{point + 1},"meterValue":[{{"timestamp":"{moment}",'
                f'"sampledValue":[{{"value":"{base_wh(point) + number * STEP_WH}","context":"Sample.Periodic",'
                '"measurand":"Energy.Active.Import.Register","unit":"Wh"},'
                f'{{"value":"{9_000 + number % 7}.5","context":"Sample.Periodic",'
                '"measurand":"Power.Active.Import","unit":"W"}]}]}'
            )
            yield _envelope(point, "MeterValues", moment, payload)


def stops(points: int, rounds: int) -> Iterator[tuple[bytes, bytes]]:
    """StopTransaction of every charge point."""
    moment = _instant(START_MS + (rounds + 1) * STEP_MS)
    for point in range(points):
        register = base_wh(point) + (rounds + 1) * STEP_WH
        payload = f'{{"transactionId":{point + 1},"meterStop":{register},"timestamp":"{moment}"}}'
        yield _envelope(point, "StopTransaction", moment, payload)


def arrow_values(points: int, rounds: int, rows: int) -> Iterator[bytes]:
    """The same readings as Arrow IPC streams of `rows` rows."""
    names = pa.array([name_of(point) for point in range(points)])
    ids = pa.array([str(point + 1) for point in range(points)])
    point = np.tile(np.arange(points, dtype=np.int32), rounds)
    number = np.repeat(np.arange(1, rounds + 1), points)
    base = np.array([base_wh(one) for one in range(points)])
    moment = START_MS + number * STEP_MS
    columns = {
        "charge_point_id": pa.DictionaryArray.from_arrays(point, names),
        "connector_id": pa.array(np.ones(len(point)), pa.int32()),
        "transaction_id": pa.DictionaryArray.from_arrays(point, ids),
        "time": pa.array(moment, pa.timestamp("ms", "UTC")),
        "received_at": pa.array(moment, pa.timestamp("ms", "UTC")),
        "register_mwh": pa.array((base[point] + number * STEP_WH) * 1000),
        "power_mw": pa.array((9_000 + number % 7) * 1000 + 500),
    }
    table = pa.table(columns)
    for first in range(0, len(table), rows):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(first, rows))
        yield sink.getvalue().to_pybytes()


class Log:
    """Batches of one partition, in offset order."""

    def __init__(self) -> None:
        """At offset 0."""
        self._offset = 0

    def json(self, messages: Iterator[tuple[bytes, bytes]], size: int) -> list[Records]:
        """JSON messages in batches."""
        pairs = list(messages)
        return [
            self._batch([v for _, v in part], [k for k, _ in part], None)
            for part in (pairs[at : at + size] for at in range(0, len(pairs), size))
        ]

    def arrow(self, messages: Iterator[bytes], size: int) -> list[Records]:
        """Arrow messages in batches of `size` messages."""
        given = list(messages)
        return [
            self._batch(part, [None] * len(part), [ARROW_CONTENT_TYPE] * len(part))
            for part in (given[at : at + size] for at in range(0, len(given), size))
        ]

    def reference(self) -> Records:
        """Version 1 becomes active."""
        return self._batch([encode_control(Reference(1))], [None], None)

    def _batch(self, given: list[bytes], keys: list[bytes | None], types: list[str | None] | None) -> Records:
        first, self._offset = self._offset, self._offset + len(given)
        offsets = np.arange(first, first + len(given))
        return Records(given, keys, offsets, types, np.full(len(given), START_MS))


class Found:
    """What batches bring, looked at as they come: like a worker, nobody keeps a batch that is done with."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._digest = hashlib.sha256()
        self.cdrs: list[dict[str, Any]] = []
        self.alerts = 0

    def take(self, batch: Batch) -> None:
        """A hash of all rated rows; the CDRs."""
        self.cdrs += [cdr.columns for cdr in batch.cdrs]
        self.alerts += len(batch.alerts)
        for rows in batch.rated:
            for name in rows.dtype.names or ():
                self._digest.update(rows[name].tobytes())

    def checked(self, points: int, rounds: int) -> str:
        """A hash of it all, each CDR equal to the oracle: (last - first) x price, in exact fractions."""
        assert len(self.cdrs) == points, f"{len(self.cdrs)} CDRs of {points} sessions"
        energy_mwh = (rounds + 1) * STEP_WH * 1000
        total_e4 = floor(PRICE * energy_mwh / 1_000_000 * 100 + Fraction(1, 2)) * 100  # to the cent, half up
        for columns in self.cdrs:
            assert (columns["energy_mwh"], columns["total_excl_e4"]) == (energy_mwh, total_e4), columns
        self._digest.update(json.dumps([str(columns["cdr_id"]) for columns in self.cdrs]).encode())
        return self._digest.hexdigest()[:16]


def one_run(
    before: list[Records], timed: list[Records], after: list[Records], data: ReferenceData
) -> tuple[float, Found]:
    """CPU seconds of the timed batches, and what every batch brought."""
    engine, found, spent = Engine(1, NoPast(), lambda _data, _version: data), Found(), 0.0
    for records in before:
        found.take(engine.process({0: records}))
    for records in timed:
        started = time.thread_time()
        batch = engine.process({0: records})
        spent += time.thread_time() - started
        found.take(batch)
        del batch
    for records in after:
        found.take(engine.process({0: records}))
    return spent, found


def measure(form: str, points: int, rounds: int, batch: int) -> Result:
    """The best of some runs over the same log."""
    data, log = network(points), Log()
    before = [log.reference(), *log.json(starts(points), batch)]
    if form == "Arrow":
        timed = log.arrow(arrow_values(points, rounds, 10_000), max(1, batch // 10_000))
    else:
        timed = log.json(values(points, rounds), batch)
    after = log.json(stops(points, rounds), batch)
    best, result_hash = float("inf"), ""
    for _ in range(BEST_OF):
        spent, found = one_run(before, timed, after, data)
        checked = found.checked(points, rounds)
        assert result_hash in ("", checked), "two runs of one log differ"
        best, result_hash = min(best, spent), checked
    records = sum(len(one.values) for one in timed)
    size = sum(len(value) for one in timed for value in one.values) / records
    readings = points * rounds
    return Result(
        form, records, readings, round(size, 1), round(best / readings * 1e9, 1), round(records / best),
        round(readings / best), points, result_hash,
    )  # fmt: skip


def run(points: int, rounds: int, batch: int) -> list[Result]:
    """Both forms, in a process that keeps its memory as a worker does."""
    keep_memory()
    return [
        measure("OCPP 1.6 MeterValues", points, rounds, batch),
        measure("Arrow", points, 10 * rounds, 20 * batch),
    ]


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--points", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--batch", type=int, default=20_000)
    given = parser.parse_args()
    results = run(given.points, given.rounds, given.batch)
    report: dict[str, Any] = {
        **surroundings("numba", "numpy", "msgspec", "pyarrow"),
        "workload": f"{given.points} charge points, {given.rounds} minutes, batches of {given.batch}",
        "results": [result._asdict() for result in results],
    }
    if given.json:
        print(json.dumps(report, indent=2))
        return
    for name in ("machine", "cores", "python", "commit", "versions", "workload"):
        print(f"{name}: {report[name]}")
    for one in results:
        print(
            f"{one.form:22} {one.bytes_per_record:10,.0f} B {one.ns_per_reading:8,.0f} ns a reading "
            f"{one.records_per_second:12,} messages/s {one.readings_per_second:12,} readings/s  {one.result_hash}"
        )


if __name__ == "__main__":
    main()

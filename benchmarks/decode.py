"""How fast does each form of message become samples? Seeded messages, CPU time of one thread, a hash of the result.

Run: python -m benchmarks.decode [--json] [--records 20000] [--points 1000]
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks.surroundings import surroundings
from pipeline.codec.decode import decode, decode_by_twin
from pipeline.codec.records import ARROW_CONTENT_TYPE, Decoded, Records

SEED = 20260101
START_MS = 1_767_225_600_000
ROUNDS = 5
ARROW_ROWS = 10_000


class Result(NamedTuple):
    """One form's rate: CPU time per reading of the best round, and what was decoded."""

    form: str
    records: int
    readings: int
    bytes_per_record: float
    ns_per_reading: float
    readings_per_second: float
    result_hash: str


def flat_messages(count: int, points: int, dice: np.random.Generator) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of flat JSON records of about 126 bytes."""
    for at, point in enumerate(dice.integers(points, size=count).tolist()):
        name = f"CP{point:07d}"
        moment = _instant(START_MS + at)
        value = (
            f'{{"charge_point_id":"{name}","connector_id":1,"transaction_id":"{point * 7 + 1}",'
            f'"timestamp":"{moment}","energy_wh":{10_000 + at * 3.125:.3f}}}'
        )
        yield name.encode(), value.encode()


def odd_messages(count: int, points: int) -> Iterator[tuple[bytes, bytes]]:
    """The flat records, one in two hundred with a member that only the twin reads, and one with broken JSON."""
    for at, (key, value) in enumerate(flat_messages(count, points, np.random.default_rng(SEED))):
        if at % 200 == 0:
            yield key, value.replace(b'"connector_id"', b'"custom":{"a":[1]},"connector_id"')
        else:
            yield key, value[:-1] if at % 200 == 100 else value


def ocpp16_messages(count: int, points: int, dice: np.random.Generator) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of OCPP 1.6 MeterValues in their envelope, two measurands: about 430 bytes."""
    for at, point in enumerate(dice.integers(points, size=count).tolist()):
        name = f"CP{point:07d}"
        moment = _instant(START_MS + at)
        value = (
            f'{{"charge_point_id":"{name}","ocpp_version":"1.6","action":"MeterValues","received_at":"{moment}",'
            f'"payload":{{"connectorId":1,"transactionId":{point * 7 + 1},"meterValue":[{{"timestamp":"{moment}",'
            f'"sampledValue":[{{"value":"{10_000 + at * 3}","context":"Sample.Periodic",'
            '"measurand":"Energy.Active.Import.Register","unit":"Wh"},'
            f'{{"value":"{11_000 + at % 7}.5","context":"Sample.Periodic",'
            '"measurand":"Power.Active.Import","unit":"W"}]}]}}'
        )
        yield name.encode(), value.encode()


def ocpp201_messages(count: int, points: int, dice: np.random.Generator) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of OCPP 2.0.1 TransactionEvent Updated in their envelope: about 650 bytes."""
    for at, point in enumerate(dice.integers(points, size=count).tolist()):
        name = f"CP{point:07d}"
        moment = _instant(START_MS + at)
        value = (
            f'{{"charge_point_id":"{name}","ocpp_version":"2.0.1","action":"TransactionEvent",'
            f'"received_at":"{moment}","payload":{{"eventType":"Updated","timestamp":"{moment}",'
            f'"triggerReason":"MeterValuePeriodic","seqNo":{at},'
            f'"transactionInfo":{{"transactionId":"tx-{point:08d}","chargingState":"Charging"}},'
            f'"evse":{{"id":1,"connectorId":1}},"meterValue":[{{"timestamp":"{moment}","sampledValue":['
            f'{{"value":{10_000 + at * 3}.5,"context":"Sample.Periodic",'
            '"measurand":"Energy.Active.Import.Register","unitOfMeasure":{"unit":"Wh"}},'
            f'{{"value":{11_000 + at % 7},"context":"Sample.Periodic",'
            '"measurand":"Power.Active.Import","unitOfMeasure":{"unit":"W"}}]}]}}'
        )
        yield name.encode(), value.encode()


def arrow_message(rows: int, points: int, dice: np.random.Generator) -> bytes:
    """One Arrow IPC stream."""
    chosen = dice.integers(points, size=rows)
    table = pa.table(
        {
            "charge_point_id": pa.DictionaryArray.from_arrays(
                pa.array(chosen, pa.int32()), pa.array([f"CP{point:07d}" for point in range(points)])
            ),
            "connector_id": pa.array(np.ones(rows), pa.int32()),
            "transaction_id": pa.DictionaryArray.from_arrays(
                pa.array(chosen, pa.int32()), pa.array([f"{point * 7 + 1}" for point in range(points)])
            ),
            "time": pa.array(START_MS + np.arange(rows), pa.timestamp("ms", "UTC")),
            "register_mwh": pa.array(10_000_000 + np.arange(rows) * 3125, pa.int64()),
            "power_mw": pa.array(np.full(rows, 11_000_000), pa.int64()),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def json_records(messages: Iterator[tuple[bytes, bytes]]) -> Records:
    """JSON records in offset order."""
    keys: list[bytes | None] = []
    values = []
    for key, value in messages:
        keys.append(key)
        values.append(value)
    return Records(values, keys, np.arange(len(values), dtype=np.int64))


def arrow_records(readings: int, points: int, dice: np.random.Generator) -> Records:
    """Arrow records with `readings` rows in all."""
    values = [arrow_message(min(ARROW_ROWS, readings), points, dice) for _ in range(max(1, readings // ARROW_ROWS))]
    count = len(values)
    return Records(values, [None] * count, np.arange(count, dtype=np.int64), [ARROW_CONTENT_TYPE] * count)


def measure(form: str, records: Records, work: Callable[[Records], Decoded], rounds: int) -> Result:
    """Best of some rounds, after one that compiles."""
    decoded = work(records)
    best = float("inf")
    for _ in range(rounds):
        started = time.thread_time()
        work(records)
        best = min(best, time.thread_time() - started)
    readings = len(decoded.samples)
    size = sum(map(len, records.values)) / len(records.values)
    return Result(
        form,
        len(records.values),
        readings,
        round(size, 1),
        round(best / readings * 1e9, 1),
        round(readings / best),
        hash_of(decoded),
    )


def hash_of(decoded: Decoded) -> str:
    """Of all that was decoded; the same on every machine."""
    digest = hashlib.sha256(decoded.samples.tobytes())
    digest.update(decoded.transaction_ids.tobytes())
    digest.update(json.dumps([decoded.charge_points, decoded.tokens, len(decoded.dead)]).encode())
    return digest.hexdigest()[:16]


def by_twin(records: Records) -> Decoded:
    """Every record through msgspec and Python: what the scanners are measured against."""
    return decode_by_twin(records, range(len(records.values)))


def run(records: int, points: int, rounds: int = ROUNDS) -> list[Result]:
    """Each form, and the twin on the same messages; the hashes of a form and its twin must be equal."""
    results = []
    forms = [
        ("flat JSON", flat_messages),
        ("OCPP 1.6 MeterValues", ocpp16_messages),
        ("OCPP 2.0.1 event", ocpp201_messages),
    ]
    for form, messages in forms:
        batch = json_records(messages(records, points, np.random.default_rng(SEED)))
        fast = measure(form, batch, decode, rounds)
        twin = measure(f"{form}, twin", batch, by_twin, 1)
        assert fast.result_hash == twin.result_hash, f"{form}: the scanner and its twin disagree"
        results += [fast, twin]
    results.append(measure("flat JSON, 1 % odd", json_records(odd_messages(records, points)), decode, rounds))
    results.append(measure("Arrow", arrow_records(10 * records, points, np.random.default_rng(SEED)), decode, rounds))
    return results


def _instant(moment_ms: int) -> str:
    return f"{np.datetime64(moment_ms, 'ms')}Z"


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--points", type=int, default=1_000)
    options = parser.parse_args()
    results = run(options.records, options.points)
    report: dict[str, Any] = {
        **surroundings("numba", "msgspec", "pyarrow"),
        "results": [result._asdict() for result in results],
    }
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for result in results:
        print(
            f"{result.form:28} {result.bytes_per_record:10,.0f} B {result.ns_per_reading:10,.0f} ns a reading "
            f"{result.readings_per_second:12,} readings/s  {result.result_hash}"
        )


if __name__ == "__main__":
    main()

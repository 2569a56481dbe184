"""Compile the kernels before anyone waits for them: `python -m pipeline.rate.warm`, once at set-up.

The compiled code lies beside the modules and is read from there by every worker after. What is compiled is what a real
batch runs: a session of an invented charge point goes through the engine, priced by a sample tariff. Metering takes as
long as the rest together, so a second process compiles the rest meanwhile.
"""

import gc
from multiprocessing import get_context

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.codec.control import Reference, Tick, encode_control
from pipeline.codec.records import Records
from pipeline.codec.warm import compile_ahead
from pipeline.rate.batch import Batch
from pipeline.rate.engine import Engine
from pipeline.rate.memory import keep_memory
from pipeline.rate.past import NoPast
from pipeline.rate.snapshot import restore, take
from pipeline.reference import LOCATION, TARIFF, Change, ReferenceData
from rating.columns import CHARGING
from rating.engine import rate
from rating.session import Mark, Session
from rating.tariff import parse_tariff

_START_MS = 1_767_607_200_000

_TARIFF = {
    "country_code": "DE", "party_id": "WRT", "id": "WARM", "currency": "EUR", "last_updated": "2026-01-01T00:00:00Z",
    "elements": [{"price_components": [{"type": "ENERGY", "price": 0.3, "step_size": 1}]}],
}  # fmt: skip
_LOCATION = {
    "country_code": "DE", "party_id": "WRT", "id": "L1", "time_zone": "Europe/Berlin",
    "coordinates": {"latitude": "52.5", "longitude": "13.4"},
    "evses": [
        {
            "uid": "CP1",
            "connectors": [
                {"id": "1", "standard": "IEC_62196_T2", "format": "SOCKET", "power_type": "AC_3_PHASE",
                 "tariff_ids": ["WARM"], "max_electric_power": 11000}
            ],
        }
    ],
}  # fmt: skip


def reference() -> ReferenceData:
    """One tariff, one charge point."""
    changes = [
        Change(1, TARIFF, "DE*WRT*WARM", False, msgspec.json.encode(_TARIFF)),
        Change(1, LOCATION, "DE*WRT*L1", False, msgspec.json.encode(_LOCATION)),
    ]
    return ReferenceData().changed(1, changes)


def session() -> Records:
    """Version 1 becomes active, a car comes, charges 1 kWh and goes."""
    flat = [
        {"charge_point_id": "CP1", "connector_id": 1, "transaction_id": "7", "timestamp": f"2026-01-05T10:{m:02d}:00Z",
         "energy_wh": 1000 + 100 * m, "power_w": 6000, "event": "start" if m == 0 else "stop" if m == 10 else "sample",
         "received_at": f"2026-01-05T10:{m:02d}:01Z"}
        for m in range(11)
    ]  # fmt: skip
    values = [encode_control(Reference(1)), *(msgspec.json.encode(reading) for reading in flat)]
    keys: list[bytes | None] = [None, *([b"CP1"] * len(flat))]
    return Records(values, keys, np.arange(len(values)), None, np.full(len(values), _START_MS))


def compile_all() -> Batch:
    """Rate one session, and take its state in; the batch shows that the compiled code bills it."""
    engine, records = _engine(), session()
    batch = engine.process({0: records})
    restore(_engine(), take(engine, 0, int(records.offsets[-1]), 1, _START_MS).packed())
    return batch


def _engine() -> Engine:
    return Engine(1, NoPast(), lambda _data, _version: reference())


def _compile_metering() -> None:
    """A log in which nothing but time passes needs no decoding and settles nothing."""
    _engine().process(
        {0: Records([encode_control(Tick(_START_MS))], [None], np.arange(1), None, np.full(1, _START_MS))}
    )


def _compile_the_rest() -> None:
    """Decoding, and rating and settling of whole sessions; metering is the other process's."""
    compile_ahead()
    charged = Session(((_START_MS, _START_MS + 600_000, 1_000_000),), (Mark(_START_MS, CHARGING),))
    rate(charged, parse_tariff(_TARIFF, "2.2.1"), "Europe/Berlin")


def _compile_by_two() -> None:
    other = get_context("spawn").Process(target=_compile_the_rest)
    other.start()
    _compile_metering()
    other.join()
    if other.exitcode:
        raise SystemExit(f"the process that compiles decoding and settlement ended with {other.exitcode}; see above")


def make_ready() -> None:
    """What a worker's process does before it rates: kernels, and a collector that leaves alone what stays.

    A batch makes a million objects and keeps few of them in circles: looking through all that lives after every
    70,000th, as is the default, took a seventh of the time that settling takes. Arrow's own allocator keeps what
    batches free; the system's gives a tenth of a worker's memory back.
    """
    keep_memory()
    compile_ahead()
    compile_all()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    pa.set_memory_pool(pa.system_memory_pool())


def main() -> None:
    """Compile, and say so when the code does not bill 1 kWh."""
    _compile_by_two()
    billed = [cdr.columns["energy_mwh"] for cdr in compile_all().cdrs]
    if billed != [1_000_000]:
        raise SystemExit(f"the compiled kernels billed {billed} mWh where 1000000 flowed")


if __name__ == "__main__":
    main()

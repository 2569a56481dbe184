"""A small network for tests of the reading side: two tariffs, a site with three charge points, drivers, messages."""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.clickhouse import Store
from pipeline.codec.control import Control, Tick, encode_control
from pipeline.codec.records import Records
from pipeline.kafka import Sender
from pipeline.publication import publish, read_documents
from pipeline.rate.engine import Engine
from pipeline.rate.past import NoPast
from pipeline.rate.worker import Worker
from pipeline.settings import Settings
from pipeline.topics import READINGS
from rating.cdr import timestamp

NOON_MS = 1_717_408_800_000  # Monday 3 June 2024, 10:00 UTC = 12:00 in Berlin
MINUTE_MS = 60_000
DRIVER = "BERT"

DAY_AND_NIGHT: dict[str, Any] = {
    "country_code": "DE",
    "party_id": "WTR",
    "id": "DAY-NIGHT",
    "currency": "EUR",
    "elements": [
        {
            "price_components": [{"type": "ENERGY", "price": 0.5, "vat": 19.0, "step_size": 1000}],
            "restrictions": {"start_time": "08:00", "end_time": "12:30"},
        },
        {
            "price_components": [
                {"type": "ENERGY", "price": 0.4, "vat": 19.0, "step_size": 1000},
                {"type": "FLAT", "price": 1.0, "vat": 7.0, "step_size": 1},
            ]
        },
        {"price_components": [{"type": "PARKING_TIME", "price": 6.0, "vat": 19.0, "step_size": 900}]},
    ],
    "last_updated": "2024-01-01T00:00:00Z",
}

LOCATION: dict[str, Any] = {
    "country_code": "DE",
    "party_id": "WTR",
    "id": "MARKT",
    "publish": True,
    "name": "Marktplatz",
    "address": "Am Markt 1",
    "city": "Bremen",
    "country": "DEU",
    "coordinates": {"latitude": "53.07", "longitude": "8.80"},
    "time_zone": "Europe/Berlin",
    "last_updated": "2024-01-01T00:00:00Z",
    "evses": [
        {
            "uid": name,
            "status": "AVAILABLE",
            "last_updated": "2024-01-01T00:00:00Z",
            "connectors": [
                {
                    "id": "1",
                    "standard": "IEC_62196_T2",
                    "format": "SOCKET",
                    "power_type": "AC_3_PHASE",
                    "max_voltage": 230,
                    "max_amperage": 32,
                    "max_electric_power": 22000,
                    "tariff_ids": tariffs,
                    "last_updated": "2024-01-01T00:00:00Z",
                }
            ],
        }
        for name, tariffs in (("BREMEN-1", ["DAY-NIGHT"]), ("BREMEN-2", ["DAY-NIGHT"]), ("BREMEN-3", ["LATER"]))
    ],
}


def open_network(settings: Settings, folder: Path, *objects: dict[str, Any]) -> None:
    """Publish tariff and location, or what is given instead."""
    paths = []
    for at, value in enumerate(objects or (DAY_AND_NIGHT, LOCATION)):
        paths.append(folder / f"{at}.json")
        paths[-1].write_text(json.dumps(value))
    with Store(settings) as store, Sender(settings) as sender:
        publish(store, sender, read_documents(paths))


def message(
    charge_point: str, transaction: str, minute: int, register_wh: float, event: str = "sample", **more: Any
) -> tuple[str, dict[str, Any]]:
    """One flat JSON record: (key, value), `minute` minutes after noon."""
    instant = timestamp(NOON_MS + minute * MINUTE_MS)
    value = {
        "charge_point_id": charge_point,
        "connector_id": 1,
        "transaction_id": transaction,
        "timestamp": instant,
        "received_at": more.pop("received_at", instant),
        "energy_wh": register_wh,
        "event": event,
        **more,
    }
    return charge_point, value


def charging(
    charge_point: str, transaction: str, first_minute: int = 0, first_wh: int = 100_000, minutes: int = 60, **more: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A session at 11 kW with a reading every ten minutes."""
    more = {"id_token": "ANNA", **more}
    yield message(charge_point, transaction, first_minute, first_wh, "start", **more)
    for minute in range(10, minutes, 10):
        yield message(charge_point, transaction, first_minute + minute, first_wh + minute * 11_000 // 60)
    yield message(charge_point, transaction, first_minute + minutes, first_wh + minutes * 11_000 // 60, "stop")


def parked_session() -> Iterator[tuple[str, dict[str, Any]]]:
    """4711: charging 12:00 to 13:00 by local time, 11 kWh, then parked until 13:20."""
    *first, _ = charging("BREMEN-1", "4711")
    yield from first
    yield message("BREMEN-1", "4711", 60, 111_000, state="SuspendedEV")
    yield message("BREMEN-1", "4711", 80, 111_000, "stop")


def jumping(charge_point: str = "BREMEN-1", transaction: str = "4714") -> Iterator[tuple[str, dict[str, Any]]]:
    """The meter rises by 300 kWh within ten minutes and stays there; 3 kWh more are told well."""
    yield message(charge_point, transaction, 90, 111_000, "start", id_token=DRIVER)
    yield message(charge_point, transaction, 100, 112_000)
    yield message(charge_point, transaction, 110, 412_000)
    yield message(charge_point, transaction, 120, 413_000)
    yield message(charge_point, transaction, 130, 414_000, "stop")


def send(settings: Settings, messages: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Put records into the log."""
    with Sender(settings) as sender:
        for key, value in messages:
            sender.send(READINGS, json.dumps(value, separators=(",", ":")).encode(), key.encode())


def send_raw(settings: Settings, key: bytes | None, value: bytes) -> None:
    """Put one record into the log as it is."""
    with Sender(settings) as sender:
        sender.send(READINGS, value, key)


def tell_all(settings: Settings, control: Control) -> None:
    """A control record for every partition."""
    with Sender(settings) as sender:
        sender.broadcast(READINGS, encode_control(control))


def tick(settings: Settings, minute: int) -> None:
    """Log time passes."""
    tell_all(settings, Tick(NOON_MS + minute * MINUTE_MS))


def rate(settings: Settings, drain_s: float = 0.5) -> None:
    """Run a worker until the log is used up; the kernels are compiled before it joins its group."""
    compile_kernels()
    Worker.connect(settings, wait=lambda: False).run(drain_s=drain_s)


@cache
def compile_kernels() -> None:
    """Rate one session in memory, so that what numba compiles is there."""
    values = [json.dumps(value).encode() for _, value in charging("WARM-1", "1")]
    engine = Engine(1, NoPast(), lambda data, version: data)
    engine.process({0: Records(values, [b"WARM-1"] * len(values), np.arange(len(values)))})

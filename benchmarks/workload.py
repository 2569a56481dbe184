"""The canonical workloads: what every benchmark sends. The same values give the same bytes on every machine.

A fleet of N connectors, one a charge point, each with a session at all times: a start, a reading a minute, a stop,
and the next car. A sweep is one reading of every connector, in one simulated minute; a tick ends it in every partition.
Cars charge at constant power and rest for the last tenth of their session. Only what is measured is kept simple: for
chargers as they are see `wattrate simulate`. Energy mWh, time ms.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.clickhouse import Store
from pipeline.kafka import Sender
from pipeline.logwriter import write
from pipeline.publication import Document, publish
from pipeline.reference import LOCATION, TARIFF
from pipeline.settings import Settings
from pipeline.simulate.columns import CHARGING, FINISHED, ROW_DTYPE, SAMPLE, START, STOP, SUSPENDED_EV
from pipeline.simulate.documents import tariffs
from pipeline.simulate.encode import Encoder
from pipeline.simulate.message import Batch
from pipeline.simulate.network import SHAPES, Network
from pipeline.simulate.texts import Rows
from pipeline.simulate.variants import BROKEN_JSON, DECIMAL_COMMA, NUMBER_FOR_STRING
from rating.columns import I64

SEED: Final = 20_260_101
SESSION_READINGS: Final = 180  # a reading a minute; the public sessions of Dundee 2018 last so many minutes on average
FIRST_MS: Final = 1_767_625_200_000  # Monday 2026-01-05 15:00 UTC: evening prices begin inside the first hours
MINUTE_MS: Final = 60_000
LATENCY_MS: Final = 700  # from the meter to the gateway
SITE: Final = 8  # charge points a location
MIXED: Final = ("FLAT-GBP", "TOU-GBP", "TOU-NOK", "TIERS-EUR", "PARK-EUR", "TIME-EUR", "ALLIN-EUR")
TARIFFS: Final = {"flat": ("FLAT-GBP",), "time_of_use": ("TOU-GBP",), "mixed": MIXED}
_ZONES: Final = {"GBP": ("GB", "GBR", "Europe/London"), "NOK": ("NO", "NOR", "Europe/Oslo")}
_EUR: Final = ("FR", "FRA", "Europe/Paris")
_CHUNK_ROWS: Final = 100_000
_FAULT_SHARES: Final = (0.004, 0.002, 0.002, 0.002)  # repeated, odd number, broken JSON, a minute late
_REST_FROM: Final = 0.9


@dataclass(frozen=True)
class Workload:
    """What to send. `minutes`: readings a session; `sweeps`: readings a connector; `own_tariffs`: that many instead."""

    connectors: int = 1_000
    sweeps: int = 300
    tariff: str = "mixed"  # flat | time_of_use | mixed
    shape: str = "flat"  # flat | ocpp16 | ocpp201 | arrow
    faulty: bool = False  # 1 % of the readings
    minutes: int = 30
    partitions: int = 4
    own_tariffs: int = 0
    seed: int = SEED

    @property
    def readings(self) -> int:
        """Meter readings without repeats."""
        return self.connectors * self.sweeps

    @property
    def sessions(self) -> int:
        """Sessions that end."""
        return self.sweeps // self.minutes * self.connectors


class Sent(NamedTuple):
    """A workload as it lies in the topic."""

    messages: int  # of readings, ticks not counted
    readings: int
    bytes: int
    hash: str


def whole_sessions(readings: int, **chosen: Any) -> Workload:
    """About so many readings, all in sessions that end."""
    given = Workload(**chosen)
    sessions = max(1, readings // given.connectors // given.minutes)
    return replace(given, sweeps=sessions * given.minutes)


def send(settings: Settings, workload: Workload, first: int = 0, until: int | None = None) -> Sent:
    """Fill the topic with the sweeps from `first` up to `until` (all of them)."""
    counted = _Counted()
    write(settings, counted.each(batches(workload, first, workload.sweeps if until is None else until)))
    return counted.sent()


def publish_reference(settings: Settings, workload: Workload) -> None:
    """Put the fleet's tariffs and locations into ledger and log."""
    with Store(settings) as store, Sender(settings) as sender:
        publish(store, sender, documents(workload))


def batches(workload: Workload, first: int, until: int) -> Iterator[tuple[Batch, int]]:
    """Messages of the sweeps in log order, about 100,000 rows at once, and how many readings they are."""
    network = make_fleet(workload)
    encoder = Encoder(network, workload.partitions)
    made = Sweeps(workload)
    together = max(1, _CHUNK_ROWS // workload.connectors)
    for begin in range(first, until, together):
        sweeps = range(begin, min(begin + together, until))
        rows = np.concatenate([made.rows(sweep) for sweep in sweeps])
        ticks = np.array([FIRST_MS + (sweep + 1) * MINUTE_MS + LATENCY_MS for sweep in sweeps], np.int64)
        yield encoder.batch(rows, ticks), len(rows)


def energies_mwh(workload: Workload) -> I64:
    """What each connector's car takes in a session."""
    return _wh_a_minute(workload) * 1_000 * _charging_minutes(workload)


def make_fleet(workload: Workload) -> Network:
    """One connector a charge point, eight charge points a location."""
    count = workload.connectors
    everyone = np.arange(count, dtype=np.int32)
    zeros = np.zeros(count, np.int8)
    return Network(
        cp_names=[b"CP%07d" % number for number in range(count)],
        cp_site=everyone // SITE,
        cp_model=zeros,
        cp_shape=np.full(count, SHAPES.index(workload.shape), np.int8),
        cp_kwh_unit=zeros,
        cp_resolution_mwh=np.full(count, 1_000, np.int64),
        connector_cp=everyone,
        connector_id=np.ones(count, np.int32),
        connector_register_mwh=_first_register_mwh(workload),
        site_city=np.zeros(count // SITE + 1, np.int8),
        site_kind=np.zeros(count // SITE + 1, np.int8),
    )


def documents(workload: Workload) -> list[Document]:
    """Tariffs, and locations that give each connector its tariff."""
    prices = tariff_documents(workload)
    found = [
        Document(TARIFF, f"{one['country_code']}*{one['party_id']}*{one['id']}", msgspec.json.encode(one))
        for one in prices
    ]
    sites = range((workload.connectors + SITE - 1) // SITE)
    return found + [_location(workload, site, prices[site % len(prices)]) for site in sites]


def tariff_documents(workload: Workload) -> list[dict[str, Any]]:
    """The tariffs in use; a site's is the one at its number modulo their count."""
    if workload.own_tariffs:
        return [_own_tariff(number) for number in range(workload.own_tariffs)]
    by_id = {one["id"]: one for one in tariffs()}
    return [by_id[name] for name in TARIFFS[workload.tariff]]


def zone_of(tariff: dict[str, Any]) -> str:
    """Where the sites of a tariff stand."""
    return _ZONES.get(tariff["currency"], _EUR)[2]


def described(workload: Workload) -> dict[str, Any]:
    """The workload as it is printed."""
    return {**asdict(workload), "readings": workload.readings, "sessions": workload.sessions}


class _Counted:
    """Counts and hashes what passes through."""

    def __init__(self) -> None:
        self._messages = self._readings = self._bytes = 0
        self._digest = hashlib.sha256()

    def each(self, made: Iterator[tuple[Batch, int]]) -> Iterator[Batch]:
        """The same batches."""
        for batch, readings in made:
            whole = b"".join(batch.values)
            ticks = [value for value in batch.values if value.startswith(b'{"control"')]
            self._digest.update(whole)
            self._messages += len(batch.values) - len(ticks)
            self._bytes += len(whole) - sum(map(len, ticks))
            self._readings += readings
            yield batch

    def sent(self) -> Sent:
        """What passed."""
        return Sent(self._messages, self._readings, self._bytes, self._digest.hexdigest()[:16])


class Sweeps:
    """Makes the rows of one sweep after the other; with faults a few wait for the next sweep."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._register = _first_register_mwh(workload)
        self._wh = _wh_a_minute(workload)
        self._dice = np.random.default_rng([workload.seed, 3])
        self._late: Rows = np.empty(0, ROW_DTYPE)

    def rows(self, sweep: int) -> Rows:
        """One row a connector, in the order of their arrival."""
        workload = self._workload
        session, minute = divmod(sweep, workload.minutes)
        rows = self._plain(sweep, session, minute)
        kind = START if minute == 0 else STOP if minute == workload.minutes - 1 else SAMPLE
        rows["kind"] = kind
        rows["state"] = FINISHED if kind == STOP else CHARGING if minute < _charging_minutes(workload) else SUSPENDED_EV
        rows["power_mw"] = self._wh * 60_000 if rows["state"][0] == CHARGING else 0
        return self._faulty(rows) if workload.faulty and kind == SAMPLE else self._with_late(rows)

    def _plain(self, sweep: int, session: int, minute: int) -> Rows:
        workload = self._workload
        connectors = np.arange(workload.connectors)
        rows = np.zeros(workload.connectors, ROW_DTYPE)
        charged = session * _charging_minutes(workload) + min(minute, _charging_minutes(workload))
        rows["time_ms"] = FIRST_MS + sweep * MINUTE_MS + connectors * MINUTE_MS // workload.connectors
        rows["time_ms"] -= rows["time_ms"] % 1_000  # as chargers write it
        rows["arrival_ms"] = rows["time_ms"] + LATENCY_MS
        rows["register_mwh"] = self._register + charged * self._wh * 1_000
        rows["connector"] = rows["token"] = connectors
        rows["number"] = session * workload.connectors + connectors + 1
        rows["k"] = rows["seq"] = minute
        return rows

    def _with_late(self, rows: Rows) -> Rows:
        late, self._late = self._late, rows[:0]
        if not len(late):
            return rows
        late["arrival_ms"] = rows["arrival_ms"][-1]
        return np.concatenate([rows, late])

    def _faulty(self, rows: Rows) -> Rows:
        repeated, odd, broken, late = self._chosen(len(rows))
        in_json = self._workload.shape != "arrow"
        if in_json:
            rows["variant"][odd] = DECIMAL_COMMA if self._workload.shape == "flat" else NUMBER_FOR_STRING
            rows["variant"][broken] = BROKEN_JSON
        twice = np.insert(np.arange(len(rows)), repeated + 1, repeated)
        rows, held = rows[twice], rows[late].copy()
        on_time = self._with_late(rows[~np.isin(rows["connector"], late)])
        self._late = held
        return on_time

    def _chosen(self, count: int) -> list[npt.NDArray[np.int64]]:
        dice = self._dice.random(count)
        edges = np.cumsum((0.0, *_FAULT_SHARES))
        return [np.flatnonzero((dice >= low) & (dice < high)) for low, high in pairwise(edges)]


def _first_register_mwh(workload: Workload) -> I64:
    return np.random.default_rng([workload.seed, 1]).integers(50_000, 600_000, workload.connectors) * 1_000


def _wh_a_minute(workload: Workload) -> I64:
    """From 3.7 to 22 kW; every tenth is a fast charger of up to 50 kW."""
    dice = np.random.default_rng([workload.seed, 2])
    slow, fast = dice.integers(62, 366, workload.connectors), dice.integers(500, 833, workload.connectors)
    return np.where(np.arange(workload.connectors) % 10 == 0, fast, slow)


def _charging_minutes(workload: Workload) -> int:
    return int((workload.minutes - 1) * _REST_FROM)


def _location(workload: Workload, site: int, tariff: dict[str, Any]) -> Document:
    country_code, country, zone = _ZONES.get(tariff["currency"], _EUR)
    numbers = range(site * SITE, min((site + 1) * SITE, workload.connectors))
    body = {
        "country_code": country_code, "party_id": "WRT", "id": f"L{site:07d}", "publish": True,
        "address": f"Street {site}", "city": "Benchmark", "country": country, "time_zone": zone,
        "coordinates": {"latitude": "51.5", "longitude": "-0.1"}, "last_updated": "2026-01-01T00:00:00Z",
        "evses": [_evse(number, tariff["id"]) for number in numbers],
    }  # fmt: skip
    return Document(LOCATION, f"{country_code}*WRT*L{site:07d}", msgspec.json.encode(body))


def _evse(number: int, tariff_id: str) -> dict[str, Any]:
    watts = 50_000 if number % 10 == 0 else 22_000
    connector = {
        "id": "1", "standard": "IEC_62196_T2", "format": "SOCKET", "power_type": "AC_3_PHASE",
        "max_electric_power": watts, "tariff_ids": [tariff_id],
    }  # fmt: skip
    name = f"CP{number:07d}"
    return {"uid": f"{name}*1", "charge_point_id": name, "evse_id": 1, "connectors": [connector]}


def _own_tariff(number: int) -> dict[str, Any]:
    """A tariff with two prices and a window of its own."""
    start, end = number % 11, 12 + number % 12
    window = {"start_time": f"{start:02d}:{number % 60:02d}", "end_time": f"{end:02d}:{number * 7 % 60:02d}"}
    price = [{"type": "ENERGY", "price": (20 + number % 97) / 100, "vat": 20, "step_size": 1}]
    other = [{"type": "ENERGY", "price": (30 + number % 89) / 100, "vat": 20, "step_size": 1}]
    return {
        "country_code": "GB", "party_id": "WRT", "id": f"OWN{number:06d}", "currency": "GBP",
        "last_updated": "2026-01-01T00:00:00Z",
        "elements": [{"price_components": price, "restrictions": window}, {"price_components": other}],
    }  # fmt: skip

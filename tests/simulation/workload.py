"""The log of one seed: a few charge points over two partitions that do what makes rows depend on what came before.

Sessions over the end of a month (two table partitions), late and repeated readings, a register that jumps, a tariff
that changes in mid-log, a decision, ticks and poison; in every third a reading that the store refuses. And what one
undisturbed engine makes of it.
"""

import random
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import msgspec
import numpy as np

from pipeline.codec.control import Control, Reference, Tick, encode_control
from pipeline.codec.records import Records
from pipeline.ledger import ROW_TABLES
from pipeline.rate.engine import Engine
from pipeline.rate.tables import tables_of
from pipeline.reference import LOCATION, TARIFF, Change, ReferenceData
from pipeline.simulate.partitioning import partition_of
from tests.pipeline.rate.memory import MemoryLedger
from tests.simulation.store import REFUSED, Identity, Row, identity, rows_of

LOG_ID: Final = 1
PARTITIONS: Final = 2
_START_MS: Final = 1_719_780_000_000  # 2024-06-30 20:40 UTC: sessions cross the end of the month
_MINUTE_MS: Final = 60_000
_CHARGE_POINTS: Final = 4
_POISON: Final = (b"{", b"\xff\x00", b'{"charge_point_id":"', b'{"control":"tick"}', b"")


@dataclass(frozen=True)
class Record:
    """One record of the log."""

    key: bytes | None
    value: bytes
    time_ms: int


Log = dict[int, list[Record]]
Rows = dict[str, dict[Identity, Row]]  # table → identity → the row, its claim aside


@dataclass(frozen=True)
class Workload:
    """The log, reference data by version, and the rows of an undisturbed run.

    The store refuses the reading of each record in `refused`; `tried` are the rows of a run that does not know it.
    """

    log: Log
    changes: dict[int, list[Change]]
    rows: Rows
    refused: dict[int, dict[int, str]]  # partition → offset → the store's words
    tried: Rows

    def load(self, data: ReferenceData, version: int) -> ReferenceData:
        """Reference data at a version."""
        for at in sorted(v for v in self.changes if data.version < v <= version):
            data = data.changed(at, self.changes[at])
        return data


def workload(seed: int) -> Workload:
    """The same for the same seed."""
    dice = random.Random(seed)
    log = _log(dice)
    changes = {1: [_location(), _tariff(1, dice.randrange(20, 40))], 2: [_tariff(2, dice.randrange(50, 90))]}
    refused = _refused(dice, log) if seed % 3 == 0 else {}
    plain = Workload(log, changes, {}, {}, {})
    rows = undisturbed(plain)
    if not refused:
        return replace(plain, rows=rows)
    return Workload(log, changes, undisturbed(replace(plain, refused=refused)), refused, rows)


def records_of(records: list[Record], first_offset: int) -> Records:
    """As a reader gives them."""
    return Records(
        [r.value for r in records], [r.key for r in records],
        np.arange(first_offset, first_offset + len(records)), [None] * len(records),
        np.array([r.time_ms for r in records], np.int64),
    )  # fmt: skip


def undisturbed(given: Workload) -> Rows:
    """What one engine makes of the log in one go."""
    ledger = MemoryLedger()
    engine = Engine(PARTITIONS, ledger, given.load)
    batch = engine.process({p: records_of(records, 0) for p, records in given.log.items()}, given.refused)
    tables = tables_of(batch, engine.directory, engine.sheets, LOG_ID, dict.fromkeys(given.log, 1))
    return {name: {identity(row): without_claim(row) for row in rows_of(tables[name])} for name in ROW_TABLES}


def without_claim(row: Row) -> Row:
    """What must be the same whoever wrote it."""
    return {name: value for name, value in row.items() if name != "claim"}


@cache
def charge_points() -> list[tuple[bytes, int]]:
    """Names and their partitions, as many in each."""
    names = [b"CP%02d" % number for number in range(40)]
    of = partition_of(names, PARTITIONS)
    chosen: dict[int, list[bytes]] = defaultdict(list)
    for name, partition in zip(names, of.tolist(), strict=True):
        chosen[partition].append(name)
    share = _CHARGE_POINTS // PARTITIONS
    return [(name, partition) for partition, found in sorted(chosen.items()) for name in found[:share]]


def _log(dice: random.Random) -> Log:
    log: Log = {p: [_control(Reference(1), _START_MS)] for p in range(PARTITIONS)}
    second = _START_MS + dice.randrange(30, 200) * _MINUTE_MS  # when the tariff changes
    for partition in range(PARTITIONS):
        told: list[tuple[int, Record]] = []
        for name, of in charge_points():
            if of == partition:
                told += _sessions(dice, name)
        told += [(at, _control(Tick(at), at)) for at in (second + _MINUTE_MS, _START_MS + 400 * _MINUTE_MS)]
        told.append((second, _control(Reference(2), second)))
        if dice.random() < 0.5:
            at = _START_MS + dice.randrange(300) * _MINUTE_MS
            told.append((at, Record(None if dice.random() < 0.5 else b"CPxx", dice.choice(_POISON), at)))
        log[partition] += [record for _, record in sorted(told, key=lambda one: one[0])]
    return log


def _refused(dice: random.Random, log: Log) -> dict[int, dict[int, str]]:
    """One reading in the later half of a partition: the table has taken others before it."""
    names = dict(charge_points())
    partition = dice.randrange(PARTITIONS)
    records = log[partition]
    later = [at for at in range(len(records) // 2, len(records)) if records[at].key in names]
    return {partition: {dice.choice(later): REFUSED}}


def _sessions(dice: random.Random, name: bytes) -> list[tuple[int, Record]]:
    """One or two sessions of a charge point; (when it arrives, the record)."""
    found: list[tuple[int, Record]] = []
    register_wh = dice.randrange(100_000)
    at = _START_MS + dice.randrange(1, 60) * _MINUTE_MS
    for number in range(dice.choice((1, 1, 2))):
        readings = dice.randrange(2, 5)
        for step in range(readings):
            more: dict[str, Any] = {"state": "Charging"}
            if step == 0:
                more.update(event="start", id_token=f"T{dice.randrange(3)}")
            elif step == readings - 1:
                more.update(event="stop", state="Finishing")
            record = _reading(name, number, at, register_wh, more)
            arrives = at + (dice.randrange(90) * _MINUTE_MS if dice.random() < 0.15 else 0)
            found.append((arrives, record))
            if dice.random() < 0.1:
                found.append((arrives + dice.randrange(60) * _MINUTE_MS, record))
            at += dice.randrange(5, 50) * _MINUTE_MS
            register_wh += 3_000_000 if dice.random() < 0.04 else dice.randrange(4_000)
        at += dice.randrange(5, 30) * _MINUTE_MS
    return found


def _reading(name: bytes, number: int, at_ms: int, register_wh: int, more: dict[str, Any]) -> Record:
    text = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
    body = {
        "charge_point_id": name.decode(), "connector_id": 1, "transaction_id": f"{name.decode()}-{number}",
        "timestamp": text, "energy_wh": register_wh, "power_w": 7_000, "received_at": text, **more,
    }  # fmt: skip
    return Record(name, msgspec.json.encode(body), at_ms)


def _control(said: Control, at_ms: int) -> Record:
    return Record(None, encode_control(said), at_ms)


def _tariff(version: int, cents: int) -> Change:
    components = [{"type": "ENERGY", "price": cents / 100, "vat": 20, "step_size": 1}, {"type": "TIME", "price": 1.5,
                  "vat": 20, "step_size": 60}]  # fmt: skip
    body = {
        "country_code": "DE", "party_id": "SIM", "id": "1", "currency": "EUR", "last_updated": "2024-01-01T00:00:00Z",
        "elements": [{"price_components": components}],
    }  # fmt: skip
    return Change(version, TARIFF, "DE*SIM*1", False, msgspec.json.encode(body))


def _location() -> Change:
    connector = {
        "id": "1", "tariff_ids": ["1"], "max_electric_power": 22_000, "standard": "IEC_62196_T2", "format": "CABLE",
        "power_type": "AC_3_PHASE",
    }  # fmt: skip
    evses = [{"uid": name.decode(), "evse_id": 1, "connectors": [connector]} for name, _ in charge_points()]
    body = {
        "country_code": "DE", "party_id": "SIM", "id": "L1", "time_zone": "Europe/Berlin", "evses": evses,
        "coordinates": {"latitude": "52.5", "longitude": "13.4"}, "name": "one", "address": "Street 1",
        "city": "Berlin", "country": "DEU", "postal_code": "10115",
    }  # fmt: skip
    return Change(1, LOCATION, "DE*SIM*L1", False, msgspec.json.encode(body))

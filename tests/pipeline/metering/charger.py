"""A charge point that sends real OCPP payloads, and what the worker makes of them."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from pipeline.codec.control import Decision, Policy, Reference, Tick
from pipeline.metering import kinds
from pipeline.metering.columns import KIND_TICK
from pipeline.rate.batch import OUTCOMES
from pipeline.reference import TARIFF, Change
from tests.pipeline.rate.drive import Drive, Record, changes, control

BEGIN_MS = 1_767_600_000_000  # 2026-01-05 08:00 UTC
MINUTE_MS = 60_000
NAME = "CP1"
TARIFF_16: dict[str, Any] = {
    "country_code": "DE", "party_id": "WRT", "id": "T", "currency": "EUR", "last_updated": "2026-01-01T00:00:00Z",
    "elements": [{"price_components": [{"type": "ENERGY", "price": 0.3, "step_size": 1}]}],
}  # fmt: skip


def location(tariff: str = "T", evses: int = 2, max_electric_power: int = 11_000, **evse: Any) -> dict[str, Any]:
    """One site with one charge point of `evses` outlets (11 kW)."""
    connector = {
        "id": "1", "standard": "IEC_62196_T2", "format": "SOCKET", "power_type": "AC_3_PHASE", "tariff_ids": [tariff],
        "max_electric_power": max_electric_power,
    }  # fmt: skip
    return {
        "country_code": "DE", "party_id": "WRT", "id": "L", "time_zone": "Europe/Berlin",
        "coordinates": {"latitude": "52.5", "longitude": "13.4"},
        "evses": [
            {"uid": f"{NAME}-{n}", "charge_point_id": NAME, "evse_id": n, "connectors": [connector], **evse}
            for n in range(1, evses + 1)
        ],
    }  # fmt: skip


def published(tariff: dict[str, Any] | None = None, tariff_id: str = "T", **evse: Any) -> list[Change]:
    """The reference data of version 1; the outlets ask for the tariff `tariff_id`."""
    return changes({"tariffs": [tariff or TARIFF_16], "locations": [location(tariff_id, **evse)]})


def tariff_change(version: int, tariff: dict[str, Any]) -> Change:
    """A tariff published with a later version."""
    return Change(version, TARIFF, f"DE*WRT*{tariff['id']}", False, msgspec.json.encode(tariff))


def at(minute: float) -> int:
    """Milliseconds of a minute of the story."""
    return BEGIN_MS + round(minute * MINUTE_MS)


def stamp(time_ms: int) -> str:
    """RFC 3339 as chargers write it, with milliseconds where there are any."""
    seconds = datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{seconds}.{time_ms % 1000:03d}Z" if time_ms % 1000 else f"{seconds}Z"


class Charger:
    """Messages of OCPP 1.6 and 2.0.1 in the order in which they arrive; minutes count from the story's begin."""

    def __init__(self, name: str = NAME, **reference: Any) -> None:
        self.name = name
        self.records: list[Record] = [control(Reference(1), at(0))]
        self.reference = published(**reference)

    def raw(self, value: bytes, minute: float = 0) -> "Charger":
        """A record as it is."""
        self.records.append((self.name.encode(), value, None, at(minute)))
        return self

    def call(
        self, minute: float, action: str, payload: dict[str, Any], *, late: float = 0, version: str = "1.6", **more: Any
    ) -> "Charger":  # fmt: skip
        """Any call, arriving `late` minutes after its time."""
        envelope = {
            "charge_point_id": self.name, "ocpp_version": version, "action": action,
            "received_at": stamp(at(minute + late)), "payload": payload, **more,
        }  # fmt: skip
        return self.raw(msgspec.json.encode(envelope), minute + late)

    def start(
        self, minute: float, wh: object, *, txn: object = "7", connector: int = 1, late: float = 0, tag: str = "T1"
    ) -> "Charger":  # fmt: skip
        """StartTransaction."""
        payload = {"connectorId": connector, "idTag": tag, "meterStart": wh, "timestamp": stamp(at(minute))}
        return self.call(minute, "StartTransaction", payload, late=late, transaction_id=txn)

    def value(
        self, minute: float, wh: object, *, txn: object = 7, connector: int = 1, late: float = 0,
        stamp_of: str | None = None, power: float | None = None, **sampled: Any,
    ) -> "Charger":  # fmt: skip
        """MeterValues with one energy register (and perhaps power)."""
        values: list[dict[str, Any]] = []
        if wh is not None:
            values.append({"value": wh if sampled.pop("bare", False) else str(wh), **sampled})
        if power is not None:
            values.append({"value": str(power), "measurand": "Power.Active.Import", "unit": "W"})
        return self.values(minute, values, txn=txn, connector=connector, late=late, stamp_of=stamp_of)

    def values(
        self, minute: float, sampled: list[dict[str, Any]], *, txn: object = 7, connector: int = 1, late: float = 0,
        stamp_of: str | None = None,
    ) -> "Charger":  # fmt: skip
        """MeterValues with these sampled values."""
        meter_value = {"timestamp": stamp(at(minute)) if stamp_of is None else stamp_of, "sampledValue": sampled}
        payload: dict[str, Any] = {"connectorId": connector, "meterValue": [meter_value]}
        if txn is not None:
            payload["transactionId"] = txn
        return self.call(minute, "MeterValues", payload, late=late)

    def stop(self, minute: float, wh: object, *, txn: object = 7, late: float = 0, **more: Any) -> "Charger":
        """StopTransaction: it names no connector."""
        payload: dict[str, Any] = {"meterStop": wh, "timestamp": stamp(at(minute)), **more}
        if txn is not None:
            payload["transactionId"] = txn
        return self.call(minute, "StopTransaction", payload, late=late)

    def status(self, minute: float, status: str, *, connector: int = 1, late: float = 0) -> "Charger":
        """StatusNotification."""
        payload = {
            "connectorId": connector, "errorCode": "NoError", "status": status, "timestamp": stamp(at(minute)),
        }  # fmt: skip
        return self.call(minute, "StatusNotification", payload, late=late)

    def event(
        self, minute: float, kind: str, seq_no: int, wh: float | None, *, late: float = 0, state: str = "Charging",
        txn: str = "tx-1", **more: Any,
    ) -> "Charger":  # fmt: skip
        """TransactionEvent of OCPP 2.0.1."""
        context = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}.get(kind, "Sample.Periodic")
        payload: dict[str, Any] = {
            "eventType": kind, "timestamp": stamp(at(minute)), "triggerReason": "MeterValuePeriodic", "seqNo": seq_no,
            "transactionInfo": {"transactionId": txn, "chargingState": state}, "evse": {"id": 1, "connectorId": 1},
            **more,
        }  # fmt: skip
        if wh is not None:
            sampled = {"value": wh, "context": context, "unitOfMeasure": {"unit": "Wh"}}
            payload["meterValue"] = [{"timestamp": stamp(at(minute)), "sampledValue": [sampled]}]
        return self.call(minute, "TransactionEvent", payload, late=late, version="2.0.1")

    def tick(self, minute: float) -> "Charger":
        """Time passes."""
        self.records.append(control(Tick(at(minute)), at(minute)))
        return self

    def decide(self, minute: float, action: Any, key: int) -> "Charger":
        """A person decides about a held session."""
        said = Decision(action, f"{key:016x}", "anna", "looked at the meter", at(minute))
        self.records.append(control(said, at(minute)))
        return self

    def publish(self, minute: float, version: int, *more: Change) -> "Charger":
        """New reference data becomes active."""
        self.reference += more
        self.records.append(control(Reference(version), at(minute)))
        return self

    def policy(self, minute: float, version: int, *more: Change) -> "Charger":
        """A metering policy becomes active."""
        self.reference += more
        self.records.append(control(Policy(version), at(minute)))
        return self

    def rated(self, size: int = 0) -> "Said":
        """What the worker says of all of it, in batches of `size` records."""
        return Said(Drive(self.reference).run({0: self.records}, size))


class Found(NamedTuple):
    """What must hold of a story: energy billed, verdict of each sample, records by outcome, holds, alerts."""

    bills: list[int]
    verdicts: str
    outcomes: dict[str, int]
    held: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()


class Said:
    """What came out."""

    def __init__(self, drive: Drive) -> None:
        self.drive, self.ledger = drive, drive.ledger

    @property
    def found(self) -> Found:
        """All of it, to be compared at once."""
        held, alerts = sorted(self.held.values()), sorted(self.alerts)
        return Found(self.bills, " ".join(self.verdicts), self.outcomes, tuple(held), tuple(alerts))

    @property
    def bills(self) -> list[int]:
        """Energy (mWh) that stands billed, by CDR id."""
        net: dict[object, int] = {}
        for cdr in self.ledger.cdrs:
            energy = cdr.columns["energy_mwh"]
            assert isinstance(energy, int)
            net[cdr.columns["cdr_id"]] = net.get(cdr.columns["cdr_id"], 0) + energy
        return list(net.values())

    @property
    def alerts(self) -> set[str]:
        """Kinds of alerts said."""
        return {alert.kind for alert in self.ledger.alerts}

    @property
    def held(self) -> dict[int, str]:
        """Sessions that wait now: key → reason."""
        return {k: h.reason for state in self.drive.engine.partitions.values() for k, h in state.held.items()}

    @property
    def quarantine(self) -> list[tuple[str, str]]:
        """(action, reason) of what was held and released."""
        return [(row.action, row.reason) for row in self.ledger.quarantine]

    @property
    def verdicts(self) -> list[str]:
        """Of all samples in order."""
        return [
            kinds.VERDICTS[fact["verdict"]]
            for batch in self.ledger.batches
            for given in batch.metered
            for sample, fact in zip(given.samples, given.facts, strict=True)
            if sample["kind"] != KIND_TICK
        ]

    @property
    def outcomes(self) -> dict[str, int]:
        """Records by outcome, controls left out."""
        total: Counter[str] = Counter()
        for batch in self.ledger.batches:
            for share in batch.shares.values():
                total.update({OUTCOMES[code]: n for code, n in share.outcomes.items()})
        del total["control"]
        return {name: n for name, n in total.items() if n}

    @property
    def flags(self) -> int:
        """Of the last CDR."""
        flags = self.ledger.cdrs[-1].columns["flags"]
        assert isinstance(flags, int)
        return flags

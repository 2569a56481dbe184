"""Messages in the standards' own shapes, as Python objects to be bent by a test and then encoded."""

import copy
import json
from typing import Any

import numpy as np

from pipeline.codec.records import Records

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
POINT = "CP-0001"

FLAT: dict[str, Any] = {
    "charge_point_id": POINT,
    "connector_id": 1,
    "transaction_id": "4711",
    "timestamp": "2026-01-01T00:00:00Z",
    "energy_wh": 12345.678,
}
START_16: dict[str, Any] = {
    "connectorId": 1,
    "idTag": "ABC123",
    "meterStart": 1000,
    "timestamp": "2026-01-01T00:00:00Z",
}
VALUES_16: dict[str, Any] = {
    "connectorId": 1,
    "transactionId": 4711,
    "meterValue": [
        {
            "timestamp": "2026-01-01T00:00:00Z",
            "sampledValue": [
                {
                    "value": "12.345",
                    "context": "Sample.Periodic",
                    "format": "Raw",
                    "measurand": "Energy.Active.Import.Register",
                    "location": "Outlet",
                    "unit": "kWh",
                },
                {"value": "11040.0", "measurand": "Power.Active.Import", "unit": "W"},
                {"value": "16.0", "measurand": "Current.Import", "phase": "L1", "unit": "A"},
                {"value": "16.1", "measurand": "Current.Import", "phase": "L2", "unit": "A"},
                {"value": "0.0", "measurand": "Current.Import", "phase": "L3", "unit": "A"},
                {"value": "230.1", "measurand": "Voltage", "phase": "L1-N", "unit": "V"},
                {"value": "55", "measurand": "SoC", "location": "EV", "unit": "Percent"},
            ],
        }
    ],
}
STOP_16: dict[str, Any] = {
    "transactionId": 4711,
    "idTag": "ABC123",
    "meterStop": 13345,
    "timestamp": "2026-01-01T01:00:00Z",
    "reason": "EVDisconnected",
}
STATUS_16: dict[str, Any] = {
    "connectorId": 1,
    "errorCode": "NoError",
    "status": "SuspendedEV",
    "timestamp": "2026-01-01T00:30:00Z",
}
EVENT_2: dict[str, Any] = {
    "eventType": "Updated",
    "timestamp": "2026-01-01T00:00:00Z",
    "triggerReason": "MeterValuePeriodic",
    "seqNo": 3,
    "offline": False,
    "transactionInfo": {"transactionId": "a3c1f1f6-6f0a-4c0e-9f57-0f4a1f7d4d11", "chargingState": "Charging"},
    "evse": {"id": 2, "connectorId": 1},
    "idToken": {"idToken": "ABC123", "type": "ISO14443"},
    "meterValue": [
        {
            "timestamp": "2026-01-01T00:00:00Z",
            "sampledValue": [
                {
                    "value": 12.345,
                    "context": "Sample.Periodic",
                    "measurand": "Energy.Active.Import.Register",
                    "location": "Outlet",
                    "unitOfMeasure": {"unit": "Wh", "multiplier": 3},
                },
                {"value": 11040, "measurand": "Power.Active.Import", "unitOfMeasure": {"unit": "W"}},
            ],
        }
    ],
}
VALUES_2: dict[str, Any] = {"evseId": 2, "meterValue": EVENT_2["meterValue"]}
STATUS_2: dict[str, Any] = {
    "timestamp": "2026-01-01T00:30:00Z",
    "connectorStatus": "Available",
    "evseId": 2,
    "connectorId": 1,
}

PAYLOADS: list[tuple[str, str, dict[str, Any]]] = [
    ("1.6", "StartTransaction", START_16),
    ("1.6", "MeterValues", VALUES_16),
    ("1.6", "StopTransaction", STOP_16),
    ("1.6", "StatusNotification", STATUS_16),
    ("2.0.1", "TransactionEvent", EVENT_2),
    ("2.0.1", "MeterValues", VALUES_2),
    ("2.1", "StatusNotification", STATUS_2),
]


def envelope(version: str, action: str, payload: dict[str, Any], **members: Any) -> dict[str, Any]:
    """The payload inside the envelope, as a copy that may be bent."""
    return {
        "charge_point_id": POINT,
        "ocpp_version": version,
        "action": action,
        "received_at": "2026-01-01T00:00:01.250Z",
        **members,
        "payload": copy.deepcopy(payload),
    }


def all_objects() -> list[dict[str, Any]]:
    """One object of every form."""
    objects = [envelope(version, action, payload, transaction_id="77") for version, action, payload in PAYLOADS]
    return [copy.deepcopy(FLAT), *objects]


def encoded(value: Any, *, compact: bool = False) -> bytes:
    """As a gateway would write it; bytes pass as they are."""
    if isinstance(value, bytes):
        return value
    return json.dumps(value, separators=(",", ":") if compact else None).encode()


def records(*values: Any, key: bytes | None = POINT.encode(), first_offset: int = 100) -> Records:
    """Records of one charge point's partition."""
    raw = [encoded(value) for value in values]
    return Records(raw, [key] * len(raw), np.arange(first_offset, first_offset + len(raw), dtype=np.int64))

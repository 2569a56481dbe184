"""Rows as OCPP 2.0.1 messages in the gateway's envelope."""

import base64
from typing import Any, Final

import msgspec
import numpy as np

from pipeline.simulate.columns import (
    ABSENT_MWH,
    AVAILABLE,
    CHARGING,
    FINISHED,
    PREPARING,
    SAMPLE,
    START,
    STATE,
    STOP,
    SUSPENDED_EV,
)
from pipeline.simulate.ocpp16 import readings
from pipeline.simulate.sampled import Reading, Sampled, sampled_values
from pipeline.simulate.texts import (
    Rows,
    Texts,
    arrivals,
    kwh_texts,
    timestamps,
    watts,
    wh_texts,
)
from pipeline.simulate.variants import DECIMAL_COMMA, NUMBER_FOR_STRING, TXN_MISSING

_ENVELOPE: Final = b'{"charge_point_id":"%b","ocpp_version":"2.0.1","action":"'
_HEAD: Final = (
    _ENVELOPE
    + b'TransactionEvent","received_at":"%b","payload":{"eventType":"%b","triggerReason":"%b",'
    + b'"seqNo":%d,"timestamp":"%b","transactionInfo":{"transactionId":"%b"%b},"evse":{"id":%d,"connectorId":1}%b'
)
_ENERGY: Final = b'{"value":%b,"measurand":"Energy.Active.Import.Register","unitOfMeasure":{"unit":"%b"}}'
_POWER: Final = b'{"value":%d,"measurand":"Power.Active.Import","unitOfMeasure":{"unit":"W"}}'
_CURRENT: Final = b',{"value":%d.%d,"measurand":"Current.Import","phase":"L1","unitOfMeasure":{"unit":"A"}}'
_CURRENTS: Final = _CURRENT + _CURRENT.replace(b"L1", b"L2") + _CURRENT.replace(b"L1", b"L3")
_METER: Final = b',"meterValue":[{"timestamp":"%b","sampledValue":['
_SAMPLE: Final = _HEAD + _METER + _ENERGY + b"," + _POWER + b"]}]}}"
_SAMPLE_CURRENTS: Final = _HEAD + _METER + _ENERGY + b"," + _POWER + _CURRENTS + b"]}]}}"
_EDGE: Final = (
    _HEAD
    + b'%b,"meterValue":[{"timestamp":"%b","sampledValue":[{"value":%b,"context":"%b",'
    + (b'"measurand":"Energy.Active.Import.Register","unitOfMeasure":{"unit":"%b"}}]}]}}')
)
_BARE: Final = _HEAD + b"%b}}"
_STATUS: Final = (
    _ENVELOPE
    + b'StatusNotification","received_at":"%b","payload":{"timestamp":"%b","connectorStatus":"Available",'
    + b'"evseId":%d,"connectorId":1}}'
)
_ID_TOKEN: Final = b',"idToken":{"idToken":"%b","type":"ISO14443"}'
_STATE_TEXT: Final = {
    PREPARING: b"EVConnected",
    CHARGING: b"Charging",
    SUSPENDED_EV: b"SuspendedEV",
    FINISHED: b"Idle",
}
_EVENT: Final = {
    START: (b"Started", b"Authorized"),
    SAMPLE: (b"Updated", b"MeterValuePeriodic"),
    STATE: (b"Updated", b"ChargingStateChanged"),
    STOP: (b"Ended", b"EVCommunicationLost"),
}


def encode(rows: Rows, texts: Texts) -> list[bytes]:
    """Rows told plainly (variants.AS_PLAIN), any kind; one message a row, aligned."""
    out = [b""] * len(rows)
    kind = rows["kind"]
    currents = texts.says_currents(rows)
    edge = np.isin(kind, (START, STOP))
    empty = rows["register_mwh"] == ABSENT_MWH
    groups = (
        (np.flatnonzero((kind == SAMPLE) & ~currents), _samples),
        (np.flatnonzero((kind == SAMPLE) & currents), _samples_with_currents),
        (np.flatnonzero(edge & ~empty), _edges),
        (np.flatnonzero((kind == STATE) | (edge & empty)), _bare),
        (np.flatnonzero(kind == AVAILABLE), _statuses),
    )
    for which, tell in groups:
        if len(which):
            for at, value in zip(which.tolist(), tell(rows[which], texts), strict=True):
                out[at] = value
    return out


def _heads(rows: Rows, texts: Texts) -> list[tuple[Any, ...]]:
    events = [_EVENT[kind] for kind in rows["kind"].tolist()]
    states = [b',"chargingState":"%b"' % _STATE_TEXT[state] for state in rows["state"].tolist()]
    columns = (
        texts.charge_points(rows),
        arrivals(rows),
        [event for event, _ in events],
        [reason for _, reason in events],
        rows["seq"].tolist(),
        timestamps(rows),
        texts.transactions(rows),
        states,
        texts.connector_ids(rows),
        [b',"offline":true' if offline else b"" for offline in rows["offline"].tolist()],
    )
    return list(zip(*columns, strict=True))


def _registers(rows: Rows, texts: Texts) -> tuple[list[bytes], list[bytes]]:
    """The register of each row as a JSON number and its unit."""
    values = wh_texts(rows["register_mwh"])
    units = [b"Wh"] * len(rows)
    which = np.flatnonzero(texts.kwh_unit(rows))
    for at, value in zip(which.tolist(), kwh_texts(rows["register_mwh"][which]), strict=True):
        values[at], units[at] = value, b"kWh"
    return values, units


def _samples(rows: Rows, texts: Texts) -> list[bytes]:
    columns = zip(_heads(rows, texts), timestamps(rows), *_registers(rows, texts), watts(rows), strict=True)
    return [_SAMPLE % (*head, *rest) for head, *rest in columns]


def _samples_with_currents(rows: Rows, texts: Texts) -> list[bytes]:
    pairs = [divmod(value, 10) for value in texts.deciamperes(rows)]
    columns = zip(_heads(rows, texts), pairs, timestamps(rows), *_registers(rows, texts), watts(rows), strict=True)
    return [_SAMPLE_CURRENTS % (*head, *rest, *pair, *pair, *pair) for head, pair, *rest in columns]


def _edges(rows: Rows, texts: Texts) -> list[bytes]:
    start = rows["kind"] == START
    contexts = [b"Transaction.Begin" if first else b"Transaction.End" for first in start.tolist()]
    values, units = _registers(rows, texts)
    columns = zip(_heads(rows, texts), _id_tokens(rows, texts), timestamps(rows), values, contexts, units, strict=True)
    return [_EDGE % (*head, *rest) for head, *rest in columns]


def _bare(rows: Rows, texts: Texts) -> list[bytes]:
    return [_BARE % (*head, token) for head, token in zip(_heads(rows, texts), _id_tokens(rows, texts), strict=True)]


def _id_tokens(rows: Rows, texts: Texts) -> list[bytes]:
    """Only the first event says whose session it is, as a charger does."""
    return [
        _ID_TOKEN % token if kind == START else b""
        for kind, token in zip(rows["kind"].tolist(), texts.tokens(rows), strict=True)
    ]


def _statuses(rows: Rows, texts: Texts) -> list[bytes]:
    columns = (texts.charge_points(rows), arrivals(rows), timestamps(rows), texts.connector_ids(rows))
    return [_STATUS % row for row in zip(*columns, strict=True)]


def encode_special(rows: Rows, texts: Texts) -> list[bytes]:
    """Rows told in another way than plainly; one message a row, aligned."""
    out = encode(rows, texts)
    values_of = _values_of(rows)
    for at, reading in enumerate(readings(rows, texts)):
        if reading.variant == TXN_MISSING and values_of[at] is not None:
            out[at] = _without_transaction(out[at])
        elif values_of[at] is not None and values_of[at] != "bare":
            out[at] = _special(out[at], reading)
    return out


def _values_of(rows: Rows) -> list[str | None]:
    """What each row is to the special road: "values", "bare" (an event without a register) or None (a status)."""
    said = {START: "values", SAMPLE: "values", STOP: "values", STATE: "bare"}
    return [said.get(kind) for kind in rows["kind"].tolist()]


def _special(message: bytes, reading: Reading) -> bytes:
    whole = msgspec.json.decode(message)
    payload = whole["payload"]
    if "meterValue" not in payload:
        return message
    context = payload["meterValue"][0]["sampledValue"][0].get("context")
    values = [_sampled_value(value, reading.variant) for value in sampled_values(reading)]
    if context:
        values = [{**value, "context": context} for value in values]
    payload["meterValue"][0]["sampledValue"] = values
    return msgspec.json.encode(whole)


def _sampled_value(value: Sampled, variant: int) -> dict[str, Any]:
    text = value.text.decode()
    if value.signed:
        return _signed_value(value)
    fields: dict[str, Any] = {
        "value": text if variant in (NUMBER_FOR_STRING, DECIMAL_COMMA) else float(text),
        "measurand": value.measurand,
        "unitOfMeasure": {"unit": value.unit} if value.unit else None,
        "context": value.context,
        "phase": value.phase,
    }
    return {name: content for name, content in fields.items() if content is not None}


def _signed_value(value: Sampled) -> dict[str, Any]:
    """OCPP 2.0.1 SampledValue.signedMeterValue: the OCMF text in base64; `value` is the plain register."""
    number = float(msgspec.json.decode(value.text.split(b"|")[1])["RD"][0]["RV"])
    return {
        "value": number,
        "measurand": value.measurand,
        "unitOfMeasure": {"unit": "kWh"},
        "signedMeterValue": {
            "signedMeterData": base64.b64encode(value.text).decode(),
            "signingMethod": "ECDSA-secp256r1-SHA256",
            "encodingMethod": "OCMF",
            "publicKey": "",
        },
    }


def _without_transaction(message: bytes) -> bytes:
    whole = msgspec.json.decode(message)
    whole["payload"]["transactionInfo"].pop("transactionId")
    return msgspec.json.encode(whole)

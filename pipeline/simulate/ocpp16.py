"""Rows as OCPP 1.6J messages in the gateway's envelope."""

from typing import Any, Final

import msgspec
import numpy as np

from pipeline.simulate.columns import AVAILABLE, CHARGING, SAMPLE, START, STATE, STOP, SUSPENDED_EV
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
from pipeline.simulate.variants import NUMBER_FOR_STRING, TXN_MISSING

_ENVELOPE: Final = b'{"charge_point_id":"%b","ocpp_version":"1.6","action":"'
_ENERGY: Final = b'{"value":"%b","measurand":"Energy.Active.Import.Register","unit":"%b"}'
_POWER: Final = b',{"value":"%d","measurand":"Power.Active.Import","unit":"W"}'
_CURRENT: Final = b',{"value":"%d.%d","measurand":"Current.Import","phase":"L1","unit":"A"}'
_CURRENTS: Final = _CURRENT + _CURRENT.replace(b"L1", b"L2") + _CURRENT.replace(b"L1", b"L3")
_VALUES_HEAD: Final = (
    _ENVELOPE
    + b'MeterValues","received_at":"%b","payload":{"connectorId":%d,"transactionId":%d,'
    + b'"meterValue":[{"timestamp":"%b","sampledValue":['
)
_VALUES: Final = _VALUES_HEAD + _ENERGY + _POWER + b"]}]}}"
_VALUES_CURRENTS: Final = _VALUES_HEAD + _ENERGY + _POWER + _CURRENTS + b"]}]}}"
_START: Final = (
    _ENVELOPE
    + b'StartTransaction","received_at":"%b","transaction_id":"%d","payload":{"connectorId":%d,'
    + b'"idTag":"%b","meterStart":%b,"timestamp":"%b"}}'
)
_STOP: Final = (
    _ENVELOPE
    + b'StopTransaction","received_at":"%b","payload":{"transactionId":%d,"idTag":"%b",'
    + b'"meterStop":%b,"timestamp":"%b","reason":"EVDisconnected"}}'
)
_STATUS: Final = (
    _ENVELOPE
    + b'StatusNotification","received_at":"%b","payload":{"connectorId":%d,"errorCode":"NoError",'
    + b'"status":"%b","timestamp":"%b"}}'
)
_STATUS_OF: Final = {CHARGING: b"Charging", SUSPENDED_EV: b"SuspendedEV"}


def encode(rows: Rows, texts: Texts) -> list[bytes]:
    """Rows told plainly (variants.AS_PLAIN), any kind; one message a row, aligned."""
    out = [b""] * len(rows)
    currents = texts.says_currents(rows)
    for kind, tell in ((START, _starts), (STOP, _stops), (STATE, _statuses), (AVAILABLE, _statuses)):
        _scatter(out, rows, np.flatnonzero(rows["kind"] == kind), tell, texts)
    sample = rows["kind"] == SAMPLE
    _scatter(out, rows, np.flatnonzero(sample & ~currents), _values, texts)
    _scatter(out, rows, np.flatnonzero(sample & currents), _values_with_currents, texts)
    return out


def _scatter(out: list[bytes], rows: Rows, which: Any, tell: Any, texts: Texts) -> None:
    if len(which):
        for at, value in zip(which.tolist(), tell(rows[which], texts), strict=True):
            out[at] = value


def _registers(rows: Rows, texts: Texts) -> tuple[list[bytes], list[bytes]]:
    """The register of each row as text and its unit."""
    kwh = texts.kwh_unit(rows)
    values = wh_texts(rows["register_mwh"])
    units = [b"Wh"] * len(rows)
    which = np.flatnonzero(kwh)
    for at, value in zip(which.tolist(), kwh_texts(rows["register_mwh"][which]), strict=True):
        values[at], units[at] = value, b"kWh"
    return values, units


def _heads(rows: Rows, texts: Texts) -> tuple[list[Any], ...]:
    return (
        texts.charge_points(rows),
        arrivals(rows),
        texts.connector_ids(rows),
        texts.transaction_numbers(rows),
        timestamps(rows),
        *_registers(rows, texts),
        watts(rows),
    )


def _values(rows: Rows, texts: Texts) -> list[bytes]:
    return [_VALUES % row for row in zip(*_heads(rows, texts), strict=True)]


def _values_with_currents(rows: Rows, texts: Texts) -> list[bytes]:
    pairs = [divmod(value, 10) for value in texts.deciamperes(rows)]
    heads = zip(*_heads(rows, texts), strict=True)
    return [_VALUES_CURRENTS % (*head, *pair, *pair, *pair) for head, pair in zip(heads, pairs, strict=True)]


def _starts(rows: Rows, texts: Texts) -> list[bytes]:
    columns = (
        texts.charge_points(rows),
        arrivals(rows),
        texts.transaction_numbers(rows),
        texts.connector_ids(rows),
        texts.tokens(rows),
        wh_texts(rows["register_mwh"] // 1_000 * 1_000),
        timestamps(rows),
    )
    return [_START % row for row in zip(*columns, strict=True)]


def _stops(rows: Rows, texts: Texts) -> list[bytes]:
    columns = (
        texts.charge_points(rows),
        arrivals(rows),
        texts.transaction_numbers(rows),
        texts.tokens(rows),
        wh_texts(rows["register_mwh"] // 1_000 * 1_000),
        timestamps(rows),
    )
    return [_STOP % row for row in zip(*columns, strict=True)]


def _statuses(rows: Rows, texts: Texts) -> list[bytes]:
    status = [_STATUS_OF.get(state, b"Available") for state in rows["state"].tolist()]
    columns = (texts.charge_points(rows), arrivals(rows), texts.connector_ids(rows), status, timestamps(rows))
    return [_STATUS % row for row in zip(*columns, strict=True)]


def encode_special(rows: Rows, texts: Texts) -> list[bytes]:
    """Rows told in another way than plainly; one message a row, aligned."""
    out = encode(rows, texts)
    special = np.flatnonzero(np.isin(rows["kind"], (SAMPLE, START, STOP)))
    part = rows[special]
    columns = zip(
        special.tolist(),
        part["kind"].tolist(),
        readings(part, texts),
        texts.transaction_numbers(part),
        texts.connector_ids(part),
        arrivals(part),
        strict=True,
    )
    for at, kind, reading, transaction, connector, arrival in columns:
        if kind == SAMPLE:
            out[at] = _special_values(reading, transaction, connector, arrival)
        elif reading.variant == TXN_MISSING:
            out[at] = _without_transaction(out[at])
        elif kind == STOP and reading.variant not in (NUMBER_FOR_STRING,):
            out[at] = _special_stop(out[at], reading)
    return out


def readings(rows: Rows, texts: Texts) -> list[Reading]:
    """Rows as readings for the slow road."""
    columns = (
        texts.charge_points(rows),
        timestamps(rows),
        rows["register_mwh"].tolist(),
        rows["other_mwh"].tolist(),
        rows["power_mw"].tolist(),
        texts.says_currents(rows).tolist(),
        texts.kwh_unit(rows).tolist(),
        rows["variant"].tolist(),
    )
    return [Reading(*row) for row in zip(*columns, strict=True)]


def _special_values(reading: Reading, transaction: int, connector: int, arrival: bytes) -> bytes:
    payload: dict[str, Any] = {"connectorId": connector, "transactionId": transaction}
    if reading.variant == TXN_MISSING:
        del payload["transactionId"]
    payload["meterValue"] = [_meter_value(reading)]
    head = _ENVELOPE % reading.charge_point + b'MeterValues","received_at":"%b","payload":' % arrival
    return head + msgspec.json.encode(payload) + b"}"


def _meter_value(reading: Reading) -> dict[str, Any]:
    return {
        "timestamp": reading.timestamp.decode(),
        "sampledValue": [_sampled_value(value, reading.variant) for value in sampled_values(reading)],
    }


def _sampled_value(value: Sampled, variant: int) -> dict[str, Any]:
    text = value.text.decode()
    fields: dict[str, Any] = {
        "value": float(text) if variant == NUMBER_FOR_STRING else text,
        "measurand": value.measurand,
        "unit": value.unit,
        "context": value.context,
        "phase": value.phase,
        "format": "SignedData" if value.signed else None,
    }
    return {name: content for name, content in fields.items() if content is not None}


def _without_transaction(message: bytes) -> bytes:
    whole = msgspec.json.decode(message)
    whole.pop("transaction_id", None)
    whole["payload"].pop("transactionId", None)
    return msgspec.json.encode(whole)


def _special_stop(message: bytes, reading: Reading) -> bytes:
    """A signed value travels in the stop's transactionData; other variants leave the stop as it is."""
    values = [value for value in sampled_values(reading) if value.signed]
    if not values:
        return message
    whole = msgspec.json.decode(message)
    entry = {**_meter_value(reading)}
    for value in entry["sampledValue"]:
        value["context"] = "Transaction.End"
    whole["payload"]["transactionData"] = [entry]
    return msgspec.json.encode(whole)

"""Rows as flat JSON: one small object a reading, as simple gateways send it."""

from typing import Any, Final

import msgspec
import numpy as np

from pipeline.simulate.columns import ABSENT_MWH, CHARGING, FINISHED, PREPARING, START, STOP, SUSPENDED_EV
from pipeline.simulate.texts import Rows, Texts, arrivals, timestamps, watts, wh_texts
from pipeline.simulate.variants import DECIMAL_COMMA, NO_ENERGY, NUMBER_FOR_STRING, TXN_MISSING

_FLAT: Final = (
    b'{"charge_point_id":"%b","connector_id":%d,"transaction_id":"%d","timestamp":"%b",'
    b'"energy_wh":%b,"power_w":%d%b,"received_at":"%b"}'
)
_STATE_TEXT: Final = {PREPARING: "Preparing", CHARGING: "Charging", SUSPENDED_EV: "SuspendedEV", FINISHED: "Finishing"}
_MORE: Final = {state: b',"state":"%b"' % text.encode() for state, text in _STATE_TEXT.items()}


def encode(rows: Rows, texts: Texts) -> list[bytes]:
    """Rows told plainly (variants.AS_PLAIN); one message a row, aligned. Only rows with a register."""
    columns = (
        texts.charge_points(rows),
        texts.connector_ids(rows),
        texts.transaction_numbers(rows),
        timestamps(rows),
        wh_texts(rows["register_mwh"]),
        watts(rows),
        _more(rows, texts),
        arrivals(rows),
    )
    return [_FLAT % row for row in zip(*columns, strict=True)]


def _more(rows: Rows, texts: Texts) -> list[bytes]:
    """The state of each row, and at the edges the event and who it is."""
    more = [_MORE[state] for state in rows["state"].tolist()]
    tokens = texts.tokens(rows)
    for at in np.flatnonzero(rows["kind"] == START).tolist():
        more[at] += b',"event":"start","id_token":"%b"' % tokens[at]
    for at in np.flatnonzero(rows["kind"] == STOP).tolist():
        more[at] += b',"event":"stop"'
    return more


def encode_special(rows: Rows, texts: Texts) -> list[bytes]:
    """Rows told in another way than plainly; one message a row, aligned."""
    absent = rows["register_mwh"] == ABSENT_MWH
    told = rows.copy()
    told["register_mwh"][absent] = 0
    messages = encode(told, texts)
    columns = zip(messages, rows["variant"].tolist(), absent.tolist(), strict=True)
    return [_special(message, variant, without) for message, variant, without in columns]


def _special(message: bytes, variant: int, without_energy: bool) -> bytes:
    fields: dict[str, Any] = msgspec.json.decode(message)
    if without_energy or variant == NO_ENERGY:
        del fields["energy_wh"]
    elif variant == NUMBER_FOR_STRING:
        fields["energy_wh"] = str(fields["energy_wh"])
    elif variant == DECIMAL_COMMA:
        fields["energy_wh"] = str(float(fields["energy_wh"])).replace(".", ",")
    if variant == TXN_MISSING:
        del fields["transaction_id"]
    return msgspec.json.encode(fields)

"""Signed meter values reach the CDR as OCPI's SignedData, whatever the batches, the order and the corrections."""

import base64
import json
from typing import Any

import jsonschema
import pytest

from pipeline.metering.columns import CONTEXT_BEGIN, CONTEXT_PERIODIC
from pipeline.rate.signed_values import SignedValue, kept, signed_data
from pipeline.rate.snapshot import restore, take
from pipeline.simulate.signing import public_key, signed_value
from tests.pipeline.metering.charger import NAME, TARIFF_16, Charger, Said, at, stamp
from tests.pipeline.rate.drive import Drive
from tests.rating.cdr_schema import schema

CHARGER = NAME.encode()
CONTEXTS = {0: "Transaction.Begin", 60: "Transaction.End"}


def blob(minute: float, wh: int, *, forged: bool = False) -> bytes:
    return signed_value(CHARGER, stamp(at(minute)).encode(), wh * 1000, forged=forged)


def signed(charger: Charger, minute: float, wh: int, *, late: float = 0, forged: bool = False) -> Charger:
    told = {
        "value": blob(minute, wh, forged=forged).decode(), "format": "SignedData",
        "context": CONTEXTS.get(int(minute), "Sample.Periodic"),
    }  # fmt: skip
    return charger.values(minute, [told], late=late)


def story(**reference: Any) -> Charger:
    charger = Charger(meter_public_key=public_key(CHARGER), **reference).start(0, 1000)
    signed(charger, 0, 1000)
    signed(charger, 20, 3000)
    signed(charger, 40, 5000)
    signed(charger, 60, 7000)
    return charger.stop(60, 7000)


def documents(said: Said) -> list[dict[str, Any]]:
    found: list[Any] = [cdr.columns["document"] for cdr in said.ledger.cdrs]
    return [json.loads(document) for document in found]


def blobs(told: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(value["signed_data"]) for value in told["signed_values"]]


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_cdr_carries_the_first_and_last_signed_value_of_its_session(size: int) -> None:
    (cdr,) = documents(story().rated(size))
    told = cdr["signed_data"]
    jsonschema.validate(told, schema("2.2.1")["properties"]["signed_data"])
    assert told["encoding_method"] == "OCMF"
    assert base64.b64decode(told["public_key"]).hex() == public_key(CHARGER)
    assert [value["nature"] for value in told["signed_values"]] == ["Start", "End"]
    assert [base64.b64decode(value["signed_data"]) for value in told["signed_values"]] == [
        blob(0, 1000),
        blob(60, 7000),
    ]
    assert all(value["plain_data"].startswith('{"') for value in told["signed_values"])


def test_a_session_without_signed_values_has_none() -> None:
    (cdr,) = documents(Charger().start(0, 1000).stop(60, 7000).rated())
    assert "signed_data" not in cdr


def test_a_late_value_re_rates_the_session_and_its_signed_values_stay() -> None:
    component = {"type": "ENERGY", "step_size": 1}
    bands = [
        {"price_components": [{**component, "price": 0.3}], "restrictions": {"end_time": "09:30"}},
        {"price_components": [{**component, "price": 0.5}]},
    ]
    charger = story(tariff={**TARIFF_16, "elements": bands})
    signed(charger, 30, 4500, late=60)
    first, *_, last = documents(charger.rated(1))
    assert last["signed_data"] == first["signed_data"]


def test_a_forged_value_is_never_passed_on() -> None:
    charger = Charger(meter_public_key=public_key(CHARGER)).start(0, 1000)
    signed(charger, 0, 1000)
    signed(charger, 60, 7000, forged=True)
    said = charger.stop(60, 7000).rated()
    (key,) = said.held
    again = charger.decide(90, "release", key).rated()
    assert blobs(documents(again)[-1]["signed_data"]) == [blob(0, 1000)]


def test_a_snapshot_keeps_what_a_running_session_has_signed() -> None:
    charger = story()
    whole = charger.rated()
    drive = Drive(charger.reference)
    drive.take({0: charger.records[:4]})
    taken = take(drive.engine, 0, 3, 1, 0)
    drive.engine.drop(0)
    restore(drive.engine, taken.packed())
    drive.take({0: charger.records[4:]})
    assert documents(Said(drive)) == documents(whole)


def test_what_is_kept_does_not_depend_on_the_order_or_on_repeats() -> None:
    values = [SignedValue(at, CONTEXT_PERIODIC if at % 5 else CONTEXT_BEGIN, "OCMF", b"%d" % at) for at in range(50)]
    whole = kept(values)
    some: tuple[SignedValue, ...] = ()
    for value in [*values[20:], *values[:30]]:
        some = kept([*some, value])
    assert some == whole
    assert whole[0] == values[0]
    assert whole[-1] == values[-1]
    assert len(whole) <= 10


def test_a_payload_that_ocpi_has_no_room_for_is_told_by_its_readings() -> None:
    payload = json.dumps({"CT": "x" * 600, "RD": [{"RV": 1.5, "RU": "kWh"}]})
    told = signed_data([SignedValue(0, CONTEXT_BEGIN, "OCMF", f"OCMF|{payload}|{{}}".encode())], "")
    assert told
    assert told["signed_values"][0]["plain_data"] == '{"RD":[{"RV":1.5,"RU":"kWh"}]}'
    assert "public_key" not in told

"""Our sample payloads are what the standards say: each is valid by the JSON schema that the `ocpp` package ships."""

import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from tests.pipeline.codec.agreement import share_scanned
from tests.pipeline.codec.payloads import EVENT_2, PAYLOADS, VALUES_16, envelope, records
from tests.pipeline.codec.single import decoded

_FOLDERS = {"1.6": ("ocpp.v16", ""), "2.0.1": ("ocpp.v201", "Request"), "2.1": ("ocpp.v21", "Request")}


def check(version: str, action: str, payload: dict[str, Any]) -> None:
    package, suffix = _FOLDERS[version]
    schema = (files(package) / "schemas" / f"{action}{suffix}.json").read_text("utf-8-sig")
    jsonschema.validate(payload, json.loads(schema))


@pytest.mark.parametrize(("version", "action", "payload"), PAYLOADS, ids=[f"{v} {a}" for v, a, _ in PAYLOADS])
def test_a_sample_payload_is_valid_and_decoded_by_the_fast_way(version: str, action: str, payload: Any) -> None:
    check(version, action, payload)
    if version == "2.0.1":
        check("2.1", action, payload)
    assert share_scanned(records(envelope(version, action, payload))) == 1
    assert len(decoded(envelope(version, action, payload)).samples) == 1


def _enumerated(version: str, action: str, name: str) -> list[str]:
    package, suffix = _FOLDERS[version]
    text = (files(package) / "schemas" / f"{action}{suffix}.json").read_text("utf-8-sig")
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "enum" in node and (node.get("javaType") == name or name in node.get("title", "")):
                found.extend(node["enum"])
            for key, inner in node.items():
                if key == name and isinstance(inner, dict) and "enum" in inner:
                    found.extend(inner["enum"])
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)

    walk(json.loads(text))
    assert found, f"{action} of {version} has no enumeration {name}"
    return sorted(set(found))


@pytest.mark.parametrize("member", ["measurand", "unit", "phase", "context", "location"])
def test_every_word_of_1_6_is_accepted_in_every_place(member: str) -> None:
    for word in _enumerated("1.6", "MeterValues", member):
        payload = json.loads(json.dumps(VALUES_16))
        for sampled in payload["meterValue"][0]["sampledValue"]:
            sampled[member] = word
        check("1.6", "MeterValues", payload)
        assert len(decoded(envelope("1.6", "MeterValues", payload)).samples) == 1


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("MeasurandEnum", "measurand"),
        ("PhaseEnum", "phase"),
        ("ReadingContextEnum", "context"),
        ("LocationEnum", "location"),
    ],
)
def test_every_word_of_2_0_1_is_accepted_in_every_place(name: str, member: str) -> None:
    for word in _enumerated("2.0.1", "TransactionEvent", name):
        payload = json.loads(json.dumps(EVENT_2))
        for sampled in payload["meterValue"][0]["sampledValue"]:
            sampled[member] = word
        check("2.0.1", "TransactionEvent", payload)
        assert len(decoded(envelope("2.0.1", "TransactionEvent", payload)).samples) == 1

"""The invented fleet: the same for the same plan, in order, exact, and in the shapes of the standards."""

import hashlib
import json
from importlib.resources import files
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest

from pipeline.simulate.documents import reference_documents, tariffs
from pipeline.simulate.faults import FAULTS
from pipeline.simulate.fleet import Fleet, FleetPlan
from pipeline.simulate.message import ARROW_HEADERS, Message
from pipeline.simulate.network import SHAPES
from pipeline.simulate.partitioning import partition_of
from rating.lint import lint
from rating.tariff import parse_tariff

SMALL = {"charge_points": 60, "hours": 12.0, "tick_ms": 120_000, "partitions": 4, "settle_hours": 2}
EVERY_FAULT = dict.fromkeys(FAULTS, 0.015)


def fleet(**changes: Any) -> Fleet:
    return Fleet(FleetPlan(**{**SMALL, **changes}))


def digest(messages: Any) -> str:
    sha = hashlib.sha256()
    for message in messages:
        sha.update(repr(message).encode())
    return sha.hexdigest()


@pytest.mark.parametrize("shape", ["mixed", *SHAPES])
def test_the_same_plan_gives_the_same_bytes(shape: str) -> None:
    plan = {"shape": shape, "faults": EVERY_FAULT, "hours": 4.0, "tick_ms": 600_000}
    first = digest(fleet(**plan).messages())
    assert first == digest(fleet(**plan).messages())
    assert first != digest(fleet(**plan, seed=8).messages())


@pytest.mark.parametrize("faults", [{}, EVERY_FAULT], ids=["honest", "faulty"])
def test_the_truth_does_not_depend_on_making_the_messages(faults: dict[str, float]) -> None:
    made = pa.concat_tables([chunk.truth for chunk in fleet(faults=faults).chunks()])
    assert made.num_rows > 20
    assert fleet(faults=faults).truth().equals(made)


def is_tick(message: Message) -> bool:
    return message.key is None and message.value.startswith(b'{"control":"tick"')


@pytest.mark.parametrize("shape", ["mixed", "arrow"])
def test_messages_and_ticks_are_in_the_order_of_arrival_in_each_partition(shape: str) -> None:
    last = dict.fromkeys(range(4), 0)
    ticks = dict.fromkeys(range(4), 0)
    for message in fleet(shape=shape, faults=EVERY_FAULT).messages():
        at = message.partition
        if at is None:
            if message.key is None:
                continue  # poison: a producer may put it anywhere
            at = int(partition_of([message.key], 4)[0])
        if is_tick(message):
            told = json.loads(message.value)["time_ms"]
            assert told == message.time_ms >= last[at]
            assert told > ticks[at]
            ticks[at] = told
        else:
            # An Arrow message holds a minute of readings and is stamped with the last of them.
            assert message.time_ms > ticks[at]
            assert message.time_ms >= last[at]
        last[at] = message.time_ms
    assert len(set(ticks.values())) == 1


def test_the_last_register_minus_the_first_is_the_true_energy_of_an_honest_session() -> None:
    run = fleet(shape="ocpp201")
    starts: dict[str, int] = {}
    energy: dict[str, int] = {}
    registers: dict[tuple[str, int], list[int]] = {}
    truth: dict[str, int] = {}
    for chunk in run.chunks():
        truth.update({row["transaction_id"]: row["true_mwh"] for row in chunk.truth.to_pylist()})
        for message in chunk.batch.messages():
            event = json.loads(message.value)
            if event.get("action") != "TransactionEvent" or "meterValue" not in event["payload"]:
                continue
            payload = event["payload"]
            value = payload["meterValue"][0]["sampledValue"][0]
            scale = 1e6 if value["unitOfMeasure"]["unit"] == "kWh" else 1e3
            mwh = round(value["value"] * scale)
            transaction = payload["transactionInfo"]["transactionId"]
            registers.setdefault((event["charge_point_id"], payload["evse"]["id"]), []).append(mwh)
            starts.setdefault(transaction, mwh)
            energy[transaction] = mwh - starts[transaction]
    assert energy == truth
    assert sum(truth.values()) > 0
    for values in registers.values():
        assert values == sorted(values), "an honest register never falls, from session to session either"


def test_sequence_numbers_of_a_transaction_count_from_0_without_a_hole() -> None:
    numbers: dict[str, list[int]] = {}
    for message in fleet(shape="ocpp201").messages():
        event = json.loads(message.value)
        if event.get("action") == "TransactionEvent":
            numbers.setdefault(event["payload"]["transactionInfo"]["transactionId"], []).append(
                event["payload"]["seqNo"]
            )
    assert numbers
    for values in numbers.values():
        assert values == list(range(len(values)))


def schema(version: str, action: str) -> Any:
    package, suffix = {"1.6": ("ocpp.v16", ""), "2.0.1": ("ocpp.v201", "Request")}[version]
    return json.loads((files(package) / "schemas" / f"{action}{suffix}.json").read_text("utf-8-sig"))


@pytest.mark.parametrize("shape", ["ocpp16", "ocpp201"])
def test_every_message_of_an_honest_fleet_is_valid_by_the_standard(shape: str) -> None:
    validators: dict[str, Any] = {}
    checked = 0
    for message in fleet(shape=shape, hours=3.0).messages():
        if is_tick(message):
            continue
        event = json.loads(message.value)
        action = event["action"]
        if action not in validators:
            found = schema(event["ocpp_version"], action)
            validators[action] = jsonschema.validators.validator_for(found)(found)
        validators[action].validate(event["payload"])
        checked += 1
    assert checked > 100
    assert len(validators) >= 2


def test_the_standards_faults_that_are_only_values_stay_valid_by_the_standard() -> None:
    names = ["unit_missing", "per_phase", "total_on_l1", "clock_mixed", "begin_and_periodic", "signed_beside_plain"]
    run = fleet(shape="ocpp16", faults=dict.fromkeys([*names, "interval_measurand"], 0.14))
    found = schema("1.6", "MeterValues")
    validator = jsonschema.validators.validator_for(found)(found)
    for message in run.messages():
        if b'"MeterValues"' in message.value:
            validator.validate(json.loads(message.value)["payload"])


def test_arrow_messages_go_where_their_charge_points_would_go_alone() -> None:
    batches = [message for message in fleet(shape="arrow").messages() if message.headers == ARROW_HEADERS]
    readings = 0
    for message in batches:
        with pa.ipc.open_stream(message.value) as stream:
            table = stream.read_all()
        names = {str(name).encode() for name in table["charge_point_id"].to_pylist()}
        assert set(partition_of(sorted(names), 4).tolist()) == {message.partition}
        assert message.key is None
        readings += table.num_rows
    assert readings > len(batches) > 10


def test_murmur2_agrees_with_java() -> None:
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
    for key, value in known.items():
        assert partition_of([key], 2**31 - 1)[0] == (value & 0x7FFFFFFF) % (2**31 - 1)


def test_no_honest_token_is_at_two_places_at_once_and_no_honest_car_stays_idle_for_long() -> None:
    truth = fleet(hours=48.0, charge_points=100).truth().to_pylist()
    busy: dict[str, int] = {}
    for session in sorted(truth, key=lambda row: row["start_ms"]):
        assert session["start_ms"] > busy.get(session["id_token"], 0)
        busy[session["id_token"]] = session["stop_ms"]
        assert session["stop_ms"] - session["start_ms"] < 48 * 3_600_000
        assert session["alerts"] == []
        assert session["fault"] == ""


def test_cars_come_by_day_more_than_by_night() -> None:
    truth = fleet(charge_points=300, hours=24.0, shape="flat").truth()
    hour = np.asarray(truth["start_ms"]) // 3_600_000 % 24
    assert ((hour >= 8) & (hour < 20)).sum() > 2 * ((hour < 5) | (hour >= 23)).sum()


def test_the_sample_tariffs_are_sound() -> None:
    documents = tariffs()
    assert len(documents) >= 8
    assert {document["currency"] for document in documents} == {"EUR", "NOK", "GBP"}
    assert any(document.get("tax_included") == "YES" for document in documents)
    for document in documents:
        parse_tariff(document)
        assert lint(document) == []


def test_the_fleets_reference_data_covers_every_connector_and_token() -> None:
    run = fleet()
    documents = reference_documents(run.network)
    ids = {document["id"] for document in documents["tariffs"]}
    evses = [evse for location in documents["locations"] for evse in location["evses"]]
    assert len(evses) == run.network.connectors
    assert {tariff for evse in evses for tariff in evse["connectors"][0]["tariff_ids"]} <= ids
    assert {location["time_zone"] for location in documents["locations"]} <= {
        "Europe/Oslo",
        "Europe/London",
        "Europe/Paris",
        "Europe/Lisbon",
    }
    own = [token["tariff_id"] for token in documents["tokens"] if "tariff_id" in token]
    assert own
    assert set(own) <= ids
    used = set(run.truth()["id_token"].to_pylist())
    assert used <= {token["uid"] for token in documents["tokens"]}

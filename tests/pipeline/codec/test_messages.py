"""What each message becomes, whose it is, and what of it can never be used: one test a rule."""

import base64
import json
from typing import Any

import pytest

from pipeline.codec.records import Decoded
from pipeline.metering import columns as c
from pipeline.metering.columns import ABSENT_I64
from tests.pipeline.codec.agreement import assert_twins_agree
from tests.pipeline.codec.payloads import (
    EVENT_2,
    FLAT,
    POINT,
    START_16,
    START_MS,
    STATUS_2,
    STATUS_16,
    STOP_16,
    VALUES_16,
    envelope,
    records,
)
from tests.pipeline.codec.single import RECEIVED_MS, decoded, flags_of, reason, sample, values16


def entries16(*entries: tuple[str, list[dict[str, Any]]]) -> dict[str, Any]:
    listed = [{"timestamp": time, "sampledValue": sampled} for time, sampled in entries]
    return envelope("1.6", "MeterValues", {"connectorId": 1, "transactionId": 4711, "meterValue": listed})


# --- lines


def test_entries_are_lines_in_the_order_of_time_and_one_instant_is_one_line() -> None:
    later, earlier = "2026-01-01T00:10:00Z", "2026-01-01T00:05:00Z"
    found = decoded(
        entries16(
            (later, [{"value": "3", "unit": "Wh"}]),
            (earlier, [{"value": "1", "unit": "Wh"}]),
            (later, [{"value": "11", "measurand": "Power.Active.Import", "unit": "kW"}]),
        )
    )
    assert found.samples["register_mwh"].tolist() == [1_000, 3_000]
    assert found.samples["power_mw"].tolist() == [ABSENT_I64, 11_000_000]
    assert found.samples["line"].tolist() == [0, 1]
    assert found.samples["offset"].tolist() == [100, 100]
    assert found.records.tolist() == [0, 0]


def test_a_message_without_a_single_entry_is_dead() -> None:
    assert reason(envelope("1.6", "MeterValues", {"connectorId": 1, "meterValue": []})) == "no_values"


def test_start_and_stop_of_1_6_carry_whole_wh() -> None:
    start = sample(envelope("1.6", "StartTransaction", START_16, transaction_id=4711))
    assert (start["kind"], start["context"], start["register_mwh"]) == (c.KIND_START, c.CONTEXT_BEGIN, 1_000_000)
    assert flags_of(start) == c.FLAG_WHOLE_WH
    stop = sample(envelope("1.6", "StopTransaction", STOP_16))
    assert (stop["kind"], stop["context"], stop["register_mwh"]) == (c.KIND_STOP, c.CONTEXT_END, 13_345_000)
    assert stop["txn_hash"] == start["txn_hash"] != 0


def test_a_stop_of_minus_one_has_no_register() -> None:
    row = sample(envelope("1.6", "StopTransaction", {**STOP_16, "meterStop": -1}))
    assert row["register_mwh"] == ABSENT_I64
    assert flags_of(row) & c.FLAG_NEGATIVE


def stop16(*entries: tuple[str, str, str], meter_stop: Any = 13_345) -> Decoded:
    data = [
        {"timestamp": time, "sampledValue": [{"value": value, "context": context, "unit": "Wh"}]}
        for time, context, value in entries
    ]
    return decoded(envelope("1.6", "StopTransaction", {**STOP_16, "meterStop": meter_stop, "transactionData": data}))


BEGIN = ("2026-01-01T00:00:00Z", "Transaction.Begin", "1000")


def test_transaction_data_comes_before_the_stop_and_its_end_melts_into_it() -> None:
    found = stop16(BEGIN, ("2026-01-01T00:59:59Z", "Transaction.End", "13345.6"))
    assert found.samples["kind"].tolist() == [c.KIND_SAMPLE, c.KIND_STOP]
    assert found.samples["register_mwh"].tolist() == [1_000_000, 13_345_600]
    assert not int(found.samples["flags"][1]) & c.FLAG_WHOLE_WH


def test_an_end_that_contradicts_the_stop_stays_a_line_of_its_own() -> None:
    found = stop16(("2026-01-01T00:59:59Z", "Transaction.End", "13000"))
    assert found.samples["register_mwh"].tolist() == [13_000_000, 13_345_000]


def test_an_end_stands_in_for_a_stop_of_minus_one() -> None:
    found = stop16(("2026-01-01T01:00:00Z", "Transaction.End", "13345.6"), meter_stop=-1)
    assert found.samples["register_mwh"].tolist() == [13_345_600]
    assert int(found.samples["flags"][0]) & c.FLAG_NEGATIVE


def event2(kind: str, *entries: tuple[str, str | None, float], **members: Any) -> Decoded:
    listed = [
        {
            "timestamp": time,
            "sampledValue": [
                {"value": value, "unitOfMeasure": {"unit": "Wh"}, **({"context": context} if context else {})}
            ],
        }
        for time, context, value in entries
    ]
    event = {**EVENT_2, "eventType": kind, "timestamp": "2026-01-01T00:10:00Z", "meterValue": listed, **members}
    return decoded(envelope("2.0.1", "TransactionEvent", event))


def test_an_event_started_takes_its_begin_value_into_the_start_line() -> None:
    found = event2("Started", ("2026-01-01T00:09:59Z", "Transaction.Begin", 5), ("2026-01-01T00:10:05Z", None, 7))
    assert found.samples["kind"].tolist() == [c.KIND_START, c.KIND_SAMPLE]
    assert found.samples["register_mwh"].tolist() == [5_000, 7_000]
    assert found.samples["time_ms"].tolist() == [START_MS + 600_000, START_MS + 605_000]


def test_an_event_ended_brings_its_values_and_ends_with_the_stop() -> None:
    found = event2(
        "Ended",
        ("2026-01-01T00:00:00Z", "Transaction.Begin", 5),
        ("2026-01-01T00:10:00Z", "Transaction.End", 9),
        ("2026-01-01T00:05:00Z", None, 7),
    )
    assert found.samples["kind"].tolist() == [c.KIND_SAMPLE, c.KIND_SAMPLE, c.KIND_STOP]
    assert found.samples["register_mwh"].tolist() == [5_000, 7_000, 9_000]
    assert found.samples["context"].tolist() == [c.CONTEXT_BEGIN, c.CONTEXT_PERIODIC, c.CONTEXT_END]


def test_a_change_of_state_between_two_values_has_a_line_of_its_own() -> None:
    state = {"transactionId": "T1", "chargingState": "SuspendedEV"}
    found = event2("Updated", ("2026-01-01T00:05:00Z", None, 7), transactionInfo=state)
    assert found.samples["state"].tolist() == [c.STATE_UNKNOWN, c.STATE_SUSPENDED_EV]
    assert found.samples["register_mwh"].tolist() == [7_000, ABSENT_I64]
    assert not int(found.samples["flags"][1]) & c.FLAG_NO_ENERGY


def test_an_event_keeps_its_sequence_number_its_evse_its_token_and_that_it_was_offline() -> None:
    found = event2("Updated", offline=True)
    row = found.samples[0]
    assert (row["seq_no"], row["connector_id"], found.tokens[row["token"]]) == (3, 2, "ABC123")
    assert flags_of(row) == c.FLAG_OFFLINE


@pytest.mark.parametrize(
    ("word", "kind", "state"),
    [
        ("Charging", c.KIND_STATUS, c.STATE_CHARGING),
        ("SuspendedEVSE", c.KIND_STATUS, c.STATE_SUSPENDED_EVSE),
        ("Finishing", c.KIND_STATUS, c.STATE_FINISHING),
        ("Reserved", c.KIND_RESERVE, c.STATE_RESERVED),
        ("Unavailable", c.KIND_STATUS, c.STATE_FAULTED),
    ],
)
def test_a_status_is_a_line_without_energy(word: str, kind: int, state: int) -> None:
    row = sample(envelope("1.6", "StatusNotification", {**STATUS_16, "status": word}))
    assert (row["kind"], row["state"], row["register_mwh"]) == (kind, state, ABSENT_I64)
    assert flags_of(row) == c.FLAG_TXN_UNUSABLE


def test_a_status_without_a_time_has_that_of_its_arrival() -> None:
    payload = {name: value for name, value in STATUS_16.items() if name != "timestamp"}
    row = sample(envelope("1.6", "StatusNotification", payload))
    assert row["time_ms"] == RECEIVED_MS
    assert flags_of(row) & c.FLAG_TIME_UNUSABLE


def test_an_unknown_status_is_not_guessed() -> None:
    row = sample(envelope("2.1", "StatusNotification", {**STATUS_2, "connectorStatus": "Melting"}))
    assert row["state"] == c.STATE_UNKNOWN
    assert flags_of(row) & c.FLAG_VALUE_DROPPED


# --- identity


@pytest.mark.parametrize("unusable", [-1, 0, 2**63 - 1, "-1", "0", "9223372036854775807", "", None])
def test_transaction_ids_that_lie_are_no_ids(unusable: Any) -> None:
    found = decoded({**FLAT, "transaction_id": unusable})
    assert found.samples["txn_hash"].tolist() == [0]
    assert found.transaction_ids.tolist() == [b""]
    assert flags_of(found.samples[0]) == c.FLAG_TXN_UNUSABLE


def test_the_envelope_carries_the_id_that_a_1_6_payload_lacks_or_lies_about() -> None:
    for inner in (None, -1, 0):
        payload = {**VALUES_16, "transactionId": inner}
        found = decoded(envelope("1.6", "MeterValues", payload, transaction_id="4711"))
        assert found.transaction_ids.tolist() == [b"4711"]


def test_the_hash_of_an_id_never_changes() -> None:
    assert sample(FLAT)["txn_hash"] == 5676036168463197647


@pytest.mark.parametrize("value", ["x" * 37, "a\u0000b", 1.5, True, [1], {"id": 1}])
def test_an_id_that_is_no_id_is_dead(value: Any) -> None:
    assert reason({**FLAT, "transaction_id": value}) == "bad_transaction_id"


def test_a_key_that_is_not_the_charge_point_is_dead() -> None:
    assert reason(FLAT, keys=[None]) == "key_mismatch"
    assert reason(FLAT, keys=[b"CP-0002"]) == "key_mismatch"


def test_odd_unicode_in_names_is_kept_and_unprintable_names_are_dead() -> None:
    found = decoded({**FLAT, "charge_point_id": "Säule-β"}, keys=["Säule-β".encode()])
    assert found.charge_points == ["Säule-β"]
    assert reason({**FLAT, "charge_point_id": "a\u202eb"}, keys=["a\u202eb".encode()]) == "bad_charge_point_id"
    assert reason({**FLAT, "charge_point_id": ""}, keys=[b""]) == "bad_charge_point_id"


# --- what can't be used


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", "bad_json"),
        (b"{", "bad_json"),
        (b"null", "bad_shape"),
        (b"[]", "bad_shape"),
        (b'"text"', "bad_shape"),
        (b"\xff\xfe", "bad_json"),
        (b'{"charge_point_id":"\xff"}', "bad_json"),
        (b'{"charge_point_id":"\\ud800"}', "bad_json"),
        (b'{"a":' + b"[" * 100_000, "bad_json"),
        (json.dumps(FLAT).replace("12345.678", "NaN").encode(), "bad_json"),
        (json.dumps(FLAT).replace("12345.678", "Infinity").encode(), "bad_json"),
        (json.dumps({**FLAT, "connector_id": "1"}).encode(), "bad_shape"),
        (json.dumps({**FLAT, "connector_id": 10**30}).encode(), "bad_shape"),
        (json.dumps({**FLAT, "energy_wh": 10**30}).encode(), "bad_number"),
        (json.dumps({**FLAT, "energy_wh": {"value": 1}}).encode(), "bad_number"),
        (json.dumps({**FLAT, "pad": "x" * (1 << 20)}).encode(), "too_large"),
        (json.dumps(envelope("1.6", "Heartbeat", {})).encode(), "unsupported_action"),
        (json.dumps(envelope("1.6", "TransactionEvent", EVENT_2)).encode(), "unsupported_action"),
        (json.dumps(envelope("1.5", "MeterValues", VALUES_16)).encode(), "unsupported_version"),
    ],
)
def test_what_can_never_be_used_is_dead_with_a_reason(value: bytes, expected: str) -> None:
    assert reason(value) == expected


def test_a_dead_letter_speaks_to_a_person() -> None:
    found = decoded({**FLAT, "connector_id": "1"})
    assert found.dead[0].detail == "Expected `int`, got `str` - at `$.connector_id`"


def test_the_flat_form() -> None:
    full = {**FLAT, "event": "stop", "state": "SuspendedEV", "power_w": 11000.5, "current_a": 16, "id_token": "T1",
            "received_at": "2026-01-01T00:00:01.25Z"}  # fmt: skip
    found = decoded(full)
    row = found.samples[0]
    assert (row["kind"], row["context"], row["state"]) == (c.KIND_STOP, c.CONTEXT_END, c.STATE_SUSPENDED_EV)
    assert (row["register_mwh"], row["power_mw"], row["current_ma"]) == (12_345_678, 11_000_500, 16_000)
    assert (row["received_ms"], row["connector_id"]) == (RECEIVED_MS, 1)
    assert (found.charge_points, found.tokens, found.transaction_ids.tolist()) == ([POINT], ["T1"], [b"4711"])


# --- signed values

OCMF = (
    'OCMF|{"FV":"1.0","RD":[{"TM":"x","TX":"B","RV":1.0,"RI":"1-b:1.8.0","RU":"kWh"},{"TX":"E","RV":12.34567}]}'
    '|{"SD":"00"}'
)


def test_the_signed_value_beside_a_plain_one_in_another_unit_is_billed() -> None:
    found = decoded(values16({"value": "12340", "unit": "Wh"}, {"value": OCMF, "format": "SignedData"}))
    row = found.samples[0]
    assert (row["register_mwh"], row["signed"]) == (12_345_670, c.SIGNED_UNVERIFIABLE)
    assert [(blob.sample, blob.data, blob.method) for blob in found.signed] == [(0, OCMF.encode(), "OCMF")]


def test_a_signed_value_of_2_0_1_comes_in_base64_with_a_key() -> None:
    event = envelope("2.0.1", "TransactionEvent", EVENT_2)
    event["payload"]["meterValue"][0]["sampledValue"][0]["signedMeterValue"] = {
        "signedMeterData": base64.b64encode(OCMF.encode()).decode(),
        "signingMethod": "ECDSA-secp256r1-SHA256",
        "encodingMethod": "OCMF",
        "publicKey": base64.b64encode(b"oca:base16:asn1:3059").decode(),
    }
    found = decoded(event)
    assert found.samples["register_mwh"].tolist() == [12_345_670]
    assert found.signed[0].data == OCMF.encode()
    assert found.signed[0].public_key == "oca:base16:asn1:3059"


def test_a_signed_blob_that_is_not_ocmf_leaves_the_plain_value_to_be_billed() -> None:
    found = decoded(values16({"value": "12340", "unit": "Wh"}, {"value": "AP;0;3;ALFEN", "format": "SignedData"}))
    assert found.samples["register_mwh"].tolist() == [12_340_000]
    assert found.samples["signed"].tolist() == [c.SIGNED_UNVERIFIABLE]
    assert found.signed[0].method == ""


def test_a_signed_end_is_what_the_stop_bills_even_where_meter_stop_differs() -> None:
    data = [{"timestamp": "2026-01-01T00:59:00Z", "sampledValue": [
        {"value": OCMF, "format": "SignedData", "context": "Transaction.End"}]}]  # fmt: skip
    found = decoded(envelope("1.6", "StopTransaction", {**STOP_16, "transactionData": data}))
    assert found.samples["register_mwh"].tolist() == [12_345_670]
    assert found.samples["kind"].tolist() == [c.KIND_STOP]
    assert found.signed[0].sample == 0


def test_signed_blobs_point_at_their_sample_among_other_records() -> None:
    signed = values16({"value": OCMF, "format": "SignedData"})
    found = assert_twins_agree(records(FLAT, b"broken", signed, FLAT, signed))
    assert [blob.sample for blob in found.signed] == [1, 3]
    assert found.samples["signed"].tolist() == [0, 2, 0, 2]

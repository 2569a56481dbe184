"""Signed meter values: 153 real ones, forgeries of each, wrapped keys, and the pool that judges them."""

import base64
import json
from multiprocessing import active_children
from typing import Any

import numpy as np
import pytest

from benchmarks.signed import run
from pipeline.codec.records import SignedBlob
from pipeline.metering.columns import ABSENT_I64, SIGNED_FORGED, SIGNED_UNVERIFIABLE, SIGNED_VERIFIED
from pipeline.metering.signed import Verifier, key_der_hex, verify
from tests.shared_data import shared

VECTORS: list[dict[str, Any]] = [
    json.loads(line) for line in shared("conformance/ocmf/vectors.jsonl").read_text().splitlines()
]
KEBA = next(vector for vector in VECTORS if "keba_test" in vector["source"])


def blob_of(vector: dict[str, Any], payload: str | None = None) -> SignedBlob:
    signature = json.dumps({"SA": vector["sa"], "SE": vector["se"], "SD": vector["sd"]})
    return SignedBlob(0, f"OCMF|{payload or vector['payload']}|{signature}".encode(), "OCMF", "")


def state_of(vector: dict[str, Any], key: str | None, payload: str | None = None) -> int:
    return int(verify([blob_of(vector, payload)], [key]).states[0])


def expected_state(vector: dict[str, Any]) -> int:
    if not vector.get("public_key_der_hex"):
        return SIGNED_UNVERIFIABLE
    return SIGNED_VERIFIED if vector["pyocmf_result"] is True else SIGNED_FORGED


@pytest.mark.parametrize("number", range(len(VECTORS)))
def test_each_real_signed_value_is_judged(number: int) -> None:
    vector = VECTORS[number]
    expected = expected_state(vector)
    if str(vector["pyocmf_result"]).startswith("error"):
        expected = (
            SIGNED_UNVERIFIABLE  # a signature that is no hex at all; a key of another curve: neither can be judged
        )
    assert state_of(vector, vector.get("public_key_der_hex")) == expected


def test_there_are_153_of_them() -> None:
    assert len(VECTORS) == 153


@pytest.mark.parametrize("number", [i for i, v in enumerate(VECTORS) if v["pyocmf_result"] is True])
def test_one_changed_digit_of_a_verified_value_is_a_forgery(number: int) -> None:
    vector = VECTORS[number]
    at = vector["payload"].index('"RV"') + 5
    digit = next(i for i in range(at, len(vector["payload"])) if vector["payload"][i].isdigit())
    changed = "7" if vector["payload"][digit] != "7" else "8"
    payload = vector["payload"][:digit] + changed + vector["payload"][digit + 1 :]
    assert state_of(vector, vector["public_key_der_hex"], payload) == SIGNED_FORGED


def test_a_value_without_a_known_key_is_unverifiable_even_if_it_brings_its_own() -> None:
    brought = blob_of(KEBA)._replace(public_key=KEBA["public_key_der_hex"])
    assert verify([brought], [None]).states[0] == SIGNED_UNVERIFIABLE


def test_a_value_that_is_not_ocmf_is_unverifiable() -> None:
    blob = SignedBlob(0, b"\x00\x01EDL", "EDL", "")
    assert verify([blob], [KEBA["public_key_der_hex"]]).states.tolist() == [SIGNED_UNVERIFIABLE]
    assert verify([blob], [KEBA["public_key_der_hex"]]).register_mwh.tolist() == [ABSENT_I64]


def test_a_signature_that_is_no_signature_is_a_forgery() -> None:
    assert state_of({**KEBA, "sd": "00ff00ff"}, KEBA["public_key_der_hex"]) == SIGNED_FORGED


def test_the_register_is_exact_and_the_last_one() -> None:
    sample = next(vector for vector in VECTORS if "sample.xml" in vector["source"])
    assert verify([blob_of(sample)], [None]).register_mwh.tolist() == [259_700]  # 0.2597 kWh
    enercharge = next(vector for vector in VECTORS if "base64_ocmf" in vector["source"])
    assert verify([blob_of(enercharge)], [None]).register_mwh.tolist() == [1_709_539]  # 1709.539307 Wh, cut to mWh


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda der: der.hex(),
        lambda der: der.hex(" ").upper(),
        lambda der: der.hex(":"),
        lambda der: base64.b64encode(der).decode(),
        lambda der: "oca:base16:asn1:" + der.hex(),
        lambda der: base64.b64encode(b"oca:base16:asn1:" + der.hex().encode()).decode(),
        lambda der: "-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der).decode() + "\n-----END PUBLIC KEY-----\n",
        lambda der: (b"\x30\x5f\x02\x02\x00\x01" + der).hex(),  # a DER structure around the key
        lambda der: der[-65:].hex(),  # the bare point
    ],
    ids=["hex", "spaced", "colons", "base64", "oca", "oca in base64", "pem", "wrapped", "point"],
)
def test_a_key_is_found_in_every_form_that_vendors_hand_out(wrapped: Any) -> None:
    key = wrapped(bytes.fromhex(KEBA["public_key_der_hex"]))
    assert key_der_hex(key) == KEBA["public_key_der_hex"].lower()
    assert state_of(KEBA, key) == SIGNED_VERIFIED


@pytest.mark.parametrize("key", ["", "  ", "no key", "30", "3059301306072A8648CE3D0201", "00" * 91, "é"])
def test_what_is_no_key_is_unverifiable(key: str) -> None:
    assert state_of(KEBA, key) == SIGNED_UNVERIFIABLE


@pytest.mark.parametrize("processes", [0, 1])
def test_what_was_foreseen_is_what_is_told_and_a_wrong_key_foresees_nothing(processes: int) -> None:
    blobs = [blob_of(vector) for vector in VECTORS] * 2
    keys = [vector.get("public_key_der_hex") for vector in VECTORS] * 2
    direct = verify(blobs, keys)
    with Verifier(processes) as verifier:
        verifier.foresee(blobs, keys[::-1])
        for _ in range(2):
            verifier.foresee(blobs, keys)
            told = verifier.verify(blobs, keys)
            np.testing.assert_array_equal(told.states, direct.states)
            np.testing.assert_array_equal(told.register_mwh, direct.register_mwh)


def test_a_process_that_died_costs_no_answer() -> None:
    blobs, keys = [blob_of(vector) for vector in VECTORS], [vector.get("public_key_der_hex") for vector in VECTORS]
    direct = verify(blobs, keys)
    with Verifier(1) as verifier:
        verifier.foresee(blobs[:1], [KEBA["public_key_der_hex"]])
        (child,) = active_children()
        child.kill()
        child.join()
        for _ in range(2):
            verifier.foresee(blobs, keys)
            np.testing.assert_array_equal(verifier.verify(blobs, keys).states, direct.states)


def test_the_benchmark_runs_and_reads_the_known_registers() -> None:
    result = run(20)
    assert result["result_hash"] == run(20)["result_hash"]
    assert result["blobs"] == 20

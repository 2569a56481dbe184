"""How many signed meter values are judged a second, and what they cost the metering thread of a tenth signed stream.

secp256r1, every blob another one. The stream is OCPP 1.6 MeterValues through the worker's engine, in batches, once with
signatures verified by the engine's own thread and once ahead by a process; the engine's thread is timed (CPU). What it
waits for the process is told beside: on an idle machine that is what verification costs, less what else it did.

Run: python -m benchmarks.signed [--blobs 500] [--messages 5000] [--json]
"""

import argparse
import hashlib
import json
import time
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.codec.records import SignedBlob
from pipeline.metering.columns import SIGNED_VERIFIED
from pipeline.metering.signed import Verifier, verify
from pipeline.simulate.signing import public_key, signed_value
from tests.pipeline.metering.charger import NAME, Charger, at, stamp
from tests.pipeline.rate.drive import Drive

_BATCH: Final = 1_000


def signed_blobs(count: int) -> tuple[list[SignedBlob], str]:
    """So many OCMF blobs of one meter, and its public key."""
    private_key = ec.derive_private_key(20260101, ec.SECP256R1())
    blobs = []
    for number in range(count):
        payload = json.dumps(
            {
                "FV": "1.0",
                "GI": "BENCH",
                "GS": "1",
                "PG": f"T{number}",
                "MS": "1",
                "IS": False,
                "RD": [
                    {
                        "TM": "2026-01-01T00:00:00,000+0000 S",
                        "TX": "E",
                        "RV": number / 1000,
                        "RI": "01-00:01.08.00*FF",
                        "RU": "kWh",
                        "ST": "G",
                    }
                ],
            }
        )
        signature = private_key.sign(payload.encode(), ec.ECDSA(hashes.SHA256())).hex()
        blobs.append(SignedBlob(number, f'OCMF|{payload}|{{"SD":"{signature}"}}'.encode(), "OCMF", ""))
    der = private_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return blobs, der.hex()


def run(count: int, messages: int = 0) -> dict[str, float | int | str]:
    """Rate over CPU time, and a hash of the registers read (signatures are random, registers are not)."""
    blobs, key = signed_blobs(count)
    verify(blobs[:2], [key] * 2)
    started = time.thread_time()
    verified = verify(blobs, [key] * count)
    elapsed = time.thread_time() - started
    assert (verified.states == SIGNED_VERIFIED).all()
    result: dict[str, float | int | str] = {
        "blobs": count,
        "verifications_per_second": round(count / elapsed),
        "result_hash": hashlib.sha256(verified.register_mwh.tobytes()).hexdigest()[:16],
    }
    if messages:
        told = stream(messages)
        (alone_us, _, energy_mwh), (ahead_us, waited_s, same_mwh) = metered(told, 0), metered(told, 1)
        assert energy_mwh == same_mwh == 15_000 * messages
        result |= {
            "messages": messages,
            "us_a_message_alone": round(alone_us, 2),
            "us_a_message_ahead": round(ahead_us, 2),
            "waited_s": round(waited_s, 3),
        }
    return result


def stream(messages: int) -> Charger:
    """A session of so many samples, each tenth of them signed."""
    key = public_key(NAME.encode())
    told = Charger(meter_public_key=key).start(0, 1_000)
    for number in range(1, messages + 1):
        minute, wh = number / 6, 1_000 + 15 * number
        register: dict[str, Any] = {"measurand": "Energy.Active.Import.Register", "unit": "Wh"}
        value = {"value": str(wh), **register}
        if number % 10 == 0:
            data = signed_value(NAME.encode(), stamp(at(minute)).encode(), wh * 1000, forged=False)
            value = {"value": data.decode(), "format": "SignedData", **register}
        told.values(minute, [value])
    return told


def metered(told: Charger, processes: int) -> tuple[float, float, int]:
    """CPU of the metering thread a message in µs, what it waited in all in s, and the energy rated."""
    with Verifier(processes) as verifier:
        drive = Drive(told.reference, verifier=verifier)
        batches = [told.records[first : first + _BATCH] for first in range(0, len(told.records), _BATCH)]
        drive.take({0: batches[0]})
        cpu_s, wall_s = time.thread_time(), time.perf_counter()
        for batch in batches[1:]:
            drive.take({0: batch})
        cpu_s, wall_s = time.thread_time() - cpu_s, time.perf_counter() - wall_s
    energy_mwh = int(drive.engine.directory.state.connectors["energy_mwh"][0])
    return cpu_s / (len(told.records) - _BATCH) * 1e6, wall_s - cpu_s, energy_mwh


def main() -> None:
    """Prints the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blobs", type=int, default=500)
    parser.add_argument("--messages", type=int, default=5_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = run(options.blobs, options.messages)
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{result['verifications_per_second']:,} verifications/s, {result['result_hash']}")
        print(
            f"metering thread, a tenth of {result['messages']:,} messages signed: {result['us_a_message_alone']} µs a "
            f"message where it verifies itself, {result['us_a_message_ahead']} µs where a process does, for which it "
            f"waited {result['waited_s']} s"
        )


if __name__ == "__main__":
    main()

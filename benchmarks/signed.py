"""How many signed meter values are judged a second: secp256r1, one thread, every blob another one.

Run: python -m benchmarks.signed [--blobs 500] [--json]
"""

import argparse
import hashlib
import json
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.codec.records import SignedBlob
from pipeline.metering.columns import SIGNED_VERIFIED
from pipeline.metering.signed import verify


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


def run(count: int) -> dict[str, float | int | str]:
    """Rate over CPU time, and a hash of the registers read (signatures are random, registers are not)."""
    blobs, key = signed_blobs(count)
    verify(blobs[:2], [key] * 2)
    started = time.thread_time()
    verified = verify(blobs, [key] * count)
    elapsed = time.thread_time() - started
    assert (verified.states == SIGNED_VERIFIED).all()
    return {
        "blobs": count,
        "verifications_per_second": round(count / elapsed),
        "result_hash": hashlib.sha256(verified.register_mwh.tobytes()).hexdigest()[:16],
    }


def main() -> None:
    """Prints the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blobs", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = run(options.blobs)
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{result['verifications_per_second']:,} verifications/s, {result['result_hash']}")


if __name__ == "__main__":
    main()

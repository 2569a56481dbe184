"""Signed meter values (OCMF) as a charge point's meter would sign them.

Each charge point has its own key on secp256r1, derived from its id: these keys protect nothing. The
signature is deterministic (RFC 6979), so a seed gives the same bytes on every machine.
"""

import hashlib
from functools import lru_cache
from typing import Final

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.simulate.texts import decimal

_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@lru_cache(maxsize=4096)
def _private_key(charge_point: bytes) -> ec.EllipticCurvePrivateKey:
    digest = int.from_bytes(hashlib.sha256(b"wattrate simulation " + charge_point).digest(), "big")
    return ec.derive_private_key(digest % (_ORDER - 1) + 1, ec.SECP256R1())


def public_key(charge_point: bytes) -> str:
    """The key that verifies the charge point's signed values: hex of its DER SubjectPublicKeyInfo."""
    encoding = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return _private_key(charge_point).public_key().public_bytes(*encoding).hex()


def signed_value(charge_point: bytes, timestamp: bytes, register_mwh: int, *, forged: bool) -> bytes:
    """An OCMF record of one register; `forged` adds 0.05 kWh after signing, as someone on the wire could."""
    payload = _payload(charge_point, timestamp, register_mwh)
    signature = _private_key(charge_point).sign(payload, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    told = _payload(charge_point, timestamp, register_mwh + 50_000) if forged else payload
    return b'OCMF|%b|{"SA":"ECDSA-secp256r1-SHA256","SD":"%b"}' % (told, signature.hex().upper().encode())


def _payload(charge_point: bytes, timestamp: bytes, register_mwh: int) -> bytes:
    reading = {
        "TM": timestamp.decode().rstrip("Z") + ",000+0000 S",
        "TX": "C",
        "RV": msgspec.Raw(decimal(register_mwh, 6)),
        "RI": "1-b:1.8.0",
        "RU": "kWh",
        "ST": "G",
    }
    record = {
        "FV": "1.0",
        "GI": "wattrate simulation",
        "GS": charge_point.decode(),
        "GV": "1",
        "PG": "T1",
        "MV": "wattrate",
        "MM": "simulated",
        "MS": charge_point.decode(),
        "IS": True,
        "IL": "VERIFIED",
        "IF": ["RFID_PLAIN", "OCPP_RS"],
        "IT": "ISO14443",
        "ID": "0",
        "RD": [reading],
    }
    return msgspec.json.encode(record)

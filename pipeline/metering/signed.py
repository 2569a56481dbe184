"""Signed meter values: is the signature right, by pyocmf (this file is its only importer). Off the hot path.

Three answers, which travel to the bill (design: signed values): VERIFIED by the key that reference data holds for the
meter; FORGED, because key and format are known and the signature is wrong; UNVERIFIABLE, because something needed to
judge is missing. A key that came along with the value proves nothing and is never used.
"""

import base64
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyocmf
from pyocmf.exceptions import PyOCMFError, SignatureVerificationError, SpecWarning

from pipeline.codec import ocmf
from pipeline.codec.records import SignedBlob
from pipeline.metering.columns import ABSENT_I64, SIGNED_FORGED, SIGNED_UNVERIFIABLE, SIGNED_VERIFIED

# DER of SubjectPublicKeyInfo, up to the point: what a bare P-256 point lacks.
_P256_HEAD = bytes.fromhex("3059301306072A8648CE3D020106082A8648CE3D030107034200")
_EC_KEY_OID = bytes.fromhex("06072A8648CE3D0201")  # 1.2.840.10045.2.1, the first field of an EC key's algorithm
_OCA_PREFIX = "oca:base16:asn1:"
_CACHE_ROWS = 65_536
_CHUNK = 64

_warnings_lock = threading.Lock()  # the filters of `warnings` are one per process


class Verified(NamedTuple):
    """Aligned with the blobs: SIGNED_* and the register that the blob states (ABSENT_I64 where it can't be read)."""

    states: npt.NDArray[np.int8]
    register_mwh: npt.NDArray[np.int64]


def verify(blobs: Sequence[SignedBlob], public_keys: Sequence[str | None]) -> Verified:
    """Judges each blob by the key that reference data holds for its meter (None or "": none is known)."""
    pairs = [(blob.data, key or "") for blob, key in zip(blobs, public_keys, strict=True)]
    return _columns([_judged(pair) for pair in pairs])


class Verifier:
    """Judges blobs in other processes, or in one thread where `processes` is 0; what it judged once it remembers.

    The answer is the same as that of `verify`, so a batch may wait for it before metering and replays stay equal.
    """

    def __init__(self, processes: int = 0) -> None:
        self._executor: Executor = (
            ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
            if processes
            else ThreadPoolExecutor(1, thread_name_prefix="signed")
        )
        self._known: OrderedDict[tuple[bytes, str], tuple[int, int]] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def submit(self, blobs: Sequence[SignedBlob], public_keys: Sequence[str | None]) -> "Pending":
        """Starts judging and returns at once. Call from one thread."""
        pairs = [(blob.data, key or "") for blob, key in zip(blobs, public_keys, strict=True)]
        unknown = list(dict.fromkeys(pair for pair in pairs if pair not in self._known))
        chunks = [unknown[at : at + _CHUNK] for at in range(0, len(unknown), _CHUNK)]
        return Pending(self, pairs, [(chunk, self._executor.submit(_judge_all, chunk)) for chunk in chunks])

    def collect(self, pairs: list[tuple[bytes, str]], found: dict[tuple[bytes, str], tuple[int, int]]) -> Verified:
        """The answers to `pairs`, new ones from `found`, which are remembered."""
        answers = [found[pair] if pair in found else self._known[pair] for pair in pairs]
        self._known.update(found)
        while len(self._known) > _CACHE_ROWS:
            self._known.popitem(last=False)
        return _columns(answers)


class Pending(NamedTuple):
    """Blobs that are being judged."""

    verifier: Verifier
    pairs: list[tuple[bytes, str]]
    chunks: list[tuple[list[tuple[bytes, str]], Future[Any]]]

    def result(self) -> Verified:
        """Waits for the answers. Collect one Pending before the next is submitted."""
        found = {
            pair: answer for chunk, future in self.chunks for pair, answer in zip(chunk, future.result(), strict=True)
        }
        return self.verifier.collect(self.pairs, found)


def key_der_hex(key: str) -> str:
    """The DER of a public key, as hex, out of the forms in which vendors hand it out; "" when none is recognised.

    Read are hex (with blanks or colons) and base64 of the DER, PEM, OCA's `oca:base16:asn1:` form, a bare P-256 point,
    and any larger DER structure that holds the key, as vendors (KEBA, certificates) wrap it.
    """
    der = _key_bytes(key)
    if len(der) == 65 and der[0] == 0x04:
        return (_P256_HEAD + der).hex()
    return _inner_key(der).hex()


def _key_bytes(key: str) -> bytes:
    body = "".join(line for line in key.splitlines() if not line.startswith("-----"))
    body = "".join(body.removeprefix(_OCA_PREFIX).removeprefix("0x").replace(":", "").split())
    try:
        return bytes.fromhex(body)
    except ValueError:
        pass
    try:
        opened = base64.b64decode(body, validate=True)
    except ValueError:
        return b""
    return _key_bytes(opened.decode()) if opened.startswith(_OCA_PREFIX.encode()) else opened


def _inner_key(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo around the EC key's algorithm identifier, wherever it stands; b"" if nowhere."""
    at = der.find(_EC_KEY_OID)
    for head in (4, 5):  # SEQUENCE, length of 1 or 2 bytes, then the algorithm's SEQUENCE and its length
        start = at - head
        if start >= 0 and der[start] == 0x30 and der[start + head - 2] == 0x30:
            size = der[start + 1] if head == 4 else der[start + 2]
            whole = der[start : start + head - 2 + size]
            if len(whole) == head - 2 + size and (head == 4 or der[start + 1] == 0x81):
                return whole
    return b""


def _judge_all(pairs: list[tuple[bytes, str]]) -> list[tuple[int, int]]:
    return [_judged(pair) for pair in pairs]


def _judged(pair: tuple[bytes, str]) -> tuple[int, int]:
    data, key = pair
    text = ocmf.unwrap(data)
    register = ocmf.register_mwh(text)
    return _state(text, key_der_hex(key)), ABSENT_I64 if register is None else register


def _state(text: bytes, key_hex: str) -> int:
    if not text or not key_hex:
        return SIGNED_UNVERIFIABLE
    try:
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", SpecWarning)  # a deviation from the wording does not touch the signature
            good = pyocmf.OCMF.from_string(text.decode()).verify_signature(key_hex)
    except SignatureVerificationError as error:
        # The key fits and the signature is not even one: that is a wrong signature, not a missing key.
        return SIGNED_FORGED if error.reason == "invalid_signature_format" else SIGNED_UNVERIFIABLE
    except (PyOCMFError, ValueError):
        return SIGNED_UNVERIFIABLE
    return SIGNED_VERIFIED if good else SIGNED_FORGED


def _columns(answers: list[tuple[int, int]]) -> Verified:
    return Verified(
        np.array([state for state, _ in answers], np.int8), np.array([register for _, register in answers], np.int64)
    )

"""Signed meter values: is the signature right, by pyocmf (this file is its only importer). Off the hot path.

Three answers, which travel to the bill (design: signed values): VERIFIED by the key that reference data holds for the
meter; FORGED, because key and format are known and the signature is wrong; UNVERIFIABLE, because something needed to
judge is missing. A key that came along with the value proves nothing and is never used.
"""

import base64
import os
import signal
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyocmf
from pyocmf.exceptions import PyOCMFError, SignatureVerificationError, SpecWarning

from pipeline.codec import ocmf
from pipeline.codec.records import SignedBlob
from pipeline.log import Log
from pipeline.metering.columns import ABSENT_I64, SIGNED_FORGED, SIGNED_UNVERIFIABLE, SIGNED_VERIFIED

# DER of SubjectPublicKeyInfo, up to the point: what a bare P-256 point lacks.
_P256_HEAD = bytes.fromhex("3059301306072A8648CE3D020106082A8648CE3D030107034200")
_EC_KEY_OID = bytes.fromhex("06072A8648CE3D0201")  # 1.2.840.10045.2.1, the first field of an EC key's algorithm
_OCA_PREFIX = "oca:base16:asn1:"
_CACHE_ROWS = 16_384  # some 16 MB
_CHUNK = 64

LOG = Log("rate")
_Pair = tuple[bytes, str]  # blob and key
_Answer = tuple[int, int]  # SIGNED_*, register

_warnings_lock = threading.Lock()  # the filters of `warnings` are one per process


class Verified(NamedTuple):
    """Aligned with the blobs: SIGNED_* and the register that the blob states (ABSENT_I64 where it can't be read)."""

    states: npt.NDArray[np.int8]
    register_mwh: npt.NDArray[np.int64]


def verify(blobs: Sequence[SignedBlob], public_keys: Sequence[str | None]) -> Verified:
    """Judges each blob by the key that reference data holds for its meter (None or "": none is known)."""
    return _columns([_judged(pair) for pair in _pairs(blobs, public_keys)])


class Verifier:
    """Judges blobs ahead in other processes; without any, when it is asked. What it judged once it remembers.

    An answer depends on blob and key alone, so whoever asks gets that of `verify`, however much was foreseen, and under
    whichever key: what was not is judged when it is asked for. Not for threads.
    """

    def __init__(self, processes: int = 0) -> None:
        """No process is started before there is something to judge."""
        self._processes = processes
        self._executor: ProcessPoolExecutor | None = None
        self._known: OrderedDict[_Pair, _Answer] = OrderedDict()
        self._running: OrderedDict[_Pair, tuple[Future[list[_Answer]], int]] = OrderedDict()  # place in its chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ahead(self) -> bool:
        """Whether anything is gained by foreseeing."""
        return self._processes > 0

    def close(self) -> None:
        """End the processes."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = None
        self._running.clear()

    def foresee(self, blobs: Sequence[SignedBlob], public_keys: Sequence[str | None]) -> None:
        """Start judging what will be asked for soon, and return at once."""
        if not self.ahead:
            return
        self._gather()
        pairs = dict.fromkeys(pair for pair in _pairs(blobs, public_keys) if pair[1])  # without a key nothing costs
        unknown = [pair for pair in pairs if pair not in self._known and pair not in self._running]
        unknown = unknown[: max(0, _CACHE_ROWS - len(self._running))]
        for at in range(0, len(unknown), _CHUNK):
            chunk = unknown[at : at + _CHUNK]
            future = self._pool().submit(_judge_all, chunk)
            self._running.update((pair, (future, place)) for place, pair in enumerate(chunk))

    def verify(self, blobs: Sequence[SignedBlob], public_keys: Sequence[str | None]) -> Verified:
        """Each blob's answer: what was foreseen is waited for."""
        pairs = _pairs(blobs, public_keys)
        found = {pair: self._answer(pair) for pair in dict.fromkeys(pairs)}
        self._remember(found)
        return _columns([found[pair] for pair in pairs])

    def _answer(self, pair: _Pair) -> _Answer:
        if pair in self._running:
            future, place = self._running.pop(pair)
            try:
                return future.result()[place]
            except BrokenExecutor as error:
                self._broken(error)
        return self._known[pair] if pair in self._known else _judged(pair)

    def _gather(self) -> None:
        """Keep the answers that are there, whether or not anybody will ask."""
        done = [(pair, *running) for pair, running in self._running.items() if running[0].done()]
        for pair, future, place in done:
            if (error := future.exception()) is not None:
                self._broken(error)
                return
            del self._running[pair]
            self._remember({pair: future.result()[place]})

    def _remember(self, found: Mapping[_Pair, _Answer]) -> None:
        self._known.update(found)
        while len(self._known) > _CACHE_ROWS:
            self._known.popitem(last=False)

    def _pool(self) -> ProcessPoolExecutor:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(self._processes, get_context("spawn"), _in_the_child)
        return self._executor

    def _broken(self, error: BaseException) -> None:
        """A process died, of memory perhaps: new ones judge what comes; what it had is judged when it is asked for."""
        LOG.warning("a process that verifies signatures died; another one is started", why=str(error))
        if self._executor is not None:
            self._executor.shutdown(wait=False)
        self._executor = None
        self._running.clear()


def _in_the_child() -> None:
    """Leave interrupts to the worker, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _pairs(blobs: Sequence[SignedBlob], public_keys: Sequence[str | None]) -> list[_Pair]:
    return [(blob.data, key or "") for blob, key in zip(blobs, public_keys, strict=True)]


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


def _judge_all(pairs: list[_Pair]) -> list[_Answer]:
    return [_judged(pair) for pair in pairs]


def _judged(pair: _Pair) -> _Answer:
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


def _columns(answers: list[_Answer]) -> Verified:
    return Verified(
        np.array([state for state, _ in answers], np.int8), np.array([register for _, register in answers], np.int64)
    )

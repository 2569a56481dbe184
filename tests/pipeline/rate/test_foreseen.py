"""Which records a worker hands to the verifier as soon as they are read: a glance, until one is signed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pipeline.codec.records import Records
from pipeline.rate.worker import Worker
from pipeline.settings import Settings

PLAIN, SIGNED = b'{"meterValue": 1}', b'{"signedMeterData": "..."}'


@dataclass
class Read:
    """What the client hands out."""

    at: int
    said: bytes | None

    def value(self) -> bytes | None:
        return self.said

    def key(self) -> bytes:
        return b"CP1"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


@pytest.fixture
def worker(ready: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Worker, list[list[int]]]]:
    """A worker whose engine notes the offsets that it is to foresee."""
    seen = list[list[int]]()

    def noted(batches: Mapping[int, Records]) -> None:
        seen.append([int(offset) for one in batches.values() for offset in one.offsets])

    one = Worker.connect(replace(ready, verify_processes=1), wait=lambda: False)
    monkeypatch.setattr(one.engine, "foresee", noted)
    yield one, seen
    one.stop()
    one.run()


def read(worker: Worker, signed: set[int], count: int = 64) -> None:
    found: list[Any] = [Read(at, SIGNED if at in signed else PLAIN) for at in range(count)]
    worker._foresee(found)  # the seam: what a whole run foresees and what it judges anew looks the same from outside


def test_one_glance_at_a_signed_record_and_all_of_them_are_foreseen(worker: tuple[Worker, list[list[int]]]) -> None:
    one, seen = worker
    read(one, {16, 17, 40})
    assert seen == [[16, 17, 40]]


def test_once_records_are_signed_all_are_looked_at_until_a_call_brings_none(
    worker: tuple[Worker, list[list[int]]],
) -> None:
    one, seen = worker
    read(one, {1})  # overlooked: the engine verifies it when the batch is processed
    read(one, {0})
    read(one, {1})
    read(one, set())
    read(one, {1})
    assert seen == [[0], [1]]


def test_records_without_a_value_are_looked_at_too(worker: tuple[Worker, list[list[int]]]) -> None:
    one, seen = worker
    one._foresee([Read(0, None), Read(1, SIGNED)])  # type: ignore[list-item]  # the client's class can't be made here
    assert seen == []

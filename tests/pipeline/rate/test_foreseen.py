"""Signed records are noticed when they are read: by a glance at some, until one is signed; and judged from then on."""

from dataclasses import replace
from pathlib import Path

from pipeline.codec.records import Records
from pipeline.kafka import Message
from pipeline.rate.doors import Doors
from pipeline.rate.records import Glance
from pipeline.rate.worker import Worker
from pipeline.settings import Settings
from tests.faults.rig import Feeder, faulty_fleet, publish

PLAIN, SIGNED = b'{"meterValue": 1}', b'{"signedMeterData": "..."}'


def offsets(glance: Glance, signed: set[int], count: int = 64) -> list[int | None]:
    """Those of the messages of one call that are noticed."""
    messages = [Message(offset=at, value=SIGNED if at in signed else PLAIN) for at in range(count)]
    return [message.offset() for message in glance.signed(messages)]


def test_one_glance_at_a_signed_record_and_all_of_them_are_noticed() -> None:
    assert offsets(Glance(), {16, 17, 40}) == [16, 17, 40]


def test_once_records_are_signed_each_is_looked_at_until_a_call_brings_none() -> None:
    glance = Glance()
    assert offsets(glance, {1}) == []  # overlooked: the engine verifies it when it has the batch
    assert offsets(glance, {0}) == [0]
    assert offsets(glance, {1}) == [1]
    assert offsets(glance, set()) == []
    assert offsets(glance, {1}) == []


def test_records_without_a_value_and_calls_without_a_record_bear_none() -> None:
    glance = Glance()
    assert glance.signed([]) == []
    assert glance.signed([Message(offset=0), Message(offset=1, value=PLAIN)]) == []


class Noting(Worker):
    """Notes of each batch how many signatures are being judged already when it is to be rated."""

    def __init__(self, settings: Settings, doors: Doors) -> None:
        super().__init__(settings, doors)
        self.judged_ahead = list[int]()

    def _rate(self, records: dict[int, Records]) -> None:
        self.judged_ahead.append(len(self._verifier._running))  # of earlier batches none is left: they were asked for
        super()._rate(records)


def judged_ahead(settings: Settings, folder: Path) -> list[int]:
    fleet = faulty_fleet(20_261_130, charge_points=120, hours=12.0, faults={"signed_beside_plain": 0.9})
    publish(settings, fleet, folder)
    Feeder(settings, fleet, 0.0).done()
    worker = Noting.connect(settings, wait=lambda: False)
    worker.run(drain_s=1.0)
    return worker.judged_ahead


def test_a_worker_has_signatures_judged_from_when_their_records_are_read(ready: Settings, tmp_path: Path) -> None:
    small = replace(ready, batch_records=500)
    assert sum(judged_ahead(replace(small, verify_processes=1), tmp_path / "reference")) > 0


def test_a_worker_without_processes_for_it_judges_none_ahead(ready: Settings, tmp_path: Path) -> None:
    assert sum(judged_ahead(replace(ready, verify_processes=0), tmp_path / "reference")) == 0

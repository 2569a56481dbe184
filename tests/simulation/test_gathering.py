"""How many records a worker takes at once: small batches while it keeps up, the largest while it is behind."""

import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pipeline.codec.records import Records
from pipeline.rate import worker
from pipeline.rate.worker import Worker
from pipeline.settings import Settings
from tests.simulation.world import Weather, World

AT_EASE, MOST = 4, 9


class Calm(World):
    """No faults; records come all at once, or one every two seconds."""

    apart_s = 0.0

    def _settings(self) -> Settings:
        return replace(super()._settings(), batch_records=MOST, batch_wait_s=0.5)

    def _weather(self) -> Weather:
        return Weather()

    def _feed(self) -> None:
        for partition, records in self.workload.log.items():
            for number, record in enumerate(records):
                seconds = number * self.apart_s
                self.schedule.at(seconds, lambda p=partition, r=record: self.log.append(p, r))  # type: ignore[misc]


class Slow(Calm):
    """One record after the other."""

    apart_s = 2.0


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, list[int]]]:
    """Records of each batch, by worker."""
    found: dict[int, list[int]] = defaultdict(list)
    rate = Worker._rate

    def noted(self: Worker, records: dict[int, Records]) -> None:
        found[id(self)].append(sum(len(one.values) for one in records.values()))
        rate(self, records)

    monkeypatch.setattr(worker, "_AT_EASE", AT_EASE)
    monkeypatch.setattr(Worker, "_rate", noted)
    logging.disable(logging.CRITICAL)
    yield found
    logging.disable(logging.NOTSET)


def test_the_third_batch_of_a_log_that_waits_is_a_large_one(sizes: dict[int, list[int]]) -> None:
    Calm(3).run()
    behind = [found for found in sizes.values() if len(found) > 3]
    assert behind
    for found in behind:
        assert found[:3] == [AT_EASE, AT_EASE, MOST]


def test_a_worker_that_keeps_up_takes_what_came(sizes: dict[int, list[int]]) -> None:
    Slow(3).run()
    assert sizes
    assert max(size for found in sizes.values() for size in found) <= AT_EASE

"""What a worker takes into one batch off a real broker, by its settings."""

from dataclasses import replace

from benchmarks.workload import Workload, publish_reference, send
from pipeline.codec.records import Records
from pipeline.rate.doors import Doors
from pipeline.rate.worker import Worker
from pipeline.settings import Settings

SENT = Workload(connectors=500, sweeps=20, minutes=1_000, partitions=2)


class Noting(Worker):
    """Notes the bytes of its batches' records."""

    def __init__(self, settings: Settings, doors: Doors) -> None:
        super().__init__(settings, doors)
        self.sizes = list[list[int]]()

    def _rate(self, records: dict[int, Records]) -> None:
        self.sizes.append([len(value or b"") for one in records.values() for value in one.values])
        super()._rate(records)


def rated(settings: Settings) -> list[list[int]]:
    """The bytes of each record of each batch."""
    publish_reference(settings, SENT)
    send(settings, SENT)
    worker = Noting.connect(settings, wait=lambda: False)
    progress = worker.run(drain_s=1.0)
    assert progress.readings == SENT.readings
    return worker.sizes


def test_records_that_wait_go_into_a_batch_whatever_the_time(ready: Settings) -> None:
    sizes = rated(replace(ready, batch_wait_s=0.0, batch_records=2_000))
    assert max(map(len, sizes)) == 2_000


def test_a_batch_takes_no_more_once_its_records_have_so_many_bytes(ready: Settings) -> None:
    sizes = rated(replace(ready, batch_bytes=1 << 16))
    over = [sum(batch) - (1 << 16) for batch in sizes]
    assert max(over) >= 0  # by the records of the last call, no more
    assert all(extra < max(map(max, sizes)) * 64 for extra in over)

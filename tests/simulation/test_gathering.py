"""How many records a worker takes at once: small batches while it keeps up, the largest while it is behind.

And after how many its state is stored.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from pipeline.codec.records import Records
from pipeline.ledger import Marker
from pipeline.rate.doors import Doors
from pipeline.rate.snapshot import StateCopy
from pipeline.rate.worker import Worker
from pipeline.settings import Settings
from tests.simulation.world import Broken, Weather, World

AT_EASE, MOST = 4, 9


class Calm(World):
    """No faults; records come all at once, or one every two seconds. Notes the records of each worker's batches."""

    apart_s = 0.0

    def __init__(self, seed: int, records: int = 50_000) -> None:
        """A snapshot is due after so many records."""
        self.sizes = sizes = list[list[int]]()
        self.stored = stored = defaultdict[int, list[int]](list)  # last offset of each snapshot, by partition

        class Noting(Worker):
            at_ease = AT_EASE
            replayed, replayed_each = records, 0

            def __init__(self, settings: Settings, doors: Doors) -> None:
                super().__init__(settings, doors)
                self._sizes = list[int]()
                sizes.append(self._sizes)

            def _rate(self, records: dict[int, Records]) -> None:
                self._sizes.append(sum(len(one.values) for one in records.values()))
                super()._rate(records)

            def _due_snapshots(self, markers: Iterable[Marker]) -> list[StateCopy]:
                due = super()._due_snapshots(markers)
                for copy in due:
                    stored[copy.header.partition].append(copy.header.last_offset)
                return due

        super().__init__(seed, Broken(worker=Noting))

    def _settings(self) -> Settings:
        return replace(super()._settings(), batch_records=MOST, batch_wait_s=0.5)

    def _weather(self) -> Weather:
        return Weather()

    def _instants(self, count: int) -> list[float]:
        return [number * self.apart_s for number in range(count)]


class Slow(Calm):
    """One record after the other."""

    apart_s = 2.0


def test_the_third_batch_of_a_log_that_waits_is_a_large_one() -> None:
    world = Calm(7)
    world.run()
    behind = [sizes for sizes in world.sizes if len(sizes) > 3]
    assert behind
    for sizes in behind:
        assert sizes[:3] == [AT_EASE, AT_EASE, MOST]


def test_a_worker_that_keeps_up_takes_what_came() -> None:
    world = Slow(5)  # a log that nobody takes over: what came meanwhile would be a large batch
    world.run()
    assert any(world.sizes)
    assert max(size for sizes in world.sizes for size in sizes) <= AT_EASE


class WithoutInterval(Calm):
    """The time never asks for a snapshot."""

    def _settings(self) -> Settings:
        return replace(super()._settings(), snapshot_interval_s=1e9)


@pytest.mark.parametrize(("records", "many"), [(5, True), (1_000_000, False)])
def test_a_snapshot_is_due_after_so_many_records_whatever_the_time(records: int, many: bool) -> None:
    world = WithoutInterval(7, records)
    world.run()
    assert bool(world.stored) == many
    for offsets in world.stored.values():
        assert all(after - before >= records for before, after in pairwise([-1, *offsets]))

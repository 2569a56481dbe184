"""How many records a worker takes at once: small batches while it keeps up, the largest while it is behind."""

from dataclasses import replace

from pipeline.codec.records import Records
from pipeline.rate.doors import Doors
from pipeline.rate.worker import Worker
from pipeline.settings import Settings
from tests.simulation.world import Broken, Weather, World

AT_EASE, MOST = 4, 9


class Calm(World):
    """No faults; records come all at once, or one every two seconds. Notes the records of each worker's batches."""

    apart_s = 0.0

    def __init__(self, seed: int) -> None:
        self.sizes = sizes = list[list[int]]()

        class Noting(Worker):
            at_ease = AT_EASE

            def __init__(self, settings: Settings, doors: Doors) -> None:
                super().__init__(settings, doors)
                self._sizes = list[int]()
                sizes.append(self._sizes)

            def _rate(self, records: dict[int, Records]) -> None:
                self._sizes.append(sum(len(one.values) for one in records.values()))
                super()._rate(records)

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
    world = Calm(6)
    world.run()
    behind = [sizes for sizes in world.sizes if len(sizes) > 3]
    assert behind
    for sizes in behind:
        assert sizes[:2] == [AT_EASE, AT_EASE]
        assert AT_EASE < sizes[2] <= MOST
    assert any(sizes[2] == MOST for sizes in behind)


def test_a_worker_that_keeps_up_takes_what_came() -> None:
    world = Slow(3)
    world.run()
    assert any(world.sizes)
    for sizes in world.sizes:  # one that takes over finds what came meanwhile, and may be behind at first
        large = [at for at, size in enumerate(sizes) if size > AT_EASE]
        assert all(min(sizes[at - 2 : at]) >= AT_EASE for at in large if at >= 2)
        assert not {0, 1} & set(large)
    assert max(max(sizes, default=0) for sizes in world.sizes) < MOST

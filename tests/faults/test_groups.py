"""Workers join, leave, die and sleep in one group: one at a time rates a partition, zombies are fenced."""

import signal
import time
from dataclasses import replace
from pathlib import Path

from pipeline.clickhouse import Store
from pipeline.settings import Settings
from tests.faults.kills import TAKEN_OVER
from tests.faults.rig import Process, await_rated, equal_to_oracle, repeatable, tell
from tests.faults.test_outages import fed

SEED = 6_001


def test_three_workers_with_joins_leaves_and_deaths(ready: Settings, tmp_path: Path) -> None:
    settings = replace(ready, snapshot_interval_s=1.0)
    with repeatable(SEED, "pytest tests/faults/test_groups.py -k three_workers") as rng:
        feeder = fed(settings, tmp_path, SEED, 25.0)
        workers = {n: Process(settings, tmp_path / f"{n}.log") for n in range(3)}
        try:
            for worker in workers.values():
                assert worker.await_word("worker joins the group"), worker.said()
            for _ in range(4):
                time.sleep(rng.uniform(1.0, 2.5))
                n = rng.randrange(3)
                if rng.random() < 0.5:
                    workers[n].kill()
                else:  # before that it has no handler, and SIGTERM just ends it
                    assert workers[n].await_word("worker joins the group"), workers[n].said()
                    assert workers[n].stop() == 0, workers[n].said()
                workers[n] = Process(settings, tmp_path / f"{n}.log")
            feeder.done()
            await_rated(settings)
            for worker in workers.values():
                assert worker.await_word("worker joins the group"), worker.said()
                assert worker.stop() == 0, worker.said()
        finally:
            for worker in workers.values():
                worker.kill()
        said = "".join((tmp_path / f"{n}.log").read_text() for n in workers)
        assert "Traceback" not in said, said[said.index("Traceback") :][:3000]
        tell(equal_to_oracle(settings))


def test_a_worker_that_slept_beyond_its_session_is_fenced_and_its_rows_count_for_nobody(
    ready: Settings, tmp_path: Path
) -> None:
    settings = replace(ready, snapshot_interval_s=1.0)
    with repeatable(SEED + 1, "pytest tests/faults/test_groups.py -k slept") as rng:
        feeder = fed(settings, tmp_path, SEED + 1, 20.0)
        with Process(settings, tmp_path / "a.log") as first:
            assert first.await_word(TAKEN_OVER), first.said()
            with Process(settings, tmp_path / "b.log") as second:
                assert second.await_word("worker joins the group"), second.said()
                for sleeper in (first, second):
                    time.sleep(rng.uniform(1.0, 3.0))
                    sleeper.send(signal.SIGSTOP)
                    time.sleep(settings.session_timeout_s + 3.0)
                    sleeper.send(signal.SIGCONT)
                    time.sleep(1.0)
                feeder.done()
                await_rated(settings)
                for worker in (first, second):
                    assert worker.stop() == 0, worker.said()
                    assert "Traceback" not in worker.said(), worker.said()
                said = first.said() + second.said()
                assert "partitions lost" in said or "fenced" in said, said
        tell(f"{zombie_rows(settings)} rows of zombies;", equal_to_oracle(settings))


def test_two_workers_with_one_static_id(ready: Settings, tmp_path: Path) -> None:
    # given a worker with a static id, when a second one comes with the same, then one of them rates, and rates right
    settings = replace(ready, snapshot_interval_s=1.0, group_instance_id="one")
    with repeatable(SEED + 2, "pytest tests/faults/test_groups.py -k static"):
        feeder = fed(settings, tmp_path, SEED + 2, 8.0)
        with Process(settings, tmp_path / "a.log") as first:
            assert first.await_word(TAKEN_OVER), first.said()
            with Process(settings, tmp_path / "b.log") as second:
                assert second.await_word("worker joins the group"), second.said()
                feeder.done()
                await_rated(settings)
                codes = [worker.ended() for worker in (first, second)]
                assert None in codes, (first.said(), second.said())
                for worker in (first, second):
                    assert worker.stop() in (0, 4), worker.said()
                    assert "Traceback" not in worker.said(), worker.said()
        tell(codes, equal_to_oracle(settings))


def zombie_rows(settings: Settings) -> int:
    """Rows in the table that no view shows."""
    with Store(settings) as store:
        return int(store.scalar("SELECT (SELECT count() FROM rated_usage_rows) - (SELECT count() FROM rated_usage)"))

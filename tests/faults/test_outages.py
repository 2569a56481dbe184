"""Store and broker go away under load: the worker waits, says so, and goes on; nothing is lost or doubled."""

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

from pipeline.embedded.stack import EmbeddedStore
from pipeline.settings import Settings
from tests.contract.proxy import Fault, Proxy
from tests.faults.kills import TAKEN_OVER
from tests.faults.rig import (
    Feeder,
    Process,
    await_rated,
    equal_to_oracle,
    faulty_fleet,
    publish,
    rated_ends,
    repeatable,
    tell,
)
from tests.stack import prepared, running_stack

SEED = 5_001
OUTAGE = "outage: partitions are paused"


def fed(settings: Settings, folder: Path, seed: int, seconds: float) -> Feeder:
    """Reference data in place, and a fleet that writes into the log for so long."""
    fleet = faulty_fleet(seed, charge_points=40)
    publish(settings, fleet, folder / "reference")
    return Feeder(settings, fleet, seconds)


def small(settings: Settings) -> Settings:
    return replace(
        settings, batch_records=200, batch_wait_s=0.05, session_timeout_s=2.0, snapshot_interval_s=1.0,
        clickhouse_timeout_s=10.0,
    )  # fmt: skip


def test_the_store_is_killed_under_load_and_restarted_on_the_same_folder_and_port(tmp_path: Path) -> None:
    with repeatable(SEED, "pytest tests/faults/test_outages.py -k store_is_killed") as rng, \
            running_stack(tmp_path / "stack") as stack:  # fmt: skip
        settings = small(prepared(stack.settings))
        feeder = fed(settings, tmp_path, SEED, 12.0)
        with Process(settings, tmp_path / "worker.log") as worker:
            assert worker.await_word(TAKEN_OVER), worker.said()
            for _ in range(3):
                time.sleep(rng.uniform(0.3, 1.5))
                stack.store.child.kill()
                time.sleep(rng.uniform(0.5, 2.0))
                stack.store = EmbeddedStore.start(stack.settings, stack.folder, port=stack.store.port)
            feeder.done()
            await_rated(settings)
            assert OUTAGE in worker.said()
            assert worker.stop() == 0, "the same process all the time"
            assert "Traceback" not in worker.said(), worker.said()
        tell(equal_to_oracle(settings))


NETWORK = {
    "answer lost after the insert landed": Fault(cut_answer_after=0, times=3),
    "answer cut in the middle": Fault(cut_answer_after=120, times=3),
    "request cut": Fault(cut_request_after=2_000, times=3),
    "connections refused": Fault(refuse=True, times=5),
    "slow": Fault(delay_s=0.2, times=10),
}


def test_a_network_that_loses_answers_resets_refuses_and_delays(ready: Settings, tmp_path: Path) -> None:
    settings = small(ready)
    with repeatable(SEED + 1, "pytest tests/faults/test_outages.py -k network") as rng, \
            Proxy(settings.clickhouse_port) as proxy:  # fmt: skip
        feeder = fed(settings, tmp_path, SEED + 1, 15.0)
        through = replace(settings, clickhouse_port=proxy.port)
        hits = 0
        with Process(through, tmp_path / "worker.log") as worker:
            assert worker.await_word(TAKEN_OVER), worker.said()
            for name in _shuffled(rng, [*NETWORK] * 2):
                with proxy.fault(NETWORK[name]):
                    time.sleep(rng.uniform(0.5, 1.5))
                    hits += proxy.hits
            feeder.done()
            await_rated(settings)
            assert worker.stop() == 0, worker.said()
            assert "Traceback" not in worker.said(), worker.said()
        assert hits > 5
        tell(f"{hits} connections met a fault;", equal_to_oracle(settings))


def _shuffled(rng: random.Random, names: list[str]) -> list[str]:
    rng.shuffle(names)
    return names


def test_the_network_fails_while_partitions_are_taken_over(ready: Settings, tmp_path: Path) -> None:
    settings = small(ready)
    with Proxy(settings.clickhouse_port) as proxy:
        feeder = fed(settings, tmp_path, SEED + 2, 1.0)
        through = replace(settings, clickhouse_port=proxy.port)
        with Process(through, tmp_path / "worker.log") as worker:
            assert worker.await_word("worker joins the group"), worker.said()
            with proxy.fault(Fault(cut_answer_after=0, times=4)):
                assert worker.await_word(OUTAGE), worker.said()
            assert worker.await_word(TAKEN_OVER), worker.said()
            feeder.done()
            await_rated(settings)
            assert worker.stop() == 0, worker.said()
            assert "Traceback" not in worker.said(), worker.said()
        tell(equal_to_oracle(settings))


def test_a_broker_that_does_not_answer_pauses_the_worker(tmp_path: Path) -> None:
    """The embedded broker forgets its log when it ends, so here it is stopped and continued."""
    with repeatable(SEED + 3, "pytest tests/faults/test_outages.py -k broker") as rng, \
            running_stack(tmp_path / "stack") as stack:  # fmt: skip
        settings = small(prepared(stack.settings))
        feeder = fed(settings, tmp_path, SEED + 3, 3.0)
        with Process(replace(settings, kafka_timeout_s=2.0), tmp_path / "worker.log") as worker:
            assert worker.await_word(TAKEN_OVER), worker.said()
            time.sleep(rng.uniform(0.0, 0.5))
            for _ in range(2):
                os.kill(stack.broker.pid, signal.SIGSTOP)
                time.sleep(5.0)
                os.kill(stack.broker.pid, signal.SIGCONT)
                time.sleep(rng.uniform(0.2, 1.0))
                assert worker.ended() is None, worker.said()
            feeder.done()
            await_rated(settings)
            assert rated_ends(settings)
            assert worker.stop() == 0, worker.said()
            assert "Traceback" not in worker.said(), worker.said()
        tell(equal_to_oracle(settings))

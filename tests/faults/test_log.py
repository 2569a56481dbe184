"""The log is not what the ledger remembers: gaps, lost tails, other topics, moved offsets. Halt loudly or be right.

Retention and lost tails need Apache Kafka; the embedded broker has neither.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.archive import KeptDoors
from pipeline.clickhouse import Store
from pipeline.commands.init import prepare
from pipeline.commands.verify import recomputed
from pipeline.embedded.apache_kafka import ApacheKafka
from pipeline.embedded.stack import Stack
from pipeline.errors import RetentionGapError
from pipeline.kafka import Admin, Reader
from pipeline.rate.doors import RealDoors
from pipeline.read.checks import OK
from pipeline.settings import Settings
from pipeline.topics import READINGS
from tests.faults.kills import TAKEN_OVER
from tests.faults.rig import Process, await_rated, equal_to_oracle, rated_ends, tell
from tests.faults.test_kills import announce
from tests.faults.test_outages import fed, small
from tests.stack import prepared, running_stack

SEED = 9_001
HALTED = 4  # exit code of a BrokerError


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("Apache Kafka needs Java 17 and Maven, which are not installed here")
    with running_stack(tmp_path_factory.mktemp("real"), kafka=True) as stack:
        yield stack


def rated(settings: Settings, folder: Path, seed: int) -> None:
    """A log that a worker has rated to its end before it was killed."""
    feeder = fed(settings, folder, seed, 0.5)
    with Process(settings, folder / "worker.log") as worker:
        assert worker.await_word(TAKEN_OVER), worker.said()
        feeder.done()
        await_rated(settings)
        worker.kill()


@pytest.mark.kafka
def test_records_that_retention_deleted_before_they_were_rated_halt_the_worker(real: Stack, tmp_path: Path) -> None:
    settings = small(prepared(real.settings))
    rated(settings, tmp_path, SEED)
    before = rated_ends(settings)
    announce(settings)
    announce(settings)
    forget(settings, {p: end + 1 for p, end in before.items()})
    with Process(settings, tmp_path / "worker.log") as worker:
        assert worker.wait() == HALTED, worker.said()
        assert "no longer has the next offset" in worker.said() and "Traceback" not in worker.said(), worker.said()
    assert rated_ends(settings) == before, "nothing was skipped"


def forget(settings: Settings, offsets: dict[int, int]) -> None:
    """Delete what lies before these offsets, as retention does."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    gone = [TopicPartition(settings.topic(READINGS), p, offset) for p, offset in offsets.items()]
    for future in client.delete_records(gone).values():
        future.result()


@pytest.mark.kafka
def test_what_retention_deleted_is_rated_again_from_the_kept_records(real: Stack, tmp_path: Path) -> None:
    settings = small(prepared(real.settings))
    rated(settings, tmp_path, SEED + 5)
    with Process(settings, tmp_path / "archive.log", "archive", "--drain", "3") as archive:
        assert archive.wait() == 0, archive.said()
    assert recomputed(RealDoors.of_topic(settings), 0, None).state == OK
    forget(settings, rated_ends(settings))
    with pytest.raises(RetentionGapError):
        recomputed(RealDoors.of_topic(settings), 0, None)
    told = recomputed(KeptDoors(settings), 0, None)
    assert told.state == OK and told.compared > 0
    tell(told.text)


@pytest.mark.kafka
def test_a_log_that_lost_its_tail_halts_the_worker(real: Stack, tmp_path: Path) -> None:
    """The broker's files go while it is down: the topic keeps its name and id, and ends before the ledger does."""
    settings = small(prepared(real.settings))
    rated(settings, tmp_path, SEED + 1)
    before = rated_ends(settings)
    real.broker.child.kill()
    for folder in (real.folder / "kafka" / "log").glob(f"{settings.topic(READINGS)}-*"):
        for file in folder.iterdir():
            if file.suffix in (".log", ".index", ".timeindex", ".snapshot"):
                file.unlink()
    real.broker = ApacheKafka.start(real.settings, real.folder, port=real.broker.port)
    with Process(settings, tmp_path / "worker.log") as worker:
        assert worker.wait() == HALTED, worker.said()
        assert "no longer has the next offset" in worker.said() and "Traceback" not in worker.said(), worker.said()
    assert rated_ends(settings) == before


def test_a_topic_that_was_made_anew_is_another_log_and_the_old_rows_stay(ready: Settings, tmp_path: Path) -> None:
    settings = small(ready)
    rated(settings, tmp_path / "first", SEED + 2)
    first = Admin(settings).log_id(READINGS)
    shown = "SELECT log_id, count() AS rows, sum(cost) AS cost FROM rated_usage GROUP BY log_id"
    with Store(settings) as store:
        [old] = store.rows(shown)
    Admin(settings).delete_topics([READINGS])
    prepare(settings)
    assert Admin(settings).log_id(READINGS) != first
    again = replace(settings, group_id=f"{settings.group_id}-again")
    rated(again, tmp_path / "second", SEED + 3)
    with Store(settings) as store:
        both = {row["log_id"]: row for row in store.rows(shown)}
    assert len(both) == 2 and both[first] == old
    tell(equal_to_oracle(again))


def test_group_offsets_rewound_forwarded_or_deleted_change_nothing(ready: Settings, tmp_path: Path) -> None:
    settings = small(ready)
    rated(settings, tmp_path, SEED + 4)
    ends = rated_ends(settings)
    for moved in (dict.fromkeys(ends, 0), {p: end + 1_000 for p, end in ends.items()}, None):
        now = settings if moved else replace(settings, group_id=f"{settings.group_id}-forgotten")
        if moved:
            commit_as_a_member(now, moved)
        with Process(now, tmp_path / "worker.log") as worker:
            assert worker.await_word(TAKEN_OVER), worker.said()
            announce(now)
            await_rated(now)
            assert worker.stop() == 0, worker.said()
    tell(equal_to_oracle(settings))
    assert rated_ends(settings) == rated_ends(oracle_of(settings))


def commit_as_a_member(settings: Settings, offsets: dict[int, int]) -> None:
    """Set a group's offsets; the embedded broker takes them from members only."""
    taken: set[int] = set()

    def assigned(partitions: list[int]) -> dict[int, int]:
        taken.update(partitions)
        return dict.fromkeys(partitions, 0)

    with Reader(settings, READINGS) as reader:
        reader.subscribe(assigned, on_revoke=taken.difference_update, on_lost=taken.difference_update)
        until_s = time.monotonic() + 60.0
        while taken != offsets.keys():
            assert time.monotonic() < until_s, f"of {sorted(offsets)} only {sorted(taken)} were given"
            reader.consume(1, 0.5)
        reader.commit(offsets)


def oracle_of(settings: Settings) -> Settings:
    """The oracle's database, as `equal_to_oracle` has left it."""
    return replace(settings, clickhouse_database=f"{settings.clickhouse_database}_oracle")

"""Into a real log: order in each partition, keys where Kafka puts them, at the speed that was asked for."""

import json
import time
from collections import defaultdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.clickhouse import Store
from pipeline.commands import simulate
from pipeline.errors import TopicError
from pipeline.kafka import Admin, Message, Reader
from pipeline.logwriter import Pace, write
from pipeline.settings import Settings
from pipeline.simulate.fleet import Fleet, FleetPlan
from pipeline.simulate.partitioning import partition_of
from pipeline.topics import READINGS

PLAN = FleetPlan(charge_points=30, hours=2.0, settle_hours=1, tick_ms=600_000)


def everything(settings: Settings, count: int) -> dict[int, list[tuple[bytes | None, bytes]]]:
    """`count` records of meter.readings, by partition, in their order."""
    partitions = Admin(settings).partition_count(READINGS)
    found: dict[int, list[tuple[bytes | None, bytes]]] = defaultdict(list)
    deadline = time.monotonic() + 60
    with Reader(settings, READINGS) as reader:
        reader.assign(dict.fromkeys(range(partitions), 0))
        while sum(map(len, found.values())) < count and time.monotonic() < deadline:
            message: Message
            for message in reader.consume(10_000, 1.0):
                partition, value = message.partition(), message.value()
                assert partition is not None
                assert isinstance(value, bytes)
                key = message.key()
                found[partition].append((key.encode() if isinstance(key, str) else key, value))
    return found


@pytest.mark.parametrize("shape", ["mixed", "arrow"])
def test_the_log_holds_the_messages_in_their_order_where_their_keys_belong(ready: Settings, shape: str) -> None:
    partitions = Admin(ready).partition_count(READINGS)
    plan = FleetPlan(**{**vars(PLAN), "shape": shape, "partitions": partitions})
    written = write(ready, (chunk.batch for chunk in Fleet(plan).chunks()))
    expected: dict[int, list[tuple[bytes | None, bytes]]] = defaultdict(list)
    for message in Fleet(plan).messages():
        at = message.partition
        if at is None:
            assert message.key is not None
            at = int(partition_of([message.key], partitions)[0])
        expected[at].append((message.key, message.value))
    assert everything(ready, written.messages) == expected
    assert written.bytes == sum(len(value) for records in expected.values() for _, value in records)


def test_without_topics_it_says_so_before_the_first_record(empty: Settings) -> None:
    with pytest.raises(TopicError):
        write(empty, (chunk.batch for chunk in Fleet(PLAN).chunks()))


def test_a_pace_of_1000_takes_a_thousandth_of_simulated_time() -> None:
    pace = Pace(1_000.0)
    began = time.monotonic()
    for time_ms in range(0, 200_001, 20_000):
        pace.reach(time_ms)
    assert 0.19 < time.monotonic() - began < 2.0
    began = time.monotonic()
    for time_ms in range(0, 200_001, 20_000):
        Pace(0.0).reach(time_ms)
    assert time.monotonic() - began < 0.1


def test_the_command_publishes_the_fleet_and_writes_the_truth(ready: Settings, tmp_path: Path) -> None:
    truth = tmp_path / "truth.parquet"
    options = ["--charge-points", "20", "--hours", "3", "--faults", "0.01", "--publish", "--json"]
    result = CliRunner().invoke(simulate.command, [*options, "--truth", str(truth)], obj=ready)
    assert result.exit_code == 0, result.output
    counts = json.loads(result.output)
    assert counts["sessions"] > 0
    assert counts["readings"] > counts["sessions"]
    assert truth.stat().st_size > 0
    with Store(ready) as store:
        kinds = store.rows("SELECT kind, count() AS documents FROM reference_rows GROUP BY kind ORDER BY kind")
    found = {row["kind"]: row["documents"] for row in kinds}
    assert found["tariff"] >= 8
    assert found["token"] > found["location"] > 0

"""What changes under a worker: tariffs in the middle of a batch, rows under its markers, the code that rated them."""

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clickhouse import Store
from pipeline.logwriter import publish_folder, write
from pipeline.settings import Settings
from pipeline.simulate.documents import tariffs
from pipeline.simulate.message import Batch, Message
from tests.faults.kills import TAKEN_OVER
from tests.faults.rig import Process, await_rated, equal_to_oracle, faulty_fleet, publish, repeatable, tell
from tests.faults.test_log import rated
from tests.faults.test_outages import small

SEED = 11_001
CONTRADICTION = 7


def dearer(folder: Path) -> Path:
    """The sample tariffs with other prices and later versions."""
    folder.mkdir(parents=True)
    for number, tariff in enumerate(tariffs()):
        for element in tariff["elements"]:
            for component in element["price_components"]:
                component["price"] = round(float(component["price"]) + 0.07, 4)
        tariff["last_updated"] = "2026-01-05T09:00:00Z"
        (folder / f"tariff-{number}.json").write_text(json.dumps(tariff), "utf-8")
    return folder


def test_a_tariff_changes_in_the_middle_of_a_batch_and_the_worker_dies(ready: Settings, tmp_path: Path) -> None:
    with repeatable(SEED, "pytest tests/faults/test_changes.py -k tariff") as rng:
        settings = replace(small(ready), batch_records=300, snapshot_interval_s=0.5)
        fleet = faulty_fleet(SEED, charge_points=40)
        publish(settings, fleet, tmp_path / "reference")
        messages = [m for chunk in fleet.chunks() for m in chunk.batch.messages()]
        middle = len(messages) // 2
        write(settings, [_batch(messages[:middle])])
        publish_folder(settings, dearer(tmp_path / "dearer"))
        write(settings, [_batch(messages[middle:])])
        _killed(settings, tmp_path / "worker.log", rng, 3)
        with Process(settings, tmp_path / "worker.log") as worker:
            await_rated(settings)
            assert worker.stop() == 0, worker.said()
        tell(equal_to_oracle(settings))
    with Store(settings) as store:
        reached = store.scalar("SELECT max(reference_version) FROM markers")
    assert reached == 2, "the change is not in the rated log"


def _batch(messages: list[Message]) -> Batch:
    return Batch(*(list(column) for column in zip(*messages, strict=True)))


def _killed(settings: Settings, log: Path, rng: random.Random, times: int) -> None:
    for _ in range(times):
        with Process(settings, log) as worker:
            assert worker.await_word(TAKEN_OVER), worker.said()
            time.sleep(rng.uniform(0.0, 0.8))
            worker.kill()


@pytest.mark.parametrize("snapshots", [False, True], ids=["no snapshot", "snapshots taken since"])
def test_rows_that_the_store_lost_under_a_marker_are_written_again(
    ready: Settings, tmp_path: Path, snapshots: bool
) -> None:
    settings = replace(small(ready), snapshot_interval_s=0.0 if snapshots else 3_600.0)
    rated(settings, tmp_path, SEED + 1)
    with Store(settings) as store:
        lost = store.scalar("SELECT count() FROM rated_usage_rows WHERE offset % 7 = 0")
        store.command("ALTER TABLE rated_usage_rows DELETE WHERE offset % 7 = 0", {"mutations_sync": "1"})
        if not snapshots:
            store.command("TRUNCATE TABLE state_rows")
        assert bool(store.scalar("SELECT count() FROM state_rows")) == snapshots
    with Process(settings, tmp_path / "worker.log") as worker:
        assert worker.await_word(TAKEN_OVER), worker.said()
        assert "the store lost rows under a marker" in worker.said()
        assert worker.stop() == 0, worker.said()
    assert lost
    tell(f"{lost} rows were gone;", equal_to_oracle(settings))


def test_code_that_rates_otherwise_stops_at_the_first_marker_that_it_contradicts(
    ready: Settings, tmp_path: Path
) -> None:
    """The other way round, so that it can be done here: the marker promises what this code does not give."""
    settings = replace(small(ready), snapshot_interval_s=3_600.0)
    rated(settings, tmp_path, SEED + 2)
    with Store(settings) as store:
        store.command("TRUNCATE TABLE state_rows")
        store.command(
            "INSERT INTO marker_rows SELECT * REPLACE (checksum + 1 AS checksum, "
            "written_at + INTERVAL 1 SECOND AS written_at) FROM marker_rows ORDER BY partition, first_offset LIMIT 1"
        )
        before = store.scalar("SELECT count() FROM marker_rows FINAL")
    with Process(settings, tmp_path / "worker.log") as worker:
        assert worker.wait() == CONTRADICTION, worker.said()
        assert "give other rows than their marker promised" in worker.said()
        assert "wattrate verify" in worker.said() and "Traceback" not in worker.said(), worker.said()
    with Store(settings) as store:
        assert store.scalar("SELECT count() FROM marker_rows FINAL") == before

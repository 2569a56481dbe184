"""kill -9 of the rating worker at random moments under load: what counts in the end is what one undisturbed run gives.

The long run is `python -m tests.faults.run --kills 500 --seed S`.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clickhouse import Store
from pipeline.kafka import Sender
from pipeline.settings import Settings
from pipeline.topics import READINGS
from tests.faults.kills import TAKEN_OVER, kill_workers
from tests.faults.rig import (
    Feeder,
    Process,
    await_rated,
    equal_to_oracle,
    faulty_fleet,
    publish,
    repeatable,
    tell,
)

SEED = 20_261_122
KILLS = 8


def test_kill_9_of_the_worker_at_random_moments_with_a_snapshot_every_second(ready: Settings, tmp_path: Path) -> None:
    with repeatable(SEED, f"python -m tests.faults.run --kills {KILLS} --seed {SEED}"):
        report = kill_workers(replace(ready, snapshot_interval_s=1.0), tmp_path, SEED, KILLS, load_s=25.0)
        tell(report)
        assert report.kills == KILLS
        assert not report.refused and not report.mended


SPOILED = {  # columns of a snapshot → what stands there instead; `other` is the newest of the next partition
    "torn": {"payload": "substring(own.payload, 1, intDiv(length(own.payload), 2))"},
    "changed": {"payload": "concat(substring(own.payload, 1, 40), 'x', substring(own.payload, 42))"},
    "foreign": {"payload": "other.payload", "checksum": "other.checksum"},
    "of other code": {"code_version": "'0-none'"},
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_snapshot_that_does_not_fit_is_refused_and_recovery_starts_from_an_older_one_or_the_log(
    ready: Settings, tmp_path: Path, spoiled: str
) -> None:
    settings = replace(ready, snapshot_interval_s=0.3)
    fleet = faulty_fleet(3, charge_points=20, hours=3.0)
    publish(settings, fleet, tmp_path / "reference")
    log = tmp_path / "worker.log"
    with Process(settings, log) as worker:
        assert worker.await_word(TAKEN_OVER), worker.said()
        Feeder(settings, fleet, 2.0).done()  # in many batches, so that snapshots are taken in between
        await_rated(settings)
        worker.kill()
    spoil(settings, SPOILED[spoiled])
    with Process(settings, log) as worker:
        assert worker.await_word(TAKEN_OVER), worker.said()
        assert "snapshot refused, an older one is tried" in worker.said()
        announce(settings)
        await_rated(settings)
        assert worker.stop() == 0
    tell(equal_to_oracle(settings))


def spoil(settings: Settings, columns: dict[str, str]) -> None:
    """Put a spoiled copy of each partition's newest snapshot where a later one would stand."""
    kept = ("log_id", "partition", "claim", "last_offset", "code_version", "checksum", "payload", "taken_at")
    chosen = ", ".join(f"{columns.get(name, f'own.{name}')} AS {name}" for name in kept)
    newest = "(SELECT * FROM state_rows ORDER BY last_offset DESC, claim DESC LIMIT 1 BY log_id, partition)"
    with Store(settings) as store:
        source = f"{newest} AS own JOIN {newest} AS other ON other.partition = (own.partition + 1) % 4"
        store.command(
            f"INSERT INTO state_rows ({', '.join(kept)}) "
            f"SELECT * REPLACE (claim + 1 AS claim) FROM (SELECT {chosen} FROM {source})"
        )


def announce(settings: Settings) -> None:
    """A tick on every partition: something new to rate."""
    with Sender(settings) as sender:
        sender.broadcast(READINGS, b'{"control":"tick","time_ms":1768000000000}')


def test_without_any_snapshot_the_log_is_read_from_its_start(ready: Settings, tmp_path: Path) -> None:
    with repeatable(SEED + 1, f"pytest {Path(__file__).name} -k without_any_snapshot"):
        settings = replace(ready, snapshot_interval_s=3_600.0)
        tell(kill_workers(settings, tmp_path, SEED + 1, 3, load_s=8.0))

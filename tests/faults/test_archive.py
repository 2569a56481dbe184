"""kill -9 of those who keep the log's records: each is kept once, and the ledger is rated again from them."""

from dataclasses import replace
from pathlib import Path

from pipeline.archive import KeptDoors
from pipeline.clickhouse import Store
from pipeline.commands.verify import recomputed
from pipeline.kafka import Admin
from pipeline.read.checks import OK
from pipeline.read.verify import verify
from pipeline.settings import Settings
from pipeline.topics import READINGS
from tests.faults.rig import Feeder, Process, await_rated, faulty_fleet, publish, repeatable, tell

SEED = 20_261_130
KILLS = 6
COPIES = "copies partitions"


def test_kill_9_of_the_archive_loses_and_repeats_no_record(ready: Settings, tmp_path: Path) -> None:
    ready = replace(ready, batch_records=50)  # a batch takes all that waits: there are to be more of them than kills
    with repeatable(SEED, f"pytest {Path(__file__).name}") as rng:
        fleet = faulty_fleet(SEED, charge_points=30, hours=3.0)
        publish(ready, fleet, tmp_path / "reference")
        feeder = Feeder(ready, fleet, 12.0)
        with Process(ready, tmp_path / "worker.log") as worker:
            for number in range(KILLS):
                log = tmp_path / f"archive-{number}.log"
                with Process(ready, log, "archive") as one, Process(ready, log, "archive"):
                    assert one.await_word(COPIES), one.said()
                    assert one.ended(rng.uniform(0.0, 2.0)) is None, one.said()
                    one.kill()
            feeder.done()
            await_rated(ready)
            assert worker.stop() == 0
        with Process(ready, tmp_path / "archive.log", "archive", "--drain", "3") as last:
            assert last.wait() == 0, last.said()
        with Store(ready) as store:
            kept = store.scalar("SELECT count() FROM record_rows FINAL")
            assert kept == sum(Admin(ready).end_offsets(READINGS).values())
            [check] = [one for one in verify(store) if one.name == "records_kept"]
        assert check.state == OK and check.compared > 0
        told = recomputed(KeptDoors(replace(ready, kafka_bootstrap="127.0.0.1:1")), 0, None)
        assert told.state == OK and told.compared > KILLS, told
        tell(f"{kept} records kept after {KILLS} kills; {told.text}")

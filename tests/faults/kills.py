"""kill -9 of rating workers at random moments under load, any number of times, with any number of workers."""

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.settings import Settings
from tests.faults.rig import Counts, Feeder, Process, await_rated, equal_to_oracle, faulty_fleet, publish

TAKEN_OVER = "partitions taken over"
_WHILE_STARTING = 0.2  # share of kills that do not wait until the worker has its partitions


@dataclass
class Report:
    """What a run did. Seconds are wall time."""

    seed: int
    kills: int = 0
    while_starting: int = 0
    messages: int = 0
    seconds: float = 0.0
    takeovers_s: list[float] = field(default_factory=list)  # from a worker's start to its partitions
    refused: int = 0  # snapshots
    mended: int = 0  # markers whose rows the store had lost
    counts: Counts | None = None

    def __str__(self) -> str:
        middle = sorted(self.takeovers_s)[len(self.takeovers_s) // 2] if self.takeovers_s else 0.0
        return (
            f"seed {self.seed}: {self.kills} kills ({self.while_starting} while starting) in {self.seconds:.0f} s, "
            f"{self.messages:,} messages; start to partitions {middle:.1f} s (median); {self.refused} snapshots "
            f"refused, {self.mended} markers mended; equal to the oracle: {self.counts}"
        )


def kill_workers(
    settings: Settings, folder: Path, seed: int, kills: int, *, charge_points: int = 60, load_s: float | None = None
) -> Report:
    """Feed a faulty fleet, kill the worker `kills` times, let the last one finish, compare with the oracle."""
    rng = random.Random(seed)
    began = time.monotonic()
    report = Report(seed)
    fleet = faulty_fleet(seed, charge_points=charge_points)
    publish(settings, fleet, folder / "reference")
    feeder = Feeder(settings, fleet, load_s if load_s is not None else 6.0 * kills)
    report.messages = feeder.messages
    log = folder / "worker.log"
    for _ in range(kills):
        _life(settings, log, rng, report)
    with Process(settings, log) as worker:
        # One that is told to stop while it starts has no exit code of its own.
        assert worker.await_word(TAKEN_OVER), worker.said()
        feeder.done()
        await_rated(settings)
        assert worker.stop() == 0, worker.said()
    _read(log, report)
    report.counts = equal_to_oracle(settings)
    report.seconds = time.monotonic() - began
    return report


def _life(settings: Settings, log: Path, rng: random.Random, report: Report) -> None:
    """One worker from its start to its violent end."""
    began = time.monotonic()
    starting, after_s = rng.random() < _WHILE_STARTING, rng.uniform(0.0, 1.5)
    with Process(settings, log) as worker:
        if starting:
            assert worker.await_word("worker joins the group"), worker.said()
        else:
            assert worker.await_word(TAKEN_OVER), worker.said()
            report.takeovers_s.append(time.monotonic() - began)
        time.sleep(after_s)
        assert worker.ended() is None, f"it ended by itself: {worker.said()}"
        worker.kill()
    report.kills += 1
    report.while_starting += starting


def _read(log: Path, report: Report) -> None:
    said = log.read_text("utf-8", "replace")
    report.refused = said.count("snapshot refused")
    report.mended = said.count("the store lost rows under a marker")
    assert "Traceback" not in said, said[said.index("Traceback") :][:3000]

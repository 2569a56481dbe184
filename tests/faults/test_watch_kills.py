"""kill -9 of the watch at random moments: no alert lost, none under two ids, the same alerts open in the end.

The long run is `python -m tests.faults.watch_kills --kills 50 --seed S`.
"""

from pathlib import Path

from pipeline.settings import Settings
from tests.faults.rig import repeatable, tell
from tests.faults.watch_kills import kill_watch

SEED = 20_261_122
KILLS = 5


def test_kill_9_of_the_watch_at_random_moments(ready: Settings, tmp_path: Path) -> None:
    with repeatable(SEED, f"python -m tests.faults.watch_kills --kills {KILLS} --seed {SEED}"):
        report = kill_watch(ready, tmp_path, SEED, KILLS, charge_points=20, load_s=25.0)
        tell(report)
        assert report.kills == KILLS
        assert report.of_watch

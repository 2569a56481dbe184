"""The long run: `python -m tests.faults.run --kills 500 --seed 7`. Prints a report; exit code 1 where anything differs.

Kills come in rounds of at most 50, each with a log of its own (seed, seed + 1, …) held against its own oracle; every
third round runs without snapshots.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import click

from tests.faults.kills import Report, kill_workers
from tests.faults.rig import repeatable, tell
from tests.stack import prepared, running_stack

_ROUND = 50


@click.command()
@click.option("--kills", default=500, show_default=True, help="How many workers are killed.")
@click.option("--seed", default=1, show_default=True, help="Of the first round.")
@click.option("--charge-points", default=60, show_default=True, help="Of the simulated fleet.")
def main(kills: int, seed: int, charge_points: int) -> None:
    """Kill workers at random moments under load; the result must be the oracle's."""
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder) / "stack") as stack:
        reports: list[Report] = []
        left = kills
        while left:
            of_round = min(left, _ROUND)
            this = seed + len(reports)
            settings = replace(
                prepared(stack.settings),
                batch_records=200,
                batch_wait_s=0.05,
                session_timeout_s=2.0,
                snapshot_interval_s=3_600.0 if len(reports) % 3 == 2 else 1.0,
            )
            with repeatable(this, f"python -m tests.faults.run --kills {of_round} --seed {this}"):
                reports.append(
                    kill_workers(settings, Path(folder) / str(this), this, of_round, charge_points=charge_points)
                )
            tell(reports[-1])
            left -= of_round
    tell(
        f"{sum(r.kills for r in reports)} kills in {len(reports)} rounds, "
        f"{sum(r.seconds for r in reports):.0f} s: equal to the oracle"
    )


if __name__ == "__main__":
    main()

"""The long run, `python -m tests.faults.run --kills 500 --seed 7 [--kafka]`: prints a table; exit 1 on a difference.

Kills come in rounds of at most 50, each with a log of its own (seed, seed + 1, …) held against its own oracle; every
third round runs without snapshots.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from tests.faults.campaign import HEADER, Report, campaign
from tests.faults.rig import repeatable, tell
from tests.stack import prepared, running_stack

_ROUND = 50


@click.command()
@click.option("--kills", default=500, show_default=True, help="Of workers, store, billing job (and Apache Kafka).")
@click.option("--seed", default=1, show_default=True, help="Of the first round.")
@click.option("--charge-points", default=60, show_default=True, help="Of the simulated fleet.")
@click.option("--kafka", is_flag=True, help="On Apache Kafka, which is killed too, instead of the embedded broker.")
def main(kills: int, seed: int, charge_points: int, kafka: bool) -> None:
    """Kill at random moments under load; the result must be the oracle's."""
    reports: list[Report] = []
    folder = Path(tempfile.mkdtemp(prefix="wattrate-kills-"))  # stays, with what the workers said, after a failure
    tell(f"logs are in {folder}")
    with running_stack(folder / "stack", kafka=kafka) as stack:
        while (left := kills - sum(report.kills for report in reports)) > 0:
            of_round, this = min(left, _ROUND), seed + len(reports)
            settings = replace(
                prepared(stack.settings),
                batch_records=200,
                batch_wait_s=0.05,
                session_timeout_s=2.0,
                kafka_timeout_s=60.0,
                snapshot_interval_s=3_600.0 if len(reports) % 3 == 2 else 1.0,
            )
            again = f"python -m tests.faults.run --kills {of_round} --seed {this}{' --kafka' if kafka else ''}"
            with repeatable(this, again):
                reports.append(campaign(stack, settings, folder / str(this), this, of_round, charge_points))
            tell(reports[-1].row(), dict(reports[-1].said), f"came back {reports[-1].came_back}")
    shutil.rmtree(folder)
    tell(HEADER)
    for report in reports:
        tell(report.row())
    tell(
        f"{sum(r.kills for r in reports)} kills in {len(reports)} rounds, "
        f"{sum(r.seconds for r in reports):.0f} s: equal to the oracle, every CDR booked once"
    )


if __name__ == "__main__":
    main()

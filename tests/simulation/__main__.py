"""`python -m tests.simulation --seeds 2000 --from 1`, or `--seed N` to repeat one. Exit code 1 where one fails."""

import sys
import time

import click

from tests.simulation.mutants import MUTANTS
from tests.simulation.runs import CORES, Ran, run_all


@click.command()
@click.option("--seed", type=int, help="Repeat one run.")
@click.option("--seeds", default=1000, show_default=True, help="How many runs.")
@click.option("--from", "first", default=1, show_default=True, help="Seed of the first.")
@click.option("--workers", default=CORES, show_default="a core each", help="Processes that run seeds.")
@click.option("--mutant", type=click.Choice(sorted(MUTANTS)), help="Run a broken protocol: it should be caught.")
@click.option("--keep-going", is_flag=True, help="Run all seeds, whatever fails.")
def main(seed: int | None, seeds: int, first: int, workers: int, mutant: str | None, keep_going: bool) -> None:
    """Rate simulated logs with the worker's own code, under faults, and hold the ledger to its invariants."""
    chosen = [seed] if seed is not None else list(range(first, first + seeds))
    began_s = time.monotonic()
    runs: list[Ran] = []
    for ran in run_all(chosen, mutant or "", workers):
        runs.append(ran)
        if ran.failed:
            notes = ran.notes if seed is not None else ran.notes[-1:]
            click.echo("\n".join([f"seed {ran.seed}: {ran.failed}", *notes]))
            if not keep_going:
                break
    click.echo(told(runs, time.monotonic() - began_s))
    sys.exit(1 if any(ran.failed for ran in runs) else 0)


def told(runs: list[Ran], seconds: float) -> str:
    """The report of many runs."""
    whole = [ran.told for ran in runs if not ran.failed]
    return (
        f"{len(runs)} seeds, {len(runs) - len(whole)} failed; {sum(t.steps for t in whole):,} steps, "
        f"{sum(t.checked for t in whole):,} landings checked, "
        f"{sum(t.drops for t in whole):,} times snapshots dropped, {sum(t.kills for t in whole):,} kills, "
        f"{sum(t.faults for t in whole):,} other faults, {sum(len(t.exits) for t in whole):,} workers that left and "
        f"joined again; {seconds:.0f} s, {1000 * sum(ran.cpu_s for ran in runs) / max(1, len(runs)):.0f} ms CPU a seed"
    )


if __name__ == "__main__":
    main()

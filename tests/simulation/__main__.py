"""`python -m tests.simulation --seeds 2000 --from 1`, or `--seed N` to repeat one. Exit code 1 where one fails."""

import logging
import sys
import time

import click

from pipeline.rate.warm import compile_all
from tests.simulation.mutants import MUTANTS
from tests.simulation.world import Told, World


@click.command()
@click.option("--seed", type=int, help="Repeat one run.")
@click.option("--seeds", default=1000, show_default=True, help="How many runs.")
@click.option("--from", "first", default=1, show_default=True, help="Seed of the first.")
@click.option("--mutant", type=click.Choice(sorted(MUTANTS)), help="Run a broken protocol: it should be caught.")
@click.option("--keep-going", is_flag=True, help="Run all seeds, whatever fails.")
def main(seed: int | None, seeds: int, first: int, mutant: str | None, keep_going: bool) -> None:
    """Rate simulated logs with the worker's own code, under faults, and hold the ledger to its invariants."""
    quiet()
    compile_all()
    broken = MUTANTS[mutant] if mutant else None
    chosen = [seed] if seed is not None else list(range(first, first + seeds))
    began, cpu = time.monotonic(), time.process_time()
    runs, failed = [], 0
    for number in chosen:
        try:
            runs.append(World(number, broken).run())
        except AssertionError as error:
            failed += 1
            notes = getattr(error, "__notes__", [])
            click.echo("\n".join([f"seed {number}: {error}", *(notes if seed is not None else notes[-1:])]))
            if not keep_going:
                break
    click.echo(told(runs, failed, time.monotonic() - began, time.process_time() - cpu))
    sys.exit(1 if failed else 0)


def told(runs: list[Told], failed: int, seconds: float, cpu_s: float) -> str:
    """The report of many runs."""
    count = len(runs) + failed
    return (
        f"{count} seeds, {failed} failed; {sum(r.steps for r in runs):,} steps, {sum(r.checked for r in runs):,} "
        f"landings checked, {sum(r.kills for r in runs):,} kills, {sum(r.faults for r in runs):,} other faults, "
        f"{sum(len(r.exits) for r in runs):,} workers that left and joined again; {seconds:.0f} s, "
        f"{1000 * cpu_s / max(1, count):.0f} ms CPU a seed"
    )


def quiet() -> None:
    """What workers say of faults is not of interest here."""
    logging.disable(logging.CRITICAL)


if __name__ == "__main__":
    main()

"""Every crash point of the commit path, or a seeded sample: `python -m tests.faults.crash_points --all`.

Prints a table: how the call was struck, how many calls were, and how many rows readers would miss or see twice. Exit
code 1 where there is any. One point alone: `--point store:disk_full:117`.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from tests.faults.crashes import ACTIONS, Bed, Outcome, Point
from tests.faults.interpose import Action
from tests.faults.rig import tell

Results = dict[Point, Outcome]


def chosen(points: list[Point], sample: int, seed: int) -> list[Point]:
    """As many of each kind of strike as `sample` says, spread at random; all in random order."""
    rng = random.Random(seed)
    by_kind: dict[tuple[str, Action], list[Point]] = {}
    for point in points:
        by_kind.setdefault((point.target, point.action), []).append(point)
    found = [point for of_kind in by_kind.values() for point in rng.sample(of_kind, min(sample, len(of_kind)))]
    rng.shuffle(found)
    return found


def table(results: Results) -> str:
    """Markdown."""
    lines = [
        "| struck | runs | fired | worker exits and comes back | rows lost | rows repeated |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for target, actions in ACTIONS.items():
        for action in actions:
            of = [one for point, one in results.items() if (point.target, point.action) == (target, action)]
            if of:
                again = sum(7 in one.exits for one in of)
                sums = [sum(getattr(one, name) for one in of) for name in ("fired", "lost", "repeated")]
                lines.append(f"| {target} {action.told} | {len(of)} | {sums[0]} | {again} | {sums[1]} | {sums[2]} |")
    return "\n".join(lines)


def strike(bed: Bed, points: list[Point], *, until_s: float = float("inf")) -> Results:
    """Run the points, telling each that loses or repeats rows at once; no more after the time `until_s`."""
    results: Results = {}
    for number, point in enumerate(points, 1):
        if time.monotonic() > until_s:
            tell(f"{len(points) - len(results)} points are left for want of time")
            break
        results[point] = one = bed.run(point)
        if one.bad:
            tell(f"{point} at {one.struck}: {one.lost} lost, {one.repeated} repeated of {one.rows}; exits {one.exits}")
        if not number % 50:
            tell(f"{number} of {len(points)}: {sum(r.fired for r in results.values())} fired")
    return results


def by_name(text: str) -> Point:
    """`store:disk_full:117` as a point."""
    target, action, call = text.split(":")
    return Point(target, Action[action.upper()], int(call))


@click.command()
@click.option("--all", "every", is_flag=True, help="Every call, struck in every way (hours).")
@click.option("--batches", default=2, show_default=True, help="That the workload is rated in.")
@click.option("--sample", default=10, show_default=True, help="Calls of each kind of strike.")
@click.option("--seed", default=1, show_default=True, help="Of the workload and of the sample.")
@click.option("--shard", default="1/1", show_default=True, metavar="N/OF", help="Only every OFth point, from the Nth.")
@click.option("--minutes", type=float, help="No new point after so long.")
@click.option("--point", "one", help="This point alone, with what the workers said.")
def main(every: bool, batches: int, sample: int, seed: int, shard: str, minutes: float | None, one: str | None) -> None:
    """Strike calls of the store and of the worker; what readers see must be the undisturbed run's."""
    began = time.monotonic()
    number, of = map(int, shard.split("/"))
    port = 41_500 + 50 * number  # free between two runs: another shard must not take it then
    with tempfile.TemporaryDirectory() as folder, Bed(Path(folder), seed=seed, batches=batches, port=port) as bed:
        if one is not None:
            tell(bed.run(by_name(one)), "\n" + bed.log())
            return
        for target, kinds in bed.calls.items():
            tell(f"{target}: {len(kinds)} calls, {dict(Counter(kinds).most_common())}")
        tell(f"{bed.rows} rows that readers see; seed {seed}")
        points = chosen(bed.points(), len(bed.points()) if every else sample, seed)[number - 1 :: of]
        until_s = began + 60 * minutes if minutes else float("inf")
        results = strike(bed, points, until_s=until_s)
    tell(table(results))
    tell(f"{len(results)} runs, {time.monotonic() - began:.0f} s")
    sys.exit(any(outcome.bad for outcome in results.values()))


if __name__ == "__main__":
    main()

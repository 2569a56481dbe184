"""Every crash point of the commit path, or a seeded sample: `python -m tests.faults.crash_points --all --jobs 4`.

Prints two tables, by how the calls were struck and by what they were: how many, and how many rows readers would miss or
see twice. Exit code 1 where there is any. One point alone: `--point store:disk_full:117`. With `--into FOLDER` what
each run came to is noted there at once, with data and logs of those that are bad; begun again, it goes on.
"""

import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Final

import click

from pipeline.embedded.processes import die_with_parent
from tests.faults.crashes import ACTIONS, Bed, Outcome, Point, points_of
from tests.faults.interpose import Action
from tests.faults.rig import tell

Results = dict[Point, Outcome]
_OUTCOMES: Final = "outcomes.jsonl"
_ATTEMPTS: Final = 2  # of a run that does not end, or is over before the call: the machine may be busy
_bed: Callable[[], Bed]  # of a process of the pool


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
    """By how the calls were struck, as Markdown."""
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


def table_of_calls(results: Results) -> str:
    """By what the calls were that were struck, as Markdown."""
    actions = list(Action)[:5]
    lines = [
        f"| faults fired at | {' | '.join(action.name.lower().replace('_', ' ') for action in actions)} |",
        f"| --- {'| --- ' * len(actions)}|",
    ]
    fired = Counter((point.target, one.call, point.action) for point, one in results.items() if one.fired)
    for target, call in sorted({(target, call) for target, call, _ in fired}):
        counts = " | ".join(str(fired[target, call, action]) for action in actions)
        lines.append(f"| {target} {call} | {counts} |")
    return "\n".join(lines)


def strike(bed: Bed, points: list[Point]) -> Results:
    """Run the points one by one, telling each that loses or repeats rows at once."""
    results: Results = {}
    for point in points:
        results[point] = bed.run(point)
        _tell_bad(point, results[point])
    return results


def _tell_bad(point: Point, one: Outcome) -> None:
    if one.bad:
        tell(f"{point} at {one.struck}: {one.lost} lost, {one.repeated} repeated of {one.rows}; exits {one.exits}")


def by_name(text: str) -> Point:
    """`store:disk_full:117` as a point."""
    target, action, call = text.split(":")
    return Point(target, Action[action.upper()], int(call))


class Notes:
    """What each run came to, in a file; of one commit and one workload."""

    def __init__(self, folder: Path, seed: int, batches: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._path = folder, folder / _OUTCOMES
        head = {"commit": _commit(), "seed": seed, "batches": batches}
        if not self._path.exists():
            self._add(head)
        first, *rest = map(json.loads, self._path.read_text().splitlines())
        if first != head:
            raise click.ClickException(f"{self._path} is of {first}, not of {head}: name another folder")
        self.results = {by_name(one.pop("point")): Outcome(**one) for one in rest}

    def add(self, point: Point, one: Outcome) -> None:
        """Note a run that has ended."""
        self.results[point] = one
        self._add({"point": str(point), **asdict(one)})

    def _add(self, entry: dict[str, object]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _begin(folder: Path, seed: int, batches: int) -> None:
    """This process has a bed from its first run on until it ends."""
    global _bed
    die_with_parent()
    _bed = cache(lambda: Bed(Path(tempfile.mkdtemp(dir=folder)), seed=seed, batches=batches))


def _calls() -> tuple[dict[str, list[str]], int]:
    return _bed().calls, _bed().rows


def _strike(point: Point, bad: Path) -> Outcome:
    one = _bed().run(point)
    if one.bad:
        _bed().keep(bad / str(point))
    return one


def side_by_side(pool: ProcessPoolExecutor, points: list[Point], notes: Notes, until_s: float) -> Iterator[Point]:
    """Run the points on the pool's beds and note them; those that did not end, or came too late, are given back."""
    asked = {pool.submit(_strike, point, notes.folder / "bad"): point for point in points}
    for number, done in enumerate(as_completed(asked), 1):
        if done.cancelled():
            continue
        point, error = asked[done], done.exception()
        if error is None:
            notes.add(point, done.result())
            _tell_bad(point, done.result())
            if not done.result().fired:
                yield point
        elif isinstance(error, AssertionError):
            tell(f"{point} did not end: {error}")
            yield point
        else:
            raise error
        if not number % 20:
            fired = sum(one.fired for one in notes.results.values())
            tell(f"{time.strftime('%H:%M:%S')} {number} of {len(points)}: {len(notes.results)} runs, {fired} fired")
        if time.monotonic() > until_s:
            for future in asked:
                future.cancel()


@click.command()
@click.option("--all", "every", is_flag=True, help="Every call, struck in every way (hours).")
@click.option("--batches", default=2, show_default=True, help="That the workload is rated in.")
@click.option("--sample", default=10, show_default=True, help="Calls of each kind of strike.")
@click.option("--seed", default=1, show_default=True, help="Of the workload and of the sample.")
@click.option("--jobs", default=2, show_default=True, help="Runs side by side; they mostly wait.")
@click.option("--minutes", type=float, help="No new point after so long.")
@click.option("--into", type=click.Path(path_type=Path), help="Where runs are noted; begun again it goes on.")
@click.option("--point", "one", help="This point alone, with what the workers said.")
def main(
    every: bool, batches: int, sample: int, seed: int, jobs: int, minutes: float | None, into: Path | None,
    one: str | None,
) -> None:  # fmt: skip
    """Strike calls of the store and of the worker; what readers see must be the undisturbed run's."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if one is not None:
            with Bed(Path(folder), seed=seed, batches=batches) as bed:
                tell(bed.run(by_name(one)), "\n" + bed.log())
            return
        notes = Notes(into or Path(tempfile.mkdtemp(prefix="wattrate-crashes-")), seed, batches)
        tell(f"runs are noted in {notes.folder}")
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context, _begin, (Path(folder), seed, batches)) as pool:
            points = _points(pool, seed, None if every else sample)
            until_s = began + 60 * minutes if minutes else float("inf")
            left = [point for point in points if point not in notes.results or not notes.results[point].fired]
            for _ in range(_ATTEMPTS):
                left = list(side_by_side(pool, left, notes, until_s))
    results = notes.results
    tell(table(results) + "\n\n" + table_of_calls(results))
    stuck = [str(point) for point in points if point not in results]
    tell(f"{len(results)} of {len(points)} points, {time.monotonic() - began:.0f} s; without a result: {stuck}")
    sys.exit(bool(stuck) or any(outcome.bad for outcome in results.values()))


def _points(pool: ProcessPoolExecutor, seed: int, sample: int | None) -> list[Point]:
    """What is to be struck; every call where no sample is asked for."""
    calls, rows = pool.submit(_calls).result()
    for target, kinds in calls.items():
        tell(f"{target}: {len(kinds)} calls, {dict(Counter(kinds).most_common())}")
    tell(f"{rows} rows that readers see; seed {seed}")
    points = points_of(calls)
    return chosen(points, sample or len(points), seed)


if __name__ == "__main__":
    main()

"""The same log gives the same rows however it is cut into batches, on fleets with every fault."""

import random
from functools import cache
from typing import Any

import pytest

from pipeline.reference import Change
from pipeline.simulate.faults import FAULTS
from pipeline.simulate.fleet import Fleet, FleetPlan
from tests.pipeline.rate.drive import Drive, Log, fleet_changes, fleet_log

FAULTY = {name: 0.02 if fault.scope == "session" else 0.08 for name, fault in FAULTS.items()}
Rows = dict[str, list[tuple[Any, ...]]]


@cache
def faulty(charge_points: int, seed: int) -> tuple[Log, list[Change], list[dict[str, Any]]]:
    """A fleet's log, its reference data and the truth."""
    plan = FleetPlan(
        seed=seed, charge_points=charge_points, hours=8, faults=FAULTY, partitions=2, sample_ms=300_000,
        sessions_per_day=6, tick_ms=900_000,
    )  # fmt: skip
    fleet = Fleet(plan)
    log, truth = fleet_log(fleet)
    return log, fleet_changes(fleet), truth


def mixed(log: Log, chance: random.Random, reach: int) -> Log:
    """The same records, some of them twice, each up to about `reach` places away from its own; the first stays."""
    found: Log = {}
    for partition, (first, *records) in log.items():
        records += chance.sample(records, len(records) // 20)
        places = [(at + chance.uniform(0, reach), record) for at, record in enumerate(records)]
        found[partition] = [first, *(record for _, record in sorted(places, key=lambda place: place[0]))]
    return found


def rows_of(charge_points: int, seed: int, size: int, reach: int = 0) -> Rows:
    """Every row of every table, sorted, in batches of `size` records, which arrive up to `reach` places away."""
    log, published, _ = faulty(charge_points, seed)
    if reach:
        log = mixed(log, random.Random(seed), reach)
    drive = Drive(published, 2).keep_rows().run(log, size)
    assert drive.rows is not None
    return {name: sorted(map(_flat, rows)) for name, rows in drive.rows.items()}


def _flat(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(repr(value) for value in row.values())


@pytest.mark.parametrize(("charge_points", "seed", "size"), [(3, 5, 1), (40, 6, 7), (40, 6, 1000), (80, 11, 301)])
def test_rows_do_not_depend_on_batches(charge_points: int, seed: int, size: int) -> None:
    whole, cut = rows_of(charge_points, seed, 0), rows_of(charge_points, seed, size)
    for name, rows in whole.items():
        assert cut[name] == rows, name
    assert len(whole) == 6


@pytest.mark.parametrize(("charge_points", "seed", "size"), [(40, 11, 7), (40, 23, 97), (12, 31, 1)])
def test_rows_of_any_order_do_not_depend_on_batches(charge_points: int, seed: int, size: int) -> None:
    """Stops before starts, ticks that go back: what is remembered of them ends at its place in the log."""
    whole, cut = (rows_of(charge_points, seed, each, 1_000_000) for each in (0, size))
    for name, rows in whole.items():
        assert cut[name] == rows, name


def test_row_identities_are_unique() -> None:
    log, published, _ = faulty(40, 6)
    drive = Drive(published, 2).keep_rows().run(log, 100)
    assert drive.rows is not None
    for name, rows in drive.rows.items():
        if name == "dead_letter_rows":
            continue
        identities = [(row["partition"], row["offset"], row["line"]) for row in rows]
        assert len(identities) == len(set(identities)), name

"""Seeds of the simulation, few enough for CI; `python -m tests.simulation --seeds 5000` runs more."""

import pytest
from click.testing import CliRunner

from pipeline.ledger import ROW_TABLES
from pipeline.rate.engine import Engine
from pipeline.rate.snapshot import restore, take
from pipeline.rate.tables import tables_of
from tests.pipeline.rate.memory import MemoryLedger
from tests.simulation.__main__ import main
from tests.simulation.mutants import MUTANTS, caught
from tests.simulation.runs import run_all
from tests.simulation.store import identity, rows_of
from tests.simulation.workload import LOG_ID, PARTITIONS, Rows, Workload, records_of, without_claim, workload
from tests.simulation.world import World

SEEDS = 300
LOGS = range(0, 64, 8)


def test_the_protocol_holds_at_every_step_of_these_seeds() -> None:
    failed = [f"seed {ran.seed}: {ran.failed}\n{ran.notes}" for ran in run_all(range(1, SEEDS + 1)) if ran.failed]
    assert not failed, "\n".join(failed)


def test_seeds_are_the_same_runs_in_any_number_of_processes() -> None:
    alone, shared = (
        [(ran.told, ran.failed) for ran in run_all(range(1, 13), "commit before rows", workers)] for workers in (1, 2)
    )
    assert alone == shared
    assert any(failed for _, failed in alone)


def test_the_command_says_how_to_repeat_what_failed() -> None:
    said = CliRunner().invoke(main, ["--seeds", "200", "--workers", "1", "--mutant", "group offset before the marker"])
    assert said.exit_code == 1
    assert "again: python -m tests.simulation --seed" in said.output


def test_a_seed_is_one_run() -> None:
    one, again = World(7), World(7)
    assert (one.run(), list(one.schedule.trace)) == (again.run(), list(again.schedule.trace))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_protocol_is_caught(name: str) -> None:
    found: list[str] = []
    assert caught(MUTANTS[name], range(1, 200), lambda seed, text: found.append(f"seed {seed}: {text}"))
    assert found


def in_batches(given: Workload, size: int, *, restored: bool) -> Rows:
    """The rows of a log in batches of `size` records, a new engine from a snapshot after each if `restored`."""
    ledger = MemoryLedger()
    engine = Engine(PARTITIONS, ledger, given.load)
    rows: Rows = {name: {} for name in ROW_TABLES}
    for partition, records in given.log.items():
        for first in range(0, len(records), size):
            chunk = records[first : first + size]
            batch = engine.process({partition: records_of(chunk, first)}, given.refused)
            ledger.add(batch, engine)
            tables = tables_of(batch, engine.directory, engine.sheets, LOG_ID, {0: 1, 1: 1})
            for name, found in rows.items():
                found.update({identity(row): without_claim(row) for row in rows_of(tables[name])})
            if restored:
                snapshot = take(engine, partition, first + len(chunk) - 1, 1, 0)
                engine = Engine(PARTITIONS, ledger, given.load)
                restore(engine, snapshot.packed())
    return rows


@pytest.mark.parametrize("number", LOGS)
def test_the_simulated_logs_give_the_same_rows_in_any_batches_and_after_any_restart(number: int) -> None:
    given = workload(number)
    assert in_batches(given, 1, restored=False) == given.rows
    assert in_batches(given, 3, restored=True) == given.rows

"""Control totals of registers over a fleet with every fault, decided holds among them: seen to hold, and to break."""

from collections.abc import Iterator, Mapping, Sequence

import pytest

from pipeline.clickhouse import Store
from pipeline.embedded.stack import Stack
from pipeline.metering import kinds
from pipeline.rate.batch import Batch
from pipeline.rate.tables import tables_of
from pipeline.read.checks import OK, Scope
from pipeline.read.verify_registers import as_told, balance, between_sessions, energy_of_readings, register_checks
from pipeline.simulate.fleet import Fleet, FleetPlan
from tests.pipeline.rate.drive import Drive, Record, fleet_changes, fleet_log
from tests.pipeline.rate.test_batches import FAULTY
from tests.pipeline.rate.test_totals import decisions
from tests.pipeline.rate.totals import accounts
from tests.stack import prepared

LOG_ID = 1


class Stored(Drive):
    """A drive whose rows go to the store, where they count."""

    store: Store

    def take(self, records: Mapping[int, Sequence[Record]]) -> Batch:
        batch = super().take(records)
        claims = dict.fromkeys(range(len(self.engine.directory.roster)), 1)
        for name, table in tables_of(batch, self.engine.directory, self.engine.sheets, LOG_ID, claims).items():
            if len(table):
                self.store.insert(name, table)
        return batch


@pytest.fixture(scope="module")
def lying(stack: Stack) -> Iterator[Stored]:
    plan = FleetPlan(
        seed=3, charge_points=60, hours=36, faults=FAULTY, partitions=2, sample_ms=300_000, sessions_per_day=6,
        tick_ms=900_000,
    )  # fmt: skip
    fleet = Fleet(plan)
    log, _ = fleet_log(fleet)
    settings = prepared(stack.settings)
    drive = Stored(fleet_changes(fleet), 2)
    drive.keep_rows()
    with Store(settings) as drive.store:
        drive.run(log, 2000)
        drive.take(decisions(drive))
        for partition in range(2):
            drive.store.command(
                "INSERT INTO claim_rows (log_id, partition, claim, first_offset, member) "
                f"VALUES ({LOG_ID}, {partition}, 1, 0, 'test')"
            )
            drive.store.command(
                "INSERT INTO marker_rows (log_id, partition, claim, first_offset, last_offset) "
                f"VALUES ({LOG_ID}, {partition}, 1, 0, 1000000000)"
            )
        yield drive


def test_they_hold_for_every_session_of_a_lying_fleet(lying: Stored) -> None:
    assert lying.rows is not None
    told = accounts(lying.rows)
    assert [account for account in told if account.missing] == []
    checks = {check.name: check for check in register_checks(lying.store, Scope())}
    assert {name: check.places for name, check in checks.items() if check.state != OK} == {}
    assert checks["register_balance"].compared == len(told)
    assert min(check.compared for check in checks.values()) > len(told) // 2
    text = checks["register_balance"].text
    assert all(f" {sum(getattr(a, part) for a in told) / 1e6:.9g} {part}" in text for part in ("held", "rejected"))


HELD = (
    "SELECT session_key FROM quarantine_rows GROUP BY session_key "
    "HAVING argMax((toString(action), held_mwh > 0), (offset, line)) = ('{}', true)"
)
# What somebody does to a row, by the check that says so. Sessions that are declared to be odd are no exception.
FLAGGED = "SELECT session_key FROM cdr_rows WHERE bitAnd(flags, {}) != 0 AND isNotNull(first_mwh) ORDER BY session_key"
COOKED = {
    "a reset": (balance, "cdr_rows", "energy_mwh", FLAGGED.format(kinds.SESSION_RESET)),
    "a rollover": (balance, "cdr_rows", "unexplained_mwh", FLAGGED.format(kinds.SESSION_ROLLOVER)),
    "a relative register": (balance, "cdr_rows", "last_mwh", FLAGGED.format(kinds.SESSION_RELATIVE)),
    "what came late": (
        balance, "cdr_rows", "first_mwh", "SELECT session_key FROM cdr_rows WHERE session_key IN "
        "(SELECT session_key FROM reading_rows WHERE verdict = 'late')",
    ),
    "what is held": (balance, "quarantine_rows", "held_mwh", HELD.format("held")),
    "what was rejected": (balance, "cdr_rows", "held_mwh", HELD.format("rejected")),
    "what was released": (balance, "cdr_rows", "energy_mwh", HELD.format("released")),
    "a register told": (
        as_told, "reading_rows", "register_mwh", "SELECT session_key FROM reading_rows "
        "WHERE verdict = 'first' AND session_key IN (SELECT session_key FROM cdr_rows)",
    ),
    "another register run": (
        between_sessions, "reading_rows", "energy_mwh", "SELECT session_key FROM reading_rows "
        "WHERE disposition = 'unexplained' AND verdict = 'first' ORDER BY session_key",
    ),
    "rated usage": (
        energy_of_readings, "rated_usage_rows", "quantity", "SELECT session_key FROM rated_usage_rows "
        "WHERE session_key NOT IN (SELECT session_key FROM quarantine_rows)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", COOKED)
def test_a_milliwatt_hour_that_was_cooked_is_found(lying: Stored, what: str) -> None:
    look, table, column, chosen = COOKED[what]
    [(key,)] = [tuple(row.values()) for row in lying.store.rows(f"{chosen} LIMIT 1")]
    more = "" if table != "reading_rows" else " AND verdict = 'first'"
    change = f"ALTER TABLE {table} UPDATE {column} = {column} {{}} 1 WHERE session_key = {key}{more}"
    lying.store.command(change.format("+"), {"mutations_sync": "2"})
    broken = look(lying.store, Scope())
    lying.store.command(change.format("-"), {"mutations_sync": "2"})
    assert broken.wrong == 1
    [place] = broken.places
    assert place.get("session", f"{key:016x}") == f"{key:016x}"

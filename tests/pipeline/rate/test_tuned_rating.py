"""Thresholds of a model or location act on its connectors alone, from their place in the log, in any batch."""

from typing import Any

import pytest

from pipeline.rate.snapshot import restore, take
from pipeline.reference import Change
from tests.pipeline.metering.charger import NAME, Charger, location
from tests.pipeline.rate.drive import Drive, changes
from tests.pipeline.rate.test_policies import policy

KWH = 1_000_000


def moved(version: int, **evse: Any) -> list[Change]:
    """The charge point's location published again."""
    return changes({"locations": [location(**evse)]}, version)


def stuck(box: Charger, begin: float = 0, txn: int = 7) -> Charger:
    """7 kW are told for an hour while the register stands still: 7 kWh."""
    box.start(begin, 1000, txn=str(txn)).value(begin + 4, 1500, power=7000, txn=txn)
    for minute in range(10, 70, 10):
        box.value(begin + minute, 1500, power=7000, txn=txn)
    return box.stop(begin + 70, 1500, txn=txn)


def held(box: Charger, size: int = 0) -> int:
    """How many sessions wait."""
    return len(box.rated(size).held)


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize(
    ("entry", "holds"),
    [
        ({"model": "AC 22", "stuck_mwh": 100 * KWH}, 0),
        ({"location": "L", "stuck_mwh": 100 * KWH}, 0),
        ({"kind": "stuck_register", "model": "AC 22", "location": "L", "stuck_mwh": 100 * KWH}, 0),
        ({"model": "DC 50", "stuck_mwh": 100 * KWH}, 1),
        ({"location": "L2", "stuck_mwh": 100 * KWH}, 1),
        ({"model": "AC 22", "holds": []}, 0),
    ],
)
def test_an_entry_is_about_its_model_and_location_alone(entry: dict[str, object], holds: int, size: int) -> None:
    box = stuck(Charger(model="AC 22").policy(0, 2, policy(2, tune=[entry])))
    assert held(box, size) == holds


@pytest.mark.parametrize("size", [0, 1, 4])
def test_an_entry_holds_from_its_place_in_the_log_until_the_next_policy(size: int) -> None:
    box = stuck(Charger(model="AC 22"), 1, 1).policy(
        80, 2, policy(2, tune=[{"model": "AC 22", "stuck_mwh": 100 * KWH}])
    )
    stuck(box, 90, 2).policy(170, 3, policy(3))
    said = stuck(box, 180, 3).rated(size)
    assert [alert.time_ms for alert in said.ledger.alerts if alert.kind == "stuck_register"] == [
        alert.time_ms for alert in box.rated().ledger.alerts if alert.kind == "stuck_register"
    ]
    assert (len(said.held), len(said.bills)) == (2, 1)


@pytest.mark.parametrize("size", [0, 1, 4])
def test_what_a_connector_is_follows_the_reference_data_in_use(size: int) -> None:
    tune = [{"model": "DC 50", "stuck_mwh": 100 * KWH}]
    box = stuck(Charger(model="AC 22").policy(0, 2, policy(2, tune=tune)), 1, 1)
    stuck(box.publish(80, 3, *moved(3, model="DC 50")), 90, 2)
    assert held(box, size) == 1
    assert held(stuck(box.publish(170, 4, *moved(4, model="AC 22")), 180, 3), size) == 2


@pytest.mark.parametrize("size", [0, 1])
def test_a_session_that_is_metered_again_is_judged_by_its_own_limits(size: int) -> None:
    tune = [{"model": "AC 22", "stuck_mwh": 100 * KWH}]
    box = stuck(Charger(model="AC 22").policy(0, 2, policy(2, tune=tune)))
    assert held(box.value(35, 1500, power=7000, late=60), size) == 0
    assert "stuck_register" not in box.rated(size).alerts
    strict = stuck(
        Charger(model="AC 22").policy(0, 2, policy(2, stuck_mwh=100 * KWH, tune=[{"model": "AC 22", "stuck_mwh": KWH}]))
    )
    assert held(strict.value(35, 1500, power=7000, late=60), size) == 1


def test_a_snapshot_keeps_no_numbers_of_another_worker_and_the_same_limits_hold() -> None:
    """What is number 1 here is number 2 there."""
    tune = [{"model": "AC 22", "stuck_mwh": 100 * KWH}, {"model": "DC 50", "stuck_mwh": 2 * KWH}]
    box = stuck(Charger(model="AC 22").policy(0, 2, policy(2, tune=tune)))
    drive = Drive(box.reference)
    for offset, record in enumerate(box.records):
        if offset > 2:  # reference data and policy are in use
            taken = take(drive.engine, 0, offset - 1, 1, 0)
            assert not taken.arrays["connectors"]["limits"].any()
            other = Drive(box.reference, ledger=drive.ledger)
            other._next = drive._next
            restore(other.engine, taken.packed())
            other.engine.rules(0).limits.numbers([("DC 50", "")])  # asked for first there
            drive = other
        drive.take({0: [record]})
    row = drive.engine.directory.find(NAME, 1)
    assert drive.engine.directory.state.connectors["limits"][row] == 2
    assert not [alert for alert in drive.ledger.alerts if alert.kind == "stuck_register"]
    assert [cdr.columns["energy_mwh"] for cdr in drive.ledger.cdrs] == [KWH // 2]


def test_a_charge_point_that_nobody_knows_is_judged_by_the_networks_limits() -> None:
    tune = [{"model": "AC 22", "stuck_mwh": 100 * KWH}, {"location": "L", "stuck_mwh": 100 * KWH}]
    box = Charger(name="CP9", model="AC 22").policy(0, 2, policy(2, tune=tune))
    assert "stuck_register" in stuck(box).rated().alerts


@pytest.mark.parametrize("alarm", [8_000, 100_000])
def test_how_soon_a_meter_is_said_to_drift_is_a_threshold_like_others(alarm: int) -> None:
    tune = [{"kind": "meter_drift", "model": "AC 22", "meter_drift_alarm_permille": alarm}]
    box = Charger(model="AC 22").policy(0, 2, policy(2, tune=tune))
    for day in range(30):
        share = 1.0 if day < 15 else 0.7
        box.start(1440 * day, 1000, txn=str(day))
        for minute in range(5, 65, 5):
            box.value(1440 * day + minute, 1000 + round(minute * 100 * share), power=6000, txn=day)
        box.stop(1440 * day + 65, 1000 + round(6500 * share), txn=day)
    assert ("meter_drift" in box.rated().alerts) == (alarm == 8_000)

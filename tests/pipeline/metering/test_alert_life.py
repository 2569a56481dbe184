"""How alerts of one connector go on and end: the steps under one id, as the log tells them."""

from collections.abc import Callable

import pytest

from pipeline.codec.control import Mute
from pipeline.rate.snapshot import restore, take
from tests.pipeline.metering.charger import MINUTE_MS, Charger, Said, at
from tests.pipeline.rate.drive import Drive, control


def life(said: Said, kind: str) -> list[str]:
    """The actions of the one alert of a kind."""
    rows = [alert for alert in said.ledger.alerts if alert.kind == kind]
    assert len({alert.alert_id for alert in rows}) == 1
    assert len({alert.place.line for alert in rows}) == len(rows) or len({a.place.offset for a in rows}) == len(rows)
    return [alert.action for alert in rows]


@pytest.mark.parametrize("size", [0, 1])
def test_silence_is_over_when_the_charger_is_heard_again(size: int) -> None:
    box = Charger().start(0, 1000)
    for minute in range(1, 9):
        box.value(minute, 1000 + 50 * minute)
    box.tick(30).tick(50).value(60, 2000).value(61, 2050).tick(62)
    assert life(box.rated(size), "silence") == ["opened", "resolved"]


def test_silence_stays_open_while_nothing_is_heard() -> None:
    box = Charger().start(0, 1000)
    for minute in range(1, 9):
        box.value(minute, 1000 + 50 * minute)
    assert life(box.tick(30).tick(50).rated(), "silence") == ["opened"]


def test_idle_overstay_ends_when_the_car_leaves() -> None:
    box = Charger().start(0, 1000).value(10, 3000).status(11, "SuspendedEV")
    for minute in range(20, 400, 20):
        box.value(minute, 3000)
    assert life(box.rated(), "idle_overstay") == ["opened"]
    assert life(box.stop(400, 3000).rated(), "idle_overstay") == ["opened", "resolved"]


@pytest.mark.parametrize("size", [0, 3])
def test_a_run_of_sessions_without_energy_grows_and_ends_with_the_next_that_has_some(size: int) -> None:
    box = Charger()
    for n in range(7):
        box.start(10 * n, 1000, txn=str(n)).stop(10 * n + 5, 1000, txn=n)
    assert life(box.rated(size), "zero_kwh_run") == ["opened", "updated"]
    box.start(100, 1000, txn="9").value(105, 1400, txn=9).stop(110, 1800, txn=9)
    said = box.rated(size)
    assert life(said, "zero_kwh_run") == ["opened", "updated", "resolved"]
    assert [a.evidence["value"] for a in said.ledger.alerts if a.kind == "zero_kwh_run"] == [3, 6, 7]


def test_a_clock_that_drifts_is_said_once_until_it_is_right_again() -> None:
    box = Charger().start(0, 1000)
    for minute in range(1, 40):
        box.value(minute, 1000 + 50 * minute, late=3)
    assert life(box.rated(), "clock_drift") == ["opened"]
    box.value(60, 3100)
    assert life(box.rated(), "clock_drift") == ["opened", "resolved"]


def test_a_late_reading_makes_no_second_life_of_a_connectors_alert() -> None:
    box = Charger().start(0, 1000)
    for minute in range(1, 40):
        box.value(minute, 1000 + 50 * minute, late=3)
    box.value(41, 3100).value(20.5, 2020, late=21)
    assert life(box.rated(), "clock_drift") == ["opened", "resolved"]


def days(late: Callable[[float], float], count: int = 30) -> Charger:
    """A session of 15 minutes and four messages a day, told by a clock that is `late(day)` minutes behind."""
    box = Charger()
    for day in range(count):
        behind = late(day)
        for minute, tell in ((0, box.start), (5, box.value), (10, box.value), (15, box.stop)):
            tell(1440 * day + 480 + minute - behind, 1000 + 20 * minute, txn=str(day), late=behind)
    return box


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_clock_of_a_charger_that_is_seldom_heard_is_hours_wrong_before_it_is_sure(size: int) -> None:
    """Four messages a day: few come while it is less than half an hour wrong."""
    box = days(lambda day: 28 + 4.3 * day)
    assert life(box.rated(size), "clock_drift") == ["opened"]
    [alert] = [alert for alert in box.rated(size).ledger.alerts if alert.kind == "clock_drift"]
    assert int(str(alert.evidence["value"])) > 30 * MINUTE_MS


@pytest.mark.parametrize(
    ("behind", "drifts"), [(420, False), (-60, False), (-345, False), (423, True), (60 * 48, True)]
)
def test_a_clock_that_keeps_another_zone_does_not_drift(behind: float, drifts: bool) -> None:
    assert ("clock_drift" in days(lambda _: behind).rated().alerts) == drifts


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize(
    ("behind", "ends"),
    [(60, True), (-345, True), (60.5, False), (30, False)],
    ids=["1 h", "-5:45", "1 h 30 s", "30 min"],
)
def test_a_drift_that_ends_in_another_zone_is_over(behind: float, ends: bool, size: int) -> None:
    """Five days apart by 40 minutes and more, then set to local time: no drift any more, and no UTC either."""
    box = days(lambda day: 40 + 2.3 * day if day < 5 else behind, 12)
    assert life(box.rated(size), "clock_drift") == ["opened", "resolved"][: 1 + ends]


def test_a_clock_that_drifts_through_a_zone_goes_on_drifting() -> None:
    """A second a message: it is an hour behind, to two seconds, for a few messages only."""
    box = Charger().start(0, 1000)
    for minute in range(1, 240):
        box.value(minute, 1000 + 10 * minute, late=58 + minute / 60)
    assert life(box.rated(), "clock_drift") == ["opened"]


@pytest.mark.parametrize("apart_s", [0, 0.01, 2, 20])
def test_a_queue_that_empties_after_an_outage_is_no_drift(apart_s: float) -> None:
    box = Charger().start(0, 1000)
    for minute in range(1, 121):
        box.value(minute, 1000 + 50 * minute, late=121 - minute + apart_s * minute / 60)
    assert "clock_drift" not in box.rated().alerts


def test_a_snapshot_keeps_what_is_known_of_a_clock() -> None:
    box = days(lambda day: 28 + 4.3 * day)
    whole = [alert.alert_id for alert in box.rated().ledger.alerts]
    drive = Drive(box.reference)
    for offset, record in enumerate(box.records):
        drive.take({0: [record]})
        taken = take(drive.engine, 0, offset, 1, 0)
        drive.engine.drop(0)
        restore(drive.engine, taken.packed())
    assert [alert.alert_id for alert in drive.ledger.alerts] == whole


@pytest.mark.parametrize(("action", "billed"), [("release", True), ("reject", False)])
def test_a_decision_about_what_was_held_ends_the_alert_that_held_it(action: str, billed: bool) -> None:
    box = Charger().start(0, 1000)
    for minute in range(10, 130, 10):
        box.value(minute, 1000, power=7000)
    box.stop(130, 1000)
    held = box.rated()
    [key] = held.held
    assert life(held, "stuck_register") == ["opened"]
    said = box.decide(200, action, key).rated()
    assert life(said, "stuck_register") == ["opened", "resolved"]
    assert said.ledger.alerts[-1].evidence["actor"] == "anna"
    assert bool(said.bills) or not billed


def test_a_mute_stands_in_the_ledger_with_who_said_it_and_why() -> None:
    asked = Mute("L", at(0), at(60), ("silence", "stuck_register"), "anna", "new firmware", at(1))
    box = Charger().start(0, 1000)
    box.records.append(control(asked, at(1)))
    [row] = box.value(2, 1200).rated().ledger.alerts
    assert (row.kind, row.action, row.place.charge_point_id) == ("maintenance", "opened", "")
    assert row.alert_id == "maintenance-L-0-2"
    assert row.evidence == {
        "location": "L", "from_ms": at(0), "until_ms": at(60), "kinds": "silence,stuck_register", "actor": "anna",
        "note": "new firmware",
    }  # fmt: skip

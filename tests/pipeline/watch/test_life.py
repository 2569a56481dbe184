from collections.abc import Sequence
from dataclasses import replace

import pytest
from msgspec.structs import replace as replaced

from pipeline.anomaly.events import AlertEvent
from pipeline.anomaly.tuning import Override, Tuning, parse
from pipeline.errors import SettingsError
from pipeline.watch.life import AlertBook
from pipeline.watch.rules import Delivery, Mute, Rules, load_rules
from pipeline.watch.sweep import over
from pipeline.watch.watchdog import Watched
from tests.pipeline.watch.process import an_alert


def book(rules: Rules | None = None) -> AlertBook:
    return AlertBook(rules or Rules(), lambda charge_point: (f"L-{charge_point}", f"M-{charge_point}"))


def test_a_step_counts_once() -> None:
    life = book()
    assert [life.take(an_alert()), life.take(an_alert())] == ["send", "repeat"]
    assert len(life.open) == 1


def test_acknowledged_alerts_stay_open_but_are_not_repeated_and_resolved_ones_end() -> None:
    life = book()
    life.take(an_alert())
    assert len(list(life.firing())) == 1
    life.take(an_alert(action="acknowledged", offset=5))
    assert list(life.firing()) == []
    assert len(life.open) == 1
    life.take(an_alert(action="resolved", offset=6))
    assert life.open == {}


def test_the_open_set_does_not_depend_on_the_order_of_arrival() -> None:
    steps = [an_alert(), an_alert(action="updated", offset=4), an_alert(action="resolved", offset=6), an_alert(2)]
    ahead, behind = book(), book()
    for step in steps:
        ahead.take(step)
    for step in reversed(steps):
        behind.take(step)
    assert set(ahead.open) == set(behind.open) == {an_alert(2).alert_id}


def test_a_suppression_window_keeps_back_the_second_of_a_kind() -> None:
    tuning = Tuning((Override("stuck_register", "", "", {"suppress_s": 60.0}),))
    life = book(Rules(tuning=tuning))
    first = an_alert(1, charge_point_id="CP")
    second = an_alert(2, charge_point_id="CP")
    later = an_alert(90, charge_point_id="CP")
    assert [life.take(one) for one in (first, second, later)] == ["send", "suppressed", "send"]
    assert len(life.open) == 3
    assert [one.first.alert_id for one in life.firing()] == [first.alert_id, later.alert_id]
    ends = [replaced(one, action="resolved", offset=one.offset + 500) for one in (first, second, later)]
    assert [life.take(one) for one in ends] == ["send", "suppressed", "send"]
    assert life.open == {}


@pytest.mark.parametrize(("model", "verdict"), [("M-CP", "suppressed"), ("M-other", "send")])
def test_a_suppression_window_may_be_a_models_or_a_locations(model: str, verdict: str) -> None:
    tuning = parse([{"kind": "stuck_register", "model": model, "location": "L-CP", "suppress_s": 60}], "rules.toml")
    life = book(Rules(tuning=tuning))
    assert life.take(an_alert(1, charge_point_id="CP")) == "send"
    assert life.take(an_alert(2, charge_point_id="CP")) == verdict


def test_what_lies_above_a_rating_that_is_known_to_be_wrong_is_said_once() -> None:
    life = book()
    wrong = an_alert(10, kind="wrong_rating", alert_id="w", charge_point_id="CP")

    def above(second: int, charge_point: str = "CP", value: int = 20) -> AlertEvent:
        evidence = {"value": value, "threshold": 11}
        name = f"{charge_point}-{second}"
        return an_alert(
            second, kind="power_above_rating", alert_id=name, charge_point_id=charge_point, evidence=evidence
        )

    assert [life.take(above(1)), life.take(wrong), life.take(above(20))] == ["send", "send", "suppressed"]
    assert [one.first.alert_id for one in life.firing()] == ["w"]
    assert life.take(above(30, charge_point="CP2")) == "send"
    assert life.take(above(40, value=111)) == "send"  # no other rating explains it
    assert life.take(replaced(wrong, action="resolved", offset=9)) == "send"
    assert life.take(above(50)) == "send"


def test_maintenance_mutes_a_location_for_a_time_and_some_kinds() -> None:
    at_ms = an_alert().time_ms
    mute = Mute("L-CP0001", at_ms, at_ms + 1, ("stuck_register",))
    life = book(Rules(mutes=[mute]))
    assert life.take(an_alert(1)) == "muted"
    assert life.take(an_alert(1, kind="silence", alert_id="x")) == "send"
    assert life.take(an_alert(2)) == "send"
    assert [one.first.alert_id for one in life.firing()] == ["x", an_alert(2).alert_id]


def test_maintenance_said_in_the_log_mutes_until_it_is_over_or_resolved() -> None:
    at_ms = an_alert().time_ms
    life = book()
    said = {"location": "L-CP0001", "from_ms": at_ms - 1, "until_ms": at_ms + 10_000, "kinds": "stuck_register"}
    mute = an_alert(kind="maintenance", alert_id="maintenance-L-CP0001-0-7", charge_point_id="", evidence=said)
    assert life.take(mute) == "quiet"
    assert life.take(an_alert(1)) == "muted"
    assert life.take(an_alert(2)) == "send"  # elsewhere
    assert life.take(an_alert(1, kind="silence", alert_id="s", offset=3)) == "send"
    assert life.take(replaced(mute, action="resolved", time_ms=at_ms + 5_000, offset=8)) == "quiet"
    at_once = an_alert(1, alert_id="a", time_ms=at_ms + 4_000, offset=4)
    after = an_alert(1, alert_id="b", time_ms=at_ms + 6_000, offset=5)
    assert [life.take(at_once), life.take(after)] == ["muted", "send"]
    assert mute.alert_id not in life.open


def test_an_alert_ends_once() -> None:
    life = book()
    life.take(an_alert())
    assert life.take(an_alert(action="resolved", offset=5)) == "send"
    assert life.take(an_alert(action="resolved", offset=9)) == "repeat"


def test_an_alert_is_over_so_long_after_the_last_step_that_came_before_that() -> None:
    hour_ms = 3_600_000
    first = an_alert(time_ms=10 * hour_ms + 1)
    steps = [first, replaced(first, action="updated", time_ms=11 * hour_ms, offset=2)]

    def due(given: Sequence[AlertEvent]) -> int:
        return given[-1].time_ms + 2 * hour_ms

    assert list(over({"a": steps}, due, 13 * hour_ms - 1)) == []
    [end] = over({"a": steps}, due, 13 * hour_ms)
    assert (end.action, end.time_ms, end.alert_id) == ("resolved", 13 * hour_ms, first.alert_id)
    [end] = over({"a": [first]}, due, 100 * hour_ms)
    assert end.time_ms == 13 * hour_ms  # the full hour after


def test_what_is_old_or_below_the_wanted_severity_is_not_sent() -> None:
    life = book(Rules(Delivery(oldest_h=1.0, minimum_severity="warning")))
    assert life.take(an_alert(1)) == "send"
    assert life.take(an_alert(2, severity="info")) == "quiet"
    assert life.take(an_alert(3, time_ms=an_alert().time_ms - 3_700_000)) == "old"


def test_the_watchdog_restarts_what_is_silent_or_stuck_and_gives_up_in_the_end() -> None:
    dog = Watched("feed")
    assert dog.judge(100.0, 99.0, 0.0, 0, failed=False) == "fine"  # nothing to do is no hang
    assert dog.judge(100.0, 39.0, 99.0, 0, failed=False) == "restart"
    assert dog.judge(200.0, 199.0, 70.0, 5, failed=False) == "restart"
    for _ in range(3):
        assert dog.judge(300.0, 300.0, 300.0, 0, failed=True) == "restart"
    assert dog.judge(301.0, 301.0, 301.0, 0, failed=True) == "give_up"
    assert dog.judge(1000.0, 1000.0, 1000.0, 0, failed=True) == "restart"  # long ago is forgiven


def test_the_most_exact_threshold_wins() -> None:
    tuning = parse(
        [
            {"kind": "large_session", "z": 5},
            {"kind": "large_session", "model": "M", "location": "L", "z": 9},
            {"kind": "large_session", "model": "M", "z": 7},
        ],
        "rules.toml",
    )
    assert tuning.of("large_session", "z") == 5
    assert tuning.of("large_session", "z", "M") == 7
    assert tuning.of("large_session", "z", "M", "L") == 9
    assert tuning.of("large_session", "warm_up", "M", "L") == 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[deliver]", "no table 'deliver'"),
        ("[delivery]\nspeed = 1", "has no 'speed'"),
        ("[delivery]\ntimeout_s = 0", "not a number above 0"),
        ("[[mute]]\nlocation = 'L'", "needs from"),
        ("[[mute]]\nfrom = 2026-01-01T00:00:00\nuntil = 2026-01-02T00:00:00Z", "needs an offset"),
        ("[[tune]]\nz = 3", "tune entry 1: kind '' is none; there are clock_drift,"),
        ('[[tune]]\nkind = "stuk_register"\nsuppress_s = 3', "kind 'stuk_register' is none; there are"),
        ('[[tune]]\nkind = "stuck_register"\nstuck_mwh = 3', "stuck_mwh is a threshold of the policy `metering`"),
        ('[[tune]]\nkind = "token_two_sites"\nmodel = "M"\nspeed_kmh = 90', "not about one charger: it has no model"),
        ('[[tune]]\nkind = "site_silence"\nmodel = "M"\nexpected = 9', "not about one charger: it has no model"),
        (
            '[[mute]]\nfrom = 2026-01-01T00:00:00Z\nuntil = 2026-01-02T00:00:00Z\nkinds = ["silense"]',
            "mute entry 1: kind 'silense' is none",
        ),
        ("[[tune]]\nkind = 'large_session'\nzz = 3", "no parameter 'zz'"),
        ("[[tune]]\nkind = 'large_session'\nz = -3", "not a number of 0 or more"),
        ("x = ", "not TOML"),
    ],
)
def test_a_wrong_rules_file_is_told_where_and_what(tmp_path, text: str, said: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as raised:
        load_rules(path)
    assert said in raised.value.message
    assert str(path) in raised.value.message


def test_a_rules_file_is_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "rules.toml"
    path.write_text(
        "[delivery]\nposts_per_minute = 6\n"
        "[[mute]]\nlocation = 'L'\nfrom = 2026-01-01T00:00:00Z\nuntil = 2026-01-02T01:00:00+01:00\n"
        "[[tune]]\nkind = 'silence'\nsuppress_s = 600\n"
    )
    rules = load_rules(path)
    assert rules.delivery == replace(Delivery(), posts_per_minute=6)
    assert rules.mutes[0].until_ms - rules.mutes[0].from_ms == 86_400_000
    assert rules.tuning.of("silence", "suppress_s") == 600

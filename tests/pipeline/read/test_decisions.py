"""Decisions about held usage and dead letters: into the log, acted on by a worker, seen in the ledger."""

import json
from pathlib import Path

import pytest

from pipeline.clickhouse import Store
from pipeline.commands import alerts, deadletters, explain, quarantine
from pipeline.embedded.stack import Stack
from pipeline.errors import ChecksFailedError, DocumentError
from pipeline.read.checks import BROKEN
from pipeline.read.holds import held
from pipeline.read.verify import verify
from pipeline.settings import Settings
from tests.pipeline.read import network
from tests.pipeline.read.conftest import Run, runner
from tests.stack import prepared


@pytest.fixture(scope="module")
def decided(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A network of its own: 4714 released, 4716 rejected, a dead letter mended, one sent as it is, alerts marked."""
    folder = tmp_path_factory.mktemp("decided")
    settings = prepared(stack.settings)
    network.open_network(settings, folder)
    network.send(settings, [*network.jumping(), *network.jumping("BREMEN-2", "4716")])
    network.send_raw(settings, b"BREMEN-3", b'{"charge_point_id":"BREMEN-3","connector_id":')
    network.send_raw(settings, b"BREMEN-2", b"[]")
    network.tick(settings, 200)
    network.rate(settings)
    decide(runner(settings), folder / "mended.json")
    network.tick(settings, 201)
    network.rate(settings)
    return settings


def decide(run: Run, mended: Path) -> None:
    """What people do before the worker runs again."""
    released = run(quarantine.command, "release", "4714", "--actor", "carla", "--note", "checked on site")
    assert "release of 1 sessions with 300 kWh: written to the log" in released.output
    waiting = run(quarantine.command, "reject", "BREMEN-2*4716", "--note", "meter exchanged", "--wait", "0.2").exception
    assert isinstance(waiting, ChecksFailedError)
    assert "is a worker running" in waiting.message
    records = [json.loads(line) for line in run(deadletters.command, "list", "--json").output.splitlines()]
    [broken] = [record for record in records if record["raw"] != "[]"]
    [other] = [record for record in records if record["raw"] == "[]"]
    assert broken["raw"] in run(deadletters.command, "show", broken["name"]).output
    assert run(deadletters.command, "show", broken["name"], "--raw").output == broken["raw"]
    mended.write_text(json.dumps(network.message("BREMEN-3", "4799", 200, 500_000, "start")[1]))
    assert "1 records sent again" in run(deadletters.command, "retry", broken["name"], "--edit", mended).output
    assert "1 records sent again" in run(deadletters.command, "retry", other["name"]).output
    [jump] = [a for a in open_alerts(run, "register_jump") if a["charge_point_id"] == "BREMEN-1"]
    assert (jump["action"], jump["severity"]) == ("opened", "critical")
    run(alerts.command, "acknowledge", jump["alert_id"], "--actor", "carla", "--note", "technician sent")
    [other_jump] = [a for a in open_alerts(run, "register_jump") if a["charge_point_id"] == "BREMEN-2"]
    run(alerts.command, "resolve", other_jump["alert_id"])


def open_alerts(run: Run, kind: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in run(alerts.command, "list", "--kind", kind, "--json").output.splitlines()]


def test_control_totals_hold_after_decisions(decided: Settings) -> None:
    with Store(decided) as store:
        assert [check for check in verify(store) if check.state == BROKEN] == []


def test_what_is_held_is_listed_with_its_reason_and_energy(run: Run) -> None:
    shown = run(quarantine.command, "list").output
    assert "300 kWh  register_jump" in shown
    assert "11 kWh  unknown_tariff" in shown
    assert "2 held, 311 kWh" in shown
    [one] = run(quarantine.command, "list", "--reason", "unknown_tariff", "--json").output.splitlines()
    assert json.loads(one)["charge_point_id"] == "BREMEN-3"
    assert json.loads(one)["decidable"] is True


def test_one_is_shown_with_its_readings_and_the_message_that_closed_it(run: Run) -> None:
    shown = run(quarantine.command, "show", "4714").output
    assert '"event":"stop"' in shown
    assert "suspect" in shown
    told = json.loads(run(quarantine.command, "show", "BREMEN-1*4714", "--json").output)
    assert [hold["reason"] for hold in told["holds"]] == ["register_jump"]
    assert len(told["readings"]) == 5


def test_only_what_is_held_can_be_decided(run: Run) -> None:
    for arguments, problem in (
        (("release", "4711"), "is not held"),
        (("release",), "name the sessions, or use"),
        (("reject", "4713", "--all"), "one of them"),
        (("release", "9999"), "no session is called"),
    ):
        error = run(quarantine.command, *arguments).exception
        assert isinstance(error, DocumentError)
        assert problem in error.message


def test_a_released_session_is_billed_with_what_was_held(decided: Settings) -> None:
    run = runner(decided)
    told = json.loads(run(explain.command, "4714", "--json").output)
    assert told["session"]["state"] == "settled"
    assert told["bill"]["energy_kwh"] == "303"
    assert told["held"] is None
    assert [(one["action"], one["actor"], one["note"]) for one in told["decisions"]][:2] == [
        ("held", "", ""),
        ("released", "carla", "checked on site"),
    ]
    assert "released by carla" in run(explain.command, "4714").output


def test_a_rejected_session_is_billed_without_it_and_says_so(decided: Settings) -> None:
    run = runner(decided)
    told = json.loads(run(explain.command, "4716", "--json").output)
    assert told["session"]["state"] == "settled"
    assert told["bill"]["energy_kwh"] == "3"
    assert told["held"]["energy_kwh"] == "300"
    assert told["held"]["settled_without_it"] is True
    assert "300 kWh held back, not billed" in run(explain.command, "4716").output
    with Store(decided) as store:
        assert held(store) == []
        assert {hold.action for hold in held(store, everything=True)} == {"released", "rejected"}


def test_a_mended_dead_letter_is_rated_and_one_sent_as_it_is_dies_again(decided: Settings) -> None:
    run = runner(decided)
    assert json.loads(run(explain.command, "4799", "--json").output)["session"]["charge_point_id"] == "BREMEN-3"
    records = [json.loads(line) for line in run(deadletters.command, "list", "--json").output.splitlines()]
    assert [record["raw"] for record in records].count("[]") == 2
    assert len(records) == 3


def test_a_dead_letter_has_to_be_named_as_it_is(run: Run) -> None:
    for name, problem in (("1207", "is named partition/offset"), ("0/99999", "is no dead letter")):
        error = run(deadletters.command, "show", name).exception
        assert isinstance(error, DocumentError)
        assert problem in error.message
    assert isinstance(run(deadletters.command, "retry").exception, DocumentError)


def test_an_alert_is_acknowledged_or_resolved(decided: Settings) -> None:
    run = runner(decided)
    assert open_alerts(run, "register_jump") == []  # what was decided about their sessions ended them
    listed = run(alerts.command, "list", "--all", "--kind", "register_jump", "--json").output.splitlines()
    [one] = [alert for alert in map(json.loads, listed) if alert["charge_point_id"] == "BREMEN-1"]
    shown = run(alerts.command, "show", one["alert_id"]).output
    assert "acknowledged by rate" in shown
    assert "note technician sent" in shown
    assert "BREMEN-2" in run(alerts.command, "list", "--all", "--kind", "register_jump").output
    assert isinstance(run(alerts.command, "show", "nothing-1").exception, DocumentError)

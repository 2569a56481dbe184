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


@pytest.fixture
def own(stack: Stack, tmp_path: Path) -> Settings:
    """A network of this test's own: 4714 held because its meter jumped, 4713 because it has no tariff."""
    settings = prepared(stack.settings)
    network.open_network(settings, tmp_path)
    network.send(settings, network.charging("BREMEN-3", "4713"))
    network.send(settings, network.jumping())
    network.send_raw(settings, b"BREMEN-2", b'{"charge_point_id":"BREMEN-2","connector_id":')
    network.tick(settings, 200)
    network.rate(settings)
    return settings


def settle(settings: Settings) -> None:
    """The worker sees the decisions."""
    network.tick(settings, 201)
    network.rate(settings)


def control_totals_hold(settings: Settings) -> bool:
    with Store(settings) as store:
        return [check for check in verify(store) if check.state == BROKEN] == []


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


def test_a_released_session_is_billed_with_what_was_held(own: Settings) -> None:
    run = runner(own)
    result = run(quarantine.command, "release", "4714", "--actor", "carla", "--note", "checked on site")
    assert "release of 1 sessions with 300 kWh: written to the log" in result.output
    settle(own)
    told = json.loads(run(explain.command, "4714", "--json").output)
    assert told["session"]["state"] == "settled"
    assert told["bill"]["energy_kwh"] == "303"
    assert told["held"] is None
    assert [(one["action"], one["actor"], one["note"]) for one in told["decisions"]] == [
        ("held", "", ""),
        ("released", "carla", "checked on site"),
    ]
    assert "released by carla" in run(explain.command, "4714").output
    assert control_totals_hold(own)


def test_a_rejected_session_is_billed_without_it_and_says_so(own: Settings) -> None:
    run = runner(own)
    run(quarantine.command, "reject", "--reason", "register_jump", "--note", "meter exchanged")
    settle(own)
    told = json.loads(run(explain.command, "4714", "--json").output)
    assert told["session"]["state"] == "settled"
    assert told["bill"]["energy_kwh"] == "3"
    assert told["held"]["energy_kwh"] == "300"
    assert told["held"]["settled_without_it"] is True
    with Store(own) as store:
        assert [hold.reason for hold in held(store)] == ["unknown_tariff"]
    assert control_totals_hold(own)


def test_waiting_without_a_worker_says_what_is_missing(own: Settings) -> None:
    error = runner(own)(quarantine.command, "release", "--all", "--wait", "0.3").exception
    assert isinstance(error, ChecksFailedError)
    assert "is a worker running" in error.message


def test_a_dead_letter_is_shown_mended_and_sent_again(own: Settings, tmp_path: Path) -> None:
    run = runner(own)
    [one] = [json.loads(line) for line in run(deadletters.command, "list", "--json").output.splitlines()]
    assert one["reason"] == "bad_json"
    assert "1 bad_json" in run(deadletters.command, "list").output
    assert one["raw"] in run(deadletters.command, "show", one["name"]).output
    assert run(deadletters.command, "show", one["name"], "--raw").output == one["raw"]
    mended = tmp_path / "mended.json"
    _, value = network.message("BREMEN-2", "4799", 200, 500_000, "start")
    mended.write_text(json.dumps(value))
    assert "1 records sent again" in run(deadletters.command, "retry", one["name"], "--edit", str(mended)).output
    settle(own)
    assert json.loads(run(explain.command, "4799", "--json").output)["session"]["state"] == "open"
    assert control_totals_hold(own)


def test_a_dead_letter_sent_again_as_it_is_dies_again(own: Settings) -> None:
    run = runner(own)
    run(deadletters.command, "retry", "--reason", "bad_json")
    settle(own)
    assert "2 bad_json" in run(deadletters.command, "list").output


def test_a_dead_letter_has_to_be_named_as_it_is(run: Run) -> None:
    for name, problem in (("1207", "is named partition/offset"), ("0/99999", "is no dead letter")):
        error = run(deadletters.command, "show", name).exception
        assert isinstance(error, DocumentError)
        assert problem in error.message
    assert isinstance(run(deadletters.command, "retry").exception, DocumentError)


def test_an_alert_is_acknowledged_and_resolved(own: Settings) -> None:
    run = runner(own)
    [one] = [
        json.loads(x) for x in run(alerts.command, "list", "--kind", "register_jump", "--json").output.splitlines()
    ]
    assert (one["action"], one["severity"], one["charge_point_id"]) == ("opened", "critical", "BREMEN-1")
    run(alerts.command, "acknowledge", one["alert_id"], "--actor", "carla", "--note", "technician sent")
    run(alerts.command, "resolve", "--kind", "unknown_reference")
    settle(own)
    shown = run(alerts.command, "show", one["alert_id"]).output
    assert "acknowledged by rate" in shown
    assert "note technician sent" in shown
    assert "unknown_reference" not in run(alerts.command, "list").output
    assert "unknown_reference" in run(alerts.command, "list", "--all").output
    assert isinstance(run(alerts.command, "show", "nothing-1").exception, DocumentError)

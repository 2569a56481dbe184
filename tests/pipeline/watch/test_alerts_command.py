"""`wattrate alerts`: what is open, the life of one, and what people decide, written into the log."""

import json

from click.testing import CliRunner

from pipeline.clickhouse import Store
from pipeline.commands.alerts import command
from pipeline.settings import Settings
from pipeline.topics import READINGS
from pipeline.watch.ledger import WatchLedger
from tests.pipeline.watch.process import an_alert
from tests.pipeline.watch.test_process import read_all


def run(settings: Settings, *arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments), obj=settings)
    assert result.exit_code == 0, result.output
    return result.output


def test_alerts_are_listed_shown_and_decided_about_by_their_ids(ready: Settings) -> None:
    told_behind = an_alert(2, action="resolved", offset=9, time_ms=an_alert(2).time_ms - 5_000)
    with Store(ready) as store:
        WatchLedger(store).add_alerts([an_alert(1), an_alert(2), told_behind, an_alert(3, partition=2)], 1)
    lines = [json.loads(line) for line in run(ready, "list", "--json").splitlines()]
    assert [one["alert_id"] for one in lines] == [an_alert(1).alert_id, an_alert(3).alert_id]
    whole = [json.loads(line) for line in run(ready, "list", "--all", "--json").splitlines()]
    assert {one["alert_id"]: one["action"] for one in whole}[an_alert(2).alert_id] == "resolved"
    one = json.loads(run(ready, "show", an_alert(2).alert_id, "--json"))
    assert [step["action"] for step in one["life"]] == ["resolved", "opened"]  # as their instants were told
    run(ready, "acknowledge", an_alert(3).alert_id, "--note", "on my way", "--actor", "anna")
    [(partition, value)] = read_all(ready, READINGS)
    said = json.loads(value)
    assert partition == 2
    assert (said["action"], said["target"]) == ("acknowledge", f"CP0003/{an_alert(3).alert_id}")
    assert (said["actor"], said["note"]) == ("anna", "on my way")


def test_a_mute_goes_into_the_log_with_who_asked_and_why(ready: Settings) -> None:
    window = ["--from", "2026-03-01T06:00:00Z", "--until", "2026-03-01T18:00:00Z"]
    asked = ["mute", "L7", *window, "--kind", "silence", "--note", "new cable", "--actor", "anna"]
    result = CliRunner().invoke(command, asked, obj=ready)
    assert result.exit_code == 0, result.output
    refused = CliRunner().invoke(command, ["mute", "L7", "--until", "2020-01-01", "--actor", "anna"], obj=ready)
    assert "--until comes after --from" in str(refused.exception)
    [(_, value)] = read_all(ready, READINGS)
    said = json.loads(value)
    assert said.pop("time_ms") > 1_700_000_000_000
    assert said == {
        "control": "mute", "location": "L7", "from_ms": 1_772_344_800_000, "until_ms": 1_772_388_000_000,
        "kinds": ["silence"], "actor": "anna", "note": "new cable",
    }  # fmt: skip

"""`wattrate alerts mute` writes what a person asked for into the log, and refuses a window that can't be meant."""

import json

from click.testing import CliRunner

from pipeline.commands.alerts import command
from pipeline.settings import Settings
from pipeline.topics import READINGS
from tests.pipeline.watch.test_process import read_all


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

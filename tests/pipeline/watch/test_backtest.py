"""`wattrate anomalies backtest` as a person runs it: a file with labels, other thresholds, sessions of the ledger."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pipeline.anomaly.sessions import SessionFacts, SessionWatch, replayed
from pipeline.anomaly.sites import HOUR_MS
from pipeline.anomaly.tuning import Tuning, parse
from pipeline.commands.anomalies import command
from pipeline.settings import Settings, load
from tests.pipeline.watch.test_sweep import FIRST_HOUR, ledger_with_history
from tests.shared_data import shared


def backtest(settings: Settings, *arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(command, ["backtest", *arguments, "--json"], obj=settings)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def dundee(*arguments: str) -> dict[str, Any]:
    folder = shared("data/sessions")
    labels = ("--labels", str(folder / "dundee_natural_anomalies.csv"))
    return backtest(
        load(environ={}), str(folder / "dundee_2018-06_2018-09.csv"), "--preset", "dundee", *labels, *arguments
    )


def test_the_dundee_file_is_scored_against_its_labels() -> None:
    found = dundee()
    assert {row["label"]: row["recall"] for row in found["labels"]} == dict.fromkeys(
        ("energy_above_rating", "missing_end", "negative_energy", "register_leak_or_unit_error",
         "token_overlap_other_cp"), 1.0,
    )  # fmt: skip
    assert found["findings"]["negative_session"] == 8  # each once
    assert found["findings"]["wrong_rating"] == 2  # of two charge points with 94 sessions
    assert found["findings"]["token_two_sites"] + found["findings"]["token_two_chargers"] >= 106


def test_other_thresholds_fire_otherwise_without_code(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[tune]]\nkind = "wrong_rating"\nsessions = 1000\n[[tune]]\nkind = "large_session"\nz = 1000\n')
    found = dundee("--rules", str(rules))
    assert "wrong_rating" not in found["findings"]
    assert "large_session" not in found["findings"]
    assert found["findings"]["energy_above_rating"] > dundee()["findings"]["energy_above_rating"]


def test_the_rules_file_tunes_tokens_in_a_backtest_as_in_the_watch() -> None:
    """Who forgets at once does not know at the end of the long session what went on meanwhile."""

    def session(key: str, charge_point: str, from_h: float, until_h: float) -> SessionFacts:
        start_ms, end_ms = round(from_h * HOUR_MS), round(until_h * HOUR_MS)
        return SessionFacts(key, charge_point, 1, f"at {charge_point}", "", "T", 0, start_ms, end_ms, 1_000_000)

    sessions = [session("a", "CP1", 0, 10), session("b", "CP2", 9, 9.5), session("c", "CP1", 9.8, 10)]
    table = [{"kind": "token_two_sites", "open_h": 1, "remember_h": 0}]
    for tuning, kinds in ((Tuning(), ["token_two_sites"]), (parse(table, "rules.toml"), [])):
        assert [finding.kind for finding in replayed(sessions, SessionWatch(tuning))] == kinds


def test_the_ledgers_own_sessions_are_replayed_from_a_day_on(ready: Settings) -> None:
    ledger_with_history(ready)
    begin = datetime.fromtimestamp(FIRST_HOUR * HOUR_MS / 1000, UTC)
    whole = backtest(ready, "--since", f"{begin:%Y-%m-%d}")
    later = backtest(ready, "--since", f"{begin:%Y}-12-31")
    assert whole["sessions"] > later["sessions"]
    assert whole["sessions"] > 1000
    assert whole["labels"] == []

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from pipeline.clickhouse import Store
from pipeline.commands.doctor import Finding, command, examine
from pipeline.commands.init import prepare
from pipeline.embedded.processes import free_port
from pipeline.errors import ChecksFailedError
from pipeline.settings import Settings


def states(findings: list[Finding]) -> dict[str, str]:
    return {f.subject: f.state for f in findings}


def test_a_fresh_installation_lacks_only_topics_and_tables(empty: Settings) -> None:
    found = examine(empty)
    wrong = {f.subject: f.text for f in found if f.state == "wrong"}
    assert set(wrong) == {"topics", "schema"}
    assert all("wattrate init" in text for text in wrong.values())


def test_after_init_all_is_well_but_for_the_tariffs(ready: Settings) -> None:
    found = examine(ready)
    assert set(states(found).values()) == {"ok", "warning"}
    assert [f.subject for f in found if f.state == "warning"] == ["reference"]


def test_what_does_not_answer_is_a_finding_with_advice(empty: Settings) -> None:
    port = free_port(29999)
    away = replace(empty, kafka_bootstrap=f"127.0.0.1:{port}", clickhouse_port=port, kafka_timeout_s=0.5)
    wrong = {f.subject: f.text for f in examine(away) if f.state == "wrong"}
    assert set(wrong) == {"broker", "store"}
    assert all("wattrate up" in text for text in wrong.values())


def test_settings_that_contradict_each_other_are_told(ready: Settings) -> None:
    odd = replace(ready, clickhouse_timeout_s=400.0, clickhouse_password="x")  # noqa: S106
    texts = [f.text for f in examine(odd) if f.subject == "settings" and f.state != "ok"]
    assert len(texts) == 2 and "must be below max_poll_interval_s" in texts[0] and "in the clear" in texts[1]


def test_a_newer_schema_is_told(empty: Settings) -> None:
    prepare(empty)
    with Store(empty) as store:
        store.command("INSERT INTO schema_migrations VALUES (99, 'future', 'x', now64(3))")
    assert any("newer than this program" in f.text for f in examine(empty) if f.state == "wrong")


def test_the_command_exits_1_and_prints_json(empty: Settings) -> None:
    result = CliRunner().invoke(command, ["--json", "--settings"], obj=empty)
    assert isinstance(result.exception, ChecksFailedError) and result.exception.exit_code == 1
    shown = json.loads(result.output.splitlines()[0])
    assert shown["healthy"] is False and shown["settings"]["partitions"] == "4"


def test_the_command_prints_a_line_a_finding(ready: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(command, [], obj=ready, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.startswith("ok       settings") and "schema     at 00" in result.output

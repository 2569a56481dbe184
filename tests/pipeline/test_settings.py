import json
import os
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.errors import SettingsError
from pipeline.settings import PREFIX, Settings, described, load

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"
BEGIN, END = "<!-- table: python -m tests.pipeline.test_settings -->", "<!-- end of table -->"


def table() -> str:
    """The table of docs/settings.md as the code has it."""
    lines = ["| setting | default | what it does |", "| --- | --- | --- |"]
    for setting in described():
        default = getattr(Settings(), setting.name)
        shown = f"`{default}`" if default not in ("", {}) else ""
        meta = setting.metadata
        limits = f" One of {', '.join(f'`{c}`' for c in meta['choices'] if c)}." if meta["choices"] else ""
        limits += f" {meta['low']:g} to {meta['high']:g}." if meta["low"] is not None else ""
        limits += " Secret: never shown." if meta["secret"] else ""
        lines.append(f"| `{setting.name}` | {shown} | {meta['doc']}{limits} |")
    return "\n".join(lines)


def write_docs() -> None:
    text = DOCS.read_text("utf-8")
    DOCS.write_text(f"{text[: text.index(BEGIN)]}{BEGIN}\n{table()}\n{text[text.index(END) :]}", "utf-8")


def problem(environ: dict[str, str], config: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(config, environ)
    return caught.value.message


def test_the_docs_list_every_setting_as_the_code_has_it() -> None:
    assert table() in DOCS.read_text("utf-8"), "run: .venv/bin/python -m tests.pipeline.test_settings"


def test_every_default_is_valid_and_documented() -> None:
    defaults = Settings()
    for setting in described():
        assert setting.metadata["doc"].endswith("."), setting.name
        value = getattr(defaults, setting.name)
        low, high, choices = (setting.metadata[name] for name in ("low", "high", "choices"))
        assert not choices or value in choices
        assert low is None or low <= value <= high


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text(
        'partitions = 8\n[kafka]\nbootstrap = "file:1"\n[kafka.options]\n"linger.ms" = 7\n[clickhouse]\nsecure = true\n'
    )
    found = load(None, {"WATTRATE_CONFIG": str(file), "WATTRATE_KAFKA_BOOTSTRAP": "env:2"})
    assert (found.partitions, found.kafka_bootstrap, found.clickhouse_secure) == (8, "env:2", True)
    assert found.kafka_options == {"linger.ms": "7"}
    assert found.sources["partitions"] == str(file)
    assert found.sources["kafka_bootstrap"] == "environment variable WATTRATE_KAFKA_BOOTSTRAP"
    assert load(file, {}).kafka_bootstrap == "file:1"


def test_tables_of_options_are_read_in_three_forms() -> None:
    for text in ("a.b=1,c=x", '{"a.b": 1, "c": "x"}'):
        assert load(environ={"WATTRATE_KAFKA_OPTIONS": text}).kafka_options == {"a.b": "1", "c": "x"}
    assert load(environ={"WATTRATE_KAFKA_OPTIONS": '{"x": true}'}).kafka_options == {"x": "true"}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PARTITIONS", "0", "partitions = '0' must lie between 1 and 65535"),
        ("PARTITIONS", "many", "partitions = 'many' is not a whole number"),
        ("PARTITIONS", "1.5", "is not a whole number"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS", "must be one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ("CLICKHOUSE_SECURE", "maybe", "is not true or false"),
        ("KAFKA_OPTIONS", "nonsense", "is not a table of names and values"),
        ("KAFKA_BOOTSTRAPS", "x", "(did you mean kafka_bootstrap?)"),
    ],
)
def test_a_wrong_value_is_named_with_its_source_and_what_may_stand_there(name: str, value: str, says: str) -> None:
    message = problem({PREFIX + name: value})
    assert message.startswith(f"environment variable {PREFIX}{name}: ") and says in message


def test_a_file_that_can_not_be_read_says_so(tmp_path: Path) -> None:
    assert "No such file" in problem({}, tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 3")
    assert "not TOML" in problem({}, tmp_path / "bad.toml")
    (tmp_path / "odd.toml").write_text("[kafka]\nbotstrap = 1\n")
    assert "kafka_botstrap" in problem({}, tmp_path / "odd.toml")


def test_secrets_are_never_shown() -> None:
    secrets = {s.name: "hunter2" for s in described() if s.metadata["secret"]}
    assert len(secrets) == 5
    found = load(environ={PREFIX + name.upper(): value for name, value in secrets.items()})
    assert "hunter2" not in repr(found) and "hunter2" not in str(found.shown())
    assert all(getattr(found, name) == value for name, value in secrets.items())


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load(environ={}).partitions = 3  # type: ignore[misc]


def test_a_running_stack_is_found_and_a_dead_one_is_not(tmp_path: Path) -> None:
    where = {"WATTRATE_DATA_DIR": str(tmp_path)}
    run = {"pid": os.getpid(), "settings": {"kafka_bootstrap": "here:1", "clickhouse_port": 77}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert load(environ=where).clickhouse_port == 77
    assert load(environ={**where, "WATTRATE_KAFKA_BOOTSTRAP": "mine:2"}).kafka_bootstrap == "mine:2"
    (tmp_path / "run.json").write_text(json.dumps({**run, "pid": 2**22 + 1}))
    assert load(environ=where).clickhouse_port == 8123
    (tmp_path / "run.json").write_text("{}")
    assert "not a run file" in problem(where)


def test_the_command_line_tells_a_settings_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WATTRATE_PARTITIONS", "x")
    with pytest.raises(SystemExit) as leave:
        cli.main(["init"])
    assert leave.value.code == 2
    assert (
        capsys.readouterr().err
        == "wattrate: environment variable WATTRATE_PARTITIONS: partitions = 'x' is not a whole number\n"
    )
    with pytest.raises(SettingsError):
        cli.main(["--debug", "init"])


def test_help_lists_the_commands_without_importing_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        cli.main(["--help"])
    assert leave.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in ("up", "init", "publish"))


if __name__ == "__main__":
    write_docs()

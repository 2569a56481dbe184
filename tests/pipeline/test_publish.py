import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline import cli
from pipeline.errors import DocumentError
from pipeline.publication import read_documents
from pipeline.settings import Settings
from tests.pipeline.test_reference import evse, location, tariff, token


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def problem(path: Path) -> str:
    with pytest.raises(DocumentError) as caught:
        read_documents([path])
    return caught.value.message


def test_objects_lists_and_ocpi_responses_are_read_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "tariffs/one.json", tariff())
    write(tmp_path, "locations.json", [location(evse("CP1"))])
    write(tmp_path, "tokens.json", {"data": [token("X"), token("Y")], "status_code": 1000})
    found = read_documents([tmp_path])
    assert [(d.kind, d.id) for d in found] == [
        ("location", "DE*ABC*L1"), ("tariff", "DE*ABC*T1"), ("token", "DE*ABC*X"), ("token", "DE*ABC*Y"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (tariff(currency=5), "$.currency: "),
        ([tariff(), tariff(elements=[])], "$[1].elements: "),
        ({"data": [location(evse("A"), {"uid": 5})]}, "$.data[0].evses[1].uid: Expected `str`, got `int`"),
        (location(zone="Berlin"), "time zone 'Berlin'"),
        ([location(evse("A", charge_point_id="C", evse_id=1), evse("B", charge_point_id="C", evse_id=1))],
         "$[0].evses[1]: charge point C has evse_id 1 twice"),
        ({"name": "?"}, "$: expected a Tariff"),
        ("{", "not JSON"),
        ([tariff(price=0.1), tariff(price=0.2)], "given twice, and differs"),
    ],
)  # fmt: skip
def test_a_wrong_document_is_named_by_file_and_json_path(tmp_path: Path, content: object, where: str) -> None:
    path = write(tmp_path, "bad.json", content)
    message = problem(path)
    assert message.startswith("nothing was published:\n") and f"{path}: " in message and where in message


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a.json", "nonsense")
    write(tmp_path, "b.json", [tariff(elements=1), tariff(id=2)])
    message = problem(tmp_path)
    assert message.count("\n") == 3
    assert "missing.json: can't be read" in problem(tmp_path / "missing.json")
    tmp_path.joinpath("empty").mkdir()
    assert "no *.json" in problem(tmp_path / "empty")


def run(settings: Settings, *arguments: str) -> tuple[int, str]:
    from pipeline.commands.publish import command

    result = CliRunner().invoke(command, arguments, obj=settings, catch_exceptions=False)
    return result.exit_code, result.output


def test_the_command_prints_what_it_published(ready: Settings, tmp_path: Path) -> None:
    path = write(tmp_path, "all.json", [tariff(), location(evse("CP1", "T1"))])
    code, output = run(ready, str(path))
    assert (code, output) == (0, "reference version 1: 1 locations, 1 tariffs; 0 as before\n")
    code, output = run(ready, "--json", str(path))
    assert json.loads(output) == {"version": 1, "changed": {}, "unchanged": 2, "warnings": []}


def test_checking_needs_neither_broker_nor_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "t.json", tariff())
    with pytest.raises(SystemExit) as leave:
        cli.main(["publish", "--check", str(path)])
    assert leave.value.code == 0 and "1 documents" in capsys.readouterr().out
    write(tmp_path, "t.json", tariff(currency=1))
    with pytest.raises(SystemExit) as leave:
        cli.main(["publish", "--check", str(path)])
    assert leave.value.code == 3 and "$.currency" in capsys.readouterr().err


def test_a_policy_is_checked_by_the_command_and_told_where_it_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good: dict[str, Any] = {
        "policy": "metering",
        "tune": [{"kind": "silence", "model": "AC 22", "silence_min_ms": 3_600_000}],
    }
    path = write(tmp_path, "policy.json", good)
    with pytest.raises(SystemExit) as leave:
        cli.main(["publish", "--check", str(path)])
    assert leave.value.code == 0
    good["tune"] += [{"location": "DUN-7", "silence_min_s": 3600}]
    write(tmp_path, "policy.json", good)
    with pytest.raises(SystemExit) as leave:
        cli.main(["publish", "--check", str(path)])
    told = capsys.readouterr().err
    assert leave.value.code == 3 and f"{path}: $.tune[1].silence_min_s: no threshold here; there are" in told

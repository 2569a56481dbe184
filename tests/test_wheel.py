"""The wheel, not the checkout: what is in it, and that its commands and data work where nothing else is."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the checkout by the build backend, as `pip install` would."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    (built,) = folder.glob("wattrate-*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files alone; the libraries that it needs are this environment's."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(unpacked: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-P", *arguments]
    return subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, timeout=300)


def test_the_wheel_carries_code_and_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"rating", "pipeline", "deploy"}
    shipped = {"deploy/clickhouse/0001_ledger.sql", "deploy/kafka/pom.xml", "deploy/compose.yaml", "deploy/Dockerfile"}
    assert shipped <= set(names)
    assert any(name.startswith("deploy/samples/tariffs/") for name in names)
    assert not [name for name in names if name.endswith((".pyc", ".nbi", ".nbc"))]


def test_the_code_that_runs_is_the_wheels(unpacked: Path) -> None:
    found = run(unpacked, "-c", "import pipeline, rating; print(pipeline.__file__, rating.__file__)")
    assert found.stdout.count(str(unpacked)) == 2, found.stderr


def test_help_lists_the_commands(unpacked: Path) -> None:
    told = run(unpacked, "-m", "pipeline.cli", "--help")
    assert told.returncode == 0 and "explain" in told.stdout, told.stderr


def test_samples_lint_and_check(unpacked: Path) -> None:
    samples = sorted(str(path) for path in (unpacked / "deploy" / "samples" / "tariffs").glob("*.json"))
    linted = run(unpacked, "-m", "pipeline.cli", "tariff", "lint", *samples)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    checked = run(unpacked, "-m", "pipeline.cli", "publish", "--check", str(unpacked / "deploy" / "samples"))
    assert checked.returncode == 0 and f"{len(samples)} documents" in checked.stdout, checked.stderr


def test_migrations_are_found(unpacked: Path) -> None:
    code = "from pipeline.migrations import shipped; print(len(shipped()))"
    there = len(list((ROOT / "deploy" / "clickhouse").glob("*.sql")))
    found = run(unpacked, "-c", code)
    assert found.stdout.strip() == str(there), found.stderr

"""Every question runs at a tiny size and checks itself; its result becomes tables. Nothing here is timed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import capacity, growth, report, standard

TINY = ("beside", "growth", "latency", "billing_reads")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a tiny run."""
    out = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "benchmarks.standard", "--tiny", "--only", ",".join(TINY), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_every_question_gives_a_result_that_says_where_it_was_found(folder: Path) -> None:
    found = report.results(folder)
    assert found.keys() == set(TINY)
    for one in found.values():
        assert {"machine", "cores", "python", "commit", "versions", "command"} <= one.keys()


def test_faust_pandas_and_plain_python_ran_beside_the_worker(folder: Path) -> None:
    one = report.results(folder)["beside"]
    assert {"worker_to_faust", "worker_to_pandas", "worker_to_plain_python", "worker_to_bare_consume"} == set(
        one["ratios"]
    )
    assert one["cdrs"] == 80


def test_results_become_tables_between_their_markers(folder: Path) -> None:
    text = "# Speed\n<!-- beside: written by benchmarks/report.py -->\nold\n<!-- beside ends -->\nafter\n"
    shown = report.written(text, report.results(folder))
    assert "old" not in shown
    assert "| Faust agent |" in shown
    assert shown.endswith("<!-- beside ends -->\nafter\n")
    assert report.written(shown, report.results(folder)) == shown


def test_results_become_a_capacity_model_and_plots(folder: Path, tmp_path: Path) -> None:
    found = report.results(folder)
    document = capacity.document({**found, "ocpp201": found["beside"]})
    assert "| connectors | 10,000 | 1,000,000 | 10,000,000 |" in document
    growth.plot(json.loads((folder / "growth.json").read_text("utf-8")), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"cost_by_connectors.svg", "memory_by_connectors.svg"}


def test_a_name_that_is_no_benchmark_is_refused() -> None:
    with pytest.raises(SystemExit, match="no such benchmark: nothing"):
        standard.chosen(["nothing"], long=False)


def test_the_standard_set_leaves_out_what_takes_long() -> None:
    assert {one.name for one in standard.QUESTIONS} > {one.name for one in standard.chosen([], long=False)}
    assert all(one.usual for one in standard.QUESTIONS if one.long)

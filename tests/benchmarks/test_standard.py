"""Every question runs at a tiny size and checks itself; its result becomes tables. Nothing here is timed."""

from pathlib import Path

import pytest

from benchmarks import capacity, growth, report, standard

TINY = ("beside", "growth", "inserts", "latency", "billing_reads")
QUESTIONS = {question.name: question for question in standard.QUESTIONS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where results go."""
    return tmp_path_factory.mktemp("results")


def result(folder: Path, name: str) -> report.Result:
    """The result of a tiny run, made once."""
    if not (folder / f"{name}.json").exists():
        assert standard.answer(QUESTIONS[name], folder, tiny=True) == ""
    return report.results(folder)[name]


@pytest.mark.parametrize("name", TINY)
def test_every_question_gives_a_result_that_says_where_it_was_found(folder: Path, name: str) -> None:
    found = result(folder, name)
    assert {"machine", "cores", "python", "commit", "versions", "command"} <= found.keys()


def test_faust_pandas_and_plain_python_ran_beside_the_worker(folder: Path) -> None:
    one = result(folder, "beside")
    others = ("faust", "pandas", "plain_python", "bare_consume", "raw_inserts")
    assert one["ratios"].keys() == {f"worker_to_{name}" for name in others}
    assert one["cdrs"] == 80


def test_the_share_of_what_the_store_takes_alone_stands_in_the_table(folder: Path) -> None:
    one = result(folder, "beside")
    *_, row = report.end_to_end({"beside": one})
    assert row.split(" | ")[5] == f"{one['ratios']['worker_to_raw_inserts']:.0%}"
    del one["ratios"]["worker_to_raw_inserts"]  # as results of before have it
    *_, row = report.end_to_end({"beside": one})
    assert row.split(" | ")[5] == ""


def test_what_each_statement_of_a_bill_costs_is_told_by_its_table(folder: Path) -> None:
    one = result(folder, "billing_reads")
    tables = {"cdr_rows", "claim_rows", "marker_rows", "quarantine_rows", "rated_usage_rows", "reading_rows"}
    assert one["sizes"][-1]["statement_cpu_ms"].keys() == {"", "reference_rows", *tables}
    _, _, nothing, *rows = report.bill_statements({"billing_reads": one})
    assert nothing.startswith("| SELECT 1 |")
    assert {row.split(" | ")[0].removeprefix("| ") for row in rows} == {"reference_rows", *tables}


def test_those_beside_the_worker_stand_in_a_table_for_each_broker(folder: Path) -> None:
    one = result(folder, "beside")
    told = list(report.beside({"beside": one, "kafka_beside": one}))
    heads = [row for row in told if row.startswith("| same topic, same run, ")]
    assert [head.split(", ")[2].split(" |")[0] for head in heads] == ["embedded broker", "Apache Kafka"]
    assert told.count("") == 1  # between the two


def test_results_become_tables_between_their_markers(folder: Path) -> None:
    text = "# Speed\n<!-- beside: written by benchmarks/report.py -->\nold\n<!-- beside ends -->\nafter\n"
    shown = report.written(text, {"beside": result(folder, "beside")})
    assert "old" not in shown
    assert "| Faust agent |" in shown
    assert shown.endswith("<!-- beside ends -->\nafter\n")
    assert report.written(shown, {"beside": result(folder, "beside")}) == shown


def test_results_become_a_capacity_model_and_plots(folder: Path, tmp_path: Path) -> None:
    grown = result(folder, "growth")
    document = capacity.document({"growth": grown, "ocpp201": result(folder, "beside")})
    assert "| connectors | 10,000 | 1,000,000 | 10,000,000 |" in document
    growth.plot(grown, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "cost_by_connectors.svg",
        "memory_by_connectors.svg",
        "recovery_by_connectors.svg",
    }


def test_a_name_that_is_no_benchmark_is_refused() -> None:
    with pytest.raises(SystemExit, match="no such benchmark: nothing"):
        standard.chosen(["nothing"], long=False)


def test_the_standard_set_leaves_out_what_takes_long() -> None:
    assert {one.name for one in standard.QUESTIONS} > {one.name for one in standard.chosen([], long=False)}
    assert all(one.usual for one in standard.QUESTIONS if one.long)

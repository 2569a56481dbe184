"""The benchmark of the decoder runs, and what it decodes has not changed."""

from benchmarks.decode import run
from pipeline.codec.warm import compile_ahead


def test_each_form_is_measured_and_the_results_are_the_known_ones() -> None:
    results = {result.form: result for result in run(records=400, points=50, rounds=1)}
    assert results["flat JSON"].result_hash == results["flat JSON, twin"].result_hash
    assert {form: result.result_hash for form, result in results.items() if "twin" not in form} == {
        "flat JSON": "5499dc2690b61d67",
        "OCPP 1.6 MeterValues": "d88887f3abb17c1d",
        "OCPP 2.0.1 event": "7b074f0bb4ceb2ec",
        "flat JSON, 1 % odd": "1b646ca583bde46d",
        "Arrow": "fb38ff49e3d86df7",
    }
    assert results["flat JSON, 1 % odd"].readings == 398
    assert results["Arrow"].readings == 4_000


def test_compiling_ahead_decodes_one_record_of_each_kind() -> None:
    assert compile_ahead() == 3

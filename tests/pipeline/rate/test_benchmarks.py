"""The benchmarks of metering run, at a small size: nothing wrong in silence, totals exact, results as known."""

from benchmarks.metering import run as measured
from benchmarks.truth import VERDICTS, plan_of
from benchmarks.truth import run as compared


def test_no_session_of_a_lying_fleet_is_wrong_in_silence() -> None:
    report = compared(plan_of(charge_points=60, days=1.5, rate=0.015, seed=4, sample_s=300, sessions=3))
    assert report["sessions"] > 150
    assert report["wrong"] == []
    assert {verdict for counts in report["faults"].values() for verdict in counts} <= set(VERDICTS[:2])
    assert report["control_totals"]["exact"]
    struck = [name for name, counts in report["faults"].items() if counts]
    assert len(struck) > 25
    elsewhere = {"token_two_sites"}  # said by the watch
    missing = {kind: one for kind, one in report["alerts"].items() if one["missing"] and kind not in elsewhere}
    assert missing == {}


def test_what_is_timed_bills_what_it_should() -> None:
    results = measured(points=20, rounds=5, batch=50)
    assert [(one.form, one.readings) for one in results] == [("OCPP 1.6 MeterValues", 100), ("Arrow", 1000)]

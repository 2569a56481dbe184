"""The benchmarks of anomalies still run, and what they must hold does."""

import numpy as np
import pytest

from benchmarks import anomalies, nab
from tests.shared_data import shared


def test_every_label_of_the_dundee_file_is_found() -> None:
    found = anomalies.dundee_table(shared("data/sessions"))
    assert {row["label"]: row["recall"] for row in found["labels"]} == {
        "energy_above_rating": 1.0,
        "missing_end": 1.0,
        "negative_energy": 1.0,
        "register_leak_or_unit_error": 1.0,
        "token_overlap_other_cp": 1.0,
    }
    assert found["findings"]["wrong_rating"] == 2  # the two mis-rated charge points, each said once
    assert all(row["precision"] > 0.9 for row in found["labels"])


def test_a_lost_fifth_is_found_on_the_sap_sessions_and_false_alarms_are_rare() -> None:
    network = anomalies.read_network(shared("data/sessions") / "sap_labs_mougins.csv")
    large = [row for row in range(len(network.counts)) if network.counts[row] >= anomalies.LEAST_SESSIONS]
    clean = anomalies.run(network, "shift", 10.0)
    assert anomalies.per_1000(network, clean.alarms, large) <= 1.0
    tried = anomalies.experiments(network, large[1::4], 0.2)
    assert np.mean([anomalies.run(network, "shift", 10.0, one).delay > 0 for one in tried]) >= 0.75


def test_the_volume_is_one_for_a_perfect_score_and_low_for_none() -> None:
    labels = np.zeros(1000)
    labels[300:400] = 1
    assert nab.vus_pr(labels, nab._faded(labels, 100)) > 0.8
    assert nab.vus_pr(labels, np.random.default_rng(1).random(1000)) < 0.2


def test_the_report_has_32_series_and_reaches_its_aim() -> None:
    found = nab.measure(shared("data/nab"), [])
    assert found["series"] == 32
    assert found["detectors"]["surprise"]["vus_pr"] == pytest.approx(0.356, abs=0.01)

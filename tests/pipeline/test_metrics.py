"""A worker's page tells what the ledger tells, in a format that Prometheus' own parser reads."""

import json
import urllib.request
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from pipeline.commands import simulate
from pipeline.errors import SettingsError
from pipeline.metrics import Figure, MetricsPage, exposition
from pipeline.rate.worker import Worker
from pipeline.settings import Settings

Samples = dict[str, dict[tuple[str, ...], float]]


def samples_of(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def fetched(page: MetricsPage) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/metrics", timeout=5) as answer:
        return samples_of(answer.read().decode())


def test_figures_are_read_back_as_they_were_given() -> None:
    given = [
        Figure("w_records_total", "counter", "Records.", [({"outcome": "used"}, 7), ({"outcome": "duplicate"}, 1)]),
        Figure("w_lag", "gauge", "None yet.", []),
        Figure("w_idle_seconds", "gauge", "Idle.", [({}, 1.5)]),
    ]
    assert samples_of(exposition(given)) == {
        "w_records_total": {("used",): 7, ("duplicate",): 1},
        "w_idle_seconds": {(): 1.5},
    }


def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    with MetricsPage("127.0.0.1", 0, list) as page, pytest.raises(SettingsError) as caught:
        MetricsPage("127.0.0.1", page.port, list)
    assert f"127.0.0.1:{page.port}" in caught.value.message
    assert "WATTRATE_METRICS_PORT" in caught.value.message


def test_a_workers_page_adds_up_to_what_it_rated(ready: Settings) -> None:
    fleet = ["--charge-points", "12", "--hours", "8", "--seed", "3", "--faults", "0.01"]
    result = CliRunner().invoke(simulate.command, [*fleet, "--publish"], obj=ready)
    assert result.exit_code == 0, result.output
    worker = Worker.connect(replace(ready, batch_records=300), wait=lambda: False)
    with MetricsPage("127.0.0.1", 0, worker.figures) as page:
        before = fetched(page)
        progress = worker.run(drain_s=4.0)
        after = fetched(page)
    json.dumps(asdict(progress))  # what `wattrate rate --json` prints
    assert sum(before["wattrate_worker_records_total"].values()) == 0
    assert sum(after["wattrate_worker_records_total"].values()) == progress.records > 300
    assert after["wattrate_worker_records_total"]["used",] > 0
    assert after["wattrate_worker_control_total_difference"] == {(): 0}
    assert after["wattrate_worker_waiting"] == {(): 0}
    assert after["wattrate_worker_readings_total"] == {(): progress.readings}
    assert after["wattrate_worker_cdrs_total"] == {(): progress.cdrs}

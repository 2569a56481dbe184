"""The checks that need the log: batches rated again, and the output topics against the ledger."""

import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clickhouse import Store
from pipeline.commands.verify import command, recomputed
from pipeline.embedded.processes import free_port
from pipeline.rate.doors import RealDoors
from pipeline.read.checks import BROKEN, OK, Check
from pipeline.read.verify_published import published_checks
from pipeline.settings import Settings
from tests.faults.rig import START_S, Process
from tests.pipeline.read.conftest import Run
from tests.pipeline.read.test_verify import change, copied


@pytest.fixture
def spoiled(rated: Settings) -> Iterator[tuple[Settings, Store]]:
    """The rated network in a database of this test's own, over the same topics."""
    with copied(rated) as store:
        yield replace(rated, clickhouse_database=store.database), store


def published(settings: Settings, store: Store) -> dict[str, Check]:
    return {one.name: one for one in published_checks(settings, store)}


def test_every_batch_gives_its_checksum_again_and_every_output_counts(run: Run) -> None:
    result = run(command, "--recompute", "--published")
    assert result.exit_code == 0, result.output
    for name in ("recomputed", "cdrs_on_kafka_count", "cdrs_are_on_kafka", "rated_usage_are_on_kafka"):
        assert f"ok       {name}" in result.output


def test_a_batch_that_gives_other_rows_than_its_marker_promised_is_named(spoiled: tuple[Settings, Store]) -> None:
    settings, store = spoiled
    change(store, "ALTER TABLE marker_rows UPDATE checksum = checksum + 1 WHERE partition = 1")
    told = recomputed(RealDoors.of_topic(settings), 0, None)
    assert told.state == BROKEN and {place["partition"] for place in told.places} == {1}
    assert recomputed(RealDoors.of_topic(settings), 0, 0).state == OK


def test_what_is_published_and_does_not_count_is_named(spoiled: tuple[Settings, Store]) -> None:
    settings, store = spoiled
    change(store, "DELETE FROM cdr_rows WHERE 1")
    told = published(settings, store)
    assert told["cdrs_on_kafka_count"].state == BROKEN
    assert told["cdrs_on_kafka_count"].wrong == told["cdrs_on_kafka_count"].compared > 0
    assert told["rated_usage_on_kafka_count"].state == OK


def test_what_counts_and_was_not_published_is_named(spoiled: tuple[Settings, Store]) -> None:
    settings, store = spoiled
    change(store, "INSERT INTO cdr_rows SELECT * REPLACE (line + 77 AS line) FROM cdr_rows")
    told = published(settings, store)
    assert told["cdrs_are_on_kafka"].state == BROKEN and told["cdrs_on_kafka_count"].state == OK


def test_it_goes_on_for_ever_and_says_what_it_found_on_its_page(
    spoiled: tuple[Settings, Store], tmp_path: Path
) -> None:
    settings, store = spoiled
    port = free_port(42_000)
    change(store, "ALTER TABLE cdr_rows UPDATE energy_mwh = energy_mwh - 1 WHERE 1")
    with Process(replace(settings, metrics_port=port), tmp_path / "log", "verify", "--every", "0.2") as verifier:
        assert verifier.await_word("broken control total"), verifier.said()
        until_s = time.monotonic() + START_S
        while 'wattrate_verify_broken{check="energy_of_sessions"} 1.0' not in page(port):
            assert time.monotonic() < until_s, page(port)
            time.sleep(0.2)
        assert verifier.stop() == 0, verifier.said()


def page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text

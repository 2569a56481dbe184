"""A short kill campaign on each broker; the long one is `python -m tests.faults.run --kills 500 --seed S [--kafka]`."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.embedded.stack import Stack
from tests.faults.campaign import HEADER, campaign
from tests.faults.rig import repeatable, tell
from tests.stack import prepared, running_stack

SEED = 12_001
KILLS = 12


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """One of its own: its parts are killed."""
    kafka = request.param == "apache"
    if kafka and not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("Apache Kafka needs Java 17 and Maven, which are not installed here")
    with running_stack(tmp_path / "stack", kafka=kafka) as found:
        yield found


def test_everything_that_may_die_dies_and_billing_reads_each_cdr_once(stack: Stack, tmp_path: Path) -> None:
    settings = replace(
        prepared(stack.settings), batch_records=200, batch_wait_s=0.05, session_timeout_s=2.0, kafka_timeout_s=60.0,
        snapshot_interval_s=1.0,
    )  # fmt: skip
    with repeatable(SEED, f"python -m tests.faults.run --kills {KILLS} --seed {SEED}"):
        report = campaign(stack, settings, tmp_path / "round", SEED, KILLS)
        tell(HEADER)
        tell(report.row())
        assert report.kills == KILLS and report.booked

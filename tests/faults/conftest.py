from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.embedded.stack import Stack
from pipeline.settings import Settings
from tests.faults.rig import Process
from tests.stack import prepared, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.fixture(scope="session", autouse=True)
def idle_processes_end() -> Iterator[None]:
    yield
    Process.end_idle()


@pytest.fixture
def ready(stack: Stack) -> Settings:
    """A database and topic prefix of this test's own; small batches, so that there are many moments to die at."""
    return replace(prepared(stack.settings), batch_records=200, batch_wait_s=0.05, session_timeout_s=2.0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these take minutes and kill processes: `make test-faults` runs them."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.faults)

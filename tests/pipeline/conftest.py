from collections.abc import Iterator

import pytest

from pipeline.embedded.stack import Stack
from pipeline.settings import Settings
from tests.stack import fresh, prepared, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def empty(stack: Stack) -> Settings:
    """A database and topic prefix of this test's own, with nothing made."""
    return fresh(stack.settings)


@pytest.fixture
def ready(stack: Stack) -> Settings:
    """A database and topic prefix of this test's own, with topics and tables."""
    return prepared(stack.settings)

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.runs import prepare


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """As a process that runs many seeds."""
    prepare()
    yield
    logging.disable(logging.NOTSET)

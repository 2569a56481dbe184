"""One small network, rated by a real worker on the embedded parts, for all tests of the reading side."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.clickhouse import Store
from pipeline.embedded.stack import Stack
from pipeline.settings import Settings
from tests.pipeline.read import network
from tests.stack import prepared

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def rated(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settled 4711 (with parking), open 4712, held 4713 (no tariff) and 4714 (the meter jumped), a dead letter."""
    settings = prepared(stack.settings)
    network.open_network(settings, tmp_path_factory.mktemp("documents"))
    network.send(settings, network.parked_session())
    network.send(settings, list(network.charging("BREMEN-2", "4712"))[:4])
    network.send(settings, network.charging("BREMEN-3", "4713"))
    network.send(settings, network.jumping())
    network.send_raw(settings, b"BREMEN-1", b'{"broken":')
    network.tick(settings, 200)
    network.rate(settings)
    return settings


@pytest.fixture
def store(rated: Settings) -> Iterator[Store]:
    with Store(rated) as opened:
        yield opened


@pytest.fixture
def run(rated: Settings) -> Run:
    """Run a command of the command line; errors of ours come out as they are."""
    return runner(rated)


def runner(settings: Settings) -> Run:
    def call(command: Any, *arguments: str | Path) -> Result:
        return CliRunner().invoke(
            command, [str(argument) for argument in arguments], obj=settings, catch_exceptions=True
        )

    return call

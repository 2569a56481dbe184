import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clickhouse import Store
from pipeline.embedded.apache_kafka import ApacheKafka
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.stack import EmbeddedStore
from pipeline.migrations import migrate
from pipeline.settings import Settings, load

_names = (f"contract_{n}" for n in itertools.count())

Broker = EmbeddedBroker | ApacheKafka


def base(folder: Path) -> Settings:
    return replace(load(environ={}), data_dir=folder, kafka_timeout_s=20.0, cache_dir=load().cache_dir)


@pytest.fixture(scope="session", params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Each broker in turn: the suite must hold on both."""
    folder = tmp_path_factory.mktemp(f"broker-{request.param}")
    if request.param == "apache" and not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("Apache Kafka needs Java 17 and Maven, which are not installed here")
    kind = ApacheKafka if request.param == "apache" else EmbeddedBroker
    running = kind.start(base(folder), folder)
    yield running
    running.stop()


@pytest.fixture
def settings(broker: Broker, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """Settings for this test's own topics and group on the broker."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**9}"
    return replace(base(tmp_path), kafka_bootstrap=broker.bootstrap, topic_prefix=f"{name}.", group_id=name)


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("store")
    running = EmbeddedStore.start(base(folder), folder)
    yield replace(base(folder), clickhouse_port=running.port)
    running.stop()


@pytest.fixture
def direct(store_server: Settings) -> Iterator[Store]:
    """A connection to a database of this test's own."""
    name = next(_names)
    with Store(store_server) as store:
        store.command(f"CREATE DATABASE {name}")
    with Store(replace(store_server, clickhouse_database=name)) as store:
        migrate(store)
        yield store

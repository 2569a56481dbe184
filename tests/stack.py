"""The embedded stack for tests: one broker and one store a session, a database and a topic prefix of its own a test."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.clickhouse import Store
from pipeline.commands.init import prepare
from pipeline.embedded.stack import Stack
from pipeline.settings import Settings, load

_numbers = itertools.count(1)


@contextmanager
def running_stack(folder: Path, *, kafka: bool = False) -> Iterator[Stack]:
    """A stack with nothing in it, `kafka`: with Apache Kafka as its broker; ends with the block."""
    settings = replace(load(environ={}), data_dir=folder, kafka_timeout_s=10.0, embedded_partitions=4)
    with Stack.start(settings, kafka=kafka) as stack:
        yield stack


def fresh(settings: Settings) -> Settings:
    """The same stack seen through a new database and a new topic prefix; nothing is made yet."""
    name = f"test_{next(_numbers)}"
    with Store(settings) as store:
        store.command(f"CREATE DATABASE {name}")
    return replace(settings, clickhouse_database=name, topic_prefix=f"{name}.", group_id=f"{name}-rate")


def prepared(settings: Settings) -> Settings:
    """Like `fresh`, with topics and tables."""
    new = fresh(settings)
    prepare(new)
    return new

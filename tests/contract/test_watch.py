"""What Faust's own consumers get wrong, the watch must get right, on the embedded broker and on Apache Kafka.

Measured of Faust 0.15 (design.md section 5): it acknowledges what an agent failed to process, a decode error can end an
agent in silence, consumers die slowly. So: what can't be used is a dead letter and the rest goes on; a reader that
fails or hangs is restarted, from where it was saved; nothing is delivered under two ids.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest

from pipeline import topics
from pipeline.anomaly.events import SessionEvent, encode
from pipeline.clickhouse import Store
from pipeline.commands.init import prepare
from pipeline.kafka import Admin, Message, Sender
from pipeline.settings import Settings
from pipeline.watch import app
from pipeline.watch.handlers import SessionHandler
from pipeline.watch.ledger import WatchLedger
from pipeline.watch.rules import Delivery, Rules
from pipeline.watch.watchdog import Watched
from tests.pipeline.watch.process import WatchThread, an_alert, wait_until, watching
from tests.pipeline.watch.receiver import Receiver, receiver

RULES = Rules(Delivery(first_wait_s=0.1, longest_wait_s=0.2, posts_per_minute=3000, repeat_s=0.5))


@pytest.fixture
def ready(settings: Settings, store_server: Settings) -> Settings:
    """Topics on this broker, tables in a database of this test's own."""
    name = f"watch_{settings.topic_prefix.rstrip('.')}"
    with Store(store_server) as store:
        store.command(f"CREATE DATABASE {name}")
    mine = replace(settings, clickhouse_port=store_server.clickhouse_port, clickhouse_database=name)
    prepare(mine)
    return mine


@pytest.fixture
def endpoint() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def starts(token: str, first_ms: int) -> list[SessionEvent]:
    """Two sessions of one token, an hour's drive and ten minutes apart."""
    return [
        SessionEvent("start", f"{token}{key}".ljust(16, "0"), f"CP-{token}-{key}", 1, 1_780_000_000_000 + first_ms + ms,
                     0, first_ms + ms, f"L-{token}-{key}", token, "56.46", longitude)
        for key, longitude, ms in (("a", "-2.97", 0), ("b", "-4.00", 600_000))
    ]  # fmt: skip


def tell(settings: Settings, *events: SessionEvent | bytes) -> None:
    with Sender(settings) as sender:
        for event in events:
            value = event if isinstance(event, bytes) else encode(event)
            sender.send(topics.SESSION_EVENTS, value, b"" if isinstance(event, bytes) else event.id_token.encode())


def found(settings: Settings) -> list[str]:
    with Store(settings) as store:
        return [alert.alert_id for alert in WatchLedger(store).alerts()]


def test_what_cannot_be_used_is_a_dead_letter_and_the_rest_goes_on(ready: Settings, endpoint: Receiver) -> None:
    settings = replace(ready, webhook_url=endpoint.url)
    with watching(settings, RULES):
        tell(settings, b"\xff\x00", *starts("A", 0), b'{"event":"begin"}', *starts("B", 5_000_000))
        with Sender(settings) as sender:
            sender.send(topics.ALERTS, b"[1, 2", b"CP1")
            sender.send(topics.ALERTS, encode(an_alert(1)), b"CP1")
        wait_until(lambda: len(endpoint.event_ids()) == 3)
    assert sum(Admin(settings).end_offsets(topics.DEAD_LETTERS).values()) == 3
    assert len(found(settings)) == 2


def test_a_watch_that_starts_anew_goes_on_and_says_nothing_twice(ready: Settings, endpoint: Receiver) -> None:
    settings = replace(ready, webhook_url=endpoint.url)
    for token in ("A", "B"):
        with watching(settings, RULES):
            tell(settings, *starts(token, 0))
            wait_until(lambda: len(found(settings)) == "AB".index(token) + 1)  # noqa: B023 - called at once
            wait_until(lambda: len(endpoint.event_ids()) == "AB".index(token) + 1)  # noqa: B023
    assert len(endpoint.event_ids()) == len(set(endpoint.event_ids())) == 2


class Falters:
    """Stands in the way of `SessionHandler.take` once: raises, or never returns."""

    def __init__(self, how: str) -> None:
        self.how, self.times, self.released = how, 0, threading.Event()
        self._take = SessionHandler.take

    def __call__(self, handler: SessionHandler, messages: Sequence[Message]) -> None:
        self.times += 1
        if self.times == 1 and self.how == "raises":
            raise ArithmeticError("a fault that nobody thought of")
        if self.times == 1:
            self.released.wait(60)
            return
        self._take(handler, messages)


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_a_reader_that_fails_or_hangs_is_restarted_and_nothing_is_lost(
    ready: Settings, endpoint: Receiver, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    falters = Falters(how)
    monkeypatch.setattr(SessionHandler, "take", lambda handler, messages: falters(handler, messages))
    # A minute and two by default, too long to wait for here; yet more than any step takes a reader that is well, on a
    # busy machine too: else others would be restarted beside the one that hangs.
    monkeypatch.setattr(app, "Watched", partial(Watched, silent_s=10.0, stuck_s=20.0))
    settings = replace(ready, webhook_url=endpoint.url)
    watch: WatchThread
    with watching(settings, RULES) as watch:
        tell(settings, *starts("A", 0))
        wait_until(lambda: len(endpoint.event_ids()) == 1)
        assert watch.health()["restarts"] == 1
        falters.released.set()
    assert falters.times >= 2
    assert len(found(settings)) == 1

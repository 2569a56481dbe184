"""All the parts of `wattrate watch` and how they hang together, without Faust: `app` gives them their life cycle."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import pyarrow as pa

from pipeline import topics
from pipeline.anomaly.events import AlertEvent, encode
from pipeline.clickhouse import Store
from pipeline.errors import BrokerUnavailableError, StoreUnavailableError
from pipeline.kafka import Sender
from pipeline.log import Log
from pipeline.settings import Settings
from pipeline.watch.courier import Courier
from pipeline.watch.decisions import Answer, decided, muted, refused
from pipeline.watch.feed import Feed
from pipeline.watch.handlers import AlertHandler, SessionHandler
from pipeline.watch.ledger import Outcome, Settled, WatchLedger
from pipeline.watch.life import AlertBook
from pipeline.watch.places import Places
from pipeline.watch.rules import Rules
from pipeline.watch.sinks import sinks
from pipeline.watch.sweep import Sweep
from pipeline.watch.ticker import Ticker, wall_clock_ms

LOG = Log("watch")
_T = TypeVar("_T")
_OUTAGE_WAIT_S: Final = 2.0
_OUTCOME_OF: Final[dict[str, Outcome]] = {"suppressed": "suppressed", "muted": "muted", "old": "old"}


class Watch:
    """The parts. What touches the store or Kafka runs in threads; the book and the couriers run in the event loop."""

    def __init__(self, settings: Settings, rules: Rules, *, ticks: bool = True) -> None:
        """`ticks` False: someone else writes the time into the log (a replay, another watch)."""
        self.settings, self.rules, self.ticks = settings, rules, ticks
        self.started_s = time.time()
        self.places = Places()
        self.book = AlertBook(rules, self.places.place)
        self.ticker = Ticker(settings)
        self.couriers = [Courier(sink, rules.delivery, self.settle) for sink in sinks(settings)]
        self.feeds = [
            Feed(settings, topics.ALERTS, self._alert_handler),
            Feed(settings, topics.SESSION_EVENTS, self._session_handler),
        ]
        self.sweep = Sweep(settings, rules, self.places)
        self._ledger_thread = ThreadPoolExecutor(1, "watch-ledger")
        self._loop: asyncio.AbstractEventLoop | None = None
        self.recovered = False

    def _alert_handler(self) -> AlertHandler:
        if self._loop is None:
            raise RuntimeError("feeds start after `recover`")
        return AlertHandler(self.settings, self._loop, self.receive)

    def _session_handler(self) -> SessionHandler:
        return SessionHandler(self.settings, self.rules.tuning)

    # in the event loop

    async def recover(self) -> None:
        """Take up what the ledger holds: open alerts, and steps that were not delivered. Waits for the store."""
        self._loop = asyncio.get_running_loop()
        alerts, settled = await self._patiently(self._from_ledger)
        await self._sort(alerts, settled)
        self.recovered = True
        LOG.info("alerts taken up", steps=len(alerts), open=len(self.book.open))

    async def receive(self, alerts: Sequence[AlertEvent]) -> None:
        """Steps from the topic: sent, kept back, or known already."""
        await self._sort(alerts, {})

    async def _sort(self, alerts: Sequence[AlertEvent], settled: dict[str, set[str]]) -> None:
        named = (self.book.named(alert) for alert in alerts)
        verdicts = [(alert, self.book.take(alert)) for alert in named]
        kept_back = [
            Settled(courier.sink.name, alert.event_id, alert.alert_id, _OUTCOME_OF[verdict], 0)
            for alert, verdict in verdicts
            for courier in self.couriers
            if verdict in _OUTCOME_OF and alert.event_id not in settled.get(courier.sink.name, ())
        ]
        if kept_back:
            await self.settle(kept_back)
        for courier in self.couriers:
            done = settled.get(courier.sink.name, set())
            courier.add([a for a, verdict in verdicts if verdict == "send" and a.event_id not in done])

    async def settle(self, outcomes: Sequence[Settled]) -> None:
        """Write what became of steps; waits for the store. A dead letter goes to its topic first."""
        await self._patiently(lambda: self._write(outcomes))

    async def catch_up(self) -> None:
        """Queue what had no room and waits in the ledger."""
        for courier in self.couriers:
            if courier.behind and courier.room:
                alerts, settled = await self._patiently(self._from_ledger)
                done = settled[courier.sink.name] | courier.waiting()
                courier.behind = False
                courier.add([alert for alert in alerts if alert.event_id not in done])

    async def repeat(self) -> None:
        """Tell Alertmanager of every open alert."""
        firing = [one.first for one in self.book.firing()]
        for courier in self.couriers:
            if courier.sink.name == "alertmanager" and firing:
                await courier.repeat(firing)

    async def decide(self, authorization: str, body: bytes) -> Answer:
        """What a person decided about open alerts goes into the log. Raises BrokerUnavailableError."""
        known = {alert_id: one.first for alert_id, one in self.book.open.items()}
        return await self._authorised(authorization, lambda: decided(self.settings, known, body, wall_clock_ms()))

    async def mute(self, authorization: str, body: bytes) -> Answer:
        """Maintenance that a person announced goes into the log. Raises BrokerUnavailableError."""
        return await self._authorised(authorization, lambda: muted(self.settings, body, wall_clock_ms()))

    async def _authorised(self, authorization: str, work: Callable[[], Answer]) -> Answer:
        denied = refused(self.settings, authorization)
        return await asyncio.get_running_loop().run_in_executor(None, work) if denied is None else denied

    async def tick(self) -> None:
        """Write the time into the log."""
        await asyncio.get_running_loop().run_in_executor(None, self.ticker.tick)

    async def refresh(self) -> None:
        """Take in new reference data; an outage waits for the next round."""
        await asyncio.get_running_loop().run_in_executor(self._ledger_thread, self._refresh)

    async def _patiently(self, work: Callable[[], _T]) -> _T:
        """Run in the ledger's thread, again after each outage."""
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._ledger_thread, work)
            except (StoreUnavailableError, BrokerUnavailableError) as outage:
                LOG.warning("waiting", reason=outage.message)
                await asyncio.sleep(_OUTAGE_WAIT_S)

    # in the ledger's thread

    def _from_ledger(self) -> tuple[list[AlertEvent], dict[str, set[str]]]:
        pa.array([0])  # its first use imports pandas, if there is one: seconds on a busy machine, before feeds begin
        with Store(self.settings) as store:
            self.places.refresh(store)
            ledger = WatchLedger(store)
            newest_ms = int(store.scalar("SELECT toUnixTimestamp64Milli(max(time)) FROM all_alerts") or 0)
            since_ms = max(0, newest_ms - int(self.rules.delivery.oldest_h * 3_600_000))
            settled = {courier.sink.name: ledger.settled(courier.sink.name) for courier in self.couriers}
            return ledger.alerts(since_ms), settled

    def _write(self, outcomes: Sequence[Settled]) -> None:
        dead = [outcome for outcome in outcomes if outcome.outcome == "dead"]
        with Store(self.settings) as store:
            ledger = WatchLedger(store)
            if dead:
                self._bury(ledger, dead)
            ledger.settle(outcomes)

    def _bury(self, ledger: WatchLedger, dead: Sequence[Settled]) -> None:
        with Sender(self.settings) as sender:
            for one in dead:
                LOG.error("alert not delivered", sink=one.sink, alert=one.alert_id, reason=one.detail)
                steps = {step.event_id: step for step in ledger.alert(one.alert_id)}
                headers: list[tuple[str, str | bytes | None]] = [
                    ("reason", f"not delivered to {one.sink}".encode()),
                    ("detail", one.detail.encode()[:500]),
                ]
                body = encode(steps[one.event_id]) if one.event_id in steps else one.event_id.encode()
                sender.send(topics.DEAD_LETTERS, body, one.alert_id.encode(), headers=headers)

    def _refresh(self) -> None:
        try:
            with Store(self.settings) as store:
                self.places.refresh(store)
        except StoreUnavailableError as outage:
            LOG.warning("reference data waits", reason=outage.message)

    # the end

    def stop(self) -> None:
        """After the feeds and couriers have ended."""
        self._ledger_thread.shutdown(wait=True, cancel_futures=True)
        self.ticker.close()

    def trouble(self) -> list[str]:
        """What does not work now, one line each."""
        found = [f"{feed.topic}: {feed.trouble}" for feed in self.feeds if feed.trouble]
        found += [f"sweep: {self.sweep.trouble}"] if self.sweep.trouble else []
        found += [f"ticks: {self.ticker.trouble}"] if self.ticker.trouble else []
        found += [f"{courier.sink.name}: {courier.trouble}" for courier in self.couriers if courier.trouble]
        return found

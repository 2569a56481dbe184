"""The Faust application of `wattrate watch`: life cycle, timers and pages. The one importer of faust and mode.

Kafka itself is read and written through `pipeline.kafka` in threads (docs/watch.md says why), so Faust starts without
its own consumer and producer.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import faust
from faust.app.base import BootStrategy
from faust.web import View
from faust.web.base import BlueprintManager
from mode import Service, Worker

from pipeline.errors import BrokerUnavailableError, WattrateError
from pipeline.log import Log
from pipeline.settings import Settings
from pipeline.watch import pages
from pipeline.watch.courier import Courier
from pipeline.watch.decisions import Answer
from pipeline.watch.feed import Feed
from pipeline.watch.rules import Rules
from pipeline.watch.watch import Watch
from pipeline.watch.watchdog import Verdict, Watched

LOG = Log("watch")
_LOOK_S = 1.0
_STOP_S = 15.0


class _WithoutKafka(BootStrategy):
    """No consumer and no producer of Faust's own."""

    enable_kafka = False
    enable_kafka_consumer = False
    enable_kafka_producer = False


class Parts(Service):
    """Runs the feeds and couriers, looks after them, and ends them in order."""

    def __init__(self, watch: Watch, **options: Any) -> None:
        self.watch = watch
        self.restarts = 0
        self.failure: BaseException | None = None
        self._watched = {feed.topic: Watched(feed.topic) for feed in watch.feeds}
        self._watched["sweep"] = Watched("sweep", silent_s=300.0)
        self._deliveries: dict[str, asyncio.Task[None]] = {}
        super().__init__(**options)

    @Service.task
    async def _live(self) -> None:
        """Recover, start, look after."""
        await self.watch.recover()
        for courier in self.watch.couriers:
            self._deliver(courier)
        for feed in self.watch.feeds:
            feed.start()
        self.watch.sweep.start()
        while not self.should_stop:
            await self.sleep(_LOOK_S)
            await self._look()

    def _deliver(self, courier: Courier) -> None:
        self._deliveries[courier.sink.name] = asyncio.create_task(courier.run(), name=courier.sink.name)

    async def _look(self) -> None:
        await self.watch.catch_up()
        for feed in self.watch.feeds:
            await self._judge(feed)
        await self._judge_sweep()
        for courier in self.watch.couriers:
            task = self._deliveries[courier.sink.name]
            if task.done() and not self.should_stop:
                LOG.error("courier ended", sink=courier.sink.name, error=str(task.exception()))
                self.restarts += 1
                self._deliver(courier)

    async def _judge(self, feed: Feed) -> None:
        verdict = self._watched[feed.topic].judge(
            time.monotonic(), feed.beat_s, feed.progress_s, feed.lag, failed=feed.failure is not None
        )
        await self._act(verdict, feed.topic, feed.failure, feed.restart)

    async def _judge_sweep(self) -> None:
        sweep, now = self.watch.sweep, time.monotonic()
        verdict = self._watched["sweep"].judge(now, sweep.beat_s, now, 0, failed=sweep.failure is not None)
        await self._act(verdict, "sweep", sweep.failure, sweep.start)

    async def _act(
        self, verdict: Verdict, part: str, failure: BaseException | None, restart: Callable[[], None]
    ) -> None:
        if verdict == "give_up":
            self.failure = failure or WattrateError(f"{part} hangs again and again; see the log above")
            LOG.error("giving up", part=part, reason=repr(self.failure))
            await self.crash(self.failure)
        elif verdict == "restart":
            LOG.error("restarting", part=part, reason=repr(failure) if failure else "no progress")
            self.restarts += 1
            await asyncio.to_thread(restart)

    async def on_stop(self) -> None:
        """Feeds and sweep finish and save, then couriers, then connections."""
        ends = [*(feed.stop for feed in self.watch.feeds), self.watch.sweep.stop]
        await asyncio.gather(*(asyncio.to_thread(stop, _STOP_S) for stop in ends))
        for task in self._deliveries.values():
            task.cancel()
        await asyncio.gather(*self._deliveries.values(), return_exceptions=True)
        await asyncio.to_thread(self.watch.stop)


def make_app(watch: Watch, loop: asyncio.AbstractEventLoop) -> tuple[faust.App, Parts]:
    """The application around the parts, to run in `loop`; nothing runs yet."""
    settings = watch.settings
    app = faust.App(
        "wattrate-watch",
        broker="kafka://127.0.0.1:9",  # never contacted
        store="memory://",
        datadir=Path(gettempdir()) / "wattrate-watch",  # nothing is written there: no tables
        web_bind=settings.watch_host,
        web_host=settings.watch_host,
        web_port=settings.watch_port,
        topic_disable_leader=True,
        loop=loop,
    )
    app.boot_strategy = _WithoutKafka(app)
    app.web.blueprints = BlueprintManager([])  # no pages but ours
    parts = Parts(watch, loop=loop)
    app.service(parts)  # type: ignore[arg-type]  # takes instances too
    _timers(app, watch)
    _pages(app, watch, parts)
    return app, parts


def _timers(app: faust.App, watch: Watch) -> None:
    if watch.ticks:
        app.timer(watch.settings.tick_interval_s, on_leader=False)(watch.tick)
    app.timer(watch.rules.delivery.repeat_s)(watch.repeat)
    app.timer(30.0)(watch.refresh)


def _pages(app: faust.App, watch: Watch, parts: Parts) -> None:
    @app.page("/healthz", name="healthz")
    async def healthz(view: Any, request: Any) -> Any:
        state = pages.health(watch, parts.restarts)
        return view.json(state, status=200 if state["ok"] else 503)

    @app.page("/metrics", name="metrics")
    async def metrics(view: Any, request: Any) -> Any:
        return view.text(pages.metrics(watch, parts.restarts), content_type="text/plain")

    @app.page("/alerts", name="alerts")
    async def alerts(view: Any, request: Any) -> Any:
        return view.json(pages.open_alerts(watch))

    @app.page("/decisions", name="decisions")
    class Decisions(View):
        """POST acknowledges or resolves alerts."""

        async def post(self, request: Any) -> Any:
            return await _answer(self, request, watch.decide)

    @app.page("/mutes", name="mutes")
    class Mutes(View):
        """GET lists mutes, POST adds one."""

        async def get(self, request: Any) -> Any:
            return self.json(pages.mutes(watch))

        async def post(self, request: Any) -> Any:
            return await _answer(self, request, watch.mute)

    @app.page("/", name="home")
    async def home(view: Any, request: Any) -> Any:
        return view.html(pages.page(watch, parts.restarts))


async def _answer(view: View, request: Any, work: Callable[[str, bytes], Awaitable[Answer]]) -> Any:
    """A decision: checked and written into the log, or why not."""
    try:
        answer = await work(request.headers.get("Authorization", ""), await view.read_request_content(request))
    except BrokerUnavailableError as outage:
        answer = Answer(503, {"error": outage.message})
    return view.json(answer.body, status=answer.status)


def run(settings: Settings, rules: Rules, *, ticks: bool) -> None:
    """Run until SIGTERM or SIGINT. Raises what made it give up."""
    watch = Watch(settings, rules, ticks=ticks)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app, parts = make_app(watch, loop)
    worker = Worker(app, loglevel="CRITICAL", quiet=True, override_logging=False, redirect_stdouts=False, loop=loop)
    LOG.info("watch runs", page=f"http://{settings.watch_host}:{settings.watch_port}/", ticks=ticks)
    try:
        worker.execute_from_commandline()
    except SystemExit as end:
        if parts.failure is not None:
            raise parts.failure from end
    LOG.info("watch ended")

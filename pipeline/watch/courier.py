"""Delivers alerts to one sink: batches, paced, retried with back-off, given up in the end. The one importer of aiohttp.

An alert step leaves the queue when it is settled: delivered, or dead after `give_up_s` or a refusal that will not
change. What is in the queue when the process dies is in the ledger too, without a delivery row, and is taken up again.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import aiohttp

from pipeline.anomaly.events import AlertEvent
from pipeline.log import Log
from pipeline.watch.ledger import Settled
from pipeline.watch.rules import Delivery
from pipeline.watch.sinks import Post, Sink

LOG = Log("watch")
_QUEUE_MAX: Final = 20_000
_WORTH_RETRYING: Final = frozenset({408, 425, 429})

Settle = Callable[[Sequence[Settled]], Awaitable[None]]


class Answer(NamedTuple):
    """What came of one request."""

    delivered: bool
    final: bool  # trying again would change nothing
    detail: str


class Courier:
    """One sink's queue. All methods run in the event loop."""

    def __init__(self, sink: Sink, delivery: Delivery, settle: Settle) -> None:
        """`settle` writes outcomes to the ledger (and dead letters); it returns when they are there."""
        self.sink, self._delivery, self._settle = sink, delivery, settle
        self._queue: deque[tuple[AlertEvent, float]] = deque()
        self._filled = asyncio.Event()
        self.behind = False  # steps did not fit in: they wait in the ledger
        self.counts: Counter[str] = Counter()
        self.beat_s = time.monotonic()
        self.trouble = ""  # why the last request failed; "" = it did not

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, alerts: Sequence[AlertEvent]) -> None:
        """Queue steps. What does not fit waits in the ledger: `behind` says so."""
        wanted = [alert for alert in alerts if self.sink.wants(alert)]
        room = _QUEUE_MAX - len(self._queue)
        self.behind |= len(wanted) > room
        now = time.monotonic()
        self._queue.extend((alert, now) for alert in wanted[:room])
        self._filled.set()

    def waiting(self) -> set[str]:
        """Ids of the steps in the queue."""
        return {alert.event_id for alert, _ in self._queue}

    @property
    def room(self) -> bool:
        """Whether the queue is half empty."""
        return len(self._queue) < _QUEUE_MAX // 2

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._delivery.timeout_s)) as session:
            failures = 0
            while True:
                batch = await self._next()
                answer = await self._send(session, [alert for alert, _ in batch])
                failures = 0 if answer.delivered or answer.final else failures + 1
                await self._conclude(session, batch, answer, failures)
                await asyncio.sleep(self._pause_s(failures))

    async def repeat(self, alerts: Sequence[AlertEvent]) -> None:
        """Tell the sink again of what is still open; a failure is no loss, the next round repeats it."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._delivery.timeout_s)) as session:
            for first in range(0, len(alerts), self._delivery.alerts_per_post):
                answer = await self._send(session, alerts[first : first + self._delivery.alerts_per_post])
                self.counts["repeated" if answer.delivered else "repeat_failed"] += 1

    async def _next(self) -> list[tuple[AlertEvent, float]]:
        while not self._queue:
            self._filled.clear()
            self.beat_s = time.monotonic()
            try:
                await asyncio.wait_for(self._filled.wait(), 1.0)
            except TimeoutError:
                continue
        return list(self._queue)[: self._delivery.alerts_per_post]

    async def _conclude(
        self, session: aiohttp.ClientSession, batch: list[tuple[AlertEvent, float]], answer: Answer, failures: int
    ) -> None:
        if answer.delivered:
            await self._leave(batch, "delivered", "")
        elif answer.final and len(batch) > 1:
            await self._one_by_one(session, batch)  # one of them is refused: its neighbours go through
        elif answer.final:
            await self._leave(batch, "dead", answer.detail)
        else:
            given_up = [one for one in batch if time.monotonic() - one[1] > self._delivery.give_up_s]
            await self._leave(given_up, "dead", f"no success in {self._delivery.give_up_s:g} s: {answer.detail}")
            if failures == 1:
                LOG.warning("alerts wait", sink=self.sink.name, waiting=len(self._queue), reason=answer.detail)

    async def _one_by_one(self, session: aiohttp.ClientSession, batch: list[tuple[AlertEvent, float]]) -> None:
        for one in batch:
            answer = await self._send(session, [one[0]])
            if answer.delivered or answer.final:
                await self._leave([one], "delivered" if answer.delivered else "dead", answer.detail)
            await asyncio.sleep(self._pause_s(0))

    async def _leave(self, batch: list[tuple[AlertEvent, float]], outcome: str, detail: str) -> None:
        if not batch:
            return
        dead = outcome == "dead"
        await self._settle(
            [
                Settled(self.sink.name, a.event_id, a.alert_id, "dead" if dead else "delivered", detail=detail)
                for a, _ in batch
            ]
        )
        gone = {alert.event_id for alert, _ in batch}
        self._queue = deque(one for one in self._queue if one[0].event_id not in gone)
        self.counts[outcome] += len(batch)

    async def _send(self, session: aiohttp.ClientSession, alerts: Sequence[AlertEvent]) -> Answer:
        answer = await _posted(session, self.sink.post(alerts, time.time_ns() // 1_000_000))
        self.beat_s = time.monotonic()
        self.trouble = "" if answer.delivered else answer.detail
        self.counts["posts"] += 1
        return answer

    def _pause_s(self, failures: int) -> float:
        pace_s = 60.0 / self._delivery.posts_per_minute
        if not failures:
            return 0.0 if not self._queue and pace_s < 0.05 else pace_s
        return max(pace_s, min(self._delivery.first_wait_s * 2.0 ** (failures - 1), self._delivery.longest_wait_s))


async def _posted(session: aiohttp.ClientSession, post: Post) -> Answer:
    try:
        async with session.post(post.url, data=post.body, headers=post.headers, allow_redirects=False) as response:
            text = (await response.content.read(300)).decode("utf-8", "replace")
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Answer(False, False, f"{post.url}: {error or type(error).__name__}")
    if 200 <= status < 300:
        return Answer(True, True, "")
    final = 300 <= status < 500 and status not in _WORTH_RETRYING
    return Answer(False, final, f"{post.url} answered {status}: {text}".strip())

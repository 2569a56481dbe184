"""A log in memory with one consumer group, its readers and producers: what Kafka promises, and no more.

The group is cooperative: a partition is given to its new member when the old one has given it back, or when the old
one was not heard of for the session time-out. A member that was expelled learns of it at its next poll. Deliveries may
be lost to the sender, answers too; what was queued is delivered by a later flush, so records come twice.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from pipeline.archive import KeptMessage
from pipeline.errors import BrokerUnavailableError, DeliveryError
from pipeline.kafka import Headers, Message
from tests.simulation.schedule import Process, Schedule
from tests.simulation.workload import Record

SESSION_TIMEOUT_S: Final = 6.0
POLL_TIMEOUT_S: Final = 60.0


@dataclass
class Member:
    """What the group knows of a reader."""

    process: Process
    heard_s: float
    polled_s: float
    owned: set[int] = field(default_factory=set)


class SimulatedLog:
    """Partitions of the readings topic, the group, and what was published."""

    def __init__(self, schedule: Schedule, partitions: int) -> None:
        """Empty."""
        self.schedule = schedule
        self.records: dict[int, list[KeptMessage]] = {p: [] for p in range(partitions)}
        self.members: dict[str, Member] = {}
        self.offsets: dict[int, int] = {}
        self.outputs: list[tuple[str, bytes, Headers]] = []
        self.fails: Callable[[str], str] = lambda _what: ""  # of a flush or commit: "", lost, refused, unanswered
        self.committed: Callable[[int, int], None] = lambda _partition, _offset: None
        self.delivered: Callable[[str, bytes, Headers], None] = lambda _topic, _value, _headers: None
        self._numbered = 0

    def append(self, partition: int, record: Record) -> None:
        """One more record."""
        found = self.records[partition]
        found.append(KeptMessage(partition, len(found), record.time_ms, record.key, None, record.value))

    def deliver(self, topic: str, value: bytes, headers: Headers) -> None:
        """One output is on its topic."""
        self.outputs.append((topic, value, headers))
        self.delivered(topic, value, headers)

    # the group

    def join(self, process: Process) -> str:
        """A name in the group."""
        self._numbered += 1
        name = f"{self._numbered:03}-{process.name}"
        self.members[name] = Member(process, self.schedule.now, self.schedule.now)
        return name

    def leave(self, name: str) -> None:
        """At once."""
        self.members.pop(name, None)

    def look(self) -> None:
        """Expel members that were not heard of, or that did not poll."""
        now = self.schedule.now
        for name, member in list(self.members.items()):
            awake = not member.process.dead and member.process.frozen_until <= now
            silent_s = (member.process.frozen_until if awake else now) - member.heard_s
            if silent_s > SESSION_TIMEOUT_S or now - member.polled_s > POLL_TIMEOUT_S:
                self.leave(name)
            elif awake:
                member.heard_s = now

    def share(self, name: str) -> set[int]:
        """The partitions that a member should have."""
        names = sorted(self.members)
        place = names.index(name)
        return {p for p in self.records if p % len(names) == place}

    def free(self, partition: int) -> bool:
        """Whether no member has it."""
        return all(partition not in member.owned for member in self.members.values())


class SimulatedReader:
    """A consumer of the readings topic; in the group after `subscribe`."""

    def __init__(self, log: SimulatedLog, process: Process) -> None:
        self._log, self._process, self._schedule = log, process, log.schedule
        self._name = ""
        self._held: dict[int, int] = {}  # partition → next offset
        self._paused: set[int] = set()
        self._on_assign: Callable[[list[int]], Mapping[int, int]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Outside any group."""
        self._held = dict(offsets)

    def subscribe(
        self,
        on_assign: Callable[[list[int]], Mapping[int, int]],
        on_revoke: Callable[[list[int]], None],
        on_lost: Callable[[list[int]], None],
    ) -> None:
        """Join the group."""
        self._on_assign, self._on_revoke, self._on_lost = on_assign, on_revoke, on_lost
        self._name = self._log.join(self._process)

    def consume(self, records: int, timeout_s: float) -> list[Message]:
        """Records, or a rebalance, or nothing."""
        self._schedule.step("consume")
        until_s = self._schedule.now + timeout_s
        while True:
            if self._on_assign is not None and self._rebalance():
                return []
            found = self._records(records)
            left_s = until_s - self._schedule.now
            if found or left_s <= 0:
                return found  # type: ignore[return-value]  # as much of a Message as is asked for
            self._schedule.wait(min(left_s, 1.0), self._something)

    def _something(self) -> bool:
        return any(
            offset < len(self._log.records[p]) for p, offset in self._held.items() if p not in self._paused
        )  # fmt: skip

    def _records(self, most: int) -> list[KeptMessage]:
        found: list[KeptMessage] = []
        for partition in sorted(self._held.keys() - self._paused):
            offset = self._held[partition]
            count = self._schedule.dice.randint(1, max(1, most - len(found)))
            taken = self._log.records[partition][offset : offset + count][: most - len(found)]
            self._held[partition] = offset + len(taken)
            found += taken
        return found

    def _rebalance(self) -> bool:
        """One event of the group, as a poll brings it."""
        log = self._log
        log.look()
        member = log.members.get(self._name)
        if member is None:
            gone, self._held = sorted(self._held), {}
            self._paused.clear()
            self._name = log.join(self._process)
            if gone:
                self._on_lost(gone)
            return bool(gone)
        member.polled_s = self._schedule.now
        share = log.share(self._name)
        surplus = sorted(self._held.keys() - share)
        if surplus:
            self._on_revoke(surplus)
            for partition in surplus:
                self._held.pop(partition, None)
                member.owned.discard(partition)
            return True
        new = sorted(p for p in share - self._held.keys() if log.free(p))
        if new and self._on_assign is not None:
            member.owned.update(new)
            self._paused.difference_update(new)
            self._held.update(self._on_assign(new))
            return True
        return False

    def pause(self, partitions: Iterable[int]) -> None:
        """Hand out nothing of these."""
        self._paused.update(partitions)

    def resume(self, partitions: Iterable[int]) -> None:
        """Go on with them."""
        self._paused.difference_update(partitions)

    def seek(self, partition: int, offset: int) -> None:
        """Go on from there."""
        self._held[partition] = offset

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Store the group's offsets."""
        self._schedule.step("commit offsets")
        failing = self._log.fails("commit")
        if failing != "lost":
            for partition, offset in offsets.items():
                self._log.committed(partition, offset)
            self._log.offsets.update(offsets)
        if failing:
            raise BrokerUnavailableError("the simulated group does not answer")

    def high_watermark(self, partition: int) -> int | None:
        """End of the partition."""
        return len(self._log.records[partition])

    def close(self) -> None:
        """Leave the group: what is held is given back first."""
        if self._on_assign is None:
            return
        self._schedule.step("leave the group")
        if self._name in self._log.members:
            if self._held:
                self._on_revoke(sorted(self._held))
            self._log.leave(self._name)
        elif self._held:
            self._on_lost(sorted(self._held))
        self._held = {}


class SimulatedSender:
    """A producer; what it sent is on its topic when a flush says so, or before."""

    def __init__(self, log: SimulatedLog) -> None:
        self._log = log
        self._queued: list[tuple[str, bytes, Headers]] = []

    def send(self, topic: str, value: bytes, key: bytes | None = None, *, headers: Headers | None = None) -> None:
        """Queue one record."""
        self._queued.append((topic, value, headers or []))

    def flush(self) -> None:
        """Deliver what is queued."""
        self._log.schedule.step("publish, before")
        failing = self._log.fails("flush") if self._queued else ""
        if failing == "lost":
            raise BrokerUnavailableError("the simulated broker does not answer; the records stay queued")
        if failing == "refused":
            self._queued.pop(self._log.schedule.dice.randrange(len(self._queued)))
        for topic, value, headers in self._queued:
            self._log.deliver(topic, value, headers)
        self._queued.clear()
        self._log.schedule.step("publish, after")
        if failing == "refused":
            raise DeliveryError("the simulated broker refused a record")
        if failing:
            raise BrokerUnavailableError("the simulated broker's answer was lost")

    def purge(self) -> None:
        """Forget what is queued."""
        self._queued.clear()

    def close(self) -> None:
        """What is queued is lost."""
        self._queued.clear()


def by_topic(outputs: Iterable[tuple[str, bytes, Headers]]) -> dict[str, list[bytes]]:
    """Topic → values, repeats too."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for topic, value, _ in outputs:
        found[topic].append(value)
    return found

"""The one door to Kafka: send with every record confirmed, read by group or by hand, make and describe topics.

Topic names given here are without the prefix. Nothing here retries for ever by itself: an outage is told as
BrokerUnavailableError and the caller waits. Kafka transactions are not used (design: ClickHouse is the commit point).
"""

import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import is_
from typing import Any, Final, Self, TypeVar

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from pipeline.errors import BrokerError, BrokerUnavailableError, DeliveryError, SettingsError, TopicError
from pipeline.kafka_config import client_config
from pipeline.kafka_errors import ALREADY_EXISTS, END, NO_TOPIC, OUTAGE, TOO_SLOW, problem
from pipeline.log import Log
from pipeline.settings import Settings
from pipeline.topics import Topic

__all__ = ["Admin", "Message", "Reader", "Sender"]

LOG: Final = Log("kafka")

_C = TypeVar("_C", Producer, Consumer, AdminClient)
Headers = list[tuple[str, str | bytes | None]]

_MESSAGE_BYTES_MAX: Final = 64 << 20  # of rated usage too: see rated_messages in rate/outputs


def _client(kind: type[_C], config: dict[str, Any]) -> _C:
    try:
        return kind(config)
    except KafkaException as error:
        problem = _kafka_error(error)
        raise SettingsError(f"the Kafka client refuses its settings: {problem.str() if problem else error}") from error


def _problem(error: KafkaError | None, doing: str, settings: Settings) -> BrokerError:
    name, text = (error.name(), error.str()) if error else ("", "failed without a reason")
    return problem(name, text, doing, settings.kafka_bootstrap)


def _kafka_error(error: KafkaException) -> KafkaError | None:
    return error.args[0] if error.args and isinstance(error.args[0], KafkaError) else None


class Sender:
    """An idempotent producer that knows whether each of its records was confirmed.

    Records wait in memory while the broker is away; `flush` says so. Not for use by several threads at once.
    """

    def __init__(self, settings: Settings, *, linger_ms: float = 5.0) -> None:
        self._settings = settings
        self._failure: DeliveryError | None = None
        self._partitions: dict[str, int] = {}
        self.sent = 0
        self._producer = _client(
            Producer,
            client_config(
                settings,
                **{
                    "enable.idempotence": True,
                    "partitioner": "murmur2_random",
                    "linger.ms": linger_ms,
                    "message.timeout.ms": 0,  # an outage delays a record, it never drops one
                    "message.max.bytes": _MESSAGE_BYTES_MAX,
                    "queue.buffering.max.messages": 500_000,
                    "queue.buffering.max.kbytes": 262_144,
                    "delivery.report.only.error": True,  # confirmed = sent − failed − still queued
                    "on_delivery": self._report,
                },
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Confirm all when the block ended well; drop what is queued when it did not."""
        if kind is None:
            self.flush()
        else:
            self._producer.purge()
        self._producer.close()

    def send(
        self,
        topic: str,
        value: bytes,
        key: bytes | None = None,
        *,
        partition: int = -1,
        headers: Headers | None = None,
        timestamp_ms: int = 0,
    ) -> None:
        """Queue one record; waits while the queue is full. Raises DeliveryError for an earlier record that failed."""
        name = self._settings.topic(topic)
        deadline = time.monotonic() + self._settings.kafka_timeout_s
        while True:
            try:
                self._producer.produce(name, value, key, partition, timestamp=timestamp_ms, headers=headers)
                break
            except BufferError:
                self._producer.poll(0.05)
                self._check(deadline, f"sending to {name}: the queue stays full")
            except KafkaException as error:
                raise _problem(_kafka_error(error), f"sending to {name}", self._settings) from error
        self.sent += 1
        if not self.sent % 1024:
            self._producer.poll(0)
            self._raise_failure()

    def flush(self, timeout_s: float | None = None) -> None:
        """Return once every record sent so far is confirmed.

        Raises DeliveryError when one was refused, BrokerUnavailableError when some still wait after `timeout_s`
        (kafka_timeout_s by default); they stay queued and a later flush may succeed.
        """
        left = self._producer.flush(self._settings.kafka_timeout_s if timeout_s is None else timeout_s)
        self._raise_failure()
        if left:
            raise BrokerUnavailableError(
                f"Kafka at {self._settings.kafka_bootstrap} has not confirmed {left} records; is it running?"
            )

    def broadcast(self, topic: str, value: bytes) -> None:
        """Send one control record to every partition of a topic and wait until all are confirmed."""
        for partition in range(self.partition_count(topic)):
            self.send(topic, value, partition=partition)
        self.flush()

    def partition_count(self, topic: str) -> int:
        """Partitions of the topic, asked once. Raises TopicError when there is no such topic."""
        if topic not in self._partitions:
            self._partitions[topic] = _partition_counts(self._producer, self._settings, [topic])[topic]
        return self._partitions[topic]

    def purge(self) -> None:
        """Forget what is queued and not confirmed: what a worker does that lost its partitions."""
        self._producer.purge()
        self._producer.poll(0)
        self._failure = None

    def close(self) -> None:
        """Let go of the connection without waiting; `flush` first."""
        self._producer.close()

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = DeliveryError(
                f"Kafka at {self._settings.kafka_bootstrap} refused a record of {message.topic()}: {error.str()}"
            )

    def _check(self, deadline: float, doing: str) -> None:
        self._raise_failure()
        if time.monotonic() > deadline:
            raise BrokerUnavailableError(f"Kafka at {self._settings.kafka_bootstrap} does not answer ({doing})")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


class Reader:
    """A consumer of one topic whose caller decides every start offset and every commit.

    `assign` reads partitions by hand; `subscribe` joins the group. Events that are not records become errors.
    """

    def __init__(self, settings: Settings, topic: str, *, group_id: str | None = None, **options: Any) -> None:
        self._settings = settings
        self.topic = settings.topic(topic)
        strategy = settings.kafka_options.get("partition.assignment.strategy", "cooperative-sticky")
        self._cooperative = strategy == "cooperative-sticky"
        self._consumer = _client(
            Consumer,
            client_config(
                settings,
                **{
                    "group.id": group_id or settings.group_id,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "error",
                    "partition.assignment.strategy": strategy,
                    "session.timeout.ms": int(settings.session_timeout_s * 1000),
                    "heartbeat.interval.ms": max(1, int(settings.session_timeout_s * 1000 / 6)),
                    "max.poll.interval.ms": int(settings.max_poll_interval_s * 1000),
                    "queued.min.messages": 100_000,
                    "queued.max.messages.kbytes": 32_768,
                    "fetch.queue.backoff.ms": 10,  # the default rests a full second once the queue was full
                    "fetch.wait.max.ms": 100,
                    "fetch.message.max.bytes": 8 << 20,
                    "receive.message.max.bytes": 128 << 20,
                    "message.max.bytes": _MESSAGE_BYTES_MAX,
                    **options,
                },
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read these partitions from these offsets, outside any group."""
        self._consumer.assign(self._positions(offsets))

    def subscribe(
        self,
        on_assign: Callable[[list[int]], Mapping[int, int]],
        on_revoke: Callable[[list[int]], None],
        on_lost: Callable[[list[int]], None],
    ) -> None:
        """Join the group. `on_assign` gets the new partitions and answers where each starts (partition → offset).

        The callbacks run inside `consume` or `close`; what they raise comes out of there.
        """

        def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            new = [p.partition for p in partitions]
            starts: list[TopicPartition] = []
            try:
                starts = self._positions(on_assign(new)) if new or not self._cooperative else []
            finally:
                (consumer.incremental_assign if self._cooperative else consumer.assign)(starts)

        def revoked(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            try:
                on_revoke([p.partition for p in partitions])
            finally:  # what was raised comes out of `consume`; a client that leaves unanswered holds up the group
                self._release(partitions)

        def lost(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            try:
                on_lost([p.partition for p in partitions])
            finally:
                self._release(partitions)

        self._consumer.subscribe([self.topic], on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def _release(self, partitions: list[TopicPartition]) -> None:
        if self._cooperative:
            self._consumer.incremental_unassign(partitions)
        else:
            self._consumer.unassign()

    def consume(self, records: int, timeout_s: float) -> list[Message]:
        """Up to `records` records, waiting `timeout_s` at most; none during an outage.

        Raises RetentionGapError when the next offset is gone, TopicError when the topic is, BrokerError otherwise.
        """
        try:
            messages = self._consumer.consume(records, timeout_s)
        except KafkaException as error:
            raise _problem(_kafka_error(error), f"reading {self.topic}", self._settings) from error
        if all(map(is_, map(Message.error, messages), repeat(None))):
            return messages
        return list(self._records(messages))

    def _records(self, messages: Iterable[Message]) -> Iterable[Message]:
        for message in messages:
            error = message.error()
            if error is None:
                yield message
            elif error.name() == TOO_SLOW:
                LOG.warning("too slow: max_poll_interval_s passed between two polls; joining again", why=error.str())
            elif error.name() not in OUTAGE and error.name() != END:
                raise _problem(error, f"reading {self.topic}, partition {message.partition()}", self._settings)

    def pause(self, partitions: Iterable[int]) -> None:
        """Hand out no more records of these partitions until `resume`; keep calling `consume`."""
        self._consumer.pause([TopicPartition(self.topic, p) for p in partitions])

    def resume(self, partitions: Iterable[int]) -> None:
        """Go on with these partitions."""
        self._consumer.resume([TopicPartition(self.topic, p) for p in partitions])

    def seek(self, partition: int, offset: int) -> None:
        """Go on with `offset` in an assigned partition."""
        try:
            self._consumer.seek(TopicPartition(self.topic, partition, offset))
        except KafkaException as error:
            raise _problem(_kafka_error(error), f"seeking in {self.topic}", self._settings) from error

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Store the next offsets (partition → offset) with the group. A hint only: recovery asks the ledger."""
        try:
            self._consumer.commit(offsets=self._positions(offsets), asynchronous=False)
        except KafkaException as error:
            raise _problem(_kafka_error(error), f"committing to group of {self.topic}", self._settings) from error

    def committed(self, partitions: Sequence[int]) -> dict[int, int]:
        """The group's next offsets; a partition without one is absent."""
        wanted = [TopicPartition(self.topic, p) for p in partitions]
        try:
            found = self._consumer.committed(wanted, timeout=self._settings.kafka_timeout_s)
        except KafkaException as error:
            raise _problem(_kafka_error(error), f"asking the group of {self.topic}", self._settings) from error
        return {p.partition: p.offset for p in found if p.offset >= 0}

    def assignment(self) -> list[int]:
        """The partitions that this reader has now."""
        return sorted(p.partition for p in self._consumer.assignment())

    def high_watermark(self, partition: int) -> int | None:
        """End of the partition as the last fetch told it; None before the first fetch."""
        _, high = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
        return None if high == OFFSET_INVALID else high

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _positions(self, offsets: Mapping[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic, partition, offset) for partition, offset in offsets.items()]


class Admin:
    """What there is on the brokers, and making it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout = settings.kafka_timeout_s
        self._client = _client(AdminClient, client_config(settings))

    def ping(self, timeout_s: float | None = None) -> int:
        """Number of brokers. Raises BrokerUnavailableError when none answers in time."""
        return len(_metadata(self._client, self._settings, timeout_s).brokers)

    def partition_counts(self) -> dict[str, int]:
        """Topic (as on the brokers, with prefix) → number of partitions, of all topics."""
        return {name: len(t.partitions) for name, t in _metadata(self._client, self._settings).topics.items()}

    def partition_count(self, topic: str) -> int:
        """Partitions of one topic. Raises TopicError when it is missing."""
        return _partition_counts(self._client, self._settings, [topic])[topic]

    def create_topics(self, topics: Iterable[Topic], partitions: int) -> list[str]:
        """Make the topics that are missing and wait until they can be used; the names made.

        Raises TopicError when one is there with another number of partitions than asked for: state is per partition.
        """
        wanted = {self._settings.topic(t.name): (t, t.partitions or partitions) for t in topics}
        present = self.partition_counts()
        self._refuse_other_counts({name: count for name, (_, count) in wanted.items()}, present)
        new = [
            NewTopic(name, count, self._settings.replication, config=topic.config)
            for name, (topic, count) in wanted.items()
            if name not in present
        ]
        for name, future in (self._client.create_topics(new, operation_timeout=self._timeout) if new else {}).items():
            self._created(name, future)
        self._await_topics(wanted)
        return [topic.topic for topic in new]

    def _created(self, name: str, future: Any) -> None:
        try:
            future.result(self._timeout)
        except KafkaException as error:
            cause = _kafka_error(error)
            if cause is None or cause.name() != ALREADY_EXISTS:
                raise _problem(cause, f"making topic {name}", self._settings) from error

    def _refuse_other_counts(self, wanted: Mapping[str, int], present: Mapping[str, int]) -> None:
        for name, count in wanted.items():
            if present.get(name, count) != count:
                raise TopicError(
                    f"topic {name} at {self._settings.kafka_bootstrap} has {present[name]} partitions, settings ask "
                    f"for {count}; state is per partition: drain into a new topic or set the setting to {present[name]}"
                )

    def _await_topics(self, names: Iterable[str]) -> None:
        """Brokers tell of a new topic only after a moment."""
        deadline = time.monotonic() + self._timeout
        missing = set(names)
        while missing := missing - self._led():
            if time.monotonic() > deadline:
                raise BrokerUnavailableError(
                    f"Kafka made {', '.join(sorted(missing))} but does not lead them yet; wait"
                )
            time.sleep(0.05)

    def _led(self) -> set[str]:
        topics = _metadata(self._client, self._settings).topics
        return {
            name for name, t in topics.items() if t.partitions and all(p.leader >= 0 for p in t.partitions.values())
        }

    def delete_topics(self, topics: Iterable[str]) -> None:
        """Delete topics and their records; missing ones are fine."""
        for name, future in self._client.delete_topics([self._settings.topic(t) for t in topics]).items():
            try:
                future.result(self._timeout)
            except KafkaException as error:
                cause = _kafka_error(error)
                if cause is None or cause.name() not in NO_TOPIC:
                    raise _problem(cause, f"deleting topic {name}", self._settings) from error

    def log_id(self, topic: str) -> int:
        """64 bits of the topic's UUID (its halves xored): another id whenever the topic is made anew.

        It survives restarts of Kafka; the embedded broker forgets its log and so has a new one after a restart.
        """
        self.partition_count(topic)  # a describe of a missing topic would make it on some brokers
        name = self._settings.topic(topic)
        try:
            described = self._client.describe_topics(TopicCollection([name]))[name].result(self._timeout)
        except KafkaException as error:
            raise _problem(_kafka_error(error), f"describing {name}", self._settings) from error
        uuid = described.topic_id
        high, low = uuid.get_most_significant_bits(), uuid.get_least_significant_bits()
        halves = struct.unpack("<QQ", struct.pack("<qq", _signed(high), _signed(low)))
        return int(halves[0] ^ halves[1])

    def start_offsets(self, topic: str) -> dict[int, int]:
        """Partition → oldest offset that is still in the log."""
        name, count = self._settings.topic(topic), self.partition_count(topic)
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return self._oldest(name, count)
            except BrokerUnavailableError:  # a new topic's leaders take a moment to know that they are
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _oldest(self, name: str, count: int) -> dict[int, int]:
        oldest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
        asked = self._client.list_offsets({TopicPartition(name, p): oldest for p in range(count)})
        try:
            return {p.partition: future.result(self._timeout).offset for p, future in asked.items()}
        except KafkaException as error:
            raise _problem(_kafka_error(error), f"asking offsets of {name}", self._settings) from error

    def end_offsets(self, topic: str, known: Mapping[int, int] | None = None) -> dict[int, int]:
        """Partition → offset after its last record, taken from a fetch: the embedded broker answers too low otherwise.

        `known` may name an offset per partition that is surely not beyond the end, which saves reading from the start.
        """
        starts = {**self.start_offsets(topic), **(known or {})}
        options = {"enable.partition.eof": True, "fetch.wait.max.ms": 10, "fetch.message.max.bytes": 4096}
        with Reader(self._settings, topic, group_id="wattrate-end", **options) as reader:
            reader.assign(starts)
            ends: dict[int, int] = {}
            deadline = time.monotonic() + self._timeout
            while len(ends) < len(starts):
                if time.monotonic() > deadline:
                    raise BrokerUnavailableError(
                        f"Kafka at {self._settings.kafka_bootstrap} does not tell the end of {topic}"
                    )
                reader.consume(1, 0.05)
                new = {p: reader.high_watermark(p) for p in starts.keys() - ends.keys()}
                found = {p: end for p, end in new.items() if end is not None}
                ends.update(found)
                reader.pause(found)
            return ends


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _metadata(client: AdminClient | Producer, settings: Settings, timeout_s: float | None = None) -> Any:
    try:
        return client.list_topics(timeout=settings.kafka_timeout_s if timeout_s is None else timeout_s)
    except KafkaException as error:
        raise _problem(_kafka_error(error), "asking for its topics", settings) from error


def _partition_counts(client: AdminClient | Producer, settings: Settings, topics: Iterable[str]) -> dict[str, int]:
    known = _metadata(client, settings).topics
    counts: dict[str, int] = {}
    for topic in topics:
        name = settings.topic(topic)
        if name not in known or not known[name].partitions:
            raise TopicError(f"Kafka at {settings.kafka_bootstrap} has no topic {name}; run `wattrate init`")
        counts[topic] = len(known[name].partitions)
    return counts

"""What wattrate needs of a broker, held on the embedded one and on Apache Kafka; and what each can't do, by test."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline.embedded.apache_kafka import ApacheKafka
from pipeline.embedded.processes import free_port
from pipeline.errors import BrokerError, BrokerUnavailableError, DeliveryError, RetentionGapError, TopicError
from pipeline.kafka import Admin, Message, Reader, Sender
from pipeline.settings import Settings
from pipeline.topics import READINGS, TARIFFS, TOPICS, Topic
from tests.contract.conftest import Broker

PARTITIONS = 4
ONE = [t for t in TOPICS if t.name == READINGS]


@pytest.fixture
def admin(settings: Settings) -> Admin:
    """With the readings topic made."""
    found = Admin(settings)
    found.create_topics(ONE, PARTITIONS)
    return found


def send(settings: Settings, count: int, **more: Any) -> None:
    with Sender(settings) as sender:
        for i in range(count):
            sender.send(READINGS, b"%d" % i, b"CP%d" % (i % 50), **more)


def read(settings: Settings, count: int, starts: Mapping[int, int]) -> list[Message]:
    with Reader(settings, READINGS) as reader:
        reader.assign(starts)
        return collect(reader, count)


def collect(reader: Reader, count: int, timeout_s: float = 20.0) -> list[Message]:
    found: list[Message] = []
    deadline = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < deadline:
        found += reader.consume(1000, 0.1)
    return found


ALL = dict.fromkeys(range(PARTITIONS), 0)


def test_topics_are_made_once_and_keep_their_partition_count(settings: Settings) -> None:
    admin = Admin(settings)
    assert len(admin.create_topics(TOPICS, PARTITIONS)) == len(TOPICS)
    assert admin.create_topics(TOPICS, PARTITIONS) == []
    assert (admin.partition_count(READINGS), admin.partition_count(TARIFFS)) == (PARTITIONS, 1)
    with pytest.raises(TopicError, match="has 4 partitions, settings ask for 8"):
        admin.create_topics(TOPICS, 8)


def test_a_missing_topic_is_named_and_not_made_by_asking(settings: Settings) -> None:
    admin = Admin(settings)
    for ask in (admin.partition_count, admin.log_id, admin.start_offsets):
        with pytest.raises(TopicError, match=r"has no topic .*wattrate init"):
            ask(READINGS)
    assert settings.topic(READINGS) not in admin.partition_counts()


def test_every_record_arrives_once_in_order_with_key_value_headers(settings: Settings, admin: Admin) -> None:
    send(settings, 5000, headers=[("content-type", b"x/y")])
    found = read(settings, 5000, ALL)
    assert sorted(int(m.value() or b"") for m in found) == list(range(5000))
    for partition in range(PARTITIONS):
        mine = [m for m in found if m.partition() == partition]
        assert [m.offset() for m in mine] == list(range(len(mine)))
        assert sorted(mine, key=lambda m: int(m.value() or b"")) == mine
    assert found[0].headers() == [("content-type", b"x/y")]


def test_a_key_goes_to_javas_partition(settings: Settings, admin: Admin) -> None:
    send(settings, 50)
    for message in read(settings, 50, ALL):
        assert message.partition() == (murmur2(message.key() or b"") & 0x7FFFFFFF) % PARTITIONS


def murmur2(data: bytes) -> int:
    """Kafka's Utils.murmur2, as its Java source has it."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def test_a_control_record_reaches_every_partition_with_a_null_key(settings: Settings, admin: Admin) -> None:
    with Sender(settings) as sender:
        sender.broadcast(READINGS, b'{"control":"tick","time_ms":1}')
    found = read(settings, PARTITIONS, ALL)
    assert sorted((m.partition(), m.key(), m.value()) for m in found) == [
        (p, None, b'{"control":"tick","time_ms":1}') for p in range(PARTITIONS)
    ]


def test_a_message_of_twelve_megabytes_passes(settings: Settings, admin: Admin) -> None:
    with Sender(settings) as sender:
        sender.send(READINGS, b"x" * 12_000_000, partition=1)
    assert [len(m.value() or b"") for m in read(settings, 1, {1: 0})] == [12_000_000]


def test_the_ends_of_the_log_are_true_at_any_hint(settings: Settings, admin: Admin) -> None:
    assert admin.end_offsets(READINGS) == ALL
    with Sender(settings) as sender:
        for i in range(3000):
            sender.send(READINGS, b"x" * 100, partition=i % 3)
    true = {0: 1000, 1: 1000, 2: 1000, 3: 0}
    assert admin.end_offsets(READINGS) == true
    assert admin.end_offsets(READINGS, {0: 1000, 1: 500}) == true
    assert admin.start_offsets(READINGS) == ALL


def test_a_log_has_an_id_until_the_topic_is_made_anew(settings: Settings, admin: Admin) -> None:
    first = admin.log_id(READINGS)
    assert 0 < first < 1 << 64 and Admin(settings).log_id(READINGS) == first
    admin.delete_topics([READINGS])
    deadline = time.monotonic() + 10
    while settings.topic(READINGS) in admin.partition_counts() and time.monotonic() < deadline:
        time.sleep(0.05)
    admin.create_topics(ONE, PARTITIONS)
    assert admin.log_id(READINGS) != first


def test_reading_starts_where_it_is_told_pauses_seeks_and_commits(settings: Settings, admin: Admin) -> None:
    with Sender(settings) as sender:
        for i in range(100):
            sender.send(READINGS, b"%d" % i, partition=i % 2)
    with Reader(settings, READINGS) as reader:
        reader.assign({0: 40, 1: 10})
        reader.pause([1])
        assert {m.partition() for m in collect(reader, 10)} == {0}
        reader.resume([1])
        assert [m.offset() for m in collect(reader, 40)] == list(range(10, 50))
        reader.seek(0, 48)
        assert [m.offset() for m in collect(reader, 2)] == [48, 49]
        assert reader.committed([0, 1]) == {}
        reader.commit({0: 50})
        assert reader.committed([0, 1]) == {0: 50}
        assert reader.high_watermark(0) == 50
        assert reader.assignment() == [0, 1]


class Member:
    """A group member in a thread of its own that notes what it is given."""

    def __init__(self, settings: Settings) -> None:
        self.reader = Reader(settings, READINGS)
        self.has: set[int] = set()
        self.lost: list[int] = []
        self.problem: BaseException | None = None
        self.records = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _assigned(self, partitions: list[int]) -> dict[int, int]:
        self.has |= set(partitions)
        return dict.fromkeys(partitions, 0)

    def _revoked(self, partitions: list[int]) -> None:
        self.has -= set(partitions)

    def _run(self) -> None:
        try:
            self.reader.subscribe(self._assigned, self._revoked, self.lost.extend)
            while not self._done.is_set():
                self.records += len(self.reader.consume(1000, 0.05))
            self.reader.close()
        except BaseException as error:  # noqa: BLE001 (told to the test's own thread)
            self.problem = error

    def leave(self) -> None:
        self._done.set()
        self._thread.join(30)
        assert self.problem is None


def eventually(holds: Callable[[], bool], timeout_s: float = 40.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def test_a_group_shares_the_partitions_and_gives_them_back(settings: Settings, admin: Admin) -> None:
    send(settings, 200)
    first = Member(settings)
    assert eventually(lambda: first.has == set(range(PARTITIONS)))
    assert eventually(lambda: first.records == 200)
    second = Member(settings)
    assert eventually(lambda: len(first.has) == 2 and len(second.has) == 2)
    assert first.has | second.has == set(range(PARTITIONS))
    first.leave()
    assert eventually(lambda: second.has == set(range(PARTITIONS)))
    second.leave()
    assert not first.lost and not second.lost


class Leaver(Member):
    """Fails when partitions are first taken from it, and leaves."""

    left = False

    def _revoked(self, partitions: list[int]) -> None:
        super()._revoked(partitions)
        if self.problem is None:
            raise TopicError("leaves in mid-rebalance")

    def _run(self) -> None:
        super()._run()
        self.reader.close()
        self.left = True


@pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)
def test_a_group_goes_on_at_once_when_its_leader_leaves_in_mid_rebalance(settings: Settings, admin: Admin) -> None:
    """Embedded broker's limit: its group may stand still for minutes."""
    patient = replace(settings, session_timeout_s=30.0)
    leader = Leaver(patient)
    assert eventually(lambda: leader.has == set(range(PARTITIONS)))
    other = Member(patient)
    assert eventually(lambda: leader.left)
    assert isinstance(leader.problem, TopicError)
    anew = Member(patient)
    assert eventually(lambda: len(other.has) == 2 and len(anew.has) == 2, patient.session_timeout_s)
    assert other.has | anew.has == set(range(PARTITIONS))
    other.leave()
    anew.leave()


def test_what_a_callback_raises_comes_out_of_consume(settings: Settings, admin: Admin) -> None:
    def refuse(partitions: list[int]) -> dict[int, int]:
        raise TopicError("no claim")

    with Reader(settings, READINGS) as reader:
        reader.subscribe(refuse, lambda _: None, lambda _: None)
        with pytest.raises(TopicError, match="no claim"):
            collect(reader, 1)


def test_an_offset_beyond_the_log_halts_on_kafka_and_is_silent_on_the_embedded_broker(
    settings: Settings, admin: Admin, broker: Broker
) -> None:
    """Embedded broker's limit: it answers nothing, so recovery compares with `end_offsets` instead."""
    with Reader(settings, READINGS) as reader:
        reader.assign({0: 1_000_000})
        if isinstance(broker, ApacheKafka):
            with pytest.raises(RetentionGapError, match="no longer has the next offset"):
                collect(reader, 1, timeout_s=20.0)
        else:
            assert collect(reader, 1, timeout_s=3.0) == []


def test_asking_the_broker_for_the_latest_offset_is_wrong_on_the_embedded_one(
    settings: Settings, admin: Admin, broker: Broker
) -> None:
    """Embedded broker's limit, and the reason for `end_offsets`: should this fail one day, it can be simpler."""
    from confluent_kafka import Consumer, TopicPartition

    with Sender(settings) as sender:
        for _ in range(100):
            sender.send(READINGS, b"x", partition=0)
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": "ask"})
    _, high = consumer.get_watermark_offsets(TopicPartition(settings.topic(READINGS), 0), timeout=10)
    consumer.close()
    assert (high == 100) == isinstance(broker, ApacheKafka)
    assert admin.end_offsets(READINGS)[0] == 100


def test_a_record_that_is_too_large_is_a_delivery_error_on_kafka(settings: Settings, broker: Broker) -> None:
    """Embedded broker's limit: it ignores max.message.bytes and takes the record."""
    Admin(settings).create_topics([Topic(READINGS, 1, {"max.message.bytes": "1000"})], 1)
    with Sender(settings) as sender:
        sender.send(READINGS, b"x" * 5000)
        if isinstance(broker, ApacheKafka):
            with pytest.raises(DeliveryError, match="refused a record"):
                sender.flush()
            sender.purge()
        else:
            sender.flush()


def test_sending_to_a_topic_that_is_not_there(settings: Settings, broker: Broker) -> None:
    with pytest.raises(BrokerError), Sender(replace(settings, kafka_timeout_s=2.0)) as sender:
        sender.broadcast(READINGS, b"x")


def test_nobody_there_is_an_outage_and_nothing_is_dropped(settings: Settings) -> None:
    away = replace(settings, kafka_bootstrap=f"127.0.0.1:{free_port(39999)}", kafka_timeout_s=0.5)
    with pytest.raises(BrokerUnavailableError, match=r"does not answer .*wattrate up"):
        Admin(away).ping()
    sender = Sender(away)
    sender.send(READINGS, b"x")
    for _ in range(2):
        with pytest.raises(BrokerUnavailableError, match="has not confirmed 1 record"):
            sender.flush()
    sender.purge()
    sender.close()
    with Reader(away, READINGS) as reader:
        reader.assign({0: 0})
        assert reader.consume(1, 0.5) == []

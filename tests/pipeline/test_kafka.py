from dataclasses import replace

import pytest

from pipeline.errors import BrokerError, BrokerUnavailableError, RetentionGapError, SettingsError, TopicError
from pipeline.kafka import Admin, Reader, Sender
from pipeline.kafka_config import client_config
from pipeline.kafka_errors import problem
from pipeline.settings import Settings
from pipeline.topics import CDRS, READINGS, is_control


def test_security_settings_and_options_reach_the_client() -> None:
    settings = replace(
        Settings(),
        kafka_bootstrap="b:9093",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_sasl_username="u",
        kafka_sasl_password="p",  # noqa: S106
        kafka_ssl_ca_file="/ca.pem",
        kafka_ssl_cert_file="/c.pem",
        kafka_ssl_key_file="/k.pem",
        kafka_ssl_key_password="q",  # noqa: S106
        kafka_options={"linger.ms": "9", "socket.keepalive.enable": "true"},
    )
    config = client_config(settings, **{"linger.ms": 5})
    assert {k: v for k, v in config.items() if k not in ("client.id", "log.connection.close", "logger")} == {
        "bootstrap.servers": "b:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "u",
        "sasl.password": "p",
        "ssl.ca.location": "/ca.pem",
        "ssl.certificate.location": "/c.pem",
        "ssl.key.location": "/k.pem",
        "ssl.key.password": "q",
        "linger.ms": "9",
        "socket.keepalive.enable": "true",
    }


def test_what_is_not_set_is_not_sent() -> None:
    config = client_config(Settings())
    assert not any(name.startswith(("sasl.", "ssl.")) for name in config)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_TRANSPORT", BrokerUnavailableError),
        ("_ALL_BROKERS_DOWN", BrokerUnavailableError),
        ("NOT_ENOUGH_REPLICAS", BrokerUnavailableError),
        ("_AUTO_OFFSET_RESET", RetentionGapError),
        ("OFFSET_OUT_OF_RANGE", RetentionGapError),
        ("UNKNOWN_TOPIC_OR_PART", TopicError),
        ("TOPIC_AUTHORIZATION_FAILED", BrokerError),
    ],
)
def test_the_librarys_errors_become_ours(name: str, kind: type[BrokerError]) -> None:
    found = problem(name, "said so", "reading x", "b:1")
    assert type(found) is kind and "b:1" in found.message and "reading x" in found.message


def test_an_unknown_option_is_told_by_the_library() -> None:
    with pytest.raises(SettingsError, match=r"refuses its settings: .*no\.such\.option"):
        Sender(replace(Settings(), kafka_options={"no.such.option": "1"}))


def test_a_block_that_raises_sends_nothing_more(ready: Settings) -> None:
    with pytest.raises(ZeroDivisionError), Sender(ready, linger_ms=60_000) as sender:
        sender.send(CDRS, b"x", b"k")
        raise ZeroDivisionError
    assert sum(Admin(ready).end_offsets(CDRS).values()) == 0


def test_a_large_queue_is_emptied_while_it_is_filled(ready: Settings) -> None:
    small = replace(ready, kafka_options={"queue.buffering.max.messages": "1000"})
    with Sender(small) as sender:
        for i in range(20_000):
            sender.send(READINGS, b"x" * 50, b"%d" % i)
        assert sender.sent == 20_000
    assert sum(Admin(ready).end_offsets(READINGS).values()) == 20_000


def test_the_prefix_is_in_every_name(ready: Settings) -> None:
    counts = Admin(ready).partition_counts()
    assert counts[f"{ready.topic_prefix}meter.readings"] == ready.partitions
    with Reader(ready, READINGS) as reader:
        assert reader.topic == f"{ready.topic_prefix}meter.readings"


def test_a_control_record_has_no_key_and_says_so_first() -> None:
    assert is_control(None, b'{"control":"tick","time_ms":1}')
    assert not is_control(b"CP1", b'{"control":"tick"}')
    assert not is_control(None, b'{ "control":"tick"}') and not is_control(None, None)

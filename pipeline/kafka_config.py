"""The settings of every Kafka client: addresses, security, a person's own options last. The library is not here."""

import logging
from typing import Any

from pipeline.settings import Settings


def client_config(settings: Settings, **more: Any) -> dict[str, Any]:
    """librdkafka's names and values: what the settings say, then `more`, then kafka_options."""
    named = {
        "bootstrap.servers": settings.kafka_bootstrap,
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": settings.kafka_sasl_password,
        "ssl.ca.location": settings.kafka_ssl_ca_file,
        "ssl.certificate.location": settings.kafka_ssl_cert_file,
        "ssl.key.location": settings.kafka_ssl_key_file,
        "ssl.key.password": settings.kafka_ssl_key_password,
    }
    config: dict[str, Any] = {key: value for key, value in named.items() if value}
    config.update({"client.id": "wattrate", "log.connection.close": False, "logger": _library_log()})
    config.update(more)
    config.update(settings.kafka_options)
    return config


def _library_log() -> logging.Logger:
    """The library tells every reconnect; its lines are shown only with --debug, outages are told by our errors."""
    logger = logging.getLogger("wattrate.librdkafka")
    logger.setLevel(logging.DEBUG if logging.getLogger("wattrate").level == logging.DEBUG else logging.CRITICAL)
    return logger

"""Names of the topics, their settings at creation, and the record headers. No client code lives here."""

from dataclasses import dataclass
from typing import Final

READINGS: Final = "meter.readings"
TARIFFS: Final = "reference.tariffs"
LOCATIONS: Final = "reference.locations"
TOKENS: Final = "reference.tokens"
RATED_USAGE: Final = "rated.usage"
CDRS: Final = "cdrs"
ALERTS: Final = "alerts"
SESSION_EVENTS: Final = "session.events"
DEAD_LETTERS: Final = "dead.letters"

CONTENT_TYPE: Final = "content-type"
ARROW_STREAM: Final = b"application/vnd.apache.arrow.stream"
CONTROL_PREFIX: Final = b'{"control":'

_LOG = {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"}
_COMPACT = {"cleanup.policy": "compact"}


@dataclass(frozen=True)
class Topic:
    """One topic as `wattrate init` makes it. `partitions` 0 = as many as the readings have."""

    name: str
    partitions: int
    config: dict[str, str]


TOPICS: Final = (
    Topic(READINGS, 0, {**_LOG, "max.message.bytes": "16777216"}),
    Topic(TARIFFS, 1, _COMPACT),
    Topic(LOCATIONS, 1, _COMPACT),
    Topic(TOKENS, 1, _COMPACT),
    Topic(RATED_USAGE, 0, {**_LOG, "max.message.bytes": "67108864"}),
    Topic(CDRS, 0, _LOG),
    Topic(ALERTS, 0, _LOG),
    Topic(SESSION_EVENTS, 0, _LOG),
    Topic(DEAD_LETTERS, 0, _LOG),
)


def is_control(key: bytes | None, value: bytes | None) -> bool:
    """Whether a record of the readings topic is a control record: null key and a value that says so."""
    return key is None and value is not None and value.startswith(CONTROL_PREFIX)

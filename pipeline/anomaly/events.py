"""What the worker tells of sessions and alerts, as the topics `session.events` and `alerts` carry it (JSON)."""

from typing import Literal

import msgspec

Severity = Literal["info", "warning", "critical"]
Action = Literal["opened", "updated", "acknowledged", "resolved"]


class SessionEvent(msgspec.Struct, frozen=True):
    """A session began, ended, or its CDR was credited. `partition` and `offset` name the reading behind it.

    Energy mWh, instants UTC ms; a stop may tell its start too, for readers that missed it.
    """

    event: Literal["start", "stop", "credit"]
    session_key: str
    charge_point_id: str
    connector_id: int
    time_ms: int
    partition: int
    offset: int
    location_id: str = ""
    id_token: str = ""
    latitude: float | str | None = None  # degrees; "" = not known
    longitude: float | str | None = None
    energy_mwh: int | None = None
    start_ms: int | None = None


class AlertEvent(msgspec.Struct, frozen=True):
    """One step in the life of an alert. `alert_id` stays the same from opened to resolved."""

    alert_id: str
    kind: str
    severity: Severity
    action: Action
    charge_point_id: str
    connector_id: int
    session_key: str
    id_token: str
    time_ms: int
    evidence: dict[str, int | float | str]
    partition: int
    offset: int
    line: int
    location_id: str = ""

    @property
    def event_id(self) -> str:
        """The identity of this step: receivers drop repeats by it."""
        return f"{self.alert_id}:{self.action}:{self.partition}-{self.offset}-{self.line:x}"


session_decoder: msgspec.json.Decoder[SessionEvent] = msgspec.json.Decoder(SessionEvent)
alert_decoder: msgspec.json.Decoder[AlertEvent] = msgspec.json.Decoder(AlertEvent)
_encoder = msgspec.json.Encoder()


def encode(event: SessionEvent | AlertEvent) -> bytes:
    """The record's value."""
    return _encoder.encode(event)

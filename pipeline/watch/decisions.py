"""What people decide over HTTP: an alert acknowledged or resolved, a location muted. Checks, then writes into the log.

A request needs `Authorization: Bearer <watch_token>`; without that setting nothing can be decided here. Who decided,
when and why travels in the decision, and the worker writes it as a step of the alert: that is the audit trail.
"""

import hmac
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from pipeline.anomaly.events import AlertEvent
from pipeline.codec.control import Mute
from pipeline.decide import Target, decide, mute, partition_of_location
from pipeline.errors import DocumentError
from pipeline.kafka import Admin, Sender
from pipeline.settings import Settings
from pipeline.topics import READINGS

_Actor = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class DecisionBody(msgspec.Struct, forbid_unknown_fields=True):
    """POST /decisions."""

    action: Literal["acknowledge", "resolve"]
    alert_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=1000)]
    actor: _Actor
    note: str = ""


class MuteBody(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """POST /mutes; an empty location is everywhere, no kinds are all."""

    location: str
    from_: _Instant
    until: _Instant
    actor: _Actor
    kinds: tuple[str, ...] = ()
    note: str = ""


class Answer(NamedTuple):
    """An HTTP status, and what to say as JSON."""

    status: int
    body: dict[str, Any]


def refused(settings: Settings, header: str) -> Answer | None:
    """Why a request may not decide anything; None when it may."""
    if not settings.watch_token:
        return Answer(403, {"error": "no decisions over HTTP: set WATTRATE_WATCH_TOKEN, or use `wattrate alerts`"})
    if not hmac.compare_digest(header.encode(), f"Bearer {settings.watch_token}".encode()):
        return Answer(401, {"error": "Authorization: Bearer <watch_token> is missing or wrong"})
    return None


def decided(settings: Settings, open_alerts: Mapping[str, AlertEvent], body: bytes, now_ms: int) -> Answer:
    """Write decisions about open alerts into the log."""
    try:
        asked = msgspec.json.decode(body, type=DecisionBody)
    except msgspec.DecodeError as error:
        return Answer(400, {"error": str(error)})
    unknown = [name for name in asked.alert_ids if name not in open_alerts]
    if unknown:
        return Answer(404, {"error": "no open alert has this id", "alert_ids": unknown})
    count = Admin(settings).partition_count(READINGS)
    chosen = [open_alerts[name] for name in asked.alert_ids]
    targets = [Target(one.partition % count, f"{one.charge_point_id}/{one.alert_id}") for one in chosen]
    return _written(settings, lambda sender: decide(sender, asked.action, targets, asked.actor, asked.note, now_ms))


def muted(settings: Settings, body: bytes, now_ms: int) -> Answer:
    """Write a mute into the log."""
    try:
        asked = msgspec.json.decode(body, type=MuteBody)
    except msgspec.DecodeError as error:
        return Answer(400, {"error": str(error)})
    partition = partition_of_location(asked.location, Admin(settings).partition_count(READINGS))
    control = Mute(asked.location, _ms(asked.from_), _ms(asked.until), asked.kinds, asked.actor, asked.note, now_ms)
    return _written(settings, lambda sender: mute(sender, partition, control))


def _written(settings: Settings, write: Callable[[Sender], object]) -> Answer:
    try:
        with Sender(settings) as sender:
            write(sender)
    except DocumentError as error:
        return Answer(400, {"error": error.message})
    return Answer(202, {"written": "to the log; a worker acts on it"})


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)

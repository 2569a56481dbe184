"""Where alerts go: the request that a webhook or Prometheus Alertmanager gets. Builds it, sends nothing."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from pipeline.anomaly.events import AlertEvent
from pipeline.settings import Settings

SIGNATURE = "X-Wattrate-Signature"


@dataclass(frozen=True)
class Post:
    """One HTTP POST of JSON."""

    url: str
    body: bytes
    headers: Mapping[str, str]


class Sink(Protocol):
    """Turns alerts into one request."""

    @property
    def name(self) -> str:
        """What deliveries are noted under."""
        ...

    def wants(self, alert: AlertEvent) -> bool:
        """Whether this step means anything there."""
        ...

    def post(self, alerts: Sequence[AlertEvent], now_ms: int) -> Post:
        """The request for these steps; `now_ms` is the wall clock."""
        ...


@dataclass(frozen=True)
class Webhook:
    """Anyone's endpoint: {"alerts": […]}, signed with HMAC-SHA256 over "time.body" when there is a secret."""

    url: str
    secret: str
    name: str = "webhook"

    def wants(self, alert: AlertEvent) -> bool:
        """All of them."""
        return True

    def post(self, alerts: Sequence[AlertEvent], now_ms: int) -> Post:
        """Steps as the alerts topic has them, each with its `event_id`; the key of the whole is a hash of these."""
        body = msgspec.json.encode({"alerts": [_step(alert) for alert in alerts]})
        key = hashlib.sha256("\n".join(alert.event_id for alert in alerts).encode()).hexdigest()[:32]
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        if self.secret:
            headers[SIGNATURE] = sign(self.secret, now_ms // 1000, body)
        return Post(self.url, body, headers)


@dataclass(frozen=True)
class Alertmanager:
    """Prometheus Alertmanager, API v2 (POST /api/v2/alerts). It forgets what is not repeated, so open alerts are."""

    url: str
    name: str = "alertmanager"

    def wants(self, alert: AlertEvent) -> bool:
        """It knows firing and resolved; an acknowledged alert is no longer repeated to it."""
        return alert.action != "acknowledged"

    def post(self, alerts: Sequence[AlertEvent], now_ms: int) -> Post:
        """Labels are the alert's identity, annotations what a person reads."""
        body = msgspec.json.encode([_prometheus(alert, now_ms) for alert in alerts])
        return Post(self.url.rstrip("/") + "/api/v2/alerts", body, {"Content-Type": "application/json"})


def sinks(settings: Settings) -> list[Sink]:
    """Those that the settings name."""
    found: list[Sink] = []
    if settings.webhook_url:
        found.append(Webhook(settings.webhook_url, settings.webhook_secret))
    if settings.alertmanager_url:
        found.append(Alertmanager(settings.alertmanager_url))
    return found


def sign(secret: str, at_s: int, body: bytes) -> str:
    """The signature header's value: "t=<seconds>,v1=<hex>". Receivers refuse what is older than a few minutes."""
    digest = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def verify(secret: str, header: str, body: bytes, now_s: int, tolerance_s: int = 300) -> bool:
    """Whether a webhook is ours and fresh: what a receiver should do."""
    parts = dict(part.partition("=")[::2] for part in header.split(","))
    at_s = parts.get("t", "")
    if not at_s.isdigit() or abs(now_s - int(at_s)) > tolerance_s:
        return False
    return hmac.compare_digest(sign(secret, int(at_s), body), header)


def summary(alert: AlertEvent) -> str:
    """One line for a person."""
    subject = f"connector {alert.connector_id} of {alert.charge_point_id}" if alert.charge_point_id else "site"
    place = f" at {alert.location_id}" if alert.location_id else ""
    return f"{alert.kind.replace('_', ' ')}: {subject}{place}"


def instant(ms: int) -> str:
    """RFC 3339, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _step(alert: AlertEvent) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(alert)
    return {"event_id": alert.event_id, **plain, "time": instant(alert.time_ms), "summary": summary(alert)}


def _prometheus(alert: AlertEvent, now_ms: int) -> dict[str, Any]:
    labels = {
        "alertname": alert.kind,
        "severity": alert.severity,
        "alert_id": alert.alert_id,
        "charge_point_id": alert.charge_point_id,
        "connector_id": str(alert.connector_id),
        "location_id": alert.location_id,
    }
    resolved = alert.action == "resolved"
    return {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {
            "summary": summary(alert),
            "evidence": msgspec.json.encode(alert.evidence).decode(),
            "session_key": alert.session_key,
        },
        "startsAt": instant(min(alert.time_ms, now_ms)),
        **({"endsAt": instant(min(max(alert.time_ms, 1), now_ms))} if resolved else {}),
    }

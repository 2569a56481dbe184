"""What watch does with the records of `alerts` and `session.events`. A record that can't be used is a dead letter."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec

from pipeline import topics
from pipeline.anomaly.events import AlertEvent, SessionEvent, alert_decoder, encode, session_decoder
from pipeline.anomaly.tokens import Conflict, TokenState, observe, pair_key, token_limits
from pipeline.anomaly.tuning import Tuning
from pipeline.kafka import Message, Sender
from pipeline.log import Log
from pipeline.settings import Settings
from pipeline.watch.ledger import State, WatchLedger

LOG = Log("watch")
_HAND_OVER_S: Final = 60.0  # the loop does no more than write outcomes to the ledger


class AlertHandler:
    """Hands alert steps to the event loop, which decides what is sent where."""

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        receive: Callable[[Sequence[AlertEvent]], Coroutine[Any, Any, None]],
    ) -> None:
        """`receive` runs in `loop` and returns when the steps are queued."""
        self._sender, self._loop, self._receive = Sender(settings), loop, receive

    def begin(self, ledger: WatchLedger, log_id: int, saved: Mapping[int, State]) -> None:
        """The ledger, not the topic, tells what was open: nothing to restore here."""

    def take(self, messages: Sequence[Message]) -> None:
        """Decode and hand over."""
        alerts = []
        for message in messages:
            try:
                alerts.append(alert_decoder.decode(message.value() or b""))
            except msgspec.DecodeError as error:
                dead_letter(self._sender, message, str(error))
        self._sender.flush()
        asyncio.run_coroutine_threadsafe(self._receive(alerts), self._loop).result(_HAND_OVER_S)

    def payload(self, partition: int) -> bytes:
        """Nothing."""
        return b""

    def end(self) -> None:
        """Let go of the producer."""
        self._sender.close()


class SessionHandler:
    """Runs the token rule; what it finds goes to the ledger first, then to the topic `alerts`."""

    def __init__(self, settings: Settings, tuning: Tuning) -> None:
        """A rule of its own a partition: the events of a token lie in one."""
        self._sender = Sender(settings)
        self._limits = token_limits(tuning)
        self._states: dict[int, TokenState] = {}

    def begin(self, ledger: WatchLedger, log_id: int, saved: Mapping[int, State]) -> None:
        """Remember what was remembered."""
        self._ledger, self._log_id = ledger, log_id
        self._states = {p: msgspec.msgpack.decode(s.payload, type=TokenState) for p, s in saved.items() if s.payload}

    def take(self, messages: Sequence[Message]) -> None:
        """Fold the events in; alerts are in the ledger and confirmed by Kafka when this returns."""
        found: list[AlertEvent] = []
        for message in messages:
            event = self._decoded(message)
            if event is not None:
                state = self._states.setdefault(message.partition() or 0, TokenState())
                found += [alert_of(conflict) for conflict in observe(state, event, self._limits)]
        self._ledger.add_alerts(found, self._log_id)
        for alert in found:
            self._sender.send(topics.ALERTS, encode(alert), alert.charge_point_id.encode())
        self._sender.flush()

    def payload(self, partition: int) -> bytes:
        """The rule's memory."""
        return msgspec.msgpack.encode(self._states.get(partition, TokenState()))

    def end(self) -> None:
        """Let go of the producer."""
        self._sender.close()

    def _decoded(self, message: Message) -> SessionEvent | None:
        try:
            return session_decoder.decode(message.value() or b"")
        except msgspec.DecodeError as error:
            dead_letter(self._sender, message, str(error))
            return None


def dead_letter(sender: Sender, message: Message, reason: str) -> None:
    """Keep a record that can't be used, raw, and say so."""
    where = f"{message.topic()}/{message.partition()}/{message.offset()}"
    LOG.warning("dead letter", record=where, reason=reason)
    headers: list[tuple[str, str | bytes | None]] = [("reason", reason.encode()[:500]), ("record", where.encode())]
    sender.send(topics.DEAD_LETTERS, message.value() or b"", message.key(), headers=headers)


def alert_of(conflict: Conflict) -> AlertEvent:
    """The step that a conflict is in the life of its alert."""
    first, second, cause = conflict.first, conflict.second, conflict.event
    again = f"-{conflict.number}" if conflict.number > 1 else ""  # found once more, after it had been withdrawn
    return AlertEvent(
        alert_id=f"{conflict.kind}-{pair_key(first, second)}{again}",
        kind=conflict.kind,
        severity="warning" if conflict.kind == "token_two_sites" else "info",
        action="opened" if conflict.found else "resolved",
        charge_point_id=second.charge_point_id,
        connector_id=second.connector_id,
        session_key=second.session_key,
        id_token=conflict.token,
        time_ms=cause.time_ms,
        evidence={
            "other_session": first.session_key,
            "other_charge_point": first.charge_point_id,
            "other_location": first.location_id,
            "km": round(conflict.km, 3),
            "gap_s": conflict.gap_ms // 1000,
            "start_ms": second.start_ms,
        },
        partition=cause.partition,
        offset=cause.offset,
        line=0,
        location_id=second.location_id,
    )

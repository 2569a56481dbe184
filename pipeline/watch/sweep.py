"""Rules over settled sessions: a fold over the ledger's CDRs in the order of log time, as far as the log is complete.

Nothing here depends on when it runs: a CDR belongs to the hour of log time in which it settled, and an hour closes when
`complete_up_to` has passed it. Killed anywhere, the fold goes on from its last save and finds the same under the
same ids.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from pipeline import topics
from pipeline.anomaly.events import AlertEvent, encode
from pipeline.anomaly.sessions import Finding, SessionWatch
from pipeline.anomaly.sites import HOUR_MS, SiteFinding, SiteMemory, add_session, close_hour
from pipeline.clickhouse import Store
from pipeline.errors import BrokerUnavailableError, StoreUnavailableError
from pipeline.kafka import Admin, Sender
from pipeline.log import Log
from pipeline.metering.kinds import MAINTENANCE
from pipeline.settings import Settings
from pipeline.store import StoreLedger
from pipeline.watch.ledger import State, WatchLedger
from pipeline.watch.places import Places
from pipeline.watch.rules import Rules
from pipeline.watch.sessions import Settled, settled_sessions

LOG = Log("watch")
EVERY_S: Final = 5.0
_HOURS_A_ROUND: Final = 24 * 14
_KINDS: Final = frozenset({"large_session", "under_registration", "wrong_rating"})  # the worker tells the others


class Sweep:
    """One thread; `round` may be called again after any failure."""

    def __init__(self, settings: Settings, rules: Rules, places: Places) -> None:
        """Nothing is read until the first round."""
        self._settings, self._rules, self._places = settings, rules, places
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._self_ending = [MAINTENANCE, *rules.tuning.resolving()]
        self._memory, self._sessions, self._saved_hour = SiteMemory(), SessionWatch(rules.tuning), -1
        self.beat_s = time.monotonic()
        self.hour = 0
        self.trouble = ""
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begin, from the last save."""
        self._ending = threading.Event()
        self.failure, self._saved_hour, self.beat_s = None, -1, time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(self._ending,), name="sweep", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End after the round in hand."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, ending: threading.Event) -> None:
        while not ending.is_set():
            try:
                while self.round() and not ending.is_set():
                    self.beat_s = time.monotonic()
                self.trouble = ""
            except (BrokerUnavailableError, StoreUnavailableError) as outage:
                self.trouble = outage.message
                self._saved_hour = -1  # what was half done is done again from the save
            except Exception as error:  # noqa: BLE001 - handed to the watchdog, which restarts or ends the process
                self.failure = error
                return
            self.beat_s = time.monotonic()
            ending.wait(EVERY_S)

    def round(self) -> bool:
        """Close the hours that the log has passed; whether there are more."""
        admin = Admin(self._settings)
        log_id = admin.log_id(topics.READINGS)
        with Store(self._settings) as store:
            complete_ms = StoreLedger(store, log_id).complete_up_to(admin.partition_count(topics.READINGS))
            if complete_ms is None:
                return False
            self._places.refresh(store)
            ledger = WatchLedger(store)
            self._restore(ledger, log_id)
            first = self._memory.hour or self._first_hour(store, log_id)
            if not first:
                return False
            self._memory.hour = first
            until = min(complete_ms // HOUR_MS, first + _HOURS_A_ROUND)
            if until <= first:
                return False
            settled = settled_sessions(store, self._places, first * HOUR_MS, until * HOUR_MS, log_id)
            told = list(self._fold(settled, until))
            self._tell(ledger, log_id, told)
            self._tell(ledger, log_id, list(over(ledger.open_alerts(self._self_ending), self._due_ms, until * HOUR_MS)))
            self._save(ledger, log_id)
        self.hour = until
        return until < complete_ms // HOUR_MS

    def _first_hour(self, store: Store, log_id: int) -> int:
        first = store.scalar(
            "SELECT toUnixTimestamp64Milli(min(settled_at)) FROM cdrs WHERE log_id = {log:UInt64} HAVING count() > 0",
            {"log": log_id},
        )
        return int(first or 0) // HOUR_MS

    def _fold(self, settled: list[Settled], until: int) -> Iterator[AlertEvent]:
        at = 0
        while self._memory.hour < until:
            end_ms = (self._memory.hour + 1) * HOUR_MS
            while at < len(settled) and settled[at].settled_ms < end_ms:
                yield from self._session(settled[at])
                at += 1
            for found in close_hour(self._memory, self._rules.tuning):
                yield _site_alert(found)

    def _session(self, settled: Settled) -> Iterator[AlertEvent]:
        facts = settled.facts
        add_session(
            self._memory,
            facts.site,
            facts.charge_point,
            facts.connector,
            facts.model,
            facts.energy_mwh or 0,
            facts.charging_ms or 0,
        )
        for finding in self._sessions.take(facts):
            if finding.kind in _KINDS:
                yield _session_alert(finding, settled)

    def _tell(self, ledger: WatchLedger, log_id: int, alerts: list[AlertEvent]) -> None:
        """Ledger first, then the topic, then the save: a crash in between repeats, under the same ids."""
        if not alerts:
            return
        ledger.add_alerts(alerts, log_id)
        with Sender(self._settings) as sender:
            for alert in alerts:
                sender.send(topics.ALERTS, encode(alert), (alert.charge_point_id or alert.location_id).encode())

    def _due_ms(self, steps: Sequence[AlertEvent]) -> int:
        """When an alert is over by itself: so long after the last step that came before that; 0: never."""
        first = steps[0]
        if first.kind == MAINTENANCE:
            return int(first.evidence["until_ms"])
        place = first.location_id or self._places.location(first.charge_point_id)
        model = self._places.model(first.charge_point_id)
        after_ms = int(self._rules.tuning.of(first.kind, "resolve_after_h", model, place) * HOUR_MS)
        due_ms = first.time_ms + after_ms
        for step in steps:
            due_ms = step.time_ms + after_ms if step.time_ms < due_ms else due_ms
        return due_ms if after_ms else 0

    def _restore(self, ledger: WatchLedger, log_id: int) -> None:
        if self._saved_hour >= 0:
            return
        scope = _scope(log_id)
        saved = ledger.states(scope).get(scope)
        self._memory, self._sessions = _decoded(saved.payload if saved else b"", self._rules)
        self._saved_hour = self._memory.hour

    def _save(self, ledger: WatchLedger, log_id: int) -> None:
        payload = msgspec.msgpack.encode({"sites": self._memory, "sessions": self._sessions.saved()})
        ledger.save([State(_scope(log_id), self._memory.hour, payload)])
        self._saved_hour = self._memory.hour


def over(
    alerts: Mapping[str, Sequence[AlertEvent]], due_of: Callable[[Sequence[AlertEvent]], int], now_ms: int
) -> Iterator[AlertEvent]:
    """The end of alerts whose time has come, at the full hour of log time after that: no clock is asked."""
    for steps in alerts.values():
        at_ms = -(-due_of(steps) // HOUR_MS) * HOUR_MS
        if 0 < at_ms <= now_ms:
            yield msgspec.structs.replace(
                steps[0], action="resolved", time_ms=at_ms, evidence={"since_ms": steps[0].time_ms}, partition=0,
                offset=0, line=0,
            )  # fmt: skip


class _Saved(msgspec.Struct):
    sites: SiteMemory
    sessions: msgspec.Raw


def _decoded(payload: bytes, rules: Rules) -> tuple[SiteMemory, SessionWatch]:
    sessions = SessionWatch(rules.tuning)
    if not payload:
        return SiteMemory(), sessions
    saved = msgspec.msgpack.decode(payload, type=_Saved)
    sessions.restore(bytes(saved.sessions))
    return saved.sites, sessions


def _scope(log_id: int) -> str:
    return f"sweep/{log_id:016x}"


def _session_alert(finding: Finding, settled: Settled) -> AlertEvent:
    session = finding.session
    return AlertEvent(
        alert_id=f"{finding.kind}-{session.key}",
        kind=finding.kind,
        severity=finding.severity,
        action="opened",
        charge_point_id=session.charge_point,
        connector_id=session.connector,
        session_key=session.key,
        id_token=session.token,
        time_ms=settled.settled_ms,
        evidence=_plain(finding.evidence),
        partition=settled.partition,
        offset=settled.offset,
        line=settled.line,
        location_id=session.site,
    )


def _site_alert(found: SiteFinding) -> AlertEvent:
    subject = f"{found.charge_point}/{found.connector}" if found.charge_point else found.site
    return AlertEvent(
        alert_id=f"{found.kind}-{subject}-{found.since_ms // HOUR_MS}",
        kind=found.kind,
        severity="warning",
        action="opened" if found.opened else "resolved",
        charge_point_id=found.charge_point,
        connector_id=found.connector,
        session_key="0" * 16,
        id_token="",
        time_ms=found.time_ms,
        evidence=found.evidence,
        partition=0,
        offset=0,
        line=0,
        location_id=found.site,
    )


def _plain(evidence: Any) -> dict[str, int | float | str]:
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in evidence.items()}

"""The life of alerts as watch sees it: each step once, what is open, what is sent and what is kept back. Pure.

A cache: everything here can be made again from the ledger's alerts.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from msgspec import structs

from pipeline.anomaly.events import AlertEvent
from pipeline.anomaly.sessions import WRONG_RATING
from pipeline.metering.kinds import ALERT_KINDS, ENERGY_ABOVE_RATING, MAINTENANCE, POWER_ABOVE_RATING
from pipeline.watch.rules import Mute, Rules, mute_of

Verdict = Literal["send", "repeat", "suppressed", "muted", "old", "quiet"]
_SEEN_MAX: Final = 200_000
_ORDER: Final = ("info", "warning", "critical")
_ABOVE_RATING: Final = frozenset({ALERT_KINDS[POWER_ABOVE_RATING], ALERT_KINDS[ENERGY_ABOVE_RATING]})


@dataclass
class OpenAlert:
    """An alert that is not resolved: its first step, and how it went on."""

    first: AlertEvent
    location: str
    model: str
    last_ms: int
    acknowledged: bool = False
    muted: bool = False
    steps: int = 1


class AlertBook:
    """Takes every step in, in any order and any number of times."""

    def __init__(self, rules: Rules, place_of: Callable[[str], tuple[str, str]]) -> None:
        """`place_of` tells location and model of a charge point, "" where it is not known."""
        self._rules, self._place_of = rules, place_of
        self.open: dict[str, OpenAlert] = {}
        self._resolved: OrderedDict[str, None] = OrderedDict()
        self._kept_back: OrderedDict[str, None] = OrderedDict()  # suppressed: how they go on is not sent either
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._last_sent: OrderedDict[tuple[str, str, int], int] = OrderedDict()
        self._mutes: dict[str, Mute] = {}  # by the id of the alert that says so
        self._misrated: dict[str, set[str]] = {}  # charge point → open alerts that say so
        self.counts: Counter[str] = Counter()
        self.newest_ms = 0

    def take(self, alert: AlertEvent) -> Verdict:
        """What is to be done with this step."""
        if alert.event_id in self._seen:
            self.counts["repeat"] += 1
            return "repeat"
        _remember(self._seen, alert.event_id)
        if alert.kind == MAINTENANCE:
            return self._mute(alert)
        if alert.action == "resolved" and alert.alert_id in self._resolved:
            self.counts["repeat"] += 1
            return "repeat"
        location, model = self._place_of(alert.charge_point_id)
        location = alert.location_id or location
        self.newest_ms = max(self.newest_ms, alert.time_ms)
        muted = any(mute.covers(alert, location) for mute in (*self._rules.mutes, *self._mutes.values()))
        self._live(alert, location, model, muted)
        verdict = "muted" if muted else self._verdict(alert, location, model)
        if verdict == "suppressed":
            _remember(self._kept_back, alert.alert_id)
        self.counts[verdict] += 1
        return verdict

    def _mute(self, alert: AlertEvent) -> Verdict:
        """Maintenance that a person announced in the log, or ended before its time."""
        if alert.action == "opened":
            self._mutes[alert.alert_id] = mute_of(alert)
        elif alert.action == "resolved" and alert.alert_id in self._mutes:
            mute = self._mutes[alert.alert_id]
            self._mutes[alert.alert_id] = replace(mute, until_ms=min(mute.until_ms, alert.time_ms))
        self.counts["quiet"] += 1
        return "quiet"

    @property
    def mutes(self) -> Sequence[Mute]:
        """Those of the log, in the order in which they were said."""
        return tuple(self._mutes.values())

    def named(self, alert: AlertEvent) -> AlertEvent:
        """The step with the subject and severity of its alert: a person's decision names only the id."""
        known = self.open.get(alert.alert_id)
        if known is None or alert.action == "opened":
            return alert
        first = known.first
        return structs.replace(
            alert,
            kind=first.kind,
            severity=first.severity,
            charge_point_id=first.charge_point_id,
            connector_id=first.connector_id,
            session_key=first.session_key,
            location_id=first.location_id,
        )

    def _live(self, alert: AlertEvent, location: str, model: str, muted: bool) -> None:
        known = self.open.get(alert.alert_id)
        if alert.action == "resolved":
            self.open.pop(alert.alert_id, None)
            _remember(self._resolved, alert.alert_id)
        elif alert.alert_id in self._resolved:
            return  # a step that arrives behind the end changes nothing
        elif known is None:
            seen = alert.action == "acknowledged"
            self.open[alert.alert_id] = OpenAlert(alert, location, model, alert.time_ms, seen, muted)
        else:
            known.steps += 1
            known.last_ms = max(known.last_ms, alert.time_ms)
            known.acknowledged |= alert.action == "acknowledged"
            if alert.action == "opened":
                known.first = alert
        self._rate(alert)

    def _rate(self, alert: AlertEvent) -> None:
        """Remember charge points whose rating is said to be wrong, as long as that is open."""
        if alert.kind == WRONG_RATING:
            of_it = self._misrated.setdefault(alert.charge_point_id, set())
            (of_it.add if alert.alert_id in self.open else of_it.discard)(alert.alert_id)

    def _explained(self, alert: AlertEvent) -> bool:
        """Whether the rating is known to be wrong, so that what lies above it is no news; ten times is."""
        value, most = alert.evidence.get("value", 0), alert.evidence.get("threshold", 0)
        above = alert.kind in _ABOVE_RATING and float(value) <= 10 * float(most)
        return above and bool(self._misrated.get(alert.charge_point_id))

    def _verdict(self, alert: AlertEvent, location: str, model: str) -> Verdict:
        if _ORDER.index(alert.severity) < _ORDER.index(self._rules.delivery.minimum_severity):
            return "quiet"
        if self.newest_ms - alert.time_ms > self._rules.delivery.oldest_h * 3_600_000:
            return "old"
        if alert.action != "opened":
            return "suppressed" if alert.alert_id in self._kept_back else "send"
        if self._explained(alert):
            return "suppressed"
        window_ms = self._rules.tuning.of(alert.kind, "suppress_s", model, location) * 1000
        key = (alert.kind, alert.charge_point_id, alert.connector_id)
        last_ms = self._last_sent.get(key)
        if window_ms and last_ms is not None and 0 <= alert.time_ms - last_ms < window_ms:
            return "suppressed"
        self._last_sent[key] = alert.time_ms
        self._last_sent.move_to_end(key)
        if len(self._last_sent) > _SEEN_MAX:
            self._last_sent.popitem(last=False)
        return "send"

    def firing(self) -> Iterable[OpenAlert]:
        """Open alerts that a person has not yet acknowledged and that are not kept back."""
        for one in self.open.values():
            loud = _ORDER.index(one.first.severity) >= _ORDER.index(self._rules.delivery.minimum_severity)
            limit_ms = self._rules.tuning.of(one.first.kind, "resolve_after_h", one.model, one.location) * 3_600_000
            stale = self.newest_ms - one.last_ms > (limit_ms or self._rules.delivery.oldest_h * 3_600_000)
            kept_back = one.muted or one.first.alert_id in self._kept_back or self._explained(one.first)
            if loud and not (one.acknowledged or kept_back or stale):
                yield one


def _remember(known: "OrderedDict[str, None]", name: str) -> None:
    known[name] = None
    if len(known) > _SEEN_MAX:
        known.popitem(last=False)

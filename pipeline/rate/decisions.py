"""Control records that change what is billed: new reference data, what people decide, and the hold limit.

All of them act at their place in the log, so a replay decides the same. A decision about something that is not held
any more changes nothing.
"""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.codec.control import Decision, Mute, Policy, Reference, Tick
from pipeline.codec.records import TRANSACTION_ID_DTYPE
from pipeline.log import Log
from pipeline.metering import kinds
from pipeline.metering.columns import ABSENT_I64, KIND_TICK, SAMPLE_DTYPE
from pipeline.metering.output import Rows
from pipeline.rate.apart import Apart
from pipeline.rate.batch import AlertRow, Place, QuarantineRow
from pipeline.rate.collect import Collector
from pipeline.rate.inputs import Break
from pipeline.rate.partition import Held, PartitionState
from pipeline.rate.past import SessionName
from pipeline.rate.segment import Deferred, Samples, Segment, new_facts
from pipeline.rate.signed_values import by_session

if TYPE_CHECKING:
    from pipeline.rate.engine import Engine

LOG = Log("rate")
_UNKNOWN = kinds.HOLD_REASONS[kinds.HOLD_UNKNOWN_TARIFF]


class Decisions:
    """Applies controls of one batch."""

    def __init__(self, engine: "Engine", collector: Collector) -> None:
        """For one batch."""
        self.engine, self.collector = engine, collector

    def apply(self, at: Break) -> None:
        """Do what a control record says, in its partition."""
        state = self.engine.own(at.partition)
        match at.control:
            case Reference(version=version):
                state.reference_version = version
                self.engine.sheets.slot(version)
                self.engine.limit_all(at.partition)
                self._retry_unpriced(state, at.offset, version)
            case Policy(version=version):
                state.policy_version = version
                self.engine.limit_all(at.partition)
            case Decision() as decision:
                self._decide(state, at.offset, decision)
            case Mute() as mute:
                self._mute(state, at.offset, mute)
            case Tick(time_ms=now_ms):
                self._expire(state, at.offset, now_ms)

    def pass_time(self, given: Samples) -> None:
        """Ticks move the log time."""
        ticks = np.flatnonzero(given.records < 0)  # all others stand for a record
        for at in ticks.tolist():
            state = self.engine.own(int(given.facts["partition"][at]))
            state.log_time_ms = max(state.log_time_ms, int(given.samples["time_ms"][at]))

    def _expire(self, state: PartitionState, offset: int, now_ms: int) -> None:
        """What was held for longer than the limit settles without it; what is long over is forgotten."""
        rules = self.engine.rules(state.partition)
        limit_ms = rules.metering.hold_limit_ms
        for key in [key for key, held in state.held.items() if now_ms - held.since_ms >= limit_ms]:
            self._settle_held(state, offset, now_ms, key, "expired", "wattrate", "hold limit reached")
        batch = self.collector.batch
        told = [one for one in batch.signed if one.partition == state.partition]
        batch.signed = [one for one in batch.signed if one.partition != state.partition]
        state.keep_signed(by_session(told))
        state.forget_apart(state.log_time_ms - rules.longest_timeout_ms)

    def _decide(self, state: PartitionState, offset: int, decision: Decision) -> None:
        if decision.action in ("acknowledge", "resolve"):
            self._mark_alert(state, offset, decision)
        elif decision.action in ("release", "reject"):
            key = _key_of(decision.target)
            if key not in state.held:
                LOG.info("decision about a session that is not held here", target=decision.target, offset=offset)
                return
            action = "released" if decision.action == "release" else "rejected"
            self._settle_held(state, offset, decision.time_ms, key, action, decision.actor, decision.note)

    def _settle_held(
        self, state: PartitionState, offset: int, time_ms: int, key: int, action: str, actor: str, note: str
    ) -> None:
        held = state.held.pop(key)
        one, apart = self._cause(state, offset, time_ms, held)
        name = SessionName(held.charge_point_id, key)
        past = self.collector.whole_past(name)
        place = self.collector.place(apart.segment, 0, one.connector, key, "quarantine_rows")
        self.collector.batch.quarantine.append(
            QuarantineRow(place, action, held.reason, held.held_mwh, time_ms, actor, note)
        )
        self.collector.resolve_hold(place, held, past, time_ms, actor)
        version = apart.version_of(past, one.connector, state.reference_version)
        left_out = "" if action == "released" else action
        apart.rerate(one, name, past, past.samples, version, released=action == "released", left_out=left_out)

    def _retry_unpriced(self, state: PartitionState, offset: int, version: int) -> None:
        """What waited for a tariff, a connector or a location may have it now: held sessions, then open ones."""
        for key, held in [(k, h) for k, h in state.held.items() if h.reason == _UNKNOWN]:
            one, apart = self._cause(state, offset, state.log_time_ms, held)
            if self._priced(one.connector, version):
                name = SessionName(held.charge_point_id, key)
                past = self.collector.whole_past(name)
                apart.rerate(one, name, past, past.samples, version)
        connectors = self.engine.directory.state.connectors
        for row in self.engine.directory.members(state.partition):
            if connectors["open"][row] and connectors["sheet"][row] < 0 and self._priced(row, version):
                self._retry_open(state, offset, row, version)

    def _retry_open(self, state: PartitionState, offset: int, row: int, version: int) -> None:
        directory = self.engine.directory
        key = int(directory.state.connectors["session_key"][row])
        name = SessionName(directory.charge_points[row], key)
        held = Held(name.charge_point_id, int(directory.state.connectors["connector_id"][row]), _UNKNOWN, 0, 0)
        one, apart = self._cause(state, offset, state.log_time_ms, held)
        past = self.collector.whole_past(name)
        place = self.collector.place(apart.segment, 0, row, key, "alert_rows")
        self.collector.resolve_hold(place, held, past, state.log_time_ms, "wattrate")
        apart.rerate(one, name, past, past.samples, version)

    def _priced(self, row: int, version: int) -> bool:
        now_ms = int(self.engine.directory.state.connectors["start_ms"][row])
        return self.engine.sheets.resolve(self.engine.directory, version, row, "", now_ms).tariff is not None

    def _mark_alert(self, state: PartitionState, offset: int, decision: Decision) -> None:
        """A person acknowledged or resolved an alert: `target` is "charge point/alert id"."""
        charge_point, _, alert_id = decision.target.partition("/")
        row = self.engine.directory.find(charge_point, 1)
        line = self.collector.batch.next_place("alert_rows", state.partition, offset, 0)
        place = Place(state.partition, offset, line, row if row is not None else -1, 0, charge_point, 0)
        action = "acknowledged" if decision.action == "acknowledge" else "resolved"
        self.collector.batch.alerts.append(
            AlertRow(
                place, alert_id.partition("-")[0], "info", decision.time_ms, "",
                {"actor": decision.actor, "note": decision.note}, alert_id, action,
            )
        )  # fmt: skip

    def _mute(self, state: PartitionState, offset: int, mute: Mute) -> None:
        """Maintenance stands in the ledger as an alert of its own kind; resolved, it is over before its time."""
        line = self.collector.batch.next_place("alert_rows", state.partition, offset, 0)
        place = Place(state.partition, offset, line, -1, 0, "", 0)
        evidence: dict[str, int | str] = {
            "location": mute.location, "from_ms": mute.from_ms, "until_ms": mute.until_ms,
            "kinds": ",".join(mute.kinds), "actor": mute.actor, "note": mute.note,
        }  # fmt: skip
        alert_id = f"{kinds.MAINTENANCE}-{mute.location or 'everywhere'}-{state.partition}-{offset}"
        self.collector.batch.alerts.append(
            AlertRow(place, kinds.MAINTENANCE, "info", mute.time_ms, "", evidence, alert_id)
        )

    def _cause(self, state: PartitionState, offset: int, time_ms: int, held: Held) -> tuple[Deferred, Apart]:
        """The control record as the cause of what follows, with the held session's connector."""
        row = self.engine.directory.row(state.partition, held.charge_point_id, held.connector_id)
        self.engine.sheets.cover(time_ms, time_ms + 1)
        given = _control_sample(state, offset, time_ms, row)
        rules = self.engine.rules(state.partition)
        defaults = self.engine.defaults(time_ms)
        segment = Segment(
            given, self.engine.sheets.book, self.engine.directory, rules.limits.rows, defaults,
            np.zeros(0, np.uint64),
        )  # fmt: skip
        self.collector.collect(segment)
        return Deferred(0, row, 0), Apart(self.engine, self.collector.batch, self.collector, segment, rules)


def _control_sample(state: PartitionState, offset: int, time_ms: int, row: int) -> Samples:
    samples: Rows = np.zeros(1, SAMPLE_DTYPE)
    samples["kind"], samples["offset"] = KIND_TICK, offset
    samples["time_ms"] = samples["received_ms"] = time_ms
    samples["register_mwh"], samples["token"] = ABSENT_I64, -1
    facts = new_facts(1)
    facts["partition"], facts["row"] = state.partition, row
    texts = np.zeros(1, TRANSACTION_ID_DTYPE)
    return Samples(samples, facts, texts, np.array([state.reference_version]), np.array([-1]))


def _key_of(target: str) -> int:
    """A session key as people write it: 16 hexadecimal digits."""
    try:
        return int(target, 16)
    except ValueError:
        return 0

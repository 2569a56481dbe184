"""What the pass deferred: samples that are late, of another session, or too many between two registers.

Each is taken with its session's past, the session is metered and rated again in order, and the difference is
written. A session that is open on its connector goes on from there; any other is closed and settled at once, and
settled anew should more of it arrive.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.metering import kinds
from pipeline.metering.columns import (
    KIND_RESERVE,
    KIND_SAMPLE,
    KIND_START,
    KIND_STATUS,
    KIND_STOP,
    KIND_TICK,
    STATE_SUSPENDED_EV,
    STATE_SUSPENDED_EVSE,
)
from pipeline.metering.output import ALERT, RESOLVED, Rows
from pipeline.metering.published import Rules
from pipeline.metering.sessions import key_of
from pipeline.metering.state import MARKS
from pipeline.rate.batch import Batch, CdrRow, Place, QuarantineRow, credited, last_number
from pipeline.rate.collect import WHOLE, Collector, whole_mwh
from pipeline.rate.past import NOTHING, LastCdr, Past, SessionName
from pipeline.rate.rerate import Again, Terms, adopt, conclude, has_start, is_repeat, meter_again
from pipeline.rate.rows import energy_of
from pipeline.rate.segment import Deferred, Segment
from pipeline.rate.settlement import settle_all

if TYPE_CHECKING:
    from pipeline.rate.engine import Engine


class Apart:
    """Takes a segment's deferred samples, one by one, in log order."""

    def __init__(self, engine: "Engine", batch: Batch, collector: Collector, segment: Segment, rules: Rules) -> None:
        """For one segment of one batch."""
        self.engine, self.batch, self.collector, self.segment = engine, batch, collector, segment
        self.rules = rules

    def prefetch(self, deferred: Iterable[Deferred]) -> None:
        """Fetch the pasts that these will ask for, in one go."""
        names = {name for one in deferred for _, name in self._candidates(one)}
        self.engine.history.prefetch(names)

    def take(self, one: Deferred) -> None:
        """Rate the session of a deferred sample again with it."""
        self.engine.directory.state.connectors["dirty"][self._ring(one.connector)] = 0
        sample = self._sample(one)
        row, name = self._resolved(one)
        one = one._replace(connector=row)
        fact = self.segment.given.facts[one.cause]
        fact["row"] = one.connector
        fact["session_key"] = name.session_key
        past = self.collector.whole_past(name)
        one = self._at_home(one, past)
        past = self._with_strays(one, name, past)
        if is_repeat(past.samples, sample):
            self._say(one, kinds.DUPLICATE, kinds.NOWHERE)
            return
        if not name.session_key:
            self._of_no_session(one, name)
        elif not past.known:
            self._first_heard(one, name, sample)
        else:
            self._again(one, name, past)

    def _of_no_session(self, one: Deferred, name: SessionName) -> None:
        """A late state matters to nobody; anything else is kept with its bytes."""
        if self._sample(one)["kind"] in (KIND_STATUS, KIND_RESERVE):
            self._say(one, kinds.IGNORED, kinds.NOWHERE)
            return
        self._say(one, kinds.SUSPECT, kinds.NOWHERE)
        self._orphan(one, name, "no_session")

    def _ring(self, row: int) -> list[int]:
        """The connectors of the same charge point, from this one on."""
        sibling = self.engine.directory.state.connectors["sibling"]
        ring, at = [row], int(sibling[row])
        while at != row:
            ring.append(at)
            at = int(sibling[at])
        return ring

    def _candidates(self, one: Deferred) -> list[tuple[int, SessionName]]:
        """Where a sample with this transaction id may belong, best first: (connector, session).

        A start begins a session on its own connector. Anything else is of the session that its connector has or had
        under this id; else of one that another connector has; else of one that the ledger may know.
        """
        sample = self._sample(one)
        if sample["kind"] == KIND_TICK:
            return []
        if not sample["txn_hash"]:
            name = self._by_time(one)
            return [(one.connector, name)] if name.session_key else []
        charge_point = self.engine.directory.charge_points[one.connector]
        connectors = self.engine.directory.state.connectors
        txn = sample["txn_hash"]
        now, ever = [], []
        for row in self._ring(one.connector):
            connector = connectors[row]
            if connector["open"] and connector["txn_hash"] == txn:
                now.append((row, SessionName(charge_point, int(connector["session_key"]))))
            elif connector["prev_key"] and connector["prev_txn"] == txn:
                now.append((row, SessionName(charge_point, int(connector["prev_key"]))))
            key = int(key_of(connector["identity"], txn, int(connector["connector_id"])))
            ever.append((row, SessionName(charge_point, key)))
        if sample["kind"] == KIND_START and connectors["connector_id"][one.connector] != 0:
            return [*(at for at in now if at[0] == one.connector), ever[0]]
        return list(dict.fromkeys([*now, *ever]))

    def _resolved(self, one: Deferred) -> tuple[int, SessionName]:
        """The connector and the session that a sample is of, whatever connector the message says."""
        candidates = self._candidates(one)
        if not candidates:
            return one.connector, SessionName(self.engine.directory.charge_points[one.connector], 0)
        for row, name in candidates:
            if self._is_open(row, name) or self.collector.whole_past(name).known:
                return row, name
        own = [at for at in candidates if at[0] == one.connector]
        return own[-1]

    def _is_open(self, row: int, name: SessionName) -> bool:
        connector = self.engine.directory.state.connectors[row]
        return bool(connector["open"]) and int(connector["session_key"]) == name.session_key

    def _with_strays(self, one: Deferred, name: SessionName, past: Past) -> Past:
        """The past with readings of this transaction that came before anyone knew their connector (OCPP 1.6 stops).

        They are written down as readings of the session, in the name of the record that brought it.
        """
        sample = self._sample(one)
        connector = self.engine.directory.state.connectors[one.connector]
        state = self.engine.own(int(self.segment.given.facts["partition"][one.cause]))
        stray = int(key_of(connector["identity"], sample["txn_hash"], 0)) if sample["txn_hash"] else 0
        if stray in (0, name.session_key) or stray not in state.apart:
            return past
        found = self.collector.whole_past(SessionName(name.charge_point_id, stray))
        if not found.known or has_start(found.samples):
            return past
        del state.apart[stray]
        self.collector.adopt(self.segment, one.cause, one.connector, name.session_key, found)
        return self.collector.whole_past(name)

    def _at_home(self, one: Deferred, past: Past) -> Deferred:
        """The same sample on the connector of its session's past, where the message names none (OCPP 1.6 stops)."""
        directory = self.engine.directory
        if past.connector_id == 0 or directory.state.connectors["connector_id"][one.connector] != 0:
            return one
        home = directory.find(directory.charge_points[one.connector], past.connector_id)
        if home is None:
            return one
        self.segment.given.facts["row"][one.cause] = home
        return one._replace(connector=home)

    def _first_heard(self, one: Deferred, name: SessionName, sample: np.void) -> None:
        """Nothing was ever heard of this session: a late start or stop, or a session whose start is lost."""
        connector = self.engine.directory.state.connectors[one.connector]
        if sample["kind"] == KIND_STOP:
            self._say(one, kinds.SUSPECT, kinds.NOWHERE)
            self._orphan(one, name, "no_start")
        elif sample["kind"] == KIND_SAMPLE and sample["time_ms"] >= connector["last_ms"]:
            self.segment.begin(one)
        else:
            self._again(one, name, NOTHING)

    def _orphan(self, one: Deferred, name: SessionName, reason: str) -> None:
        """Keep the record with its bytes: without a start nobody knows what it ends."""
        place = self.collector.place(self.segment, one.cause, one.connector, name.session_key, "quarantine_rows")
        time_ms = int(self._sample(one)["received_ms"])
        raw = self.collector.raw(self.segment, one.cause)
        self.batch.quarantine.append(QuarantineRow(place, "held", reason, 0, time_ms, raw=raw))
        self._set_apart(one, name, time_ms)

    def _set_apart(self, one: Deferred, name: SessionName, time_ms: int) -> None:
        if name.session_key:
            partition = int(self.segment.given.facts["partition"][one.cause])
            self.engine.own(partition).apart[name.session_key] = time_ms

    def _again(self, one: Deferred, name: SessionName, past: Past) -> None:
        """Meter and rate the session with the new sample, and write what changed."""
        cause = one.cause
        version = int(self.segment.given.versions[cause])
        text = bytes(self.segment.given.transaction_ids[cause])
        samples = np.concatenate([past.samples, self.segment.given.samples[cause : cause + 1]])
        past = past if past.transaction_id else replace(past, transaction_id=text)
        if not has_start(samples):
            self._say(one, kinds.SUSPECT, kinds.NOWHERE)
            self._set_apart(one, name, int(self._sample(one)["received_ms"]))
            return
        self._say(one, kinds.LATE, kinds.RATED)
        if int(past.versions.min(initial=version)) < version:
            version = self.version_of(past, one.connector, version)
        parts = len(self.batch.rated)
        self.rerate(one, name, past, samples, version)
        self.segment.given.facts[cause]["energy_mwh"] = energy_of(self.batch.rated[parts:])

    def version_of(self, past: Past, row: int, otherwise: int) -> int:
        """The reference version that the session was first heard under, if that has a tariff for it."""
        first = int(past.versions.min(initial=otherwise))
        found = self.engine.sheets.resolve(self.engine.directory, first, row, "", int(past.samples["time_ms"].min()))
        return first if found.tariff is not None else otherwise

    def rerate(
        self, one: Deferred, name: SessionName, past: Past, samples: Rows, version: int, released: bool = False,
        left_out: str = "",
    ) -> None:  # fmt: skip
        """Rate a session from all its readings under a reference version, and write the difference."""
        engine, row = self.engine, one.connector
        connector = engine.directory.state.connectors[row]
        live = bool(connector["open"]) and int(connector["session_key"]) == name.session_key
        terms = self._terms(row, samples, version, released)
        self.segment.make_room()
        again = meter_again(past, samples, terms, engine.directory, engine.sheets.book, live, engine.room)
        place = self.collector.place(self.segment, one.cause, row, name.session_key, "rated_usage_rows")
        standing = self.collector.standing(name)
        again.state.connectors["session_key"][0] = name.session_key
        if live and not again.closed:
            self.collector.write_difference(standing, again.rated, place)
            adopt(engine.directory, row, again, MARKS)
            self._alerts(one, again, past)
            return
        if live:
            engine.directory.free_periods(row)
            connector["open"], connector["since_ms"], connector["periods"] = 0, 0, 0
            connector["head"] = connector["tail"] = -1
        if not connector["open"] and again.state.connectors["prev_end_ms"][0] >= connector["prev_end_ms"]:
            conclude(engine.directory, row, again, name.session_key)
        self._alerts(one, again, past)
        self._settle(one, name, past, again, standing, left_out)

    def _terms(self, row: int, samples: Rows, version: int, released: bool) -> Terms:
        starts = samples[samples["kind"] == KIND_START]
        tokens = samples["token"][samples["token"] >= 0]
        token = (
            int(starts["token"][0])
            if len(starts) and starts["token"][0] >= 0
            else int(tokens[0])
            if len(tokens)
            else -1
        )
        start_ms = int((starts if len(starts) else samples)["time_ms"].min())
        self.engine.sheets.cover(start_ms, int(samples["received_ms"].max()) + 1)
        uid = self.engine.directory.token_text(token)
        found = self.engine.sheets.resolve(self.engine.directory, version, row, uid, start_ms)
        sheet = self.engine.sheets.sheet_of(found)
        rating_mw = found.max_power_w * 1000 if found.max_power_w else -1
        number = int(self.engine.directory.state.connectors["limits"][row])
        return Terms(row, sheet, rating_mw, self.rules.limits.rows[number : number + 1], released)

    def _settle(
        self, one: Deferred, name: SessionName, past: Past, again: Again, standing: Rows, left_out: str
    ) -> None:
        """A session that is over: hold it, or bill it and take back the CDR that stood."""
        self._set_apart(one, name, int(self._sample(one)["received_ms"]))
        session = again.segment.sessions[-1:].copy()
        reason = int(session["hold"][0])
        session["cause"], session["connector"], session["session_key"] = one.cause, one.connector, name.session_key
        place = self.collector.place(self.segment, one.cause, one.connector, name.session_key, "rated_usage_rows")
        rated = again.rated[:0] if reason in WHOLE else again.rated
        if reason != kinds.HOLD_NONE and not left_out:
            self.collector.write_difference(standing, rated, place)
            if past.cdr is not None:
                self._credit(past.cdr, place, int(self._sample(one)["received_ms"]))
            self.collector.hold(self.segment, session[0], reason, again.segment.closed)
            return
        if session["sheet"][0] < 0:
            self._release(one, name, past, left_out)
            return
        cdr, added = self._bill(session, past, again, reason in WHOLE)
        if cdr is None:
            self.collector.hold(self.segment, session[0], kinds.HOLD_BOUNDS, again.segment.closed)
            return
        self._release(one, name, past, left_out)
        after = np.concatenate([rated, added])
        self.collector.write_difference(standing, after, place)
        self._replace_cdr(past, cdr)

    def _bill(self, session: Rows, past: Past, again: Again, nothing: bool) -> tuple[CdrRow | None, Rows]:
        """The CDR of the session as metered again, and the rated rows that settlement adds: no CDR beyond all bounds.

        `nothing` of it is billed where all of it stays held.
        """
        pieces = again.segment.closed
        if nothing:
            session["held_mwh"] = whole_mwh(session[0], pieces)
            session["pieces"] = 0
            session["flat"] = session["flat_reserved"] = session["flat_expired"] = -1
        closed = self.collector.closed(self.segment, session, [past.transaction_id], pieces)
        found = settle_all(closed, self.engine.sheets, self.engine.directory)
        return (found.cdrs.at(0) if len(found.cdrs.places.line) else None), found.rated

    def _replace_cdr(self, past: Past, cdr: CdrRow) -> None:
        """A sent CDR never changes: a credit takes it back and a new one follows; an equal one stays."""
        standing, columns = past.cdr, cdr.columns
        if standing is None:
            columns["revision"] = past.revision + 1  # 1, or what follows the credit of one that was held again
            self.batch.add_cdr(cdr.place, columns)
            return
        same = ("energy_mwh", "total_excl_e4", "total_incl_e4", "start_ms", "end_ms", "held_mwh", "charging_ms")
        if all(standing.columns[field] == columns[field] for field in same):
            return
        place = cdr.place
        self._credit(standing, place, last_number(columns, "settled_ms"))
        columns["revision"] = standing.revision + 2
        self.batch.add_cdr(place, columns)

    def _credit(self, standing: LastCdr, place: Place, settled_ms: int) -> None:
        """Take back the CDR that stands."""
        self.batch.add_cdr(place, credited(standing, settled_ms))

    def _release(self, one: Deferred, name: SessionName, past: Past, action: str) -> None:
        """The session is no longer held: by a person, the hold limit, or the reading that was missing."""
        partition = int(self.segment.given.facts["partition"][one.cause])
        held = self.engine.own(partition).held.pop(name.session_key, None)
        if held is None or action:
            return
        place = self.collector.place(self.segment, one.cause, one.connector, name.session_key, "quarantine_rows")
        time_ms = int(self._sample(one)["received_ms"])
        self.batch.quarantine.append(
            QuarantineRow(place, "released", held.reason, held.held_mwh, time_ms, "wattrate", "told by what came later")
        )
        self.collector.resolve_hold(place, held, past, time_ms, "wattrate")

    def _alerts(self, one: Deferred, again: Again, past: Past) -> None:
        """Alerts of the session as metered again that were not said before, and the end of those that are over."""
        said = past.alerted | self.batch.alerted(int(again.state.connectors[0]["session_key"]))
        new = [e for e in again.segment.events(ALERT) if kinds.ALERT_KINDS[int(e["code"])] not in said]
        codes = {int(event["code"]) for event in new}
        over = again.segment.events(RESOLVED)  # of a session that has a CDR, resolved when that was made
        new += [event for event in over if past.cdr is None or int(event["code"]) in codes]
        for event in new:
            event["cause"], event["connector"] = one.cause, one.connector
            event["session_key"] = again.state.connectors["session_key"][0]
            self.collector.alert(self.segment, event)

    def _say(self, one: Deferred, verdict: int, disposition: int) -> None:
        fact = self.segment.given.facts[one.cause]
        fact["verdict"], fact["disposition"] = verdict, disposition

    def _sample(self, one: Deferred) -> np.void:
        sample: np.void = self.segment.given.samples[one.cause]
        return sample

    def _by_time(self, one: Deferred) -> SessionName:
        """The session that a sample without a transaction falls into: the open one, or the one before."""
        connector = self.engine.directory.state.connectors[one.connector]
        sample = self._sample(one)
        charge_point = self.engine.directory.charge_points[one.connector]
        spans = (("open", "session_key", "start_ms"), ("prev_key", "prev_key", "prev_start_ms"))
        for there, key, start in spans:
            before_ms = int(connector[start]) - int(sample["time_ms"])
            if connector[there] and before_ms <= self._prelude_ms(sample):
                return SessionName(charge_point, int(connector[key]))
        return SessionName(charge_point, 0)

    def _prelude_ms(self, sample: np.void) -> int:
        """How long before its start a session takes over what its connector told."""
        if sample["kind"] == KIND_RESERVE:
            return self.rules.metering.reservation_ms
        held = STATE_SUSPENDED_EV <= sample["state"] <= STATE_SUSPENDED_EVSE
        return self.rules.metering.prelude_ms if sample["kind"] == KIND_STATUS and held else 0

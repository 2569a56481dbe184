"""What a segment has written so far becomes rows of the batch: rated usage, alerts, CDRs, holds.

Called after the pass and after each deferred sample; takes only what is new since the last call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.metering import kinds
from pipeline.metering.columns import ABSENT_I64, KIND_TICK
from pipeline.metering.output import (
    ALERT,
    BEGUN,
    FLAT,
    N_EVENTS,
    N_PIECES,
    N_SESSIONS,
    PRELUDE,
    RESOLVED,
    UPDATED,
    Rows,
)
from pipeline.rate.batch import AlertRow, Batch, Place, QuarantineRow, last_number, standing_of
from pipeline.rate.inputs import Input
from pipeline.rate.partition import Held
from pipeline.rate.past import NOTHING, Past, SessionName
from pipeline.rate.rows import again_lines, difference, from_flats, from_pieces, line_base, settlement_lines
from pipeline.rate.segment import Samples, Segment, new_facts
from pipeline.rate.settlement import REGISTERS, Closed, Settlement, settle_all
from pipeline.rate.signed_values import by_session, kept, signed_data

if TYPE_CHECKING:
    from pipeline.rate.engine import Engine

# Reasons that put the whole session in doubt: nothing of it is billed until a person decides.
WHOLE: Final = frozenset(
    {
        kinds.HOLD_UNKNOWN_TARIFF,
        kinds.HOLD_FORGED,
        kinds.HOLD_UNIT_ERROR,
        kinds.HOLD_STUCK,
        kinds.HOLD_NO_REGISTER,
        kinds.HOLD_ANOMALY,
    }
)


def whole_mwh(session: np.void, closed: Rows) -> int:
    """All that a session metered: what its charging periods (of `closed`) carry, and what is held beside them."""
    first, periods = int(session["first_piece"]), int(session["pieces"])
    return int(closed["energy_mwh"][first : first + periods].sum()) + int(session["held_mwh"])


_BESIDE: Final = 1 << 30  # lines of readings that a record brings beside its own
_ACTIONS: Final = {ALERT: "opened", UPDATED: "updated", RESOLVED: "resolved"}


def _severity(kind: int) -> str:
    return "critical" if kind in kinds.CRITICAL else "info" if kind in kinds.INFO else "warning"


def _subject(kind: int, place: Place, since_ms: int) -> str:
    """What an alert's id says beside its kind: its session; the connector and when it began; or the reading."""
    if kind in (kinds.CLOCK_DRIFT, kinds.ZERO_KWH_RUN, kinds.METER_DRIFT, kinds.SOC_DRIFT):
        return f"{place.charge_point_id}/{place.connector_id}-{since_ms}"
    if kind == kinds.OUTSIDE_TRANSACTION:
        return f"{place.partition}-{place.offset}-{place.line:x}"
    return f"{place.session_key:016x}"


class Collector:
    """Moves a segment's output into the batch."""

    def __init__(self, engine: "Engine", batch: Batch, given: Input) -> None:
        """Nothing collected yet."""
        self.engine, self.batch, self.given = engine, batch, given
        self._segment: Segment | None = None
        self._seen = np.zeros(4, np.int64)
        self._begun: dict[int, bytes] = {}

    def collect(self, segment: Segment) -> None:
        """Take what is new: pieces and flats first, then closed sessions, then alerts."""
        if segment is not self._segment:
            self._segment, self._seen, self._begun = segment, np.zeros(4, np.int64), {}
        count = segment.run.desk.count
        if (count == self._seen).all():
            return
        given = segment.given
        pieces = segment.run.pieces[self._seen[N_PIECES] : count[N_PIECES]]
        events = segment.run.desk.events[self._seen[N_EVENTS] : count[N_EVENTS]]
        sessions = segment.run.sessions[self._seen[N_SESSIONS] : count[N_SESSIONS]]
        self._seen = count.copy()
        book = self.engine.sheets.book
        self.batch.add_rated(from_pieces(book, pieces, given.samples, given.facts))
        self.batch.add_rated(from_flats(book, events[events["what"] == FLAT], given.samples, given.facts))
        begun = events[events["what"] == BEGUN]
        texts = given.transaction_ids[begun["cause"]]
        self._begun.update(zip(begun["session_key"].tolist(), texts.tolist(), strict=True))
        if len(sessions):
            self._close(segment, sessions)
        self.engine.directory.transaction_ids[begun["connector"]] = texts  # of several of one connector the last
        for event in events[events["what"] == PRELUDE]:
            self._take_over(segment, event)
        for event in events[np.isin(events["what"], list(_ACTIONS))]:
            self.alert(segment, event)

    def alert(self, segment: Segment, event: np.void) -> None:
        """Write one step in the life of an alert of the pass."""
        cause, row = int(event["cause"]), int(event["connector"])
        kind = int(event["code"])
        place = self.place(segment, cause, row, int(event["session_key"]), "alert_rows")
        name = kinds.ALERT_KINDS[kind]
        self.batch.alerts.append(
            AlertRow(
                place, name, _severity(kind), int(event["time_ms"]),
                self.engine.directory.token_text(int(event["token"])),
                {n: int(event[n]) for n in ("value", "threshold", "since_ms")},
                f"{name}-{_subject(kind, place, int(event['since_ms']))}", _ACTIONS[int(event["what"])],
            )
        )  # fmt: skip

    def resolve_hold(self, place: Place, held: Held, past: Past, time_ms: int, actor: str) -> None:
        """The alert that a session was held for is over, since the hold is."""
        kind = kinds.ALERT_OF_HOLD.get(held.reason, "")
        if kind not in past.alerted:
            return
        line = (place.line >> 32 << 32) + self.batch.next_place(
            "alert_rows", place.partition, place.offset, place.line >> 32
        )
        code = kinds.ALERT_KINDS.index(kind)
        self.batch.alerts.append(
            AlertRow(
                place._replace(line=line), kind, _severity(code), time_ms, "", {"actor": actor},
                f"{kind}-{place.session_key:016x}", "resolved",
            )
        )  # fmt: skip

    def place(self, segment: Segment, cause: int, row: int, session_key: int, table: str) -> Place:
        """The identity of the next row that this sample causes in a table."""
        sample, fact = segment.given.samples[cause], segment.given.facts[cause]
        connector = self.engine.directory.state.connectors[row]
        line = int(connector["ordinal"]) if sample["kind"] == KIND_TICK else int(sample["line"])
        partition, offset = int(fact["partition"]), int(sample["offset"])
        base = (line << 32) + self.batch.next_place(table, partition, offset, line)
        return Place(
            partition, offset, base, row, session_key, self.engine.directory.charge_points[row],
            int(connector["connector_id"]),
        )  # fmt: skip

    def adopt(self, segment: Segment, cause: int, row: int, session_key: int, found: Past) -> None:
        """Write readings down as those of a session that is known only now, in the name of the record at `cause`."""
        samples = found.samples.copy()
        texts = np.full(len(samples), found.transaction_id, segment.given.transaction_ids.dtype)
        self._also_read(segment, cause, row, session_key, kinds.LATE, samples, texts)

    def _take_over(self, segment: Segment, event: np.void) -> None:
        """Write down as a reading of the session what it takes over from its connector: a state, a reservation."""
        cause = int(event["cause"])
        sample = segment.given.samples[cause : cause + 1].copy()
        sample["kind"], sample["state"], sample["time_ms"] = event["code"], event["value"], event["time_ms"]
        for name in ("register_mwh", "power_mw", "current_ma"):
            sample[name] = ABSENT_I64
        sample["seq_no"] = sample["soc_permille"] = sample["phases_live"] = sample["token"] = -1
        for name in ("txn_hash", "flags", "context", "signed", "phases_said"):
            sample[name] = 0
        texts = np.zeros(1, segment.given.transaction_ids.dtype)
        row, key = int(event["connector"]), int(event["session_key"])
        self._also_read(segment, cause, row, key, kinds.GOOD, sample, texts)

    def _also_read(
        self, segment: Segment, cause: int, row: int, session_key: int, verdict: int, samples: Rows,
        texts: npt.NDArray[np.bytes_],
    ) -> None:  # fmt: skip
        """Readings beside the one at `cause`, under its offset and lines of their own."""
        given = segment.given
        partition, offset = int(given.facts["partition"][cause]), int(given.samples["offset"][cause])
        line = int(given.samples["line"][cause])
        first = self.batch.next_place("beside", partition, offset, line, len(samples))
        samples["offset"] = offset
        samples["line"] = (line << 8) + _BESIDE + first + np.arange(len(samples))
        facts = new_facts(len(samples))
        facts["partition"], facts["row"], facts["session_key"], facts["verdict"] = partition, row, session_key, verdict
        versions = np.full(len(samples), given.versions[cause])
        self.batch.metered.append(Samples(samples, facts, texts, versions, np.full(len(samples), -1)))

    def raw(self, segment: Segment, cause: int) -> bytes:
        """The bytes of the record behind a sample; a tick has none worth keeping."""
        record = int(segment.given.records[cause])
        return self.given.values[record] if record >= 0 else b""

    def closed(self, segment: Segment, sessions: Rows, texts: Sequence[bytes], pieces: Rows | None = None) -> Closed:
        """Closed sessions with the identity of the samples that closed them."""
        given, cause = segment.given, sessions["cause"]
        ticks = given.samples["kind"][cause] == KIND_TICK
        ordinals = self.engine.directory.state.connectors["ordinal"][sessions["connector"]]
        lines = np.where(ticks, ordinals, given.samples["line"][cause])
        return Closed(
            sessions, segment.closed if pieces is None else pieces, given.samples["offset"][cause],
            line_base(lines), given.facts["partition"][cause].astype(np.int64), list(texts),
            given.samples["received_ms"][cause], self._signed_data(given, sessions),
        )  # fmt: skip

    def _signed_data(self, given: Samples, sessions: Rows) -> list[Mapping[str, Any] | None]:
        """OCPI SignedData of each session that has signed values, of this batch or from before."""
        told: list[Mapping[str, Any] | None] = [None] * len(sessions)
        those = np.flatnonzero(sessions["signed"]).tolist()
        new = by_session(self.batch.signed) if those else {}
        directory = self.engine.directory
        for at in those:
            session = sessions[at]
            key, row = int(session["session_key"]), int(session["connector"])
            state = self.engine.own(int(given.facts["partition"][session["cause"]]))
            data = self.engine.sheets.data(state.reference_version)
            connector_id = int(directory.state.connectors["connector_id"][row])
            values = kept([*state.signed.get(key, ()), *new.get(key, ())])
            told[at] = signed_data(values, data.public_key(directory.charge_points[row], connector_id))
        return told

    def whole_past(self, name: SessionName) -> Past:
        """A session's past: of earlier batches, and what this batch has brought so far."""
        if not name.session_key:
            return NOTHING
        past, key = self.engine.history.past(name), name.session_key
        token = self.engine.directory.token
        earlier = past.samples.copy()
        numbers = np.array([token(uid) for uid in past.tokens] + [-1], np.int32)
        earlier["token"] = numbers[earlier["token"]]
        found = self.batch.readings_of(key)
        texts = [bytes(given.transaction_ids[at[0]]) for given, at in found]
        rows = [int(given.facts["row"][at[0]]) for given, at in found]
        connectors = self.engine.directory.state.connectors["connector_id"]
        last = self.batch.last_cdr(key)
        if last is not None:
            past = replace(past, cdr=standing_of(last.columns), revision=last_number(last.columns, "revision"))
        return replace(
            past,
            samples=np.concatenate([earlier, *(given.samples[at] for given, at in found)]),
            versions=np.concatenate([past.versions, *(given.versions[at] for given, at in found)]),
            alerted=past.alerted | self.batch.alerted(key),
            transaction_id=next(filter(None, [past.transaction_id, *texts]), b""),
            connector_id=past.connector_id or next((int(connectors[row]) for row in rows), 0),
        )

    def bill(self, found: Settlement) -> None:
        """Write CDRs, and the rated rows that their settlement adds."""
        self.batch.add_cdrs(found.cdrs)
        if not len(found.rated):
            return
        places, rated = found.cdrs.places, found.rated
        order = np.argsort(places.session_key, kind="stable")
        of_row = order[np.searchsorted(places.session_key[order], rated["session_key"])]
        counts = np.bincount(of_row, minlength=len(order))
        having = np.flatnonzero(counts)
        first = np.zeros(len(order), np.int64)
        first[having] = self.batch.next_places("settlement", places.taken(having), counts[having])
        rated["line"] += settlement_lines(places.line, first)[of_row]
        self.batch.add_rated(rated)

    def hold(self, segment: Segment, session: np.void, reason: int, closed: Rows) -> None:
        """Keep a closed session (its periods are in `closed`) back from billing, with the bytes of what closed it."""
        cause, row, key = int(session["cause"]), int(session["connector"]), int(session["session_key"])
        place = self.place(segment, cause, row, key, "quarantine_rows")
        name = SessionName(place.charge_point_id, key)
        held_mwh = int(session["held_mwh"])
        if reason in WHOLE:
            held_mwh = whole_mwh(session, closed)
            self.take_back(name, place)
        time_ms = int(segment.given.samples["received_ms"][cause])
        why = kinds.HOLD_REASONS[reason]
        raw = self.raw(segment, cause)
        first_mwh, last_mwh, unexplained_mwh = (int(session[name]) for name in REGISTERS)
        self.batch.quarantine.append(
            QuarantineRow(
                place, "held", why, held_mwh, time_ms, raw=raw, first_mwh=first_mwh, last_mwh=last_mwh,
                unexplained_mwh=unexplained_mwh,
            )
        )  # fmt: skip
        state = self.engine.own(place.partition)
        state.held[key] = Held(place.charge_point_id, place.connector_id, why, held_mwh, time_ms)

    def take_back(self, name: SessionName, place: Place) -> None:
        """Reverse whatever stands rated for the session."""
        standing = self.standing(name)
        if len(standing):
            self.write_difference(standing, standing[:0], place)

    def standing(self, name: SessionName) -> Rows:
        """The rated rows of a session that stand, of earlier batches and of this one."""
        past = self.engine.history.past(name)
        earlier = self.engine.sheets.renumbered(past.rated, past.tariffs)
        return np.concatenate([earlier, self.batch.rated_of(name.session_key)])

    def write_difference(self, before: Rows, after: Rows, place: Place) -> None:
        """Write rows that turn what stands into what shall stand, in the name of the cause at `place`."""
        alike = self.engine.sheets.alike  # a location that changed its zone is no reason to write all rows anew
        rows = difference(alike(before), alike(after))
        if not len(rows):
            return
        line = place.line >> 32
        first = self.batch.next_place("rated_usage_rows", place.partition, place.offset, line, len(rows))
        rows["line"] = again_lines(place.line, first, len(rows))
        rows["offset"], rows["partition"], rows["row"] = place.offset, place.partition, place.row
        rows["session_key"] = place.session_key
        self.batch.add_rated(rows)

    def _close(self, segment: Segment, sessions: Rows) -> None:
        directory = self.engine.directory
        texts: list[bytes] = directory.transaction_ids[sessions["connector"]].tolist()
        if self._begun:
            texts = list(map(self._begun.get, sessions["session_key"].tolist(), texts))
        free = np.flatnonzero(sessions["hold"] == kinds.HOLD_NONE)
        if len(free):
            closed = self.closed(segment, sessions[free], [texts[at] for at in free])
            found = settle_all(closed, self.engine.sheets, directory)
            self.bill(found)
            for session in sessions[free][~np.isin(sessions["session_key"][free], found.cdrs.places.session_key)]:
                self.hold(segment, session, kinds.HOLD_BOUNDS, segment.closed)
        held = sessions[sessions["hold"] != kinds.HOLD_NONE]
        names = [SessionName(directory.charge_points[s["connector"]], int(s["session_key"])) for s in held]
        self.engine.history.prefetch(n for n, s in zip(names, held, strict=True) if int(s["hold"]) in WHOLE)
        for session in held:
            self.hold(segment, session, int(session["hold"]), segment.closed)

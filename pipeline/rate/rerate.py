"""A session metered and rated again from all its readings in order: what the pass can't do with its state alone.

The same compiled functions run over the session's own readings, sorted, on a state of one connector. What comes out
is compared with what stands, and only the difference is written: reversals and replacements, a credit CDR and a new
one. Rerating an unchanged session writes nothing.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.metering.columns import KIND_RESERVE, KIND_SAMPLE, KIND_START, KIND_STATUS, KIND_STOP
from pipeline.metering.output import FLAT, ROOM, Output, Rows, cleared
from pipeline.metering.policy import limits_again
from pipeline.metering.run import DEFAULT_DTYPE
from pipeline.metering.state import State, new_state, periods_of
from pipeline.rate.directory import Directory
from pipeline.rate.past import Past
from pipeline.rate.rows import from_flats, from_pieces
from pipeline.rate.segment import Samples, Segment, new_facts
from rating.ratesheet import Book

_KIND_ORDER: Final = np.array([2, 0, 4, 1, 1, 5], np.int8)  # SAMPLE START STOP STATUS RESERVE TICK


@dataclass(frozen=True)
class Again:
    """What a session is when all its readings are taken in order."""

    segment: Segment
    rated: Rows  # ENERGY, TIME, PARKING_TIME and FLAT rows, without identity
    closed: bool
    state: State  # of its one connector


@dataclass(frozen=True)
class Terms:
    """What a session is rated by: connector, sheet, rating, limits, and whether a person released it."""

    row: int
    sheet: int
    rating_mw: int
    limits: Rows  # one row: those that hold for the connector now
    released: bool = False


def in_order(samples: Rows, future_ms: int) -> npt.NDArray[np.intp]:
    """The order in which a session's readings count: its start, then by seqNo where all have one, else by time.

    A clock more than `future_ms` ahead of its message's arrival is not believed: the arrival counts, as in the pass.
    """
    ahead = samples["time_ms"] - samples["received_ms"] > future_ms
    times = np.where(ahead, samples["received_ms"], samples["time_ms"])
    kind = _KIND_ORDER[samples["kind"]]
    is_start = samples["kind"] == KIND_START
    register = samples["register_mwh"]
    told = samples["seq_no"][~np.isin(samples["kind"], (KIND_STATUS, KIND_RESERVE))]
    by_seq_no = len(told) > 0 and bool((told >= 0).all())
    first = np.where(is_start, -1, samples["seq_no"]) if by_seq_no else np.where(is_start, -1, 0)
    if by_seq_no:
        first = _status_places(samples, first)
    if is_start.any():  # what the connector told before the session began, the session takes over at its start
        told = np.isin(samples["kind"], (KIND_STATUS, KIND_RESERVE)) & (times < times[is_start].min())
        first = np.where(told, -2, first)
    return np.lexsort((samples["line"], samples["offset"], register, kind, times, first))


def _status_places(samples: Rows, first: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """A status has no seqNo: it stands behind the last numbered reading at or before its time."""
    numbered = ~np.isin(samples["kind"], (KIND_STATUS, KIND_RESERVE))
    times, numbers = samples["time_ms"][numbered], first[numbered]
    order = np.argsort(times, kind="stable")
    reached = np.maximum.accumulate(numbers[order])
    place = np.searchsorted(times[order], samples["time_ms"], side="right") - 1
    behind = np.where(place >= 0, reached[np.maximum(place, 0)], -1)
    return np.where(numbered, first, behind)


def meter_again(
    past: Past,
    samples: Rows,
    terms: Terms,
    directory: Directory,
    book: Book,
    live: bool,
    out: Output,
) -> Again:
    """Meter `samples` (all of one session, any order) afresh; a session that is not live ends at its last register.

    `out` is room that is used again: what is returned is good until the next call with it.
    """
    samples = samples[in_order(samples, int(terms.limits["future_ms"][0]))]
    facts = new_facts(len(samples))
    facts["sheet"] = terms.sheet
    facts["partition"] = 0
    scratch = _alone(directory, terms.row, len(samples))
    limits = limits_again(terms.limits, len(samples) + 2, terms.released)
    defaults = np.array([[(terms.rating_mw, terms.sheet)]], DEFAULT_DTYPE)
    given = Samples(
        samples, facts, np.full(len(samples), past.transaction_id), np.zeros(len(samples), np.int64),
        np.full(len(samples), -1),
    )  # fmt: skip
    segment = Segment(given, book, scratch, limits, defaults, np.zeros(0, np.uint64), cleared(out))
    segment.meter()
    if len(segment.sessions) == 0 and not live and scratch.state.connectors["open"][0]:
        segment.end(len(samples) - 1, 0)
    rated = np.concatenate(
        [from_pieces(book, segment.pieces, samples, facts), from_flats(book, segment.events(FLAT), samples, facts)]
    )
    rated["row"] = terms.row
    return Again(segment, rated, len(segment.sessions) > 0, scratch.state)


def _alone(directory: Directory, row: int, samples: int) -> Directory:
    """A directory that knows only this connector, as if nothing had been heard of it."""
    alone = Directory(1, new_state(1, 2 * ROOM + 8 * samples, marks_per_connector=samples + 2))
    alone.row(0, directory.charge_points[row], int(directory.state.connectors["connector_id"][row]))
    connector = alone.state.connectors[0]
    original = directory.state.connectors[row]
    for name in ("identity", "connector_id"):
        connector[name] = original[name]
    connector["sibling"] = 0
    return alone


def has_start(samples: Rows) -> bool:
    """Whether anything but stops and states is known: without that a session can't be billed."""
    return bool(np.isin(samples["kind"], (KIND_START, KIND_SAMPLE)).any())


def has_stop(samples: Rows) -> bool:
    """Whether the session's stop was heard."""
    return bool((samples["kind"] == KIND_STOP).any())


# What belongs to the connector once its session is over: what followed it is judged by.
CLOSED_FIELDS: Final = ("last_ms", "last_mwh", "prev_txn", "prev_start_ms", "prev_end_ms", "idle_register")


def conclude(directory: Directory, row: int, again: Again, session_key: int) -> None:
    """The session as metered again is over: it is the connector's last one."""
    connector, source = directory.state.connectors[row], again.state.connectors[0]
    for name in CLOSED_FIELDS:
        connector[name] = source[name]
    connector["prev_key"] = session_key
    connector["zero_run"] = connector["zero_run"] + 1 if source["zero_run"] else 0


def is_repeat(samples: Rows, sample: np.void) -> bool:
    """Whether the same reading is among these."""
    same = np.ones(len(samples), bool)
    for name in ("time_ms", "register_mwh", "kind", "seq_no", "state"):
        same &= samples[name] == sample[name]
    return bool(same.any())


# What belongs to the session, and not to the connector, in a connector's state.
SESSION_FIELDS: Final = (
    "session_key", "txn_hash", "start_ms", "last_ms", "last_mwh", "first_mwh", "energy_mwh", "held_mwh", "pend_ms",
    "pend_mwh", "unexplained_mwh", "since_ms", "power_mw", "current_ma", "flow_mwh", "stuck_mwh", "park_ms",
    "rating_mw", "seq_no", "sheet", "token", "flat", "flat_reserved", "flat_expired", "readings", "flags", "open",
    "state", "pend", "relative", "hold", "n_marks", "signed", "has_register", "phases_live", "idle_register",
    "soc_first", "soc_last",
)  # fmt: skip


def adopt(directory: Directory, row: int, again: Again, marks_per_connector: int) -> None:
    """Make the session as metered again the connector's open session."""
    state, scratch = directory.state, again.state
    connector, source = state.connectors[row], scratch.connectors[0]
    directory.free_periods(row)
    for name in SESSION_FIELDS:
        connector[name] = source[name]
    connector["alerted"] |= source["alerted"]
    kept = min(int(source["n_marks"]), marks_per_connector)
    connector["n_marks"] = kept
    last = int(source["n_marks"])
    base = row * marks_per_connector
    state.marks[base : base + kept] = scratch.marks[last - kept : last]
    connector["head"] = connector["tail"] = -1
    connector["periods"] = 0
    periods, lengths = periods_of(scratch.periods, scratch.connectors["head"][:1])
    directory.append_periods(np.array([row]), lengths, periods)

"""Everything that one batch adds to the ledger, before it is put into Arrow tables; and what of it is a session's past.

Accumulates only. Every record of the batch ends with exactly one outcome here.
"""

from collections import Counter
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.metering import kinds
from pipeline.metering.columns import ABSENT_I64, KIND_TICK
from pipeline.metering.output import Rows, rows_at, rows_joined
from pipeline.rate.past import LastCdr
from pipeline.rate.rows import RATED_DTYPE
from pipeline.rate.segment import Samples
from pipeline.rate.signed_values import Signed
from rating.cdr import credit, encode
from rating.cdr_bytes import Documents
from rating.jit import kernel

USED = 0
DUPLICATE = 1
QUARANTINED = 2
DEAD_LETTERED = 3
CONTROL = 4
OUTCOMES = ("used", "duplicate", "quarantined", "dead_lettered", "control")

# The outcome of a sample by its verdict; held energy is quarantined whatever the verdict.
_BY_VERDICT = np.zeros(9, np.int8)
_BY_VERDICT[kinds.DUPLICATE] = DUPLICATE
_BY_VERDICT[[kinds.REGRESSED, kinds.SUSPECT]] = QUARANTINED


_LINE = np.uint64(32)  # bits of a line below its place in the record


class Place(NamedTuple):
    """Where a row belongs: the identity of the record that caused it, and the connector."""

    partition: int
    offset: int
    line: int
    row: int
    session_key: int
    charge_point_id: str
    connector_id: int


Column = npt.NDArray[Any] | list[str] | Documents


@dataclass(frozen=True)
class AlertRow:
    """One alert, opened; instants ms, numbers in the unit of its kind."""

    place: Place
    kind: str
    severity: str
    time_ms: int
    id_token: str
    evidence: dict[str, int | str]
    alert_id: str
    action: str = "opened"


@dataclass(frozen=True)
class QuarantineRow:
    """Usage held, or what became of it."""

    place: Place
    action: str
    reason: str
    held_mwh: int
    time_ms: int
    actor: str = ""
    note: str = ""
    raw: bytes = b""
    first_mwh: int = ABSENT_I64  # of a session that is held: as in its CDR
    last_mwh: int = ABSENT_I64
    unexplained_mwh: int = ABSENT_I64


class CdrRow(NamedTuple):
    """A settled session: columns of cdr_rows beside identity and connector."""

    place: Place
    columns: dict[str, object]


class Places(NamedTuple):
    """`Place` as columns."""

    partition: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    line: npt.NDArray[np.uint64]
    row: npt.NDArray[np.int64]
    session_key: npt.NDArray[np.uint64]
    charge_point_id: list[str]
    connector_id: npt.NDArray[np.int64]

    def at(self, number: int) -> Place:
        """One of them."""
        partition, offset, line, row, key, name, connector_id = (column[number] for column in self)
        return Place(int(partition), int(offset), int(line), int(row), int(key), name, int(connector_id))

    def taken(self, which: npt.NDArray[np.intp]) -> "Places":
        """Some of them."""
        partition, offset, line, row, key, names, connector_id = self
        return Places(
            partition[which], offset[which], line[which], row[which], key[which], [names[at] for at in which.tolist()],
            connector_id[which],
        )  # fmt: skip


class CdrColumns(NamedTuple):
    """Settled sessions as columns: what many settle to, without an object for each."""

    places: Places
    columns: dict[str, Column]  # of `CdrRow.columns`

    def at(self, number: int) -> CdrRow:
        """One of them as a row."""
        return CdrRow(self.places.at(number), {name: _value(column, number) for name, column in self.columns.items()})


@dataclass(frozen=True)
class DeadRow:
    """A record that can never be used."""

    partition: int
    offset: int
    record_ms: int
    reason: str
    detail: str
    key: bytes
    raw: bytes


@dataclass
class Share:
    """One partition's part of the batch: which offsets, how its records ended, where its log has got to."""

    partition: int
    first_offset: int
    last_offset: int
    records: int
    log_time_ms: int = 0
    reference_version: int = 0
    outcomes: Counter[int] = field(default_factory=Counter)


class Batch:
    """Rows of one batch over the partitions it touches."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.shares: dict[int, Share] = {}
        self.metered: list[Samples] = []
        self.signed: list[Signed] = []
        self.rated: list[Rows] = []
        self.cdr_parts: list[CdrColumns | list[CdrRow]] = []
        self.alerts: list[AlertRow] = []
        self.quarantine: list[QuarantineRow] = []
        self.dead: list[DeadRow] = []
        self._places: Counter[tuple[str, int, int, int]] = Counter()
        self._last_cdr: dict[int, tuple[int, int]] = {}  # session → part of `cdr_parts`, row of it
        self._known_cdr_parts = 0
        self._rated_at: dict[int, list[tuple[int, npt.NDArray[np.intp]]]] = {}  # session → part of `rated`, rows of it
        self._rated_parts = 0  # how many parts of `rated` that knows

    def next_place(self, table: str, partition: int, offset: int, line: int, rows: int = 1) -> int:
        """How many rows of this table the same cause has written before; `rows` more are."""
        key = (table, partition, offset, line)
        self._places[key] += rows
        return self._places[key] - rows

    def next_places(self, table: str, places: Places, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """`next_place` of many causes, in order; `rows` more of each."""
        keys = zip(places.partition.tolist(), places.offset.tolist(), (places.line >> _LINE).tolist(), strict=True)
        counts, found = self._places, np.empty(len(rows), np.int64)
        for at, (key, more) in enumerate(zip(keys, rows.tolist(), strict=True)):
            named = (table, *key)
            found[at] = before = counts.get(named, 0)
            counts[named] = before + more
        return found

    def add_cdr(self, place: Place, columns: dict[str, object]) -> None:
        """Write a CDR in the name of the cause at `place`."""
        at = self.next_place("cdr_rows", place.partition, place.offset, place.line >> 32)
        self._know_cdrs()
        singles = self.cdr_parts[-1] if self.cdr_parts else None
        if not isinstance(singles, list):
            singles = []
            self.cdr_parts.append(singles)
        singles.append(CdrRow(place._replace(line=(place.line >> 32 << 32) + at), columns))
        self._known_cdr_parts = len(self.cdr_parts)
        self._last_cdr[place.session_key] = len(self.cdr_parts) - 1, len(singles) - 1

    def add_cdrs(self, found: CdrColumns) -> None:
        """Write many CDRs, each in the name of the cause at its place."""
        places = found.places
        count = len(places.session_key)
        if not count:
            return
        at = self.next_places("cdr_rows", places, np.ones(count, np.int64))
        lines = (places.line >> _LINE << _LINE) + at.astype(np.uint64)
        self.cdr_parts.append(found._replace(places=places._replace(line=lines)))

    @property
    def cdrs(self) -> list[CdrRow]:
        """Every CDR and credit as a row, in order: for those who look at few."""
        return [row for part in self.cdr_parts for row in _rows_of(part)]

    def add_rated(self, rows: Rows) -> None:
        """Write rated rows."""
        if len(rows):
            self.rated.append(rows)

    def readings_of(self, session_key: int) -> list[tuple[Samples, npt.NDArray[np.intp]]]:
        """Where the session's readings of this batch are: samples, and which of them."""
        found = []
        for given in self.metered:
            chosen = given.facts["session_key"] == session_key
            if not chosen.any():
                continue
            counts = chosen & (given.facts["verdict"] != kinds.DUPLICATE) & (given.facts["verdict"] != 0)
            counts &= given.samples["kind"] != KIND_TICK
            if counts.any():
                found.append((given, np.flatnonzero(counts)))
        return found

    def rated_of(self, session_key: int) -> Rows:
        """The session's rated rows of this batch."""
        for part in range(self._rated_parts, len(self.rated)):
            keys = self.rated[part]["session_key"]
            order = np.argsort(keys, kind="stable")
            edges = [0, *(np.flatnonzero(np.diff(keys[order])) + 1).tolist(), len(keys)]
            for first, stop in pairwise(edges):
                self._rated_at.setdefault(int(keys[order[first]]), []).append((part, order[first:stop]))
        self._rated_parts = len(self.rated)
        parts = [rows_at(self.rated[part], at) for part, at in self._rated_at.get(session_key, ())]
        return rows_joined(parts) if parts else np.zeros(0, RATED_DTYPE)

    def last_cdr(self, session_key: int) -> CdrRow | None:
        """The session's last CDR or credit in this batch."""
        self._know_cdrs()
        if session_key not in self._last_cdr:
            return None
        number, at = self._last_cdr[session_key]
        part = self.cdr_parts[number]
        return part[at] if isinstance(part, list) else part.at(at)

    def _know_cdrs(self) -> None:
        """Note which session each CDR is of, where nobody asked yet."""
        for number in range(self._known_cdr_parts, len(self.cdr_parts)):
            part = self.cdr_parts[number]
            if not isinstance(part, list):
                keys = part.places.session_key.tolist()
                self._last_cdr.update((key, (number, at)) for at, key in enumerate(keys))
        self._known_cdr_parts = len(self.cdr_parts)

    def alerted(self, session_key: int) -> frozenset[str]:
        """Alert kinds said of the session in this batch."""
        return frozenset(alert.kind for alert in self.alerts if alert.place.session_key == session_key)

    def count_outcomes(self, of_partition: npt.NDArray[np.int32]) -> None:
        """Give each record with samples its outcome, that of its worst sample; `of_partition` by record."""
        worst = np.full(len(of_partition), -1, np.int8)
        for given in self.metered:
            _worsen(worst, given.facts, given.records)
        for partition, share in self.shares.items():
            counts = np.bincount(worst[(of_partition == partition) & (worst >= 0)]).tolist()
            share.outcomes.update({outcome: count for outcome, count in enumerate(counts) if count})


@kernel
def _worsen(worst: npt.NDArray[np.int8], facts: Rows, records: npt.NDArray[np.int64]) -> None:
    """Raise each record's outcome to that of its worst sample; -1 is none, as of a sample that stands for no record."""
    for at in range(len(facts)):
        fact, record = facts[at], records[at]
        if record >= 0:
            outcome = QUARANTINED if fact.disposition == kinds.HELD else _BY_VERDICT[fact.verdict]
            worst[record] = max(worst[record], outcome)


def _rows_of(part: CdrColumns | list[CdrRow]) -> list[CdrRow]:
    return part if isinstance(part, list) else [part.at(number) for number in range(len(part.places.line))]


def _value(column: Column, number: int) -> object:
    """An element of a column as Python's own."""
    if isinstance(column, Documents):
        return column.at(number)
    return column[number].item() if isinstance(column, np.ndarray) else column[number]


def standing_of(columns: dict[str, object]) -> LastCdr | None:
    """The CDR that stands after this row, a session's last; none after a credit."""
    return None if columns["credit"] else last_cdr_of(columns)


def last_cdr_of(columns: dict[str, object]) -> LastCdr:
    """What a CDR row says of its session."""
    amounts = {f.name: last_number(columns, f.name) for f in fields(LastCdr) if f.name not in ("columns", "document")}
    document = columns["document"]
    if not isinstance(document, bytes):
        raise TypeError(f"cdr column document is no bytes: {document!r}")
    return LastCdr(**amounts, columns=columns, document=document)


def credited(cdr: LastCdr, settled_ms: int) -> dict[str, object]:
    """The columns of the Credit CDR of a CDR: every amount negated, one revision on."""
    columns = dict(cdr.columns)
    for name in ("energy_mwh", "charging_ms", "parking_ms", "held_mwh", "rated_cost", "total_excl_e4", "total_incl_e4"):
        columns[name] = -last_number(columns, name)
    columns["document"] = encode(credit(msgspec.json.decode(cdr.document), settled_ms))
    return {**columns, "credit": 1, "revision": cdr.revision + 1, "settled_ms": settled_ms}


def last_number(columns: dict[str, object], name: str) -> int:
    """An integer column of a CDR row."""
    value = columns[name]
    if not isinstance(value, int):
        raise TypeError(f"cdr column {name} is no integer: {value!r}")
    return value

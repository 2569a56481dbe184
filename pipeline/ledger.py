"""The ledger: what the commit protocol writes and reads back, and the checks on it. Over which tables is not said here.

Rows are Arrow tables with the columns of deploy/clickhouse/0001_ledger.sql. A `Span` names the offsets that one claim
wrote in one partition, both ends included. Energy mWh, cost in cost units, instants UTC ms. There is no delete: rows
beyond the last marker are written again under the next claim, and the old ones are seen by nobody. `store` has the
ledger in ClickHouse; the simulation has one in memory, and tests/contract holds both to the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import FencedError, IntegrityError
from pipeline.tiling import Extent, Marked, OverlapError, tiled_end

READINGS: Final = "reading_rows"
RATED_USAGE: Final = "rated_usage_rows"
CDRS: Final = "cdr_rows"
ALERTS: Final = "alert_rows"
QUARANTINE: Final = "quarantine_rows"
DEAD_LETTERS: Final = "dead_letter_rows"
RECORDS: Final = "record_rows"  # the log's own, of `pipeline.archive`: under no marker

# table → the columns whose sums are read back, beside count, offset and line
SUMMED: Final[dict[str, tuple[str, ...]]] = {
    READINGS: ("energy_mwh", "session_key"),
    RATED_USAGE: ("cost", "quantity"),
    CDRS: ("rated_cost", "total_incl_e4"),
    ALERTS: ("session_key",),
    QUARANTINE: ("held_mwh",),
    DEAD_LETTERS: (),
}
ROW_TABLES: Final = tuple(SUMMED)
_MS_UTC: Final = pa.timestamp("ms", "UTC")
_WRAP: Final = (1 << 64) - 1
_TRIES: Final = 5  # that meet another member at the same number before a claim is given up


@dataclass(frozen=True)
class Span:
    """Offsets first_offset … last_offset of a partition, written under a claim."""

    partition: int
    claim: int
    first_offset: int
    last_offset: int


@dataclass(frozen=True)
class Sums:
    """What a read-back compares: number of rows, and a wrapping 64-bit sum of identities and amounts."""

    rows: int
    check: int


@dataclass(frozen=True)
class Marker:
    """The commit point of one batch in one partition; markers tile a partition."""

    partition: int
    claim: int
    first_offset: int
    last_offset: int
    records: int
    control: int
    used: int
    duplicate: int
    quarantined: int
    dead_lettered: int
    readings: int
    rated: int
    cdrs: int
    alerts: int
    quarantine: int
    energy_mwh: int
    cost: int
    checksum: int
    log_time: int
    reference_version: int
    code_version: str
    written_at: int


@dataclass(frozen=True)
class Claim:
    """The right to write a partition from `first_offset` on: the highest number, and of equals the lowest member."""

    partition: int
    claim: int
    first_offset: int
    member: str


@dataclass(frozen=True)
class Snapshot:
    """Worker state of a partition after `last_offset`; `payload` is the worker's own, `checksum` guards it."""

    partition: int
    claim: int
    last_offset: int
    code_version: str
    checksum: int
    payload: bytes
    taken_at: int


@dataclass(frozen=True)
class StateAt:
    """Where a snapshot stands."""

    claim: int
    last_offset: int


@dataclass(frozen=True)
class Heard:
    """What a session's readings tell of it: its token, first and last instant, newest reference version."""

    id_token: str
    first_ms: int
    last_ms: int
    reference_version: int


@dataclass(frozen=True)
class Taken:
    """A partition taken over: the claim on it, and those before it, whose markers tile up to its first offset."""

    claim: Claim
    before: list[Extent]

    def spans(self, first_offset: int) -> list[Span]:
        """The offsets from one on that were marked before, a span a claim."""
        end = self.claim.first_offset
        cut = [(one.claim, max(one.first_offset, first_offset), min(one.end_offset, end)) for one in self.before]
        return [Span(self.claim.partition, claim, first, after - 1) for claim, first, after in cut if first < after]


@dataclass(frozen=True)
class Intent:
    """The highest claim number that was ever asked for in a partition, and by whom; one of many members has none."""

    claim: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """A record of which the store refuses a row: noted under claim NOTED, in force under the claims that adopted it."""

    partition: int
    claim: int
    offset: int
    code: int
    message: str


NOTED: Final = 0  # no claim has this number

_MARKER_TYPES: Final[dict[str, pa.DataType]] = {
    "partition": pa.uint16(),
    "claim": pa.uint32(),
    "energy_mwh": pa.int64(),
    "cost": pa.int64(),
    "log_time": _MS_UTC,
    "written_at": _MS_UTC,
    "code_version": pa.string(),
}
_CLAIM_TYPES: Final[dict[str, pa.DataType]] = {
    "partition": pa.uint16(),
    "claim": pa.uint32(),
    "previous": pa.uint32(),
    "first_offset": pa.uint64(),
    "last_offset": pa.uint64(),
    "member": pa.string(),
    "offset": pa.uint64(),
    "code": pa.int32(),
    "message": pa.string(),
}

Answer = TypeVar("Answer")


class Ledger(ABC):
    """The rows of one log (a topic's life). One per thread."""

    def __init__(self, where: str, log_id: int) -> None:
        """`where` names the store in messages."""
        self.where = where
        self.log_id = log_id

    # what a store must be able to do

    @abstractmethod
    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows; they count for nobody until a marker covers them."""

    @abstractmethod
    def each(self, steps: Sequence[Callable[[], Answer]]) -> list[Answer]:
        """What steps that do not wait for each other come to; all are over when one of them raises."""

    @abstractmethod
    def sums(
        self, tables: Iterable[str], spans: Sequence[Span], *, repeats: bool = False
    ) -> dict[tuple[str, int], Sums]:
        """What the store holds, by (table, partition), of these spans; a repeated row counts once, or each time.

        With `repeats` the question is far cheaper, and an answer that equals what was sent proves as much.
        """

    def new_sums(self, tables: Iterable[str], spans: Sequence[Span]) -> dict[tuple[str, int], Sums]:
        """`sums` with repeats, of spans of which nothing was inserted before the last read-back was over."""
        return self.sums(tables, spans, repeats=True)

    @abstractmethod
    def covered_rows(self, table: str, partition: int, first_offset: int, last_offset: int) -> pa.Table:
        """The rows of a table that count, of these offsets (both included), in the order of their identity."""

    @abstractmethod
    def heard(self, sessions: Iterable[tuple[str, int, int, int]]) -> dict[int, Heard]:
        """What readings tell of sessions (charge point, key, partition, offset), each up to its offset."""

    @abstractmethod
    def stored_markers(self, keys: Sequence[tuple[int, int, int]]) -> list[Marker]:
        """Markers by (partition, claim, first offset), whether they are valid or not."""

    @abstractmethod
    def markers(self, partitions: Sequence[int]) -> list[Marker]:
        """The valid markers of partitions, by partition and offset."""

    @abstractmethod
    def newest_reference(self) -> int:
        """The newest reference version that a marker names, valid or not; 0 where none does. A hint, nothing more."""

    @abstractmethod
    def intents(self, partitions: Sequence[int]) -> dict[int, Intent]:
        """Partition → the highest number asked for; partitions that nobody ever asked for are absent."""

    @abstractmethod
    def claims(self, partitions: Sequence[int]) -> list[tuple[Claim, int]]:
        """The claims that count, with the offset at which each ends, by partition and number."""

    @abstractmethod
    def marked(self, partitions: Sequence[int]) -> dict[int, dict[int, Marked]]:
        """Partition → claim → what its markers sum up to, valid or not."""

    @abstractmethod
    def markers_within(self, spans: Sequence[Span]) -> list[Marker]:
        """The markers of these claims that lie within their spans, by partition and offset."""

    @abstractmethod
    def published(self, partitions: Sequence[int]) -> dict[int, int]:
        """Partition → last offset whose outputs are surely on Kafka; partitions without any are absent."""

    @abstractmethod
    def refusals(self, partitions: Sequence[int]) -> list[Refusal]:
        """Records of which the store refused a row, by partition, claim and offset; of repeats the least in words."""

    @abstractmethod
    def insert_again(self, table: str) -> bool:
        """Insert a row that the table holds once more, if it holds one: it took it before, so it must take it now."""

    @abstractmethod
    def snapshot(self, partition: int, not_beyond: int, skip: int = 0) -> Snapshot | None:
        """The newest snapshot at or before offset `not_beyond`, older by `skip`; None when none is left."""

    @abstractmethod
    def snapshots(self, partition: int, not_beyond: int) -> list[StateAt]:
        """Where snapshots stand at or before an offset, the newest first."""

    @abstractmethod
    def drop_snapshots(self, partition: int, gone: Sequence[StateAt]) -> None:
        """Delete snapshots; those that are gone already are no error."""

    # rows

    def read_back(self, written: Mapping[str, pa.Table], spans: Sequence[Span]) -> None:
        """Hold what was inserted against what the store shows. Raises IntegrityError naming the first difference.

        `written` must hold every table of the batch, empty ones too: rows that should not be there are found as well.
        Batches are read back in the order in which they are inserted, one after the other.
        """
        expected = {key: sums for table, rows in written.items() for key, sums in expected_sums(table, rows).items()}
        found = self.new_sums(written, spans)
        if found != expected:  # an insert went in twice, or not at all
            found = self.sums(written, spans)
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) != found.get(key):
                table, partition = key
                raise IntegrityError(
                    f"{self.where}: {table} of partition {partition} holds {found.get(key, Sums(0, 0))} where "
                    f"{expected.get(key, Sums(0, 0))} was written: the batch gets no marker and is driven again"
                )

    # markers

    def add_markers(self, markers: Sequence[Marker]) -> None:
        """Write the commit points and read them back. Raises IntegrityError when they are not there."""
        columns = {
            f.name: pa.array([getattr(m, f.name) for m in markers], _MARKER_TYPES.get(f.name, pa.uint64()))
            for f in fields(Marker)
        }
        self.insert("marker_rows", self._with_log(columns, len(markers)))
        shown = self.stored_markers([(m.partition, m.claim, m.first_offset) for m in markers])
        missing = set(markers) - set(shown)
        if missing:
            named = ", ".join(f"{m.partition} from offset {m.first_offset}" for m in missing)
            raise IntegrityError(
                f"{self.where} acknowledged markers of partition {named} but does not show them: "
                "the batch is driven again"
            )

    def tilings(self, partitions: Sequence[int]) -> dict[int, list[Marker]]:
        """The valid markers of each partition from its first one up to the first hole.

        Raises IntegrityError where two overlap.
        """
        found: dict[int, list[Marker]] = {partition: [] for partition in partitions}
        for marker in self.markers(partitions):
            found[marker.partition].append(marker)
        return {partition: self._tiled(partition, markers) for partition, markers in found.items()}

    def tiled_ends(self, extents: Mapping[int, Sequence[Extent]]) -> dict[int, int]:
        """Partition → the end of its tiling from where its first claim began, told from sums where these fit."""
        marked = self.marked(list(extents))
        return {p: self._tiled_end(p, of, marked.get(p, {})) for p, of in extents.items()}

    def _tiled_end(self, partition: int, extents: Sequence[Extent], marked: Mapping[int, Marked]) -> int:
        def read(claim: int, first: int, last: int) -> list[tuple[int, int]]:
            return [(m.first_offset, m.last_offset) for m in self.markers_within([Span(partition, claim, first, last)])]

        try:
            return tiled_end(extents, marked, read)
        except OverlapError as error:
            raise self._overlap(partition, error.offset) from error

    def _overlap(self, partition: int, offset: int) -> IntegrityError:
        return IntegrityError(
            f"{self.where}: markers of partition {partition} overlap at offset {offset}: "
            "two workers wrote under valid claims; stop all workers and run `wattrate verify`"
        )

    def _tiled(self, partition: int, markers: Iterable[Marker]) -> list[Marker]:
        tiles: list[Marker] = []
        for marker in markers:
            end = tiles[-1].last_offset + 1 if tiles else marker.first_offset
            if marker.first_offset < end:
                raise self._overlap(partition, marker.first_offset)
            if marker.first_offset > end:
                break
            tiles.append(marker)
        return tiles

    # claims

    def take(self, partitions: Sequence[int], member: str, now_ms: int) -> dict[int, Taken]:
        """Claim partitions, each from the end of its markers on. Raises FencedError when someone else was first.

        An intent comes first, and only then are the markers read: whoever confirms a marker later sees the intent and
        stops, so what was confirmed is read here. The claim names the one that stood before it, so one that lands
        after it was given up counts for nobody.
        """
        numbers = self._intend(list(partitions), member, now_ms)
        before = self.extents(partitions)
        ends = self.tiled_ends(before)
        claims = [Claim(p, numbers[p], ends[p], member) for p in partitions]
        previous = [before[p][-1].claim if before[p] else 0 for p in partitions]
        self._add(
            "claim_rows", "claimed_at", now_ms, partition=partitions, claim=[c.claim for c in claims],
            first_offset=[c.first_offset for c in claims], member=[member] * len(claims), previous=previous,
        )  # fmt: skip
        shown = self.highest_claims(partitions)
        for claim in claims:
            if shown.get(claim.partition) != claim:
                self._fenced(claim, shown.get(claim.partition))
        self.check_claims(claims)
        return {claim.partition: Taken(claim, before[claim.partition]) for claim in claims}

    def extents(self, partitions: Sequence[int]) -> dict[int, list[Extent]]:
        """Partition → the claims that count, and where, in the order of their numbers and of their offsets."""
        found: dict[int, list[Extent]] = {partition: [] for partition in partitions}
        for claim, end in self.claims(partitions):
            found[claim.partition].append(Extent(claim.claim, claim.first_offset, end))
        return found

    def highest_claims(self, partitions: Sequence[int]) -> dict[int, Claim]:
        """Partition → the claim that counts now; partitions never claimed are absent."""
        return {claim.partition: claim for claim, _ in self.claims(partitions)}

    def _intend(self, partitions: list[int], member: str, now_ms: int) -> dict[int, int]:
        """A number on each partition that this member alone has asked for, and nobody a higher one.

        Two who ask for the same number at the same moment both see it, or the later one does: whoever sees it lets
        the number be. The next try is higher by the member's place among them, so that they don't meet again.
        """
        numbers: dict[int, int] = {}
        missing = partitions
        for _ in range(_TRIES):
            seen = self.intents(missing)
            asked = {p: _next(seen.get(p), member) for p in missing}
            self._add(
                "claim_intent_rows", "intended_at", now_ms, partition=missing, claim=list(asked.values()),
                member=[member] * len(missing),
            )  # fmt: skip
            seen = self.intents(missing)
            numbers.update(asked)
            missing = [p for p in missing if seen.get(p) != Intent(asked[p], (member,))]
            if not missing:
                return numbers
        raise FencedError(f"partitions {missing}: others ask for them at the same time as {member}: joining again")

    def check_claims(self, claims: Sequence[Claim]) -> None:
        """Raise FencedError when someone asked for one of these partitions since."""
        now = self.intents([claim.partition for claim in claims])
        for claim in claims:
            intent = now.get(claim.partition)
            if intent != Intent(claim.claim, (claim.member,)):
                self._fenced(claim, intent)

    def _fenced(self, claim: Claim, now: Intent | Claim | None) -> None:
        owners = (now.member,) if isinstance(now, Claim) else now.members if now else ()
        owner = f"{' and '.join(owners)} with claim {now.claim}" if now else "nobody"
        raise FencedError(
            f"partition {claim.partition} belongs to {owner}, not to {claim.member} with claim {claim.claim}: "
            "this worker drops what it has not marked"
        )

    # refusals, published, snapshots

    def add_refusals(self, refusals: Sequence[Refusal], now_ms: int) -> None:
        """Note records, or put them into force under a claim, and read that back. Raises IntegrityError."""
        columns = {f.name: [getattr(one, f.name) for one in refusals] for f in fields(Refusal)}
        self._add("refused_rows", "noted_at", now_ms, **columns)
        shown = {(r.partition, r.claim, r.offset) for r in self.refusals(sorted({r.partition for r in refusals}))}
        missing = {(r.partition, r.claim, r.offset) for r in refusals} - shown
        if missing:
            raise IntegrityError(
                f"{self.where} acknowledged notes of refused records but does not show those of (partition, claim, "
                f"offset) {sorted(missing)}: the batch is driven again"
            )

    def add_published(self, offsets: Mapping[int, tuple[int, int]], now_ms: int) -> None:
        """Note that outputs went to Kafka up to an offset: partition → (claim, last offset)."""
        self._add(
            "published_rows", "published_at", now_ms, partition=list(offsets),
            claim=[claim for claim, _ in offsets.values()], last_offset=[last for _, last in offsets.values()],
        )  # fmt: skip

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Store worker state; it is an aid to recovery, so it is checked when it is read."""
        types = _CLAIM_TYPES | {"code_version": pa.string(), "payload": pa.binary(), "taken_at": _MS_UTC}
        columns = {name: pa.array([value], types.get(name, pa.uint64())) for name, value in asdict(snapshot).items()}
        self.insert("state_rows", self._with_log(columns, 1))

    def _add(self, table: str, instant: str, now_ms: int, **columns: Sequence[Any]) -> None:
        rows = len(columns["partition"])
        typed = {name: pa.array(values, _CLAIM_TYPES[name]) for name, values in columns.items()}
        typed[instant] = pa.array([now_ms] * rows, _MS_UTC)
        self.insert(table, self._with_log(typed, rows))

    def _with_log(self, columns: Mapping[str, Any], rows: int) -> pa.Table:
        return pa.table({"log_id": pa.array([self.log_id] * rows, pa.uint64()), **columns})


def _next(seen: Intent | None, member: str) -> int:
    """The number to ask for after what was seen."""
    if seen is None:
        return 1
    return seen.claim + 1 + (seen.members.index(member) if member in seen.members else 0)


def expected_sums(table: str, rows: pa.Table) -> dict[tuple[str, int], Sums]:
    """What `Ledger.sums` must find after these rows went in, by (table, partition)."""
    if not rows.num_rows:
        return {}
    partitions = _integers(rows, "partition")
    offsets = _integers(rows, "offset")
    check = offsets + offsets * offsets  # squared too: rows that are there twice can't stand in for others that lack
    for column in ("line", *SUMMED[table]):
        check += _integers(rows, column)
    return {
        (table, int(partition)): Sums(int(np.count_nonzero(chosen)), int(check[chosen].sum(dtype=np.uint64)) & _WRAP)
        for partition in np.flatnonzero(np.bincount(partitions.astype(np.int64)))
        for chosen in [partitions == partition]
    }


def _integers(rows: pa.Table, column: str) -> npt.NDArray[np.uint64]:
    values: npt.NDArray[Any] = rows.column(column).to_numpy()
    signed = pa.types.is_signed_integer(rows.schema.field(column).type)
    return values.astype(np.int64, copy=False).view(np.uint64) if signed else values.astype(np.uint64, copy=False)

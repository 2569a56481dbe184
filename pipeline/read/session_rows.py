"""Everything that the ledger holds of one session: readings, rated usage, CDRs, and what was held back.

Only rows that count, each list in a fixed order. Energy mWh, cost in cost units, instants UTC ms.
"""

from concurrent.futures import Future
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

from pipeline.clickhouse import Store
from pipeline.coverage import Coverage
from pipeline.read.sessions import SessionRef

OPEN: Final = "open"
SETTLED: Final = "settled"
HELD: Final = "held"


@dataclass(frozen=True, slots=True)
class ReadingRow:
    """A reading with what metering said of it; `energy_mwh` is since the register before."""

    offset: int
    time_ms: int
    kind: int
    state: int
    signed: int
    register_mwh: int | None
    power_mw: int | None
    id_token: str
    flags: int
    reference_version: int
    verdict: str
    disposition: str
    energy_mwh: int


@dataclass(frozen=True, slots=True)
class RatedRow:
    """One row of rated usage; `dimension` is the ledger's number, `element` -1 where nothing priced it."""

    start_ms: int
    end_ms: int
    dimension: int
    quantity: int
    cost: int
    price_e4: int
    currency: str
    tariff: str
    element: int
    component: int
    state: int
    split: int
    flags: int


@dataclass(frozen=True, slots=True)
class CdrLine:
    """One CDR of the session's chain, or the credit of one."""

    cdr_id: str
    revision: int
    credit: int
    id_token: str
    location_id: str
    start_ms: int
    end_ms: int
    settled_ms: int
    tariff: str
    currency: str
    energy_mwh: int
    charging_ms: int
    parking_ms: int
    held_mwh: int
    held_reason: str
    total_excl_e4: int
    total_incl_e4: int
    signed: int


@dataclass(frozen=True, slots=True)
class HoldRow:
    """Usage held, or what became of it."""

    action: str
    reason: str
    held_mwh: int
    time_ms: int
    actor: str
    note: str


@dataclass(frozen=True)
class SessionRows:
    """A session as the ledger knows it now."""

    ref: SessionRef
    readings: list[ReadingRow]  # in time order
    rated: list[RatedRow]  # in log order, with reversals
    cdrs: list[CdrLine]  # by revision
    holds: list[HoldRow]  # in log order

    @property
    def cdr(self) -> CdrLine | None:
        """The CDR that stands; None while the session is open, held, or after a credit without a new CDR."""
        return self.cdrs[-1] if self.cdrs and not self.cdrs[-1].credit else None

    @property
    def hold(self) -> HoldRow | None:
        """The hold that is in force."""
        return self.holds[-1] if self.holds and self.holds[-1].action == "held" else None

    @property
    def state(self) -> str:
        """OPEN, SETTLED or HELD."""
        if self.cdr is not None:
            return SETTLED
        return HELD if self.hold is not None else OPEN


_Row = TypeVar("_Row", ReadingRow, RatedRow, CdrLine, HoldRow)
_Asked = Future[list[dict[str, Any]]]


class AskedRows(NamedTuple):
    """The answers to come, a table each, whether the rows count or not."""

    readings: _Asked
    rated: _Asked
    cdrs: _Asked
    holds: _Asked


def load(store: Store, ref: SessionRef) -> SessionRows:
    """Read all of it, the tables side by side."""
    begun = Coverage.begin(store, [(ref.log_id, ref.partition)])
    asked = ask_rows(store, ref)
    return counted(asked, ref, begun())


def ask_rows(store: Store, ref: SessionRef) -> AskedRows:
    """Ask the tables side by side; not before the markers were read."""
    return AskedRows(
        _ask(store, ref, "reading_rows", ReadingRow),
        _ask(store, ref, "rated_usage_rows", RatedRow),
        _ask(store, ref, "cdr_rows", CdrLine),
        _ask(store, ref, "quarantine_rows", HoldRow),
    )


def counted(asked: AskedRows, ref: SessionRef, counts: Coverage) -> SessionRows:
    """What counts of the answers."""
    return SessionRows(
        ref,
        sorted(_rows(asked.readings, ref, counts, ReadingRow), key=attrgetter("time_ms")),
        _rows(asked.rated, ref, counts, RatedRow),
        sorted(_rows(asked.cdrs, ref, counts, CdrLine), key=attrgetter("revision")),
        _rows(asked.holds, ref, counts, HoldRow),
    )


def _ask(store: Store, ref: SessionRef, table: str, kind: type[_Row]) -> _Asked:
    """The session's rows of a table, whether they count or not: claim, offset and line, then the fields.

    As one array: an answer without rows costs the embedded store a second statement, which tells of its columns.
    """
    named = ("v.claim", "v.offset", "v.line", *(_expression(field.name) for field in fields(kind)))
    return store.ask(
        f"SELECT groupArray(tuple({', '.join(named)})) AS found FROM {table} AS v "
        "WHERE charge_point_id = {charge_point:String} AND session_key = {key:UInt64} "
        "AND log_id = {log:UInt64} AND partition = {partition:UInt16}",
        {"charge_point": ref.charge_point_id, "key": ref.session_key, "log": ref.log_id, "partition": ref.partition},
    )


def _rows(asked: _Asked, ref: SessionRef, counts: Coverage, kind: type[_Row]) -> list[_Row]:
    """Those that count, in log order, each once: a row that was told twice has its identity twice."""
    once: dict[tuple[int, int], list[Any]] = {}
    for claim, offset, line, *told in asked.result()[0]["found"]:
        if counts.touches(ref.log_id, ref.partition, claim, offset, offset):
            once[offset, line] = told
    return [kind(*once[name]) for name in sorted(once)]


def _expression(name: str) -> str:
    if name in ("dimension",):
        return "toInt8(v.dimension)"
    if name in ("verdict", "disposition", "action"):
        return f"toString(v.{name})"
    if name.endswith("_ms") and name not in ("charging_ms", "parking_ms"):
        column = {"settled_ms": "settled_at"}.get(name, name.removesuffix("_ms"))
        return f"toUnixTimestamp64Milli(v.{column})"
    return f"v.{name}"


def as_json(row: Any) -> dict[str, Any]:
    """The row as it is printed: its columns by name."""
    return {field.name: getattr(row, field.name) for field in fields(row)}

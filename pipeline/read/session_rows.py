"""Everything that the ledger holds of one session: readings, rated usage, CDRs, and what was held back.

Only rows that count, each list in a fixed order. Energy mWh, cost in cost units, instants UTC ms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple, TypeVar

from pipeline.clickhouse import Store
from pipeline.coverage import Asked, Coverage
from pipeline.read.sessions import CDR_PLACE, Likely, Named, SessionRef, in_keys

OPEN: Final = "open"
SETTLED: Final = "settled"
HELD: Final = "held"


@dataclass(frozen=True, slots=True)
class ReadingBrief:
    """What a bill without its readings must know of one: each column of a table takes the store time to plan."""

    time_ms: int
    register_mwh: int | None
    id_token: str
    reference_version: int
    verdict: str


@dataclass(frozen=True, slots=True)
class ReadingRow(ReadingBrief):
    """A reading with what metering said of it; `energy_mwh` is since the register before."""

    offset: int
    kind: int
    state: int
    signed: int
    power_mw: int | None
    flags: int
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
    readings: Sequence[ReadingBrief]  # in time order; ReadingRow unless asked in brief
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


_Row = TypeVar("_Row", bound=ReadingBrief | RatedRow | CdrLine | HoldRow)
_PLACE: Final = (
    "v.log_id AS log_id, v.partition AS part, v.claim AS claim, v.offset AS first, v.session_key AS session_key"
)
_NAMED_PLACE: Final = f"{_PLACE}, v.connector_id AS connector, v.transaction_id AS transaction"
_OF_SESSION: Final = "charge_point_id = {charge_point:String} AND session_key = {key:UInt64}"
_OF_LIKELY: Final = "charge_point_id = {{charge_point:String}} AND {0}"
_READ_OF_LIKELY: Final = (
    "charge_point_id = {{charge_point:String}} AND ({0} OR transaction_id = {{transaction:String}})"
)


class AskedRows(NamedTuple):
    """The answers to come, a table each, whether the rows count or not."""

    of: SessionRef | Likely
    readings: Asked
    rated: Asked
    cdrs: Asked
    holds: Asked
    reading: type[ReadingBrief]

    def has(self, ref: SessionRef) -> bool:
        """Whether all of that session's rows were asked for."""
        if isinstance(self.of, Likely):
            return ref.charge_point_id == self.of.charge_point_id and ref.session_key in self.of.keys
        return ref == self.of


def load(store: Store, ref: SessionRef) -> SessionRows:
    """Read all of it, the tables side by side."""
    begun = Coverage.begin(store, [(ref.log_id, ref.partition)])
    asked = ask_rows(store, ref)
    return counted(asked, ref, begun())


def ask_rows(store: Store, of: SessionRef | Likely, named: Named | None = None, brief: bool = False) -> AskedRows:
    """Ask the tables side by side; not before the markers were read. The widest first: it takes longest.

    `named`: CDRs that `sessions.lookup` still searches, in one statement with the session's own. `brief`: no more of
    readings than a bill without them needs.
    """
    own, read, place = _conditions(of)
    reading = ReadingBrief if brief else ReadingRow
    wanted = Named(named.condition, own.parameters | named.parameters) if named else own
    cdrs = _ask(store, "cdr_rows", CdrLine, CDR_PLACE, wanted)
    rated = _ask(store, "rated_usage_rows", RatedRow, _PLACE, own)
    readings = _ask(store, "reading_rows", reading, place, read)
    return AskedRows(of, readings, rated, cdrs, _ask(store, "quarantine_rows", HoldRow, _PLACE, own), reading)


def _conditions(of: SessionRef | Likely) -> tuple[Named, Named, str]:
    """Which rows of a table, which readings, and what a reading tells of its place."""
    here = {"charge_point": of.charge_point_id}
    if isinstance(of, SessionRef):
        own = Named(_OF_SESSION, {**here, "key": of.session_key})
        return own, own, _PLACE
    keyed = in_keys(of.keys)
    read = Named(_READ_OF_LIKELY.format(keyed), {**here, "transaction": of.transaction_id})
    return Named(_OF_LIKELY.format(keyed), here), read, _NAMED_PLACE


def counted(asked: AskedRows, ref: SessionRef, counts: Coverage) -> SessionRows:
    """What counts of the answers."""
    cdrs = [row for row in asked.cdrs.result() if row["charge_point"] == ref.charge_point_id]
    return SessionRows(
        ref,
        sorted(_rows(asked.readings.result(), ref, counts, asked.reading), key=attrgetter("time_ms")),
        _rows(asked.rated.result(), ref, counts, RatedRow),
        sorted(_rows(cdrs, ref, counts, CdrLine), key=attrgetter("revision")),
        _rows(asked.holds.result(), ref, counts, HoldRow),
    )


def _ask(store: Store, table: str, kind: type[_Row], place: str, asked: Named) -> Asked:
    """Rows of a table, whether they count or not, also those of another log: it is not asked by log.

    With the log in the condition, which the sort key has after the time, the store searches its index for longer; with
    PREWHERE it need not find out what to read first.
    """
    columns = ", ".join(f"{_expression(field.name)} AS {field.name}" for field in fields(kind))
    return store.ask(
        f"SELECT {place}, v.line AS line, {columns} FROM {table} AS v PREWHERE {asked.condition}", asked.parameters
    )


def _rows(told: list[dict[str, Any]], ref: SessionRef, counts: Coverage, kind: type[_Row]) -> list[_Row]:
    """The session's that count, in log order, each once: a row that was told twice has its identity twice."""
    place = ref.log_id, ref.partition
    once = {
        (row["first"], row["line"]): row
        for row in told
        if row["session_key"] == ref.session_key
        and (row["log_id"], row["part"]) == place
        and counts.touches(*place, row["claim"], row["first"], row["first"])
    }
    values = itemgetter(*(field.name for field in fields(kind)))
    return [kind(*values(once[name])) for name in sorted(once)]


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

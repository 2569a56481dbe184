"""The past of sessions as the ledger tells it: only rows that count, by the markers' rule of `pipeline.coverage`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.codec.assemble import hash_ids
from pipeline.coverage import Coverage
from pipeline.metering.columns import ABSENT_I64, SAMPLE_DTYPE
from pipeline.rate.batch import last_cdr_of
from pipeline.rate.past import NOTHING, LastCdr, Past, SessionName
from pipeline.rate.rows import RATED_DTYPE

_WHERE: Final = (
    "WHERE log_id = {log:UInt64} AND charge_point_id IN {names:Array(String)} AND session_key IN {keys:Array(UInt64)} "
    "AND offset < transform(partition, {partitions:Array(UInt16)}, {firsts:Array(UInt64)}, toUInt64(0))"
)
_MS: Final = "toUnixTimestamp64Milli"
_PLACE: Final = "session_key, partition, offset, line, claim"
_ORDER: Final = "ORDER BY session_key, partition, offset, line"
Result = TypeVar("Result")

READING_PAST: Final = "reading the past of sessions"


class ThroughOutages(Protocol):
    """Does a step that may be repeated until the outage is over; told what it is."""

    def __call__(self, doing: str, step: Callable[[], Result]) -> Result:
        """The step's result."""


class Asked(NamedTuple):
    """Sessions by charge point and key; of each partition only rows before an offset, of others none."""

    charge_points: list[str]
    session_keys: list[int]
    firsts: dict[int, int]


class PastRows(Protocol):
    """Rows that count, of sessions; in the order of (session, offset, line)."""

    def samples(self, asked: Asked) -> pa.Table:
        """Readings but duplicates."""

    def rated(self, asked: Asked) -> pa.Table:
        """Rated usage."""

    def alerted(self, asked: Asked) -> dict[int, frozenset[str]]:
        """Kinds of alerts by session."""

    def cdrs(self, asked: Asked) -> list[dict[str, Any]]:
        """CDRs and credits, by session and revision."""


class StorePast:
    """The same in the store's tables; a test holds it to what the views show."""

    def __init__(self, store: Store, log_id: int) -> None:
        """Of one log."""
        self._store, self._log_id = store, log_id
        self._asked: Asked | None = None
        self._coverage = Coverage({})

    def samples(self, asked: Asked) -> pa.Table:
        """Readings but duplicates."""
        return self._counted(
            asked,
            f"SELECT {_PLACE}, {_MS}(time) AS time_ms, {_MS}(received_at) AS received_ms, "
            f"ifNull(register_mwh, {ABSENT_I64}) AS register, ifNull(power_mw, {ABSENT_I64}) AS power, "
            f"ifNull(current_ma, {ABSENT_I64}) AS current, transaction_id, toInt32(connector_id) AS connector, "
            "toString(id_token) AS uid, seq_no, flags, soc_permille, kind, context, state, signed, phases, "
            f"toInt64(reference_version) AS version FROM reading_rows {_WHERE} AND verdict != 'duplicate' {_ORDER}",
        )

    def rated(self, asked: Asked) -> pa.Table:
        """Rated usage."""
        return self._counted(
            asked,
            f"SELECT {_PLACE}, {_MS}(start) AS start_ms, {_MS}(end) AS end_ms, toInt8(dimension) AS dimension, "
            "quantity, cost, price_e4, toString(tariff) AS tariff_key, element, component, state, flags "
            f"FROM rated_usage_rows {_WHERE} {_ORDER}",
        )

    def alerted(self, asked: Asked) -> dict[int, frozenset[str]]:
        """Kinds of alerts by session."""
        rows = self._counted(asked, f"SELECT {_PLACE}, toString(kind) AS kind FROM alert_rows {_WHERE} {_ORDER}")
        found: dict[int, set[str]] = {}
        for key, kind in zip(rows.column("session_key").to_numpy().tolist(), _texts(rows, "kind"), strict=True):
            found.setdefault(key, set()).add(kind)
        return {key: frozenset(kinds) for key, kinds in found.items()}

    def cdrs(self, asked: Asked) -> list[dict[str, Any]]:
        """CDRs and credits, by session and revision."""
        coverage = self._as_of(asked)
        rows = self._store.rows(
            f"SELECT *, {_MS}(start) AS start_ms, {_MS}(end) AS end_ms, {_MS}(settled_at) AS settled_ms, "
            f"hex(document) AS document_hex FROM cdr_rows {_WHERE} ORDER BY session_key, revision, offset, line",
            self._values(asked),
        )
        counted = {
            (row["session_key"], row["offset"], row["line"]): row
            for row in rows
            if coverage.touches(self._log_id, row["partition"], row["claim"], row["offset"], row["offset"])
        }
        return list(counted.values())

    def _counted(self, asked: Asked, sql: str) -> pa.Table:
        """The rows that count, each once, in the order of their identity."""
        coverage = self._as_of(asked)
        rows = self._store.arrow(sql, self._values(asked))
        partition, claim, offset = (rows.column(name).to_numpy() for name in ("partition", "claim", "offset"))
        counts = np.zeros(rows.num_rows, np.bool_)
        for part, number in set(zip(partition.tolist(), claim.tolist(), strict=True)):
            first, end = coverage.spans.get((self._log_id, part, number), (0, 0))
            counts |= (partition == part) & (claim == number) & (offset >= first) & (offset < end)
        return _each_once(rows.filter(pa.array(counts)))

    def _as_of(self, asked: Asked) -> Coverage:
        """What counts, looked up once for all that is asked of the same sessions, before any of their rows."""
        if self._asked is not asked:
            self._coverage = Coverage.of(self._store, [(self._log_id, partition) for partition in asked.firsts])
            self._asked = asked
        return self._coverage

    def _values(self, asked: Asked) -> dict[str, Any]:
        return {
            "log": self._log_id, "names": asked.charge_points, "keys": asked.session_keys,
            "partitions": list(asked.firsts) or [0], "firsts": list(asked.firsts.values()) or [0],
        }  # fmt: skip


def _each_once(rows: pa.Table) -> pa.Table:
    """Rows of one claim that an insert brought twice are one; they come in the order of their identity."""
    new = np.zeros(rows.num_rows, np.bool_)
    new[:1] = True
    for name in ("session_key", "partition", "offset", "line"):
        column = rows.column(name).to_numpy()
        new[1:] |= column[1:] != column[:-1]
    return rows.filter(pa.array(new))


class LedgerHistory:
    """Reads pasts in bulk and keeps those of the batch at hand; `begin` says where that starts."""

    def __init__(self, rows: PastRows, through_outages: ThroughOutages) -> None:
        """Every query goes `through_outages`, so that a batch half rated is never begun again."""
        self._rows, self._through_outages = rows, through_outages
        self._pasts: dict[int, Past] = {}
        self._firsts: dict[int, int] = {}

    def begin(self, firsts: Mapping[int, int]) -> None:
        """A new batch, from these offsets (partition → first): only rows before them are past."""
        self._pasts.clear()
        self._firsts = dict(firsts)

    def prefetch(self, names: Iterable[SessionName]) -> None:
        """Fetch several at once; those already here are not asked for again."""
        wanted = [name for name in dict.fromkeys(names) if name.session_key not in self._pasts]
        if not wanted:
            return
        self._pasts.update({name.session_key: NOTHING for name in wanted})
        asked = Asked(
            sorted({name.charge_point_id for name in wanted}), sorted({name.session_key for name in wanted}),
            dict(self._firsts),
        )  # fmt: skip
        self._pasts.update(self._through_outages(READING_PAST, lambda: self._fetch(asked)))

    def past(self, name: SessionName) -> Past:
        """The past of one session; NOTHING where the ledger knows none."""
        self.prefetch([name])
        return self._pasts[name.session_key]

    def _fetch(self, asked: Asked) -> dict[int, Past]:
        samples, rated = self._rows.samples(asked), self._rows.rated(asked)
        said = self._rows.alerted(asked)
        last = {row["session_key"]: row for row in self._rows.cdrs(asked)}
        heard = _by_session(samples)
        usage = _by_session(rated)
        return {
            key: _past(
                samples.take(pa.array(heard[key], pa.int64())),
                rated.take(pa.array(usage.get(key, []), pa.int64())),  # held without a tariff: nothing is rated yet
                last.get(key),
                said.get(key),
            )
            for key in heard
        }


def _by_session(table: pa.Table) -> dict[int, list[int]]:
    keys = table.column("session_key").to_numpy()
    found: dict[int, list[int]] = {}
    for at, key in enumerate(keys.tolist()):
        found.setdefault(key, []).append(at)
    return found


def _past(samples: pa.Table, rated: pa.Table, cdr: dict[str, Any] | None, alerted: frozenset[str] | None) -> Past:
    tokens = _texts(samples, "uid")
    uids = [uid for uid in dict.fromkeys(tokens) if uid]
    keys = _texts(rated, "tariff_key")
    tariffs = list(dict.fromkeys(keys))
    texts = np.array([t.encode() for t in _texts(samples, "transaction_id")], "S36")
    connectors = [c for c in samples.column("connector").to_pylist() if c]
    return Past(
        samples=_samples(samples, [uids.index(uid) if uid else -1 for uid in tokens], texts),
        versions=samples.column("version").to_numpy(),
        rated=_rated(rated, [tariffs.index(key) for key in keys]),
        cdr=_last_cdr(cdr) if cdr and not cdr["credit"] else None,  # a credit that came last: none stands
        revision=int(cdr["revision"]) if cdr else 0,
        alerted=alerted or frozenset(),
        transaction_id=next((bytes(text) for text in texts if text), b""),
        connector_id=connectors[0] if connectors else 0,
        tokens=tuple(uids),
        tariffs=tuple(tariffs),
    )


def _samples(table: pa.Table, tokens: Sequence[int], texts: Any) -> Any:
    samples = np.zeros(table.num_rows, SAMPLE_DTYPE)
    straight = (
        "offset",
        "line",
        "time_ms",
        "received_ms",
        "seq_no",
        "flags",
        "soc_permille",
        "kind",
        "context",
        "state",
    )
    for name in (*straight, "signed"):
        samples[name] = table.column(name).to_numpy()
    for name, column in {
        "register_mwh": "register", "power_mw": "power", "current_ma": "current", "connector_id": "connector",
        "phases_live": "phases",
    }.items():  # fmt: skip
        samples[name] = table.column(column).to_numpy()
    samples["phases_said"] = np.where(samples["phases_live"] >= 0, 3, 0)
    samples["token"] = tokens
    samples["txn_hash"] = hash_ids(texts)
    return samples


def _rated(table: pa.Table, tariffs: Sequence[int]) -> Any:
    rated = np.zeros(table.num_rows, RATED_DTYPE)
    for name in (
        "session_key", "start_ms", "end_ms", "dimension", "quantity", "cost", "price_e4", "element", "component",
        "state", "flags",
    ):  # fmt: skip
        rated[name] = table.column(name).to_numpy()
    rated["sheet"] = tariffs
    return rated


def _last_cdr(row: dict[str, Any]) -> LastCdr:
    columns = {**row, "document": bytes.fromhex(row["document_hex"])}
    return last_cdr_of(columns)


def _texts(table: pa.Table, name: str) -> list[str]:
    values: list[Any] = table.column(name).to_pylist()
    return [value if isinstance(value, str) else value.decode() for value in values]

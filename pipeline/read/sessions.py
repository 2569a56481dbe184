"""Find a session in the ledger by what people call it: session, transaction, CDR, or session key.

A session is (log, charge point, session key). The same names may stand in the store for an earlier life of the topic:
the newest log wins.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol, Self

import numpy as np

from pipeline.clickhouse import Store
from pipeline.codec.assemble import hash_ids
from pipeline.codec.records import TRANSACTION_ID_BYTES
from pipeline.codec.records import TRANSACTION_ID_DTYPE as _ID
from pipeline.coverage import Asked, Coverage, ask_markers
from pipeline.errors import DocumentError
from pipeline.metering.sessions import key_of
from pipeline.rate.directory import identity_of
from rating.cdr import CREDIT_SUFFIX, ID_BEGINNING, ID_LENGTH

_KEY: Final = re.compile(r"[0-9a-fA-F]{16}")
# rating.cdr.short_id of a row's cdr_id, where that is too long for OCPI
SHORT_ID: Final = (
    f"if(lengthUTF8(cdr_id) > {ID_LENGTH}, "
    f"concat(leftUTF8(cdr_id, {ID_BEGINNING}), '-', lower(left(hex(SHA256(cdr_id)), 8))), '')"
)
_REF: Final = itemgetter("log_id", "part", "charge_point", "connector", "session_key", "transaction")
_SHOWN: Final = 12  # candidates named in an error
_LIKELY_CONNECTORS: Final = range(1, 9)
# Of a row of cdr_rows or reading_rows: which session it is of, and what it takes to know whether it counts.
CDR_PLACE: Final = (
    "v.log_id AS log_id, v.partition AS part, v.claim AS claim, v.offset AS first, v.offset AS last, "
    "toString(v.charge_point_id) AS charge_point, v.connector_id AS connector, v.session_key AS session_key, "
    "v.transaction_id AS transaction"
)
_HERE: Final = "charge_point_id = {{name{0}:String}}"
_CALLED: Final = "transaction_id = {{transaction{0}:String}}"


@dataclass(frozen=True)
class SessionRef:
    """A session of the ledger. `session_key` is metering's 64-bit name for it, shown as 16 hexadecimal digits."""

    log_id: int
    partition: int
    charge_point_id: str
    connector_id: int
    session_key: int
    transaction_id: str = ""

    @property
    def key(self) -> str:
        """The session key as people write it."""
        return f"{self.session_key:016x}"


class Found(NamedTuple):
    """A session, and what counts in its partition: read rows now or later, and they agree with one another."""

    ref: SessionRef
    coverage: Coverage


class Named(NamedTuple):
    """Rows that are asked for: a condition, and what it needs."""

    condition: str
    parameters: dict[str, Any]


class Likely(NamedTuple):
    """Sessions of a charge point that a transaction's name may mean, by their keys: before any was found."""

    charge_point_id: str
    transaction_id: str
    keys: tuple[int, ...]  # by connector; empty where metering makes none of such a name

    @classmethod
    def of(cls, charge_point_id: str, transaction_id: str) -> Self:
        """With the keys that metering gives to a transaction when its id is used for the first time."""
        name = transaction_id.encode()
        if not 0 < len(name) <= TRANSACTION_ID_BYTES:
            return cls(charge_point_id, transaction_id, ())
        identity, txn = np.uint64(identity_of(charge_point_id.encode())), hash_ids(np.array([name], _ID))[0]
        keys = (int(key_of(identity, txn, connector)) for connector in _LIKELY_CONNECTORS)
        return cls(charge_point_id, transaction_id, tuple(keys))


class AskedAhead(Protocol):
    """Answers to come that a search for the session may use."""

    @property
    def readings(self) -> Asked:
        """Of a Likely: the rows of its keys and of its transaction."""

    @property
    def cdrs(self) -> Asked:
        """Those of the session, and those named."""


Ahead = Callable[[SessionRef | Likely, Named | None], AskedAhead | None]


class _Asking(NamedTuple):
    store: Store
    markers: Asked
    ahead: Ahead


def find(store: Store, text: str) -> SessionRef:
    """The one session that `text` names. Raises DocumentError when there is none, or several."""
    return lookup(store, text).ref


def lookup(store: Store, text: str, ahead: Ahead = lambda _, __: None) -> Found:
    """`find`, for who reads the session's rows next.

    `ahead` is told whose rows can be asked meanwhile, when markers are read: of the sessions that "charge point *
    transaction" most likely means, while they are searched for; else of the one session that all rows that were found
    are of, while it is not known yet whether they count. Where CDRs are still to be searched it is told which, and may
    answer with the rows (`CDR_PLACE` in them), so that a table is asked once.
    """
    asking = _Asking(store, ask_markers(store), ahead)
    found = _newest_log(store, _by_key(asking, int(text, 16)) if _KEY.fullmatch(text) else [])
    found = found or _newest_log(store, _by_place(asking, text))
    found = found or _newest_log(store, _by_name(asking, text))
    if not found:
        raise DocumentError(
            f"no session is called {text!r}: give a session id (charge point*transaction), a transaction id, a CDR id "
            "or a session key of 16 hexadecimal digits; a session is known once a worker has rated its first reading"
        )
    if len(found) > 1:
        refs = [one.ref for one in found]
        names = ", ".join(f"{ref.key} ({ref.charge_point_id}*{ref.transaction_id})" for ref in refs[:_SHOWN])
        raise DocumentError(f"{len(found)} sessions are called {text!r}: {names}; give the session key of one")
    return found[0]


def current_log(store: Store) -> int | None:
    """The log that was claimed last; None before the first claim."""
    found = store.rows("SELECT argMax(log_id, claimed_at) AS log, count() AS claims FROM claim_rows")[0]
    return int(found["log"]) if found["claims"] else None


def _by_key(asking: _Asking, key: int) -> list[Found]:
    tables = ("cdr_rows", "quarantine_rows", "reading_rows")
    return _found(asking, [_select(table, "session_key = {key:UInt64}") for table in tables], {"key": key})


def _by_place(asking: _Asking, text: str) -> list[Found]:
    """By what a session's name begins with, its charge point: the tables are sorted by it, so nothing else is read."""
    cdr = text.removesuffix(CREDIT_SUFFIX)
    pairs = [(text[:at], text[at + 1 :]) for at, letter in enumerate(text) if letter == "*"]
    if not pairs:
        return []
    cdrs = _cdrs(pairs, cdr, "session_key = {key:UInt64}")
    if len(pairs) == 1:
        found = _at_once(asking, Likely.of(*pairs[0]), cdr)
        if found is not None:
            return found
    in_readings = [f"{_HERE.format(at)} AND {_CALLED.format(at)}" for at in range(len(pairs))]
    return _found(asking, [_each("reading_rows", " OR ".join(in_readings))], cdrs.parameters, cdrs)


def _cdrs(pairs: list[tuple[str, str]], cdr: str, keyed: str) -> Named:
    """CDRs of a charge point: of a transaction, of keys, or of a CDR's id, also where that was shortened."""
    shortened = f" OR {SHORT_ID} = {{cdr:String}}" if len(cdr) == ID_LENGTH else ""
    known = f"{keyed} OR cdr_id = {{cdr:String}}{shortened}"
    named = [f"{_HERE.format(at)} AND ({_CALLED.format(at)} OR {known})" for at in range(len(pairs))]
    names = {f"name{at}": name for at, (name, _) in enumerate(pairs)}
    names |= {f"transaction{at}": transaction for at, (_, transaction) in enumerate(pairs)}
    return Named(" OR ".join(named), {"cdr": cdr, **names})


def _at_once(asking: _Asking, likely: Likely, cdr: str) -> list[Found] | None:
    """What `_found` finds of a charge point's transaction, its rows asked beside the search: one round less.

    A key follows from the name, unless the id was used for the session before too: then the session is found all the
    same, and its rows are still to be asked for. None where there are too many claims to read them all, or where nobody
    wants the rows.
    """
    begun = Coverage.everywhere(asking.store, asking.markers) if likely.keys else None
    pair = likely.charge_point_id, likely.transaction_id
    asked = asking.ahead(likely, _cdrs([pair], cdr, in_keys(likely.keys))) if begun else None
    if begun is None or asked is None:
        return None
    here = {"charge_point": likely.charge_point_id}
    called = [row for row in asked.readings.result() if row["transaction"] == likely.transaction_id]
    rows = [{**row, **here, "last": row["first"]} for row in called if row["session_key"]]
    rows += [
        row
        for row in asked.cdrs.result()
        if row["transaction"] == likely.transaction_id or row["cdr_id"] == cdr or row["session_key"] not in likely.keys
    ]
    return _counted([row for row in rows if row["session_key"]], begun())


def _by_name(asking: _Asking, text: str) -> list[Found]:
    """By transaction, wherever it was: an index skips the rest. And by a CDR's id that was cut before its *."""
    asked = [_select(table, "transaction_id = {name:String}") for table in ("cdr_rows", "reading_rows")]
    if len(text) == ID_LENGTH:
        asked.append(_select("cdr_rows", f"{SHORT_ID} = {{name:String}}"))
    return _found(asking, asked, {"name": text})


def in_keys(keys: Collection[int]) -> str:
    """The condition that a row is of one of some sessions."""
    return f"session_key IN ({', '.join(map(str, keys))})"


def _select(table: str, condition: str) -> str:
    """Sessions of a table, by the claim that wrote them; quarantine rows know no transaction."""
    transaction = "''" if table == "quarantine_rows" else "max(v.transaction_id)"
    return (
        "SELECT log_id, partition AS part, claim, min(v.offset) AS first, max(v.offset) AS last, "
        "toString(charge_point_id) AS charge_point, max(v.connector_id) AS connector, session_key, "
        f"{transaction} AS transaction FROM {table} AS v WHERE session_key != 0 AND {condition} "
        "GROUP BY log_id, partition, claim, charge_point_id, session_key"
    )


def _each(table: str, condition: str) -> str:
    """The same of rows so few that grouping them takes longer than reading them: one row each."""
    return f"SELECT {CDR_PLACE} FROM {table} AS v PREWHERE session_key != 0 AND ({condition})"


def _found(asking: _Asking, asked: list[str], parameters: dict[str, Any], cdrs: Named | None = None) -> list[Found]:
    """The sessions that any of these tell of, or the CDRs, in rows that count.

    One session in all: whose rows are read next knows its CDRs by key and by name, so they are asked for once.
    """
    answers = [asking.store.ask(sql, parameters) for sql in asked]
    rows = [row for answer in answers for row in answer.result()]
    begun = _begun(asking, rows)
    told = _refs(rows)
    ahead = asking.ahead(told[0], cdrs) if len(told) == 1 else None
    if cdrs:
        in_cdrs = _each("cdr_rows", cdrs.condition)
        more = ahead.cdrs if ahead else asking.store.ask(in_cdrs, {**cdrs.parameters, "key": 0})
        named = [row for row in more.result() if row["session_key"]]
        begun = begun if _places(named) <= _places(rows) else _begun(asking, named + rows)
        rows += named
    return _counted(rows, begun())


def _counted(rows: list[dict[str, Any]], coverage: Coverage) -> list[Found]:
    counted = [r for r in rows if coverage.touches(r["log_id"], r["part"], r["claim"], r["first"], r["last"])]
    return [Found(ref, coverage) for ref in _refs(counted)]


def _places(rows: list[dict[str, Any]]) -> set[tuple[int, int]]:
    return {(row["log_id"], row["part"]) for row in rows}


def _begun(asking: _Asking, rows: list[dict[str, Any]]) -> Callable[[], Coverage]:
    return Coverage.begin(asking.store, _places(rows), asking.markers)


def _refs(rows: list[dict[str, Any]]) -> list[SessionRef]:
    """The sessions of some rows, each as the row says that knows most of it."""
    found: dict[tuple[int, str, int], SessionRef] = {}
    for told in dict.fromkeys(map(_REF, rows)):  # a reading a row, and nearly all say the same
        ref = SessionRef(*told)
        name = (ref.log_id, ref.charge_point_id, ref.session_key)
        found[name] = max(found.get(name, ref), ref, key=lambda r: (r.transaction_id, r.connector_id))
    return sorted(found.values(), key=lambda r: (r.charge_point_id, r.session_key))


def _newest_log(store: Store, found: list[Found]) -> list[Found]:
    """The sessions of the log that was claimed last among theirs."""
    logs = sorted({one.ref.log_id for one in found})
    if len(logs) < 2:
        return found
    newest = store.scalar(
        "SELECT log_id FROM claim_rows WHERE log_id IN {logs:Array(UInt64)} "
        "GROUP BY log_id ORDER BY max(claimed_at) DESC LIMIT 1",
        {"logs": logs},
    )
    return [one for one in found if one.ref.log_id == newest]

"""Closed sessions become CDRs: totals by `rating.settle`, rows that settlement adds, the OCPI document.

Pure but for what it reads of reference data; what happens to held sessions is decided in `holds`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.metering import kinds
from pipeline.metering.columns import SIGNED_FORGED, SIGNED_UNVERIFIABLE, SIGNED_VERIFIED
from pipeline.metering.output import PIECE_DTYPE, Rows, rows_at
from pipeline.rate.batch import CdrColumns, Places
from pipeline.rate.directory import Directory
from pipeline.rate.rows import from_settlement
from pipeline.rate.segment import piece_columns
from pipeline.rate.sheets import Sheets
from pipeline.reference import ReferenceData
from rating import cdr, cdr_bytes
from rating.cdr import periods_of
from rating.cdr_bytes import (
    FIRST_TEXT,
    NOTHING,
    Told,
    documents,
    member_text,
    owner_text,
    place_text,
    tariffs_text,
)
from rating.columns import FREE, I64
from rating.settle import BEYOND_BOUNDS, Q_ENERGY, Q_PARKING, Q_TIME, Sessions, Settled, settle

_AUTH_METHOD: Final = "WHITELIST"
_SIGNED_WORDS: Final = {
    SIGNED_VERIFIED: "signed and verified",
    SIGNED_UNVERIFIABLE: "signed, not verifiable",
    SIGNED_FORGED: "signature does not match",
}
# Between which registers a session lies as metered, and by how much they moved without energy; ABSENT_I64: none told.
REGISTERS: Final = ("first_mwh", "last_mwh", "unexplained_mwh")


class Closed(NamedTuple):
    """Sessions to settle, one row each in every column; `pieces` are theirs by first_piece and pieces."""

    sessions: Rows  # SESSION_DTYPE
    pieces: Rows
    offsets: I64  # of the records that settle them
    bases: npt.NDArray[np.uint64]  # first line of the rows they cause
    partitions: I64
    transaction_ids: list[bytes]
    settled_ms: I64  # log time
    signed: Sequence[Mapping[str, Any] | None]  # OCPI SignedData


class Settlement(NamedTuple):
    """What sessions settled to: CDRs, and rated rows that settlement adds, of all but those too big for exact money."""

    cdrs: CdrColumns
    rated: Rows  # by session key; line: see `from_settlement`


class Terms(NamedTuple):
    """What the CDRs of a rate sheet share; texts as `rating.cdr_bytes` takes them."""

    key: str
    currency: str
    country_code: str
    party_id: str
    data: ReferenceData
    owner: bytes
    tariffs: bytes
    tariff_id: bytes


def settle_all(closed: Closed, sheets: Sheets, directory: Directory) -> Settlement:
    """CDRs of sessions, in order. All sheets must be known (no session of an unknown tariff)."""
    closed = _with_periods(closed)
    sessions = Sessions(
        sheet=np.ascontiguousarray(closed.sessions["sheet"]),
        first_piece=closed.sessions["first_piece"].astype(np.int64),
        n_pieces=closed.sessions["pieces"].astype(np.int64),
        flat=np.ascontiguousarray(closed.sessions["flat"]),
        reservation_flat=np.ascontiguousarray(closed.sessions["flat_reserved"]),
        expired_flat=np.ascontiguousarray(closed.sessions["flat_expired"]),
    )
    pieces = piece_columns(closed.pieces)
    settled = settle(sheets.book, sessions, pieces)
    added = from_settlement(sheets.book, settled, closed.sessions, closed.offsets, closed.partitions)
    done = np.flatnonzero(settled.status != BEYOND_BOUNDS)
    places = _places(closed, done, directory)
    return Settlement(_cdrs(closed, done, places, periods_of(pieces, sessions), settled, sheets, directory), added)


def _with_periods(closed: Closed) -> Closed:
    """A session in which nothing was rated gets the one charging period that OCPI asks for."""
    empty = np.flatnonzero(closed.sessions["pieces"] == 0)
    if not len(empty):
        return closed
    sessions = closed.sessions.copy()
    added = np.zeros(len(empty), PIECE_DTYPE)
    added["start_ms"] = sessions["start_ms"][empty]
    added["end_ms"] = sessions["end_ms"][empty]
    added["energy_component"] = added["time_component"] = FREE
    sessions["first_piece"][empty] = len(closed.pieces) + np.arange(len(empty))
    sessions["pieces"][empty] = 1
    return closed._replace(sessions=sessions, pieces=np.concatenate([closed.pieces, added]))


def _places(closed: Closed, done: I64, directory: Directory) -> Places:
    rows = closed.sessions["connector"][done].astype(np.int64)
    return Places(
        closed.partitions[done], closed.offsets[done], closed.bases[done], rows, closed.sessions["session_key"][done],
        directory.charge_points.names(rows).texts(),
        directory.state.connectors["connector_id"][rows].astype(np.int64),
    )  # fmt: skip


def session_id(charge_point_id: str, connector_id: int, start_ms: int, transaction_id: str) -> str:
    """The session as people call it: charge point and transaction, or the start where the transaction is unusable.

    The connector follows where it is not the first: some chargers count transactions by connector.
    """
    name = f"{charge_point_id}*{transaction_id or cdr.timestamp(start_ms)}"
    return name if connector_id <= 1 else f"{name}*{connector_id}"


def _cdrs(
    closed: Closed, done: I64, places: Places, periods: cdr.Periods, settled: Settled, sheets: Sheets,
    directory: Directory,
) -> CdrColumns:  # fmt: skip
    sessions = rows_at(closed.sessions, done)
    own, sheet = np.unique(sessions["sheet"], return_inverse=True)
    terms = [_terms(sheets, number) for number in own.tolist()]
    of_session = [terms[at] for at in sheet.tolist()]
    transactions = [closed.transaction_ids[at].decode() for at in done.tolist()]
    columns = places.charge_point_id, places.connector_id.tolist(), sessions["start_ms"].tolist(), transactions
    names = [session_id(*of_one) for of_one in zip(*columns, strict=True)]
    uids = directory.token_texts(sessions["token"])
    where = [
        cdr_place(one.data, *connector)
        for one, *connector in zip(of_session, places.charge_point_id, places.connector_id.tolist(), strict=True)
    ]
    texts = [
        *chain.from_iterable((one.owner, one.tariffs, one.tariff_id) for one in terms),
        *(cdr.encode(cdr.short_id(name)) for name in names),
        *(_token_text(uid, one.country_code, one.party_id) for uid, one in zip(uids, of_session, strict=True)),
        *(text for _, text in where),
    ]
    first = FIRST_TEXT + 3 * len(terms) + np.arange(len(done))
    signed, remark = _remarks(closed, done, sessions, texts)
    told = Told(
        done, FIRST_TEXT + 3 * sheet, first, first + len(done), first + 2 * len(done), FIRST_TEXT + 3 * sheet + 1,
        FIRST_TEXT + 3 * sheet + 2, signed, remark, np.ascontiguousarray(sessions["start_ms"]),
        np.ascontiguousarray(sessions["end_ms"]), closed.settled_ms[done],
    )  # fmt: skip
    amounts = ("rated_cost", "total_excl_e4", "total_incl_e4")
    copied = ("start_ms", "end_ms", "held_mwh", "readings", "signed", "flags", *REGISTERS)
    return CdrColumns(
        places,
        {
            "cdr_id": names, "revision": np.ones(len(done), np.int64), "credit": np.zeros(len(done), np.int64),
            "transaction_id": transactions, "id_token": uids, "location_id": [name for name, _ in where],
            **{name: np.ascontiguousarray(sessions[name]) for name in copied},
            "settled_ms": told.updated_ms, "tariff": [one.key for one in of_session],
            "currency": [one.currency for one in of_session], "energy_mwh": settled.metered[done, Q_ENERGY],
            "charging_ms": settled.metered[done, Q_TIME], "parking_ms": settled.metered[done, Q_PARKING],
            "held_reason": [kinds.HOLD_REASONS[hold] for hold in sessions["hold"].tolist()],
            **{name: getattr(settled, name)[done] for name in amounts},
            "document": documents(cdr_bytes.texts(texts), told, periods, settled),
        },
    )  # fmt: skip


def _terms(sheets: Sheets, sheet: int) -> Terms:
    source = sheets.builder.sources[sheet]
    tariff, data = source.tariff, sheets.data(int(source.key.rpartition("@")[2]))
    return Terms(
        source.key, tariff.currency, tariff.country_code, tariff.party_id, data,
        owner_text(tariff.country_code, tariff.party_id),
        tariffs_text(tariff.currency, (tariff_document(data, source.key),)), cdr.encode(tariff.id),
    )  # fmt: skip


def _remarks(closed: Closed, done: I64, sessions: Rows, texts: list[bytes]) -> tuple[I64, I64]:
    """The signed data and the remark of each session as numbers of texts, which are added; few have any."""
    found = np.full((2, len(done)), NOTHING)
    odd = (sessions["held_mwh"] != 0) | (sessions["hold"] != kinds.HOLD_NONE) | (sessions["signed"] != 0)
    for at in np.flatnonzero(odd).tolist():
        said = (("signed_data", closed.signed[done[at]]), ("remark", remark_of(sessions[at])))
        for kind, (name, value) in enumerate(said):
            if value is not None:
                found[kind, at] = FIRST_TEXT + len(texts)
                texts.append(member_text(name, value))
    return found[0], found[1]


def remark_of(session: np.void) -> str | None:
    """What a CDR says in words: energy that it leaves out, else what became of the signed values."""
    held_mwh, reason = int(session["held_mwh"]), kinds.HOLD_REASONS[int(session["hold"])]
    if held_mwh or reason:
        return f"{held_mwh / 1e6:.3f} kWh not billed: {reason}"
    return _SIGNED_WORDS.get(int(session["signed"]))


def tariff_document(data: ReferenceData, key: str) -> Any:
    """The tariff as it was published."""
    return msgspec.Raw(data.tariffs[key.rpartition("@")[0]].body)


def cdr_token(uid: str, country_code: str, party_id: str) -> dict[str, Any]:
    """OCPI CdrToken of a token uid; sessions without one say so."""
    return {
        "country_code": country_code, "party_id": party_id, "uid": uid or "UNKNOWN",
        "type": "RFID" if uid else "OTHER", "contract_id": uid or "UNKNOWN",
    }  # fmt: skip


@lru_cache(maxsize=65_536)
def _token_text(uid: str, country_code: str, party_id: str) -> bytes:
    return cdr.encode(cdr_token(uid, country_code, party_id))


def cdr_place(data: ReferenceData, charge_point_id: str, connector_id: int) -> tuple[str, bytes]:
    """A connector's location id, and what a CDR says of authorization and place, as text; see `place_text`."""
    body = data.body_of(charge_point_id)
    if body is None:
        return "", place_text(_AUTH_METHOD, {})
    return _place_text(body, charge_point_id, connector_id)


@lru_cache(maxsize=65_536)
def _place_text(body: bytes, charge_point_id: str, connector_id: int) -> tuple[str, bytes]:
    location = cdr_location(body, charge_point_id, connector_id)
    return str(location["id"]), place_text(_AUTH_METHOD, location)


def cdr_location(body: bytes, charge_point_id: str, connector_id: int) -> dict[str, Any]:
    """OCPI CdrLocation of a connector of a Location object."""
    location = msgspec.json.decode(body)
    ours = [e for e in location["evses"] if e.get("charge_point_id", e["uid"]) == charge_point_id]
    evse = next((e for at, e in enumerate(ours, 1) if e.get("evse_id", at) == connector_id), ours[0])
    connector = evse["connectors"][0]
    return {
        "id": location["id"], "name": location.get("name", location["id"]),
        "address": location.get("address", ""), "city": location.get("city", ""),
        "country": location.get("country", ""), "coordinates": location["coordinates"],
        "evse_uid": evse["uid"], "evse_id": evse.get("ocpi_evse_id", evse["uid"]), "connector_id": connector["id"],
        "connector_standard": connector["standard"], "connector_format": connector["format"],
        "connector_power_type": connector["power_type"],
    }  # fmt: skip

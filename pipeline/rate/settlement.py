"""Closed sessions become CDRs: totals by `rating.settle`, rows that settlement adds, the OCPI document.

Pure but for what it reads of reference data; what happens to held sessions is decided in `holds`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.metering import kinds
from pipeline.metering.columns import SIGNED_FORGED, SIGNED_UNVERIFIABLE, SIGNED_VERIFIED
from pipeline.metering.output import PIECE_DTYPE, Rows
from pipeline.rate.batch import CdrRow, Place
from pipeline.rate.directory import Directory
from pipeline.rate.rows import from_settlement
from pipeline.rate.segment import piece_columns
from pipeline.rate.sheets import Sheets
from pipeline.reference import ReferenceData
from rating import cdr
from rating.columns import FREE, I64
from rating.settle import BEYOND_BOUNDS, Q_ENERGY, Q_PARKING, Q_TIME, Sessions, settle

_SIGNED_WORDS: Final = {
    SIGNED_VERIFIED: "signed and verified",
    SIGNED_UNVERIFIABLE: "signed, not verifiable",
    SIGNED_FORGED: "signature does not match",
}


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


class Bill(NamedTuple):
    """What settlement made of one session: its CDR row, and the rated rows that it adds."""

    cdr: CdrRow | None  # None where the session is too big for exact money
    rated: Rows


def settle_all(closed: Closed, sheets: Sheets, directory: Directory) -> tuple[list[Bill], Rows]:
    """A bill for each session, in order, and the rows that all of them add: each bill's are a view into these.

    All sheets must be known (no session of an unknown tariff).
    """
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
    keys = closed.sessions["session_key"]
    first, stop = (np.searchsorted(added["session_key"], keys, side).tolist() for side in ("left", "right"))
    accounts = cdr.accounts(sheets.book, pieces, sessions, settled)
    names = closed.sessions.dtype.names or ()
    bills = []
    for at, (values, status) in enumerate(zip(closed.sessions.tolist(), settled.status.tolist(), strict=True)):
        if status == BEYOND_BOUNDS:
            bills.append(Bill(None, added[:0]))
            continue
        session = dict(zip(names, values, strict=True))
        place = _place(closed, at, session, directory)
        facts, columns = _columns(closed, accounts[at], at, session, place, sheets, directory)
        columns["document"] = cdr.encode(cdr.document(accounts[at], facts, "2.2.1"))
        bills.append(Bill(CdrRow(place, columns), added[first[at] : stop[at]]))
    return bills, added


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


def _place(closed: Closed, at: int, session: Mapping[str, int], directory: Directory) -> Place:
    row = session["connector"]
    return Place(
        int(closed.partitions[at]), int(closed.offsets[at]), int(closed.bases[at]), row, session["session_key"],
        directory.charge_points[row], int(directory.state.connectors["connector_id"][row]),
    )  # fmt: skip


def session_id(charge_point_id: str, connector_id: int, session: Mapping[str, int], transaction_id: bytes) -> str:
    """The session as people call it: charge point and transaction, or the start where the transaction is unusable.

    The connector follows where it is not the first: some chargers count transactions by connector.
    """
    name = f"{charge_point_id}*{transaction_id.decode() or cdr.timestamp(session['start_ms'])}"
    return name if connector_id <= 1 else f"{name}*{connector_id}"


def _columns(
    closed: Closed, account: cdr.Account, at: int, session: Mapping[str, int], place: Place, sheets: Sheets,
    directory: Directory,
) -> tuple[cdr.CdrFacts, dict[str, object]]:  # fmt: skip
    source = sheets.builder.sources[session["sheet"]]
    version = int(source.key.rpartition("@")[2])
    name = session_id(place.charge_point_id, place.connector_id, session, closed.transaction_ids[at])
    token = directory.token_text(session["token"])
    location = cdr_location(sheets.data(version), place.charge_point_id, place.connector_id)
    held_mwh, reason = session["held_mwh"], kinds.HOLD_REASONS[session["hold"]]
    left_out = f"{held_mwh / 1e6:.3f} kWh not billed: {reason}" if held_mwh or reason else None
    facts = cdr.CdrFacts(
        country_code=source.tariff.country_code, party_id=source.tariff.party_id, id=cdr.short_id(name),
        start_ms=session["start_ms"], end_ms=session["end_ms"], session_id=cdr.short_id(name),
        cdr_token=cdr_token(token, source.tariff.country_code, source.tariff.party_id),
        auth_method="WHITELIST", cdr_location=location, currency=source.tariff.currency,
        tariffs=(tariff_document(sheets.data(version), source.key),), tariff_id=source.tariff.id,
        last_updated_ms=int(closed.settled_ms[at]), signed_data=closed.signed[at],
        remark=left_out or _SIGNED_WORDS.get(session["signed"]),
    )  # fmt: skip
    columns: dict[str, object] = {
        "cdr_id": name, "revision": 1, "credit": 0, "transaction_id": closed.transaction_ids[at].decode(),
        "id_token": token, "location_id": str(location.get("id", "")), "start_ms": session["start_ms"],
        "end_ms": session["end_ms"], "settled_ms": int(closed.settled_ms[at]), "tariff": source.key,
        "currency": source.tariff.currency, "energy_mwh": account.metered[Q_ENERGY],
        "charging_ms": account.metered[Q_TIME], "parking_ms": account.metered[Q_PARKING], "held_mwh": held_mwh,
        "held_reason": reason, "rated_cost": account.rated_cost, "total_excl_e4": account.total_excl_e4,
        "total_incl_e4": account.total_incl_e4,
        "readings": session["readings"], "signed": session["signed"], "flags": session["flags"],
    }  # fmt: skip
    return facts, columns


def tariff_document(data: ReferenceData, key: str) -> Any:
    """The tariff as it was published."""
    return msgspec.Raw(data.tariffs[key.rpartition("@")[0]].body)


def cdr_token(uid: str, country_code: str, party_id: str) -> dict[str, Any]:
    """OCPI CdrToken of a token uid; sessions without one say so."""
    return {
        "country_code": country_code, "party_id": party_id, "uid": uid or "UNKNOWN",
        "type": "RFID" if uid else "OTHER", "contract_id": uid or "UNKNOWN",
    }  # fmt: skip


def cdr_location(data: ReferenceData, charge_point_id: str, connector_id: int) -> dict[str, Any]:
    """OCPI CdrLocation of a connector, as reference data knows it."""
    found = data.charge_points.get(charge_point_id)
    if found is None:
        return {}
    return _cdr_location(
        data.locations[found if isinstance(found, str) else found[0]].body, charge_point_id, connector_id
    )


@lru_cache(maxsize=65_536)
def _cdr_location(body: bytes, charge_point_id: str, connector_id: int) -> dict[str, Any]:
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

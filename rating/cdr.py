"""OCPI CDR objects (2.2.1 and 2.3.0) from settled columns, and the Credit CDR that takes one back.

Numbers are written from integers, with at most 4 decimals as OCPI types say; no float is made. A CDR's charging
periods are rounded by differences of the running total, so their volumes sum to its totals.
OCPI: mod_cdrs CDR object, ChargingPeriod, CdrDimension; types Price, TaxAmount.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np

from rating.columns import CHARGING, I64, PARKING, Pieces
from rating.errors import SessionError
from rating.ratesheet import NO_VAT, RATE_VAT_E4, RATES_AT, RATES_END, Book
from rating.settle import C_FLAT, Q_ENERGY, Q_PARKING, Q_RESERVATION, Q_TIME, Sessions, Settled

CREDIT_SUFFIX: Final = "-C"
_EPOCH: Final = datetime(1970, 1, 1)
_MWH_PER_E4: Final = 100  # 1e-4 kWh
_MS_PER_E4: Final = 360  # 1e-4 h
_TIME_DIMENSIONS: Final = {CHARGING: "TIME", PARKING: "PARKING_TIME"}
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
_CATEGORY_TOTALS: Final = (
    ("total_fixed_cost", C_FLAT),
    ("total_energy_cost", Q_ENERGY),
    ("total_time_cost", Q_TIME),
    ("total_parking_cost", Q_PARKING),
    ("total_reservation_cost", Q_RESERVATION),
)


@dataclass(frozen=True, slots=True)
class CdrFacts:
    """What a CDR says beside quantities and costs: who, where, by which token and tariff. Objects as OCPI has them."""

    country_code: str
    party_id: str
    id: str
    start_ms: int  # of the session, or of the reservation before it
    end_ms: int
    session_id: str
    cdr_token: Mapping[str, Any]
    auth_method: str
    cdr_location: Mapping[str, Any]
    currency: str
    tariffs: Sequence[Mapping[str, Any]]
    tariff_id: str
    last_updated_ms: int
    meter_id: str | None = None
    authorization_reference: str | None = None
    signed_data: Mapping[str, Any] | None = None
    remark: str | None = None  # names held energy that is left out


@lru_cache(maxsize=65_536)
def number(amount_e4: int) -> msgspec.Raw:
    """A JSON number with up to 4 decimals, from an integer of 1e-4."""
    whole, rest = divmod(abs(amount_e4), 10_000)
    text = f"{whole}.{rest:04d}".rstrip("0") if rest else str(whole)
    return msgspec.Raw((f"-{text}" if amount_e4 < 0 else text).encode())


def timestamp(instant_ms: int) -> str:
    """RFC 3339 in UTC, with milliseconds only where there are any."""
    minutes, ms = divmod(instant_ms, 60_000)
    seconds, ms = divmod(ms, 1000)
    return f"{_minute(minutes)}:{seconds:02d}.{ms:03d}Z" if ms else f"{_minute(minutes)}:{seconds:02d}Z"


@lru_cache(maxsize=65_536)
def _minute(minutes: int) -> str:
    return (_EPOCH + timedelta(minutes=minutes)).isoformat(timespec="minutes")


def condensed(pieces: Pieces, sessions: Sessions) -> tuple[Pieces, Sessions]:
    """Neighbouring pieces of equal state and components as one, for all sessions at once.

    Starts and sums are kept and lengths add up, which is all that `document` reads: it writes the same CDRs, sooner.
    """
    counts = sessions.n_pieces
    ends = np.cumsum(counts)
    begins = ends - counts
    every = np.repeat(sessions.first_piece - begins, counts) + np.arange(ends[-1] if len(ends) else 0)
    chosen = _rows(pieces, every)
    new = np.zeros(len(every), np.bool_)
    new[begins[counts > 0]] = True
    for column in (chosen.state, chosen.energy_component, chosen.time_component):
        new[1:] |= column[1:] != column[:-1]
    heads = np.flatnonzero(new)
    kept = _rows(chosen, heads)
    if len(heads):
        lengths = np.add.reduceat(chosen.end_ms - chosen.start_ms, heads)
        energy = np.add.reduceat(chosen.energy_mwh, heads)
        kept = kept._replace(end_ms=kept.start_ms + lengths, energy_mwh=energy)
    before = np.concatenate([[0], np.cumsum(new)])
    return kept, sessions._replace(first_piece=before[begins], n_pieces=before[ends] - before[begins])


def _rows(pieces: Pieces, rows: I64) -> Pieces:
    columns: list[Any] = [column[rows] for column in pieces]
    return Pieces(*columns)


def document(
    book: Book, pieces: Pieces, sessions: Sessions, settled: Settled, row: int, facts: CdrFacts, ocpi_version: str
) -> dict[str, Any]:
    """The CDR of one settled session; `encode` writes it. Raises SessionError for a session with nothing in it."""
    write = _price_2_3_0 if ocpi_version == "2.3.0" else _price_2_2_1
    metered = settled.metered[row].tolist()
    if not sessions.n_pieces[row]:
        raise SessionError(f"CDR {facts.id} would have no charging period: nothing was rated")
    periods = list(_periods(pieces, int(sessions.first_piece[row]), int(sessions.n_pieces[row]), facts.tariff_id))
    lines = _tax_lines(book, settled, row, int(sessions.sheet[row]))
    total = (int(settled.total_excl_e4[row]), int(settled.total_incl_e4[row]))
    cdr: dict[str, Any] = {
        "country_code": facts.country_code,
        "party_id": facts.party_id,
        "id": facts.id,
        "start_date_time": timestamp(facts.start_ms),
        "end_date_time": timestamp(facts.end_ms),
        "session_id": facts.session_id,
        "cdr_token": facts.cdr_token,
        "auth_method": facts.auth_method,
        "authorization_reference": facts.authorization_reference,
        "cdr_location": facts.cdr_location,
        "meter_id": facts.meter_id,
        "currency": facts.currency,
        "tariffs": facts.tariffs,
        "charging_periods": periods,
        "signed_data": facts.signed_data,
        "total_cost": write(*total, lines),
        **_category_costs(settled, row, write),
        "total_energy": number(_e4(metered[Q_ENERGY], _MWH_PER_E4)),
        "total_time": number(_e4(metered[Q_TIME] + metered[Q_PARKING], _MS_PER_E4)),
        "total_parking_time": number(_e4(metered[Q_PARKING], _MS_PER_E4)),
        "remark": facts.remark,
        "last_updated": timestamp(facts.last_updated_ms),
    }
    return {name: value for name, value in cdr.items() if value is not None}


def credit(cdr: Mapping[str, Any], last_updated_ms: int) -> dict[str, Any]:
    """The Credit CDR of a CDR as `document` made it or as it was read back from JSON.

    "The Credit CDR will contain all the data of the original CDR. Only the values in the total_cost field SHALL
    contain the negative amounts of the original CDR."
    """
    return {
        **cdr,
        "id": f"{cdr['id']}{CREDIT_SUFFIX}",
        "total_cost": _negated(cdr["total_cost"]),
        "credit": True,
        "credit_reference_id": cdr["id"],
        "last_updated": timestamp(last_updated_ms),
    }


def encode(cdr: Mapping[str, Any]) -> bytes:
    """The document as JSON."""
    return _ENCODER.encode(cdr)


def _price_2_2_1(excl_e4: int, incl_e4: int, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"excl_vat": number(excl_e4), "incl_vat": number(incl_e4)}


def _price_2_3_0(excl_e4: int, incl_e4: int, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not lines and incl_e4 != excl_e4:
        lines = [{"name": "VAT", "amount": number(incl_e4 - excl_e4)}]
    return {"before_taxes": number(excl_e4), "taxes": list(lines)}


def _category_costs(settled: Settled, row: int, write: Any) -> dict[str, Any]:
    """The totals of categories that were priced, each to 4 decimals."""
    costs, excl, incl = settled.cost[row].tolist(), settled.excl_e4[row].tolist(), settled.incl_e4[row].tolist()
    priced = [*settled.priced[row].tolist(), 0]
    return {name: write(excl[at], incl[at], ()) for name, at in _CATEGORY_TOTALS if costs[at] != 0 or priced[at] != 0}


def _tax_lines(book: Book, settled: Settled, row: int, sheet: int) -> list[dict[str, Any]]:
    """A TaxAmount per VAT percentage; together the total's tax."""
    first, end = int(book.sheets[sheet, RATES_AT]), int(book.sheets[sheet, RATES_END])
    amounts = settled.tax_e4[row, : end - first].tolist()
    lines = []
    for vat_e4, amount_e4 in zip(book.rates[first:end, RATE_VAT_E4].tolist(), amounts, strict=True):
        if amount_e4 != 0:
            share = {} if vat_e4 == NO_VAT else {"percentage": number(vat_e4)}
            lines.append({"name": "VAT", **share, "amount": number(amount_e4)})
    return lines


def _periods(pieces: Pieces, first: int, count: int, tariff_id: str) -> Iterator[dict[str, Any]]:
    """Charging periods; neighbours of equal state and components are one."""
    energy = time = written_energy = written_time = 0
    for start, state, mwh, length in _runs(pieces, first, count):
        energy, time = energy + mwh, time + length
        energy_e4, time_e4 = _e4(energy, _MWH_PER_E4) - written_energy, _e4(time, _MS_PER_E4) - written_time
        written_energy, written_time = written_energy + energy_e4, written_time + time_e4
        dimensions = [{"type": "ENERGY", "volume": number(energy_e4)}] if mwh else []
        kind = _TIME_DIMENSIONS.get(state, "RESERVATION_TIME")
        dimensions.append({"type": kind, "volume": number(time_e4)})
        yield {"start_date_time": timestamp(start), "dimensions": dimensions, "tariff_id": tariff_id}


def _runs(pieces: Pieces, first: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """(start ms, state, mWh, ms) of neighbouring pieces with equal state and components."""
    rows = slice(first, first + count)
    columns = (
        pieces.start_ms,
        pieces.end_ms,
        pieces.energy_mwh,
        pieces.state,
        pieces.energy_component,
        pieces.time_component,
    )
    rows_of = zip(*(column[rows].tolist() for column in columns), strict=True)
    began, ended, energy, state, priced, timed = next(rows_of)
    length = ended - began
    for start, end, mwh, now, energy_by, time_by in rows_of:
        if now != state or energy_by != priced or time_by != timed:
            yield began, state, energy, length
            began, energy, length, state, priced, timed = start, 0, 0, now, energy_by, time_by
        energy += mwh
        length += end - start
    yield began, state, energy, length


def _e4(amount: int, per_e4: int) -> int:
    """A quantity (>= 0) in 1e-4 of its OCPI unit, halves up."""
    return (amount + per_e4 // 2) // per_e4


def _negated(price: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _negative(value) for name, value in price.items()}


def _negative(value: Any) -> Any:
    if isinstance(value, list):
        return [{**line, "amount": _negative(line["amount"])} for line in value]
    text = bytes(value).decode() if isinstance(value, msgspec.Raw) else str(value)
    if text.strip("0.") == "":
        return msgspec.Raw(b"0")
    return msgspec.Raw((text[1:] if text.startswith("-") else f"-{text}").encode())

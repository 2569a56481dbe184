"""OCPI CDR objects (2.2.1 and 2.3.0) from settled columns, and the Credit CDR that takes one back.

Numbers are written from integers, with at most 4 decimals as OCPI types say; no float is made. A CDR's charging
periods are rounded by differences of the running total, so their volumes sum to its totals.
OCPI: mod_cdrs CDR object, ChargingPeriod, CdrDimension; types Price, TaxAmount.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from rating.columns import CHARGING, I8, I64, PARKING, Pieces
from rating.errors import SessionError
from rating.ratesheet import NO_VAT, RATE_VAT_E4, RATES_AT, RATES_END, Book
from rating.settle import C_FLAT, Q_ENERGY, Q_PARKING, Q_RESERVATION, Q_TIME, Sessions, Settled

CREDIT_SUFFIX: Final = "-C"
ID_LENGTH: Final = 36  # of a Session and, before 2.2, of a CDR
ID_BEGINNING: Final = 27
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


class CdrFacts(NamedTuple):
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


class Period(NamedTuple):
    """A charging period before it is written: neighbouring pieces of equal state and components as one."""

    start_ms: int
    state: int
    energy_mwh: int
    length_ms: int


class Account(NamedTuple):
    """What `document` says of one settled session, as plain numbers; amounts by category as in `Settled`."""

    rates_e4: list[int]  # VAT percentages of the sheet
    periods: list[Period]
    metered: list[int]
    priced: list[int]
    cost: list[int]
    excl_e4: list[int]
    incl_e4: list[int]
    tax_e4: list[int]
    total_excl_e4: int
    total_incl_e4: int
    rated_cost: int


class Periods(NamedTuple):
    """Charging periods of sessions before they are written, as columns: see `Period`."""

    start_ms: I64
    state: I8
    energy_mwh: I64
    length_ms: I64
    ends: I64  # by session: where its periods end and the next one's begin


def accounts(book: Book, pieces: Pieces, sessions: Sessions, settled: Settled) -> list[Account]:
    """One a session, in order."""
    columns: list[Any] = [getattr(settled, name).tolist() for name in Account._fields[2:]]
    rates = {sheet: _rates_of(book, sheet) for sheet in np.unique(sessions.sheet).tolist()}
    found = periods_of(pieces, sessions)
    every = list(map(Period, *(column.tolist() for column in found[:4])))
    periods = (every[first:stop] for first, stop in pairwise([0, *found.ends.tolist()]))
    rows = zip(map(rates.__getitem__, sessions.sheet.tolist()), periods, *columns, strict=True)
    return [Account(*row) for row in rows]


def _rates_of(book: Book, sheet: int) -> list[int]:
    rates: list[int] = book.rates[book.sheets[sheet, RATES_AT] : book.sheets[sheet, RATES_END], RATE_VAT_E4].tolist()
    return rates


def periods_of(pieces: Pieces, sessions: Sessions) -> Periods:
    """The charging periods of every session, one behind the other."""
    counts = sessions.n_pieces
    ends = np.cumsum(counts)
    begins = ends - counts
    every = np.repeat(sessions.first_piece - begins, counts) + np.arange(ends[-1] if len(ends) else 0)
    new = np.zeros(len(every), np.bool_)
    new[begins[counts > 0]] = True
    for column in (pieces.state[every], pieces.energy_component[every], pieces.time_component[every]):
        new[1:] |= column[1:] != column[:-1]
    heads = np.flatnonzero(new)
    first = every[heads]
    lengths = (pieces.end_ms - pieces.start_ms)[every]
    return Periods(
        pieces.start_ms[first],
        pieces.state[first],
        np.add.reduceat(pieces.energy_mwh[every], heads) if len(heads) else heads,
        np.add.reduceat(lengths, heads) if len(heads) else heads,
        np.concatenate([[0], np.cumsum(new)])[ends],
    )


def short_id(name: str) -> str:
    """A name as an OCPI id, CiString(36): a longer one keeps its beginning and ends in digits of its SHA-256."""
    if len(name) <= ID_LENGTH:
        return name
    return f"{name[:ID_BEGINNING]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def document(account: Account, facts: CdrFacts, ocpi_version: str) -> dict[str, Any]:
    """The CDR of one settled session; `encode` writes it. Raises SessionError for a session with nothing in it."""
    write = _price_2_3_0 if ocpi_version == "2.3.0" else _price_2_2_1
    if not account.periods:
        raise SessionError(f"CDR {facts.id} would have no charging period: nothing was rated")
    metered = account.metered
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
        "charging_periods": list(_charging_periods(account.periods, facts.tariff_id)),
        "signed_data": facts.signed_data,
        "total_cost": write(account.total_excl_e4, account.total_incl_e4, _tax_lines(account)),
        **_category_costs(account, write),
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


def encode(value: Any) -> bytes:
    """A document, or a part of one, as JSON."""
    return _ENCODER.encode(value)


def _price_2_2_1(excl_e4: int, incl_e4: int, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"excl_vat": number(excl_e4), "incl_vat": number(incl_e4)}


def _price_2_3_0(excl_e4: int, incl_e4: int, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not lines and incl_e4 != excl_e4:
        lines = [{"name": "VAT", "amount": number(incl_e4 - excl_e4)}]
    return {"before_taxes": number(excl_e4), "taxes": list(lines)}


def _category_costs(account: Account, write: Any) -> dict[str, Any]:
    """The totals of categories that were priced, each to 4 decimals."""
    priced = [*account.priced, 0]
    return {
        name: write(account.excl_e4[at], account.incl_e4[at], ())
        for name, at in _CATEGORY_TOTALS
        if account.cost[at] != 0 or priced[at] != 0
    }


def _tax_lines(account: Account) -> list[dict[str, Any]]:
    """A TaxAmount per VAT percentage; together the total's tax."""
    lines = []
    for vat_e4, amount_e4 in zip(account.rates_e4, account.tax_e4, strict=False):  # tax_e4 has room for RATES_MAX
        if amount_e4 != 0:
            share = {} if vat_e4 == NO_VAT else {"percentage": number(vat_e4)}
            lines.append({"name": "VAT", **share, "amount": number(amount_e4)})
    return lines


def _charging_periods(periods: Iterable[Period], tariff_id: str) -> Iterator[dict[str, Any]]:
    """OCPI's ChargingPeriods, rounded by differences of the running totals."""
    energy = time = written_energy = written_time = 0
    for start, state, mwh, length in periods:
        energy, time = energy + mwh, time + length
        energy_e4, time_e4 = _e4(energy, _MWH_PER_E4) - written_energy, _e4(time, _MS_PER_E4) - written_time
        written_energy, written_time = written_energy + energy_e4, written_time + time_e4
        dimensions = [{"type": "ENERGY", "volume": number(energy_e4)}] if mwh else []
        kind = _TIME_DIMENSIONS.get(state, "RESERVATION_TIME")
        dimensions.append({"type": kind, "volume": number(time_e4)})
        yield {"start_date_time": timestamp(start), "dimensions": dimensions, "tariff_id": tariff_id}


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

"""CDR documents of many sessions at once: the bytes that `cdr.encode(cdr.document(...))` gives, in one compiled pass.

What varies freely (ids, tokens, locations, tariffs, signed data, remarks) is given as JSON texts that sessions name by
number; the pass copies these and writes instants and amounts between them, without an object for each. OCPI 2.2.1.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rating.cdr import Periods, encode
from rating.columns import CHARGING, I64, PARKING
from rating.errors import SessionError
from rating.jit import kernel, part
from rating.settle import C_FLAT, Q_ENERGY, Q_PARKING, Q_RESERVATION, Q_TIME, Settled

U8 = npt.NDArray[np.uint8]

# What stands between the varying parts, by number; texts of the caller's follow.
_LITERALS: Final = (
    b"",
    b',"start_date_time":"',
    b'","end_date_time":"',
    b'","session_id":',
    b',"cdr_token":',
    b',"auth_method":',
    b',"charging_periods":[',
    b'{"start_date_time":"',
    b'","dimensions":[',
    b'{"type":"ENERGY","volume":',
    b'},{"type":"TIME","volume":',
    b'},{"type":"PARKING_TIME","volume":',
    b'},{"type":"RESERVATION_TIME","volume":',
    b'{"type":"TIME","volume":',
    b'{"type":"PARKING_TIME","volume":',
    b'{"type":"RESERVATION_TIME","volume":',
    b'}],"tariff_id":',
    b"},",
    b"}]",
    b',"total_cost":{"excl_vat":',
    b',"incl_vat":',
    b'},"total_fixed_cost":{"excl_vat":',
    b'},"total_energy_cost":{"excl_vat":',
    b'},"total_time_cost":{"excl_vat":',
    b'},"total_parking_cost":{"excl_vat":',
    b'},"total_reservation_cost":{"excl_vat":',
    b'},"total_energy":',
    b',"total_time":',
    b',"total_parking_time":',
    b',"last_updated":"',
    b'"}',
)
(
    NOTHING, _BEGAN, _ENDED, _SESSION, _TOKEN, _METHOD, _PERIODS, _PERIOD, _DIMENSIONS, _ENERGY, _TIME_TOO,
    _PARKING_TOO, _RESERVED_TOO, _TIME, _PARKING, _RESERVED, _TARIFF, _NEXT, _LAST, _TOTAL, _INCL, _FIXED_COST,
    _ENERGY_COST, _TIME_COST, _PARKING_COST, _RESERVED_COST, _TOTAL_ENERGY, _TOTAL_TIME, _TOTAL_PARKING, _UPDATED, _END,
) = range(len(_LITERALS))  # fmt: skip
FIRST_TEXT: Final = len(_LITERALS)  # the number of the caller's first text

_NUMBER_MOST: Final = len("-922337203685477.5808")
_INSTANT_MOST: Final = len("2026-01-05T15:00:00.000Z")
_LITERALS_LENGTH: Final = sum(map(len, _LITERALS))
_DOCUMENT_MOST: Final = _LITERALS_LENGTH + 3 * _INSTANT_MOST + 15 * _NUMBER_MOST  # but for its texts and periods
_PERIOD_MOST: Final = _LITERALS_LENGTH + _INSTANT_MOST + 2 * _NUMBER_MOST  # but for the tariff's id
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # years 1 to 9999: others have no RFC 3339 text


class Texts(NamedTuple):
    """Pieces of JSON, one behind the other."""

    text: U8
    ends: I64


class Told(NamedTuple):
    """What each document says beside quantities and costs: one row a document, texts by number."""

    session: I64  # its row in `Settled` and `Periods`
    owner: I64  # see `owner_text`
    id: I64
    token: I64
    place: I64  # see `place_text`
    tariffs: I64  # see `tariffs_text`
    tariff_id: I64
    signed: I64  # see `member_text`; NOTHING without
    remark: I64
    start_ms: I64
    end_ms: I64
    updated_ms: I64


class Documents(NamedTuple):
    """Documents one behind the other."""

    text: U8
    ends: I64

    def at(self, row: int) -> bytes:
        """One of them."""
        return self.text[self.ends[row - 1] if row else 0 : self.ends[row]].tobytes()


def documents_of(given: Sequence[bytes]) -> Documents:
    """Documents that were made one by one."""
    return Documents(np.frombuffer(b"".join(given), np.uint8), _ends(given))


def documents_joined(parts: Sequence[Documents]) -> Documents:
    """Those of the parts in order."""
    before = np.cumsum([0, *(len(part.text) for part in parts[:-1])])
    ends = [part.ends + start for part, start in zip(parts, before.tolist(), strict=True)]
    return Documents(np.concatenate([part.text for part in parts]), np.concatenate(ends))


def texts(given: Sequence[bytes]) -> Texts:
    """Texts numbered from FIRST_TEXT on."""
    every = [*_LITERALS, *given]
    return Texts(np.frombuffer(b"".join(every), np.uint8), _ends(every))


def _ends(given: Sequence[bytes]) -> I64:
    return np.cumsum(np.fromiter(map(len, given), np.int64, len(given)))


def owner_text(country_code: str, party_id: str) -> bytes:
    """How a document begins, up to its id."""
    return b'{"country_code":%b,"party_id":%b,"id":' % (encode(country_code), encode(party_id))


def place_text(auth_method: str, location: Mapping[str, Any]) -> bytes:
    """How and where: AuthMethod and CdrLocation."""
    return encode(auth_method) + member_text("cdr_location", location)


def tariffs_text(currency: str, tariffs: Sequence[Any]) -> bytes:
    """Currency and tariffs."""
    return member_text("currency", currency) + member_text("tariffs", tariffs)


def member_text(name: str, value: Any) -> bytes:
    """A member that follows others."""
    return b',"%b":%b' % (name.encode(), encode(value))


def documents(given: Texts, told: Told, periods: Periods, settled: Settled) -> Documents:
    """Every document of `told`. Raises SessionError where one would have no charging period."""
    count = np.diff(periods.ends, prepend=0)[told.session]
    if not count.all():
        raise SessionError("a CDR would have no charging period: nothing was rated")
    for instants in (told.start_ms, told.end_ms, told.updated_ms, periods.start_ms):
        if len(instants) and (instants.min() < _FIRST_MS or instants.max() > _LAST_MS):
            raise SessionError("a CDR would name an instant outside the years 1 to 9999")
    lengths = np.diff(given.ends, prepend=0)
    room = (
        _DOCUMENT_MOST * len(count) + lengths[told.id].sum() + (count * (_PERIOD_MOST + lengths[told.tariff_id])).sum()
    )
    for column in (told.owner, told.id, told.token, told.place, told.tariffs, told.signed, told.remark):
        room += lengths[column].sum()
    written = Documents(np.empty(int(room), np.uint8), np.empty(len(count), np.int64))
    _write(given, told, periods, settled, written)
    return written._replace(text=written.text[: written.ends[-1] if len(count) else 0])


@kernel
def _write(given: Texts, told: Told, periods: Periods, settled: Settled, out: Documents) -> None:
    at = 0
    for row in range(len(told.session)):
        session = told.session[row]
        at = _text(given, told.owner[row], out.text, at)
        at = _text(given, told.id[row], out.text, at)
        at = _text(given, _BEGAN, out.text, at)
        at = _instant(told.start_ms[row], out.text, at)
        at = _text(given, _ENDED, out.text, at)
        at = _instant(told.end_ms[row], out.text, at)
        at = _text(given, _SESSION, out.text, at)
        at = _text(given, told.id[row], out.text, at)
        at = _text(given, _TOKEN, out.text, at)
        at = _text(given, told.token[row], out.text, at)
        at = _text(given, _METHOD, out.text, at)
        at = _text(given, told.place[row], out.text, at)
        at = _text(given, told.tariffs[row], out.text, at)
        at = _charging_periods(given, periods, session, told.tariff_id[row], out.text, at)
        at = _text(given, told.signed[row], out.text, at)
        at = _costs(given, settled, session, out.text, at)
        at = _quantities(given, settled, session, out.text, at)
        at = _text(given, told.remark[row], out.text, at)
        at = _text(given, _UPDATED, out.text, at)
        at = _instant(told.updated_ms[row], out.text, at)
        at = _text(given, _END, out.text, at)
        out.ends[row] = at


@part
def _charging_periods(given: Texts, periods: Periods, session: int, tariff_id: int, out: U8, at: int) -> int:
    """Rounded by differences of the running totals."""
    energy_mwh = time_ms = energy_e4 = time_e4 = 0
    at = _text(given, _PERIODS, out, at)
    first, stop = periods.ends[session - 1] if session else 0, periods.ends[session]
    for period in range(first, stop):
        energy_mwh, time_ms = energy_mwh + periods.energy_mwh[period], time_ms + periods.length_ms[period]
        at = _text(given, _PERIOD, out, at)
        at = _instant(periods.start_ms[period], out, at)
        at = _text(given, _DIMENSIONS, out, at)
        state, energy = periods.state[period], periods.energy_mwh[period] != 0
        if energy:
            at = _text(given, _ENERGY, out, at)
            at = _number(_energy_e4(energy_mwh) - energy_e4, out, at)
        if state == CHARGING:
            at = _text(given, _TIME_TOO if energy else _TIME, out, at)
        elif state == PARKING:
            at = _text(given, _PARKING_TOO if energy else _PARKING, out, at)
        else:
            at = _text(given, _RESERVED_TOO if energy else _RESERVED, out, at)
        at = _number(_time_e4(time_ms) - time_e4, out, at)
        energy_e4, time_e4 = _energy_e4(energy_mwh), _time_e4(time_ms)
        at = _text(given, _TARIFF, out, at)
        at = _text(given, tariff_id, out, at)
        at = _text(given, _NEXT if period + 1 < stop else _LAST, out, at)
    return at


@part
def _costs(given: Texts, settled: Settled, session: int, out: U8, at: int) -> int:
    at = _price(given, _TOTAL, settled.total_excl_e4[session], settled.total_incl_e4[session], out, at)
    at = _category(given, _FIXED_COST, settled, session, C_FLAT, out, at)
    at = _category(given, _ENERGY_COST, settled, session, Q_ENERGY, out, at)
    at = _category(given, _TIME_COST, settled, session, Q_TIME, out, at)
    at = _category(given, _PARKING_COST, settled, session, Q_PARKING, out, at)
    return _category(given, _RESERVED_COST, settled, session, Q_RESERVATION, out, at)


@part
def _category(given: Texts, name: int, settled: Settled, session: int, category: int, out: U8, at: int) -> int:
    """A category's total, where it was priced."""
    priced = 0 if category == C_FLAT else settled.priced[session, category]
    if settled.cost[session, category] == 0 and priced == 0:
        return at
    return _price(given, name, settled.excl_e4[session, category], settled.incl_e4[session, category], out, at)


@part
def _price(given: Texts, name: int, excl_e4: int, incl_e4: int, out: U8, at: int) -> int:
    at = _text(given, name, out, at)
    at = _number(excl_e4, out, at)
    at = _text(given, _INCL, out, at)
    return _number(incl_e4, out, at)


@part
def _quantities(given: Texts, settled: Settled, session: int, out: U8, at: int) -> int:
    energy_mwh, charging_ms = settled.metered[session, Q_ENERGY], settled.metered[session, Q_TIME]
    parking_ms = settled.metered[session, Q_PARKING]
    at = _text(given, _TOTAL_ENERGY, out, at)
    at = _number(_energy_e4(energy_mwh), out, at)
    at = _text(given, _TOTAL_TIME, out, at)
    at = _number(_time_e4(charging_ms + parking_ms), out, at)
    at = _text(given, _TOTAL_PARKING, out, at)
    return _number(_time_e4(parking_ms), out, at)


@part
def _energy_e4(energy_mwh: int) -> int:
    """In 1e-4 kWh, halves up."""
    return (energy_mwh + 50) // 100


@part
def _time_e4(time_ms: int) -> int:
    """In 1e-4 h, halves up."""
    return (time_ms + 180) // 360


@part
def _text(given: Texts, number: int, out: U8, at: int) -> int:
    """Copy a text."""
    first, stop = given.ends[number - 1] if number else 0, given.ends[number]
    source, target = given.text[first:stop], out[at : at + stop - first]
    for place in range(len(source)):  # of slices: indices that can't be negative, so many bytes at once
        target[place] = source[place]
    return int(at + stop - first)


@part
def _number(amount_e4: int, out: U8, at: int) -> int:
    """As `cdr.number`: up to 4 decimals, no zero at the end."""
    if amount_e4 < 0:
        out[at] = 0x2D
        at += 1
    amount = np.uint64(-amount_e4 if amount_e4 < 0 else amount_e4)
    rest = amount % np.uint64(10_000)
    at = _digits(amount // np.uint64(10_000), 1, out, at)
    if rest == 0:
        return at
    out[at] = 0x2E
    places = 4
    while rest % np.uint64(10) == 0:
        rest //= np.uint64(10)
        places -= 1
    return _digits(rest, places, out, at + 1)


@part
def _digits(value: np.uint64, least: int, out: U8, at: int) -> int:
    """A number >= 0 in at least so many digits."""
    digits, power = 1, value // np.uint64(10)
    while power > 0:
        power //= np.uint64(10)
        digits += 1
    digits = max(digits, least)
    for place in range(digits):
        out[at + digits - 1 - place] = np.uint8(value % np.uint64(10)) + np.uint8(0x30)
        value //= np.uint64(10)
    return at + digits


@part
def _instant(instant_ms: int, out: U8, at: int) -> int:
    """As `cdr.timestamp`: the civil date by the days since 0000-03-01, whose 400 years are 146,097 days."""
    days, ms = instant_ms // 86_400_000, instant_ms % 86_400_000
    era, of_era = (days + 719_468) // 146_097, (days + 719_468) % 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153  # from March
    day = of_year - (153 * month + 2) // 5 + 1
    year += 400 * era + (month >= 10)
    month += 3 if month < 10 else -9
    at = _two(year // 100, 0, out, at)
    at = _two(year % 100, 0x2D, out, at)
    at = _two(month, 0x2D, out, at)
    at = _two(day, 0x54, out, at)
    at = _two(ms // 3_600_000, 0x3A, out, at)
    at = _two(ms // 60_000 % 60, 0x3A, out, at)
    at = _two(ms // 1_000 % 60, 0, out, at)
    if ms % 1_000:
        out[at] = 0x2E
        at = _digits(np.uint64(ms % 1_000), 3, out, at + 1)
    out[at] = 0x5A
    return at + 1


@part
def _two(value: int, then: int, out: U8, at: int) -> int:
    """Two digits, and a sign behind them if that is not 0."""
    out[at], out[at + 1] = np.uint8(0x30 + value // 10), np.uint8(0x30 + value % 10)
    if then:
        out[at + 2] = np.uint8(then)
        return at + 3
    return at + 2

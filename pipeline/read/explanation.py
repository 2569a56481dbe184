"""Why a session costs what it costs: the header, the bill, its CDRs, and what is held. As data, and as text.

The prices and their reasons are told by `rating.explain`; this module brings them together with the ledger's facts.
Amounts are decimal strings, instants RFC 3339 in UTC; the text shows the location's local time.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from pipeline.clickhouse import Store
from pipeline.coverage import Asked
from pipeline.errors import IntegrityError
from pipeline.metering.columns import SIGNED_FORGED, SIGNED_UNVERIFIABLE, SIGNED_VERIFIED
from pipeline.rate.rows import PARKING_TIME, TIME
from pipeline.read.bill import Bill, bill, merged, standing, the_tariff
from pipeline.read.history import tariff_of_history
from pipeline.read.places import Place, ask_locations, place_of
from pipeline.read.session_rows import (
    HELD,
    OPEN,
    AskedRows,
    CdrLine,
    HoldRow,
    RatedRow,
    ReadingBrief,
    ReadingRow,
    SessionRows,
    ask_rows,
    counted,
)
from pipeline.read.sessions import Likely, Named, SessionRef, lookup
from rating import explain, money, words
from rating.cdr import CREDIT_SUFFIX, timestamp
from rating.ratesheet import SheetSource

_SIGNED: Final = {SIGNED_VERIFIED: "verified", SIGNED_UNVERIFIABLE: "unverifiable", SIGNED_FORGED: "forged"}
_NOT_COUNTED: Final = ("duplicate", "ignored")
_MWH_PER_KWH: Final = 1_000_000
_HELD_WORDS: Final = {
    "unknown_tariff": "no tariff was known for this connector or driver",
    "register_jump": "the meter jumped further than the connector can deliver",
    "stop_below_start": "the meter's last register is below the one before",
    "unconfirmed_reading": "the last reading was out of line and nothing confirmed it",
    "forged_signature": "a signed meter value does not match its signature",
    "unit_error": "energy and power differ by a factor of a thousand",
    "stuck_register": "power flowed while the meter stood still",
    "no_register": "no meter register was received",
    "unusable_time": "the charger's clock can't be used",
    "gap_too_long": "too long a time passed between two readings",
    "no_start": "the session's start was never received",
    "no_stop": "the session's end was never received",
    "out_of_bounds": "the amounts are too big to be right",
}


def explained(store: Store, text: str, with_readings: bool = False) -> dict[str, Any]:
    """The explanation of the session that `text` names: in two rounds of short statements, side by side in each.

    Raises DocumentError where it names none or several; otherwise see `explanation`.
    """
    asked: list[tuple[AskedRows, Asked]] = []

    def ask(of: SessionRef | Likely, cdrs: Named | None = None) -> AskedRows:
        rows = ask_rows(store, of, cdrs, brief=not with_readings)
        asked.append((rows, ask_locations(store, of.charge_point_id)))
        return rows

    ref, coverage = lookup(store, text, ahead=ask)
    if not any(rows.has(ref) for rows, _ in asked):
        ask(ref)
    rows, locations = next(one for one in asked if one[0].has(ref))
    return explanation(store, counted(rows, ref, coverage), with_readings, locations)


def explanation(
    store: Store, session: SessionRows, with_readings: bool = False, locations: Asked | None = None
) -> dict[str, Any]:
    """The whole explanation as data. Raises IntegrityError where the ledger's rows contradict each other."""
    ref, rows = session.ref, standing(session.rated)
    version = max((reading.reference_version for reading in session.readings), default=0)
    locations = locations or ask_locations(store, ref.charge_point_id)
    place = place_of(locations, ref.charge_point_id, ref.connector_id, version)
    return {
        "session": _header(session, rows, place),
        "bill": _priced(store, session, rows, place, with_readings),
        "held": _held(session),
        "decisions": [_decision(hold) for hold in session.holds],
        "cdrs": [_cdr(line) for line in session.cdrs],
        **({"readings": [_reading(row) for row in _whole(session)]} if with_readings else {}),
    }


def _priced(
    store: Store, session: SessionRows, rows: list[RatedRow], place: Place, with_readings: bool
) -> dict[str, Any] | None:
    """The bill as `rating.explain` tells it; None where nothing is rated."""
    cdr = session.cdr
    key = the_tariff(rows) or (cdr.tariff if cdr else "")
    if not key:
        return None
    tariff = tariff_of_history(store, key)
    if tariff is None:
        raise IntegrityError(f"{store.where}: rated rows name tariff {key}, which was never published here")
    made = bill(rows, tariff, key, place.zone, settled=cdr is not None)
    lines = made.lines if with_readings else merged(made.lines)
    readings = [_behind(row) for row in _whole(session) if _counts(row)] if with_readings else []
    totals = _totals(made, cdr)
    told = explain.explain(lines, SheetSource(key, tariff, place.zone), totals, readings, _held_back(session))
    told["energy_kwh"] = words.amount(made.energy_mwh, _MWH_PER_KWH)
    told["cost_so_far"] = _so_far(rows, tariff.currency) if session.state == OPEN else None
    told["differs"] = made.differs
    return told


def _so_far(rows: Sequence[RatedRow], currency: str) -> str:
    """What is rated by now, in 4 decimals at most: no step, limit or rounding, which come at settlement."""
    cost = money.round_half_away(sum(row.cost for row in rows), money.COST_PER_E4)
    return money.shown(cost // money.COST_PER_E4, money.minor_decimals(currency))


def _totals(made: Bill, cdr: CdrLine | None) -> explain.Totals:
    """What is billed: the CDR's own totals, where there is one."""
    if cdr is None:
        return made.totals
    return explain.Totals(cdr.total_excl_e4, cdr.total_incl_e4, made.totals.taxes, made.totals.notes)


def _header(session: SessionRows, rows: list[RatedRow], place: Place) -> dict[str, Any]:
    cdr = session.cdr
    times = [reading.time_ms for reading in session.readings if _counts(reading)]
    start_ms = cdr.start_ms if cdr else min([*times, *(row.start_ms for row in rows)], default=0)
    end_ms = cdr.end_ms if cdr else max([*times, *(row.end_ms for row in rows)], default=start_ms)
    token = cdr.id_token if cdr else next((r.id_token for r in session.readings if r.id_token), "")
    return {
        "session_key": session.ref.key,
        "transaction_id": session.ref.transaction_id,
        "charge_point_id": session.ref.charge_point_id,
        "connector_id": session.ref.connector_id,
        "id_token": token,
        "location": place._asdict(),
        "state": session.state,
        "start": timestamp(start_ms),
        "end": timestamp(end_ms),
        "duration_s": (end_ms - start_ms) // 1000,
        "charging": words.duration(cdr.charging_ms if cdr else _length(session, TIME)),
        "parking": words.duration(cdr.parking_ms if cdr else _length(session, PARKING_TIME)),
        "readings": len(times),
        "signed": _SIGNED.get(cdr.signed, "unsigned") if cdr else None,
    }


def _length(session: SessionRows, dimension: int) -> int:
    return sum(row.quantity for row in session.rated if row.dimension == dimension)


def _whole(session: SessionRows) -> list[ReadingRow]:
    return [row for row in session.readings if isinstance(row, ReadingRow)]


def _counts(row: ReadingBrief) -> bool:
    return row.verdict not in _NOT_COUNTED and row.register_mwh is not None


def _behind(row: ReadingRow) -> explain.Reading:
    return explain.Reading(row.time_ms, row.register_mwh or 0, _SIGNED.get(row.signed, "unsigned"))


def _held_back(session: SessionRows) -> list[explain.Held]:
    told = _held(session)
    return [explain.Held(told["energy_mwh"], told["because"])] if told else []


def _held(session: SessionRows) -> dict[str, Any] | None:
    """Energy that is not on the bill, and why; None where all of it is."""
    cdr, hold = session.cdr, session.hold
    mwh, reason = (cdr.held_mwh, cdr.held_reason) if cdr else (hold.held_mwh, hold.reason) if hold else (0, "")
    if not reason and not mwh:
        return None
    return {
        "energy_mwh": mwh,
        "energy_kwh": words.amount(mwh, _MWH_PER_KWH),
        "reason": reason,
        "because": _HELD_WORDS.get(reason, reason),
        "settled_without_it": cdr is not None,
    }


def _decision(hold: HoldRow) -> dict[str, Any]:
    return {
        "action": hold.action,
        "reason": hold.reason,
        "energy_kwh": words.amount(hold.held_mwh, _MWH_PER_KWH),
        "time": timestamp(hold.time_ms),
        "actor": hold.actor,
        "note": hold.note,
    }


def _cdr(line: CdrLine) -> dict[str, Any]:
    decimals = money.minor_decimals(line.currency)
    return {
        "cdr_id": line.cdr_id + (CREDIT_SUFFIX if line.credit else ""),
        "revision": line.revision,
        "credit": bool(line.credit),
        "settled_at": timestamp(line.settled_ms),
        "tariff": line.tariff,
        "energy_kwh": words.amount(line.energy_mwh, _MWH_PER_KWH),
        "total_excl": money.shown(line.total_excl_e4, decimals),
        "total_incl": money.shown(line.total_incl_e4, decimals),
        "currency": line.currency,
    }


def _reading(row: ReadingRow) -> dict[str, Any]:
    return {
        "time": timestamp(row.time_ms),
        "register_kwh": None if row.register_mwh is None else words.amount(row.register_mwh, _MWH_PER_KWH),
        "power_kw": None if row.power_mw is None else words.amount(row.power_mw, _MWH_PER_KWH),
        "verdict": row.verdict,
        "went": row.disposition,
        "signed": _SIGNED.get(row.signed, "unsigned"),
        "offset": row.offset,
    }


def text(told: dict[str, Any]) -> str:
    """The explanation as a bill that a customer can follow."""
    zone = ZoneInfo(told["session"]["location"]["zone"])
    out = [*_header_text(told, zone), ""]
    if told["bill"] is None:
        out.append("Nothing is rated yet: " + (told["held"]["because"] if told["held"] else "no energy has flowed"))
    else:
        out.append(explain.text(told["bill"]).rstrip("\n"))
        if told["bill"]["differs"]:
            out.append(f"! {told['bill']['differs']}: run `wattrate verify`")
    out += _history(told, zone)
    out += _readings(told.get("readings", ()), zone)
    return "\n".join(out) + "\n"


def _header_text(told: dict[str, Any], zone: ZoneInfo) -> list[str]:
    session, bill_told = told["session"], told["bill"]
    location, charge_point = session["location"], session["charge_point_id"]
    start, end = _local(session["start"], zone), _local(session["end"], zone)
    where = ", ".join(part for part in (location["name"], location["address"], location["city"]) if part)
    so_far = f"{bill_told['cost_so_far']} {bill_told['tariff']['currency']}" if bill_told else "nothing rated"
    held = told["held"] or {"energy_kwh": "0", "because": ""}
    states = {
        OPEN: f"open, {so_far} so far; the bill below is as if it ended now",
        HELD: f"held until a person or a later reading decides: {held['energy_kwh']} kWh, {held['because']}",
    }
    length = words.duration(session["duration_s"] * 1000)
    pairs = (
        ("Session", f"{charge_point}*{session['transaction_id'] or session['start']} (key {session['session_key']})"),
        ("Driver", session["id_token"] or "no token"),
        ("Place", f"{where or 'unknown'}; charge point {charge_point}, connector {session['connector_id']}"),
        ("Time", f"{start:%a %d %b %Y %H:%M:%S} to {_until(start, end)} ({zone.key}), {length}"),
        ("Energy", f"{bill_told['energy_kwh'] if bill_told else 0} kWh, {session['readings']} meter readings"),
        ("State", states.get(session["state"], "settled")),
    )
    return [f"{name:<9}{value}" for name, value in pairs]


def _until(start: datetime, end: datetime) -> str:
    return f"{end:%H:%M:%S}" if start.date() == end.date() else f"{end:%a %d %b %Y %H:%M:%S}"


def _history(told: dict[str, Any], zone: ZoneInfo) -> list[str]:
    """CDRs where there is more than the one, and what was decided."""
    out = []
    for line in told["cdrs"] if len(told["cdrs"]) > 1 else ():
        kind = "credit" if line["credit"] else "CDR"
        out.append(
            f"  {_local(line['settled_at'], zone):%d %b %Y %H:%M}  {kind:<7}{line['cdr_id']}, "
            f"revision {line['revision']}: {line['energy_kwh']} kWh, {line['total_incl']} {line['currency']}"
        )
    for one in told["decisions"]:
        by = f" by {one['actor']}" if one["actor"] else ""
        note = f": {one['note']}" if one["note"] else ""
        out.append(
            f"  {_local(one['time'], zone):%d %b %Y %H:%M}  {one['action']}{by}, {one['energy_kwh']} kWh, "
            f"{one['reason']}{note}"
        )
    return ["", "What happened", *out] if out else []


def _readings(readings: Sequence[dict[str, Any]], zone: ZoneInfo) -> list[str]:
    if not readings:
        return []
    rows = [
        f"  {_local(one['time'], zone):%d %b %H:%M:%S}  {one['register_kwh'] or '-':>14} kWh  {one['verdict']:<10}"
        f"{one['went']:<12}{one['signed']:<13}offset {one['offset']}"
        for one in readings
    ]
    return ["", "Meter readings", *rows]


def _local(instant: str, zone: ZoneInfo) -> datetime:
    return datetime.fromisoformat(instant).replace(tzinfo=UTC).astimezone(zone)

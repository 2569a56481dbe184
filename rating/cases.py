"""Cases of the conformance schema priced offline: one dict in, one dict of decimal strings out.

Nothing under `expected` is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from rating import engine, money, session
from rating.errors import RatingError, SessionError
from rating.policy import EXACT_TOTALS, Policy
from rating.session import Session
from rating.settle import C_FLAT, Q_ENERGY, Q_PARKING, Q_RESERVATION, Q_TIME, Settled, note_codes
from rating.tariff import Tariff, parse_tariff

_COSTS: Final = {
    "energy_cost": Q_ENERGY,
    "time_cost": Q_TIME,
    "parking_cost": Q_PARKING,
    "flat_cost": C_FLAT,
    "reservation_cost": Q_RESERVATION,
}


def price_case(case: Mapping[str, Any], policy: Policy = EXACT_TOTALS) -> dict[str, Any]:
    """The line of one case: its totals, or `error` with a reason. Never raises for what a case holds."""
    name = case.get("id")
    try:
        given, tariff = case.get("session"), case.get("tariff")
        if not isinstance(given, Mapping) or not isinstance(tariff, Mapping):
            raise SessionError("a case needs a tariff and a session")
        tariffs = [tariff, *(case.get("other_tariffs") or [])]
        zone = str(case.get("timezone") or "UTC")
        return {"id": name, **price_session(given, tariffs, zone, case.get("ocpi_version"), policy)}
    except RatingError as error:
        return {"id": name, "error": str(error)}


def price_session(
    given: Mapping[str, Any],
    tariffs: Sequence[Any],
    zone: str,
    ocpi_version: str | None = None,
    policy: Policy = EXACT_TOTALS,
) -> dict[str, Any]:
    """The totals of a session of the conformance schema by the first tariff, or by those that its parts name.

    Raises RatingError where the session or a tariff can't be read or rated.
    """
    parsed = [parse_tariff(one, ocpi_version) for one in tariffs]
    parts = [(engine.rate(part, tariff, zone, policy)[0].settled, part.notes) for part, tariff in _parts(given, parsed)]
    return totals([settled for settled, _ in parts], sorted({note for _, notes in parts for note in notes}))


def _parts(given: Mapping[str, Any], tariffs: list[Tariff]) -> list[tuple[Session, Tariff]]:
    """The session, cut where another tariff applies ("A CDR period without tariff_id uses the session's tariff")."""
    key = "phases" if given.get("phases") else "cdr_charging_periods"
    by_id = {tariff.id: tariff for tariff in reversed(tariffs)}
    rows = list(given.get(key) or [])
    if len(tariffs) == 1 or not rows:
        return [(read_session(given), tariffs[0])]
    runs: list[tuple[str, list[Mapping[str, Any]]]] = []
    for row in rows:
        name = row.get("tariff_id") or tariffs[0].id
        if name not in by_id:
            raise SessionError(f"$.session.{key}: no tariff with id {name!r} was given")
        if not runs or runs[-1][0] != name:
            runs.append((name, []))
        runs[-1][1].append(row)
    ends = [str(run[0].get("start_date_time")) for _, run in runs[1:]] + [str(given.get("end"))]
    sessions = [read_session({**given, key: run, "end": end}) for (_, run), end in zip(runs, ends, strict=True)]
    return [
        (replace(one, continued=at > 0), by_id[name])
        for at, (one, (name, _)) in enumerate(zip(sessions, runs, strict=True))
    ]


def read_session(given: Mapping[str, Any]) -> Session:
    """A session of the conformance schema: phases, cdr_charging_periods, or samples with events."""
    if given.get("phases"):
        return session.from_phases(given["phases"])
    if given.get("cdr_charging_periods"):
        return session.from_periods(given["cdr_charging_periods"], session.instant_of(given, "end", "$.session"))
    if given.get("samples"):
        start, end = (session.instant_of(given, key, "$.session") for key in ("start", "end"))
        return session.from_samples(given["samples"], given.get("events") or [], start, end)
    raise SessionError("$.session: expected phases, cdr_charging_periods or samples")


def totals(parts: list[Settled], notes: list[str]) -> dict[str, Any]:
    """The totals of one session settled in one or more parts (a part a tariff), as decimal strings."""

    def summed(column: str, *place: int) -> int:
        return sum(int(getattr(part, column)[(0, *place)]) for part in parts)

    def billed(kind: int) -> int:
        return summed("priced", kind) + summed("step", kind)

    time_ms, parking_ms = summed("metered", Q_TIME), summed("metered", Q_PARKING)
    return {
        "total_cost_excl_vat": money.e4_text(summed("total_excl_e4")),
        "total_cost_incl_vat": money.e4_text(summed("total_incl_e4")),
        "total_energy_kwh": _quantity(summed("metered", Q_ENERGY), session.MWH_PER_KWH),
        "total_time_h": _quantity(time_ms + parking_ms, session.MS_PER_HOUR),
        "total_parking_time_h": _quantity(parking_ms, session.MS_PER_HOUR),
        **{
            name: {"excl": money.e4_text(summed("excl_e4", at)), "incl": money.e4_text(summed("incl_e4", at))}
            for name, at in _COSTS.items()
        },
        "billed_energy_kwh": _quantity(billed(Q_ENERGY), session.MWH_PER_KWH),
        "billed_time_min": _quantity(billed(Q_TIME), 60_000),
        "billed_parking_min": _quantity(billed(Q_PARKING), 60_000),
        "notes": sorted({*notes, *(code for part in parts for code in note_codes(int(part.notes[0])))}),
    }


def _quantity(amount: int, per_unit: int) -> str:
    """A quantity with six decimals, half away from zero."""
    scaled = money.round_half_away(amount * 1_000_000 * 2, 2 * per_unit) // (2 * per_unit)
    return f"{scaled // 1_000_000}.{scaled % 1_000_000:06d}"

"""One token at two sites at once, or faster from one to the other than a car can drive.

A fold over the session events of one partition of `session.events`: those of a token lie in one partition, so what is
found is a function of the log. A conflict that a later event refutes (the first session's stop came late) is resolved.
"""

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from pipeline.anomaly.events import SessionEvent
from pipeline.anomaly.tuning import Tuning

EARTH_KM: Final = 6371.0
_HOUR_MS: Final = 3_600_000
_VISITS_MAX: Final = 16  # remembered a token: who charges more often within the window is a fleet card
_SWEEP_EVERY: Final = 4096


class TokenLimits(NamedTuple):
    """Parameters: km/h that no car drives; sites nearer than this are one; how long visits and open sessions
    count; how much overlap is the clocks'."""

    speed_kmh: float = 150.0
    near_km: float = 0.5
    remember_ms: int = 48 * _HOUR_MS
    open_ms: int = 24 * _HOUR_MS
    overlap_ms: int = 60_000  # clocks of two charge points differ, and some tell minutes only


def token_limits(tuning: Tuning) -> TokenLimits:
    """The parameters as the rules file has them."""

    def of(name: str) -> float:
        return tuning.of("token_two_sites", name)

    return TokenLimits(of("speed_kmh"), of("near_km"), int(of("remember_h") * _HOUR_MS), int(of("open_h") * _HOUR_MS))


class Visit(msgspec.Struct):
    """One session of a token; `end_ms` None while it runs."""

    session_key: str
    charge_point_id: str
    connector_id: int
    location_id: str
    latitude: float | None
    longitude: float | None
    start_ms: int
    end_ms: int | None = None


class Conflict(NamedTuple):
    """Two sessions of one token that one driver can't have had. `found` False: an earlier finding is withdrawn."""

    found: bool
    kind: str  # token_two_sites | token_two_chargers
    token: str
    first: Visit
    second: Visit
    km: float  # 0 where a site's place is not known
    gap_ms: int  # between the sessions; negative: they overlap
    event: SessionEvent
    number: int = 1  # of the times that this was found, having been withdrawn in between


class TokenState(msgspec.Struct):
    """What is remembered: the visits of each token, and the conflicts that stand."""

    visits: dict[str, list[Visit]] = {}
    standing: dict[str, list[str]] = {}  # token → keys of conflicts said
    withdrawn: dict[str, int] = {}  # key → how often it was withdrawn
    newest_ms: int = 0
    seen: int = 0


def observe(state: TokenState, event: SessionEvent, limits: TokenLimits) -> list[Conflict]:
    """Take one event in and say what it shows."""
    if not event.id_token or not event.location_id:
        return []
    state.newest_ms = max(state.newest_ms, event.time_ms)
    state.seen += 1
    if not state.seen % _SWEEP_EVERY:
        _sweep(state, limits)
    visits = state.visits.setdefault(event.id_token, [])
    touched = _take(visits, event)
    if touched is None:
        return []
    said = state.standing.setdefault(event.id_token, [])
    found = list(_judge(visits, touched, event, limits, said, state.withdrawn))
    _trim(state, event.id_token, limits)
    return found


def _take(visits: list[Visit], event: SessionEvent) -> Visit | None:
    """The visit that the event begins or ends; a repeated start and a credit change nothing."""
    known = next((v for v in visits if v.session_key == event.session_key), None)
    start_ms = event.time_ms if event.event == "start" else event.start_ms
    if event.event == "credit" or (known is not None and event.event == "start"):
        return None
    if known is None:
        if start_ms is None:
            return None
        known = _visit(event, start_ms)
        visits.append(known)
    known.start_ms = known.start_ms if start_ms is None else start_ms
    if event.event == "stop":
        known.end_ms = max(event.time_ms, known.start_ms)
    visits.sort(key=lambda v: (v.start_ms, v.session_key))
    return known


def _visit(event: SessionEvent, start_ms: int) -> Visit:
    return Visit(
        event.session_key,
        event.charge_point_id,
        event.connector_id,
        event.location_id,
        _degrees(event.latitude),
        _degrees(event.longitude),
        start_ms,
    )


def _judge(
    visits: list[Visit],
    touched: Visit,
    event: SessionEvent,
    limits: TokenLimits,
    said: list[str],
    withdrawn: dict[str, int],
) -> Iterator[Conflict]:
    for other in visits:
        if other is touched:
            continue
        first, second = (other, touched) if _before(other, touched) else (touched, other)
        key = pair_key(first, second)
        kind, km, gap_ms = _conflict(first, second, limits)
        if bool(kind) == (key in said):
            continue
        number = withdrawn.get(key, 0) + 1
        if kind:
            said.append(key)
        else:
            said.remove(key)
            withdrawn[key] = number
        where = "token_two_chargers" if _near(first, second, limits) else "token_two_sites"
        yield Conflict(bool(kind), kind or where, event.id_token, first, second, km, gap_ms, event, number)


def _conflict(first: Visit, second: Visit, limits: TokenLimits) -> tuple[str, float, int]:
    """Kind ("" = none), km between the places, ms between the sessions."""
    end_ms = first.end_ms if first.end_ms is not None else first.start_ms + limits.open_ms
    gap_ms = second.start_ms - end_ms
    km = distance_km(first, second)
    if _near(first, second, limits):
        same = first.charge_point_id == second.charge_point_id  # two outlets of one post: two cars on one card
        return ("token_two_chargers" if gap_ms < -limits.overlap_ms and not same else ""), km, gap_ms
    too_fast = km > limits.near_km and km * _HOUR_MS > limits.speed_kmh * max(gap_ms, 0)
    if first.end_ms is None and gap_ms >= 0:
        too_fast = False  # it never stopped: nobody knows when the driver left
    return ("token_two_sites" if gap_ms < -limits.overlap_ms or too_fast else ""), km, gap_ms


def pair_key(one: Visit, other: Visit) -> str:
    """What two sessions are called together, whichever began first: a corrected clock may turn them round."""
    return "-".join(sorted((one.session_key, other.session_key)))


def _before(one: Visit, other: Visit) -> bool:
    return (one.start_ms, one.session_key) < (other.start_ms, other.session_key)


def _near(one: Visit, other: Visit, limits: TokenLimits) -> bool:
    """One place: the same location, or two that lie close. Coordinates that are equal to the last digit are made up."""
    return one.location_id == other.location_id or 0 < distance_km(one, other) <= limits.near_km


def distance_km(one: Visit, other: Visit) -> float:
    """Great-circle distance (haversine); 0 where a place is not known."""
    if one.latitude is None or one.longitude is None or other.latitude is None or other.longitude is None:
        return 0.0
    lat1, lat2 = math.radians(one.latitude), math.radians(other.latitude)
    half = math.sin((lat2 - lat1) / 2) ** 2
    turn = math.sin(math.radians(other.longitude - one.longitude) / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half + math.cos(lat1) * math.cos(lat2) * turn)))


def _degrees(value: float | str | None) -> float | None:
    if value is None or value == "":
        return None
    try:
        degrees = float(value)
    except ValueError:
        return None
    return degrees if math.isfinite(degrees) and abs(degrees) <= 180 else None


def _trim(state: TokenState, token: str, limits: TokenLimits) -> None:
    """Forget visits that can no longer conflict; a token without visits is forgotten whole."""
    oldest = state.newest_ms - limits.remember_ms
    kept = [v for v in state.visits[token] if (v.start_ms if v.end_ms is None else v.end_ms) >= oldest][-_VISITS_MAX:]
    keys = {v.session_key for v in kept}
    said = [key for key in state.standing.get(token, []) if keys.issuperset(key.split("-"))]
    gone = {v.session_key for v in state.visits[token]} - keys
    if gone and state.withdrawn:
        state.withdrawn = {key: n for key, n in state.withdrawn.items() if gone.isdisjoint(key.split("-"))}
    if kept:
        state.visits[token] = kept
    else:
        del state.visits[token]
    if said:
        state.standing[token] = said
    else:
        state.standing.pop(token, None)


def _sweep(state: TokenState, limits: TokenLimits) -> None:
    for token in list(state.visits):
        _trim(state, token, limits)

"""One whole session in rating's units, read from phases, from OCPI charging periods or from meter samples.

A `Session` is a cumulative register over time and what held when; `engine` rates it. Nothing is priced here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Final

from rating import fields
from rating.columns import ABSENT, CHARGING, PARKING, RESERVATION, RESERVATION_EXPIRED
from rating.errors import SessionError, TariffError

STATES: Final = {
    "CHARGING": CHARGING,
    "PARKING": PARKING,
    "RESERVATION": RESERVATION,
    "RESERVATION_EXPIRED": RESERVATION_EXPIRED,
}
# What an OCPP status or an event of a case says of the vehicle; what is not here says nothing.
EVENT_STATES: Final = {
    "CHARGING": CHARGING,
    "SUSPENDED_EVSE": CHARGING,  # the vehicle asks for power: not parking (design: Dimensions)
    "SUSPENDEDEVSE": CHARGING,
    "SUSPENDED_EV": PARKING,
    "SUSPENDEDEV": PARKING,
    "PARKING": PARKING,
    "FINISHING": PARKING,
}
_VOLUME_STATES: Final = (
    ("RESERVATION_TIME", RESERVATION),
    ("TIME", CHARGING),
    ("PARKING_TIME", PARKING),
)
_VOLUME_GRAIN_MS: Final = 360  # volumes are hours with four decimals
MWH_PER_KWH: Final = 1_000_000
MS_PER_HOUR: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Mark:
    """What holds from `start_ms` on: state, power (mW) and current (mA), ABSENT where not measured."""

    start_ms: int
    state: int
    power_mw: int = ABSENT
    current_ma: int = ABSENT


@dataclass(frozen=True, slots=True)
class Session:
    """A session to be rated: metered intervals (start, end, mWh) in time order, and what held when.

    Intervals usually tile the session. Where each is a published charging period (`own_marks`), mark i belongs
    to interval i alone, and times may leave gaps or overlap as the publisher's do.
    A reservation before the session is part of both (at 0 mWh).
    """

    intervals: tuple[tuple[int, int, int], ...]
    marks: tuple[Mark, ...]
    own_marks: bool = False
    continued: bool = False  # another tariff began it
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what can't be rated: no intervals, intervals that run backwards, states out of order."""
        if not self.intervals or not self.marks:
            raise SessionError("a session needs two register readings and a state")
        for start, end, energy in self.intervals:
            if end < start or energy < 0:
                raise SessionError(f"an interval must not run backwards: {energy} mWh from {start} to {end}")
        if self.own_marks and len(self.marks) != len(self.intervals):
            raise SessionError("each charging period needs a state of its own")
        if self.marks[0].start_ms > self.first_ms:
            raise SessionError("the first state begins after the session")
        if any(b.start_ms < a.start_ms for a, b in pairwise(self.marks)):
            raise SessionError("states must be in the order of time")

    @property
    def reserved_ms(self) -> int | None:
        """When a reservation began, None without one."""
        return next((m.start_ms for m in self.marks if m.state in (RESERVATION, RESERVATION_EXPIRED)), None)

    @property
    def expired(self) -> bool:
        """Whether the reservation expired."""
        return any(m.state == RESERVATION_EXPIRED for m in self.marks)

    @property
    def start_ms(self) -> int | None:
        """When the charging session began, from which durations count; None where there was only a reservation."""
        return next((m.start_ms for m in self.marks if m.state in (CHARGING, PARKING)), None)

    @property
    def first_ms(self) -> int:
        """The first instant, a reservation included."""
        return self.intervals[0][0]

    @property
    def end_ms(self) -> int:
        """The last instant."""
        return max(end for _, end, _ in self.intervals)


def decimal_of(value: Any, path: str) -> Decimal:
    """A decimal string or a JSON number; SessionError else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise SessionError(f"{path}: expected a number, found {value!r}")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise SessionError(f"{path}: expected a number, found {value!r}") from None
    if not number.is_finite() or abs(number) >= 10**15:
        raise SessionError(f"{path}: expected a finite number, found {value!r}")
    return number


def units_of(value: Any, path: str, per_unit: int) -> int:
    """A quantity in whole mWh, mW, mA or ms, rounded half up where it is finer than that."""
    return int((decimal_of(value, path) * per_unit).quantize(Decimal(1), ROUND_HALF_UP))


def optional_units(source: Mapping[str, Any], key: str, path: str, per_unit: int) -> int:
    """As `units_of`, ABSENT where the field is absent or null."""
    return ABSENT if source.get(key) is None else units_of(source[key], f"{path}.{key}", per_unit)


def instant_of(source: Mapping[str, Any], key: str, path: str) -> int:
    """UTC ms of a timestamp field; SessionError where it can't be read."""
    try:
        return fields.instant_ms(source.get(key), f"{path}.{key}")
    except TariffError as error:
        raise SessionError(str(error)) from None


def from_phases(phases: Sequence[Mapping[str, Any]], path: str = "$.session.phases") -> Session:
    """Phases that tile the session: start, end, state, energy_kwh (null = not stated, so 0), power_kw, current_a."""
    if not phases:
        raise SessionError(f"{path}: expected at least one phase")
    intervals: list[tuple[int, int, int]] = []
    marks: list[Mark] = []
    notes = set()
    for index, phase in enumerate(phases):
        place = f"{path}[{index}]"
        start, end = instant_of(phase, "start", place), instant_of(phase, "end", place)
        if end < start or (intervals and intervals[-1][1] != start):
            raise SessionError(f"{place}: a phase must begin where the one before ends, and end after it begins")
        if phase.get("state") not in STATES:
            raise SessionError(f"{place}.state: expected one of {', '.join(STATES)}, found {phase.get('state')!r}")
        added = optional_units(phase, "energy_kwh", place, MWH_PER_KWH)
        if added == ABSENT:
            notes.add("energy_not_stated")
        power = optional_units(phase, "power_kw", place, 1_000_000)
        marks.append(Mark(start, STATES[phase["state"]], power, optional_units(phase, "current_a", place, 1000)))
        intervals.append((start, end, max(added, 0)))
    return Session(tuple(intervals), tuple(marks), notes=tuple(sorted(notes)))


def from_periods(
    periods: Sequence[Mapping[str, Any]], end_ms: int, path: str = "$.session.cdr_charging_periods"
) -> Session:
    """OCPI ChargingPeriods: "A period ends when the next period starts. The last period ends when the session ends."

    A published volume of TIME, PARKING_TIME or RESERVATION_TIME says what state held, and how long where it differs
    from the timestamps by more than its four decimals can show (both TIME and PARKING_TIME: charging first).
    """
    if not periods:
        raise SessionError(f"{path}: expected at least one charging period")
    starts = [instant_of(period, "start_date_time", f"{path}[{index}]") for index, period in enumerate(periods)]
    ends = [*starts[1:], max(end_ms, starts[-1])]
    intervals: list[tuple[int, int, int]] = []
    marks: list[Mark] = []
    notes: set[str] = set()
    for index, (period, start, end) in enumerate(zip(periods, starts, ends, strict=True)):
        place = f"{path}[{index}]"
        if end < start:
            raise SessionError(f"{place}: charging periods must be in the order of time")
        _read_period(_volumes(period, place), start, end, place, intervals, marks, notes)
    return Session(tuple(intervals), tuple(marks), own_marks=True, notes=tuple(sorted(notes)))


def _read_period(
    volumes: Mapping[str, Any],
    start: int,
    end: int,
    place: str,
    intervals: list[tuple[int, int, int]],
    marks: list[Mark],
    notes: set[str],
) -> None:
    """Append one period as intervals of one state each; its energy belongs to the first, which charges."""
    energy = units_of(volumes.get("ENERGY") or 0, f"{place}.dimensions", MWH_PER_KWH)
    power = _first_units(volumes, ("POWER", "MAX_POWER", "MIN_POWER"), place, 1_000_000)
    current = _first_units(volumes, ("CURRENT", "MAX_CURRENT", "MIN_CURRENT"), place, 1000)
    told = [
        (state, units_of(volumes[name], f"{place}.dimensions", MS_PER_HOUR))
        for name, state in _VOLUME_STATES
        if volumes.get(name)
    ] or [(CHARGING, end - start)]
    length = sum(lasted for _, lasted in told)
    if abs(length - (end - start)) <= _VOLUME_GRAIN_MS * len(told):
        told[-1] = (told[-1][0], told[-1][1] + end - start - length)
    else:
        notes.add("time_from_volumes")
    for state, lasted in told:
        intervals.append((start, start + lasted, energy))
        marks.append(Mark(start, state, power, current))
        start, energy = start + lasted, 0


def _volumes(period: Mapping[str, Any], place: str) -> dict[str, Any]:
    dimensions = period.get("dimensions")
    if not isinstance(dimensions, list) or not all(isinstance(one, Mapping) for one in dimensions):
        raise SessionError(f"{place}.dimensions: expected a list of objects, found {dimensions!r}")
    return {str(one.get("type")): one.get("volume") for one in dimensions}


def _first_units(volumes: Mapping[str, Any], keys: Sequence[str], place: str, per_unit: int) -> int:
    found = next((volumes[key] for key in keys if volumes.get(key) is not None), None)
    return ABSENT if found is None else units_of(found, place, per_unit)


def from_samples(
    samples: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    start_ms: int,
    end_ms: int,
    path: str = "$.session",
) -> Session:
    """Cumulative meter samples (energy_kwh or energy_wh, power_kw, current_a at t) and events that change the state."""
    registers = [_sample(sample, f"{path}.samples[{index}]") for index, sample in enumerate(samples)]
    if not registers:
        raise SessionError(f"{path}.samples: expected at least one sample")
    first = registers[0][1]
    inside = [(time, energy - first) for time, energy in registers if start_ms <= time <= end_ms]
    inside = [(start_ms, 0), *(one for one in inside if one[0] > start_ms)]
    if inside[-1][0] < end_ms:
        inside.append((end_ms, inside[-1][1]))
    intervals = tuple((a[0], b[0], b[1] - a[1]) for a, b in pairwise(inside))
    return Session(intervals, tuple(_sample_marks(samples, events, start_ms, end_ms, path)))


def _sample(sample: Mapping[str, Any], place: str) -> tuple[int, int]:
    for key, per_unit in (("energy_wh", 1000), ("energy_kwh", MWH_PER_KWH)):
        if sample.get(key) is not None:
            return instant_of(sample, "t", place), units_of(sample[key], f"{place}.{key}", per_unit)
    raise SessionError(f"{place}: expected energy_wh or energy_kwh")


def _sample_marks(
    samples: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]], start_ms: int, end_ms: int, path: str
) -> Iterable[Mark]:
    """ "A power or current sample holds until the next one"; a state until the next event that tells one."""
    changes: list[tuple[int, int | None, int, int]] = []
    for index, event in enumerate(events):
        state = EVENT_STATES.get(str(event.get("event")).upper())
        changes.append((instant_of(event, "t", f"{path}.events[{index}]"), state, ABSENT, ABSENT))
    for index, sample in enumerate(samples):
        place = f"{path}.samples[{index}]"
        power = optional_units(sample, "power_kw", place, 1_000_000)
        current = optional_units(sample, "current_a", place, 1000)
        changes.append((instant_of(sample, "t", place), None, power, current))
    held = Mark(start_ms, CHARGING)
    for time, state, power, current in sorted(changes, key=lambda change: change[0]):
        told = Mark(
            max(time, start_ms),
            held.state if state is None else state,
            held.power_mw if power == ABSENT else power,
            held.current_ma if current == ABSENT else current,
        )
        if told.start_ms > held.start_ms:
            yield held
        held = told
        if time >= end_ms:
            return
    yield held

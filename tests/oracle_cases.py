"""Conformance cases (the schema of the shared conformance README) as sessions for `tests.oracle`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.oracle import Interval, Mark, Reservation, Session, Tariff


@dataclass(frozen=True)
class Case:
    """One line of the vectors."""

    id: str
    tier: str
    raw: Mapping[str, Any]

    @property
    def flags(self) -> Sequence[str]:
        """What the collector of the cases says of it."""
        flags: Sequence[str] = self.raw["flags"]
        return flags

    def tariff(self) -> Tariff:
        """The tariff in the Location's zone."""
        version = self.raw["ocpi_version"]
        return Tariff(self.raw["tariff"], self.raw["timezone"], "2.2.1" if version == "2.2" else version)

    def session(self) -> Session:
        """Phases, published periods or samples as intervals of the curve."""
        session = self.raw["session"]
        if "phases" in session:
            return _from_phases(session["phases"])
        if "cdr_charging_periods" in session:
            return _from_periods(session["cdr_charging_periods"], session["end"])
        return _from_samples(session["samples"])


def cases(path: Path) -> Iterator[Case]:
    """Every case of a vectors file."""
    for line in path.read_text().splitlines():
        raw = json.loads(line)
        yield Case(raw["id"], raw["tier"], raw)


def instant(text: str) -> int:
    """ms since 1970 of an RFC 3339 text."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def scaled(number: object, scale: int) -> int:
    """A decimal number in a unit that makes it whole."""
    value = Fraction(str(number)) * scale
    assert value.denominator == 1, f"{number} is finer than the unit"
    return value.numerator


def _from_phases(phases: Sequence[Mapping[str, Any]]) -> Session:
    intervals, marks, reservation = [], [], None
    for phase in phases:
        start, end, state = instant(phase["start"]), instant(phase["end"]), phase["state"]
        if state.startswith("RESERVATION"):
            reservation = Reservation(start, end, state == "RESERVATION_EXPIRED")
            continue
        # Where the energy is not stated any serves: the tariff then has no ENERGY component.
        stated = phase["energy_kwh"] if phase["energy_kwh"] is not None else "1"
        power, current = phase.get("power_kw"), phase.get("current_a")
        marks.append(
            Mark(
                start,
                state,
                None if power is None else scaled(power, 1_000_000),
                None if current is None else scaled(current, 1000),
            )
        )
        intervals.append(Interval(start, end, scaled(stated, 1_000_000)))
    return Session(intervals, marks, reservation)


def _from_periods(periods: Sequence[Mapping[str, Any]], end: str) -> Session:
    """A published period's time volume counts, not the distance to the next; without one it lasts until the next."""
    intervals = []
    starts = [instant(period["start_date_time"]) for period in periods]
    for period, (start, next_start) in zip(periods, pairwise([*starts, instant(end)]), strict=True):
        volumes = {dimension["type"]: dimension["volume"] for dimension in period["dimensions"]}
        state = "PARKING" if "PARKING_TIME" in volumes else "CHARGING"
        hours = volumes.get("PARKING_TIME", volumes.get("TIME"))
        until = next_start if hours is None else start + scaled(hours, 3_600_000)
        intervals.append(Interval(start, until, scaled(volumes.get("ENERGY", 0), 1_000_000), state))
    return Session(intervals, [Mark(starts[0], intervals[0].state or "CHARGING")])


def _from_samples(samples: Sequence[Mapping[str, Any]]) -> Session:
    readings = [
        (
            instant(sample["t"]),
            scaled(sample["energy_wh"], 1000) if "energy_wh" in sample else scaled(sample["energy_kwh"], 10**6),
        )
        for sample in samples
    ]
    intervals = [Interval(start, end, after - before) for (start, before), (end, after) in pairwise(readings)]
    return Session(intervals, [Mark(readings[0][0], "CHARGING")])

"""Thresholds by model and location: which row of limits a connector is judged by.

    {"policy": "metering", "stuck_mwh": 1000000,
     "tune": [{"model": "AC 22", "stuck_mwh": 5000000},
              {"kind": "silence", "model": "AC 22", "location": "DUN-7", "silence_min_ms": 3600000}]}

The most exact entry that names a threshold wins: model and location, then one of them, then the whole network; of two
as exact, the later. The rules file of `wattrate watch` is read the same way (`pipeline.anomaly.tuning`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.metering.kinds import ALERT_KINDS, HOLDABLE
from pipeline.metering.policy import MeteringPolicy, limits_of

# Kind of alert → the thresholds that decide it. One that two kinds share is one threshold.
THRESHOLDS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "stuck_register": ("stuck_mwh",),
    "unit_error": ("unit_low_permille", "unit_high_permille", "unit_min_mwh"),
    "register_jump": ("hold_power_permille", "default_power_mw", "jump_slack_mwh"),
    "power_above_rating": ("above_rating_permille",),
    "energy_above_rating": ("above_rating_permille", "jump_slack_mwh"),
    "energy_outside_transaction": ("outside_alert_mwh",),
    "idle_overstay": ("idle_overstay_ms",),
    "clock_drift": ("drift_slack_ms", "drift_alarm_ms"),
    "silence": ("silence_factor", "silence_min_ms"),
    "zero_kwh_run": ("zero_run",),
    "zero_baseline": ("zero_baseline_mwh",),
    "lost_stop": ("available_grace_ms", "session_timeout_ms"),
    "meter_drift": ("meter_drift_alarm_permille", "meter_drift_slack_permille", "meter_drift_floor_permille"),
    "soc_drift": ("soc_drift_alarm_permille", "soc_drift_slack_permille", "soc_drift_floor_permille"),
}
# What the pass can count with: products of these with registers, powers and times stay below 2^63.
_RANGES: Final = {"mwh": (0, 10**15), "mw": (0, 10**12), "ms": (0, 10**15), "permille": (1, 10**5)}
_OWN_RANGES: Final = {
    "zero_run": (1, 10_000), "silence_factor": (1, 10_000), "silence_min_ms": (1, 5 * 86_400_000),
    "drift_alarm_ms": (1, 10**12),
}  # fmt: skip
NETWORK: Final = 0  # the row of limits that holds where no entry fits
TUNE: Final = "tune"
HOLDS: Final = "holds"
NAMES: Final = (*(field.name for field in fields(MeteringPolicy) if field.name != "hold_kinds"), HOLDS)


class Tune(NamedTuple):
    """One entry; an empty model or location means any."""

    model: str
    location: str
    values: Mapping[str, int]


class LimitTable:
    """Rows of limits: the network's, and one for each model and location that entries tell apart."""

    def __init__(self, metering: MeteringPolicy, tune: Sequence[Tune] = ()) -> None:
        """With the network's row alone."""
        self.rows: npt.NDArray[np.void] = limits_of([metering])
        self._metering = metering
        self._numbers = {("", ""): NETWORK}
        self._models = frozenset(entry.model for entry in tune)
        self._locations = frozenset(entry.location for entry in tune)
        self._said: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}  # threshold → (place of its entry, value)
        for place, entry in enumerate(tune):
            said = self._said.setdefault((entry.model, entry.location), {})
            said.update({name: (place, value) for name, value in entry.values.items()})

    @property
    def tuned(self) -> bool:
        """Whether there is any entry."""
        return bool(self._said)

    def numbers(self, chargers: Iterable[tuple[str, str]]) -> list[int]:
        """The row of each charger, by its model and location."""
        found, made = [], []
        for model, location in chargers:
            named = (model if model in self._models else "", location if location in self._locations else "")
            if named not in self._numbers:
                self._numbers[named] = len(self._numbers)
                made.append(self._policy(*named))
            found.append(self._numbers[named])
        if made:
            self.rows = np.concatenate([self.rows, limits_of(made)])
        return found

    def _policy(self, model: str, location: str) -> MeteringPolicy:
        by_one = [self._said.get(key, {}) for key in ((model, ""), ("", location)) if key != ("", "")]
        values = dict(sorted(((name, said) for one in by_one for name, said in one.items()), key=lambda pair: pair[1]))
        if model and location:
            values |= self._said.get((model, location), {})
        return replace(self._metering, **{name: value for name, (_, value) in values.items()})


def thresholds_in(stated: Mapping[str, Any], where: str, known: Sequence[str] = NAMES) -> dict[str, int]:
    """Checked values of thresholds, and of `holds`. Raises ValueError that says what is wrong and where."""
    values = {}
    for name, value in stated.items():
        if name not in known:
            raise ValueError(f"{where}.{name}: no threshold here; there are {', '.join(sorted(known))}")
        if name == HOLDS:
            values["hold_kinds"] = _kinds(value, f"{where}.{HOLDS}")
            continue
        least, most = _OWN_RANGES.get(name) or _RANGES[name.rpartition("_")[2]]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{where}.{name}: expected a whole number from {least} to {most}, found {value!r}")
        values[name] = value
    return values


def _kinds(stated: object, where: str) -> int:
    """A bit for each kind. Raises ValueError for one whose sessions can't be held."""
    holdable = {ALERT_KINDS[kind]: kind for kind in HOLDABLE}
    names = stated if isinstance(stated, list) else [stated]
    for name in names:
        if name not in holdable:
            raise ValueError(f"{where}: {name!r} holds no session; there are {', '.join(sorted(holdable))}")
    return sum(1 << holdable[name] for name in set(names))


class _Entries(msgspec.Struct):
    tune: list[dict[str, Any]]


def entries_in(stated: object) -> list[Tune]:
    """The entries of `tune`. Raises ValueError that says what is wrong and where."""
    found = msgspec.convert({TUNE: stated}, _Entries).tune
    return [_entry(entry, f"$.{TUNE}[{at}]") for at, entry in enumerate(found)]


def _entry(entry: dict[str, Any], where: str) -> Tune:
    model, location = (_text(entry.pop(name, ""), f"{where}.{name}") for name in ("model", "location"))
    if not model and not location:
        raise ValueError(f"{where}: names neither model nor location; for the whole network write it beside {TUNE}")
    values = thresholds_in(entry, where, _of_kind(entry.pop("kind", None), where))
    if not values:
        raise ValueError(f"{where}: names no threshold")
    return Tune(model, location, values)


def _text(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{where}: expected a text, found {value!r}")


def _of_kind(kind: object, where: str) -> tuple[str, ...]:
    if kind is None:
        return (HOLDS, *sorted({name for names in THRESHOLDS_OF.values() for name in names}))
    if not isinstance(kind, str) or kind not in THRESHOLDS_OF:
        raise ValueError(
            f"{where}.kind: {kind!r} has no threshold in metering; there are {', '.join(THRESHOLDS_OF)} "
            "(kinds of `wattrate watch` are tuned in its rules file)"
        )
    return THRESHOLDS_OF[kind]

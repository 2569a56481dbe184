"""Thresholds: a default for every parameter of every kind, and changes by kind, model and location from a TOML table.

The most exact entry wins: model and location, then one of them, then the kind, then the default. No code is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.errors import SettingsError
from pipeline.metering.kinds import ALERT_KINDS
from pipeline.metering.tuned import THRESHOLDS_OF

# kind → parameter → default. docs/watch.md tells the meaning, unit and source of each.
DEFAULTS: Final[Mapping[str, Mapping[str, float]]] = {
    "token_two_sites": {"speed_kmh": 150.0, "near_km": 0.5, "remember_h": 48.0, "open_h": 24.0},
    "token_two_chargers": {},
    "large_session": {"z": 6.0, "warm_up": 20.0, "least_kwh": 1.0, "floor": 0.25},
    "under_registration": {"threshold": 10.0, "warm_up": 20.0, "clip": 2.0, "kappa": 15.0, "least_kwh": 0.5},
    "energy_above_rating": {"share": 1.15, "slack_kwh": 0.5},
    "wrong_rating": {"share": 1.10, "sessions": 5.0, "slack_kwh": 0.5},
    "zero_kwh_run": {"sessions": 3.0},
    "site_usage_shift": {"alpha": 0.15, "drift": 0.5, "threshold": 12.0, "warm_up_weeks": 3.0, "clip": 4.0},
    "site_silence": {"expected": 12.0, "warm_up_weeks": 2.0},
    "peer_gap": {"share": 0.6, "peers": 3.0, "sessions": 30.0},
}
KINDS: Final = tuple(sorted({*DEFAULTS, *ALERT_KINDS}))
_OF_TOKENS: Final = frozenset({"token_two_sites", "token_two_chargers"})
# What an entry of a kind may not name.
_WITHOUT: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(_OF_TOKENS, frozenset({"model", "location"})),
    **dict.fromkeys(("site_usage_shift", "site_silence"), frozenset({"model"})),
}
_COMMON: Final = {"suppress_s": 0.0, "resolve_after_h": 0.0}
_WEEK_H: Final = 168.0
# Facts of one moment, that nothing ends and nobody has to act on: they resolve by themselves after a week of log time.
MOMENTS: Final = (
    "register_reset", "zero_baseline", "lost_start", "lost_stop", "unusable_time", "large_session",
    "token_two_chargers",
)  # fmt: skip
_OF_KIND: Final[Mapping[str, Mapping[str, float]]] = {
    kind: {**_COMMON, **({"resolve_after_h": _WEEK_H} if kind in MOMENTS else {}), **DEFAULTS.get(kind, {})}
    for kind in {*DEFAULTS, *MOMENTS}
}


@dataclass(frozen=True)
class Override:
    """One entry of the table; empty model or location = any."""

    kind: str
    model: str
    location: str
    values: Mapping[str, float]

    def fits(self, kind: str, model: str, location: str) -> bool:
        """Whether it speaks of this charger."""
        return self.kind == kind and self.model in ("", model) and self.location in ("", location)

    @property
    def weight(self) -> int:
        """How exact it is."""
        return bool(self.model) + bool(self.location)


@dataclass(frozen=True)
class Tuning:
    """All thresholds. `of` answers for one charger."""

    overrides: Sequence[Override] = ()

    def of(self, kind: str, parameter: str, model: str = "", location: str = "") -> float:
        """The value of a parameter for a charger of this model at this location."""
        value = _OF_KIND.get(kind, _COMMON)[parameter]
        for entry in sorted(self.overrides, key=lambda o: o.weight):
            if parameter in entry.values and entry.fits(kind, model, location):
                value = entry.values[parameter]
        return value

    def resolving(self) -> list[str]:
        """The kinds of which some alerts resolve by themselves."""
        chosen = {entry.kind for entry in self.overrides if entry.values.get("resolve_after_h")}
        return sorted({*chosen, *MOMENTS})


def parse(table: Sequence[Mapping[str, Any]], where: str) -> Tuning:
    """The `[[tune]]` entries of a rules file. Raises SettingsError naming the entry."""
    return Tuning(tuple(_override(entry, f"{where}: tune entry {number}") for number, entry in enumerate(table, 1)))


def checked_kind(kind: object, where: str) -> str:
    """The name of a kind of alert. Raises SettingsError for one that is none."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise SettingsError(f"{where}: kind {kind!r} is none; there are {', '.join(KINDS)}")
    return kind


def _override(entry: Mapping[str, Any], where: str) -> Override:
    kind = checked_kind(entry.get("kind", ""), where)
    known = _OF_KIND.get(kind, _COMMON)
    one_sided = set(entry) & _WITHOUT.get(kind, frozenset())
    if one_sided and (kind not in _OF_TOKENS or set(entry) & set(DEFAULTS["token_two_sites"])):
        raise SettingsError(f"{where}: {kind} is not about one charger: it has no {sorted(one_sided)[0]} of its own")
    values: dict[str, float] = {}
    for name, value in entry.items():
        if name in ("kind", "model", "location"):
            continue
        if name in THRESHOLDS_OF.get(kind, ()):
            raise SettingsError(
                f"{where}: {name} is a threshold of the policy `metering`: publish it (docs/anomalies.md)"
            )
        if name not in known:
            raise SettingsError(f"{where}: {kind} has no parameter {name!r}; it has {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise SettingsError(f"{where}: {name} = {value!r} is not a number of 0 or more")
        values[name] = float(value)
    return Override(kind, str(entry.get("model", "")), str(entry.get("location", "")), values)

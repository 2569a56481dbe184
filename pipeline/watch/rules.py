"""The rules file of `wattrate watch`: thresholds, suppression, mutes, how alerts are delivered. TOML, no code."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.anomaly.events import AlertEvent
from pipeline.anomaly.tuning import Tuning, checked_kind, parse
from pipeline.errors import SettingsError


@dataclass(frozen=True)
class Delivery:
    """How alerts go out. Every number may be set in the `[delivery]` table."""

    timeout_s: float = 10.0  # of one request
    first_wait_s: float = 1.0  # before the first retry; doubles from then on
    longest_wait_s: float = 60.0
    give_up_s: float = 3600.0  # after this long without success an alert is a dead letter
    posts_per_minute: float = 60.0  # the rate limit of each sink; what is over it waits
    alerts_per_post: int = 100
    oldest_h: float = 168.0  # alerts older than this (log time) when first seen are noted, not sent
    repeat_s: float = 60.0  # Alertmanager forgets what is not repeated
    minimum_severity: str = "info"


@dataclass(frozen=True)
class Mute:
    """Maintenance: alerts of a location (empty: of all) that fall into the window are kept but not sent."""

    location: str
    from_ms: int
    until_ms: int
    kinds: tuple[str, ...] = ()

    def covers(self, alert: AlertEvent, location: str) -> bool:
        """Whether the alert falls into the window."""
        place = self.location in ("", location)
        return place and self.from_ms <= alert.time_ms < self.until_ms and (not self.kinds or alert.kind in self.kinds)


def mute_of(alert: AlertEvent) -> Mute:
    """The mute that an alert of kind `maintenance` stands for."""
    said = alert.evidence
    kinds = tuple(kind for kind in str(said.get("kinds", "")).split(",") if kind)
    return Mute(str(said.get("location", "")), int(said["from_ms"]), int(said["until_ms"]), kinds)


@dataclass(frozen=True)
class Rules:
    """All of the file."""

    delivery: Delivery = field(default_factory=Delivery)
    mutes: Sequence[Mute] = ()
    tuning: Tuning = field(default_factory=Tuning)


def load_rules(path: Path | None) -> Rules:
    """Read the file; None = the defaults. Raises SettingsError naming the entry."""
    if path is None:
        return Rules()
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: can't read the rules file: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    unknown = set(table) - {"delivery", "mute", "tune"}
    if unknown:
        raise SettingsError(f"{path}: no table {sorted(unknown)[0]!r}; there are [delivery], [[mute]] and [[tune]]")
    mutes = tuple(_mute(entry, f"{path}: mute entry {n}") for n, entry in enumerate(table.get("mute", []), 1))
    return Rules(_delivery(table.get("delivery", {}), str(path)), mutes, parse(table.get("tune", []), str(path)))


def _delivery(table: Mapping[str, Any], where: str) -> Delivery:
    known = {f.name: f.type for f in fields(Delivery)}
    for name, value in table.items():
        if name not in known:
            raise SettingsError(f"{where}: [delivery] has no {name!r}; it has {', '.join(known)}")
        if name == "minimum_severity":
            if value not in ("info", "warning", "critical"):
                raise SettingsError(f"{where}: minimum_severity = {value!r} must be info, warning or critical")
        elif isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise SettingsError(f"{where}: [delivery] {name} = {value!r} is not a number above 0")
    return Delivery(**table)


def _mute(entry: Mapping[str, Any], where: str) -> Mute:
    unknown = set(entry) - {"location", "from", "until", "kinds"}
    if unknown:
        raise SettingsError(f"{where}: no {sorted(unknown)[0]!r}; write location, from, until and kinds")
    kinds = entry.get("kinds", [])
    if not isinstance(kinds, list):
        raise SettingsError(f"{where}: kinds must be a list of alert kinds")
    kinds = tuple(checked_kind(kind, where) for kind in kinds)
    return Mute(str(entry.get("location", "")), _ms(entry, "from", where), _ms(entry, "until", where), kinds)


def _ms(entry: Mapping[str, Any], name: str, where: str) -> int:
    value = entry.get(name)
    if not isinstance(value, datetime):
        raise SettingsError(f"{where}: needs {name} = an instant such as 2026-03-01T06:00:00Z")
    if value.tzinfo is None:
        raise SettingsError(f"{where}: {name} needs an offset, such as Z for UTC")
    return int(value.astimezone(UTC).timestamp() * 1000)

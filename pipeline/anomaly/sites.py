"""What a site shows hour by hour: use that shifts, silence, and a connector that lags behind its peers. Pure.

A fold over settled sessions and closed hours of log time, so that the same log gives the same findings. Rows of the
state are sites; the hour of the week is counted in UTC from the epoch.
"""

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np

from pipeline.anomaly.detectors import cusum, seasonal_z
from pipeline.anomaly.tuning import Tuning

HOUR_MS: Final = 3_600_000
WEEK: Final = 168  # hours
_MWH: Final = 1_000_000
_KW_KEPT: Final = 64


class SiteFinding(NamedTuple):
    """`opened` False: what was said of this site or connector is over. `since_ms` names the first hour of it."""

    kind: str
    site: str
    charge_point: str
    connector: int
    opened: bool
    time_ms: int
    since_ms: int
    evidence: dict[str, int | float | str]


class Site(msgspec.Struct):
    """One site's memory. Lists, not arrays: it is saved as it is."""

    levels: list[float]  # √kWh by hour of the week
    seen: list[int]  # by hour of the week, and in all
    spread: float = 0.0
    up: float = 0.0
    down: float = 0.0
    rates: list[float] = []  # sessions by hour of the week
    hours: int = 0
    kwh: float = 0.0  # of the hour that is not yet closed
    sessions: int = 0
    quiet: float = 0.0  # sessions that were to be expected since the last
    quiet_since_ms: int = 0
    shifted_ms: int = 0  # since when a shift is said; 0: none is
    silent_ms: int = 0


class Power(msgspec.Struct):
    """One connector's last active powers, kW, and since when it is said to lag."""

    site: str
    model: str
    kw: list[float] = []
    lags_ms: int = 0


class SiteMemory(msgspec.Struct):
    """All that the fold remembers. `hour` is the next hour to close (hours since the epoch); 0: nothing seen."""

    hour: int = 0
    sites: dict[str, Site] = {}
    powers: dict[str, Power] = {}  # by "charge point/connector"


def new_site() -> Site:
    """A site of which nothing is known."""
    return Site([0.0] * WEEK, [0] * (WEEK + 1), rates=[0.0] * WEEK)


def add_session(
    memory: SiteMemory, site: str, charge_point: str, connector: int, model: str, energy_mwh: int, charging_ms: int
) -> None:
    """A session that settled in the hour which is open."""
    one = memory.sites.setdefault(site, new_site())
    one.kwh += max(energy_mwh, 0) / _MWH
    one.sessions += 1
    if charging_ms >= HOUR_MS // 12 and energy_mwh > 0:
        power = memory.powers.setdefault(f"{charge_point}/{connector}", Power(site, model))
        power.kw.append(round(energy_mwh / _MWH / (charging_ms / HOUR_MS), 4))
        del power.kw[:-_KW_KEPT]


def close_hour(memory: SiteMemory, tuning: Tuning) -> Iterator[SiteFinding]:
    """End the open hour: what it shows of each site, and once a day of each connector beside its peers."""
    end_ms = (memory.hour + 1) * HOUR_MS
    for name, site in sorted(memory.sites.items()):
        slot = memory.hour % WEEK
        yield from _usage(name, site, slot, end_ms, tuning)
        yield from _silence(name, site, slot, end_ms, tuning)
        site.kwh, site.sessions = 0.0, 0
        site.hours += 1
    memory.hour += 1
    if memory.hour % 24 == 0:
        yield from _peers(memory, end_ms, tuning)


def _usage(name: str, site: Site, slot: int, end_ms: int, tuning: Tuning) -> Iterator[SiteFinding]:
    """Seasonal EWMA of √kWh (its variance does not grow with the mean), then a two-sided CUSUM of the residual."""

    def of(parameter: str) -> float:
        return tuning.of("site_usage_shift", parameter, location=name)

    levels, spreads = np.array([site.levels]), np.array([site.spread])
    seen = np.array([site.seen])
    z = seasonal_z(levels, spreads, seen, 0, slot, math.sqrt(site.kwh), of("alpha"), 0.25)
    site.levels[slot] = float(levels[0, slot])
    site.seen[slot], site.seen[WEEK] = int(seen[0, slot]), int(seen[0, WEEK])
    site.spread = float(spreads[0])
    if site.hours < of("warm_up_weeks") * WEEK:
        return
    sums = np.array([site.up, site.down])
    site.up, site.down = cusum(sums, 0, z, of("drift"), of("clip")), cusum(sums, 1, -z, of("drift"), of("clip"))
    most = max(site.up, site.down)
    if not site.shifted_ms and most > of("threshold"):
        site.shifted_ms = end_ms
        evidence: dict[str, int | float | str] = {
            "direction": "up" if site.up >= site.down else "down",
            "statistic": round(most, 2),
            "threshold": of("threshold"),
            "usual_kwh": round(site.levels[slot] ** 2, 3),
        }
        yield SiteFinding("site_usage_shift", name, "", 0, True, end_ms, end_ms, evidence)
    elif site.shifted_ms and most == 0.0:
        yield SiteFinding("site_usage_shift", name, "", 0, False, end_ms, site.shifted_ms, {})
        site.shifted_ms = 0


def _silence(name: str, site: Site, slot: int, end_ms: int, tuning: Tuning) -> Iterator[SiteFinding]:
    """Expected sessions since the last: a Poisson process stays silent over n expected ones with e⁻ⁿ."""
    limit = tuning.of("site_silence", "expected", location=name)
    weeks = tuning.of("site_silence", "warm_up_weeks", location=name)
    if site.sessions:
        if site.silent_ms:
            yield SiteFinding("site_silence", name, "", 0, False, end_ms, site.silent_ms, {})
        site.quiet, site.silent_ms, site.quiet_since_ms = 0.0, 0, end_ms
    else:
        site.quiet += site.rates[slot]
        if not site.silent_ms and site.quiet > limit and site.hours >= weeks * WEEK:
            site.silent_ms = end_ms
            evidence: dict[str, int | float | str] = {
                "expected_sessions": round(site.quiet, 2),
                "threshold": limit,
                "quiet_since_ms": site.quiet_since_ms,
            }
            yield SiteFinding("site_silence", name, "", 0, True, end_ms, end_ms, evidence)
    if not site.silent_ms:  # an outage is not what is usual
        rate = max(0.2, 1.0 / (site.hours // WEEK + 1))
        site.rates[slot] += rate * (site.sessions - site.rates[slot])


def _peers(memory: SiteMemory, end_ms: int, tuning: Tuning) -> Iterator[SiteFinding]:
    """A connector whose median power is far below the median of its model: it under-registers, or can't deliver."""
    medians: dict[str, list[tuple[str, float]]] = {}
    for key, power in sorted(memory.powers.items()):
        if len(power.kw) >= tuning.of("peer_gap", "sessions", power.model, power.site):
            medians.setdefault(power.model, []).append((key, float(np.median(power.kw))))
    for model, connectors in sorted(medians.items()):
        for key, median in connectors:
            others = [kw for other, kw in connectors if other != key]
            if model and len(others) >= tuning.of("peer_gap", "peers", model, memory.powers[key].site):
                yield from _beside(key, memory.powers[key], median, float(np.median(others)), end_ms, tuning)


def _beside(key: str, power: Power, median: float, usual: float, end_ms: int, tuning: Tuning) -> Iterator[SiteFinding]:
    charge_point, _, number = key.rpartition("/")
    share = tuning.of("peer_gap", "share", power.model, power.site)
    lags = median < share * usual
    if lags == bool(power.lags_ms):
        return
    since_ms = power.lags_ms or end_ms
    power.lags_ms = end_ms if lags else 0
    evidence: dict[str, int | float | str] = {"kw": round(median, 3), "peers_kw": round(usual, 3), "threshold": share}
    yield SiteFinding("peer_gap", power.site, charge_point, int(number), lags, end_ms, since_ms, evidence)

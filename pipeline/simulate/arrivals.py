"""When cars come, what they want and how long they stay: sessions drawn for one window of time.

Arrival rates follow the hour of the local week by kind of site; the mean over a week is the plan's sessions
a day. The distributions are plausible, not fitted to anyone's data.
"""

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from pipeline.simulate.columns import SESSION_DTYPE
from pipeline.simulate.curve import TAPER_END
from pipeline.simulate.network import CITIES, KINDS, MODELS, TOKENS_PER_CONNECTOR, Network
from pipeline.simulate.texts import Rows
from rating.columns import I64

HOUR_MS: Final = 3_600_000
IDLE_MS_MAX: Final = 3 * HOUR_MS
_AC_CAR_W: Final = np.array([3_700, 7_400, 11_000, 22_000])  # what the car's own charger takes
_AC_CAR_SHARE: Final = np.array([0.15, 0.3, 0.45, 0.1])


def _day(peaks: dict[int, float]) -> npt.NDArray[np.float64]:
    """24 hourly weights: each peak spreads over the hours around it."""
    hours = np.arange(24)
    away = {at: np.minimum(np.abs(hours - at), 24 - np.abs(hours - at)) for at in peaks}
    weights = sum(height / (1.0 + (away[at] / 1.5) ** 2) for at, height in peaks.items())
    return np.asarray(0.03 + weights, np.float64)


def _week(workday: dict[int, float], weekend: dict[int, float]) -> npt.NDArray[np.float64]:
    week = np.concatenate([_day(workday)] * 5 + [_day(weekend)] * 2)
    weights: npt.NDArray[np.float64] = week / week.mean()
    return weights


_PROFILES: Final = np.stack(
    [
        {
            "street": _week({9: 0.7, 13: 0.6, 18: 0.9}, {11: 0.9, 16: 0.8}),
            "work": _week({8: 2.5, 13: 0.6}, {10: 0.1}),
            "home": _week({18: 1.8, 22: 0.5}, {12: 0.5, 18: 1.0}),
            "fast": _week({8: 0.6, 12: 0.8, 17: 1.1}, {11: 1.0, 16: 1.3}),
        }[kind]
        for kind in KINDS
    ]
)


class Arrivals:
    """Draws the sessions that begin in a window; keeps nothing between windows."""

    def __init__(self, network: Network, sessions_per_day: float, sample_ms: int) -> None:
        self._network = network
        self._per_ms = sessions_per_day / (24 * HOUR_MS)
        self._sample_ms = sample_ms
        site = network.cp_site[network.connector_cp]
        self._kind = network.site_kind[site]
        self._city = network.site_city[site]
        model = network.cp_model[network.connector_cp]
        self.rating_mw: I64 = np.array([entry.power_w * 1_000 for entry in MODELS], np.int64)[model]
        self._resolution = network.cp_resolution_mwh[network.connector_cp]

    def draw(self, rng: np.random.Generator, begin_ms: int, end_ms: int, idle: npt.NDArray[np.bool_]) -> Rows:
        """New sessions of idle connectors, with the fields that need no fault and no register; unshaped."""
        rate = _PROFILES[self._kind, self._hour_of_week(begin_ms)] * self._per_ms * (end_ms - begin_ms)
        connectors = np.flatnonzero((rng.random(len(rate)) < rate) & idle).astype(np.int32)
        count = len(connectors)
        sessions = np.zeros(count, SESSION_DTYPE)
        sessions["connector"] = connectors
        sessions["token"] = connectors * TOKENS_PER_CONNECTOR + rng.integers(0, TOKENS_PER_CONNECTOR, count)
        sessions["start_ms"] = begin_ms + rng.integers(0, (end_ms - begin_ms) // 1_000, count) * 1_000
        sessions["period_ms"] = self._sample_ms
        sessions["resolution_mwh"] = self._resolution[connectors]
        sessions["latency_ms"] = 40 + rng.integers(0, 460, count)
        rating = self.rating_mw[connectors]
        fast = rating >= 50_000_000
        car = rng.choice(_AC_CAR_W, count, p=_AC_CAR_SHARE) * 1_000
        power = np.where(fast, rating, np.minimum(rating, car)) * rng.uniform(0.9, 1.0, count)
        sessions["power_mw"] = power.astype(np.int64) // 10_000 * 10_000
        median_kwh = np.where(fast, 24.0, 11.0)
        kwh = np.clip(median_kwh * np.exp(rng.normal(0.0, 0.55, count)), 0.4, 80.0)
        sessions["target_mwh"] = (kwh * 1e6).astype(np.int64)
        return sessions

    def _hour_of_week(self, at_ms: int) -> npt.NDArray[np.int64]:
        """The hour of the local week at each connector."""
        instant = datetime.fromtimestamp(at_ms / 1_000, UTC)
        local = [instant.astimezone(ZoneInfo(city.time_zone)) for city in CITIES]
        hours = np.array([at.weekday() * 24 + at.hour for at in local])
        return hours[self._city]


def shape(sessions: Rows) -> None:
    """Set the curve: how long power is constant, how long it falls. Targets are floored to the meter's resolution."""
    sessions["target_mwh"] -= sessions["target_mwh"] % sessions["resolution_mwh"]
    share = np.where(sessions["power_mw"] >= 40_000_000, 0.35, 0.06)
    full_power_ms = sessions["target_mwh"] * (HOUR_MS / sessions["power_mw"])
    sessions["constant_ms"] = (full_power_ms * (1 - share)).astype(np.int64)
    sessions["taper_ms"] = (full_power_ms * share / ((1 + TAPER_END) / 2)).astype(np.int64)
    sessions["lead_ms"] = 20_000


def stay(sessions: Rows, rng: np.random.Generator, count: I64) -> None:
    """Set when each car leaves: some before they are full, most idle a while, a few never charge."""
    size = len(sessions)
    charging = sessions["constant_ms"] + sessions["taper_ms"]
    mean_idle = np.where(sessions["power_mw"] >= 40_000_000, 240_000.0, 2_400_000.0)
    idle = np.minimum(rng.exponential(mean_idle), IDLE_MS_MAX).astype(np.int64)
    early = rng.random(size) < 0.35
    part = (charging * rng.uniform(0.2, 1.0, size)).astype(np.int64)
    length = sessions["lead_ms"] + np.where(early, part, charging + idle)
    sessions["stop_ms"] = sessions["start_ms"] + np.maximum(length // 1_000 * 1_000, 61_000)
    # A plug-and-leave now and then, never twice in a row: a run of them is a fault of its own.
    # A session that a fault struck keeps the energy in which the fault shows.
    nothing = (rng.random(size) < 0.04) & (count % 3 == 1) & (sessions["fault"] == 0)
    nothing |= sessions["target_mwh"] == 0
    sessions["target_mwh"][nothing] = 0
    sessions["stop_ms"][nothing] = sessions["start_ms"][nothing] + 60_000 * (1 + sessions["token"][nothing] % 6)
    sessions["lead_ms"][nothing] = sessions["stop_ms"][nothing] - sessions["start_ms"][nothing] + 1_000

"""Which sessions a fault strikes, and what it does to them before they begin."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.simulate.fault import Draft, Fault
from pipeline.simulate.faults import FAULTS, NAMES, check_rates
from pipeline.simulate.network import MODELS, SHAPES, Network
from pipeline.simulate.struck import Edits
from pipeline.simulate.texts import Rows
from pipeline.simulate.timeline import by_fault

_CHARGING_SAMPLES_MIN: Final = 8
_TWO_SITES: Final = NAMES.index("token_two_sites")


class Strikes:
    """The faults of one run: rates by name, drawn from the run's own random numbers."""

    def __init__(self, network: Network, rates: Mapping[str, float], rng: np.random.Generator) -> None:
        check_rates(rates)
        self._network = network
        self._numbers = [NAMES.index(name) for name in sorted(rates) if FAULTS[name].scope == "session"]
        self._edges = np.cumsum([rates[NAMES[number]] for number in self._numbers])
        self.any = any(rates.values())
        self.cp_fault = self._of_charge_points(rates, rng)
        self.own = rng.integers(0, 2**31, len(network.cp_names))

    def _of_charge_points(self, rates: Mapping[str, float], rng: np.random.Generator) -> npt.NDArray[np.int16]:
        faults = [NAMES.index(name) for name in sorted(rates) if FAULTS[name].scope == "charge_point"]
        edges = np.cumsum([rates[NAMES[number]] for number in faults])
        at = np.searchsorted(edges, rng.random(len(self._network.cp_names)), side="right")
        chosen = np.array([*faults, 0], np.int16)[at]
        return np.where(self._possible(chosen, self._network.cp_shape), chosen, 0).astype(np.int16)

    def _possible(self, faults: npt.NDArray[np.int16], shapes: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
        possible = np.array([[not name or shape in FAULTS[name].shapes for shape in SHAPES] for name in NAMES])
        answer: npt.NDArray[np.bool_] = possible[faults, shapes]
        return answer

    def choose(self, draft: Draft, rng: np.random.Generator) -> None:
        """Give each session its fault, or none; only those that the fault can strike and show."""
        sessions = draft.sessions
        cp = self._network.connector_cp[sessions["connector"]]
        at = np.searchsorted(self._edges, rng.random(len(sessions)), side="right")
        chosen = np.array([*self._numbers, 0], np.int16)[at]
        chosen[~self._possible(chosen, self._network.cp_shape[cp])] = 0
        for number in np.unique(chosen[chosen > 0]).tolist():
            fault = FAULTS[NAMES[number]]
            chosen[(chosen == number) & ~self._fits(fault, draft, cp)] = 0
        sessions["fault"] = np.where(self.cp_fault[cp] > 0, self.cp_fault[cp], chosen)

    def _fits(self, fault: Fault, draft: Draft, cp: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        sessions = draft.sessions
        fits = (sessions["base_mwh"] >= fault.base_mwh_min) & (sessions["target_mwh"] >= fault.energy_mwh_min)
        charging = sessions["constant_ms"] + sessions["taper_ms"]
        fits &= charging // sessions["period_ms"] >= _CHARGING_SAMPLES_MIN
        if fault.wh_unit:
            fits &= self._network.cp_kwh_unit[cp] == 0
        if fault.currents:
            fits &= np.array([model.says_currents for model in MODELS])[self._network.cp_model[cp]]
        if fault.followed:
            fits &= draft.count > 0
        return fits

    def place(self, draft: Draft, rng: np.random.Generator) -> None:
        """Shape the struck sessions so that the truth is knowable, and pick the sample where the fault strikes."""
        sessions = draft.sessions
        lot = rng.random(len(sessions))
        for number, which in by_fault(sessions["fault"]):
            fault = FAULTS[NAMES[number]]
            if fault.scope != "session":
                continue
            period = sessions["period_ms"][which].astype(np.int64)
            charging = sessions["constant_ms"][which] + sessions["taper_ms"][which]
            lead = period + 20_000
            last = (lead + charging) // period
            low, high = fault.strikes
            at = 2 + (last - 2) * (low + (high - low) * lot[which])
            sessions["at"][which] = np.clip(at.astype(np.int64), 3, last - 2)
            sessions["lead_ms"][which] = lead
            stop = sessions["start_ms"][which] + lead + charging + 3 * period + 10_000
            sessions["stop_ms"][which] = stop // 1_000 * 1_000

    def redraw(self, draft: Draft) -> None:
        """Let faults change what the car wants or gets, before the curve is shaped."""
        _each(draft, "draw")

    def reshape(self, draft: Draft) -> None:
        """Let faults change the session's length, when the curve is known."""
        _each(draft, "before")

    def conclude(self, draft: Draft) -> None:
        """Let faults change registers and expectations, when the energy is known."""
        _each(draft, "after")


def _each(draft: Draft, hook: str) -> None:
    for number, which in by_fault(draft.sessions["fault"]):
        change = getattr(FAULTS[NAMES[number]], hook)
        if change is not None:
            change(draft, which)


EDITS: Final[Edits] = {NAMES.index(fault.name): fault.edit for fault in FAULTS.values() if fault.edit is not None}


def share_tokens(sessions: Rows, open_sessions: Rows, city: npt.NDArray[np.int8]) -> None:
    """Give sessions struck by `token_two_sites` a token that is charging in another city; else no fault."""
    for at in np.flatnonzero(sessions["fault"] == _TWO_SITES).tolist():
        start = sessions["start_ms"][at]
        elsewhere = city[open_sessions["connector"]] != city[sessions["connector"][at]]
        there = np.flatnonzero(elsewhere & (open_sessions["stop_ms"] > start + 120_000) & (open_sessions["fault"] == 0))
        if len(there):
            partner = there[int(sessions["number"][at]) * 7919 % len(there)]
            sessions["token"][at] = open_sessions["token"][partner]
        else:
            sessions["fault"][at] = 0

"""Clocks that are known to be wrong: what a policy says of a device's time stamps, before metering looks at them.

own       the charger's clock counts (the default for all)
offset    it is wrong by a constant: `offset_ms` is added to every instant that the charger tells
arrival   it is not believed: the arrival at the gateway counts, where it is off by more than `beyond_ms`
reject    nobody knows: what is off by more than `beyond_ms`, or has no usable time, is set apart with its bytes

Messages that were replayed after an outage arrive late and are not off for that; what they say of a future is.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.metering.columns import FLAG_OFFLINE, FLAG_TIME_CORRECTED, FLAG_TIME_UNUSABLE, KIND_TICK
from pipeline.metering.output import Rows

_DAY_MS = 86_400_000
_FARTHEST_MS = 366 * _DAY_MS


class ClockRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done with the time stamps of some charge points; the first rule that names one counts."""

    charge_points: tuple[str, ...]  # ids; * and ? stand for any letters and any letter
    use: Literal["own", "offset", "arrival", "reject"]
    offset_ms: int = 0
    beyond_ms: int = 0

    def check(self, where: str) -> None:
        """Raise ValueError where the rule can't be meant."""
        if not self.charge_points:
            raise ValueError(f"{where}.charge_points: names no charge point")
        if (self.use == "offset") != (self.offset_ms != 0):
            raise ValueError(f"{where}.offset_ms: goes with use = offset, and only with it")
        if abs(self.offset_ms) > _FARTHEST_MS:
            raise ValueError(f"{where}.offset_ms: more than a year: {self.offset_ms}")
        if self.beyond_ms < 0:
            raise ValueError(f"{where}.beyond_ms: below 0: {self.beyond_ms}")

    def names(self, charge_point: str) -> bool:
        """Whether the rule is about this charge point."""
        return any(fnmatchcase(charge_point, pattern) for pattern in self.charge_points)


def set_clocks(samples: Rows, names: Sequence[str], rules: Sequence[ClockRule]) -> npt.NDArray[np.bool_]:
    """Apply the rules to samples in place; returns which are rejected. samples["charge_point"] points into `names`."""
    rejected = np.zeros(len(samples), np.bool_)
    first = np.array([next((at for at, rule in enumerate(rules) if rule.names(name)), -1) for name in names] + [-1])
    which = np.where(samples["kind"] == KIND_TICK, -1, first[samples["charge_point"]])
    for at, rule in enumerate(rules):
        mine = np.flatnonzero(which == at)
        if not len(mine) or rule.use == "own":
            continue
        part = samples[mine]
        if rule.use == "offset":
            usable = (part["flags"] & FLAG_TIME_UNUSABLE) == 0
            moved = mine[usable]
            samples["time_ms"][moved] += rule.offset_ms
        else:
            off = _off(part, rule.beyond_ms)
            moved = mine[off]
            if rule.use == "reject":
                rejected[moved] = True
                continue
            samples["time_ms"][moved] = samples["received_ms"][moved]
        samples["flags"][moved] |= FLAG_TIME_CORRECTED
    return rejected


def _off(samples: Rows, beyond_ms: int) -> npt.NDArray[np.bool_]:
    """Which samples have a clock that is off, or none."""
    behind_ms = samples["received_ms"] - samples["time_ms"]
    offline = (samples["flags"] & FLAG_OFFLINE) != 0
    off: npt.NDArray[np.bool_] = np.where(offline, -behind_ms, np.abs(behind_ms)) > beyond_ms
    return off | ((samples["flags"] & FLAG_TIME_UNUSABLE) != 0)

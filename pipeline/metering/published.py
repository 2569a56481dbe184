"""Metering policies as people publish them: a JSON object in the reference history, active from its place in the log.

    {"policy": "metering", "hold_limit_ms": 604800000,
     "clocks": [{"charge_points": ["OSL*"], "use": "offset", "offset_ms": -3600000}]}

Every threshold of `MeteringPolicy` may be named; what is not named keeps its default. Clocks are in `clocks`. `holds`
lists the kinds of alerts whose sessions are held back from billing until a person decides.
"""

from dataclasses import fields, replace
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.metering.clocks import ClockRule
from pipeline.metering.kinds import ALERT_KINDS, HOLDABLE
from pipeline.metering.policy import MeteringPolicy, limits_of

NAME: Final = "metering"
_THRESHOLDS: Final = frozenset(field.name for field in fields(MeteringPolicy))


class Rules(NamedTuple):
    """A policy in use: thresholds, the same as the compiled pass reads them, and what is done about clocks."""

    metering: MeteringPolicy
    limits: npt.NDArray[np.void]
    clocks: tuple[ClockRule, ...] = ()


def rules_of(metering: MeteringPolicy, clocks: tuple[ClockRule, ...] = ()) -> Rules:
    """Rules of these thresholds."""
    return Rules(metering, limits_of(metering), clocks)


def _kinds(names: tuple[str, ...]) -> int:
    """A bit for each kind. Raises ValueError for one whose sessions can't be held."""
    holdable = {ALERT_KINDS[kind]: kind for kind in HOLDABLE}
    for name in names:
        if name not in holdable:
            raise ValueError(f"$.holds: {name!r} holds no session; there are {', '.join(sorted(holdable))}")
    return sum(1 << holdable[name] for name in set(names))


def parse_policy(body: bytes, otherwise: MeteringPolicy | None = None) -> Rules:
    """The rules that a document states. Raises ValueError that says what is wrong and where, as a JSON path."""
    stated = msgspec.json.decode(body, type=dict[str, Any])
    name = stated.pop("policy", None)
    if name != NAME:
        raise ValueError(f"$.policy: this version knows the policy {NAME!r}, not {name!r}")
    clocks = msgspec.convert(stated.pop("clocks", []), tuple[ClockRule, ...])
    for at, rule in enumerate(clocks):
        rule.check(f"$.clocks[{at}]")
    if "holds" in stated:
        stated["hold_kinds"] = _kinds(msgspec.convert(stated.pop("holds"), tuple[str, ...]))
    for key, value in stated.items():
        if key not in _THRESHOLDS:
            known = ", ".join(sorted(_THRESHOLDS))
            raise ValueError(f"$.{key}: no threshold of metering; there are {known}, and clocks")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
            raise ValueError(f"$.{key}: expected a whole number from 0 to 2^53, found {value!r}")
    return rules_of(replace(otherwise or MeteringPolicy(), **stated), clocks)

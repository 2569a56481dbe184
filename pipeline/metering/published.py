"""Metering policies as people publish them: a JSON object in the reference history, active from its place in the log.

    {"policy": "metering", "hold_limit_ms": 604800000,
     "clocks": [{"charge_points": ["OSL*"], "use": "offset", "offset_ms": -3600000}],
     "tune": [{"model": "AC 22", "stuck_mwh": 5000000}]}

Every threshold of `MeteringPolicy` may be named; what is not named keeps its default. Clocks are in `clocks`,
thresholds of a model or location in `tune` (see `tuned`). `holds` lists the kinds of alerts whose sessions are held
back from billing
until a person decides.
"""

from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgspec

from pipeline.metering.clocks import ClockRule
from pipeline.metering.policy import MeteringPolicy
from pipeline.metering.tuned import TUNE, LimitTable, Tune, entries_in, thresholds_in

NAME: Final = "metering"


class Rules(NamedTuple):
    """A policy in use: the network's thresholds, all as the compiled pass reads them, and what is done about clocks."""

    metering: MeteringPolicy
    limits: LimitTable
    clocks: tuple[ClockRule, ...] = ()
    longest_timeout_ms: int = 0  # of any connector


def rules_of(metering: MeteringPolicy, clocks: tuple[ClockRule, ...] = (), tune: tuple[Tune, ...] = ()) -> Rules:
    """Rules of these thresholds."""
    timeouts = (entry.values.get("session_timeout_ms", 0) for entry in tune)
    return Rules(metering, LimitTable(metering, tune), clocks, max(metering.session_timeout_ms, *timeouts, 0))


def parse_policy(body: bytes, otherwise: MeteringPolicy | None = None) -> Rules:
    """The rules that a document states. Raises ValueError that says what is wrong and where, as a JSON path."""
    stated = msgspec.json.decode(body, type=dict[str, Any])
    name = stated.pop("policy", None)
    if name != NAME:
        raise ValueError(f"$.policy: this version knows the policy {NAME!r}, not {name!r}")
    clocks = msgspec.convert(stated.pop("clocks", []), tuple[ClockRule, ...])
    for at, rule in enumerate(clocks):
        rule.check(f"$.clocks[{at}]")
    tune = tuple(entries_in(stated.pop(TUNE, [])))
    metering = replace(otherwise or MeteringPolicy(), **thresholds_in(stated, "$"))
    return rules_of(metering, clocks, tune)

"""Each kind of alert against what the simulator's faults should raise: precision and recall by kind.

A fault names the kinds of which each must fire, and kinds that may fire beside them because the same lie shows there
too. Anything else that fires was not asked for.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from benchmarks.truth_ledger import RollingLedger
from pipeline.simulate.faults import FAULTS


class Confusion(NamedTuple):
    """Sessions by what one kind of alert should say of them and what it said."""

    expected: int = 0
    raised: int = 0
    missing: int = 0
    unasked: int = 0

    @property
    def precision(self) -> float:
        """Of the sessions it was raised for, the share that asked for it."""
        return 1.0 if not self.raised else (self.raised - self.unasked) / self.raised

    @property
    def recall(self) -> float:
        """Of the sessions it had to be raised for, the share that got it."""
        return 1.0 if not self.expected else (self.expected - self.missing) / self.expected


def confusion(ledger: RollingLedger, sessions: Iterable[tuple[dict[str, Any], list[int]]]) -> dict[str, Confusion]:
    """By kind, over all sessions; an alert of no known session is unasked."""
    found: dict[str, Confusion] = {}
    matched: set[int] = set()
    for session, keys in sessions:
        matched.update(keys)
        fault = FAULTS.get(session["fault"])
        raised = set().union(*(ledger.kinds.get(key, ()) for key in keys))
        _count(found, raised, session["alerts"], fault.may if fault else ())
    for key, kinds in ledger.kinds.items():
        if key not in matched:
            _count(found, kinds, (), ())
    return dict(sorted(found.items()))


def _count(found: dict[str, Confusion], raised: set[str], must: Iterable[str], may: Iterable[str]) -> None:
    ways = [set(one.split("|")) for one in must]
    allowed = set(may).union(*ways)
    for way in ways:
        # One of several kinds is enough: the one that came counts, else the first that could have.
        for kind in sorted(way & raised) or sorted(way)[:1]:
            one = found.get(kind, Confusion())
            found[kind] = one._replace(expected=one.expected + 1, missing=one.missing + (kind not in raised))
    for kind in raised:
        one = found.get(kind, Confusion())
        found[kind] = one._replace(raised=one.raised + 1, unasked=one.unasked + (kind not in allowed))

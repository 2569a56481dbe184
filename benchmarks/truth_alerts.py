"""Each kind of alert against what the simulator's faults should raise: precision and recall by kind.

A fault names the kinds of which each must fire, and kinds that may fire beside them because the same lie shows there
too. Anything else that fires was not asked for.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from benchmarks.truth_ledger import RollingLedger, Truth
from pipeline.metering.policy import MeteringPolicy
from pipeline.simulate.faults import FAULTS

Place = tuple[str | int, ...]
_OF_PLACES: Final = {"clock_drift", "zero_kwh_run"}  # said of a charge point or connector, not of each session


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


def confusion(ledger: RollingLedger, sessions: Sequence[tuple[Truth, list[int]]]) -> dict[str, Confusion]:
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
    truth = [session for session, _ in sessions]
    found["clock_drift"] = _by_place(_drifting(truth), _raised(ledger, "clock_drift", "charge_point_id", most=1))
    found["zero_kwh_run"] = _by_place(
        _zero_runs(truth), _raised(ledger, "zero_kwh_run", "charge_point_id", "connector_id")
    )
    return dict(sorted(found.items()))


def _drifting(truth: Iterable[Truth]) -> Counter[Place]:
    """Charge points whose clock drifts: said once, until the clock is right again."""
    return Counter(dict.fromkeys(((s["charge_point_id"],) for s in truth if s["fault"] == "clock_drift"), 1))


def _zero_runs(truth: Iterable[Truth]) -> Counter[Place]:
    """How often a connector had a third session of 0 kWh in a row: said once a run."""
    runs: Counter[Place] = Counter()
    length: Counter[Place] = Counter()
    for session in sorted(truth, key=itemgetter("start_ms")):
        place = (session["charge_point_id"], session["connector_id"])
        nothing = session["expected_mwh"] == 0 and session["outcome"] == "billed"
        length[place] = length[place] + 1 if nothing else 0
        runs[place] += length[place] == MeteringPolicy().zero_run
    return +runs


def _raised(ledger: RollingLedger, kind: str, *by: str, most: int = 0) -> Counter[Place]:
    """Alerts of a kind by place, `most` of each at most."""
    rows = Counter(tuple(row[name] for name in by) for row in ledger.alert_rows() if row["kind"] == kind)
    return Counter({place: min(count, most or count) for place, count in rows.items()})


def _by_place(expected: Counter[Place], raised: Counter[Place]) -> Confusion:
    return Confusion(expected.total(), raised.total(), (expected - raised).total(), (raised - expected).total())


def _count(found: dict[str, Confusion], raised: set[str], must: Iterable[str], may: Iterable[str]) -> None:
    ways = [set(one.split("|")) for one in must]
    allowed = set(may).union(*ways)
    raised = raised - _OF_PLACES
    for way in ways:
        # One of several kinds is enough: the one that came counts, else the first that could have.
        for kind in sorted(way & raised) or sorted(way - _OF_PLACES)[:1]:
            one = found.get(kind, Confusion())
            found[kind] = one._replace(expected=one.expected + 1, missing=one.missing + (kind not in raised))
    for kind in raised:
        one = found.get(kind, Confusion())
        found[kind] = one._replace(raised=one.raised + 1, unasked=one.unasked + (kind not in allowed))

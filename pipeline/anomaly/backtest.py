"""What would have fired on a table of past sessions, and how that compares with labels. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from pipeline.anomaly.sessions import Finding, SessionFacts

# A label of the Dundee file → the kinds that say the same.
LABEL_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "energy_above_rating": frozenset({"energy_above_rating", "wrong_rating"}),
    "register_leak_or_unit_error": frozenset({"energy_above_rating", "unit_error"}),
    "negative_energy": frozenset({"negative_session"}),
    "missing_end": frozenset({"lost_stop"}),
    "token_overlap_other_cp": frozenset({"token_two_sites", "token_two_chargers"}),
}


class Score(NamedTuple):
    """One label against what was found: sessions by both, by the label only, by us only."""

    label: str
    found: int
    missed: int
    extra: int

    @property
    def recall(self) -> float:
        """Share of the labelled sessions that were found."""
        return self.found / (self.found + self.missed) if self.found + self.missed else 1.0

    @property
    def precision(self) -> float:
        """Share of what was found that is labelled."""
        return self.found / (self.found + self.extra) if self.found + self.extra else 1.0


def scores(
    findings: Iterable[Finding], labels: Mapping[str, Iterable[str]], sessions: Iterable[SessionFacts]
) -> list[Score]:
    """A row a label. A wrong rating, said once for its charge point, stands for all of its sessions above the rating.

    `labels`: label → session keys.
    """
    flagged: dict[str, set[str]] = defaultdict(set)
    misrated: set[str] = set()
    for finding in findings:
        flagged[finding.kind].add(finding.session.key)
        if finding.kind == "wrong_rating":
            misrated.add(finding.session.charge_point)
    flagged["wrong_rating"] = {s.key for s in sessions if s.charge_point in misrated and _above(s)}
    rows = []
    for label, keys in sorted(labels.items()):
        true = set(keys)
        ours = set[str]().union(*(flagged[kind] for kind in LABEL_KINDS.get(label, frozenset({label}))))
        explained = set[str]().union(*(set(k) for name, k in labels.items() if _kin(name, label)))
        rows.append(Score(label, len(true & ours), len(true - ours), len(ours - explained)))
    return rows


def _kin(name: str, label: str) -> bool:
    """Labels that share a kind explain each other's findings."""
    return bool(LABEL_KINDS.get(name, frozenset({name})) & LABEL_KINDS.get(label, frozenset({label})))


def _above(session: SessionFacts) -> bool:
    able_mwh = session.rating_w * max(session.elapsed_ms, 0) / 3600
    return (session.energy_mwh or 0) > able_mwh * 1.05


def by_kind(findings: Iterable[Finding]) -> Counter[str]:
    """How many of each kind."""
    return Counter(finding.kind for finding in findings)

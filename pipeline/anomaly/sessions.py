"""What whole sessions show: a fold over them in the order of their ends, each told once. Pure; memory by connector.

Fed with settled sessions of the ledger or with the rows of a file: the same findings either way.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.anomaly.detectors import robust_z
from pipeline.anomaly.events import SessionEvent, Severity
from pipeline.anomaly.shift import ShiftState, forget_sums, judge, learn, shift_state
from pipeline.anomaly.tokens import TokenLimits, TokenState, observe, token_limits
from pipeline.anomaly.tuning import Tuning

WRONG_RATING: Final = "wrong_rating"
WINDOW: Final = 64  # sessions of a connector that the median and MAD look back on
_LEAST_CHARGING_MS: Final = 300_000  # shorter ones tell no power
_MWH: Final = 1_000_000  # mWh a kWh
_HOUR_MS: Final = 3_600_000


class SessionFacts(NamedTuple):
    """One whole session. Energy mWh, instants UTC ms; None = not known. `charging_ms`: without idle time."""

    key: str
    charge_point: str
    connector: int
    site: str
    model: str
    token: str
    rating_w: int
    start_ms: int
    end_ms: int | None
    energy_mwh: int | None
    charging_ms: int | None = None

    @property
    def elapsed_ms(self) -> int:
        """From start to end; negative where the end lies before the start."""
        return 0 if self.end_ms is None else self.end_ms - self.start_ms


class Finding(NamedTuple):
    """What one session gave away. `also`: another session that it is about."""

    kind: str
    severity: Severity
    session: SessionFacts
    evidence: Mapping[str, int | float | str]
    also: str = ""


@dataclass
class _Rating:
    """How often a charge point gave more than it can."""

    above: int = 0
    said: bool = False


class _Saved(msgspec.Struct):
    group_of: dict[str, int]
    rows: list[tuple[str, int]]
    zero_runs: dict[int, int]
    ratings: dict[str, tuple[int, bool]]
    arrays: dict[str, bytes]


@dataclass
class SessionWatch:
    """The fold's state. Rows of the arrays are connectors, in the order of their first session."""

    tuning: Tuning = field(default_factory=Tuning)
    group_of: dict[str, int] = field(default_factory=dict)  # model → group of peers
    rows: dict[tuple[str, int], int] = field(default_factory=dict)
    shift: ShiftState = field(default_factory=lambda: shift_state(64, 16))
    window: npt.NDArray[Any] = field(default_factory=lambda: np.zeros((64, WINDOW)))
    filled: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(64, np.int64))
    zero_runs: dict[int, int] = field(default_factory=dict)
    ratings: dict[str, _Rating] = field(default_factory=dict)
    _scratch: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(WINDOW))

    def take(self, session: SessionFacts) -> Iterator[Finding]:
        """What this session shows."""
        row = self._row(session)
        yield from _times(session)
        if session.energy_mwh is None or session.end_ms is None:
            return
        impossible = list(self._energy(session))
        yield from impossible
        yield from self._zero(session, row)
        if session.energy_mwh > 0 and not any(finding.severity == "critical" for finding in impossible):
            yield from self._size(session, row)
            yield from self._share(session, row)

    def saved(self) -> dict[str, Any]:
        """All of it as plain values and bytes."""
        used = len(self.rows)
        return {
            "group_of": self.group_of,
            "rows": [list(key) for key in self.rows],
            "zero_runs": self.zero_runs,
            "ratings": {name: [rating.above, rating.said] for name, rating in self.ratings.items()},
            "arrays": {name: array[:used].tobytes() if own else array.tobytes() for name, array, own in self._arrays()},
        }

    def restore(self, payload: bytes) -> None:
        """Put back what `saved` gave, encoded as msgpack."""
        saved = msgspec.msgpack.decode(payload, type=_Saved)
        self.group_of, self.zero_runs = saved.group_of, saved.zero_runs
        self.rows = {(charge_point, connector): n for n, (charge_point, connector) in enumerate(saved.rows)}
        self.ratings = {name: _Rating(above, said) for name, (above, said) in saved.ratings.items()}
        while len(self.filled) <= len(self.rows):
            self._grow()
        for name, array, _ in self._arrays():
            values = np.frombuffer(saved.arrays[name], array.dtype)
            array.reshape(-1)[: len(values)] = values

    def _arrays(self) -> list[tuple[str, npt.NDArray[Any], bool]]:
        """Name, array, whether its rows are connectors."""
        own = [("window", self.window), ("filled", self.filled)]
        own += [("counts", self.shift.counts), ("seen", self.shift.seen), ("sums", self.shift.sums)]
        peers = [("pool", self.shift.pool), ("pooled", self.shift.pooled)]
        return [(name, array, True) for name, array in own] + [(name, array, False) for name, array in peers]

    def _of(self, kind: str, parameter: str, session: SessionFacts) -> float:
        return self.tuning.of(kind, parameter, session.model, session.site)

    def _row(self, session: SessionFacts) -> int:
        key = (session.charge_point, session.connector)
        row = self.rows.setdefault(key, len(self.rows))
        if row >= len(self.filled):
            self._grow()
        if session.model not in self.group_of:
            self.group_of[session.model] = min(len(self.group_of), len(self.shift.pooled) - 1)
        return row

    def _grow(self) -> None:
        more = len(self.filled)
        self.window = np.concatenate([self.window, np.zeros((more, WINDOW))])
        self.filled = np.concatenate([self.filled, np.zeros(more, np.int64)])
        fresh = shift_state(more, 1)
        self.shift = self.shift._replace(
            counts=np.concatenate([self.shift.counts, fresh.counts]),
            seen=np.concatenate([self.shift.seen, fresh.seen]),
            sums=np.concatenate([self.shift.sums, fresh.sums]),
        )

    def _energy(self, session: SessionFacts) -> Iterator[Finding]:
        energy = session.energy_mwh or 0
        if energy < 0:
            yield Finding("negative_session", "critical", session, {"energy_kwh": energy / _MWH})
        elif session.rating_w > 0:
            yield from self._above(session, energy)

    def _above(self, session: SessionFacts, energy_mwh: int) -> Iterator[Finding]:
        """Above the rating: once or twice is a reading, again and again is a wrong rating, said once."""
        able_mwh = session.rating_w * max(session.elapsed_ms, 0) / 3600
        rating = self.ratings.setdefault(session.charge_point, _Rating())
        beyond = 10 * able_mwh + _MWH  # no other rating explains it
        if energy_mwh <= beyond and self._exceeds("wrong_rating", session, energy_mwh, able_mwh):
            rating.above += 1
            if not rating.said and rating.above >= self._of("wrong_rating", "sessions", session):
                rating.said = True
                facts = {"rating_kw": session.rating_w / 1000, "sessions_above": rating.above}
                yield Finding(WRONG_RATING, "warning", session, facts)
        if self._exceeds("energy_above_rating", session, energy_mwh, able_mwh):
            if rating.said and energy_mwh <= beyond:
                return
            evidence = {"energy_kwh": energy_mwh / _MWH, "possible_kwh": round(able_mwh / _MWH, 3)}
            yield Finding("energy_above_rating", "critical", session, evidence)

    def _exceeds(self, kind: str, session: SessionFacts, energy_mwh: int, able_mwh: float) -> bool:
        slack_mwh = self._of(kind, "slack_kwh", session) * _MWH
        return energy_mwh > able_mwh * self._of(kind, "share", session) + slack_mwh

    def _zero(self, session: SessionFacts, row: int) -> Iterator[Finding]:
        run = self.zero_runs.get(row, 0) + 1 if session.energy_mwh == 0 else 0
        self.zero_runs[row] = run
        if run == self._of("zero_kwh_run", "sessions", session):
            yield Finding("zero_kwh_run", "warning", session, {"sessions": run})

    def _size(self, session: SessionFacts, row: int) -> Iterator[Finding]:
        """Unusually large: robust z of log kWh against the connector's last sessions."""
        kwh = (session.energy_mwh or 0) / _MWH
        if kwh < self._of("large_session", "least_kwh", session):
            return
        warm_up = int(self._of("large_session", "warm_up", session))
        floor = self._of("large_session", "floor", session)
        z = robust_z(self.window, self.filled, self._scratch, row, math.log(kwh), warm_up, floor)
        limit = self._of("large_session", "z", session)
        if z > limit:
            yield Finding("large_session", "info", session, {"kwh": kwh, "z": round(z, 2), "threshold": limit})

    def _share(self, session: SessionFacts, row: int) -> Iterator[Finding]:
        """Under-registration: the learned density of log kW, shifted."""
        charging_ms = session.elapsed_ms if session.charging_ms is None else session.charging_ms
        kwh = (session.energy_mwh or 0) / _MWH
        if charging_ms < _LEAST_CHARGING_MS or kwh < self._of("under_registration", "least_kwh", session):
            return
        log_kw = math.log(kwh / (charging_ms / _HOUR_MS))
        group = self.group_of[session.model]
        kappa, clip, warm_up, threshold = (
            self._of("under_registration", name, session) for name in ("kappa", "clip", "warm_up", "threshold")
        )
        statistic = judge(self.shift, row, group, log_kw, kappa, clip, int(warm_up))
        learn(self.shift, row, group, log_kw)
        if statistic > threshold:
            forget_sums(self.shift, row)
            evidence = {"statistic": round(statistic, 2), "threshold": threshold, "kw": round(math.exp(log_kw), 3)}
            yield Finding("under_registration", "warning", session, evidence)


def _times(session: SessionFacts) -> Iterator[Finding]:
    if session.end_ms is None:
        yield Finding("lost_stop", "info", session, {"start_ms": session.start_ms})
    elif session.end_ms < session.start_ms:
        yield Finding("unusable_time", "info", session, {"start_ms": session.start_ms, "end_ms": session.end_ms})


def replayed(sessions: list[SessionFacts], watch: SessionWatch) -> Iterator[Finding]:
    """The whole history as it would have come: starts and stops in the order of time.

    Conflicts of tokens come last: one that a later stop refutes is not among them.
    """
    moments: list[tuple[int, int, SessionFacts]] = []
    for session in sessions:
        moments.append((session.start_ms, 1, session))
        ends_ms = session.start_ms + max(session.elapsed_ms, 0)
        moments.append((ends_ms, 2 if ends_ms == session.start_ms else 0, session))
    standing: dict[str, Finding] = {}
    by_key = {session.key: session for session in sessions}
    tokens, limits = TokenState(), token_limits(watch.tuning)
    for time_ms, what, session in sorted(moments, key=lambda m: (m[0], m[1], m[2].key)):
        if session.end_ms is not None:  # else nobody knows how long it went on
            _overlaps(tokens, standing, _event(session, time_ms, what == 1), by_key, limits)
        if what != 1:
            yield from watch.take(session)
    yield from standing.values()


def _event(session: SessionFacts, time_ms: int, begins: bool) -> SessionEvent:
    return SessionEvent(
        "start" if begins else "stop",
        session.key,
        session.charge_point,
        session.connector,
        time_ms,
        0,
        0,
        session.site,
        session.token,
        start_ms=session.start_ms,
    )


def _overlaps(
    tokens: TokenState,
    standing: dict[str, Finding],
    event: SessionEvent,
    by_key: dict[str, SessionFacts],
    limits: TokenLimits,
) -> None:
    for conflict in observe(tokens, event, limits):
        first, second = conflict.first.session_key, conflict.second.session_key
        if conflict.found:
            severity: Severity = "warning" if conflict.kind == "token_two_sites" else "info"
            evidence: dict[str, int | float | str] = {"other_session": first, "overlap_s": -conflict.gap_ms // 1000}
            standing[f"{first}-{second}"] = Finding(conflict.kind, severity, by_key[second], evidence, also=first)
        else:
            standing.pop(f"{first}-{second}", None)

"""Each compiled detector against a slow twin, and the drift detector on invented cars."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.anomaly.detectors import cusum, page_hinkley, robust_z, seasonal_z
from pipeline.anomaly.events import SessionEvent
from pipeline.anomaly.sessions import WINDOW, SessionFacts, SessionWatch, replayed
from pipeline.anomaly.shift import judge, learn, shift_state
from pipeline.anomaly.sites import HOUR_MS, SiteMemory, add_session, close_hour
from pipeline.anomaly.tuning import Tuning

DICE = np.random.default_rng(11)


def test_robust_z_is_that_of_numpy() -> None:
    window, filled, scratch = np.zeros((2, 16)), np.zeros(2, np.int64), np.zeros(16)
    values = [float(v) for v in DICE.normal(3, 1, 60)]
    for n, value in enumerate(values):
        past = values[max(0, n - 16) : n]
        z = robust_z(window, filled, scratch, 1, value, 5, 0.01)
        if len(past) < 5:
            assert z == 0
            continue
        middle = float(np.median(past))
        spread = 1.4826 * float(np.median(np.abs(np.array(past) - middle)))
        assert z == pytest.approx((value - middle) / max(spread, 0.01), abs=1e-12)
    assert filled.tolist() == [0, 60]


def test_cusum_grows_with_a_shift_and_no_outlier_alarms_alone() -> None:
    sums = np.zeros(1)
    assert cusum(sums, 0, 100.0, 0.5, 3.0) == 2.5
    for _ in range(5):
        cusum(sums, 0, -1.0, 0.5, 3.0)
    assert sums[0] == 0.0


def test_page_hinkley_is_the_sum_above_its_least() -> None:
    state = np.zeros(1, np.int64), np.zeros(1), np.zeros(1), np.zeros(1)
    values = [0.0] * 20 + [1.0] * 20
    got = [page_hinkley(*state, 0, value, 0.1) for value in values]
    assert got[19] == 0.0
    assert got[-1] > 5


def test_a_season_is_learned_and_what_leaves_it_stands_out() -> None:
    levels, spreads, seen = np.zeros((1, 24)), np.zeros(1), np.zeros((1, 25), np.int64)
    zs = [
        seasonal_z(levels, spreads, seen, 0, hour % 24, 10 * math.sin(hour / 24 * 2 * math.pi), 0.1, 0.1)
        for hour in range(24 * 20)
    ]
    assert max(abs(z) for z in zs[48:]) < 1
    assert seasonal_z(levels, spreads, seen, 0, 0, 8.0, 0.1, 0.1) > 10


def test_a_meter_that_loses_a_fifth_is_found_among_mixed_cars() -> None:
    state = shift_state(2)
    cars = np.log([3.7, 7.2, 7.2, 7.2, 11.0, 22.0])

    def session(lost: float = 0.0) -> float:
        return float(DICE.choice(cars) + DICE.normal(0, 0.03) + math.log(1 - lost))

    quiet = 0.0
    for _ in range(800):
        x = session()
        quiet = max(quiet, judge(state, 0, 0, x, 15.0, 2.0, 20))
        learn(state, 0, 0, x)
    assert quiet < 10
    assert any(judge(state, 0, 0, session(0.2), 15.0, 2.0, 20) > 10 for _ in range(50))


def facts(n: int, kwh: float = 20.0, hours: float = 2.0, **changes: Any) -> SessionFacts:
    start = n * 86_400_000
    base = SessionFacts(
        f"{n:04}", "CP1", 1, "SITE", "M", "", 22_000, start, start + int(hours * HOUR_MS), int(kwh * 1e6)
    )
    return base._replace(**changes)


def kinds(sessions: list[SessionFacts]) -> list[str]:
    return [finding.kind for finding in replayed(sessions, SessionWatch())]


def test_impossible_sessions_are_found() -> None:
    assert kinds([facts(1, -3.0)]) == ["negative_session"]
    assert kinds([facts(1, 1430.0)]) == ["energy_above_rating"]
    assert kinds([facts(1, end_ms=None)]) == ["lost_stop"]
    assert "unusable_time" in kinds([facts(1, end_ms=0)])


def test_a_wrong_rating_is_said_once_not_for_every_session() -> None:
    assert kinds([facts(n, 30.0, 1.0) for n in range(40)]).count("wrong_rating") == 1
    assert kinds([facts(n, 30.0, 1.0) for n in range(40)]).count("energy_above_rating") == 4


def test_three_sessions_of_nothing_are_a_run() -> None:
    assert kinds([facts(n, 0.0) for n in range(6)]) == ["zero_kwh_run"]


def test_the_fold_goes_on_from_its_saved_state() -> None:
    dice = np.random.default_rng(3)
    sessions = [facts(n, float(dice.normal(20, 3)), charge_point=f"CP{n % 90}") for n in range(4000)]
    whole, first = SessionWatch(), SessionWatch()
    expected = [f for session in sessions for f in whole.take(session)]
    got = [f for session in sessions[:2000] for f in first.take(session)]
    second = SessionWatch()
    second.restore(msgspec.msgpack.encode(first.saved()))
    got += [f for session in sessions[2000:] for f in second.take(session)]
    assert got == expected
    assert msgspec.msgpack.encode(second.saved()) == msgspec.msgpack.encode(whole.saved())


def test_a_connector_far_below_its_peers_is_told_once_and_again_when_it_recovers() -> None:
    memory = SiteMemory(hour=1)
    found = []
    for hour in range(200):
        for number in range(5):
            kw = 5.0 if number == 0 and hour < 100 else 11.0
            add_session(memory, "S", f"CP{number}", 1, "M", int(kw * 1e6), HOUR_MS)
        found += [one for one in close_hour(memory, Tuning()) if one.kind == "peer_gap"]
    assert [(one.charge_point, one.opened) for one in found] == [("CP0", True), ("CP0", False)]


def test_window_is_a_constant_of_memory() -> None:
    watch = SessionWatch()
    for n in range(500):
        list(watch.take(facts(n)))
    assert watch.window.shape[1] == WINDOW


def test_session_events_without_a_token_are_nothing() -> None:
    from pipeline.anomaly.tokens import TokenLimits, TokenState, observe

    assert observe(TokenState(), SessionEvent("start", "a", "CP", 1, 0, 0, 0, "L"), TokenLimits()) == []

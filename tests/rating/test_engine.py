"""The offline door: sessions from phases, periods and samples, one by one or as a batch, always one answer."""

import random
import runpy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rating import engine
from rating.cases import price_case
from rating.columns import ABSENT, CHARGING, PARKING, RESERVATION, RESERVATION_EXPIRED
from rating.errors import SessionError
from rating.jit import fingerprint, inlined, part
from rating.policy import EXACT_TOTALS
from rating.ratesheet import BookBuilder
from rating.session import Mark, Session, from_periods, from_phases, from_samples
from rating.settle import Settled
from tests.rating.tariffs import HOUR, KWH, MONDAY, component, element, tariff

DAY = 24 * HOUR
T = "2019-01-07T{:02d}:{:02d}:00Z"
MIXED = tariff(
    element(component("ENERGY", 0.2, 100, vat=21), start_time="22:00", end_time="07:00"),
    element(component("ENERGY", 0.3, 250, vat=21), max_kwh=10),
    element(
        component("FLAT", 0.5, vat=6), component("ENERGY", 0.4, 500, vat=21), component("PARKING_TIME", 2, 300, vat=21)
    ),
)


def random_session(seed: int) -> Session:
    rng = random.Random(seed)
    times = sorted(rng.sample(range(MONDAY, MONDAY + 2 * DAY), 12))
    intervals = tuple((a, b, rng.choice([0, rng.randrange(3 * KWH)])) for a, b in pairwise(times))
    marks = (Mark(times[0], CHARGING), Mark(times[6], PARKING), Mark(times[9], CHARGING, 5 * KWH))
    return Session(intervals, marks)


def columns(settled: Settled) -> bytes:
    return b"".join(np.ascontiguousarray(column).tobytes() for column in settled)


def test_one_batch_or_a_thousand_give_the_same_bytes() -> None:
    builder = BookBuilder(MONDAY - DAY, MONDAY + 4 * DAY)
    sheet = builder.add(MIXED, "T@1", "America/New_York")
    book, sessions = builder.book(), [random_session(seed) for seed in range(1000)]
    together = engine.rate_batch(book, engine.batch_of(sessions, [sheet] * 1000)).settled
    alone = [engine.rate_batch(book, engine.batch_of([one], [sheet])).settled for one in sessions]
    for name, column in zip(Settled._fields, together, strict=True):
        assert (np.concatenate([getattr(one, name) for one in alone]) == column).all(), name


def test_the_running_cost_of_an_open_session_becomes_its_settled_cost() -> None:
    whole = random_session(5)
    known = [engine.rate(Session(whole.intervals[:n], whole.marks), MIXED, "UTC")[0].settled for n in range(1, 12)]
    assert all(a.rated_cost[0] <= b.rated_cost[0] for a, b in pairwise(known))
    assert columns(known[-1]) == columns(engine.rate(whole, MIXED, "UTC")[0].settled)


def test_cutting_an_interval_on_its_own_curve_changes_nothing() -> None:
    start, energy = MONDAY + 6 * HOUR, 7_654_321
    marks = (Mark(start, CHARGING),)
    whole = engine.rate(Session(((start, start + 2 * HOUR, energy),), marks), MIXED, "UTC", EXACT_TOTALS)[0].settled
    for cut in (1, 999, HOUR, HOUR + 1, 2 * HOUR - 1):
        first = energy * cut // (2 * HOUR)
        if first * 2 * HOUR != energy * cut:
            continue  # "extra splits" are cuts of this curve, not readings rounded to a mWh
        parts = ((start, start + cut, first), (start + cut, start + 2 * HOUR, energy - first))
        assert columns(engine.rate(Session(parts, marks), MIXED, "UTC", EXACT_TOTALS)[0].settled) == columns(whole)


def test_phases_and_samples_of_one_session_agree() -> None:
    phases = [
        {"start": T.format(6, 0), "end": T.format(8, 0), "state": "CHARGING", "energy_kwh": "12.5"},
        {"start": T.format(8, 0), "end": T.format(9, 0), "state": "PARKING", "energy_kwh": "0"},
    ]
    samples = [{"t": T.format(6, 0), "energy_wh": 1000}, {"t": T.format(8, 0), "energy_wh": 13_500}]
    events = [{"t": T.format(6, 0), "event": "CHARGING"}, {"t": T.format(8, 0), "event": "SUSPENDED_EV"}]
    sampled = from_samples(samples, events, MONDAY + 6 * HOUR, MONDAY + 9 * HOUR)
    by_phase, by_sample = (engine.rate(one, MIXED, "UTC")[0].settled for one in (from_phases(phases), sampled))
    assert columns(by_phase) == columns(by_sample)


def test_a_period_lasts_as_long_as_its_published_volume_says() -> None:
    periods = [
        {
            "start_date_time": T.format(10, 0),
            "dimensions": [{"type": "TIME", "volume": 0.5}, {"type": "PARKING_TIME", "volume": 0.5}],
        },
        {"start_date_time": T.format(11, 0), "dimensions": [{"type": "PARKING_TIME", "volume": 0.0833}]},
    ]
    session = from_periods(periods, MONDAY + 11 * HOUR + HOUR // 12)
    assert [mark.state for mark in session.marks] == [CHARGING, PARKING, PARKING]
    assert session.intervals[-1][:2] == (MONDAY + 11 * HOUR, MONDAY + 11 * HOUR + HOUR // 12)  # the grain of 4 decimals
    assert session.notes == ()


def test_an_expired_reservation_owes_its_fees_and_no_start_fee() -> None:
    one = tariff(
        element(component("FLAT", 4), reservation="RESERVATION_EXPIRES"),
        element(component("FLAT", 1), component("TIME", 2, 600), reservation="RESERVATION"),
        element(component("FLAT", 0.5), component("ENERGY", 0.25)),
    )
    expired = Session(((MONDAY, MONDAY + HOUR, 0),), (Mark(MONDAY, RESERVATION_EXPIRED),))
    used = Session(
        ((MONDAY, MONDAY + HOUR, 0), (MONDAY + HOUR, MONDAY + 2 * HOUR, 4 * KWH)),
        (Mark(MONDAY, RESERVATION), Mark(MONDAY + HOUR, CHARGING)),
    )
    totals = [int(engine.rate(one_session, one, "UTC")[0].settled.total_excl_e4[0]) for one_session in (expired, used)]
    assert totals == [(4 + 1 + 2) * 10_000, (1 + 2) * 10_000 + 5000 + 10_000]


def test_the_time_of_an_expired_reservation_is_priced_by_its_own_element() -> None:
    one = tariff(
        element(component("TIME", 3), reservation="RESERVATION"),
        element(component("TIME", 6), reservation="RESERVATION_EXPIRES"),
    )
    expired = Session(((MONDAY, MONDAY + HOUR, 0),), (Mark(MONDAY, RESERVATION_EXPIRED),))
    assert engine.rate(expired, one, "UTC")[0].settled.total_excl_e4[0] == 60_000


def test_a_reservation_does_not_count_in_the_duration() -> None:
    one = tariff(element(component("TIME", 1), max_duration=3600), element(component("TIME", 5)))
    session = Session(
        ((MONDAY, MONDAY + HOUR, 0), (MONDAY + HOUR, MONDAY + 2 * HOUR, 0)),
        (Mark(MONDAY, RESERVATION), Mark(MONDAY + HOUR, CHARGING)),
    )
    assert engine.rate(session, one, "UTC")[0].settled.total_excl_e4[0] == 10_000


def test_a_flat_fee_looks_at_the_power_of_the_charging_session() -> None:
    one = tariff(element(component("FLAT", 3), min_power=50))
    marks = (Mark(MONDAY, RESERVATION), Mark(MONDAY, CHARGING, 50 * KWH))
    session = Session(((MONDAY, MONDAY, 0), (MONDAY, MONDAY + HOUR, KWH)), marks)
    assert engine.rate(session, one, "UTC")[0].settled.total_excl_e4[0] == 30_000


@pytest.mark.parametrize(
    ("intervals", "marks"),
    [
        ((), (Mark(0, CHARGING),)),
        (((0, 1, 0),), ()),
        (((1, 0, 0),), (Mark(0, CHARGING),)),
        (((0, 1, -1),), (Mark(0, CHARGING),)),
        (((0, 1, 1),), (Mark(1, CHARGING),)),
        (((0, 1, 1),), (Mark(0, CHARGING), Mark(-1, PARKING))),
    ],
)
def test_a_session_that_cannot_be_is_refused(intervals: Any, marks: Any) -> None:
    with pytest.raises(SessionError):
        Session(intervals, marks)


@pytest.mark.parametrize(
    ("session", "reason"),
    [
        ({}, "phases, cdr_charging_periods or samples"),
        ({"phases": [{"start": "x", "end": T.format(1, 0), "state": "CHARGING"}]}, "phases[0].start"),
        ({"phases": [{"start": T.format(2, 0), "end": T.format(1, 0), "state": "CHARGING"}]}, "phases[0]"),
        ({"phases": [{"start": T.format(0, 0), "end": T.format(1, 0), "state": "IDLE"}]}, "state"),
        (
            {"phases": [{"start": T.format(0, 0), "end": T.format(1, 0), "state": "CHARGING", "energy_kwh": "NaN"}]},
            "energy_kwh",
        ),
        (
            {"cdr_charging_periods": [{"start_date_time": T.format(0, 0), "dimensions": 3}], "end": T.format(1, 0)},
            "dimensions",
        ),
        ({"samples": [{"t": T.format(0, 0)}], "start": T.format(0, 0), "end": T.format(1, 0)}, "energy_wh"),
    ],
)
def test_a_case_that_cannot_be_priced_says_why(session: dict[str, Any], reason: str) -> None:
    answer = price_case({"id": "c", "tariff": dict(MIXED.source), "session": session, "timezone": "UTC"})
    assert reason in answer["error"]


def test_a_sample_of_power_holds_until_the_next_one() -> None:
    samples = [
        {"t": T.format(0, 0), "energy_kwh": 0, "power_kw": 22, "current_a": 32},
        {"t": T.format(1, 0), "energy_kwh": 20},
        {"t": T.format(2, 0), "energy_kwh": 30, "power_kw": 7},
    ]
    marks = from_samples(samples, [], MONDAY, MONDAY + 3 * HOUR).marks
    assert [(mark.start_ms - MONDAY, mark.power_mw, mark.current_ma) for mark in marks] == [
        (0, 22 * KWH, 32_000),
        (HOUR, 22 * KWH, 32_000),
        (2 * HOUR, 7 * KWH, 32_000),
    ]
    assert from_samples(samples[1:2], [], MONDAY, MONDAY + HOUR).marks[0].power_mw == ABSENT


FACTOR = 2
EMITTED: Callable[[int], int] = abs  # until a test puts an intrinsic here


def _inner(value: int) -> int:
    return value * FACTOR


def _outer(value: int) -> int:
    return _inner(value) + 1


def test_the_fingerprint_of_a_kernel_holds_the_constants_that_are_compiled_into_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = fingerprint(_inner)
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert fingerprint(_inner) != before
    assert fingerprint(_outer) != fingerprint(_inner)


def _emitter(path: Path, number: int) -> Any:
    path.write_text(f"from numba.extending import intrinsic\nEMITTED = intrinsic(lambda typing, value: {number})\n")
    return runpy.run_path(str(path))["EMITTED"]


def _emitting(value: int) -> int:
    return EMITTED(value) + 1


def test_the_fingerprint_of_a_kernel_holds_the_file_that_its_intrinsics_are_written_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []
    for path, number in (("a.py", 1), ("b.py", 1), ("c.py", 2)):
        monkeypatch.setitem(globals(), "EMITTED", _emitter(tmp_path / path, number))
        found.append(fingerprint(_emitting))
    assert found[0] == found[1] != found[2]


def test_the_fingerprint_of_a_kernel_holds_how_its_callees_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, found = _inner, []
    for compiled in (part, part, inlined):
        monkeypatch.setitem(globals(), "_inner", compiled(plain))
        found.append(fingerprint(_outer))
    assert found[0] == found[1] != found[2]

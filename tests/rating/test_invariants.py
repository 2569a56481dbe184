"""What must hold whatever the tariff: cuts change nothing, parts sum, taxes are not negative, batches don't matter."""

import copy
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rating.columns import Pieces, empty_pieces
from rating.ratesheet import BookBuilder
from rating.settle import Sessions, Settled, settle
from rating.tariff import parse_tariff
from tests.bulk import joined
from tests.engine_door import Rated, rate, sheet_of
from tests.generated import Pair
from tests.generated import pairs as random_pairs
from tests.oracle import Interval, Mark, Session
from tests.strategies import pairs

RELAXED = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
HALF_HOUR = 30 * 60_000


def rated(pair: Pair) -> Rated:
    return rate(sheet_of(pair.tariff, pair.zone, pair.version, pair.sessions), pair.sessions)


def totals(settled: Settled) -> list[Any]:
    """Everything that settlement says of money and quantities, as plain lists."""
    return [column.tolist() for name, column in settled._asdict().items() if name != "notes"]


def with_marks_repeated(session: Session, at: Sequence[int]) -> Session:
    """The same session whose marks are said again at other instants: cuts of the curve that change no state."""
    marks = list(session.marks)
    for instant in at:
        before = [mark for mark in marks if mark.start_ms <= instant]
        if before:
            marks.append(before[-1]._replace(start_ms=instant))
            marks.sort(key=lambda mark: mark.start_ms)
    return Session(session.intervals, marks, session.reservation)


def cut_by_the_clock(tariff: dict[str, Any]) -> dict[str, Any]:
    """The same tariff with elements that never price anything and flip every quarter of an hour."""
    cut = copy.deepcopy(tariff)
    for minute in range(0, 1440, 15):
        start, end = (f"{at // 60 % 24:02}:{at % 60:02}" for at in (minute, minute + 15))
        element = {"price_components": [{"type": "FLAT", "price": 0, "step_size": 0}]}
        cut["elements"].append(
            element | {"restrictions": {"start_time": start, "end_time": end, "reservation": "RESERVATION"}}
        )
    return cut


# ---------------------------------------------------------------- cutting changes nothing


@RELAXED
@given(pairs(), st.data())
def test_saying_again_what_already_holds_changes_nothing(pair: Pair, data: st.DataObject) -> None:
    cut = []
    for session in pair.sessions:
        edges = [at for interval in session.intervals for at in interval[:2]] or [session.start_ms]
        cut.append(with_marks_repeated(session, data.draw(st.lists(st.integers(min(edges), max(edges)), max_size=5))))
    before, after = rated(pair), rated(pair._replace(sessions=cut))
    assert totals(before.settled) == totals(after.settled)
    for number in range(len(cut)):
        assert joined(before.pieces_of(number)) == joined(after.pieces_of(number))


def test_cutting_at_every_quarter_of_an_hour_changes_nothing() -> None:
    for pair in random_pairs(seed=5, tariffs=60, sessions_each=20):
        if pair.version == "2.1.1":
            continue
        before, after = rated(pair), rated(pair._replace(tariff=cut_by_the_clock(pair.tariff)))
        for name in ("metered", "priced", "step", "cost", "min_cost", "max_cost", "total_excl_e4", "total_incl_e4"):
            assert getattr(after.settled, name).tolist() == getattr(before.settled, name).tolist(), name


def test_rows_of_equal_price_may_be_joined_across_readings_without_changing_the_bill() -> None:
    for pair in random_pairs(seed=6, tariffs=40, sessions_each=20):
        one = rated(pair)
        pieces, sessions = coalesced(one)
        assert totals(settle(one.book, sessions, pieces)) == totals(one.settled)


def coalesced(one: Rated) -> tuple[Pieces, Sessions]:
    """The pieces with contiguous neighbours of equal state and components joined, session by session."""
    kept: list[list[int]] = []
    first, count = [], []
    columns = one.pieces
    for number in range(len(one.sessions.sheet)):
        first.append(len(kept))
        start = int(one.sessions.first_piece[number])
        for row in range(start, start + int(one.sessions.n_pieces[number])):
            values = [int(column[row]) for column in columns]
            last = kept[-1] if len(kept) > first[-1] else None
            names = Pieces._fields
            same = [names.index(name) for name in ("state", "energy_component", "time_component", "missing")]
            start_at, end_at, energy_at = (names.index(name) for name in ("start_ms", "end_ms", "energy_mwh"))
            if last and last[end_at] == values[start_at] and all(last[at] == values[at] for at in same):
                last[end_at] = values[end_at]
                last[energy_at] += values[energy_at]
            else:
                kept.append(values)
        count.append(len(kept) - first[-1])
    table = np.array(kept, np.int64).reshape(len(kept), len(columns))
    pieces = empty_pieces(len(kept))
    for at, name in enumerate(Pieces._fields):
        getattr(pieces, name)[:] = table[:, at]
    sessions = one.sessions._replace(first_piece=np.array(first, np.int64), n_pieces=np.array(count, np.int64))
    return pieces, sessions


# ---------------------------------------------------------------- parts and wholes


@RELAXED
@given(pairs())
def test_parts_sum_to_the_whole(pair: Pair) -> None:
    one = rated(pair)
    for number, session in enumerate(pair.sessions):
        pieces = [piece for piece in one.pieces_of(number) if not piece.state.startswith("RESERVATION")]
        assert sum(piece.energy_mwh for piece in pieces) == sum(interval.energy_mwh for interval in session.intervals)
        lasted = sum(interval.end_ms - interval.start_ms for interval in session.intervals)
        assert sum(piece.end_ms - piece.start_ms for piece in pieces) == lasted
        assert all(before.end_ms == after.start_ms for before, after in pairwise(pieces))
    settled = one.settled
    assert (settled.cost.sum(axis=1) == settled.rated_cost + settled.step_cost.sum(axis=1)).all()
    assert (settled.priced <= settled.metered).all()


@RELAXED
@given(pairs(most=1))
def test_every_interval_keeps_its_energy_to_the_mwh(pair: Pair) -> None:
    [session] = pair.sessions
    so_far = 0
    for count, interval in enumerate(session.intervals, start=1):
        until_here = Session(session.intervals[:count], session.marks, session.reservation)
        metered = int(rated(pair._replace(sessions=[until_here])).pieces.energy_mwh.sum())
        assert metered - so_far == interval.energy_mwh
        so_far = metered


@RELAXED
@given(pairs())
def test_with_tax_is_never_less_than_without_and_never_negative(pair: Pair) -> None:
    settled = rated(pair).settled
    assert (settled.total_excl_e4 >= 0).all()
    assert (settled.total_incl_e4 >= settled.total_excl_e4).all()
    assert (settled.incl_e4 >= settled.excl_e4).all()
    assert (settled.tax_e4 >= 0).all()


@RELAXED
@given(pairs())
def test_the_tax_lines_are_what_lies_between_without_and_with(pair: Pair) -> None:
    settled = rated(pair).settled
    assert (settled.tax_e4.sum(axis=1) == settled.total_incl_e4 - settled.total_excl_e4).all()


def without(tariff: dict[str, Any], *names: str) -> dict[str, Any]:
    """The tariff without some of its restrictions."""
    kept = copy.deepcopy(tariff)
    for element in kept["elements"]:
        for name in names:
            element.get("restrictions", {}).pop(name, None)
    return kept


def with_more(session: Session, which: int, more: int) -> Session:
    """The session with `more` mWh in one of its intervals."""
    raised = list(session.intervals)
    raised[which] = raised[which]._replace(energy_mwh=raised[which].energy_mwh + more)
    return Session(raised, session.marks, session.reservation)


def charged_ms(interval: Interval, marks: Sequence[Mark]) -> int:
    """Charging time of an interval, or its length if nothing charged."""
    edges = [mark.start_ms for mark in marks[1:]] + [interval.end_ms]
    spans = [
        (max(mark.start_ms, interval.start_ms), min(until, interval.end_ms))
        for mark, until in zip(marks, edges, strict=True)
        if mark.state == "CHARGING"
    ]
    return sum(max(0, until - since) for since, until in spans) or interval.end_ms - interval.start_ms


@RELAXED
@given(pairs(most=1), st.integers(0, 3), st.integers(1, 50))
def test_more_energy_never_costs_less_whatever_the_clock_says(pair: Pair, which: int, rate_more: int) -> None:
    """So many mWh more in every charging ms: the curve rises everywhere. (kWh limits could make time cheaper.)"""
    [session] = pair.sessions
    if not session.intervals:
        return
    which %= len(session.intervals)
    more = rate_more * charged_ms(session.intervals[which], session.marks)
    tariff = without(pair.tariff, "min_kwh", "max_kwh")
    both = [session, with_more(session, which, more)]
    less, greater = rated(pair._replace(tariff=tariff, sessions=both)).settled.rated_cost.tolist()
    assert greater >= less


@RELAXED
@given(pairs(most=1), st.integers(0, 3), st.integers(1, 50_000_000))
def test_more_energy_never_costs_less_under_tiers_of_energy(pair: Pair, which: int, more: int) -> None:
    """Where only the energy so far decides, every mWh has its place and its price, whatever comes after it."""
    [session] = pair.sessions
    if not session.intervals:
        return
    others = ("start_time", "end_time", "start_date", "end_date", "day_of_week", "min_duration", "max_duration")
    tariff = without(pair.tariff, *others, "min_power", "max_power", "min_current", "max_current")
    both = [session, with_more(session, which % len(session.intervals), more)]
    less, greater = rated(pair._replace(tariff=tariff, sessions=both)).settled.cost[:, 0].tolist()
    steps = rated(pair._replace(tariff=tariff, sessions=both)).settled.step_cost[:, 0].tolist()
    assert greater - steps[1] >= less - steps[0]


# ---------------------------------------------------------------- batches, versions


def bytes_of(one: Rated) -> bytes:
    """Pieces and settlement as bytes."""
    rows = int(one.sessions.first_piece[-1] + one.sessions.n_pieces[-1])
    columns = [*(column[:rows] for column in one.pieces), *one.settled]
    return b"".join(np.ascontiguousarray(column).tobytes() for column in columns)


def test_one_batch_or_a_thousand_give_the_same_bytes() -> None:
    for pair in random_pairs(seed=9, tariffs=4, sessions_each=250):
        book = sheet_of(pair.tariff, pair.zone, pair.version, pair.sessions)
        together = rate(book, pair.sessions)
        alone = [rate(book, [session]) for session in pair.sessions]
        for column, name in enumerate(Settled._fields):
            parts = np.concatenate([one.settled[column] for one in alone])
            assert parts.tobytes() == np.ascontiguousarray(together.settled[column]).tobytes(), name
        for number, one in enumerate(alone):
            assert one.pieces_of(0) == together.pieces_of(number)


def test_rating_the_same_twice_gives_the_same_bytes() -> None:
    for pair in random_pairs(seed=10, tariffs=10, sessions_each=50):
        assert bytes_of(rated(pair)) == bytes_of(rated(pair))


def test_a_new_version_of_a_tariff_never_changes_a_session_that_began_under_the_old_one() -> None:
    random = Random(12)
    for pair in random_pairs(seed=12, tariffs=30, sessions_each=10):
        instants = [
            at for session in pair.sessions for at in (session.start_ms, *(i.end_ms for i in session.intervals))
        ]
        builder = BookBuilder(min(instants) - 86_400_000, max(instants) + 86_400_000)
        old = builder.add(parse_tariff(pair.tariff, pair.version), "NL*TST*1@1", pair.zone)
        book = builder.book()
        before = rate(book, pair.sessions)
        dearer = copy.deepcopy(pair.tariff)
        for element in dearer["elements"]:
            for component in element["price_components"]:
                component["price"] = round(random.random() * 100, 4)
        new = builder.add(parse_tariff(dearer, pair.version), "NL*TST*1@2", pair.zone)
        assert new != old
        builder.extend(min(instants) - 30 * 86_400_000, max(instants) + 30 * 86_400_000)
        assert bytes_of(rate(builder.book(), pair.sessions)) == bytes_of(before), "the running sessions keep sheet 0"
        assert bytes_of(rate(book, pair.sessions)) == bytes_of(before), "readers of the old book are not disturbed"
        assert builder.add(parse_tariff(pair.tariff, pair.version), "NL*TST*1@1", pair.zone) == old

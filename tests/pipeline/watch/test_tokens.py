from typing import Literal

from msgspec.structs import replace

from pipeline.anomaly.events import SessionEvent
from pipeline.anomaly.tokens import Conflict, TokenLimits, TokenState, observe
from pipeline.watch.handlers import alert_of

MIN = 60_000
DUNDEE, PERTH = ("56.462", "-2.970"), ("56.396", "-3.437")  # 29.7 km apart


def event(
    what: Literal["start", "stop", "credit"],
    key: str,
    at_min: int,
    location: str = "A",
    where: tuple[str, str] = DUNDEE,
) -> SessionEvent:
    return SessionEvent(
        what,
        key,
        f"CP-{location}",
        1,
        at_min * MIN,
        0,
        at_min,
        location,
        "T1",
        where[0],
        where[1],
    )


def found(*events: SessionEvent) -> list[Conflict]:
    state = TokenState()
    return [conflict for one in events for conflict in observe(state, one, TokenLimits())]


def test_one_token_at_two_sites_at_once() -> None:
    [conflict] = found(event("start", "a", 0), event("start", "b", 30, "B", PERTH))
    assert conflict.found
    assert conflict.kind == "token_two_sites"
    assert (conflict.first.session_key, conflict.second.session_key) == ("a", "b")
    assert 28 < conflict.km < 31


def test_a_drive_that_a_car_can_make_is_no_finding() -> None:
    assert not found(event("start", "a", 0), event("stop", "a", 60), event("start", "b", 75, "B", PERTH))


def test_a_drive_that_no_car_can_make_is() -> None:
    [conflict] = found(event("start", "a", 0), event("stop", "a", 60), event("start", "b", 67, "B", PERTH))
    assert conflict.gap_ms == 7 * MIN


def test_what_was_withdrawn_and_is_found_again_is_another_alert() -> None:
    begin = [event("start", "a", 0), event("start", "b", 200, "B", PERTH)]
    steps = found(*begin, event("stop", "a", 100), event("stop", "a", 260), event("stop", "a", 90))
    assert [(one.found, one.number) for one in steps] == [(True, 1), (False, 1), (True, 2), (False, 2)]
    ids = [alert_of(one).alert_id for one in steps]
    assert ids == ["token_two_sites-a-b", "token_two_sites-a-b", "token_two_sites-a-b-2", "token_two_sites-a-b-2"]


def test_a_clock_that_was_wrong_does_not_leave_a_finding_behind() -> None:
    begin = [event("start", "b", 10), event("start", "a", 20, "B", PERTH)]
    corrected = replace(event("stop", "b", 400), start_ms=300 * MIN)
    first, second = found(*begin, event("stop", "a", 60, "B", PERTH), corrected)
    assert (first.found, second.found) == (True, False)
    assert alert_of(first).alert_id == alert_of(second).alert_id


def test_a_stop_that_comes_late_withdraws_the_finding() -> None:
    first, second = found(event("start", "a", 0), event("start", "b", 200, "B", PERTH), event("stop", "a", 100))
    assert first.found
    assert not second.found
    assert first.kind == second.kind == "token_two_sites"


def test_two_outlets_of_one_post_are_two_cars_on_one_card() -> None:
    other = SessionEvent("start", "b", "CP-A", 2, 5 * MIN, 0, 5, "A", "T1")
    assert not found(event("start", "a", 0), other)


def test_two_posts_of_one_site_are_their_own_kind() -> None:
    other = SessionEvent("start", "b", "CP-A2", 1, 5 * MIN, 0, 5, "A", "T1")
    assert [conflict.kind for conflict in found(event("start", "a", 0), other)] == ["token_two_chargers"]


def test_repeats_and_credits_say_nothing_new() -> None:
    start, other = event("start", "a", 0), event("start", "b", 30, "B", PERTH)
    assert len(found(start, other, other, start, event("credit", "b", 40, "B", PERTH))) == 1


def test_a_stop_alone_tells_its_start() -> None:
    alone = SessionEvent("stop", "b", "CP-B", 1, 90 * MIN, 0, 1, "B", "T1", *PERTH, start_ms=30 * MIN)
    assert len(found(event("start", "a", 0), event("stop", "a", 60), alone)) == 1


def test_sites_without_coordinates_are_judged_by_overlap_only() -> None:
    nowhere = ("", "")
    assert len(found(event("start", "a", 0, "A", nowhere), event("start", "b", 5, "B", nowhere))) == 1
    assert not found(
        event("start", "a", 0, "A", nowhere), event("stop", "a", 4, "A", nowhere), event("start", "b", 5, "B", nowhere)
    )


def test_memory_is_bounded_by_time_and_by_token() -> None:
    state = TokenState()
    for day in range(200):
        observe(state, event("start", f"s{day}", day * 1440), TokenLimits())
        observe(state, event("stop", f"s{day}", day * 1440 + 60), TokenLimits())
    assert len(state.visits["T1"]) <= 4

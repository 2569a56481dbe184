"""Policies come through the log and act from their place in it: clocks by device, thresholds; the same in any batch."""

import msgspec
import pytest

from pipeline.metering import kinds
from pipeline.metering.published import parse_policy
from pipeline.reference import POLICY, Change
from tests.pipeline.metering.charger import Charger, Said, at

KWH = 1_000_000
DAY = 24 * 60


def policy(version: int, **stated: object) -> Change:
    """A published metering policy."""
    body = msgspec.json.encode({"policy": "metering", **stated})
    return Change(version, POLICY, "metering", False, body)


def hours_off(**clock: object) -> Charger:
    """A charger whose clock is an hour behind, under a policy that knows it."""
    story = Charger().policy(0, 2, policy(2, clocks=[{"charge_points": ["CP*"], **clock}]))
    return story.start(60, 1_000, late=60).value(65, 1_500, late=60).stop(70, 2_000, late=60)


def span(said: Said) -> tuple[object, object]:
    columns = said.ledger.cdrs[-1].columns
    return columns["start_ms"], columns["end_ms"]


def test_a_clock_with_an_offset_is_set_right() -> None:
    said = hours_off(use="offset", offset_ms=3_600_000).rated()
    assert (said.bills, span(said)) == ([KWH], (at(120), at(130)))
    assert said.flags & kinds.SESSION_TIME_CORRECTED
    assert said.verdicts == ["first", "good", "good"]


def test_a_clock_that_is_not_believed_gives_way_to_the_arrival() -> None:
    story = Charger().policy(0, 2, policy(2, clocks=[{"charge_points": ["CP1"], "use": "arrival"}]))
    said = story.start(60, 1_000, late=61).value(65, 1_500, late=63).stop(70, 2_000, late=60).rated()
    assert (said.bills, span(said)) == ([KWH], (at(121), at(130)))


def test_a_clock_that_is_off_within_bounds_is_believed() -> None:
    clock = {"charge_points": ["CP1"], "use": "arrival", "beyond_ms": 2 * 3_600_000}
    said = Charger().policy(0, 2, policy(2, clocks=[clock])).start(60, 1_000, late=61).stop(70, 2_000, late=60).rated()
    assert (said.bills, span(said)) == ([KWH], (at(60), at(70)))


def test_what_a_rejected_clock_tells_is_set_apart_with_its_bytes() -> None:
    clock = {"charge_points": ["CP1"], "use": "reject", "beyond_ms": 60_000}
    story = Charger().policy(0, 2, policy(2, clocks=[clock]))
    said = story.start(0, 1_000).value(5, 9_000, late=50).stop(60, 2_000).rated()
    assert said.bills == [KWH]
    assert said.outcomes == {"used": 2, "quarantined": 1}
    (row,) = said.ledger.quarantine
    assert (row.action, row.reason) == ("held", "unusable_time")
    assert b'"9000"' in row.raw


def test_a_rule_is_about_the_charge_points_it_names() -> None:
    clock = {"charge_points": ["XY*"], "use": "offset", "offset_ms": 3_600_000}
    said = Charger().policy(0, 2, policy(2, clocks=[clock])).start(0, 1_000).stop(10, 2_000).rated()
    assert span(said) == (at(0), at(10))


def test_a_policy_holds_from_its_place_in_the_log() -> None:
    clock = {"charge_points": ["CP1"], "use": "offset", "offset_ms": -600_000}
    story = Charger().start(0, 1_000).stop(10, 2_000).policy(20, 2, policy(2, clocks=[clock]))
    said = story.start(30, 2_000, txn="8").stop(40, 3_000, txn=8).rated()
    starts = [cdr.columns["start_ms"] for cdr in said.ledger.cdrs]
    assert starts == [at(0), at(20)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_where_a_batch_is_cut_changes_nothing(size: int) -> None:
    clock = {"charge_points": ["CP1"], "use": "offset", "offset_ms": -600_000}
    story = Charger().start(0, 1_000).value(5, 1_500).policy(6, 2, policy(2, clocks=[clock]))
    story.value(30, 1_700).stop(40, 2_000)
    assert span(story.rated(size)) == span(story.rated())
    assert story.rated(size).bills == [KWH]


def test_a_hold_limit_is_a_policy() -> None:
    story = Charger().policy(0, 2, policy(2, hold_limit_ms=7 * DAY * 60_000))
    story.start(0, 910_000).value(30, 911_000).stop(35, 1_411_000)
    assert story.tick(6 * DAY).rated().held
    said = story.tick(8 * DAY).rated()
    assert (said.bills, said.held, said.quarantine[-1][0]) == ([KWH], {}, "expired")


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        ({"policy": "rating"}, r"\$\.policy"),
        ({"policy": "metering", "hold_limit": 1}, r"\$\.hold_limit: no threshold"),
        ({"policy": "metering", "hold_limit_ms": -1}, r"\$\.hold_limit_ms: expected a whole number"),
        ({"policy": "metering", "clocks": [{"charge_points": [], "use": "own"}]}, r"\$\.clocks\[0\]\.charge_points"),
        ({"policy": "metering", "clocks": [{"charge_points": ["A"], "use": "offset"}]}, r"\$\.clocks\[0\]\.offset_ms"),
        ({"policy": "metering", "clocks": [{"charge_points": ["A"], "use": "guess"}]}, "guess"),
    ],
)  # fmt: skip
def test_a_policy_that_can_not_be_meant_says_where(stated: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_policy(msgspec.json.encode(stated))

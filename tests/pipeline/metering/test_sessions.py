"""Sessions: reservations, states told before a start, ids that name two sessions, ends that come late."""

import random
from typing import Any

import pytest

from pipeline.metering import kinds
from pipeline.metering.state import state_bytes
from pipeline.rate.rows import TIME
from tests.pipeline.metering.charger import TARIFF_16, Charger, Found, Said, at

KWH = 1_000_000
RESERVED: dict[str, Any] = {
    **TARIFF_16,
    "elements": [
        {"price_components": [{"type": "TIME", "price": 6.0, "step_size": 1}],
         "restrictions": {"reservation": "RESERVATION"}},
        {"price_components": [{"type": "TIME", "price": 12.0, "step_size": 1}],
         "restrictions": {"reservation": "RESERVATION_EXPIRES"}},
        {"price_components": [{"type": "ENERGY", "price": 0.5, "step_size": 1}]},
    ],
}  # fmt: skip
PARKING: dict[str, Any] = {
    **TARIFF_16,
    "elements": [
        {"price_components": [{"type": "ENERGY", "price": 0.5, "step_size": 1},
                              {"type": "PARKING_TIME", "price": 6.0, "step_size": 1}]},
    ],
}  # fmt: skip


def euros(said: Said) -> float:
    """What stands billed in all."""
    total = 0
    for cdr in said.ledger.cdrs:
        amount = cdr.columns["total_excl_e4"]
        assert isinstance(amount, int)
        total += amount
    return total / 10_000


def reserved() -> Charger:
    """Reserved for ten minutes, then a session of 1 kWh in 2.0.1, whose readings may be told in any order."""
    story = Charger(tariff=RESERVED).status(0, "Reserved").status(9.5, "Preparing")
    return story.event(10, "Started", 0, 1_000).event(15, "Updated", 1, 1_400)


def test_a_reservation_that_is_used_is_billed_with_its_session() -> None:
    said = reserved().event(20, "Ended", 2, 2_000).rated()
    assert said.found.bills == [KWH]
    assert euros(said) == 1.0 + 0.5
    assert sum(row["dimension"] == TIME for row in said.ledger.rated()) == 1


def test_a_reservation_stays_when_a_late_reading_rates_the_session_again() -> None:
    late = reserved().event(18, "Updated", 3, 1_800).event(16, "Updated", 2, 1_600, late=3).event(20, "Ended", 4, 2_000)
    said = late.rated()
    assert "late" in said.verdicts
    assert (said.bills, euros(said)) == ([KWH], 1.5)


def test_a_reservation_told_late_belongs_to_the_session_that_followed() -> None:
    story = Charger(tariff=RESERVED).event(10, "Started", 0, 1_000).status(0, "Reserved", late=12)
    said = story.event(20, "Ended", 2, 2_000).rated()
    assert (said.bills, euros(said)) == ([KWH], 1.5)


def test_a_reservation_that_nobody_came_for_is_billed_alone() -> None:
    said = Charger(tariff=RESERVED).status(0, "Reserved").status(30, "Available").rated()
    assert said.bills == [0]
    assert euros(said) == 6.0
    (cdr,) = said.ledger.cdrs
    assert (cdr.columns["start_ms"], cdr.columns["end_ms"]) == (at(0), at(30))


def suspended(order: int) -> Said:
    """The car is full when it is plugged in: the state comes before the start, or is told after it."""
    story, state = Charger(tariff=PARKING), (9.5, "SuspendedEV")
    if order == 0:
        story.status(*state).start(10, 1_000)
    else:
        story.start(10, 1_000).status(*state, late=1)
    return story.value(20, 1_000).value(30, 1_000).stop(40, 1_000).rated()


@pytest.mark.parametrize("order", [0, 1])
def test_a_state_told_before_the_start_holds_in_the_session(order: int) -> None:
    said = suspended(order)
    (key,) = (cdr.place.session_key for cdr in said.ledger.cdrs)
    standing = said.ledger.standing_cdr(key)
    assert standing is not None
    assert standing.columns["parking_ms"] == 30 * 60_000
    assert euros(said) == 3.0


def test_a_state_of_long_ago_says_nothing_of_a_session() -> None:
    said = Charger(tariff=PARKING).status(0, "SuspendedEV").start(10, 1_000).value(20, 1_100).stop(40, 1_500).rated()
    assert said.ledger.cdrs[-1].columns["parking_ms"] == 0


def test_one_id_on_two_connectors_at_once_is_two_sessions() -> None:
    story = Charger().start(0, 1_000).start(1, 70_000, connector=2)
    story.value(5, 1_500).value(6, 70_300, connector=2).stop(10, 2_000).stop(12, 70_400)
    said = story.rated()
    assert said.found == Found([KWH, 400_000], "first first good good good good", {"used": 6})
    assert [cdr.columns["cdr_id"] for cdr in said.ledger.cdrs] == ["CP1*7", "CP1*7*2"]


def two_at_once() -> list[Charger]:
    """One id on two connectors, each message naming its own."""
    parts = []
    for connector, base in ((1, 10_000), (2, 90_000)):
        evse = {"id": connector, "connectorId": 1}
        one = Charger().event(connector, "Started", 0, base, evse=evse)
        for step in range(1, 6):
            one.event(5 * step + connector, "Updated", step, base + 300 * step, evse=evse)
        parts.append(one.event(40 + connector, "Ended", 6, base + 2_000 * connector, evse=evse))
    return parts


@pytest.mark.parametrize("seed", range(4))
def test_one_id_on_two_connectors_bills_the_same_in_any_arrival_after_the_starts(seed: int) -> None:
    first, second = two_at_once()
    story = Charger()
    starts, records = [first.records[1], second.records[1]], [*first.records[2:], *second.records[2:]]
    random.Random(seed).shuffle(starts)
    random.Random(seed).shuffle(records)
    story.records = [story.records[0], *starts, *records]
    said = story.rated(size=seed + 1)
    standing = [said.ledger.standing_cdr(key) for key in said.ledger.sessions]
    found = {str(one.columns["cdr_id"]): one.energy_mwh for one in standing if one is not None}
    assert found == {"CP1*tx-1": 2 * KWH, "CP1*tx-1*2": 4 * KWH}


def test_a_stop_that_names_no_connector_may_come_before_its_start_on_the_second() -> None:
    story = Charger().start(0, 1_000, txn="8").stop(20, 70_900).start(1, 70_000, connector=2, late=25)
    said = story.stop(30, 1_500, txn=8).rated()
    standing = [said.ledger.standing_cdr(key) for key in said.ledger.sessions]
    assert sorted(one.energy_mwh for one in standing if one is not None) == [500_000, 900_000]


def test_an_id_that_is_used_again_is_another_session() -> None:
    story = Charger().start(0, 1_000).value(5, 1_500).stop(10, 2_000)
    said = story.start(60, 2_000).value(65, 2_200).stop(70, 2_300).rated()
    assert said.found == Found([1_300_000], "first good good first good good", {"used": 6})
    assert len(said.ledger.sessions) == 2
    assert [cdr.columns["energy_mwh"] for cdr in said.ledger.cdrs] == [KWH, 300_000]


def test_a_session_that_a_late_stop_ended_leaves_its_register_to_the_next() -> None:
    story = Charger().event(0, "Started", 0, 1_000).event(10, "Updated", 2, 1_800).event(5, "Updated", 1, 1_400, late=6)
    story.event(12, "Ended", 3, 2_000, late=-2)
    said = story.event(60, "Started", 0, 2_000, txn="tx-2").event(70, "Ended", 1, 2_500, txn="tx-2").rated()
    assert said.bills == [KWH, 500_000]
    assert said.alerts == set()


def test_a_stop_below_the_start_of_a_long_session_is_no_rollover() -> None:
    said = Charger().start(0, 838_000).stop(40 * 60, 830_000).rated()
    assert list(said.held.values()) == ["stop_below_start"]
    assert not said.ledger.cdrs


def test_a_first_sample_a_little_below_the_start_is_no_session_relative_register() -> None:
    said = Charger().start(0, 910_000).value(5, 909_999.6).value(10, 910_500).stop(15, 911_000).rated()
    assert said.found == Found([KWH], "first good good good", {"used": 4})


def test_a_meter_that_was_exchanged_between_sessions_is_no_energy_of_nobody() -> None:
    story = Charger().start(0, 1_000).stop(10, 2_000).start(20, 900_000_000, txn="8").stop(30, 900_001_000, txn=8)
    said = story.rated()
    assert said.bills == [KWH, KWH]
    assert said.alerts == set()


def test_a_state_takes_at_most_512_bytes() -> None:
    assert state_bytes() <= 512


def counter_came_back_lower() -> Charger:
    """After a power cut the register is 1 kWh lower; in the next interval it rises by more than that."""
    story = Charger(max_electric_power=150_000).start(0, 910_000).value(5, 920_000).value(10, 919_000)
    return story.value(15, 929_000).stop(20, 930_000)


def test_a_counter_that_may_have_come_back_lower_is_held_with_what_is_in_doubt() -> None:
    said = counter_came_back_lower().rated()
    assert said.found == Found(
        [], "first good regressed good good", {"used": 4, "quarantined": 1}, held=("unconfirmed_reading",),
        alerts=("counter_rollback",),
    )  # fmt: skip


@pytest.mark.parametrize(("action", "energy_mwh"), [("release", 21 * KWH), ("reject", 20 * KWH)])
def test_what_is_in_doubt_is_billed_or_not_as_a_person_decides(action: str, energy_mwh: int) -> None:
    story = counter_came_back_lower()
    (key,) = story.rated().held
    said = story.decide(30, action, key).rated()
    assert said.bills == [energy_mwh]
    assert said.flags & (kinds.SESSION_RESET | kinds.SESSION_GLITCH)

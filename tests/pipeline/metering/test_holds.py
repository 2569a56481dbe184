"""Which kinds of anomaly hold usage back from billing is a policy, and acts from its place in the log."""

from typing import Any

import msgspec
import pytest

from pipeline.metering.published import parse_policy
from pipeline.reference import POLICY, Change
from tests.pipeline.metering.charger import Charger


def policy(**stated: Any) -> Change:
    return Change(2, POLICY, "metering", False, msgspec.json.encode({"policy": "metering", **stated}))


def stuck(box: Charger) -> Charger:
    """Power is told for two hours while the register stands still at 2 kWh."""
    box.start(1, 1000).value(5, 3000, power=7000)
    for minute in range(10, 130, 10):
        box.value(minute, 3000, power=7000)
    return box.stop(130, 3000)


def too_strong(box: Charger) -> Charger:
    """11 kW can be had, 20 are told, and the register follows."""
    box.start(1, 1000)
    for minute in range(10, 70, 10):
        box.value(minute, 1000 + round(minute * 20_000 / 60), power=20_000)
    return box.stop(70, 1000 + round(70 * 20_000 / 60))


def test_a_stuck_register_holds_unless_the_policy_says_otherwise() -> None:
    held = stuck(Charger()).rated()
    assert (list(held.held.values()), held.bills) == (["stuck_register"], [])
    billed = stuck(Charger().policy(0, 2, policy(holds=["unit_error", "forged_signature"]))).rated()
    assert (billed.held, billed.bills) == ({}, [2_000_000])
    assert "stuck_register" in billed.alerts


@pytest.mark.parametrize("size", [0, 1])
def test_power_above_the_rating_holds_where_the_policy_says_so_and_a_release_bills_all(size: int) -> None:
    billed = too_strong(Charger()).rated(size)
    assert not billed.held
    [energy_mwh] = billed.bills
    box = too_strong(Charger().policy(0, 2, policy(holds=["power_above_rating"])))
    held = box.rated(size)
    assert (list(held.held.values()), held.bills) == (["anomaly"], [])
    [key] = held.held
    released = box.decide(200, "release", key).rated(size)
    assert (released.held, released.bills) == ({}, [energy_mwh])


def test_a_kind_that_is_of_no_session_holds_nothing() -> None:
    with pytest.raises(ValueError, match="'clock_drift' holds no session; there are counter_rollback, energy_above"):
        parse_policy(b'{"policy": "metering", "holds": ["clock_drift"]}')

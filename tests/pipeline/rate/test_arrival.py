"""Readings that arrive in any order, some of them twice, cost the same: CDRs equal, rated amounts net to the same."""

import random
from typing import Any

import pytest

from tests.pipeline.metering.charger import Charger, Said

_STANDS = ("energy_mwh", "total_excl_e4", "total_incl_e4", "start_ms", "end_ms", "charging_ms", "parking_ms")


def session_16() -> Charger:
    """A plain session of OCPP 1.6 with a register every five minutes."""
    story = Charger().start(0, 10_000)
    for step in range(1, 9):
        story.value(5 * step, 10_000 + 400 * step)
    return story.stop(45, 13_500)


def session_201() -> Charger:
    """The same in OCPP 2.0.1; the car pauses in between."""
    story = Charger().event(0, "Started", 0, 10_000)
    for step in range(1, 9):
        story.event(
            5 * step, "Updated", step, 10_000 + 400 * min(step, 5), state="Charging" if step < 5 else "SuspendedEV"
        )
    return story.event(45, "Ended", 9, 12_000)


@pytest.mark.parametrize("story", [session_16, session_201])
@pytest.mark.parametrize("seed", range(6))
def test_any_order_and_any_duplicates_bill_the_same(story: Any, seed: int) -> None:
    ordered, mixed = story(), story()
    chance = random.Random(seed)
    reference, *records = mixed.records
    records += chance.sample(records, 4)
    chance.shuffle(records)
    mixed.records = [reference, *records]
    plain, said = ordered.rated(), mixed.rated(size=seed % 3 * 2 + 1)
    assert _stands(said) == _stands(plain)
    (key,) = plain.ledger.sessions
    assert said.ledger.net(key) == plain.ledger.net(key)


def _stands(said: Said) -> list[list[object]]:
    (key,) = said.ledger.sessions
    cdr = said.ledger.standing_cdr(key)
    assert cdr is not None
    return [[name, cdr.columns[name]] for name in _STANDS]

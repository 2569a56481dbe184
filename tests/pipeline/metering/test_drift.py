"""Meter drift and bypass, from the ratios that a connector's own sessions have: found, said once, not said of noise."""

import math
import random
from collections.abc import Sequence

import pytest

from tests.pipeline.metering.charger import Charger, Said

POWER_W = 7000.0
MINUTES = 10  # between samples


def box(shares: Sequence[float], soc_points: Sequence[int] | None = None) -> Charger:
    """A session for each share: seven samples at full power, of which the register counts only so much."""
    told = Charger()
    register, minute = 10_000.0, 0.0
    for n, share in enumerate(shares):
        text = str(n + 1)
        told.start(minute, round(register), txn=text)
        for k in range(1, 8):
            register += POWER_W * MINUTES / 60 * share
            energy = {"value": str(round(register)), "unit": "Wh"}
            power = {"value": str(POWER_W), "measurand": "Power.Active.Import", "unit": "W"}
            sampled = [energy, power]
            if soc_points is not None:
                sampled.append({"value": str(10 + k * soc_points[n]), "measurand": "SoC", "unit": "Percent"})
            told.values(minute + k * MINUTES, sampled, txn=n + 1)
        told.stop(minute + 71, round(register), txn=n + 1)
        minute += 90
    return told


def alerts(said: Said, kind: str) -> list[int]:
    """The sessions, from 0, that a kind was said of."""
    return [
        int((alert.time_ms - 1_767_600_000_000) / 60_000) // 90 for alert in said.ledger.alerts if alert.kind == kind
    ]


def found_by_twin(shares: Sequence[float]) -> list[int]:
    """The same detector on the ratios themselves, written to be read."""
    found: list[int] = []
    seen, level, spread, low, high = 0, 0.0, 0.0, 0.0, 0.0
    for n, share in enumerate(shares):
        value = math.log(share * 7 / 6)  # the power of the first sample was not known before it
        seen += 1
        if seen == 1:
            level, spread, low, high = value, 0.0, 0.0, 0.0
            continue
        scale = max(1.2533 * spread, 0.03)
        z = max(-4.0, min(4.0, (value - level) / scale))
        level += z * scale / min(seen, 32)
        spread += (abs(z) * scale - spread) / min(seen, 32)
        if seen > 10:
            low, high = max(0.0, low - z - 1.0), max(0.0, high + z - 1.0)
        if max(low, high) > 8.0:
            found.append(n)
            seen = 0
    return found


@pytest.mark.parametrize("lost", [0.1, 0.2, 1 / 3, 0.5])
def test_a_meter_that_loses_a_share_is_found_within_sessions_and_said_once(lost: float) -> None:
    shares = [1.0] * 20 + [1.0 - lost] * 20
    said = alerts(box(shares).rated(), "meter_drift")
    assert len(said) == 1
    assert 20 <= said[0] < 28


def test_the_pass_says_what_its_twin_says() -> None:
    dice = random.Random(4)
    for _ in range(4):
        moved = dice.choice([0.5, 0.8, 1.25])
        shares = [dice.gauss(1.0, 0.04) for _ in range(25)] + [dice.gauss(moved, 0.04) for _ in range(25)]
        assert alerts(box(shares).rated(), "meter_drift") == found_by_twin(shares)


def test_noise_and_single_odd_sessions_are_no_drift() -> None:
    dice = random.Random(9)
    shares = [dice.gauss(1.0, 0.05) for _ in range(60)]
    shares[30] = 0.4
    shares[45] = 2.0
    assert alerts(box(shares).rated(), "meter_drift") == []


def test_more_energy_a_point_of_charge_than_before_is_found_where_the_car_tells_it() -> None:
    points = [12] * 15 + [6] * 20
    assert len(alerts(box([1.0] * 35, points).rated(), "soc_drift")) == 1
    assert alerts(box([1.0] * 35, [12] * 35).rated(), "soc_drift") == []


def test_what_is_found_does_not_depend_on_where_batches_are_cut() -> None:
    shares = [1.0] * 15 + [0.6] * 10
    whole = [alert.alert_id for alert in box(shares).rated().ledger.alerts]
    assert whole == [alert.alert_id for alert in box(shares).rated(17).ledger.alerts]

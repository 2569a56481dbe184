"""Registers that lie, each as users of real systems reported it (design.md section 4): verdict, energy, hold, alert."""

from pipeline.metering import kinds
from tests.pipeline.metering.charger import Charger, Found, at, stamp

KWH = 1_000_000


def test_session_relative_samples_with_a_lifetime_register_in_start_and_stop() -> None:
    said = Charger().start(0, 910_000).value(5, 0).value(10, 400).value(15, 800).stop(20, 911_000).rated()
    assert said.found == Found([KWH], "first good good good good", {"used": 5})
    assert said.flags & kinds.SESSION_RELATIVE


def test_register_resets_on_reboot() -> None:
    said = Charger().start(0, 910_000).value(5, 910_500).value(10, 0).value(15, 600).stop(20, 900).rated()
    assert said.found == Found(
        [1_400_000], "first good regressed good good", {"used": 4, "quarantined": 1}, alerts=("register_reset",)
    )
    assert said.flags & kinds.SESSION_RESET


def test_register_resets_per_transaction() -> None:
    story = Charger().start(0, 0).value(5, 300).stop(10, 700)
    said = story.start(20, 0, txn="8").value(25, 400, txn=8).stop(30, 500, txn=8).rated()
    assert said.found == Found([700_000, 500_000], "first good good first good good", {"used": 6})


def test_begin_is_zero_then_a_large_lifetime_value() -> None:
    said = Charger().start(0, 0).value(5, 910_000).value(10, 910_050).stop(15, 910_083).rated()
    assert said.found == Found([83_000], "first good good good", {"used": 4}, alerts=("zero_baseline",))
    assert said.flags & kinds.SESSION_ZERO_BASELINE


def test_stop_below_start_is_held_with_the_last_good_sample() -> None:
    said = Charger().start(0, 910_000).value(5, 910_500).stop(10, 905_000).rated()
    assert said.found == Found(
        [],
        "first good regressed",
        {"used": 2, "quarantined": 1},
        held=("stop_below_start",),
        alerts=("negative_session",),
    )


def test_stop_minus_one_is_released_with_the_last_good_sample() -> None:
    story = Charger().start(0, 910_000).value(5, 910_500).stop(10, -1)
    (key,) = story.rated().held
    said = story.decide(30, "release", key).rated()
    assert said.found == Found(
        [500_000], "first good regressed", {"used": 2, "quarantined": 1}, alerts=("negative_session",)
    )
    assert said.quarantine == [("held", "stop_below_start"), ("released", "stop_below_start")]


def test_register_drops_to_zero_once() -> None:
    said = Charger().start(0, 910_000).value(5, 910_500).value(10, 0).value(15, 911_000).stop(20, 911_500).rated()
    assert said.found == Found(
        [1_500_000], "first good regressed good good", {"used": 4, "quarantined": 1}, alerts=("counter_rollback",)
    )
    assert said.flags & kinds.SESSION_GLITCH


def test_single_outlier_above() -> None:
    story = Charger().start(0, 910_000).value(5, 910_500).value(10, 3_910_900).value(15, 911_000)
    said = story.stop(20, 911_500).rated()
    assert said.found == Found([1_500_000], "first good suspect good good", {"used": 4, "quarantined": 1})


def test_more_than_the_connector_can_deliver_is_held() -> None:
    said = Charger().start(0, 910_000).value(5, 910_500).stop(10, 1_410_500).rated()
    assert said.found == Found(
        [], "first good suspect", {"used": 2, "quarantined": 1}, held=("register_jump",), alerts=("register_jump",)
    )


def test_energy_flows_between_two_sessions() -> None:
    story = Charger().start(0, 1_000).stop(10, 2_000).start(60, 2_750, txn="8").value(65, 2_900, txn=8)
    said = story.stop(70, 3_000, txn=8).rated()
    assert said.found == Found(
        [KWH, 250_000], "first good first good good", {"used": 5}, alerts=("energy_outside_transaction",)
    )


def test_kwh_labelled_wh() -> None:
    story = Charger().start(0, 910)
    for minute in range(10, 61, 10):
        story.value(minute, 910 + minute // 10, power=6_000)
    said = story.stop(70, 917).rated()
    assert said.found == Found(
        [], "first good good good good good good good", {"used": 8}, held=("unit_error",), alerts=("unit_error",)
    )


def test_power_in_kw_called_watt_is_flagged_and_billed_by_the_register() -> None:
    story = Charger().start(0, 910_000)
    for minute in range(10, 61, 10):
        story.value(minute, 910_000 + minute * 100, power=6)
    said = story.stop(70, 917_000).rated()
    assert said.found == Found(
        [7 * KWH], "first good good good good good good good", {"used": 8}, alerts=("unit_error",)
    )


def test_power_off_by_ten() -> None:
    story = Charger().start(0, 910_000)
    for minute in range(10, 61, 10):
        story.value(minute, 910_000 + minute * 100, power=60_000)
    said = story.stop(70, 917_000).rated()
    assert said.found == Found(
        [7 * KWH], "first good good good good good good good", {"used": 8}, alerts=("power_above_rating", "unit_error")
    )


def test_unit_is_missing() -> None:
    said = Charger().start(0, 1_000).value(5, 1_300, measurand="Energy.Active.Import.Register").stop(10, 2_000).rated()
    assert said.found == Found([KWH], "first good good", {"used": 3})


def test_registers_of_three_phases_without_a_total() -> None:
    def phases(total: int) -> list[dict[str, str]]:
        return [{"value": str(total / 3), "phase": f"L{n}", "unit": "Wh"} for n in (1, 2, 3)]

    said = Charger().start(0, 3_000).values(5, phases(3_600)).values(10, phases(4_200)).stop(15, 4_500).rated()
    assert said.found == Found([1_500_000], "first good good good", {"used": 4})


def test_the_total_is_tagged_with_one_phase() -> None:
    said = Charger().start(0, 3_000).value(5, 3_500, phase="L1").stop(10, 4_000).rated()
    assert said.found == Found([KWH], "first good good", {"used": 3})


def test_rollover_of_23_bits() -> None:
    said = Charger().start(0, 838_800).value(5, 838_860).value(10, 340).stop(15, 500).rated()
    assert said.found == Found([560_800], "first good good good", {"used": 4})
    assert said.flags & kinds.SESSION_ROLLOVER


def test_rollover_before_the_first_sample_is_no_session_relative_register() -> None:
    said = Charger().start(0, 838_500).value(5, 400).stop(10, 900).rated()
    assert said.found == Found([1_260_800], "first good good", {"used": 3})
    assert said.flags & kinds.SESSION_ROLLOVER


def test_a_reset_a_little_below_a_modulus_is_no_rollover() -> None:
    story = Charger().start(0, 836_000).value(5, 836_104)
    said = story.value(15, 0).value(20, 600).stop(25, 900).rated()  # 2,757 Wh in 10 minutes: above 11 kW
    assert said.found == Found(
        [1_004_000], "first good regressed good good", {"used": 4, "quarantined": 1}, alerts=("register_reset",)
    )
    assert not said.flags & kinds.SESSION_ROLLOVER


def test_a_register_of_all_ones_is_no_register() -> None:
    said = Charger().start(0, 1_000).value(5, 0xFFFFFFFF).value(10, 1_500).stop(15, 2_000).rated()
    assert said.found == Found([KWH], "first good good good", {"used": 4})


def test_interval_measurand_instead_of_a_register() -> None:
    story = Charger().start(0, 1_000)
    for minute in (5, 10, 15):
        story.value(minute, 250, measurand="Energy.Active.Import.Interval", unit="Wh")
    said = story.stop(20, 2_000).rated()
    assert said.found == Found([KWH], "first good good good good", {"used": 5})


def test_an_interval_counts_from_the_first_one_where_the_start_told_nothing() -> None:
    story = Charger().event(0, "Started", 0, None)
    for step in range(1, 4):
        value = {"value": 250, "measurand": "Energy.Active.Import.Interval", "unitOfMeasure": {"unit": "Wh"}}
        told = [{"timestamp": stamp(at(5 * step)), "sampledValue": [value]}]
        story.event(5 * step, "Updated", step, None, meterValue=told)
    said = story.event(20, "Ended", 4, None).rated()
    assert said.found == Found([750_000], "first good good good good", {"used": 5})


def test_first_register_missing() -> None:
    story = Charger().event(0, "Started", 0, None).event(5, "Updated", 1, 1_000).event(10, "Updated", 2, 1_400)
    said = story.event(15, "Ended", 3, 1_900).rated()
    assert said.found == Found([900_000], "first first good good", {"used": 4})


def test_last_register_missing() -> None:
    story = Charger().event(0, "Started", 0, 1_000).event(5, "Updated", 1, 1_400)
    said = story.event(10, "Ended", 2, None).rated()
    assert said.found == Found([400_000], "first good good", {"used": 3})


def test_no_register_at_all_is_held() -> None:
    said = Charger().event(0, "Started", 0, None).event(10, "Ended", 1, None).rated()
    assert said.found == Found([], "first good", {"used": 2}, held=("no_register",))


def test_a_gap_is_bridged_by_the_register() -> None:
    said = Charger().start(0, 1_000).value(5, 1_400).value(55, 5_000).stop(60, 5_400).rated()
    assert said.found == Found([4_400_000], "first good good good", {"used": 4})


def test_a_gap_beyond_35_days_is_held_and_billed_when_it_is_released() -> None:
    gap = 36 * 24 * 60
    story = Charger().start(0, 1_000).value(5, 1_400).value(gap, 5_000).stop(gap + 5, 5_400)
    said = story.rated()
    assert said.found == Found([], "first good good good", {"used": 3, "quarantined": 1}, held=("gap_too_long",))
    [(key, held)] = [pair for state in said.drive.engine.partitions.values() for pair in state.held.items()]
    assert held.held_mwh == 3_600_000
    assert story.decide(gap + 60, "release", key).rated().bills == [4_400_000]


def test_a_stop_in_whole_units_says_nothing_of_a_register_that_stands_still() -> None:
    story = Charger().start(0, 100).value(30, 103.5, power=7_000).value(60, 107.206, power=7_000)  # kWh, labelled Wh
    said = story.stop(75, 107).rated()
    assert (said.found.held, said.found.alerts) == (("unit_error",), ("unit_error",))


def test_a_register_that_stands_still_while_power_flows_is_held() -> None:
    story = Charger().start(0, 1_000)
    for minute in range(5, 61, 5):
        story.value(minute, 1_500, power=7_000)
    said = story.stop(65, 1_500).rated()
    assert said.found == Found(
        [],
        "first good good good good good good good good good good good good good",
        {"used": 14},
        held=("stuck_register",),
        alerts=("stuck_register",),
    )

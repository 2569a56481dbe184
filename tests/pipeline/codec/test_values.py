"""What each oddity of a value, a unit, a phase or a timestamp becomes: one test a rule, from the shape reported."""

from typing import Any

import numpy as np
import pytest

from pipeline.metering import columns as c
from pipeline.metering.columns import ABSENT_I64
from tests.pipeline.codec.payloads import (
    EVENT_2,
    FLAT,
    START_MS,
    VALUES_16,
    envelope,
)
from tests.pipeline.codec.single import RECEIVED_MS, REGISTER, flags_of, reason, sample, values16

# --- absent is not 0; defaults of the standard


def test_absent_measurand_unit_and_context_mean_register_wh_periodic() -> None:
    row = sample(values16({"value": "1500"}))
    assert row["register_mwh"] == 1_500_000
    assert row["context"] == c.CONTEXT_PERIODIC
    assert flags_of(row) == c.FLAG_UNIT_DEFAULTED


def test_a_batch_without_energy_has_no_register_which_is_not_0() -> None:
    row = sample(values16({"value": "16", "measurand": "Current.Import", "unit": "A"}))
    assert row["register_mwh"] == ABSENT_I64
    assert flags_of(row) == c.FLAG_NO_ENERGY


@pytest.mark.parametrize("value", [None, ""])
def test_a_register_that_is_null_or_empty_was_not_said(value: Any) -> None:
    row = sample(values16({"value": value, "unit": "Wh"}))
    assert row["register_mwh"] == ABSENT_I64
    assert flags_of(row) & c.FLAG_NO_ENERGY


def test_other_measurands_are_left_alone() -> None:
    others = ["Voltage", "Frequency", "Temperature", "Energy.Active.Export.Register", "Energy.Reactive.Import.Register",
              "Power.Factor", "Power.Offered", "Current.Offered", "RPM", "Energy.Apparent.Net"]  # fmt: skip
    row = sample(values16(*({"value": "7", "measurand": other} for other in others), {"value": "5", "unit": "kWh"}))
    assert row["register_mwh"] == 5_000_000
    assert (row["power_mw"], row["current_ma"], row["soc_permille"]) == (ABSENT_I64, ABSENT_I64, -1)


# --- numbers and units


def test_a_value_is_a_string_in_1_6_and_a_number_in_2_0_1_and_either_is_read_in_both() -> None:
    assert flags_of(sample(values16({"value": "1500", "unit": "Wh"}))) == 0
    assert flags_of(sample(values16({"value": 1500, "unit": "Wh"}))) == c.FLAG_NUMBER_REPAIRED
    event = envelope("2.0.1", "TransactionEvent", EVENT_2)
    assert flags_of(sample(event)) == 0
    event["payload"]["meterValue"][0]["sampledValue"][0]["value"] = "12.345"
    row = sample(event)
    assert row["register_mwh"] == 12_345_000
    assert flags_of(row) == c.FLAG_NUMBER_REPAIRED


def test_a_decimal_comma_is_a_decimal_point() -> None:
    row = sample(values16({"value": "12,345", "unit": "kWh"}))
    assert row["register_mwh"] == 12_345_000
    assert flags_of(row) == c.FLAG_NUMBER_REPAIRED


@pytest.mark.parametrize(
    ("value", "unit", "mwh"),
    [
        ("12.3456789", "kWh", 12_345_678),  # cut, not rounded
        ("0.0009", "Wh", 0),
        ("1e3", "Wh", 1_000_000),
        ("1.5E-3", "kWh", 1_500),
        ("838860.7", "Wh", 838_860_700),
        ("1.25", "MWh", 1_250_000_000),
        ("910031", "Wh", 910_031_000),
        ("007.5", "Wh", 7_500),
    ],
)
def test_energy_is_exact_to_the_mwh(value: str, unit: str, mwh: int) -> None:
    assert sample(values16({"value": value, "unit": unit}))["register_mwh"] == mwh


def test_a_multiplier_of_2_0_1_is_a_power_of_ten() -> None:
    for multiplier, mwh in ((0, 12_345), (3, 12_345_000), (-1, 1_234), (-30, 0)):
        event = envelope("2.0.1", "TransactionEvent", EVENT_2)
        event["payload"]["meterValue"][0]["sampledValue"][0]["unitOfMeasure"] = {"unit": "Wh", "multiplier": multiplier}
        assert sample(event)["register_mwh"] == mwh


@pytest.mark.parametrize("unit", ["varh", "kvarh", "W", "Celsius", "furlong"])
def test_a_register_in_a_unit_that_is_no_energy_is_dropped_and_flagged(unit: str) -> None:
    row = sample(values16({"value": "1500", "unit": unit}))
    assert row["register_mwh"] == ABSENT_I64
    assert flags_of(row) == c.FLAG_VALUE_DROPPED | c.FLAG_NO_ENERGY


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-", "12.34.56", "1,234.5", "0x10", "1" * 65, "1e999", "9" * 20])
def test_energy_that_is_no_number_kills_the_record(value: str) -> None:
    assert reason(values16({"value": value, "unit": "kWh"})) == "bad_number"


@pytest.mark.parametrize("value", ["NaN", "", "1e99", "x"])
def test_power_current_and_soc_that_are_no_numbers_do_no_harm(value: str) -> None:
    row = sample(
        values16(
            {"value": "1500", "unit": "Wh"},
            {"value": value, "measurand": "Power.Active.Import", "unit": "W"},
            {"value": value, "measurand": "Current.Import", "unit": "A"},
            {"value": value, "measurand": "SoC", "unit": "Percent"},
        )
    )
    assert row["register_mwh"] == 1_500_000
    assert (row["power_mw"], row["current_ma"], row["soc_permille"]) == (ABSENT_I64, ABSENT_I64, -1)
    assert flags_of(row) == (c.FLAG_VALUE_DROPPED if value else 0)


@pytest.mark.parametrize(("value", "unit"), [("4294967295", "Wh"), ("4294967.295", "kWh"), ("2147483647", "Wh"),
                                             ("429496729.5", "Wh"), ("4294967295", "kWh")])  # fmt: skip
def test_a_register_of_all_ones_is_a_dead_meter_bus(value: str, unit: str) -> None:
    row = sample(values16({"value": value, "unit": unit}))
    assert row["register_mwh"] == ABSENT_I64
    assert flags_of(row) == c.FLAG_SENTINEL | c.FLAG_NO_ENERGY


def test_the_23_bit_rollover_value_is_an_ordinary_reading_here() -> None:
    assert sample(values16({"value": "838860.7", "unit": "Wh"}))["register_mwh"] == 838_860_700


# --- phases, places, contexts


def phase(number: int, value: str, measurand: str = REGISTER, **more: str) -> dict[str, Any]:
    return {"value": value, "measurand": measurand, "phase": f"L{number}", **more}


def test_per_phase_registers_are_summed_where_there_is_no_total() -> None:
    row = sample(values16(*(phase(number, "1000", unit="Wh") for number in (1, 2, 3))))
    assert row["register_mwh"] == 3_000_000
    assert flags_of(row) == c.FLAG_PHASE_SUM


def test_the_total_comes_before_the_sum_of_phases() -> None:
    row = sample(values16(*(phase(n, "1000", unit="Wh") for n in (1, 2, 3)), {"value": "3001", "unit": "Wh"}))
    assert row["register_mwh"] == 3_001_000
    assert flags_of(row) == 0


def test_a_total_tagged_l1_is_a_total() -> None:
    row = sample(values16(phase(1, "3000", unit="Wh")))
    assert row["register_mwh"] == 3_000_000
    assert flags_of(row) == c.FLAG_TOTAL_ON_PHASE


def test_a_phase_that_is_all_ones_does_not_make_the_sum_smaller() -> None:
    row = sample(values16(phase(1, "1000", unit="Wh"), phase(2, "4294967295", unit="Wh")))
    assert row["register_mwh"] == ABSENT_I64
    assert flags_of(row) & c.FLAG_SENTINEL


def test_current_is_summed_over_phases_and_live_phases_are_counted() -> None:
    row = sample(envelope("1.6", "MeterValues", VALUES_16))
    assert row["current_ma"] == 32_100
    assert (row["phases_said"], row["phases_live"]) == (3, 2)
    assert (row["power_mw"], row["soc_permille"]) == (11_040_000, 550)


def test_the_outlet_comes_before_the_inlet_and_the_ev_is_no_meter() -> None:
    inlet = {"value": "1100", "location": "Inlet", "unit": "Wh"}
    car = {"value": "900", "location": "EV", "unit": "Wh"}
    both = sample(values16(inlet, car, {"value": "1000", "location": "Outlet", "unit": "Wh"}))
    assert (both["register_mwh"], flags_of(both)) == (1_000_000, 0)
    alone = sample(values16(inlet, car))
    assert (alone["register_mwh"], flags_of(alone)) == (1_100_000, c.FLAG_NOT_OUTLET)
    assert flags_of(sample(values16(car))) == c.FLAG_NO_ENERGY


@pytest.mark.parametrize(
    ("contexts", "winner"),
    [
        (["Transaction.Begin", "Sample.Periodic"], c.CONTEXT_BEGIN),
        (["Sample.Clock", "Sample.Periodic"], c.CONTEXT_PERIODIC),
        (["Sample.Periodic", "Transaction.End", "Transaction.Begin"], c.CONTEXT_END),
        (["Trigger", "Sample.Clock"], c.CONTEXT_CLOCK),
        (["Interruption.Begin"], c.CONTEXT_OTHER),
    ],
)
def test_end_begin_periodic_clock_in_that_order_when_they_share_a_bucket(contexts: list[str], winner: int) -> None:
    ranks = {"Transaction.End": 4, "Transaction.Begin": 3, "Sample.Periodic": 2, "Sample.Clock": 1}
    row = sample(values16(*({"value": str(ranks.get(x, 0)), "context": x, "unit": "Wh"} for x in contexts)))
    assert row["context"] == winner
    assert row["register_mwh"] == winner * 1000


def test_an_interval_counts_only_where_there_is_no_register() -> None:
    interval = {"value": "250", "measurand": "Energy.Active.Import.Interval", "unit": "Wh"}
    alone = sample(values16(interval))
    assert (alone["register_mwh"], flags_of(alone)) == (250_000, c.FLAG_INTERVAL_MEASURAND)
    both = sample(values16(interval, {"value": "1000", "unit": "Wh"}))
    assert (both["register_mwh"], flags_of(both)) == (1_000_000, 0)


# --- time


@pytest.mark.parametrize(
    ("text", "offset_ms", "flag"),
    [
        ("2026-01-01T01:00:00+01:00", 0, 0),
        ("2025-12-31T18:30:00.123456789-05:30", 123, 0),
        ("2026-01-01T00:00:00", 0, c.FLAG_TIME_NO_ZONE),
        ("2026-01-01 00:00:00Z", 0, 0),
        ("2026-01-01T00:00Z", 0, 0),
        ("2026-01-01T01:00:00+01", 0, 0),
    ],
)
def test_timestamps_of_every_zone_and_fraction(text: str, offset_ms: int, flag: int) -> None:
    row = sample(values16({"value": "1", "unit": "Wh"}, time=text))
    assert row["time_ms"] == START_MS + offset_ms
    assert flags_of(row) == flag


@pytest.mark.parametrize("text", ["1970-01-01T00:00:00Z", "0000-00-00T00:00:00Z", "2000-01-01T00:00:00Z", "garbage", "",
                                  None, 1767225600, "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z",
                                  "2200-01-01T00:00:00Z"])  # fmt: skip
def test_an_unusable_timestamp_gives_way_to_the_arrival(text: Any) -> None:
    row = sample(values16({"value": "1", "unit": "Wh"}, time=text))
    assert row["time_ms"] == row["received_ms"] == RECEIVED_MS
    assert flags_of(row) == c.FLAG_TIME_UNUSABLE


def test_the_record_time_stands_in_for_a_missing_arrival_and_nothing_for_neither() -> None:
    value = {**FLAT, "timestamp": "1970-01-01T00:00:00Z"}
    assert sample(value, times_ms=np.array([START_MS + 7]))["time_ms"] == START_MS + 7
    assert reason(value) == "no_time"
    assert reason(value, times_ms=np.array([-1])) == "no_time"

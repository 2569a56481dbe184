"""Faults of the register: resets, drops, wrong units, rollovers, values that are no register at all."""

from typing import Final

import numpy as np

from pipeline.simulate import variants
from pipeline.simulate.arrivals import HOUR_MS
from pipeline.simulate.columns import ABSENT_MWH, SAMPLE
from pipeline.simulate.curve import energies_at
from pipeline.simulate.fault import ALL, JSON, OCPP, Draft, Fault, Which
from pipeline.simulate.struck import (
    EDGE,
    START_ONLY,
    STOP_ONLY,
    Struck,
    at_sample,
    change,
    drop,
    everywhere,
    first,
    from_sample,
    kinds,
    samples,
    tell,
)
from rating.columns import I64

ROLLOVER_MWH: Final = 838_860_800  # 2**23 × 0.1 Wh
_SENTINEL_MWH: Final = 0xFFFFFFFF * 1_000
_LARGE_BASE_MWH: Final = 200_000_000

_RELATIVE = "session-relative samples, lifetime register in start/stop"
_RESET = "register resets on reboot or per transaction; counter lost on power cut"
_BEGIN_ZERO = "Begin = 0 then a large lifetime value (someone was billed 910.031 kWh for 0.083)"
_STOP = "stop < start, stop = -1"
_DROP = "register drops to 0 mid-session, single outlier"
_UNIT = "kWh labelled Wh, unit missing, power off by 10 or 1000"
_PHASES = "per-phase registers, total tagged L1"
_SIGNED = "signed value beside a plain one in another unit"
_ROLLOVER = "rollover (23-bit: 838,860.7 Wh), 0xFFFFFFFF"
_INTERVAL = "interval measurand instead of register"
_MISSING = "first/last register of a session missing, gaps"


def _register(struck: Struck) -> I64:
    registers: I64 = struck.get("register_mwh")
    return registers


def _since_start(struck: Struck) -> I64:
    relative: I64 = struck.get("register_mwh") - struck.session["base_mwh"]
    return relative


def _since_reboot(struck: Struck) -> I64:
    base = struck.session["base_mwh"] + struck.energy_at_sample(struck.at - 1)
    after: I64 = struck.get("register_mwh") - base
    return after


def _by_amount(struck: Struck) -> I64:
    changed: I64 = struck.get("register_mwh") + struck.session["amount"]
    return changed


def _power_cut(draft: Draft, which: Which) -> None:
    """No power for one sample interval before the strike, so that no energy falls between two runs."""
    sessions = draft.sessions
    period = sessions["period_ms"][which].astype(np.int64)
    sessions["pause_at_ms"][which] = (sessions["at"][which] - 1) * period - sessions["lead_ms"][which]
    sessions["pause_ms"][which] = period
    sessions["stop_ms"][which] += period


def _long_charge(draft: Draft, which: Which) -> None:
    """Enough to be told with power at least twice: registers alone do not say what unit they are in."""
    sessions = draft.sessions
    least = sessions["power_mw"][which] // HOUR_MS * (4 * sessions["period_ms"][which].astype(np.int64))
    sessions["target_mwh"][which] = np.maximum(sessions["target_mwh"][which], least)


def _stays_for_it(draft: Draft, which: Which) -> None:
    sessions = draft.sessions
    least = sessions["start_ms"][which] + 3 * sessions["period_ms"][which].astype(np.int64)
    sessions["stop_ms"][which] = np.maximum(sessions["stop_ms"][which], least)


def _starts_from_zero(draft: Draft, which: Which) -> None:
    draft.after_mwh[which] = draft.sessions["energy_mwh"][which]


def _restarts(draft: Draft, which: Which) -> None:
    sessions = draft.sessions[which]
    k = sessions["at"] - 1
    before = energies_at(sessions, sessions["start_ms"] + k.astype(np.int64) * sessions["period_ms"])
    draft.after_mwh[which] = sessions["energy_mwh"] - before


def _falls_back(draft: Draft, which: Which) -> None:
    amount = -(1_000_000 + draft.sessions["number"][which] % 8 * 1_000_000)
    draft.sessions["amount"][which] = amount
    draft.after_mwh[which] += amount


def _below_start(draft: Draft, which: Which) -> None:
    sessions = draft.sessions
    under = 1_000_000 + sessions["number"][which] % 5 * 1_000_000
    sessions["amount"][which] = -(sessions["energy_mwh"][which] + under)


def _rolls_over(draft: Draft, which: Which) -> None:
    """Label the sessions in which the meter wraps; whole-Wh meters must stop at a whole Wh after it."""
    sessions = draft.sessions
    base, energy = sessions["base_mwh"][which], sessions["energy_mwh"][which]
    wraps = base // ROLLOVER_MWH != (base + energy) // ROLLOVER_MWH
    whole = wraps & (sessions["resolution_mwh"][which] == 1_000)
    energy = np.where(whole, np.maximum(energy // 1_000 * 1_000 - 200, 0), energy)
    wraps = base // ROLLOVER_MWH != (base + energy) // ROLLOVER_MWH
    energy = np.where(whole & ~wraps, energy // 1_000 * 1_000, energy)
    sessions["energy_mwh"][which] = energy
    draft.after_mwh[which] = base + energy
    draft.expected_mwh[which] = energy
    draft.labelled[which] = wraps


def _previous(struck: Struck) -> I64:
    before = np.maximum(struck.get("k") - 1, 0).astype(np.int32)
    stale: I64 = struck.session["base_mwh"] + struck.energy_at_sample(before)
    return stale


def _of_interval(struck: Struck) -> I64:
    return _register(struck) - _previous(struck)


_ALL_VALUES = kinds(SAMPLE)

REGISTER_FAULTS: Final = (
    Fault(
        "session_relative",
        _RELATIVE,
        "samples count from 0, start and stop tell the lifetime register",
        change("register_mwh", samples, _since_start),
        shapes=ALL,
        base_mwh_min=_LARGE_BASE_MWH,
    ),
    Fault(
        "reset_per_transaction",
        _RESET,
        "the register starts from 0 with this transaction and goes on from there",
        change("register_mwh", everywhere, _since_start),
        after=_starts_from_zero,
        shapes=ALL,
        may=("register_reset",),
    ),
    Fault(
        "reset_on_reboot",
        _RESET,
        "after a power cut the register counts from 0",
        change("register_mwh", from_sample, _since_reboot),
        before=_power_cut,
        after=_restarts,
        shapes=ALL,
        base_mwh_min=_LARGE_BASE_MWH,
        may=("register_reset",),
    ),
    Fault(
        "counter_lost",
        _RESET,
        "after a power cut the register comes back 1 to 8 kWh lower: an older stored value",
        change("register_mwh", from_sample, _by_amount),
        before=_power_cut,
        after=_falls_back,
        shapes=ALL,
        base_mwh_min=_LARGE_BASE_MWH,
        alerts=("counter_rollback|register_reset",),
        outcome="billed_or_held",
    ),
    Fault(
        "begin_zero",
        _BEGIN_ZERO,
        "the start tells 0, every later value the lifetime register",
        change("register_mwh", START_ONLY, lambda struck: 0),
        base_mwh_min=_LARGE_BASE_MWH,
        alerts=("zero_baseline",),
    ),
    Fault(
        "stop_below_start",
        _STOP,
        "the stop tells 1 to 5 kWh less than the start",
        change("register_mwh", STOP_ONLY, _by_amount),
        after=_below_start,
        base_mwh_min=_LARGE_BASE_MWH,
        outcome="held",
        may=("negative_session",),
    ),
    Fault(
        "stop_minus_one",
        _STOP,
        "the stop tells -1",
        change("register_mwh", STOP_ONLY, lambda struck: -1_000),
        outcome="held",
        may=("negative_session",),
    ),
    Fault(
        "drop_to_zero",
        _DROP,
        "one sample tells 0",
        change("register_mwh", at_sample, lambda struck: 0),
        shapes=ALL,
        base_mwh_min=_LARGE_BASE_MWH,
        may=("counter_rollback",),
    ),
    Fault(
        "outlier",
        _DROP,
        "one sample tells 3,000 kWh too much",
        change("register_mwh", at_sample, lambda struck: _register(struck) + 3_000_000_000),
        shapes=ALL,
    ),
    Fault(
        "kwh_labelled_wh",
        _UNIT,
        "this charge point tells kWh and calls them Wh: every register is a thousandth",
        change("register_mwh", everywhere, lambda struck: _register(struck) // 1_000),
        scope="charge_point",
        shapes=ALL,
        outcome="held",
        alerts=("unit_error",),
        draw=_long_charge,
        before=_stays_for_it,
    ),
    Fault("unit_missing", _UNIT, "registers without a unit", tell(variants.UNIT_MISSING, _ALL_VALUES), shapes=OCPP),
    Fault(
        "power_times_10",
        _UNIT,
        "power in tenths of a watt, called W",
        change("power_mw", everywhere, lambda struck: struck.get("power_mw") * 10),
        shapes=ALL,
        alerts=("unit_error|power_above_rating",),
        may=("unit_error", "power_above_rating"),
    ),
    Fault(
        "power_in_kw",
        _UNIT,
        "power in kW, called W",
        change("power_mw", everywhere, lambda struck: struck.get("power_mw") // 1_000),
        shapes=ALL,
        alerts=("unit_error",),
    ),
    Fault("per_phase", _PHASES, "three registers, no total", tell(variants.PER_PHASE, _ALL_VALUES), shapes=OCPP),
    Fault("total_on_l1", _PHASES, "the total is tagged L1", tell(variants.TOTAL_ON_L1, _ALL_VALUES), shapes=OCPP),
    Fault(
        "signed_beside_plain",
        _SIGNED,
        "an OCMF value beside a plain one in another unit",
        tell(variants.SIGNED, first(EDGE, at_sample)),
        shapes=OCPP,
    ),
    Fault(
        "rollover_23bit",
        _ROLLOVER,
        "this charge point's registers wrap after 838,860.7 Wh",
        change("register_mwh", everywhere, lambda struck: _register(struck) % ROLLOVER_MWH),
        after=_rolls_over,
        scope="charge_point",
        shapes=ALL,
    ),
    Fault(
        "sentinel",
        _ROLLOVER,
        "one sample tells 0xFFFFFFFF",
        change("register_mwh", at_sample, lambda struck: _SENTINEL_MWH),
        wh_unit=True,
    ),
    Fault(
        "interval_measurand",
        _INTERVAL,
        "samples tell the energy of their interval",
        lambda struck: _tell_intervals(struck),
        shapes=OCPP,
    ),
    Fault(
        "first_register_missing",
        _MISSING,
        "the start tells no register",
        change("register_mwh", START_ONLY, lambda struck: ABSENT_MWH),
        shapes=JSON - {"ocpp16"},
    ),
    Fault(
        "last_register_missing",
        _MISSING,
        "the stop tells no register",
        change("register_mwh", STOP_ONLY, lambda struck: ABSENT_MWH),
        shapes=JSON - {"ocpp16"},
    ),
    Fault("gap", _MISSING, "one sample is never sent", drop(at_sample), shapes=ALL),
)


def _tell_intervals(struck: Struck) -> None:
    change("register_mwh", _ALL_VALUES, _of_interval)(struck)
    tell(variants.INTERVAL, _ALL_VALUES)(struck)

"""Anomalies of section 6 of the design that are not a misreported message: what the energy itself gives away."""

from typing import Final

import numpy as np

from pipeline.simulate import variants
from pipeline.simulate.columns import SAMPLE
from pipeline.simulate.curve import energies_at
from pipeline.simulate.fault import ALL, OCPP, Draft, Fault, Which
from pipeline.simulate.struck import (
    EDGE,
    STOP_ONLY,
    Struck,
    at_sample,
    change,
    drop,
    everywhere,
    first,
    from_sample,
    run_of_samples,
    tell,
)
from rating.columns import I64

ZERO_RUN: Final = 5  # sessions in a row
_ZERO_EVERY: Final = 12
_SILENT_SAMPLES: Final = 24


def _struck_energy(draft: Draft, which: Which) -> I64:
    sessions = draft.sessions[which]
    return energies_at(sessions, sessions["start_ms"] + sessions["at"].astype(np.int64) * sessions["period_ms"])


def _stays(draft: Draft, which: Which) -> None:
    metered = _struck_energy(draft, which)
    draft.after_mwh[which] = draft.sessions["base_mwh"][which] + metered
    draft.expected_mwh[which] = metered


def _stuck_register(struck: Struck) -> I64:
    stuck: I64 = struck.session["base_mwh"] + struck.energy_at_sample(struck.at)
    return stuck


def _too_strong(draft: Draft, which: Which) -> None:
    draft.sessions["power_mw"][which] = draft.rating_mw[which] * 8 // 5


def _impossible(draft: Draft, which: Which) -> None:
    draft.sessions["amount"][which] = 500_000_000
    draft.after_mwh[which] += 500_000_000


def _by_amount(struck: Struck) -> I64:
    changed: I64 = struck.get("register_mwh") + struck.session["amount"]
    return changed


def _stay_longer(draft: Draft, which: Which) -> None:
    draft.sessions["stop_ms"][which] += 14 * 3_600_000


def _long_enough(draft: Draft, which: Which) -> None:
    sessions = draft.sessions
    sessions["stop_ms"][which] += (_SILENT_SAMPLES + 2) * sessions["period_ms"][which].astype(np.int64)


def _drifted_ms(draft: Draft, which: Which) -> None:
    """3,000 ppm slow: about 4 minutes a day since the run began."""
    since = draft.sessions["start_ms"][which] - draft.run_start_ms
    draft.sessions["amount"][which] = since * 3 // 1_000
    draft.labelled[which] = since > 24 * 3_600_000


def _drifting(struck: Struck) -> I64:
    within = (struck.get("time_ms") - struck.session["start_ms"]) * 3 // 1_000
    slow: I64 = struck.get("time_ms") - struck.session["amount"] - within
    return slow


def _nothing(draft: Draft, which: Which) -> None:
    """Five sessions of 0 kWh in a row, then seven good ones."""
    zero = draft.count[which] % _ZERO_EVERY < ZERO_RUN
    draft.sessions["target_mwh"][which[zero]] = 0
    draft.labelled[which] = zero


def _leaks(draft: Draft, which: Which) -> None:
    """From the middle of the run on the register counts 50 to 90 % of what flows."""
    sessions = draft.sessions
    late = sessions["start_ms"][which] >= (draft.run_start_ms + draft.run_stop_ms) // 2
    permille = np.where(late, 500 + draft.own[which] % 5 * 100, 1_000)
    sessions["amount"][which] = permille
    counted = _counted(sessions["energy_mwh"][which], permille, sessions["resolution_mwh"][which])
    draft.after_mwh[which] = sessions["base_mwh"][which] + counted
    draft.expected_mwh[which] = counted
    draft.labelled[which] = late


def _counted(energy_mwh: I64, permille: I64, resolution_mwh: I64) -> I64:
    return energy_mwh * permille // 1_000 // resolution_mwh * resolution_mwh


def _counted_register(struck: Struck) -> I64:
    session = struck.session
    energy = struck.get("register_mwh") - session["base_mwh"]
    told: I64 = session["base_mwh"] + _counted(energy, session["amount"], session["resolution_mwh"])
    return told


ANOMALIES: Final = (
    Fault(
        "stuck_register",
        "stuck register while power flows",
        "the register stands still from one sample on",
        change("register_mwh", from_sample, _stuck_register),
        after=_stays,
        shapes=ALL,
        outcome="billed_or_held",
        alerts=("stuck_register",),
        strikes=(0.2, 0.35),
        energy_mwh_min=5_000_000,
    ),
    Fault(
        "power_above_rating",
        "power above the connector's rating",
        "power of 1.6 times the rating, and the energy to it",
        draw=_too_strong,
        shapes=ALL,
        outcome="billed_or_held",
        alerts=("power_above_rating",),
        may=("energy_above_rating",),
    ),
    Fault(
        "energy_impossible",
        "session energy above rating × duration",
        "the stop tells 500 kWh too much, and the meter goes on from there",
        change("register_mwh", STOP_ONLY, _by_amount),
        after=_impossible,
        shapes=ALL,
        outcome="held",
        alerts=("energy_above_rating|register_jump",),
        may=("energy_above_rating", "register_jump", "power_above_rating"),
    ),
    Fault(
        "forged_signature",
        "forged signature",
        "signed values were changed after signing",
        tell(variants.FORGED, first(EDGE, at_sample)),
        shapes=OCPP,
        outcome="held",
        alerts=("forged_signature",),
        may=("counter_rollback", "register_reset"),
    ),
    Fault(
        "phase_loss",
        "phase loss",
        "one of three phases carries no current from one sample on",
        tell(variants.PHASE_LOST, lambda struck: from_sample(struck) & (struck.get("kind") == SAMPLE)),
        shapes=OCPP,
        currents=True,
        strikes=(0.2, 0.4),
        alerts=("phase_loss",),
    ),
    Fault(
        "idle_overstay",
        "idle overstay",
        "the car stays 14 hours after it is full",
        before=_stay_longer,
        shapes=ALL,
        alerts=("idle_overstay",),
    ),
    Fault(
        "clock_drift",
        "clock drift (CUSUM or Page-Hinkley on arrival − event time of live messages)",
        "this charge point's clock loses 4 minutes a day",
        change("time_ms", everywhere, _drifting),
        before=_drifted_ms,
        scope="charge_point",
        shapes=ALL,
        alerts=("clock_drift",),
    ),
    Fault(
        "silence",
        "silence (no message for 3× the learned interval)",
        "24 samples in a row are never sent",
        drop(run_of_samples(_SILENT_SAMPLES)),
        before=_long_enough,
        shapes=ALL,
        alerts=("silence",),
        strikes=(0.2, 0.6),
        may=("idle_overstay",),
    ),
    Fault(
        "token_two_sites",
        "one token at two sites at once or faster than 150 km/h between them",
        "a token that is charging in another city",
        shapes=ALL,
        alerts=("token_two_sites",),
    ),
    Fault(
        "zero_kwh_run",
        "run of zero-kWh sessions",
        "five sessions of 0 kWh in a row, again and again, at this charge point",
        draw=_nothing,
        scope="charge_point",
        shapes=ALL,
        alerts=("zero_kwh_run",),
    ),
    Fault(
        "meter_drift",
        "meter drift or bypass",
        "from the middle of the run this charge point counts only 50 to 90 % of what flows",
        change("register_mwh", everywhere, _counted_register),
        after=_leaks,
        scope="charge_point",
        shapes=ALL,
        may=("meter_drift",),
    ),
)

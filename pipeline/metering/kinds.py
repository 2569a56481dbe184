"""The codes that metering speaks: verdicts, dispositions, hold reasons and alert kinds, with their names."""

from typing import Final

# Verdict: what metering says of a reading (the numbers are those of the ledger's Enum8).
FIRST: Final = 1
GOOD: Final = 2
DUPLICATE: Final = 3
LATE: Final = 4
REGRESSED: Final = 5
GAP: Final = 6
SUSPECT: Final = 7
IGNORED: Final = 8
VERDICTS: Final = ("", "first", "good", "duplicate", "late", "regressed", "gap", "suspect", "ignored")

# Disposition: where the energy between this register and the one before went.
NOWHERE: Final = 0
RATED: Final = 1
HELD: Final = 2
REJECTED: Final = 3
OUTSIDE: Final = 4
UNEXPLAINED: Final = 5
DISPOSITIONS: Final = ("none", "rated", "held", "rejected", "outside", "unexplained")

# Why usage is held back from billing.
HOLD_NONE: Final = 0
HOLD_UNKNOWN_TARIFF: Final = 1
HOLD_REGISTER_JUMP: Final = 2
HOLD_STOP_BELOW_START: Final = 3
HOLD_UNCONFIRMED: Final = 4
HOLD_FORGED: Final = 5
HOLD_UNIT_ERROR: Final = 6
HOLD_STUCK: Final = 7
HOLD_NO_REGISTER: Final = 8
HOLD_TIME: Final = 9
HOLD_GAP: Final = 10
HOLD_NO_START: Final = 11
HOLD_NO_STOP: Final = 12
HOLD_BOUNDS: Final = 13
HOLD_ANOMALY: Final = 14
HOLD_REASONS: Final = (
    "",
    "unknown_tariff",
    "register_jump",
    "stop_below_start",
    "unconfirmed_reading",
    "forged_signature",
    "unit_error",
    "stuck_register",
    "no_register",
    "unusable_time",
    "gap_too_long",
    "no_start",
    "no_stop",
    "out_of_bounds",
    "anomaly",
)

# Alert kinds of one connector.
COUNTER_ROLLBACK: Final = 0
STUCK_REGISTER: Final = 1
UNIT_ERROR: Final = 2
POWER_ABOVE_RATING: Final = 3
ENERGY_ABOVE_RATING: Final = 4
OUTSIDE_TRANSACTION: Final = 5
FORGED_SIGNATURE: Final = 6
PHASE_LOSS: Final = 7
IDLE_OVERSTAY: Final = 8
CLOCK_DRIFT: Final = 9
SILENCE: Final = 10
ZERO_KWH_RUN: Final = 11
REGISTER_RESET: Final = 12
REGISTER_JUMP: Final = 13
LOST_STOP: Final = 14
LOST_START: Final = 15
UNKNOWN_REFERENCE: Final = 16
UNUSABLE_TIME: Final = 17
NEGATIVE_SESSION: Final = 18
ZERO_BASELINE: Final = 19
METER_DRIFT: Final = 20
SOC_DRIFT: Final = 21
ALERT_KINDS: Final = (
    "counter_rollback",
    "stuck_register",
    "unit_error",
    "power_above_rating",
    "energy_above_rating",
    "energy_outside_transaction",
    "forged_signature",
    "phase_loss",
    "idle_overstay",
    "clock_drift",
    "silence",
    "zero_kwh_run",
    "register_reset",
    "register_jump",
    "lost_stop",
    "lost_start",
    "unknown_reference",
    "unusable_time",
    "negative_session",
    "zero_baseline",
    "meter_drift",
    "soc_drift",
)
MAINTENANCE: Final = "maintenance"  # no anomaly: a mute, kept beside the alerts that it keeps back
CRITICAL: Final = frozenset(
    {
        COUNTER_ROLLBACK,
        STUCK_REGISTER,
        UNIT_ERROR,
        ENERGY_ABOVE_RATING,
        FORGED_SIGNATURE,
        REGISTER_JUMP,
        NEGATIVE_SESSION,
    }
)
# Kinds whose sessions a policy may hold or bill; the first three have a hold reason of their own, and hold by default.
HELD_BY_DEFAULT: Final = (STUCK_REGISTER, UNIT_ERROR, FORGED_SIGNATURE)
HOLDABLE: Final = (*HELD_BY_DEFAULT, POWER_ABOVE_RATING, ENERGY_ABOVE_RATING, PHASE_LOSS, COUNTER_ROLLBACK)
ENDS_WITH_SESSION: Final = (PHASE_LOSS, IDLE_OVERSTAY)  # resolved when the car leaves
# What a held session was said for: resolved when a person, a later reading or the hold limit decides.
ALERT_OF_HOLD: Final = {
    HOLD_REASONS[HOLD_UNKNOWN_TARIFF]: ALERT_KINDS[UNKNOWN_REFERENCE],
    HOLD_REASONS[HOLD_REGISTER_JUMP]: ALERT_KINDS[REGISTER_JUMP],
    HOLD_REASONS[HOLD_STOP_BELOW_START]: ALERT_KINDS[NEGATIVE_SESSION],
    HOLD_REASONS[HOLD_FORGED]: ALERT_KINDS[FORGED_SIGNATURE],
    HOLD_REASONS[HOLD_UNIT_ERROR]: ALERT_KINDS[UNIT_ERROR],
    HOLD_REASONS[HOLD_STUCK]: ALERT_KINDS[STUCK_REGISTER],
}
INFO: Final = frozenset({REGISTER_RESET, LOST_STOP, LOST_START, IDLE_OVERSTAY, ZERO_BASELINE, UNUSABLE_TIME})

# Flags of a session and its rated rows; those of a sample are in `columns`.
SESSION_LOST_START: Final = 1 << 0
SESSION_LOST_STOP: Final = 1 << 1
SESSION_RESET: Final = 1 << 2
SESSION_ROLLOVER: Final = 1 << 3
SESSION_RELATIVE: Final = 1 << 4
SESSION_CORRECTED: Final = 1 << 5
SESSION_GLITCH: Final = 1 << 6
SESSION_OFFLINE: Final = 1 << 7
SESSION_TIME_CORRECTED: Final = 1 << 8
SESSION_ZERO_BASELINE: Final = 1 << 9

# What the pass could not do with what it has at hand, and leaves to `rerate`.
WHY_LATE: Final = 1
WHY_MARKS: Final = 2
WHY_OTHER_SESSION: Final = 3
WHY_DIRTY: Final = 4  # an earlier sample of the connector is deferred

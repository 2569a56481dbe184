"""The sample: what any OCPP message, flat JSON or Arrow batch becomes before metering looks at it.

Only layout lives here. One Kafka record gives one or more samples (its lines), in the order in which
they count. Energy mWh, power mW, current mA, instants UTC ms. ABSENT_I64 marks what was not said.
"""

from typing import Final

import numpy as np

ABSENT_I64: Final = np.iinfo(np.int64).min

# kind: what the message did to its session
KIND_SAMPLE: Final = 0  # a meter value inside (or outside) a session
KIND_START: Final = 1  # StartTransaction; TransactionEvent Started
KIND_STOP: Final = 2  # StopTransaction; TransactionEvent Ended
KIND_STATUS: Final = 3  # StatusNotification: a state, no transaction
KIND_RESERVE: Final = 4  # a reservation begins (status Reserved)
KIND_TICK: Final = 5  # a control record of the log: time has passed

# state of the connector as the message tells it
STATE_UNKNOWN: Final = -1
STATE_CHARGING: Final = 0
STATE_SUSPENDED_EV: Final = 1
STATE_SUSPENDED_EVSE: Final = 2
STATE_FINISHING: Final = 3
STATE_AVAILABLE: Final = 4
STATE_PREPARING: Final = 5
STATE_RESERVED: Final = 6
STATE_FAULTED: Final = 7  # also Unavailable

# context, ranked: the higher wins when two samples of one instant differ (End > Begin > Periodic > Clock > other)
CONTEXT_OTHER: Final = 0
CONTEXT_CLOCK: Final = 1
CONTEXT_PERIODIC: Final = 2
CONTEXT_BEGIN: Final = 3
CONTEXT_END: Final = 4

# signed: what verification said of the value that is billed
SIGNED_NONE: Final = 0
SIGNED_VERIFIED: Final = 1
SIGNED_UNVERIFIABLE: Final = 2
SIGNED_FORGED: Final = 3

# flags: facts that the decoder saw and metering, rating or support will want to know
FLAG_OFFLINE: Final = 1 << 0  # replayed by the charger after an outage
FLAG_PHASE_SUM: Final = 1 << 1  # register is the sum of per-phase registers
FLAG_INTERVAL_MEASURAND: Final = 1 << 2  # register_mwh is energy of an interval, not a register
FLAG_NUMBER_REPAIRED: Final = 1 << 3  # decimal comma, or a number where the standard wants a string
FLAG_TIME_NO_ZONE: Final = 1 << 4  # the timestamp had no zone: read as UTC
FLAG_TIME_UNUSABLE: Final = 1 << 5  # missing, 1970, 0000-00-00, unparsable: time_ms is the arrival time
FLAG_TXN_UNUSABLE: Final = 1 << 6  # transaction id missing, -1, 0, 2^63-1: match by connector and time
FLAG_SENTINEL: Final = 1 << 7  # a register of all ones (0xFFFFFFFF, ...) was dropped
FLAG_UNIT_DEFAULTED: Final = 1 << 8  # no unit was given: the standard's default was taken
FLAG_TOTAL_ON_PHASE: Final = 1 << 9  # the only register was tagged with one phase and taken as the total
FLAG_NO_ENERGY: Final = 1 << 10  # a meter value without any energy register: absent is not 0
FLAG_NEGATIVE: Final = 1 << 11  # the register was negative (stop = -1): register_mwh is ABSENT
FLAG_TIME_CORRECTED: Final = 1 << 12  # the device's clock policy moved the instant
FLAG_VALUE_DROPPED: Final = 1 << 13  # a power, current, SoC, state or unit was unusable and left out
FLAG_NOT_OUTLET: Final = 1 << 14  # the register was measured at Inlet or Cable: no Outlet value came along
FLAG_WHOLE_WH: Final = 1 << 15  # the register is known to whole Wh only (OCPP 1.6 meterStart, meterStop)

SAMPLE_DTYPE = np.dtype(
    [
        ("offset", np.int64),  # of the Kafka record
        ("time_ms", np.int64),  # event time, UTC; see FLAG_TIME_UNUSABLE
        ("received_ms", np.int64),  # when the gateway had it
        ("register_mwh", np.int64),  # Energy.Active.Import.Register, or ABSENT_I64
        ("power_mw", np.int64),  # Power.Active.Import, or ABSENT_I64
        ("current_ma", np.int64),  # Current.Import summed over phases, or ABSENT_I64
        ("txn_hash", np.uint64),  # of the transaction id; 0 = unusable
        ("line", np.int32),  # of the sample in its record
        ("charge_point", np.int32),  # index into Decoded.charge_points
        ("connector_id", np.int32),  # OCPP 1.6 connector; 2.x EVSE; 0 = the whole charge point
        ("token", np.int32),  # index into Decoded.tokens; -1 = none given
        ("seq_no", np.int32),  # OCPP 2.x; -1 = none
        ("flags", np.uint32),
        ("soc_permille", np.int16),  # -1 = not said
        ("kind", np.int8),
        ("context", np.int8),
        ("state", np.int8),
        ("signed", np.int8),
        ("phases_live", np.int8),  # phases with current > 0 of those reported; -1 = not said
        ("phases_said", np.int8),
    ],
    align=True,
)

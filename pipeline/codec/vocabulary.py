"""The words of OCPP and the numbers they become. Words that are not here are of no use to billing."""

from typing import Final

from pipeline.metering import columns

# quantity: the measurands that are read; all others are left alone
REGISTER: Final = 0
INTERVAL: Final = 1
POWER: Final = 2
CURRENT: Final = 3
SOC: Final = 4

MEASURANDS: Final = {
    "Energy.Active.Import.Register": REGISTER,
    "Energy.Active.Import.Interval": INTERVAL,
    "Power.Active.Import": POWER,
    "Current.Import": CURRENT,
    "SoC": SOC,
}
DEFAULT_MEASURAND: Final = "Energy.Active.Import.Register"  # OCPP 1.6 and 2.x: absent means this

# Decimal places from a unit to mWh, mW, mA or permille, by quantity. An absent unit is the standard's default.
# Case is often wrong in the field; only mWh and MWh are told apart by it.
_ENERGY_UNITS: Final = {"Wh": 3, "WH": 3, "wh": 3, "kWh": 6, "KWH": 6, "kwh": 6, "KWh": 6, "MWh": 9, "mWh": 0}
UNITS: Final[dict[int, dict[str, int]]] = {
    REGISTER: _ENERGY_UNITS,
    INTERVAL: _ENERGY_UNITS,
    POWER: {"W": 3, "w": 3, "kW": 6, "KW": 6, "kw": 6},
    CURRENT: {"A": 3, "a": 3, "mA": 0},
    SOC: {"Percent": 1, "percent": 1, "%": 1},
}
DEFAULT_PLACES: Final = {REGISTER: 3, INTERVAL: 3, POWER: 3, CURRENT: 3, SOC: 1}

CONTEXTS: Final = {
    "Transaction.End": columns.CONTEXT_END,
    "Transaction.Begin": columns.CONTEXT_BEGIN,
    "Sample.Periodic": columns.CONTEXT_PERIODIC,
    "Sample.Clock": columns.CONTEXT_CLOCK,
}

# Phase 0 is the total. Line-to-line values and the neutral measure nothing that is billed.
PHASES: Final = {"L1": 1, "L2": 2, "L3": 3, "L1-N": 1, "L2-N": 2, "L3-N": 3}

# Where it was measured: the outlet is what the driver got; EV, Body and Upstream are not meters of ours.
OUTLET: Final = 0
ELSEWHERE: Final = 1
LOCATIONS: Final = {"Outlet": OUTLET, "Inlet": ELSEWHERE, "Cable": ELSEWHERE}

# ChargePointStatus (1.6), ConnectorStatusEnumType and ChargingStateEnumType (2.x), and the flat form's `state`.
STATES: Final = {
    "Charging": columns.STATE_CHARGING,
    "SuspendedEV": columns.STATE_SUSPENDED_EV,
    "SuspendedEVSE": columns.STATE_SUSPENDED_EVSE,
    "Finishing": columns.STATE_FINISHING,
    "Available": columns.STATE_AVAILABLE,
    "Preparing": columns.STATE_PREPARING,
    "Reserved": columns.STATE_RESERVED,
    "Faulted": columns.STATE_FAULTED,
    "Unavailable": columns.STATE_FAULTED,
    "EVConnected": columns.STATE_PREPARING,
    "Idle": columns.STATE_FINISHING,
    "Occupied": columns.STATE_UNKNOWN,
}

# What chargers send when they have no transaction id (design: transactionId -1, 0, 2^63-1).
UNUSABLE_TRANSACTION_IDS: Final = frozenset({b"", b"-1", b"0", b"9223372036854775807"})

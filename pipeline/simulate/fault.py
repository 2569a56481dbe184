"""What a fault is: which sessions it may strike, what it does to them and their rows, what metering should say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from pipeline.simulate.struck import Edit
from pipeline.simulate.texts import Rows
from rating.columns import I64

OCPP: Final = frozenset({"ocpp16", "ocpp201"})
JSON: Final = frozenset({"ocpp16", "ocpp201", "flat"})
ALL: Final = frozenset({"ocpp16", "ocpp201", "flat", "arrow"})

Outcome = Literal["billed", "held", "billed_or_held"]
Scope = Literal["session", "charge_point"]


@dataclass(frozen=True)
class Draft:
    """Sessions about to begin, and what follows from them. Energy mWh, time ms; all aligned."""

    sessions: Rows
    rating_mw: I64  # of the connector
    count: I64  # sessions that the connector had before
    own: I64  # a number below 2**31 of the charge point's own, the same for all its sessions
    run_start_ms: int
    run_stop_ms: int
    after_mwh: I64  # register of the meter when the session is over; base + energy unless a fault says otherwise
    expected_mwh: I64  # what metering should bill; the energy unless a fault says otherwise
    outside_mwh: I64  # energy that flowed before the session, outside any
    busy_ms: I64  # until when the connector takes no other session
    labelled: npt.NDArray[np.bool_]  # the fault shows in this session


Which = npt.NDArray[np.int64]
Prepare = Callable[[Draft, Which], None]


@dataclass(frozen=True)
class Fault:
    """One way in which a charger lies. `meets` quotes the design's row, or names the anomaly of its section 6."""

    name: str
    meets: str
    says: str  # one line: what the charger does
    edit: Edit | None = None
    draw: Prepare | None = None  # changes what the car wants or gets
    before: Prepare | None = None  # changes how long the session lasts
    after: Prepare | None = None  # when its energy is known
    scope: Scope = "session"
    shapes: frozenset[str] = JSON
    outcome: Outcome = "billed"
    alerts: tuple[str, ...] = ()  # each must fire; "a|b": one of them
    may: tuple[str, ...] = ()  # these may fire beside: the same lie shows there too
    strikes: tuple[float, float] = (0.3, 0.8)  # where in the charging samples
    base_mwh_min: int = 0
    energy_mwh_min: int = 2_000_000
    wh_unit: bool = False  # only charge points that label Wh
    currents: bool = False  # only models that say the current of each phase
    followed: bool = False  # only connectors that had a session before

"""Layouts of the simulation: a session's parameters, and the row that one message tells.

A session is its parameters only; its rows are computed for the window at hand, so memory follows the
number of open sessions, not their length. Energy mWh, power mW, time ms.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

SESSION_DTYPE = np.dtype(
    [
        ("number", np.int64),  # from 1, unique in a run; the transaction id is made of it
        ("start_ms", np.int64),
        ("stop_ms", np.int64),
        ("base_mwh", np.int64),  # register at the start
        ("energy_mwh", np.int64),  # delivered in the session
        ("target_mwh", np.int64),  # what the curve would reach if nobody unplugged
        ("power_mw", np.int64),  # of the constant part of the curve
        ("constant_ms", np.int64),  # length of the constant part
        ("taper_ms", np.int64),  # length of the falling part
        ("lead_ms", np.int64),  # from start to the first power
        ("pause_at_ms", np.int64),  # charging time after which power is cut for `pause_ms`
        ("pause_ms", np.int64),
        ("amount", np.int64),  # the fault's own number
        ("resolution_mwh", np.int64),
        ("connector", np.int32),
        ("token", np.int32),
        ("period_ms", np.int32),
        ("samples", np.int32),  # periodic samples inside (start, stop)
        ("at", np.int32),  # sample number where the fault strikes
        ("latency_ms", np.int32),
        ("fault", np.int16),  # index into faults.NAMES; 0 = none
    ],
    align=True,
)

ROW_DTYPE = np.dtype(
    [
        ("arrival_ms", np.int64),
        ("time_ms", np.int64),
        ("register_mwh", np.int64),
        ("power_mw", np.int64),
        ("other_mwh", np.int64),  # a second register that some variants tell beside the first
        ("number", np.int64),  # of the session
        ("connector", np.int32),
        ("token", np.int32),
        ("session", np.int32),  # row of the window's sessions; meaningless once the row waits for a later window
        ("k", np.int32),  # 0 start, 1.. periodic samples, samples + 1 stop; -1 state rows
        ("seq", np.int32),  # OCPP 2.x seqNo
        ("variant", np.int16),  # how it is told; variants.PLAIN
        ("kind", np.int8),
        ("state", np.int8),
        ("offline", np.int8),
    ],
    align=True,
)

START: Final = 0
SAMPLE: Final = 1
STATE: Final = 2  # the charging state changed; carries a reading where the shape has room for one
STOP: Final = 3
AVAILABLE: Final = 4  # status notification after the cable left
POISON: Final = 5  # a record that can never be used
ABSENT_MWH: Final = np.iinfo(np.int64).min  # this row tells no register
DROPPED: Final = -1  # never sent

CHARGING: Final = 0
SUSPENDED_EV: Final = 1
PREPARING: Final = 2  # started, no power yet
FINISHED: Final = 3


def take(rows: npt.NDArray[Any], which: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`rows[which]`, several times faster: whole rows are moved, not field by field."""
    moved: npt.NDArray[Any] = rows.view(f"V{rows.dtype.itemsize}")[which].view(rows.dtype)
    return moved


def sorted_by(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions that sort `values` (>= 0 after taking off their least), equal ones in their order."""
    if not len(values):
        return np.empty(0, np.int64)
    bits = len(values).bit_length()
    # Packed with its position each value is unique, so the fastest sort is a stable one.
    packed = (values - values.min()) << bits | np.arange(len(values))
    packed.sort()
    order: npt.NDArray[np.int64] = packed & ((1 << bits) - 1)
    return order

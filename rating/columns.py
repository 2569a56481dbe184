"""The columns that flow through rating: marks and intervals in, pieces and totals out.

Only layouts live here, with their units; what is done with them lives in `kernel` and `settle`.
Energy is mWh, time is ms (instants: UTC since 1970), power mW, current mA, money the exact cost
unit of `rating.money`. Absent power or current is -1.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

# State of the vehicle in a piece. SuspendedEVSE is CHARGING: the vehicle asks for power (design: Dimensions).
CHARGING: Final = 0
PARKING: Final = 1
RESERVATION: Final = 2
RESERVATION_EXPIRED: Final = 3

# Why a piece starts where it does.
SPLIT_READING: Final = 0
SPLIT_TIME: Final = 1
SPLIT_KWH: Final = 2
SPLIT_DURATION: Final = 3
SPLIT_POWER: Final = 4
SPLIT_CURRENT: Final = 5
SPLIT_STATE: Final = 6

ABSENT: Final = -1
MISSING_POWER: Final = 1
MISSING_CURRENT: Final = 2
MISSING_BITS: Final = 2  # that the two take

FREE: Final = -1  # the component of a dimension that nothing prices


class Marks(NamedTuple):
    """What holds from `start_ms` until the next mark: one row a change of state, power or current."""

    start_ms: I64
    state: I8
    power_mw: I64
    current_ma: I64


class Pieces(NamedTuple):
    """Charging periods (OCPI), one a row. A caller gives arrays with room; the kernel fills from `at` on."""

    tag: I32  # the caller's own: whose piece this is
    start_ms: I64
    end_ms: I64
    state: I8
    split: I8
    apportioned: I8  # 1 where an edge of this piece was interpolated inside a metered interval
    energy_mwh: I64
    energy_component: I32  # index into the book's components; FREE
    time_component: I32  # TIME when charging or reserved, PARKING_TIME when parking; FREE
    missing: I8  # MISSING_* bits: a restriction that could not be checked, so did not match


def empty_pieces(rows: int) -> Pieces:
    """Room for `rows` pieces; the content is undefined until the kernel wrote it."""
    return Pieces(
        tag=np.empty(rows, np.int32),
        start_ms=np.empty(rows, np.int64),
        end_ms=np.empty(rows, np.int64),
        state=np.empty(rows, np.int8),
        split=np.empty(rows, np.int8),
        apportioned=np.empty(rows, np.int8),
        energy_mwh=np.empty(rows, np.int64),
        energy_component=np.empty(rows, np.int32),
        time_component=np.empty(rows, np.int32),
        missing=np.empty(rows, np.int8),
    )


def first_pieces(pieces: Pieces, rows: int) -> Pieces:
    """Views of the first `rows` rows: what a kernel has filled."""
    return Pieces(
        tag=pieces.tag[:rows],
        start_ms=pieces.start_ms[:rows],
        end_ms=pieces.end_ms[:rows],
        state=pieces.state[:rows],
        split=pieces.split[:rows],
        apportioned=pieces.apportioned[:rows],
        energy_mwh=pieces.energy_mwh[:rows],
        energy_component=pieces.energy_component[:rows],
        time_component=pieces.time_component[:rows],
        missing=pieces.missing[:rows],
    )

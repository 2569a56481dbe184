"""What the scanner remembers of one record: int64 slots, a slot a fact. Texts are (address, length) pairs.

The slots are passed as an address, for the sake of speed (see `bytescan`); `fact` and `put` read and write one.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from pipeline.metering.columns import ABSENT_I64, STATE_UNKNOWN
from rating.jit import part

Facts = int  # the address of COUNT slots

# One bit a member that was seen, so that a member that stands twice is noticed (the twin takes the last).
TOP: Final = 0
PAYLOAD: Final = 1
VALUE: Final = 2
REPAIRED: Final = 3  # whether the number at hand had a decimal comma

# texts: two slots each
POINT: Final = 4
OUTER_ID: Final = 6  # transaction_id of the envelope, or of the flat form
INNER_ID: Final = 8  # transactionId of the payload
TOKEN: Final = 10

# facts of the record
RECEIVED_MS: Final = 12
VERSION: Final = 13
ACTION: Final = 14
TIME_MS: Final = 15
CONNECTOR: Final = 16
EVENT: Final = 17
STATE: Final = 18  # STATE_*
SEQ_NO: Final = 19
OFFLINE: Final = 20
REGISTER: Final = 21  # of the flat form, meterStart, meterStop; then of the line
POWER: Final = 22
CURRENT: Final = 23
ENTRIES: Final = 24  # meterValue entries
ENTRY_MS: Final = 25

# the sampled value at hand: word numbers, then the number
MEASURAND: Final = 26
CONTEXT: Final = 27
PHASE: Final = 28
LOCATION: Final = 29
UNIT: Final = 30
MULTIPLIER: Final = 31
NUMBER: Final = 32
DECIMALS: Final = 33
QUOTED: Final = 34
FORMAT: Final = 37
UNUSED: Final = 60  # takes what nobody asks for

# the entry's values: total and phases 1 to 3 of register, interval, power, current, SoC
LINE_CONTEXT: Final = 35
EVENT_FLAGS: Final = 36  # FLAG_* of the message's own time, state and register
ENTRY_FLAGS: Final = 38  # of the entry's time
VALUE_FLAGS: Final = 39  # of its values
AMOUNTS: Final = 40
AMOUNTS_END: Final = AMOUNTS + 5 * 4

COUNT: Final = UNUSED + 1


def _blank() -> npt.NDArray[np.int64]:
    blank = np.zeros(COUNT, np.int64)
    blank[POINT:ACTION] = -1
    blank[VERSION] = 0
    blank[[ACTION, EVENT]] = -2
    blank[TIME_MS] = blank[LINE_CONTEXT] = blank[SEQ_NO] = -1
    blank[STATE] = STATE_UNKNOWN
    blank[REGISTER:ENTRIES] = ABSENT_I64
    blank[AMOUNTS:AMOUNTS_END] = ABSENT_I64
    return blank


_BLANK = _blank()


@part
def forget(room: npt.NDArray[np.int64]) -> None:
    """Makes the slots ready for the next record."""
    for slot in range(COUNT):
        room[slot] = _BLANK[slot]


def _slot_pointer(builder: Any, args: Any) -> Any:
    base = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
    return builder.gep(base, [args[1]])


def _fact_code(_typing: Any, facts: Any, slot: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.load(_slot_pointer(builder, args))

    return types.int64(types.int64, types.int64), generate


def _put_code(_typing: Any, facts: Any, slot: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        builder.store(args[2], _slot_pointer(builder, args))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


fact: Any = intrinsic(_fact_code)
put: Any = intrinsic(_put_code)

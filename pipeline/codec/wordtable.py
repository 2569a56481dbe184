"""Every word of the JSON forms as a small number, found by one multiplication and one comparison.

The words' meanings come from `vocabulary`, so the scanners and their twin can't drift apart.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.codec import vocabulary as words
from pipeline.codec.bytescan import MAX_WORD, masked8
from pipeline.metering import columns
from rating.jit import part

UNKNOWN = -1
ABSENT = -2

_SLOT_BITS = 13
_SHIFT = np.uint64(64 - _SLOT_BITS)
_MIX = np.uint64(0x9E3779B97F4A7C15)

# Members come first: their numbers serve as bits of an int64.
_NAMES = (
    "charge_point_id connector_id transaction_id timestamp energy_wh power_w current_a event state id_token "
    "received_at ocpp_version action payload connectorId transactionId meterValue idTag meterStart meterStop reason "
    "status errorCode info vendorId vendorErrorCode reservationId eventType triggerReason seqNo offline "
    "transactionInfo evse idToken evseId connectorStatus numberOfPhasesUsed cableMaxCurrent chargingState "
    "timeSpentCharging stoppedReason remoteStartId id type sampledValue value context format measurand phase "
    "location unit unitOfMeasure multiplier "
    "1.6 1.6J ocpp1.6 2.0.1 ocpp2.0.1 2.1 ocpp2.1 StartTransaction MeterValues StopTransaction StatusNotification "
    "TransactionEvent Started Updated Ended sample start stop Raw"
)
_UNITS = {unit: None for units in words.UNITS.values() for unit in units}
ALL_WORDS: tuple[str, ...] = tuple(
    dict.fromkeys(
        [*_NAMES.split(), *words.MEASURANDS, *words.CONTEXTS, *words.PHASES, *words.LOCATIONS, *words.STATES, *_UNITS]
    )
)
_NUMBER_OF = {word: number for number, word in enumerate(ALL_WORDS)}


def number_of(word: str) -> int:
    """The number of a word that is in the table."""
    return _NUMBER_OF[word]


def _packed() -> npt.NDArray[np.uint64]:
    padded = b"".join(word.encode().ljust(MAX_WORD, b"\0") for word in ALL_WORDS)
    return np.frombuffer(padded, np.uint64).reshape(len(ALL_WORDS), MAX_WORD // 8).copy()


def _slot(first: int, second: int, third: int, length: int, magic: int) -> int:
    mask = (1 << 64) - 1
    mixed = (first ^ (second * int(_MIX)) ^ (third << 7) ^ length) & mask
    return ((mixed * magic) & mask) >> int(_SHIFT)


def _table() -> tuple[int, npt.NDArray[np.int16]]:
    """A multiplier under which no two words share a slot, and the slots."""
    keys = [(int(row[0]), int(row[1]), int(row[2]), len(word)) for row, word in zip(_PACKED, ALL_WORDS, strict=True)]
    magic = int(_MIX)
    while True:
        magic = (magic * 6364136223846793005 + 1442695040888963407) & ((1 << 64) - 1) | 1
        slots = [_slot(*key, magic) for key in keys]
        if len(set(slots)) == len(keys):
            break
    table = np.full(1 << _SLOT_BITS, UNKNOWN, np.int16)
    table[slots] = np.arange(len(keys))
    return magic, table


_PACKED = _packed()
_LENGTHS = np.array([len(word) for word in ALL_WORDS], np.int64)
_magic, _SLOTS = _table()
_MAGIC = np.uint64(_magic)
_SEVEN = np.uint64(7)


@part
def word_at(at: int, length: int) -> int:
    """The number of the word in [at, at + length), UNKNOWN when it is none of the table."""
    if length > MAX_WORD:
        return UNKNOWN
    first, second = masked8(at, length), masked8(at + 8, length - 8)
    third, fourth = masked8(at + 16, length - 16), masked8(at + 24, length - 24)
    mixed = (first ^ (second * _MIX)) ^ ((third << _SEVEN) ^ np.uint64(length))
    number: Any = np.int64(_SLOTS[(mixed * _MAGIC) >> _SHIFT])
    if number == UNKNOWN or _LENGTHS[number] != length:
        return UNKNOWN
    same = _PACKED[number, 0] == first and _PACKED[number, 1] == second
    found: int = number
    return found if same and _PACKED[number, 2] == third and _PACKED[number, 3] == fourth else UNKNOWN


def _meanings(meaning: dict[str, int], missing: int) -> npt.NDArray[np.int64]:
    """By word number; the last two entries are for ABSENT and UNKNOWN (numbers -2 and -1)."""
    return np.array([meaning.get(word, missing) for word in ALL_WORDS] + [missing, missing], np.int64)


QUANTITY_OF = _meanings(words.MEASURANDS, UNKNOWN)
CONTEXT_OF = _meanings(words.CONTEXTS, columns.CONTEXT_OTHER)
PHASE_OF = _meanings(words.PHASES, UNKNOWN)
PLACE_OF = _meanings(words.LOCATIONS, UNKNOWN)
STATE_OF = _meanings(words.STATES, ABSENT)
PLACES_OF = np.stack([_meanings(words.UNITS[quantity], ABSENT) for quantity in range(len(words.UNITS))])
QUANTITY_OF[ABSENT] = words.REGISTER
CONTEXT_OF[ABSENT] = columns.CONTEXT_PERIODIC
PHASE_OF[ABSENT] = 0
PLACE_OF[ABSENT] = words.OUTLET
for _quantity, _places in words.DEFAULT_PLACES.items():
    PLACES_OF[_quantity, ABSENT] = _places

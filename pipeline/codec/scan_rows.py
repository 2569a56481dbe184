"""Compiled: from a record's slots to its row, and the loop over a batch.

Each form of message is one line here. A form that would be several lines, or whose members don't belong to it, is
left to the twin.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.codec import slots
from pipeline.codec import vocabulary as words
from pipeline.codec.bytescan import FAILED, UNUSABLE, Bytes, holds_byte, load1, masked8, same_bytes
from pipeline.codec.instants import EARLIEST_MS, LATEST_MS
from pipeline.codec.names import Names, index_of
from pipeline.codec.records import TRANSACTION_ID_BYTES
from pipeline.codec.scan_records import MAX_NAME, scan_record
from pipeline.codec.slots import Facts, fact, put
from pipeline.codec.wordtable import ABSENT, number_of
from pipeline.metering import columns
from pipeline.metering.columns import ABSENT_I64
from rating.jit import kernel, part

Sample = Any  # a row of SAMPLE_DTYPE, as Numba sees it
_I64 = npt.NDArray[np.int64]
_I32 = npt.NDArray[np.int32]


def _bits(names: str) -> int:
    return sum(1 << number_of(name) for name in names.split())


_IGNORED16 = _bits("reason errorCode info vendorId vendorErrorCode reservationId")
_ENVELOPE = _bits("charge_point_id ocpp_version action payload")
_ENVELOPE_ALLOWED = _ENVELOPE | _bits("received_at transaction_id")
_FLAT = _bits("charge_point_id connector_id timestamp energy_wh")
_FLAT_ALLOWED = _FLAT | _bits("transaction_id power_w current_a event state id_token received_at")
_START = _bits("connectorId meterStart timestamp")
_START_ALLOWED = _START | _bits("idTag reservationId")
_STOP = _bits("transactionId meterStop timestamp")
_STOP_ALLOWED = _STOP | _bits("idTag reason")
_VALUES16 = _bits("connectorId meterValue")
_VALUES16_ALLOWED = _VALUES16 | _bits("transactionId")
_STATUS16 = _bits("connectorId status timestamp")
_STATUS16_ALLOWED = _STATUS16 | _IGNORED16
_EVENT2 = _bits("eventType timestamp transactionInfo")
_EVENT2_ALLOWED = _EVENT2 | _bits(
    "seqNo offline evse idToken meterValue triggerReason numberOfPhasesUsed cableMaxCurrent reservationId"
)
_VALUES2 = _bits("evseId meterValue")
_STATUS2 = _bits("connectorStatus evseId timestamp")
_STATUS2_ALLOWED = _STATUS2 | _bits("connectorId")

_START_TRANSACTION, _STOP_TRANSACTION = number_of("StartTransaction"), number_of("StopTransaction")
_METER_VALUES, _STATUS_NOTIFICATION = number_of("MeterValues"), number_of("StatusNotification")
_TRANSACTION_EVENT = number_of("TransactionEvent")
_STARTED, _UPDATED, _ENDED = number_of("Started"), number_of("Updated"), number_of("Ended")
_SAMPLE, _FLAT_START, _FLAT_STOP = number_of("sample"), number_of("start"), number_of("stop")

_LARGEST_I64 = [int.from_bytes(b"9223372036854775807"[at : at + 8].ljust(8, b"\0"), "little") for at in (0, 8, 16)]
_LARGEST_FIRST, _LARGEST_SECOND, _LARGEST_THIRD = (np.uint64(word) for word in _LARGEST_I64)


@part
def _members_are(facts: Facts, slot: int, required: int, allowed: int) -> bool:
    seen = int(fact(facts, slot))
    return seen & required == required and seen & ~allowed == 0


@part
def _usable_id(at: int, length: int) -> bool:
    """Whether there is an id, and it is none of those that chargers send when they have none."""
    if length < 1:
        return False
    if length == 1 and load1(at) == 0x30:
        return False
    if length == 2 and load1(at) == 0x2D and load1(at + 1) == 0x31:
        return False
    if length != 19:
        return True
    same = masked8(at, 8) == _LARGEST_FIRST and masked8(at + 8, 8) == _LARGEST_SECOND
    return not (same and masked8(at + 16, 3) == _LARGEST_THIRD)


@part
def _total(facts: Facts, quantity: int) -> tuple[int, int]:
    """As `lines._total`: the total, else the sum of the phases, else absent; and its flag."""
    slot = slots.AMOUNTS + 4 * quantity
    if fact(facts, slot) != ABSENT_I64:
        return fact(facts, slot), 0
    amount = 0
    phases = 0
    for phase in range(1, 4):
        if fact(facts, slot + phase) != ABSENT_I64:
            amount += fact(facts, slot + phase)
            phases += 1
    if phases == 0:
        return ABSENT_I64, 0
    return amount, columns.FLAG_PHASE_SUM if phases > 1 else columns.FLAG_TOTAL_ON_PHASE


@part
def _put_entry(facts: Facts, sample: Sample) -> None:
    """The amounts of the one meterValue entry into the sample (as `lines.read_line`)."""
    flags = fact(facts, slots.VALUE_FLAGS)
    energy, how = _total(facts, words.REGISTER)
    if energy == ABSENT_I64:
        energy, how = _total(facts, words.INTERVAL)
        how |= columns.FLAG_NO_ENERGY if energy == ABSENT_I64 else columns.FLAG_INTERVAL_MEASURAND
    sample.register_mwh = energy
    sample.flags |= np.uint32(flags | how)
    sample.power_mw = _total(facts, words.POWER)[0]
    sample.current_ma = _total(facts, words.CURRENT)[0]
    soc = fact(facts, slots.AMOUNTS + 4 * words.SOC)
    sample.soc_permille = soc if soc != ABSENT_I64 else -1
    said = 0
    live = 0
    for slot in range(slots.AMOUNTS + 4 * words.CURRENT + 1, slots.AMOUNTS + 4 * words.CURRENT + 4):
        said += fact(facts, slot) != ABSENT_I64
        live += fact(facts, slot) > 0
    if said:
        sample.phases_said = said
        sample.phases_live = live


@part
def _start(facts: Facts, sample: Sample, kind: int, context: int) -> None:
    """What every line has: kind, context, time, state and nothing measured."""
    sample.kind = kind
    sample.context = context
    sample.time_ms = fact(facts, slots.TIME_MS)
    sample.state = fact(facts, slots.STATE)
    sample.register_mwh = ABSENT_I64
    sample.power_mw = ABSENT_I64
    sample.current_ma = ABSENT_I64
    sample.flags = np.uint32(fact(facts, slots.EVENT_FLAGS))
    sample.soc_permille = -1
    sample.phases_live = -1
    sample.phases_said = -1


@part
def _put_flat(facts: Facts, sample: Sample) -> bool:
    if not _members_are(facts, slots.TOP, _FLAT, _FLAT_ALLOWED):
        return False
    event = fact(facts, slots.EVENT)
    if event in (ABSENT, _SAMPLE):
        _start(facts, sample, columns.KIND_SAMPLE, columns.CONTEXT_PERIODIC)
    elif event == _FLAT_START:
        _start(facts, sample, columns.KIND_START, columns.CONTEXT_BEGIN)
    elif event == _FLAT_STOP:
        _start(facts, sample, columns.KIND_STOP, columns.CONTEXT_END)
    else:
        return False
    _put_register(facts, sample)
    sample.power_mw = fact(facts, slots.POWER)
    sample.current_ma = fact(facts, slots.CURRENT)
    return True


@part
def _put_register(facts: Facts, sample: Sample) -> None:
    """The register of the flat form, meterStart or meterStop."""
    sample.register_mwh = fact(facts, slots.REGISTER)
    if fact(facts, slots.REGISTER) == ABSENT_I64:
        sample.flags |= np.uint32(columns.FLAG_NO_ENERGY)


@part
def _put_status(facts: Facts, sample: Sample) -> bool:
    reserved = fact(facts, slots.STATE) == columns.STATE_RESERVED
    _start(facts, sample, columns.KIND_RESERVE if reserved else columns.KIND_STATUS, columns.CONTEXT_OTHER)
    return True


@part
def _put_values(facts: Facts, sample: Sample) -> bool:
    put(facts, slots.TIME_MS, fact(facts, slots.ENTRY_MS))
    put(facts, slots.EVENT_FLAGS, fact(facts, slots.ENTRY_FLAGS))
    context = fact(facts, slots.LINE_CONTEXT)
    _start(facts, sample, columns.KIND_SAMPLE, columns.CONTEXT_OTHER if context == FAILED else context)
    _put_entry(facts, sample)
    return True


@part
def _put_16(facts: Facts, sample: Sample) -> bool:
    action = fact(facts, slots.ACTION)
    if action == _METER_VALUES:
        return _members_are(facts, slots.PAYLOAD, _VALUES16, _VALUES16_ALLOWED) and _put_values(facts, sample)
    if action == _STATUS_NOTIFICATION:
        return _members_are(facts, slots.PAYLOAD, _STATUS16, _STATUS16_ALLOWED) and _put_status(facts, sample)
    if action == _START_TRANSACTION and _members_are(facts, slots.PAYLOAD, _START, _START_ALLOWED):
        _start(facts, sample, columns.KIND_START, columns.CONTEXT_BEGIN)
    elif action == _STOP_TRANSACTION and _members_are(facts, slots.PAYLOAD, _STOP, _STOP_ALLOWED):
        _start(facts, sample, columns.KIND_STOP, columns.CONTEXT_END)
    else:
        return False
    _put_register(facts, sample)
    sample.flags |= np.uint32(columns.FLAG_WHOLE_WH)
    return True


@part
def _put_event(facts: Facts, sample: Sample) -> bool:
    """TransactionEvent where all of it is one line (as `messages.read_event2`)."""
    event = fact(facts, slots.EVENT)
    kind, context = columns.KIND_SAMPLE, columns.CONTEXT_OTHER
    if event == _STARTED:
        kind, context = columns.KIND_START, columns.CONTEXT_BEGIN
    elif event == _ENDED:
        kind, context = columns.KIND_STOP, columns.CONTEXT_END
    elif event != _UPDATED:
        return False
    if fact(facts, slots.ENTRIES):
        own = kind != columns.KIND_SAMPLE and fact(facts, slots.LINE_CONTEXT) == context
        if fact(facts, slots.ENTRY_MS) == fact(facts, slots.TIME_MS):
            put(facts, slots.EVENT_FLAGS, fact(facts, slots.EVENT_FLAGS) | fact(facts, slots.ENTRY_FLAGS))
        elif not own:
            if kind != columns.KIND_SAMPLE or fact(facts, slots.STATE) != columns.STATE_UNKNOWN:
                return False
            put(facts, slots.TIME_MS, fact(facts, slots.ENTRY_MS))
            put(facts, slots.EVENT_FLAGS, fact(facts, slots.ENTRY_FLAGS))
        if kind == columns.KIND_SAMPLE and fact(facts, slots.LINE_CONTEXT) != FAILED:
            context = fact(facts, slots.LINE_CONTEXT)
    _start(facts, sample, kind, context)
    if fact(facts, slots.ENTRIES):
        _put_entry(facts, sample)
    if fact(facts, slots.OFFLINE):
        sample.flags |= np.uint32(columns.FLAG_OFFLINE)
    return True


@part
def _put_2(facts: Facts, sample: Sample) -> bool:
    action = fact(facts, slots.ACTION)
    if action == _TRANSACTION_EVENT:
        return _members_are(facts, slots.PAYLOAD, _EVENT2, _EVENT2_ALLOWED) and _put_event(facts, sample)
    if action == _METER_VALUES:
        return _members_are(facts, slots.PAYLOAD, _VALUES2, _VALUES2) and _put_values(facts, sample)
    if action == _STATUS_NOTIFICATION:
        return _members_are(facts, slots.PAYLOAD, _STATUS2, _STATUS2_ALLOWED) and _put_status(facts, sample)
    return False


@part
def _put_message(facts: Facts, sample: Sample) -> bool:
    if fact(facts, slots.VERSION) == 0:
        return _put_flat(facts, sample)
    if not _members_are(facts, slots.TOP, _ENVELOPE, _ENVELOPE_ALLOWED):
        return False
    return _put_16(facts, sample) if fact(facts, slots.VERSION) == 1 else _put_2(facts, sample)


@part
def _stand_in(facts: Facts, slot: int, flag_slot: int, received: int) -> bool:
    """Gives the arrival's time to an instant that is unusable; False where the arrival is not known either."""
    if fact(facts, slot) != UNUSABLE:
        return True
    put(facts, slot, received)
    put(facts, flag_slot, fact(facts, flag_slot) | columns.FLAG_TIME_UNUSABLE)
    return received >= 0


@part
def _id_slot(facts: Facts) -> int:
    """The slots of the transaction id to take: the payload's, else the envelope's; 0 where neither is usable."""
    if _usable_id(fact(facts, slots.INNER_ID), fact(facts, slots.INNER_ID + 1)):
        return slots.INNER_ID
    if _usable_id(fact(facts, slots.OUTER_ID), fact(facts, slots.OUTER_ID + 1)):
        return slots.OUTER_ID
    return 0


@part
def _put_id(facts: Facts, sample: Sample, id_bytes: Bytes) -> bool:
    slot = _id_slot(facts)
    at, length = fact(facts, slot), fact(facts, slot + 1)
    if slot == 0:
        sample.flags |= np.uint32(columns.FLAG_TXN_UNUSABLE)
        length = 0
    if length > TRANSACTION_ID_BYTES:
        return False
    for byte in range(length):
        id_bytes[byte] = load1(at + byte)
    id_bytes[length:] = 0
    return True


@part
def put_row(facts: Facts, record_ms: int, sample: Sample, id_bytes: Bytes) -> bool:
    """Everything in a sample but its names and offset, and the transaction id's bytes; False where the twin has to."""
    received = fact(facts, slots.RECEIVED_MS)
    if received < 0:
        received = record_ms if EARLIEST_MS <= record_ms < LATEST_MS else FAILED
    known = _stand_in(facts, slots.TIME_MS, slots.EVENT_FLAGS, received)
    known &= _stand_in(facts, slots.ENTRY_MS, slots.ENTRY_FLAGS, received)
    if not (known and _put_message(facts, sample) and _put_id(facts, sample, id_bytes)):
        return False
    sample.received_ms = received if received >= 0 else sample.time_ms
    sample.connector_id = fact(facts, slots.CONNECTOR)
    sample.seq_no = fact(facts, slots.SEQ_NO)
    sample.line = 0
    sample.signed = columns.SIGNED_NONE
    return True


@part
def sent_by(facts: Facts, key: int, key_length: int) -> bool:
    """Whether the key is the charge point's name, and both names are of a size and look that the twin takes."""
    at, length = fact(facts, slots.POINT), fact(facts, slots.POINT + 1)
    if length < 1 or length > MAX_NAME or fact(facts, slots.TOKEN + 1) > MAX_NAME or key_length != length:
        return False
    return same_bytes(at, key, length) and not holds_byte(at, length, 0x7F)


@kernel
def scan_batch(
    span: tuple[int, int, int, int],
    values: tuple[Bytes, _I64],
    keys: tuple[Bytes, _I64],
    given: tuple[_I64, _I64, _I64],
    found: tuple[npt.NDArray[np.void], Bytes, _I32, _I32],
    names: tuple[Names, Names],
) -> tuple[int, int]:
    """Rows of the plain ones among records [first, last); how many rows and left-over records there are then.

    `span` is (first, last, rows, left-over records so far); `values` and `keys` hold the bytes of the span and their
    bounds; `given` the offsets, record times and room for the facts of one record; `found` samples, ids, each row's
    record and the left-over records.
    """
    first, last, rows, lefts = span
    value_bounds, key_bounds = values[1], keys[1]
    base, key_base = values[0].ctypes.data, keys[0].ctypes.data
    offsets, times_ms, room = given
    samples, ids, owners, left = found
    points, tokens = names
    facts = room.ctypes.data
    for record in range(first, last):
        at = record - first
        slots.forget(room)
        sample = samples[rows]
        if not (
            scan_record(base + value_bounds[at], base + value_bounds[at + 1], facts)
            and sent_by(facts, key_base + key_bounds[at], key_bounds[at + 1] - key_bounds[at])
            and put_row(facts, times_ms[record], sample, ids[rows])
        ):
            left[lefts] = record
            lefts += 1
            continue
        sample.offset = offsets[record]
        sample.charge_point = index_of(points, fact(facts, slots.POINT), fact(facts, slots.POINT + 1))
        sample.token = -1
        if fact(facts, slots.TOKEN + 1) > 0:
            sample.token = index_of(tokens, fact(facts, slots.TOKEN), fact(facts, slots.TOKEN + 1))
        owners[rows] = record
        rows += 1
    return rows, lefts

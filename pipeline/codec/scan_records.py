"""Compiled reading of whole JSON records in their plain form: the envelope, the flat form, and the payloads of OCPP.

Fills the slots of one record; what they mean is settled in `scan_rows`. Any member that is not known here, stands
twice or is null gives FAILED, and the record goes to the twin.
"""

import numpy as np

from pipeline.codec import slots
from pipeline.codec import vocabulary as words
from pipeline.codec.bytescan import (
    CLOSE,
    FAILED,
    OPEN,
    QUOTE,
    blanks_end,
    load1,
    number_at,
    string_end,
)
from pipeline.codec.scan_values import (
    instant_member,
    member_name,
    meter_values,
    next_member,
    number_member,
    seen_twice,
    take_amount,
    word_member,
)
from pipeline.codec.slots import Facts, fact, put
from pipeline.codec.wordtable import ABSENT, STATE_OF, UNKNOWN, number_of
from rating.jit import part

MAX_NAME = 255
MAX_SMALL = 65535
MAX_SEQ_NO = 2**31 - 1

_POINT, _RECEIVED, _OUTER_ID = number_of("charge_point_id"), number_of("received_at"), number_of("transaction_id")
_VERSION, _ACTION, _PAYLOAD = number_of("ocpp_version"), number_of("action"), number_of("payload")
_FLAT_CONNECTOR, _TIMESTAMP, _ENERGY = number_of("connector_id"), number_of("timestamp"), number_of("energy_wh")
_POWER, _CURRENT, _EVENT = number_of("power_w"), number_of("current_a"), number_of("event")
_STATE, _FLAT_TOKEN = number_of("state"), number_of("id_token")

_CONNECTOR, _EVSE_ID, _INNER_ID = number_of("connectorId"), number_of("evseId"), number_of("transactionId")
_METER_VALUE, _ID_TAG, _SEQ_NO = number_of("meterValue"), number_of("idTag"), number_of("seqNo")
_METER_START, _METER_STOP, _EVENT_TYPE = number_of("meterStart"), number_of("meterStop"), number_of("eventType")
_STATUS, _CONNECTOR_STATUS, _OFFLINE = number_of("status"), number_of("connectorStatus"), number_of("offline")
_TRANSACTION_INFO, _EVSE, _ID_TOKEN = number_of("transactionInfo"), number_of("evse"), number_of("idToken")
_CHARGING_STATE, _ID, _TYPE = number_of("chargingState"), number_of("id"), number_of("type")
_ID_BIT = 1 << _ID
_V16 = number_of("1.6")  # the first of seven spellings of versions, three of them of 1.6

# Members that tell billing nothing, in payloads and inside transactionInfo; their values may be strings or integers.
_UNINTERESTING = (
    "reason errorCode info vendorId vendorErrorCode reservationId triggerReason numberOfPhasesUsed cableMaxCurrent "
    "timeSpentCharging stoppedReason remoteStartId"
)
_SKIPPED = np.zeros(256, np.bool_)
for _name in _UNINTERESTING.split():
    _SKIPPED[number_of(_name)] = True


@part
def text_member(at: int, facts: Facts, slot: int) -> int:
    """A string into the pair of slots at `slot`; the position behind it."""
    if load1(at) != QUOTE:
        return FAILED
    end = string_end(at + 1)
    put(facts, slot, at + 1)
    put(facts, slot + 1, end - at - 1)
    return end + 1 if end != FAILED else FAILED


@part
def id_member(at: int, facts: Facts, slot: int) -> int:
    """A transaction id, a string or a plain integer, into the pair of slots at `slot`; the position behind it."""
    if load1(at) == QUOTE:
        return text_member(at, facts, slot)
    end, _, decimals, _ = number_at(at, False)
    put(facts, slot, at)
    put(facts, slot + 1, end - at)
    return end if decimals == 0 else FAILED


@part
def small_member(at: int, facts: Facts, slot: int, limit: int) -> int:
    """An integer from 0 to `limit` into `slot`; the position behind it."""
    end, number, decimals, _ = number_at(at, False)
    put(facts, slot, number)
    return end if decimals == 0 and 0 <= number <= limit else FAILED


@part
def amount_member(at: int, facts: Facts, slot: int, quantity: int) -> int:
    """A number in Wh, W or A into `slot` as mWh, mW or mA; the position behind it."""
    at = number_member(at, facts)
    if at == FAILED:
        return FAILED
    if fact(facts, slots.QUOTED):
        put(facts, slots.REPAIRED, 1)
    return at if take_amount(facts, slot, quantity, 3, slots.EVENT_FLAGS) else FAILED


@part
def state_member(at: int, facts: Facts) -> int:
    """A status word into STATE; the position behind it."""
    at = word_member(at, facts, slots.STATE)
    state = STATE_OF[fact(facts, slots.STATE)]
    put(facts, slots.STATE, state)
    return at if state != ABSENT else FAILED


@part
def skipped_member(at: int) -> int:
    """A string or a plain integer of no interest; the position behind it."""
    if load1(at) == QUOTE:
        end = string_end(at + 1)
        return end + 1 if end != FAILED else FAILED
    return number_at(at, False)[0]


@part
def _flag_member(at: int, facts: Facts, slot: int) -> int:
    if load1(at) == 0x74:  # t
        put(facts, slot, 1)
        rue = load1(at + 1) == 0x72 and load1(at + 2) == 0x75 and load1(at + 3) == 0x65
        return at + 4 if rue else FAILED
    put(facts, slot, 0)
    fal = load1(at) == 0x66 and load1(at + 1) == 0x61 and load1(at + 2) == 0x6C
    return at + 5 if fal and load1(at + 3) == 0x73 and load1(at + 4) == 0x65 else FAILED


@part
def _inner_object(at: int, facts: Facts, owner: int) -> int:
    """The objects transactionInfo, evse and idToken; each member of theirs has one owner and is marked in VALUE."""
    if load1(at) != OPEN:
        return FAILED
    put(facts, slots.VALUE, 0)
    at = blanks_end(at + 1)
    more = True
    while more:
        name, at = member_name(at)
        if at == FAILED or name == UNKNOWN or seen_twice(facts, slots.VALUE, name):
            return FAILED
        if owner == _TRANSACTION_INFO and name == _INNER_ID:
            at = id_member(at, facts, slots.INNER_ID)
        elif owner == _TRANSACTION_INFO and name == _CHARGING_STATE:
            at = state_member(at, facts)
        elif owner == _TRANSACTION_INFO and _SKIPPED[name]:
            at = skipped_member(at)
        elif owner == _EVSE and name == _ID:
            at = small_member(at, facts, slots.CONNECTOR, MAX_SMALL)
        elif (owner == _EVSE and name == _CONNECTOR) or (owner == _ID_TOKEN and name == _TYPE):
            at = skipped_member(at)
        elif owner == _ID_TOKEN and name == _ID_TOKEN:
            at = text_member(at, facts, slots.TOKEN)
        else:
            return FAILED
        if at == FAILED:
            return FAILED
        more, at = next_member(at, CLOSE)
    lacking = owner == _EVSE and fact(facts, slots.VALUE) & _ID_BIT == 0
    return FAILED if lacking else at


@part
def _payload_member(name: int, at: int, facts: Facts) -> int:
    if name == _METER_VALUE:
        return meter_values(at, facts, fact(facts, slots.VERSION) == 1)
    if name == _EVSE_ID or (name == _CONNECTOR and fact(facts, slots.VERSION) == 1):
        return small_member(at, facts, slots.CONNECTOR, MAX_SMALL)
    if name == _CONNECTOR:
        return skipped_member(at)  # OCPP 2.x: the plug of the EVSE
    if name == _INNER_ID:
        return id_member(at, facts, slots.INNER_ID)
    if name == _TIMESTAMP:
        return instant_member(at, facts, slots.TIME_MS, slots.EVENT_FLAGS)
    if name == _ID_TAG:
        return text_member(at, facts, slots.TOKEN)
    if name in (_METER_START, _METER_STOP):
        return amount_member(at, facts, slots.REGISTER, words.REGISTER)
    if name in (_STATUS, _CONNECTOR_STATUS):
        return state_member(at, facts)
    if name == _EVENT_TYPE:
        return word_member(at, facts, slots.EVENT)
    if name == _SEQ_NO:
        return small_member(at, facts, slots.SEQ_NO, MAX_SEQ_NO)
    if name == _OFFLINE:
        return _flag_member(at, facts, slots.OFFLINE)
    if name in (_TRANSACTION_INFO, _EVSE, _ID_TOKEN):
        return _inner_object(at, facts, name)
    return skipped_member(at) if name != UNKNOWN and _SKIPPED[name] else FAILED


@part
def _payload(at: int, facts: Facts) -> int:
    if load1(at) != OPEN or fact(facts, slots.ACTION) == ABSENT or fact(facts, slots.VERSION) == 0:
        return FAILED  # the payload came before what tells how to read it
    at = blanks_end(at + 1)
    more = True
    while more:
        name, at = member_name(at)
        if at == FAILED or seen_twice(facts, slots.PAYLOAD, name):
            return FAILED
        at = _payload_member(name, at, facts)
        if at == FAILED:
            return FAILED
        more, at = next_member(at, CLOSE)
    return at


@part
def _version_member(at: int, facts: Facts) -> int:
    at = word_member(at, facts, slots.VERSION)
    number = fact(facts, slots.VERSION)
    if number < _V16 or number >= _V16 + 7:
        return FAILED
    put(facts, slots.VERSION, 1 if number < _V16 + 3 else 2)
    return at


@part
def _top_member(name: int, at: int, facts: Facts) -> int:
    if name == _POINT:
        return text_member(at, facts, slots.POINT)
    if name == _OUTER_ID:
        return id_member(at, facts, slots.OUTER_ID)
    if name == _TIMESTAMP:
        return instant_member(at, facts, slots.TIME_MS, slots.EVENT_FLAGS)
    if name == _ENERGY:
        return amount_member(at, facts, slots.REGISTER, words.REGISTER)
    if name == _FLAT_CONNECTOR:
        return small_member(at, facts, slots.CONNECTOR, MAX_SMALL)
    if name == _POWER:
        return amount_member(at, facts, slots.POWER, words.POWER)
    if name == _CURRENT:
        return amount_member(at, facts, slots.CURRENT, words.CURRENT)
    if name == _EVENT:
        return word_member(at, facts, slots.EVENT)
    if name == _STATE:
        return state_member(at, facts)
    if name == _FLAT_TOKEN:
        return text_member(at, facts, slots.TOKEN)
    if name == _RECEIVED:
        return instant_member(at, facts, slots.RECEIVED_MS, slots.UNUSED)
    if name == _VERSION:
        return _version_member(at, facts)
    if name == _ACTION:
        return word_member(at, facts, slots.ACTION)
    if name == _PAYLOAD:
        return _payload(at, facts)
    return FAILED


@part
def scan_record(start: int, end: int, facts: Facts) -> bool:
    """Reads the record in [start, end) into its slots; False where the twin has to."""
    if load1(start) != OPEN:
        return False
    at = blanks_end(start + 1)
    more = True
    while more:
        name, at = member_name(at)
        if at == FAILED or seen_twice(facts, slots.TOP, name):
            return False
        at = _top_member(name, at, facts)
        if at == FAILED:
            return False
        more, at = next_member(at, CLOSE)
    return at == end

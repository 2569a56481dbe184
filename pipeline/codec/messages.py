"""Messages of the three JSON forms to lines, by msgspec: correct for any input, and the oracle of the fast scanners."""

from typing import Annotated, Literal

import msgspec

from pipeline.codec.fields import NOTHING, Name, Small, event_time, state_of, text_of, transaction_id
from pipeline.codec.lines import Line, read_amount
from pipeline.codec.meter_values import Bucket, MeterValue, buckets, has_context
from pipeline.codec.vocabulary import CURRENT, POWER, REGISTER
from pipeline.metering import columns
from pipeline.metering.columns import ABSENT_I64

_WH_MWH = 1000


class Message(msgspec.Struct, gc=False):
    """What one message says: its lines in order and what they have in common."""

    connector_id: int
    transaction_id: bytes
    token: str
    lines: list[Line]
    seq_no: int = -1
    flags: int = 0


class Flat(msgspec.Struct, gc=False):
    """One reading, flat (value in Wh, W, A)."""

    connector_id: Small
    transaction_id: msgspec.Raw = NOTHING
    timestamp: msgspec.Raw = NOTHING
    energy_wh: msgspec.Raw = NOTHING
    power_w: msgspec.Raw = NOTHING
    current_a: msgspec.Raw = NOTHING
    event: Literal["sample", "start", "stop", "status"] = "sample"
    state: str | None = None
    id_token: Name | None = None


class StartTransaction(msgspec.Struct, gc=False):
    """OCPP 1.6 StartTransaction.req."""

    connectorId: Small
    meterStart: msgspec.Raw = NOTHING
    timestamp: msgspec.Raw = NOTHING
    idTag: Name | None = None


class StopTransaction(msgspec.Struct, gc=False):
    """OCPP 1.6 StopTransaction.req; it names no connector."""

    transactionId: msgspec.Raw = NOTHING
    meterStop: msgspec.Raw = NOTHING
    timestamp: msgspec.Raw = NOTHING
    idTag: Name | None = None
    transactionData: list[MeterValue] | None = None


class MeterValues16(msgspec.Struct, gc=False):
    """OCPP 1.6 MeterValues.req."""

    connectorId: Small
    meterValue: list[MeterValue]
    transactionId: msgspec.Raw = NOTHING


class StatusNotification16(msgspec.Struct, gc=False):
    """OCPP 1.6 StatusNotification.req."""

    connectorId: Small
    status: str
    timestamp: msgspec.Raw = NOTHING


class Evse(msgspec.Struct, gc=False):
    """OCPP 2.x EVSEType."""

    id: Small


class IdToken(msgspec.Struct, gc=False):
    """OCPP 2.x IdTokenType."""

    idToken: Name | None = None


class TransactionInfo(msgspec.Struct, gc=False):
    """OCPP 2.x TransactionType."""

    transactionId: msgspec.Raw = NOTHING
    chargingState: str | None = None


class TransactionEvent(msgspec.Struct, gc=False):
    """OCPP 2.0.1 and 2.1 TransactionEventRequest."""

    eventType: Literal["Started", "Updated", "Ended"]
    transactionInfo: TransactionInfo
    timestamp: msgspec.Raw = NOTHING
    seqNo: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    offline: bool | None = None
    evse: Evse | None = None
    idToken: IdToken | None = None
    meterValue: list[MeterValue] | None = None


class MeterValues2(msgspec.Struct, gc=False):
    """OCPP 2.0.1 and 2.1 MeterValuesRequest."""

    evseId: Small
    meterValue: list[MeterValue]


class StatusNotification2(msgspec.Struct, gc=False):
    """OCPP 2.0.1 and 2.1 StatusNotificationRequest."""

    connectorStatus: str
    evseId: Small
    timestamp: msgspec.Raw = NOTHING


_FLAT_KINDS = {
    "sample": (columns.KIND_SAMPLE, columns.CONTEXT_PERIODIC),
    "start": (columns.KIND_START, columns.CONTEXT_BEGIN),
    "stop": (columns.KIND_STOP, columns.CONTEXT_END),
    "status": (columns.KIND_STATUS, columns.CONTEXT_OTHER),
}
_EVENT_KINDS = {
    "Started": (columns.KIND_START, columns.CONTEXT_BEGIN),
    "Updated": (columns.KIND_SAMPLE, columns.CONTEXT_OTHER),
    "Ended": (columns.KIND_STOP, columns.CONTEXT_END),
}


def read_flat(flat: Flat, received_ms: int | None) -> Message:
    """One line."""
    line = _line_at(flat.timestamp, received_ms)
    line.kind, line.context = _FLAT_KINDS[flat.event]
    _put_register(line, flat.energy_wh, quoted=False)
    if line.kind == columns.KIND_STATUS:
        line.flags &= ~columns.FLAG_NO_ENERGY
    line.power_mw = _side_value(line, POWER, flat.power_w)
    line.current_ma = _side_value(line, CURRENT, flat.current_a)
    _put_state(line, flat.state)
    return Message(flat.connector_id, transaction_id(flat.transaction_id), flat.id_token or "", [line])


def read_start16(start: StartTransaction, received_ms: int | None, outer_id: msgspec.Raw) -> Message:
    """One START line with meterStart."""
    line = _line_at(start.timestamp, received_ms)
    line.kind, line.context = columns.KIND_START, columns.CONTEXT_BEGIN
    line.flags |= columns.FLAG_WHOLE_WH
    _put_register(line, start.meterStart, quoted=False)
    return Message(start.connectorId, transaction_id(outer_id), start.idTag or "", [line])


def read_stop16(stop: StopTransaction, received_ms: int | None, outer_id: msgspec.Raw) -> Message:
    """The transactionData as lines, then a STOP line with meterStop (connector 0: the message names none)."""
    line = _line_at(stop.timestamp, received_ms)
    line.kind, line.context = columns.KIND_STOP, columns.CONTEXT_END
    line.flags |= columns.FLAG_WHOLE_WH
    _put_register(line, stop.meterStop, quoted=False)
    lines = []
    for bucket in buckets(stop.transactionData, received_ms, quoted=True):
        other = bucket.line()
        ends = bucket.time_ms == line.time_ms or has_context(bucket, columns.CONTEXT_END)
        if not (ends and _melt_stop(line, other)):
            lines.append(other)
    return Message(0, transaction_id(stop.transactionId, outer_id), stop.idTag or "", [*lines, line])


def read_values16(message: MeterValues16, received_ms: int | None, outer_id: msgspec.Raw) -> Message:
    """One line an instant."""
    lines = [bucket.line() for bucket in buckets(message.meterValue, received_ms, quoted=True)]
    return Message(message.connectorId, transaction_id(message.transactionId, outer_id), "", lines)


def read_status16(message: StatusNotification16, received_ms: int | None, outer_id: msgspec.Raw) -> Message:
    """One STATUS (or RESERVE) line."""
    return _status(message.status, message.timestamp, message.connectorId, received_ms, outer_id)


def read_status2(message: StatusNotification2, received_ms: int | None, outer_id: msgspec.Raw) -> Message:
    """One STATUS (or RESERVE) line."""
    return _status(message.connectorStatus, message.timestamp, message.evseId, received_ms, outer_id)


def read_values2(message: MeterValues2, received_ms: int | None, outer_id: msgspec.Raw) -> Message:
    """One line an instant; the 2.x message names no transaction."""
    lines = [bucket.line() for bucket in buckets(message.meterValue, received_ms, quoted=False)]
    return Message(message.evseId, transaction_id(outer_id), "", lines)


def read_event2(event: TransactionEvent, received_ms: int | None, outer_id: msgspec.Raw) -> Message:
    """START first or STOP last; values of the event's own instant or context in its line, others a line an instant."""
    line = _line_at(event.timestamp, received_ms)
    line.kind, line.context = _EVENT_KINDS[event.eventType]
    _put_state(line, event.transactionInfo.chargingState)
    mine: list[Bucket] = []
    lines = []
    for bucket in buckets(event.meterValue, received_ms, quoted=False):
        own = line.kind != columns.KIND_SAMPLE and has_context(bucket, line.context)
        if own or bucket.time_ms == line.time_ms:
            mine.append(bucket)
        else:
            lines.append(bucket.line())
    line = _melt_event(line, mine)
    if line.kind == columns.KIND_START:
        lines.insert(0, line)
    elif line.kind == columns.KIND_STOP or mine or not lines or line.state != columns.STATE_UNKNOWN:
        lines.append(line)
        if line.kind == columns.KIND_SAMPLE:
            lines.sort(key=lambda each: each.time_ms)
    return Message(
        connector_id=event.evse.id if event.evse else 0,
        transaction_id=transaction_id(event.transactionInfo.transactionId, outer_id),
        token=(event.idToken.idToken if event.idToken else None) or "",
        lines=lines,
        seq_no=-1 if event.seqNo is None else event.seqNo,
        flags=columns.FLAG_OFFLINE if event.offline else 0,
    )


def _status(word: str, timestamp: msgspec.Raw, connector: int, received: int | None, outer_id: msgspec.Raw) -> Message:
    line = _line_at(timestamp, received)
    _put_state(line, word)
    line.kind = columns.KIND_RESERVE if line.state == columns.STATE_RESERVED else columns.KIND_STATUS
    return Message(connector, transaction_id(outer_id), "", [line])


def _line_at(timestamp: msgspec.Raw, received_ms: int | None) -> Line:
    time_ms, flags = event_time(timestamp, received_ms)
    return Line(time_ms, flags=flags)


def _put_state(line: Line, word: str | None) -> None:
    line.state, flags = state_of(word)
    line.flags |= flags


def _put_register(line: Line, raw: msgspec.Raw, *, quoted: bool) -> None:
    amount, flags = _number(REGISTER, raw, quoted)
    line.register_mwh = ABSENT_I64 if amount is None else amount
    line.flags |= flags | (columns.FLAG_NO_ENERGY if amount is None else 0)


def _side_value(line: Line, quantity: int, raw: msgspec.Raw) -> int:
    amount, flags = _number(quantity, raw, quoted=False)
    line.flags |= flags
    return ABSENT_I64 if amount is None else amount


def _number(quantity: int, raw: msgspec.Raw, quoted: bool) -> tuple[int | None, int]:
    text, was_quoted = text_of(raw)
    if not text:
        return None, 0
    amount, flags = read_amount(quantity, text, 3)
    return amount, flags | (columns.FLAG_NUMBER_REPAIRED if was_quoted != quoted else 0)


def _melt_stop(stop: Line, other: Line) -> bool:
    """Puts an End entry into the STOP line when both say the same; False when they are two readings."""
    known = stop.register_mwh != ABSENT_I64
    if other.register_mwh == ABSENT_I64 or other.flags & columns.FLAG_INTERVAL_MEASURAND:
        if other.signed is not None:
            return False
    elif known and not other.signed and abs(other.register_mwh - stop.register_mwh) >= _WH_MWH:
        return False
    else:
        stop.register_mwh = other.register_mwh
        stop.signed = other.signed or stop.signed
        stop.flags &= ~(columns.FLAG_WHOLE_WH | columns.FLAG_NO_ENERGY)
    _take_side_values(stop, other)
    stop.flags |= other.flags & ~(columns.FLAG_NO_ENERGY | columns.FLAG_INTERVAL_MEASURAND)
    return True


def _melt_event(line: Line, mine: list[Bucket]) -> Line:
    """The event's line with the energy, power, current and SoC of the buckets that are its own."""
    if not mine:
        return line
    read = Bucket(line.time_ms, line.flags, [value for bucket in mine for value in bucket.values]).line()
    for bucket in mine:
        read.flags |= bucket.flags if bucket.time_ms == line.time_ms else 0
    read.kind, read.state = line.kind, line.state
    if line.kind != columns.KIND_SAMPLE:
        read.context = line.context
    return read


def _take_side_values(stop: Line, other: Line) -> None:
    stop.power_mw = other.power_mw if other.power_mw != ABSENT_I64 else stop.power_mw
    stop.current_ma = other.current_ma if other.current_ma != ABSENT_I64 else stop.current_ma
    stop.soc_permille = other.soc_permille if other.soc_permille >= 0 else stop.soc_permille
    if other.phases_said >= 0:
        stop.phases_said, stop.phases_live = other.phases_said, other.phases_live

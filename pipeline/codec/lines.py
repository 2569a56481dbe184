"""From the values of one instant to one line (a sample): which of several values counts.

Rules (design: metering): Outlet before Inlet; End before Begin before Periodic before Clock; signed before plain;
the total before the sum of phases; a register before an interval; what was not said stays absent.
"""

from collections.abc import Iterable

import msgspec

from pipeline.codec import vocabulary as words
from pipeline.codec.numbers import MAX_CURRENT_MA, MAX_POWER_MW, energy_mwh, is_sentinel, scaled
from pipeline.codec.records import UndecodableError
from pipeline.metering import columns
from pipeline.metering.columns import ABSENT_I64

_LIMITS = {words.POWER: MAX_POWER_MW, words.CURRENT: MAX_CURRENT_MA, words.SOC: 1000}


class Signed(msgspec.Struct, frozen=True, gc=False):
    """A signed value as it travelled: the blob, its stated method and the sender's key."""

    data: bytes
    method: str
    public_key: str


class Value(msgspec.Struct, gc=False):
    """One sampled value in the codec's words. `amount` None: said, but unusable (see `flags`)."""

    quantity: int
    context: int
    phase: int
    place: int
    amount: int | None
    flags: int
    signed: Signed | None = None


class Line(msgspec.Struct, gc=False):
    """One sample before it becomes a row; fields as in SAMPLE_DTYPE."""

    time_ms: int
    kind: int = columns.KIND_SAMPLE
    context: int = columns.CONTEXT_OTHER
    state: int = columns.STATE_UNKNOWN
    register_mwh: int = ABSENT_I64
    power_mw: int = ABSENT_I64
    current_ma: int = ABSENT_I64
    soc_permille: int = -1
    phases_live: int = -1
    phases_said: int = -1
    flags: int = 0
    signed: Signed | None = None


def read_amount(quantity: int, text: bytes, places: int) -> tuple[int | None, int]:
    """The amount in the column's unit and the flags it earns; None where the value is unusable but does no harm.

    Raises UndecodableError for energy that is no number: the record must not pass as if it had none.
    """
    if quantity in (words.REGISTER, words.INTERVAL):
        return _read_energy(text, places)
    try:
        amount, repaired = scaled(text, places)
    except UndecodableError:
        return None, columns.FLAG_VALUE_DROPPED
    if abs(amount) > _LIMITS[quantity] or (quantity == words.SOC and amount < 0):
        return None, columns.FLAG_VALUE_DROPPED
    return amount, columns.FLAG_NUMBER_REPAIRED if repaired else 0


def _read_energy(text: bytes, places: int) -> tuple[int | None, int]:
    amount, repaired = energy_mwh(text, places)
    flags = columns.FLAG_NUMBER_REPAIRED if repaired else 0
    if is_sentinel(amount):
        return None, flags | columns.FLAG_SENTINEL
    if amount < 0:
        return None, flags | columns.FLAG_NEGATIVE
    return amount, flags


def read_line(time_ms: int, values: Iterable[Value]) -> Line:
    """One line from all values of one instant; FLAG_NO_ENERGY where none of them is energy."""
    by_quantity: dict[int, list[Value]] = {}
    line = Line(time_ms)
    for value in values:
        by_quantity.setdefault(value.quantity, []).append(value)
        line.context = max(line.context, value.context)
        line.flags |= value.flags
    _put_energy(line, by_quantity)
    line.power_mw = _total(_best(by_quantity.get(words.POWER, [])))[0]
    _put_current(line, _best(by_quantity.get(words.CURRENT, [])))
    soc = [value.amount for value in by_quantity.get(words.SOC, []) if value.amount is not None]
    line.soc_permille = soc[-1] if soc else -1
    return line


def _put_energy(line: Line, by_quantity: dict[int, list[Value]]) -> None:
    for quantity, flag in ((words.REGISTER, 0), (words.INTERVAL, columns.FLAG_INTERVAL_MEASURAND)):
        best = _best(by_quantity.get(quantity, []))
        amount, how = _total(best)
        line.signed = line.signed or next((v.signed for v in reversed(best) if v.signed), None)
        if amount != ABSENT_I64:
            line.register_mwh = amount
            line.context = best[0].context
            line.flags |= flag | how | (columns.FLAG_NOT_OUTLET if best[0].place == words.ELSEWHERE else 0)
            return
    line.flags |= columns.FLAG_NO_ENERGY


def _put_current(line: Line, best: list[Value]) -> None:
    line.current_ma = _total(best)[0]
    phases = {value.phase: value.amount for value in best if value.phase and value.amount is not None}
    if phases:
        line.phases_said = len(phases)
        line.phases_live = sum(amount > 0 for amount in phases.values())


def _best(values: list[Value]) -> list[Value]:
    """The values of the best place and context among those of one quantity, signed ones alone if there are any."""
    if len(values) < 2:
        return values
    usable = [value for value in values if value.amount is not None] or values
    place = min(value.place for value in usable)
    context = max(value.context for value in usable if value.place == place)
    best = [value for value in values if value.place == place and value.context == context]
    signed = [value for value in best if value.signed and value.amount is not None]
    return signed or best


def _total(values: list[Value]) -> tuple[int, int]:
    """The total, else the sum of the phases, else absent; and the flag that says how it came about."""
    totals = [value.amount for value in values if value.phase == 0 and value.amount is not None]
    if totals:
        return totals[-1], 0
    phases = {value.phase: value.amount for value in values if value.phase}
    amounts = [amount for amount in phases.values() if amount is not None]
    if not amounts or len(amounts) < len(phases):
        return ABSENT_I64, 0  # a phase that can't be read must not make the sum smaller
    return sum(amounts), columns.FLAG_PHASE_SUM if len(phases) > 1 else columns.FLAG_TOTAL_ON_PHASE

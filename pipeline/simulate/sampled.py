"""Sampled values that are not told plainly: wrong forms, missing units, phases, signatures.

The slow road, one row at a time, for the rows of faulty sessions. The plain road is the templates in
`ocpp16` and `ocpp201`.
"""

from typing import Final, NamedTuple

from pipeline.simulate import variants
from pipeline.simulate.columns import ABSENT_MWH
from pipeline.simulate.texts import decimal

REGISTER: Final = "Energy.Active.Import.Register"


class Reading(NamedTuple):
    """One row, as much of it as a meter value tells."""

    charge_point: bytes
    timestamp: bytes
    register_mwh: int
    other_mwh: int
    power_mw: int
    says_currents: bool
    kwh_unit: bool
    variant: int


class Sampled(NamedTuple):
    """One sampled value; None is left out of the message. `text` holds a number unless `signed`."""

    text: bytes
    measurand: str | None = None
    unit: str | None = None
    context: str | None = None
    phase: str | None = None
    signed: bool = False


def sampled_values(reading: Reading) -> list[Sampled]:
    """What the meter says at this row, in the way that the row's variant asks for."""
    values = [] if reading.register_mwh == ABSENT_MWH else _energy(reading)
    values.append(Sampled(decimal(reading.power_mw, 3), "Power.Active.Import", "W"))
    if reading.says_currents:
        values.extend(_currents(reading))
    return values


def _energy(reading: Reading) -> list[Sampled]:
    special = _ENERGY.get(reading.variant)
    return special(reading) if special else [_register(reading, reading.register_mwh)]


def _register(reading: Reading, mwh: int, context: str | None = None, phase: str | None = None) -> Sampled:
    if reading.kwh_unit:
        return Sampled(decimal(mwh, 6), REGISTER, "kWh", context, phase)
    return Sampled(decimal(mwh, 3), REGISTER, "Wh", context, phase)


def _comma(reading: Reading) -> list[Sampled]:
    plain = _register(reading, reading.register_mwh)
    text = plain.text if b"." in plain.text else plain.text + b".0"
    return [plain._replace(text=text.replace(b".", b","))]


def _unit_missing(reading: Reading) -> list[Sampled]:
    return [Sampled(decimal(reading.register_mwh, 3), REGISTER)]


def _no_energy(reading: Reading) -> list[Sampled]:
    del reading
    return []


def _clock_mixed(reading: Reading) -> list[Sampled]:
    return [
        _register(reading, reading.other_mwh, "Sample.Clock"),
        _register(reading, reading.register_mwh, "Sample.Periodic"),
    ]


def _begin_and_periodic(reading: Reading) -> list[Sampled]:
    return [
        _register(reading, reading.other_mwh, "Transaction.Begin"),
        _register(reading, reading.register_mwh, "Sample.Periodic"),
    ]


def _per_phase(reading: Reading) -> list[Sampled]:
    third = reading.register_mwh // 3_000 * 1_000
    parts = {"L1": third, "L2": third, "L3": reading.register_mwh - 2 * third}
    return [_register(reading, mwh, phase=phase) for phase, mwh in parts.items()]


def _total_on_l1(reading: Reading) -> list[Sampled]:
    return [_register(reading, reading.register_mwh, phase="L1")]


def _interval(reading: Reading) -> list[Sampled]:
    return [Sampled(decimal(reading.register_mwh, 3), "Energy.Active.Import.Interval", "Wh")]


def _signed(reading: Reading) -> list[Sampled]:
    from pipeline.simulate.signing import signed_value

    forged = reading.variant == variants.FORGED
    data = signed_value(reading.charge_point, reading.timestamp, reading.register_mwh, forged=forged)
    plain = reading._replace(kwh_unit=not reading.kwh_unit)
    return [Sampled(data, REGISTER, "Wh", signed=True), _register(plain, reading.register_mwh)]


def _currents(reading: Reading) -> list[Sampled]:
    live = 2 if reading.variant == variants.PHASE_LOST else 3
    each = reading.power_mw // (23_000 * live)
    values = [each if phase < live else 0 for phase in range(3)]
    return [Sampled(decimal(value, 1), "Current.Import", "A", phase=f"L{n}") for n, value in enumerate(values, 1)]


_ENERGY = {
    variants.DECIMAL_COMMA: _comma,
    variants.UNIT_MISSING: _unit_missing,
    variants.NO_ENERGY: _no_energy,
    variants.CLOCK_MIXED: _clock_mixed,
    variants.BEGIN_AND_PERIODIC: _begin_and_periodic,
    variants.PER_PHASE: _per_phase,
    variants.TOTAL_ON_L1: _total_on_l1,
    variants.INTERVAL: _interval,
    variants.SIGNED: _signed,
    variants.FORGED: _signed,
}

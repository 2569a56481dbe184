"""Faults of messages: broken, doubled, late, lost, out of order, with ids and instants that lie."""

from typing import Final

import numpy as np

from pipeline.simulate import variants
from pipeline.simulate.columns import SAMPLE, STATE
from pipeline.simulate.fault import ALL, OCPP, Draft, Fault, Which
from pipeline.simulate.struck import (
    START_ONLY,
    STOP_AND_AVAILABLE,
    STOP_ONLY,
    Edit,
    Struck,
    after_the_stop,
    at_sample,
    both,
    change,
    drop,
    everywhere,
    first,
    from_sample,
    kinds,
    poison,
    repeat_some,
    run_of_samples,
    tell,
    until_sample,
)
from rating.columns import I64

_OUTSIDE = "energy after stop, next start > last stop"
_NUMBER = "number where a string belongs, decimal comma"
_BROKEN = "broken JSON"
_TIME = "timestamp without zone, local time marked Z, 1970, 0000-00-00, clock hours off"
_TXN = "transactionId -1, 0, 2^63-1, missing"
_ORDER = "duplicates, replayed offline messages, out of order"
_EDGES = "values after stop; stop never comes; start lost"
_BATCH = "batch without energy, Sample.Clock mixed with Periodic, Begin and Periodic in one bucket"

_HOUR_MS: Final = 3_600_000
_OFFLINE_MS: Final = 45 * 60_000
_VALUES = kinds(SAMPLE)
_UNTIL_THE_END = first(from_sample, STOP_AND_AVAILABLE)


def _energy_between(draft: Draft, which: Which) -> None:
    sessions = draft.sessions
    amount = 300_000 + sessions["number"][which] % 28 * 100_000
    sessions["base_mwh"][which] += amount
    draft.after_mwh[which] += amount
    draft.outside_mwh[which] = amount


def _shifted(hours: int) -> Edit:
    return change("time_ms", everywhere, lambda struck: struck.get("time_ms") + hours * _HOUR_MS)


def _since_boot(struck: Struck) -> I64:
    instants: I64 = struck.get("time_ms") - struck.session["start_ms"] + 37_000
    return instants


def _queue_place(struck: Struck) -> I64:
    """Delay in ms that keeps queued messages in their order; a state row has the number of the sample before it."""
    place: I64 = (struck.get("k").astype(np.int64) - struck.at) * 10 + (struck.get("kind") == STATE) * 5
    return np.maximum(place + 20, 0)


def _after_a_live_one(struck: Struck) -> I64:
    period = struck.session["period_ms"].astype(np.int64)
    live = struck.session["start_ms"] + (struck.at + 4) * period + struck.session["latency_ms"]
    arrival: I64 = live + 2_000 + _queue_place(struck)
    return arrival


def _after_all(struck: Struck) -> I64:
    arrival: I64 = struck.session["stop_ms"] + _OFFLINE_MS + _queue_place(struck)
    return arrival


def _keeps_connector(draft: Draft, which: Which) -> None:
    draft.busy_ms[which] += _OFFLINE_MS + 600_000


def _overtaken(struck: Struck) -> I64:
    late: I64 = struck.get("arrival_ms") + struck.session["period_ms"].astype(np.int64) * 3 // 2
    return late


def _older_register(struck: Struck) -> I64:
    k = np.maximum(struck.get("k") - 1, 0).astype(np.int32)
    older: I64 = struck.session["base_mwh"] + struck.energy_at_sample(k)
    return older


def _base_register(struck: Struck) -> I64:
    base: I64 = struck.session["base_mwh"]
    return base


def _transaction(name: str, variant: int, says: str) -> Fault:
    # The codec cannot tell these ids from each other's: metering matches by connector and time.
    return Fault(name, _TXN, says, tell(variant, everywhere))


MESSAGE_FAULTS: Final = (
    Fault(
        "energy_outside_transaction",
        _OUTSIDE,
        "0.3 to 3 kWh flowed since the connector's last session",
        after=_energy_between,
        shapes=ALL,
        followed=True,
        base_mwh_min=1,
        alerts=("energy_outside_transaction",),
    ),
    Fault("number_for_string", _NUMBER, "JSON type swapped", tell(variants.NUMBER_FOR_STRING, _VALUES)),
    Fault("decimal_comma", _NUMBER, "12345,6", tell(variants.DECIMAL_COMMA, _VALUES)),
    Fault("broken_json", _BROKEN, "one sample is cut off in the middle", tell(variants.BROKEN_JSON, at_sample)),
    Fault("poison", _BROKEN, "beside one sample: empty, null key, not UTF-8, NaN or a giant", poison),
    Fault(
        "time_without_zone", _TIME, "UTC, but without Z", tell(variants.TIME_NO_ZONE, everywhere), scope="charge_point"
    ),
    Fault("local_time_as_utc", _TIME, "local time (+1 h) marked Z", _shifted(1), scope="charge_point", shapes=ALL),
    Fault(
        "time_1970",
        _TIME,
        "until its clock is set the charger counts from 1970",
        change("time_ms", until_sample, _since_boot),
        shapes=ALL,
        alerts=("unusable_time",),
    ),
    Fault(
        "time_zero",
        _TIME,
        "three samples say 0000-00-00T00:00:00Z",
        tell(variants.TIME_ZERO, run_of_samples(3)),
        alerts=("unusable_time",),
    ),
    Fault("clock_hours_off", _TIME, "clock 7 hours behind", _shifted(-7), scope="charge_point", shapes=ALL),
    _transaction("transaction_minus_one", variants.TXN_MINUS_ONE, "transaction id -1"),
    _transaction("transaction_zero", variants.TXN_ZERO, "transaction id 0"),
    _transaction("transaction_max", variants.TXN_MAX, "transaction id 2^63-1"),
    _transaction("transaction_missing", variants.TXN_MISSING, "no transaction id"),
    Fault("duplicate", _ORDER, "a third of the messages come twice", repeat_some, shapes=ALL),
    Fault(
        "offline_replay",
        _ORDER,
        "four samples come after the live one that follows them",
        both(
            change("arrival_ms", run_of_samples(4), _after_a_live_one),
            change("offline", run_of_samples(4), lambda struck: 1),
        ),
        shapes=ALL,
        may=("silence",),
    ),
    Fault(
        "offline_to_the_end",
        _ORDER,
        "from one sample on all messages, the stop too, come 45 minutes after the stop",
        both(change("arrival_ms", _UNTIL_THE_END, _after_all), change("offline", _UNTIL_THE_END, lambda struck: 1)),
        after=_keeps_connector,
        shapes=ALL,
        may=("silence",),
    ),
    Fault(
        "out_of_order",
        _ORDER,
        "one sample comes after the next",
        change("arrival_ms", at_sample, _overtaken),
        shapes=ALL,
    ),
    Fault(
        "values_after_stop", _EDGES, "two samples after the stop", after_the_stop, after=_keeps_connector, shapes=ALL
    ),
    Fault(
        "stop_lost",
        _EDGES,
        "neither the stop nor the status after it comes",
        drop(STOP_AND_AVAILABLE),
        shapes=ALL,
        alerts=("lost_stop",),
        may=("silence",),
    ),
    Fault(
        "stop_lost_status_comes",
        _EDGES,
        "no stop, but the connector says Available",
        drop(STOP_ONLY),
        shapes=OCPP,
        alerts=("lost_stop",),
    ),
    Fault("start_lost", _EDGES, "the start never comes", drop(START_ONLY), shapes=ALL, alerts=("lost_start",)),
    Fault("batch_without_energy", _BATCH, "three samples tell power only", tell(variants.NO_ENERGY, run_of_samples(3))),
    Fault(
        "clock_mixed",
        _BATCH,
        "each sample also tells the one before as Sample.Clock",
        both(tell(variants.CLOCK_MIXED, _VALUES), change("other_mwh", _VALUES, _older_register)),
        shapes=OCPP,
    ),
    Fault(
        "begin_and_periodic",
        _BATCH,
        "one sample also tells the first register as Transaction.Begin",
        both(tell(variants.BEGIN_AND_PERIODIC, at_sample), change("other_mwh", at_sample, _base_register)),
        shapes=OCPP,
    ),
)

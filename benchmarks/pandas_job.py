"""The same readings rated by plain NumPy and pandas: a batch job over the whole topic, as one would write it by hand.

Reads all messages into memory, sorts, takes differences and prices by the local minute. Only ENERGY and FLAT under
times and weekdays, and only intervals of up to a minute: limits on energy, power or duration depend on the row before,
which is where a data frame ends. No verdicts, no state between runs, no CDRs, no exactly-once.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.workload import SITE, Workload, tariff_documents, zone_of
from rating.money import COST_PER_E4, ENERGY_COST
from rating.tariff import ENERGY, FLAT, NO_LIMITS, Element, Tariff, Window, parse_tariff

MINUTE_MS: Final = 60_000
I64 = npt.NDArray[np.int64]


def can_do(workload: Workload) -> bool:
    """Whether the workload is in flat JSON without faults, and priced by time alone."""
    elements = [element for one in tariff_documents(workload) for element in parse_tariff(one).elements]
    simple = all(e.limits == NO_LIMITS and all(c.dimension in (ENERGY, FLAT) for c in e.components) for e in elements)
    return simple and workload.shape == "flat" and not workload.faulty


def rate(values: Sequence[bytes], workload: Workload) -> dict[str, int]:
    """Cost by transaction, in cost units, of a topic's messages."""
    frame = _frame(values)
    prices = [(parse_tariff(one), zone_of(one)) for one in tariff_documents(workload)]
    frame["tariff"] = frame["charge_point_id"].str.slice(2).astype(np.int64) // SITE % len(prices)
    costs = [_costs(part, *prices[at]) for at, part in frame.groupby("tariff", sort=False)]
    total = pd.concat(costs).groupby(level=0).sum()
    return {str(name): int(cost) for name, cost in total.items()}


def _frame(values: Sequence[bytes]) -> pd.DataFrame:
    decoder = msgspec.json.Decoder(dict[str, Any])
    frame = pd.DataFrame.from_records([decoder.decode(value) for value in values if value[:10] != b'{"control"'])
    frame["time_ms"] = pd.to_datetime(frame["timestamp"]).astype("datetime64[ms, UTC]").astype(np.int64)
    return frame.sort_values(["transaction_id", "time_ms"], ignore_index=True)


def _costs(frame: pd.DataFrame, tariff: Tariff, zone: str) -> "pd.Series[int]":
    """Cost by transaction, under one tariff."""
    same = frame["transaction_id"].eq(frame["transaction_id"].shift())
    start = frame["time_ms"].shift(fill_value=0)[same].to_numpy()
    end = frame["time_ms"][same].to_numpy()
    energy = (frame["energy_wh"].diff()[same].astype(np.int64) * 1000).to_numpy()
    assert np.all(end - start <= MINUTE_MS), "an interval may cross one minute"
    minute = (start // MINUTE_MS + 1) * MINUTE_MS
    until = np.minimum(minute, end)
    before, after = _prices(tariff, zone, start, ENERGY), _prices(tariff, zone, minute, ENERGY)
    first = np.where(before == after, energy, energy * (until - start) // (end - start))
    cost = (first * before + (energy - first) * after) * ENERGY_COST
    begins = frame[~same]
    flat = _prices(tariff, zone, begins["time_ms"].to_numpy(), FLAT) * COST_PER_E4
    names = pd.concat([frame["transaction_id"][same], begins["transaction_id"]])
    return pd.Series(np.concatenate([cost, flat]), index=names.to_numpy())


def _prices(tariff: Tariff, zone: str, instants_ms: I64, dimension: int) -> I64:
    """The price at each instant: of the first element that matches."""
    local = pd.DatetimeIndex(pd.to_datetime(instants_ms, unit="ms", utc=True)).tz_convert(zone)
    minute, weekday = np.asarray(local.hour * 60 + local.minute), np.asarray(local.weekday)
    conditions, prices = [], []
    for element in tariff.elements:
        for component in element.components:
            if component.dimension == dimension:
                conditions.append(_matches(element, minute, weekday))
                prices.append(component.price_e4)
    found: I64 = np.select(conditions, prices, 0) if conditions else np.zeros(len(instants_ms), np.int64)
    return found


def _matches(element: Element, minute: npt.NDArray[Any], weekday: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    window: Window = element.window
    start, end = window.start_minute, window.end_minute
    inside = (minute >= start) & (minute < end) if start < end else (minute >= start) | (minute < end)
    day = np.array([window.weekdays >> number & 1 for number in range(7)], np.bool_)[weekday]
    found: npt.NDArray[np.bool_] = day & (inside | (start == end))
    return found

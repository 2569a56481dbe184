"""Streaming detectors as compiled functions over state columns: one row a connector, token or site, constant memory.

Each takes the row of its state and one value, changes the state, and returns a statistic; what is an alert is the
caller's threshold. A detector that is not warm returns 0. State arrays are plain: saved and restored as bytes.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from rating.jit import kernel

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

MAD_TO_SIGMA: Final = 1.4826  # of a normal distribution (Hampel 1974)


@kernel
def cusum(sums: F64, row: int, residual: float, drift: float, clip: float) -> float:
    """One-sided CUSUM (Page 1954) of a standardised residual: grows while residuals stay above `drift`.

    Residuals are clipped to ±clip so that no single value makes an alarm. Usual: drift half of the shift looked for.
    """
    bounded = min(max(residual, -clip), clip)
    sums[row] = max(0.0, sums[row] + bounded - drift)
    return float(sums[row])


@kernel
def page_hinkley(seen: I64, means: F64, sums: F64, least: F64, row: int, value: float, delta: float) -> float:
    """Page-Hinkley: how far the sum of (value − mean so far − delta) rose above its least (Page 1954, Hinkley 1971)."""
    seen[row] += 1
    means[row] += (value - means[row]) / seen[row]
    sums[row] += value - means[row] - delta
    least[row] = min(least[row], sums[row])
    return float(sums[row] - least[row])


@kernel
def robust_z(window: F64, filled: I64, scratch: F64, row: int, value: float, warm_up: int, floor: float) -> float:
    """(value − median) / (1.4826 · MAD) over the row's last values; then the value joins them.

    `window` is a ring of the last values a row, kept in the order of arrival; `scratch` is as long. `floor` is the
    least spread: without it a row of equal values makes everything an outlier. Source: Iglewicz and Hoaglin 1993.
    """
    width = window.shape[1]
    count = min(filled[row], width)
    z = 0.0
    if count >= warm_up:
        middle = _median_of(window, row, count, scratch, 0.0, False)
        spread = MAD_TO_SIGMA * _median_of(window, row, count, scratch, middle, True)
        z = (value - middle) / max(spread, floor)
    window[row, filled[row] % width] = value
    filled[row] += 1
    return z


@kernel
def _median_of(window: F64, row: int, count: int, scratch: F64, middle: float, distances: bool) -> float:
    """Median of the row's values, or of their distances from `middle`: insertion sort, for tens of values."""
    for i in range(count):
        value = window[row, i]
        if distances:
            value = abs(value - middle)
        at = i
        while at > 0 and scratch[at - 1] > value:
            scratch[at] = scratch[at - 1]
            at -= 1
        scratch[at] = value
    half = count // 2
    return float(scratch[half]) if count % 2 else float((scratch[half - 1] + scratch[half]) / 2)


@kernel
def seasonal_z(
    levels: F64, spreads: F64, seen: I64, row: int, slot: int, value: float, alpha: float, floor: float
) -> float:
    """Residual of `value` against its slot's level (hour of the week), in units of the row's usual residual.

    Exponentially weighted mean a slot and mean absolute residual a row (Holt-Winters without trend; Brutlag 2000).
    A slot that was never seen only learns. `spreads` and `seen` have one slot more a row: the whole row's.
    """
    last = levels.shape[1]
    first_time = seen[row, slot] == 0
    residual = 0.0 if first_time else value - levels[row, slot]
    rate = max(alpha, 1.0 / (seen[row, slot] + 1))
    levels[row, slot] += rate * (value - levels[row, slot])
    seen[row, slot] += 1
    if first_time:
        return 0.0
    scale = max(1.2533 * spreads[row], floor)  # mean absolute deviation to sigma, of a normal distribution
    z = residual / scale if seen[row, last] >= last else 0.0
    seen[row, last] += 1
    bounded = min(abs(residual), 4.0 * scale) if seen[row, last] > last else abs(residual)
    spreads[row] += max(alpha / 8, 1.0 / seen[row, last]) * (bounded - spreads[row])
    return float(z)


@kernel
def surprise(
    levels: F64,
    spreads: F64,
    scores: F64,
    seen: I64,
    row: int,
    value: float,
    slow: float,
    fast: float,
    clip: float,
    warm_up: int,
) -> float:
    """How far the last values lay from what is usual: a quick mean of |z|, z against a slow mean and mean deviation.

    Exponentially weighted (Roberts 1959), rates `slow` and `fast`; z is clipped, and what lies beyond the clip moves
    the slow mean no further than it. For series without a season or with one that is short beside 1 / `slow`.
    """
    if seen[row] == 0:
        levels[row] = value
    seen[row] += 1
    residual = value - levels[row]
    scale = 1.2533 * spreads[row]
    if seen[row] > warm_up:
        z = residual / scale if scale > 1e-9 else 0.0
        scores[row] += fast * (min(abs(z), clip) - scores[row])
        residual = min(max(residual, -clip * scale), clip * scale)
    rate = max(slow, 1.0 / seen[row])
    levels[row] += rate * residual
    spreads[row] += rate * (abs(residual) - spreads[row])
    return float(scores[row])

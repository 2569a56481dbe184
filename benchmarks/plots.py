"""Line charts as SVG, written by hand: no library draws them, so they are the same bytes wherever they are made."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 20, 48, 56
_COLOURS: Final = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df")


class Series(NamedTuple):
    """A line with its name."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class _Axis:
    """Values of one direction, and where they lie on the paper."""

    def __init__(self, values: Sequence[float], first: float, last: float, *, log: bool) -> None:
        self._log = log
        self.ticks = _decades(values) if log else _steps(values)
        low, high = self._of(self.ticks[0]), self._of(self.ticks[-1])
        self._place: Callable[[float], float] = lambda v: first + (v - low) / ((high - low) or 1) * (last - first)

    def at(self, value: float) -> float:
        """Where it lies."""
        return self._place(self._of(value))

    def _of(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self._log else value


def line_chart(
    path: Path, title: str, x_name: str, y_name: str, series: Sequence[Series], *, log_x: bool = False,
    log_y: bool = False,
) -> None:  # fmt: skip
    """Write one chart."""
    across = _Axis([x for one in series for x in one.x], _LEFT, _WIDTH - _RIGHT, log=log_x)
    up = _Axis([y for one in series for y in one.y], _HEIGHT - _BOTTOM, _TOP, log=log_y)
    parts = [_text(_LEFT, 22, title, size=16), _text(_WIDTH / 2, _HEIGHT - 12, x_name, anchor="middle")]
    parts.append(_text(14, _TOP - 10, y_name))
    for value in across.ticks:
        x = across.at(value)
        parts += [
            _line(x, _TOP, x, _HEIGHT - _BOTTOM),
            _text(x, _HEIGHT - _BOTTOM + 18, _short(value), anchor="middle"),
        ]
    for value in up.ticks:
        y = up.at(value)
        parts += [_line(_LEFT, y, _WIDTH - _RIGHT, y), _text(_LEFT - 8, y + 4, _short(value), anchor="end")]
    for number, one in enumerate(series):
        parts += _drawn(one, number, across, up)
    body = "\n".join(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>\n{body}\n</svg>\n',
        "utf-8",
    )


def _drawn(one: Series, number: int, across: _Axis, up: _Axis) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    points = [(across.at(x), up.at(y)) for x, y in zip(one.x, one.y, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
    name = _text(_LEFT + 10, _TOP + 16 + 17 * number, one.name, colour=colour)
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots, name]


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="#d8dee4"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#24292f") -> str:
    told = escape(text)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{told}</text>'


def _decades(values: Sequence[float]) -> list[float]:
    low, high = math.floor(math.log10(max(min(values), 1e-9))), math.ceil(math.log10(max(*values, 1e-9)))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def _steps(values: Sequence[float]) -> list[float]:
    """0 and up to six round steps."""
    most = max(*values, 1e-9)
    raw = most / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    return [step * number for number in range(math.ceil(most / step) + 1)]


def _short(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"

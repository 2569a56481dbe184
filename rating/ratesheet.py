"""Rate sheets: tariffs compiled for time zones into a few integer tables that kernels read.

A `Book` holds all sheets. A sheet (an int) never changes its meaning while a book grows: a builder only
appends, and `book()` gives a new value; readers of the old one are not disturbed.

    sheet ─> calendar: sorted UTC flips, at each a pattern (which windows of the local clock hold);
                       spans of equal length, at each the flip that holds: where to look
          ─> patterns: per slot the candidates in list order, up to the first that always holds
                       candidate = (component or FREE, row of dynamic limits or NO_LIMIT)
          ─> thresholds: kWh, durations, power and current at which something may change
          ─> cells: what prices energy and time in each pattern between any thresholds, if they are not too many
          ─> tax rates, price limits, bounds

Sheets that share zone and windows share a calendar, so thousands of tariff versions cost little.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import gcd
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rating import localtime, money
from rating.cells import CELLS_MAX, FOREVER, NO_LIMIT, Grid
from rating.columns import FREE, I32, I64
from rating.errors import SheetError
from rating.policy import DEFAULT, Policy
from rating.tariff import (
    ALWAYS,
    CHARGING_ELEMENT,
    ENERGY,
    EXPIRED_ELEMENT,
    FLAT,
    NO_LIMITS,
    PARKING_TIME,
    RESERVATION_ELEMENT,
    TAX_INCLUDED,
    TAX_NONE,
    TIME,
    Element,
    Limits,
    PriceComponent,
    PriceLimit,
    Tariff,
    Window,
)

# Slots: what a price may be asked for. (dimension, elements that may answer, in this order of preference)
SLOT_ENERGY: Final = 0
SLOT_TIME: Final = 1
SLOT_PARKING: Final = 2
SLOT_RESERVATION: Final = 3
SLOT_EXPIRED: Final = 4
SLOT_FLAT: Final = 5
SLOT_RESERVATION_FLAT: Final = 6
SLOT_EXPIRED_FLAT: Final = 7
SLOTS: Final = 8
CELL_SLOTS: Final = 3  # the first, which cells answer for: those of a session that is not a reservation
_ASKED: Final = (
    (ENERGY, (CHARGING_ELEMENT,)),
    (TIME, (CHARGING_ELEMENT,)),
    (PARKING_TIME, (CHARGING_ELEMENT,)),
    (TIME, (RESERVATION_ELEMENT,)),
    (
        TIME,
        (EXPIRED_ELEMENT, RESERVATION_ELEMENT),
    ),  # "will be calculated based on the RESERVATION_EXPIRES TariffElement"
    (FLAT, (CHARGING_ELEMENT,)),
    (FLAT, (RESERVATION_ELEMENT,)),
    (FLAT, (EXPIRED_ELEMENT,)),
)

# Columns of Book.sheets.
FLIPS_AT: Final = 0
FLIPS_END: Final = 1
FROM_MS: Final = 2
UNTIL_MS: Final = 3
SPANS_AT: Final = 4
PATTERNS_AT: Final = 5
KWH_AT: Final = 6
KWH_END: Final = 7
DURATION_AT: Final = 8
DURATION_END: Final = 9  # behind them the thresholds of power
POWER_END: Final = 10  # and of current
CURRENT_END: Final = 11
CELLS_AT: Final = 12
CELLS: Final = 13  # of each pattern; 0 = they would be too many, the elements are searched
CURRENT_STEP: Final = 14  # from a cell to that of the next threshold; of energy it is the next row
POWER_STEP: Final = 15
DURATION_STEP: Final = 16
ENERGY_MAX_MWH: Final = 17  # energy and time of one session beyond which cost could leave int64
TIME_MAX_MS: Final = 18
TAX_MODE: Final = 19
DENOMINATOR: Final = 20  # of all tax factors of the sheet
RATES_AT: Final = 21
RATES_END: Final = 22
MIN_EXCL: Final = 23  # price limits in cost units; NO_AMOUNT = not limited
MIN_INCL: Final = 24
MAX_EXCL: Final = 25
MAX_INCL: Final = 26
ROUND_TO: Final = 27  # cost units that totals are rounded to a multiple of
STEPS_COUNT: Final = 28  # 0 where the policy ignores step_size
COMPONENTS_AT: Final = 29
COMPONENTS_END: Final = 30
SHEET_COLUMNS: Final = 31

# Columns of Book.components.
PRICE_E4: Final = 0
DIMENSION: Final = 1
STEP: Final = 2  # mWh or ms
RATE: Final = 3  # row of Book.rates
ELEMENT: Final = 4  # index in Tariff.elements
COMPONENT: Final = 5  # index in price_components
VAT_E4: Final = 6  # NO_VAT = no VAT applies
SHEET: Final = 7
COMPONENT_COLUMNS: Final = 8

# Columns of Book.rates: tax factors over the sheet's DENOMINATOR.
RATE_EXCL: Final = 0
RATE_INCL: Final = 1
RATE_VAT_E4: Final = 2
RATE_COLUMNS: Final = 3

# Columns of Book.limits: min <= value < max.
LIMIT_COLUMNS: Final = 8
NO_VAT: Final = -1
NO_AMOUNT: Final = -1
RATES_MAX: Final = 8  # different VAT percentages in one tariff

SPAN_BITS: Final = 25  # 2**25 ms are 9 hours: of usual calendars one flip or two
_COST_BOUND: Final = 2**60  # of one dimension of one session: 6.4 million currency units
_DENOMINATOR_BOUND: Final = 2**60


class Book(NamedTuple):
    """All sheets as few tables; what numba kernels read. Rows never move, tables only grow."""

    sheets: I64  # [sheet, SHEET_COLUMNS]
    flips: I64  # UTC ms from which a pattern holds
    flip_pattern: I32  # pattern of the calendar, to be added to PATTERNS_AT
    spans: I32  # per SPAN_BITS of ms from FROM_MS on: which flip of the calendar holds at its start
    patterns: I32  # [pattern, SLOTS + 1]: where the candidates of a slot begin and end
    candidates: I32  # [candidate, 2]: component or FREE, row of limits or NO_LIMIT
    limits: I64  # [row, LIMIT_COLUMNS]: mWh, mA, mW, ms, each min and max
    thresholds: I64  # kWh (mWh), duration (ms), power (mW) and current (mA) thresholds of the sheets
    cells: I32  # [cell, SLOT_ENERGY, SLOT_TIME, SLOT_PARKING]: component << MISSING_BITS | what could not be checked
    components: I64  # [component, COMPONENT_COLUMNS]
    rates: I64  # [rate, RATE_COLUMNS]


@dataclass(frozen=True, slots=True)
class SheetSource:
    """What a sheet was compiled from: for people, CDRs and explanations, never for kernels."""

    key: str  # "CC*PARTY*ID@version"
    tariff: Tariff
    zone: str


class _Calendar:
    """Flips of one zone and one list of windows over a horizon that widens at its ends."""

    def __init__(self, zone: str, windows: tuple[Window, ...], policy: Policy) -> None:
        self.zone, self.windows = zone, windows
        self.patterns: list[tuple[bool, ...]] = [] if windows else [()]
        self.instants = np.array([] if windows else [-FOREVER], np.int64)
        self.pattern = np.zeros(len(self.instants), np.int32)
        self.spans = np.zeros(0, np.int32)
        self._equal_is_day = policy.equal_times == "whole-day"
        self._numbers: dict[tuple[bool, ...], int] = {}

    def widen(self, from_ms: int, until_ms: int, *, before: bool = False) -> None:
        """Add the flips of [from_ms, until_ms), which touches what is known at its end, or its start."""
        if not self.windows or from_ms >= until_ms:
            return
        new = self._flips(from_ms, until_ms)
        known = (self.instants, self.pattern)
        (instants, pattern), (later, of_later) = (new, known) if before else (known, new)
        if len(pattern) and len(of_later) and pattern[-1] == of_later[0]:
            later, of_later = later[1:], of_later[1:]  # nothing flips where the two meet
        self.instants, self.pattern = np.concatenate([instants, later]), np.concatenate([pattern, of_later])

    def divide(self, from_ms: int, until_ms: int) -> None:
        """Note which flip holds where each span of the horizon begins, and where the one behind the last does."""
        if self.windows:
            starts = np.arange(from_ms, until_ms + (2 << SPAN_BITS), 1 << SPAN_BITS)
            self.spans = np.maximum(np.searchsorted(self.instants, starts, "right") - 1, 0).astype(np.int32)

    def _flips(self, from_ms: int, until_ms: int) -> tuple[I64, I32]:
        instants, holds = localtime.flips(self.zone, self.windows, from_ms, until_ms, equal_is_day=self._equal_is_day)
        numbers = [self._numbers.setdefault(tuple(row), len(self._numbers)) for row in holds.tolist()]
        self.patterns = list(self._numbers)
        return instants, np.array(numbers, np.int32)


class _Rows:
    """Rows that are only ever appended; as one array when a book is taken."""

    def __init__(self, columns: int, dtype: type[np.int64] | type[np.int32]) -> None:
        self._columns, self._dtype, self.count = columns, dtype, 0
        self._chunks: list[npt.NDArray[Any]] = [np.empty((0, columns), dtype)]

    def append(self, rows: Sequence[Sequence[int]]) -> int:
        """Append and tell the number of the first."""
        first = self.count
        if rows:
            self._chunks.append(np.array(rows, self._dtype).reshape(len(rows), self._columns))
            self.count += len(rows)
        return first

    def array(self) -> npt.NDArray[Any]:
        """All rows so far; never written again."""
        self._chunks = [np.concatenate(self._chunks)]
        return self._chunks[0]


class BookBuilder:
    """Compiles tariffs for zones over one horizon [from_ms, until_ms); grows, and gives books.

    Not for several threads at once; the books that it gave may be read while it works.
    """

    def __init__(self, from_ms: int, until_ms: int, policy: Policy = DEFAULT) -> None:
        """Start with no sheets and the horizon that calendars shall cover."""
        if from_ms >= until_ms:
            raise SheetError(f"a horizon must have a length: from {from_ms} until {until_ms}")
        self.from_ms, self.until_ms, self.policy = from_ms, until_ms, policy
        self.sources: list[SheetSource] = []
        self._sheet_of: dict[tuple[str, str], int] = {}
        self._calendars: dict[tuple[str, tuple[Window, ...]], _Calendar] = {}
        self._compiled: list[_Compiled] = []
        self._sheets: list[list[int]] = []
        self._patterns, self._candidates = _Rows(SLOTS + 1, np.int32), _Rows(2, np.int32)
        self._limits, self._thresholds = _Rows(LIMIT_COLUMNS, np.int64), _Rows(1, np.int64)
        self._cells = _Rows(CELL_SLOTS, np.int32)
        self._components, self._rates = _Rows(COMPONENT_COLUMNS, np.int64), _Rows(RATE_COLUMNS, np.int64)

    def add(self, tariff: Tariff, key: str, zone: str) -> int:
        """The sheet of this tariff version in this zone; compiled once, the same int ever after."""
        known = self._sheet_of.get((key, zone))
        if known is not None:
            return known
        windows = tuple(dict.fromkeys(element.window for element in tariff.elements if not element.window.always))
        compiled = _Compiled(tariff, self._calendar(zone, windows), self.policy)
        sheet = self._sheet_of[key, zone] = len(self._sheets)
        self.sources.append(SheetSource(key, tariff, zone))
        self._compiled.append(compiled)
        self._sheets.append(self._row(compiled, sheet))
        return sheet

    def extend(self, from_ms: int, until_ms: int) -> None:
        """Widen the horizon (never narrows it); sheets keep their numbers, `book()` gives the wider book.

        Costs about what the added time costs; books given before stay as they are.
        """
        for calendar in self._calendars.values():
            calendar.widen(from_ms, self.from_ms, before=True)
            calendar.widen(self.until_ms, until_ms)
        self.from_ms, self.until_ms = min(from_ms, self.from_ms), max(until_ms, self.until_ms)
        for calendar in self._calendars.values():
            calendar.divide(self.from_ms, self.until_ms)
        for compiled, row in zip(self._compiled, self._sheets, strict=True):
            if compiled.patterns_written < len(compiled.calendar.patterns):
                self._write_patterns(compiled, row)

    def book(self) -> Book:
        """The book of all sheets so far, over the horizon so far."""
        calendars = list(self._calendars.values())
        starts = _places(calendars, [len(calendar.instants) for calendar in calendars])
        spans = _places(calendars, [len(calendar.spans) for calendar in calendars])
        sheets = np.array(self._sheets, np.int64).reshape(-1, SHEET_COLUMNS)
        sheets[:, FLIPS_AT] = [starts[id(one.calendar)] for one in self._compiled]
        sheets[:, SPANS_AT] = [spans[id(one.calendar)] for one in self._compiled]
        sheets[:, FLIPS_END] = sheets[:, FLIPS_AT] + [len(one.calendar.instants) for one in self._compiled]
        local = np.array([bool(one.calendar.windows) for one in self._compiled], np.bool_)
        sheets[:, FROM_MS] = np.where(local, self.from_ms, -FOREVER)
        sheets[:, UNTIL_MS] = np.where(local, self.until_ms, FOREVER)
        return Book(
            sheets=sheets,
            flips=np.concatenate([np.empty(0, np.int64), *(calendar.instants for calendar in calendars)]),
            flip_pattern=np.concatenate([np.empty(0, np.int32), *(calendar.pattern for calendar in calendars)]),
            spans=np.concatenate([np.empty(0, np.int32), *(calendar.spans for calendar in calendars)]),
            patterns=self._patterns.array(),
            candidates=self._candidates.array(),
            limits=self._limits.array(),
            thresholds=self._thresholds.array().ravel(),
            cells=self._cells.array(),
            components=self._components.array(),
            rates=self._rates.array(),
        )

    def _calendar(self, zone: str, windows: tuple[Window, ...]) -> _Calendar:
        localtime.zone_named(zone)
        place = (zone if windows else "", windows)
        if place not in self._calendars:
            self._calendars[place] = _Calendar(zone, windows, self.policy)
            self._calendars[place].widen(self.from_ms, self.until_ms)
            self._calendars[place].divide(self.from_ms, self.until_ms)
        return self._calendars[place]

    def _row(self, compiled: "_Compiled", sheet: int) -> list[int]:
        """Write a sheet's own tables and give its row, but for flips and horizon, which `book` fills in."""
        row = list(compiled.row)
        row[RATES_AT] = self._rates.append(compiled.rate_rows())
        row[RATES_END] = self._rates.count
        rate_of = {vat: row[RATES_AT] + index for index, vat in enumerate(compiled.vats)}
        row[COMPONENTS_AT] = self._components.append(
            [_component_row(place, sheet, rate_of[place[2].vat_e4]) for place in compiled.order]
        )
        row[COMPONENTS_END] = self._components.count
        compiled.components_at = row[COMPONENTS_AT]
        compiled.limits_at = self._limits.append([_limits_row(limit) for limit in compiled.limits])
        row[KWH_AT] = self._thresholds.append([[one] for one in compiled.kwh])
        row[KWH_END] = row[DURATION_AT] = self._thresholds.append([[one] for one in compiled.durations])
        row[DURATION_END] = self._thresholds.append([[one] for one in compiled.grid.power])
        row[POWER_END] = self._thresholds.append([[one] for one in compiled.grid.current])
        row[CURRENT_END] = self._thresholds.count
        row[CURRENT_STEP], row[POWER_STEP] = compiled.grid.current_step, compiled.grid.power_step
        row[DURATION_STEP] = compiled.grid.duration_step
        self._write_patterns(compiled, row)
        return row

    def _write_patterns(self, compiled: "_Compiled", row: list[int]) -> None:
        """Write the candidates and the cells of every pattern of the sheet's calendar, and where they are."""
        patterns: list[list[int]] = []
        candidates: list[tuple[int, int]] = []
        cells: list[tuple[int, ...]] = []
        grid = compiled.grid
        row[CELLS] = grid.size if grid.size * len(compiled.calendar.patterns) <= CELLS_MAX else 0
        for pattern in compiled.calendar.patterns:
            slots = compiled.slots(pattern)
            lengths = accumulate(map(len, slots), initial=self._candidates.count + len(candidates))
            patterns.append(list(lengths))
            candidates.extend(
                (component, limits if limits == NO_LIMIT else limits + compiled.limits_at)
                for slot in slots
                for component, limits in slot
            )
            if row[CELLS]:
                cells.extend(grid.cells(slots[:CELL_SLOTS]))
        self._candidates.append(candidates)
        compiled.patterns_written = len(patterns)
        row[PATTERNS_AT], row[CELLS_AT] = self._patterns.append(patterns), self._cells.append(cells)


class _Compiled:
    """One tariff's tables with local indices, and where they lie in the book."""

    def __init__(self, tariff: Tariff, calendar: _Calendar, policy: Policy) -> None:
        self.tariff, self.calendar = tariff, calendar
        self.components_at = self.limits_at = self.patterns_written = 0
        self.order = [
            (e, c, component)
            for e, element in enumerate(tariff.elements)
            for c, component in enumerate(element.components)
        ]
        # A duplicate component of one dimension in an element: the first counts (README).
        self.first = {(e, one.dimension): index for index, (e, _, one) in reversed(list(enumerate(self.order)))}
        self.limits = list(dict.fromkeys(e.limits for e in tariff.elements if e.limits != NO_LIMITS))
        self.vats = list(dict.fromkeys(component.vat_e4 for _, _, component in self.order))
        limits = [element.limits for element in tariff.elements]
        self.kwh = _thresholds(edge for one in limits for edge in (one.min_mwh, one.max_mwh))
        self.durations = _thresholds(edge for one in limits for edge in (one.min_duration_ms, one.max_duration_ms))
        self.grid = Grid([_limits_row(one) for one in self.limits], self.kwh, self.durations)
        self.denominator, self.factors = _tax_factors(tariff, self.vats)
        self.row = _sheet_row(tariff, policy, self.denominator)

    def rate_rows(self) -> list[list[int]]:
        """Rows of Book.rates, one a VAT percentage."""
        return [
            [excl, incl, NO_VAT if vat is None else vat]
            for vat, (excl, incl) in zip(self.vats, self.factors, strict=True)
        ]

    def slots(self, pattern: tuple[bool, ...]) -> list[list[tuple[int, int]]]:
        """Per slot the candidates (component of the book, one of `limits`) while exactly these windows hold."""
        holding = {window for window, holds in zip(self.calendar.windows, pattern, strict=True) if holds}
        live = [
            (index, element)
            for index, element in enumerate(self.tariff.elements)
            if element.window == ALWAYS or element.window in holding
        ]
        return [[one for kind in kinds for one in self._slot(live, dimension, kind)] for dimension, kinds in _ASKED]

    def _slot(self, live: Sequence[tuple[int, Element]], dimension: int, kind: int) -> list[tuple[int, int]]:
        """ "The first Tariff Element with a Price Component for that dimension with matching Tariff Restrictions"."""
        found = []
        for index, element in live:
            component = self.first.get((index, dimension), FREE)
            if element.reservation != kind or (component == FREE and not self.tariff.whole_element):
                continue
            always = element.limits == NO_LIMITS
            place = component if component == FREE else component + self.components_at
            found.append((place, NO_LIMIT if always else self.limits.index(element.limits)))
            if always:
                break
        return found


def _places(calendars: Sequence[_Calendar], lengths: Sequence[int]) -> dict[int, int]:
    """Where each calendar's rows begin, by its identity, where all lie one behind the other."""
    return dict(zip(map(id, calendars), accumulate(lengths, initial=0), strict=False))


def _thresholds(values: Iterable[int | None]) -> list[int]:
    return sorted({value for value in values if value})


def _tax_factors(tariff: Tariff, vats: Sequence[int | None]) -> tuple[int, list[tuple[int, int]]]:
    """Factors (excl, incl) per VAT rate over one denominator, so that amount × factor / denominator is exact."""
    if len(vats) > RATES_MAX:
        raise SheetError(
            f"tariff {tariff.id} has {len(vats)} different VAT percentages, at most {RATES_MAX} can be settled"
        )
    if tariff.tax == TAX_NONE:
        return 1, [(1, 1)] * len(vats)
    if tariff.tax != TAX_INCLUDED:
        return 1_000_000, [(1_000_000, 1_000_000 + (vat or 0)) for vat in vats]
    denominator = 1
    for vat in vats:
        part = (1_000_000 + (vat or 0)) // gcd(1_000_000, 1_000_000 + (vat or 0))
        denominator = denominator * part // gcd(denominator, part)
    if denominator >= _DENOMINATOR_BOUND:
        raise SheetError(
            f"tariff {tariff.id} includes so many different VAT percentages that the tax can't be taken out exactly"
        )
    return denominator, [(1_000_000 * denominator // (1_000_000 + (vat or 0)), denominator) for vat in vats]


def _sheet_row(tariff: Tariff, policy: Policy, denominator: int) -> list[int]:
    decimals = money.minor_decimals(tariff.currency) if policy.total_decimals is None else policy.total_decimals
    flats = [abs(c.price_e4) for e in tariff.elements for c in e.components if c.dimension == FLAT]
    if max(flats, default=0) * money.COST_PER_E4 >= _COST_BOUND:
        raise SheetError(f"tariff {tariff.id} has a FLAT price beyond 6 million currency units")
    prices = [abs(c.price_e4) for e in tariff.elements for c in e.components if c.dimension == ENERGY]
    hourly = [abs(c.price_e4) for e in tariff.elements for c in e.components if c.dimension in (TIME, PARKING_TIME)]
    row = [0] * SHEET_COLUMNS
    row[ENERGY_MAX_MWH] = _COST_BOUND // (money.ENERGY_COST * max([1, *prices]))
    row[TIME_MAX_MS] = _COST_BOUND // (money.TIME_COST * max([1, *hourly]))
    row[TAX_MODE], row[DENOMINATOR] = tariff.tax, denominator
    row[MIN_EXCL], row[MIN_INCL] = _limit_costs(tariff.min_price)
    row[MAX_EXCL], row[MAX_INCL] = _limit_costs(tariff.max_price)
    row[ROUND_TO] = money.cost_of_decimals(decimals)
    row[STEPS_COUNT] = int(policy.step_size == "ocpi")
    return row


def _limit_costs(limit: PriceLimit | None) -> tuple[int, int]:
    if limit is None:
        return NO_AMOUNT, NO_AMOUNT
    amounts = (limit.excl_e4, limit.incl_e4)
    if any(amount is not None and amount * money.COST_PER_E4 >= _COST_BOUND for amount in amounts):
        raise SheetError("min_price or max_price is beyond 6 million currency units: leave it out instead")
    excl, incl = (NO_AMOUNT if amount is None else amount * money.COST_PER_E4 for amount in amounts)
    return excl, incl


def _limits_row(limits: Limits) -> list[int]:
    """Absent power and current are -1, below every minimum: a limit on what was not measured never matches."""

    def pair(low: int | None, high: int | None, floor: int) -> list[int]:
        unlimited = low is None and high is None
        return [-FOREVER if unlimited else max(floor, low or 0), FOREVER if high is None else high]

    return [
        *pair(limits.min_mwh, limits.max_mwh, 0),
        *pair(limits.min_current_ma, limits.max_current_ma, 0),
        *pair(limits.min_power_mw, limits.max_power_mw, 0),
        *pair(limits.min_duration_ms, limits.max_duration_ms, 0),
    ]


def _component_row(place: tuple[int, int, PriceComponent], sheet: int, rate: int) -> list[int]:
    element, index, component = place
    vat = NO_VAT if component.vat_e4 is None else component.vat_e4
    step = 0 if component.dimension == FLAT else component.step_size * 1000  # Wh and s alike
    return [component.price_e4, component.dimension, step, rate, element, index, vat, sheet]

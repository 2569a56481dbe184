"""From the rows of a table to the sessions that chargers would have had: registers, curves, and what goes wrong.

Nothing inside a session is known but its start, end and energy: samples are made on a plausible curve that
meets the stated energy exactly. A row that is wrong is told as wrongly as it stands.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np

from pipeline.replay.mapping import TableMapping, rating_w
from pipeline.replay.table import Rejected, Row
from pipeline.simulate.columns import AVAILABLE, SAMPLE, SESSION_DTYPE, STATE, STOP
from pipeline.simulate.curve import AVAILABLE_AFTER_MS, TAPER_END
from pipeline.simulate.struck import Edit, Edits, Mask, Struck, both, change, drop, kinds
from pipeline.simulate.texts import Rows
from rating.columns import I64

# How a row is told: bits of SESSION_DTYPE.fault.
NO_STOP: Final = 1  # the end is missing: no stop ever
NEGATIVE: Final = 2  # the stop tells less than the start
LATE_STOP: Final = 4  # the next session on the connector began first: only the stop comes after that
EARLY_STOP: Final = 8  # the stop's timestamp lies before the start's
NO_AVAILABLE: Final = 16  # the next session is there before the connector could say that it is free

FIRST_REGISTER_MWH: Final = 10_000_000_000  # 10 MWh: no session of a file brings it below 0
LATENCY_MS: Final = 100
_LEAD_MS: Final = 15_000
_AC_CAR_W: Final = 11_000
_TAPER_SHARE: Final = 0.06
# Energy over constant power in time: how much longer the curve takes than constant power would.
_STRETCH: Final = 1 - _TAPER_SHARE + _TAPER_SHARE / ((1 + TAPER_END) / 2)
_MS_MW_PER_MWH: Final = 3_600_000


@dataclass(frozen=True)
class Told:
    """One row that is told: as `category`, on this connector, with this rating."""

    row: Row
    connector: int
    rating_w: int
    category: str
    follower: Row | None  # the next session on this connector


@dataclass(frozen=True)
class ReplayPlan:
    """What a table becomes. `sessions` and `told` are aligned and ascending by start."""

    told: list[Told]
    sessions: Rows
    connectors: list[tuple[str, int]]  # (charge point, connector number), indexed by SESSION_DTYPE.connector
    tokens: list[str]
    rejected: list[Rejected]

    @property
    def categories(self) -> Counter[str]:
        """How many rows are told in each way."""
        return Counter(told.category for told in self.told)

    @property
    def reasons(self) -> Counter[str]:
        """How many rows are rejected for each reason."""
        return Counter(rejected.reason for rejected in self.rejected)


def plan_replay(
    table: Iterable[Row | Rejected], mapping: TableMapping, sample_ms: int, *, whole_wh: bool
) -> ReplayPlan:
    """Sessions of all rows that can be told. `whole_wh` rounds energies to the Wh, which is all OCPP 1.6 can say."""
    rows: list[Row] = []
    rejected: list[Rejected] = []
    for entry in table:
        if isinstance(entry, Rejected):
            rejected.append(entry)
        elif entry.energy_mwh is None and entry.end_ms is not None:
            rejected.append(Rejected(entry.line, entry.session, "no_energy", "a stop must tell a register"))
        else:
            rows.append(_whole_wh(entry) if whole_wh else entry)
    lines = _by_connector(rows, rejected)
    told = [
        Told(row, number, rating_w(mapping, row.model), category(row, follower), follower)
        for (_, number), members in lines.items()
        for row, follower in zip(members, [*members[1:], None], strict=True)
    ]
    told.sort(key=lambda entry: (_order(entry.row)[0], entry.row.charge_point, entry.connector, _order(entry.row)))
    rejected.sort(key=lambda entry: entry.line)
    connectors, tokens = sorted(lines), dict[str, int]()
    sessions = _sessions(told, connectors, tokens, sample_ms)
    return ReplayPlan(told, sessions, connectors, list(tokens), rejected)


def _whole_wh(row: Row) -> Row:
    if row.energy_mwh is None or row.energy_mwh % 1_000 == 0:
        return row
    return replace(row, energy_mwh=round(Fraction(row.energy_mwh, 1_000)) * 1_000)


def _order(row: Row) -> tuple[int, int, int]:
    """The order of a connector's sessions: one without length comes before another of the same instant."""
    return row.start_ms, row.start_ms if row.end_ms is None else max(row.end_ms, row.start_ms), row.line


def _by_connector(rows: list[Row], rejected: list[Rejected]) -> dict[tuple[str, int], list[Row]]:
    """The sessions of each connector in order, without those that can't be told beside another."""
    lines: dict[tuple[str, int], list[Row]] = defaultdict(list)
    free_at: dict[str, list[int]] = defaultdict(list)
    for row in sorted(rows, key=_order):
        number = row.connector or _lane(free_at[row.charge_point], row)
        line = lines[row.charge_point, number]
        reason = _beside(line[-1], row) if line else ""
        if reason:
            rejected.append(Rejected(row.line, row.session, reason, f"beside line {line[-1].line}"))
        else:
            line.append(row)
    return lines


def _lane(free_at: list[int], row: Row) -> int:
    """The first connector that is free, where the table does not name one; a new one if none is."""
    end = row.end_ms if row.end_ms is not None else row.start_ms + _charging_ms(row.energy_mwh or 0, _AC_CAR_W)
    for number, free in enumerate(free_at):
        if free <= row.start_ms:
            free_at[number] = max(end, row.start_ms)
            return number + 1
    free_at.append(max(end, row.start_ms))
    return len(free_at)


def _beside(before: Row, row: Row) -> str:
    if before.start_ms != row.start_ms:
        return ""
    if (before.end_ms, before.energy_mwh) == (row.end_ms, row.energy_mwh):
        return "duplicate_row"
    return "" if before.end_ms == before.start_ms else "same_start"


def category(row: Row, follower: Row | None) -> str:
    """In which way a row is told; the first that fits."""
    if row.energy_mwh is None:
        return "start_only"
    if row.energy_mwh < 0:
        return "negative_energy"
    if row.end_ms is None:
        return "no_end"
    if row.end_ms < row.start_ms:
        return "end_before_start"
    if follower is not None and follower.start_ms < row.end_ms:
        return "overlap"
    if row.end_ms == row.start_ms:
        return "no_length"
    return "plain" if row.energy_mwh else "zero_kwh"


def _charging_ms(energy_mwh: int, power_w: int) -> int:
    return int(energy_mwh * _MS_MW_PER_MWH * _STRETCH / (power_w * 1_000))


def _sessions(told: list[Told], connectors: list[tuple[str, int]], tokens: dict[str, int], sample_ms: int) -> Rows:
    number = {connector: at for at, connector in enumerate(connectors)}
    registers = [FIRST_REGISTER_MWH] * len(connectors)
    sessions = np.zeros(len(told), SESSION_DTYPE)
    for at, entry in enumerate(told):
        connector = number[entry.row.charge_point, entry.connector]
        energy = entry.row.energy_mwh or 0
        session = sessions[at]
        session["number"] = at
        session["connector"] = connector
        # A row without a user gets a token of its connector's own, so that it meets no one elsewhere.
        session["token"] = tokens.setdefault(entry.row.token or f"ANON-{connector}", len(tokens))
        session["base_mwh"] = registers[connector]
        session["energy_mwh"] = session["target_mwh"] = max(energy, 0)
        session["amount"] = min(energy, 0)
        session["period_ms"] = sample_ms
        session["latency_ms"] = LATENCY_MS
        session["resolution_mwh"] = 1_000 if energy % 1_000 == 0 else 1
        registers[connector] += energy
        _shape(session, entry)
    return sessions


def _shape(session: Rows, entry: Told) -> None:
    """Set times, power and the bits that say what goes wrong."""
    row, period = entry.row, int(session["period_ms"])
    next_ms = entry.follower.start_ms if entry.follower else None
    stop = row.start_ms if row.end_ms is None else max(row.end_ms, row.start_ms)
    wrong = NO_STOP if row.end_ms is None else 0
    wrong |= NEGATIVE if (row.energy_mwh or 0) < 0 else 0
    wrong |= EARLY_STOP if row.end_ms is not None and row.end_ms < row.start_ms else 0
    if row.end_ms is None and row.energy_mwh is not None:
        stop = row.start_ms + _whole_periods(_LEAD_MS + _charging_ms(row.energy_mwh, _car_w(entry)), period)
    seen = (stop - row.start_ms - 1) // period  # periodic samples before the stop
    available = stop - row.start_ms
    if next_ms is not None and next_ms < stop:
        wrong |= LATE_STOP
        seen = (next_ms - row.start_ms - 1) // period
        available = seen * period or next_ms - row.start_ms
    if next_ms is not None and next_ms <= stop + AVAILABLE_AFTER_MS + LATENCY_MS:
        wrong |= NO_AVAILABLE
    session["start_ms"], session["stop_ms"], session["fault"] = row.start_ms, stop, wrong
    session["samples"] = max((stop - row.start_ms - 1) // period, 0)
    session["at"] = max(seen, 0)
    _curve(session, entry, available)


def _whole_periods(length_ms: int, period_ms: int) -> int:
    """Long enough that the last sample comes after `length_ms`."""
    return -(-length_ms // period_ms) * period_ms + 1_000


def _car_w(entry: Told) -> int:
    """What the car draws where the table does not tell: most of a fast charger's rating, or its own charger's."""
    return entry.rating_w * 85 // 100 if entry.rating_w >= 40_000 else min(entry.rating_w, _AC_CAR_W) * 95 // 100


def _curve(session: Rows, entry: Told, available_ms: int) -> None:
    """Power such that the energy is there in time: for what is left when the table knows the idle time."""
    energy = int(session["energy_mwh"])
    lead = min(_LEAD_MS, available_ms // 10)
    active = available_ms - lead
    needed = _charging_ms(energy, _car_w(entry))
    idle = entry.row.idle_ms
    if idle is not None and available_ms - lead - idle > 0:
        needed = active = available_ms - lead - idle
    length = min(needed, active)
    session["lead_ms"] = lead if energy else max(int(session["stop_ms"] - session["start_ms"]), 0) + 1_000
    if not energy or length <= 0:
        return
    session["power_mw"] = int(energy * _MS_MW_PER_MWH * _STRETCH / length) + 1
    full_power_ms = energy * _MS_MW_PER_MWH / int(session["power_mw"])
    session["constant_ms"] = int(full_power_ms * (1 - _TAPER_SHARE))
    session["taper_ms"] = int(full_power_ms * _TAPER_SHARE / ((1 + TAPER_END) / 2))


def replay_edits(stated_stop_ms: I64) -> Edits:
    """What rows of sessions with each combination of bits become. `stated_stop_ms` by session number."""
    of_bit: dict[int, Edit] = {
        NO_STOP: drop(kinds(STOP, AVAILABLE)),
        NEGATIVE: change(
            "register_mwh", kinds(STOP), lambda struck: struck.get("register_mwh") + struck.session["amount"]
        ),
        LATE_STOP: drop(_unseen),
        EARLY_STOP: both(
            change("time_ms", kinds(STOP), lambda struck: stated_stop_ms[struck.get("number")]),
            change("arrival_ms", kinds(STOP), lambda struck: struck.get("arrival_ms") + 60_000),
        ),
        NO_AVAILABLE: drop(kinds(AVAILABLE)),
    }
    return {bits: both(*[edit for bit, edit in of_bit.items() if bits & bit]) for bits in range(1, 2 * NO_AVAILABLE)}


def _unseen(struck: Struck) -> Mask:
    """Rows between the next session's start and the stop: the connector tells about the other car by then."""
    last = struck.session["start_ms"] + struck.at.astype(np.int64) * struck.session["period_ms"]
    late: Mask = np.isin(struck.get("kind"), (SAMPLE, STATE)) & (struck.get("time_ms") > last)
    return late

"""A table of sessions, row by row: what it says, and why a row can't be told.

Wrong is not the same as untellable: a negative energy or an end before its start is what some charger said,
and is kept. Only a row that leaves open what should be sent is rejected, with a reason.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.errors import DocumentError
from pipeline.replay.mapping import TableMapping

Ambiguous = Literal["earlier", "later", "reject"]
REASONS: Final = {
    "no_charge_point": "the row does not say at which charge point",
    "no_start": "the start is missing",
    "bad_time": "a time can't be read",
    "nonexistent_local_time": "the clocks went forward over this local time",
    "ambiguous_local_time": "the local time came twice when the clocks went back",
    "bad_energy": "the energy can't be read",
    "no_energy": "there is an end but no energy: a stop must tell a register",
    "energy_out_of_range": "the energy is beyond 1 GWh",
    "bad_connector": "the connector is no number from 1",
    "duplicate_row": "the same connector, start, end and energy as a row before",
    "same_start": "another session began on this connector at this instant",
}
_MISSING: Final = frozenset({"", "na", "nan", "null", "none"})
_MWH: Final = {"kWh": 1_000_000, "Wh": 1_000}


@dataclass(frozen=True)
class Row:
    """What one line of the table says. Times ms UTC; energy mWh. None = the table does not say."""

    line: int  # in the file; the header is line 1
    session: str
    charge_point: str
    connector: int | None
    token: str
    site: str
    model: str
    start_ms: int
    end_ms: int | None
    energy_mwh: int | None
    idle_ms: int | None


@dataclass(frozen=True)
class Rejected:
    """A line that can't be told, and why (a key of REASONS)."""

    line: int
    session: str
    reason: str
    detail: str


class _UntellableError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def read_table(path: Path, mapping: TableMapping, ambiguous: Ambiguous) -> Iterator[Row | Rejected]:
    """Each line of the file as a Row or as Rejected.

    Raises DocumentError when the file can't be opened, has no header, lacks a mapped column, or the mapping
    names a zone or unit that does not exist.
    """
    reader_of = _Reader(mapping, ambiguous)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=mapping.delimiter)
            _check_columns(path, mapping, list(reader.fieldnames or []))
            for fields in reader:
                yield reader_of.row(reader.line_num, fields)
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path}: not UTF-8 (byte {error.start}); convert it first") from error


def _check_columns(path: Path, mapping: TableMapping, header: list[str]) -> None:
    names = ("start", "end", "energy", "charge_point", "connector", "session", "token", "site", "model")
    wanted = [(name, getattr(mapping, name)) for name in (*names, "duration_h", "idle_s")]
    for name, columns in wanted:
        absent = [column for column in columns.split("+") if column and column not in header]
        if absent:
            raise DocumentError(
                f"{path}: no column {absent[0]!r} for {name}; the file has {', '.join(header) or 'no header'}. "
                f"Name it with --map {name}=COLUMN (or {name}= where the file does not say)"
            )


class _Reader:
    def __init__(self, mapping: TableMapping, ambiguous: Ambiguous) -> None:
        self._mapping = mapping
        self._ambiguous = ambiguous
        try:
            self._zone = ZoneInfo(mapping.time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise DocumentError(
                f"there is no time zone {mapping.time_zone!r}; write one such as Europe/Oslo"
            ) from error
        if mapping.energy_unit not in _MWH:
            raise DocumentError(f"energy_unit {mapping.energy_unit!r}: write kWh or Wh")

    def row(self, line: int, fields: dict[str, str]) -> Row | Rejected:
        """The line as a Row, or why it is none."""

        def get(columns: str) -> str:
            parts = [(fields.get(column) or "").strip() for column in columns.split("+") if column]
            return "" if any(part.lower() in _MISSING for part in parts) else " ".join(parts)

        session = get(self._mapping.session) or str(line)
        try:
            return self._row(line, session, get)
        except _UntellableError as untellable:
            return Rejected(line, session, untellable.reason, untellable.detail)

    def _row(self, line: int, session: str, get: Callable[[str], str]) -> Row:
        mapping = self._mapping
        charge_point = get(mapping.charge_point)
        if not charge_point:
            raise _UntellableError("no_charge_point", "")
        duration = self._number(get(mapping.duration_h), "bad_time")
        start, end = self._times(get(mapping.start), get(mapping.end), duration)
        idle = self._number(get(mapping.idle_s), "bad_time")
        return Row(
            line=line,
            session=session,
            charge_point=charge_point,
            connector=self._connector(get(mapping.connector)),
            token=get(mapping.token),
            site=self._site(get(mapping.site)) or charge_point,
            model=get(mapping.model),
            start_ms=_ms(start),
            end_ms=None if end is None else _ms(end),
            energy_mwh=self._energy(get(mapping.energy)),
            idle_ms=None if idle is None or idle < 0 else int(idle * 1_000),  # less than nothing tells nothing
        )

    def _times(self, start: str, end: str, duration_h: Decimal | None) -> tuple[datetime, datetime | None]:
        if not start:
            raise _UntellableError("no_start", "")
        starts = self._instants(start)
        ends: list[datetime | None] = [*self._instants(end)] if end else [None]
        pairs = [(first, last) for first in starts for last in ends]
        if len(pairs) == 1:
            return pairs[0]
        if duration_h is not None and end:
            # The stated duration tells which of the two hours was meant.
            return min(pairs, key=lambda pair: abs(_hours(*pair) - duration_h))
        if self._ambiguous == "reject":
            raise _UntellableError("ambiguous_local_time", f"{start} – {end}")
        return pairs[0] if self._ambiguous == "earlier" else pairs[-1]

    def _instants(self, text: str) -> list[datetime]:
        """The instants that a local time can mean: one, or two in the hour that comes twice."""
        try:
            pattern = self._mapping.time_format
            told = datetime.strptime(text, pattern) if pattern else datetime.fromisoformat(text)
        except ValueError as error:
            raise _UntellableError("bad_time", text) from error
        if told.tzinfo is not None:
            return [told.astimezone(UTC)]
        both = [told.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
        if both[0].astimezone(self._zone).replace(tzinfo=None) != told:
            raise _UntellableError("nonexistent_local_time", text)
        return both[:1] if both[0] == both[1] else both

    def _number(self, text: str, reason: str) -> Decimal | None:
        if not text:
            return None
        try:
            number = Decimal(text.replace(",", ".") if self._mapping.decimal_comma else text)
        except InvalidOperation as error:
            raise _UntellableError(reason, text) from error
        if not number.is_finite():
            raise _UntellableError(reason, text)
        return number

    def _energy(self, text: str) -> int | None:
        number = self._number(text, "bad_energy")
        if number is None:
            return None
        if abs(number) * _MWH[self._mapping.energy_unit] > 10**15:
            raise _UntellableError("energy_out_of_range", text)
        return int((number * _MWH[self._mapping.energy_unit]).to_integral_value())

    def _connector(self, text: str) -> int | None:
        if not self._mapping.connector:
            return None
        if not text.isdigit() or not 1 <= int(text) < 1_000:
            raise _UntellableError("bad_connector", text)
        return int(text)

    def _site(self, text: str) -> str:
        found = re.search(self._mapping.site_pattern, text) if self._mapping.site_pattern else None
        if found:
            return found.group(1)
        return text


def _ms(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000 + instant.microsecond // 1_000


def _hours(start: datetime, end: datetime | None) -> Decimal:
    return Decimal(0) if end is None else Decimal((end - start).total_seconds()) / 3600

"""Rows go in; where the store refuses them they are halved until it is known which rows it will not take.

    252, too many partitions     an insert may touch 100 months: sorted by month and halved, everything goes in
    a code that speaks of data   halved until single rows are left; their neighbours go in
    any other code               of a table, a column, a right, a setting: raised as it is

A row is refused only when it was refused alone, twice, with a row that the same table took between and after. Whatever
else is refused is the table's fault and is raised too; an outage on the way is an outage, and all begins anew.
What becomes of a refused row's record is in `refusals`.
"""

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from pipeline.errors import StoreRefusedError
from pipeline.ledger import ALERTS, CDRS, DEAD_LETTERS, QUARANTINE, RATED_USAGE, READINGS, Ledger

TOO_MANY_PARTITIONS: Final = 252
# What the store says of values. Not here: 16 and 53 (columns), 60 and 81 (no table), 115 (setting), 497 (rights), and
# 27 and 117 (a stream that was damaged on the way).
OF_DATA: Final = frozenset(
    (
        6,  # can't parse text
        38,  # can't parse date
        41,  # can't parse instant
        69,  # argument out of bound
        70,  # can't convert type
        72,  # can't parse number
        131,  # string too large
        321,  # value out of range of its type
        349,  # null in a column that has none
        395,  # throwIf
        407,  # decimal overflow
        469,  # constraint violated
        691,  # no such word in an enumeration
    )
)
# table → the instant whose month is the table's partition
MONTH_OF: Final = {
    READINGS: "received_at",
    RATED_USAGE: "start",
    CDRS: "start",
    ALERTS: "time",
    QUARANTINE: "time",
    DEAD_LETTERS: "record_time",
}
_REFUSED_MAX: Final = 100  # rows of one insert, or 1 % of them: more is no poison
_SHARE: Final = 100


@dataclass(frozen=True)
class Refused:
    """A row that the store will not take, its record, and the store's words."""

    table: str
    partition: int
    offset: int
    error: StoreRefusedError


def insert(ledger: Ledger, table: str, rows: pa.Table) -> list[Refused]:
    """Insert rows; those that the store refuses by themselves, while all others went in.

    Raises StoreRefusedError where it is the table that refuses, StoreUnavailableError in an outage.
    """
    try:
        ledger.insert(table, rows)
    except StoreRefusedError as error:
        halving = _Halving(ledger, table, max(_REFUSED_MAX, rows.num_rows // _SHARE))
        halving.halve(rows, error)
        return halving.refused()
    return []


class _Halving:
    """One insert that was refused."""

    def __init__(self, ledger: Ledger, table: str, limit: int) -> None:
        self._ledger, self._table, self._limit = ledger, table, limit
        # A dead letter is a record's last place: there is nothing that a refused one could become.
        self._curable = {TOO_MANY_PARTITIONS} if table == DEAD_LETTERS else {TOO_MANY_PARTITIONS, *OF_DATA}
        self._alone: list[tuple[pa.Table, StoreRefusedError]] = []
        self._neighbour: pa.Table | None = None  # one row that went in

    def halve(self, rows: pa.Table, error: StoreRefusedError) -> None:
        """Insert each half of rows that were refused together, and so on."""
        if error.code not in self._curable:
            raise error
        if rows.num_rows == 1:
            self._keep_apart(rows, error)
            return
        if error.code == TOO_MANY_PARTITIONS:
            rows = rows.sort_by(MONTH_OF[self._table])
        middle = rows.num_rows // 2
        for half in (rows.slice(0, middle), rows.slice(middle)):
            try:
                self._ledger.insert(self._table, half)
            except StoreRefusedError as problem:
                self.halve(half, problem)
            else:
                self._neighbour = half.slice(0, 1)

    def _keep_apart(self, row: pa.Table, error: StoreRefusedError) -> None:
        if error.code == TOO_MANY_PARTITIONS:  # of one row: it is the server's setting that is none
            raise error
        self._alone.append((row, error))
        if len(self._alone) > self._limit:
            raise self._broken(f"more than {self._limit} rows of one insert are refused", error)

    def refused(self) -> list[Refused]:
        """The rows that are refused again, between two that are taken."""
        if not self._alone:
            return []
        first = self._alone[0][1]
        if self._neighbour is None and len({_record(row) for row, _ in self._alone}) > 1:
            raise self._broken("every row of several records is refused", first)
        self._must_take(first)
        found = [(row, error) for row, _ in self._alone if (error := self._again(row)) is not None]
        self._must_take(first)
        return [Refused(self._table, *_record(row), error) for row, error in found]

    def _again(self, row: pa.Table) -> StoreRefusedError | None:
        try:
            self._ledger.insert(self._table, row)
        except StoreRefusedError as error:
            if error.code not in OF_DATA:
                raise
            return error
        return None

    def _must_take(self, first: StoreRefusedError) -> None:
        """A row that went in before goes in again, a neighbour or one of the table's own; repeats count once."""
        there = True
        try:
            if self._neighbour is not None:
                self._ledger.insert(self._table, self._neighbour)
            else:
                there = self._ledger.insert_again(self._table)
        except StoreRefusedError as error:
            if error.code not in OF_DATA:
                raise
            raise self._broken("it refuses a row that it took before", error) from error
        if not there:
            raise self._broken("it has no row yet that the refused one could be held against", first)

    def _broken(self, why: str, first: StoreRefusedError) -> StoreRefusedError:
        return StoreRefusedError(
            f"{self._table}: {why}, so it is the table and not a record that is wrong: nothing is dead-lettered, the "
            f"worker stops; put the table right and start it again. {first.message}",
            first.code,
        )


def _record(row: pa.Table) -> tuple[int, int]:
    """Partition and offset of a single row."""
    return int(row.column("partition")[0].as_py()), int(row.column("offset")[0].as_py())

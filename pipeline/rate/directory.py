"""Who is who in the worker's state: charge points, connectors and tokens by row number, partitions by chain.

Rows are given in the order in which the log first names a connector, so they are the same in every replay.
"""

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.codec.records import TRANSACTION_ID_DTYPE
from pipeline.metering.output import ROOM, Rows
from pipeline.metering.run import empty_roster
from pipeline.metering.state import NONE, State, new_connectors, new_state, with_connectors, with_periods

_FIRST_ROOM: Final = 512  # connectors; doubled as they come
_FIRST_PERIODS: Final = 3 * ROOM // 2  # the pass wants ROOM of them free, and as many as are there in its output


def identity_of(charge_point_id: str) -> int:
    """The 64 bits that a charge point's session keys are made from."""
    return int.from_bytes(hashlib.blake2b(charge_point_id.encode(), digest_size=8).digest(), "little")


class Directory:
    """Connectors by row, with their state; grows, and forgets a partition as a whole."""

    def __init__(self, partitions: int, state: State | None = None) -> None:
        """Know nobody on any of `partitions` partitions."""
        self.state: State = new_state(_FIRST_ROOM, _FIRST_PERIODS) if state is None else state
        self.roster: Rows = empty_roster(partitions)
        self.transaction_ids = np.zeros(len(self.state.connectors), TRANSACTION_ID_DTYPE)  # of the open or last session
        self.charge_points: list[str] = []  # by row
        self.tokens: list[str] = []
        self._row_of: dict[tuple[str, int], int] = {}
        self._first_row: dict[str, int] = {}
        self._token_of: dict[str, int] = {}
        self._spare: list[int] = []
        self.taken_again: list[int] = []  # rows that stand for another connector now; `Sheets` empties it

    def row(self, partition: int, charge_point: str, connector_id: int) -> int:
        """The row of a connector, made when it is new."""
        return int(self.rows([(charge_point, connector_id)], np.array([partition]))[0])

    def rows(self, connectors: list[tuple[str, int]], partitions: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """The rows of connectors (charge point, id), each named once; those that are new are made, in this order."""
        found = [self._row_of.get(connector, NONE) for connector in connectors]
        rows = np.array(found, np.int32)
        new = np.flatnonzero(rows == NONE)
        if len(new):
            rows[new] = self._add([connectors[at] for at in new.tolist()], partitions[new])
        return rows

    def find(self, charge_point: str, connector_id: int) -> int | None:
        """The row of a connector, None when it was never heard."""
        return self._row_of.get((charge_point, connector_id))

    def token(self, uid: str) -> int:
        """The number of a token."""
        known = self._token_of.get(uid)
        if known is None:
            known = self._token_of[uid] = len(self.tokens)
            self.tokens.append(uid)
        return known

    def token_text(self, token: int) -> str:
        """The token's uid, "" for none."""
        return self.tokens[token] if token >= 0 else ""

    def members(self, partition: int) -> npt.NDArray[np.intp]:
        """Rows of a partition's connectors, in order of first appearance."""
        connectors = self.state.connectors[: len(self.charge_points)]
        rows = np.flatnonzero(connectors["partition"] == partition)
        return rows[np.argsort(connectors["ordinal"][rows])]

    def count(self, partition: int) -> int:
        """How many connectors a partition has."""
        return int(self.roster["members"][partition])

    def add_periods(self, rows: int) -> None:
        """More room for charging periods of open sessions."""
        self.state = with_periods(self.state, max(rows, len(self.state.periods)))

    def forget(self, partition: int) -> None:
        """Drop a partition: another worker has it now, or it is built anew from a snapshot."""
        rows, connectors = self.members(partition), self.state.connectors
        for row in rows[connectors["head"][rows] > 0].tolist():
            self.free_periods(row)
        for row, connector_id in zip(rows.tolist(), connectors["connector_id"][rows].tolist(), strict=True):
            name = self.charge_points[row]
            del self._row_of[name, connector_id]
            self._first_row.pop(name, None)
            self.charge_points[row] = ""
        connectors[rows] = new_connectors(1)[0]
        self._spare += rows.tolist()
        self.roster[partition] = (NONE, NONE, 0)

    def free_periods(self, row: int) -> None:
        """Give the periods of the connector's open session back to the pool."""
        periods, at = self.state.periods, int(self.state.connectors["head"][row])
        while at > 0:
            follows = int(periods["next"][at])
            periods["next"][at] = periods["next"][0]
            periods["next"][0] = at
            periods["start_ms"][0] += 1
            at = follows

    def append_periods(self, rows: npt.NDArray[np.intp], lengths: npt.NDArray[np.int64], periods: Rows) -> None:
        """Give open sessions that have none their charging periods: `lengths` of each, one session after the other."""
        taken = self._take_periods(len(periods))
        pool, connectors = self.state.periods, self.state.connectors
        pool[taken] = periods
        pool["next"][taken[:-1]] = taken[1:]
        ends = np.cumsum(lengths)
        has = lengths > 0
        first, last = taken[(ends - lengths)[has]], taken[ends[has] - 1]
        pool["next"][last] = NONE
        connectors["head"][rows[has]], connectors["tail"][rows[has]] = first, last
        connectors["periods"][rows] = lengths

    def _take_periods(self, count: int) -> npt.NDArray[np.int32]:
        """So many rows off the free end of the pool."""
        if (free := int(self.state.periods["start_ms"][0])) < count:
            self.add_periods(count - free)
        periods = self.state.periods
        follows = periods["next"]
        taken, at = [], int(follows[0])
        for _ in range(count):
            taken.append(at)
            at = int(follows[at])
        periods["next"][0] = at
        periods["start_ms"][0] -= count
        return np.array(taken, np.int32)

    def _add(self, connectors: list[tuple[str, int]], partitions: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Rows for connectors that have none, in their order."""
        rows = self._new_rows(len(connectors))
        names = [name for name, _ in connectors]
        for row, name in zip(rows, names, strict=True):
            self.charge_points[row] = name
        self._row_of.update(zip(connectors, rows, strict=True))
        state, made = self.state.connectors, np.array(rows, np.int32)
        state["identity"][made] = [identity_of(name) for name in names]
        state["connector_id"][made] = [connector_id for _, connector_id in connectors]
        state["partition"][made] = partitions
        for partition in np.unique(partitions).tolist():
            self._chain(partition, made[partitions == partition])
        self._ring(names, made)
        return made

    def _new_rows(self, count: int) -> list[int]:
        """Rows that were given back, last first, then rows that never were in use."""
        again = self._spare[: -count - 1 : -1]
        del self._spare[len(self._spare) - len(again) :]
        self.taken_again += again
        known = len(self.charge_points)
        new = range(known, known + count - len(again))
        self.charge_points += [""] * len(new)
        self._grow(len(self.charge_points))
        return [*again, *new]

    def _chain(self, partition: int, rows: npt.NDArray[np.int32]) -> None:
        """Put connectors at the end of their partition."""
        place = self.roster[partition]
        connectors = self.state.connectors
        connectors["ordinal"][rows] = place["members"] + np.arange(len(rows))
        connectors["follows"][rows[:-1]] = rows[1:]
        if place["members"]:
            connectors["follows"][place["tail"]] = rows[0]
        else:
            place["head"] = rows[0]
        place["tail"] = rows[-1]
        place["members"] += len(rows)

    def _ring(self, names: list[str], rows: npt.NDArray[np.int32]) -> None:
        """Put connectors into the ring of their charge point, right behind its first."""
        first = np.array(
            [self._first_row.setdefault(name, row) for name, row in zip(names, rows.tolist(), strict=True)]
        )
        ring = self.state.connectors["sibling"]
        ring[rows] = rows
        for row, head in zip(rows[first != rows].tolist(), first[first != rows].tolist(), strict=True):
            ring[row], ring[head] = ring[head], row

    def _grow(self, rows: int) -> None:
        room = len(self.state.connectors)
        if rows <= room:
            return
        more = max(room, rows - room)
        self.state = with_connectors(self.state, room + more)
        self.transaction_ids = np.concatenate([self.transaction_ids, np.zeros(more, TRANSACTION_ID_DTYPE)])

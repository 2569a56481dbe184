"""Who is who in the worker's state: charge points, connectors and tokens by row number, partitions by chain.

Rows are given in the order in which the log first names a connector, so they are the same in every replay.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.codec.records import TRANSACTION_ID_DTYPE
from pipeline.metering.output import ROOM, Rows, opaque
from pipeline.metering.run import empty_roster
from pipeline.metering.state import NONE, State, new_state, wiped, with_connectors, with_periods
from pipeline.rate.roll import Roll
from pipeline.texts import Numbers, Packed, Places, Texts
from rating.jit import kernel

_FIRST_ROOM: Final = 512  # connectors
# Room that nobody touched is addresses and no memory, and what grows is copied, so that both copies are there: room for
# sixteen times as many is made each time, up to so many connectors, and from there on for twice as many.
_WIDER, _WIDE_ROOM = 16, 4 << 20
_FIRST_PERIODS: Final = 3 * ROOM // 2  # the pass wants ROOM of them free, and as many as are there in its output


def identity_of(charge_point_id: bytes) -> int:
    """The 64 bits that a charge point's session keys are made from."""
    return int.from_bytes(hashlib.blake2b(charge_point_id, digest_size=8).digest(), "little")


class Directory:
    """Connectors by row, with their state; grows, and forgets a partition as a whole."""

    def __init__(self, partitions: int, state: State | None = None) -> None:
        """Know nobody on any of `partitions` partitions."""
        self.state: State = new_state(_FIRST_ROOM, _FIRST_PERIODS) if state is None else state
        self.roster: Rows = empty_roster(partitions)
        self.transaction_ids = np.zeros(len(self.state.connectors), TRANSACTION_ID_DTYPE)  # of the open or last session
        self.charge_points = Roll()  # by row
        self.tokens = Texts()
        self._spare: npt.NDArray[np.intp] = np.zeros(0, np.intp)
        self.taken_again: list[int] = []  # rows that stand for another connector now; `Sheets` empties it
        self.new: list[Places] = []  # rows that nobody said the limits of yet; `Engine` empties it

    def row(self, partition: int, charge_point: str, connector_id: int) -> int:
        """The row of a connector, made when it is new."""
        return int(self.rows([charge_point], np.array([connector_id]), np.array([partition]))[0])

    def rows(self, names: Sequence[str], keys: Places, partitions: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """The rows of connectors, each named once; those that are new are made, in this order.

        A key is the place of the charge point among `names`, times 2**32, and the connector's own number.
        """
        connectors = self.charge_points.connectors(names, keys)
        rows = self.charge_points.rows(connectors)
        new = np.flatnonzero(rows == NONE)
        if len(new):
            points = self.charge_points.texts.taken(connectors[new] >> 32)
            identities = np.array([identity_of(points.text(at)) for at in range(len(new))], np.uint64)
            rows[new] = self._add(connectors[new], partitions[new], identities)
        return rows

    def take_in(
        self, names: Packed, ids: npt.NDArray[np.integer], partition: int, identities: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.int32]:
        """Rows for connectors of a partition that are all new, each named once; made in this order."""
        connectors = self.charge_points.packed_connectors(names, ids)
        return self._add(connectors, np.full(len(ids), partition), identities)

    def find(self, charge_point: str, connector_id: int) -> int | None:
        """The row of a connector, None when it was never heard."""
        row = self.charge_points.find(charge_point, connector_id)
        return row if row != NONE else None

    def names(self, rows: npt.NDArray[np.integer]) -> list[tuple[str, int]]:
        """The connectors (charge point, id) of these rows, which are somebody's."""
        ids = self.state.connectors["connector_id"][rows].tolist()
        return list(zip(self.charge_points.names(rows).texts(), ids, strict=True))

    def token(self, uid: str) -> int:
        """The number of a token."""
        return int(self.tokens.numbers([uid])[0])

    def token_text(self, token: int) -> str:
        """The token's uid, "" for none."""
        return self.tokens[token] if token >= 0 else ""

    def token_texts(self, tokens: npt.NDArray[np.integer]) -> list[str]:
        """The uids of tokens, "" for none."""
        said = iter(self.tokens.taken(tokens[tokens >= 0]).texts())
        return [next(said) if token >= 0 else "" for token in tokens.tolist()]

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
        self.state = with_periods(self.state, max(rows, len(self.state.periods) // 2))

    def forget(self, partition: int) -> None:
        """Drop a partition: another worker has it now, or it is built anew from a snapshot."""
        rows, connectors = self.members(partition), self.state.connectors
        if not len(rows):
            return
        self._free_all(rows[connectors["head"][rows] > 0])
        self.charge_points.drop(rows)
        wiped(connectors, rows)
        self._spare = np.concatenate([self._spare, rows])
        self.roster[partition] = (NONE, NONE, 0)

    def free_periods(self, row: int) -> None:
        """Give the periods of the connector's open session back to the pool."""
        if self.state.connectors["head"][row] > 0:
            self._free_all(np.array([row]))

    def _free_all(self, rows: npt.NDArray[np.intp]) -> None:
        """Give the periods of sessions back: their chains become one, in front of what is free."""
        if not len(rows):
            return
        pool, connectors = self.state.periods, self.state.connectors
        heads, tails = connectors["head"][rows], connectors["tail"][rows]
        pool["next"][tails[:-1]] = heads[1:]
        pool["next"][tails[-1]] = pool["next"][0]
        pool["next"][0] = heads[0]
        pool["start_ms"][0] += int(connectors["periods"][rows].sum(dtype=np.int64))

    def append_periods(self, rows: npt.NDArray[np.intp], lengths: npt.NDArray[np.int64], periods: Rows) -> None:
        """Give open sessions that have none their charging periods: `lengths` of each, one session after the other."""
        taken = self._take_periods(len(periods))
        pool, connectors = self.state.periods, self.state.connectors
        opaque(pool)[taken] = opaque(periods)
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
        periods, taken = self.state.periods, np.empty(count, np.int32)
        take_free(periods, taken)
        return taken

    def _add(
        self, connectors: Places, partitions: npt.NDArray[np.integer], identities: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.int32]:
        """Rows for connectors that have none, in their order."""
        rows = self._new_rows(len(connectors))
        first = self.charge_points.put(rows, connectors)
        state, made = self.state.connectors, rows.astype(np.int32)
        wiped(state, rows)
        state["identity"][made] = identities
        state["connector_id"][made] = connectors & 0xFFFFFFFF
        state["partition"][made] = partitions
        for partition in np.unique(partitions).tolist():
            self._chain(partition, made[partitions == partition])
        self._ring(made, first)
        return made

    def _new_rows(self, count: int) -> Places:
        """Rows that were given back, last first, then rows that never were in use."""
        again = self._spare[: -count - 1 : -1]
        self._spare = self._spare[: len(self._spare) - len(again)]
        self.taken_again += again.tolist()
        known = len(self.charge_points)
        self.charge_points.extend(count - len(again))
        self._grow(len(self.charge_points))
        rows = np.concatenate([again, np.arange(known, len(self.charge_points))])
        self.new.append(rows)
        return rows

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

    def _ring(self, rows: npt.NDArray[np.int32], first: npt.NDArray[np.int32]) -> None:
        """Put connectors into the ring of their charge point, right behind its first."""
        ring = self.state.connectors["sibling"]
        ring[rows] = rows
        for row, head in zip(rows[first != rows].tolist(), first[first != rows].tolist(), strict=True):
            ring[row], ring[head] = ring[head], row

    def _grow(self, rows: int) -> None:
        room = len(self.state.connectors)
        if rows <= room:
            return
        wider = max(rows, 2 * room, min(_WIDER * room, _WIDE_ROOM))
        self.state = with_connectors(self.state, wider)
        longer = np.zeros(wider, TRANSACTION_ID_DTYPE)
        longer[:room] = self.transaction_ids
        self.transaction_ids = longer


@kernel
def take_free(periods: Rows, taken: Numbers) -> None:
    """Take so many rows, which there are, off the free end of the pool."""
    at = np.int64(periods[0]["next"])
    for k in range(len(taken)):
        taken[k] = at
        at = np.int64(periods[at]["next"])
    periods[0]["next"] = at
    periods[0]["start_ms"] -= len(taken)

"""Who is who in the worker's state: charge points, connectors and tokens by row number, partitions by chain.

Rows are given in the order in which the log first names a connector, so they are the same in every replay.
"""

import hashlib
from collections.abc import Sequence
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
        known = self._row_of.get((charge_point, connector_id))
        return known if known is not None else self._add(partition, charge_point, connector_id)

    def find(self, charge_point: str, connector_id: int) -> int | None:
        """The row of a connector, None when it was never heard."""
        return self._row_of.get((charge_point, connector_id))

    def rows_of(
        self, partitions: npt.NDArray[np.int32], names: Sequence[str], samples: npt.NDArray[np.void]
    ) -> npt.NDArray[np.int32]:
        """The row of each sample's connector; `names` is what samples["charge_point"] points into."""
        pairs = samples["charge_point"].astype(np.int64) << 32 | samples["connector_id"]
        unique, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
        rows = np.empty(len(unique), np.int32)
        for at in np.argsort(first, kind="stable").tolist():
            sample = int(first[at])
            pair = int(unique[at])
            rows[at] = self.row(int(partitions[sample]), names[pair >> 32], pair & 0xFFFFFFFF)
        return rows[inverse]

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

    def members(self, partition: int) -> list[int]:
        """Rows of a partition's connectors, in order of first appearance."""
        rows, at = [], int(self.roster["head"][partition])
        while at != NONE:
            rows.append(at)
            at = int(self.state.connectors["follows"][at])
        return rows

    def add_periods(self, rows: int) -> None:
        """More room for charging periods of open sessions."""
        self.state = with_periods(self.state, max(rows, len(self.state.periods)))

    def forget(self, partition: int) -> None:
        """Drop a partition: another worker has it now, or it is built anew from a snapshot."""
        for row in self.members(partition):
            self.free_periods(row)
            name, connector_id = self.charge_points[row], int(self.state.connectors["connector_id"][row])
            del self._row_of[name, connector_id]
            self._first_row.pop(name, None)
            self.state.connectors[row] = new_connectors(1)[0]
            self.charge_points[row] = ""
            self._spare.append(row)
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

    def append_period(self, row: int, period: np.void) -> None:
        """Add a charging period to the connector's open session."""
        if not self.state.periods["start_ms"][0]:
            self.add_periods(1)
        periods, connector = self.state.periods, self.state.connectors[row]
        taken = int(periods["next"][0])
        periods["next"][0] = periods["next"][taken]
        periods["start_ms"][0] -= 1
        periods[taken] = period
        periods["next"][taken] = NONE
        if connector["tail"] > 0:
            periods["next"][connector["tail"]] = taken
        else:
            connector["head"] = taken
        connector["tail"] = taken
        connector["periods"] += 1

    def _add(self, partition: int, charge_point: str, connector_id: int) -> int:
        row = self._spare.pop() if self._spare else len(self.charge_points)
        if row == len(self.charge_points):
            self.charge_points.append(charge_point)
            self._grow(row + 1)
        else:
            self.taken_again.append(row)
        self.charge_points[row] = charge_point
        self._row_of[charge_point, connector_id] = row
        connector = self.state.connectors[row]
        connector["identity"] = identity_of(charge_point)
        connector["connector_id"] = connector_id
        connector["partition"] = partition
        self._chain(partition, row)
        first = self._first_row.setdefault(charge_point, row)
        ring = self.state.connectors["sibling"]
        ring[row] = row if first == row else ring[first]
        ring[first] = row
        return row

    def _chain(self, partition: int, row: int) -> None:
        place = self.roster[partition]
        self.state.connectors["ordinal"][row] = place["members"]
        if place["members"]:
            self.state.connectors["follows"][place["tail"]] = row
        else:
            place["head"] = row
        place["tail"] = row
        place["members"] += 1

    def _grow(self, rows: int) -> None:
        room = len(self.state.connectors)
        if rows <= room:
            return
        self.state = with_connectors(self.state, 2 * room)
        self.transaction_ids = np.concatenate([self.transaction_ids, np.zeros(room, TRANSACTION_ID_DTYPE)])

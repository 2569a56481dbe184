"""The commit protocol: how a batch comes to count, once and only once. Read it from top to bottom.

    1. identity   every row is named (log_id, partition, offset, line) and carries its writer's claim
    2. rows       all tables are inserted, side by side; single rows that the store refuses are noted, and the batch is
                  dropped
    3. read back  what the store shows must equal what was sent: an acknowledgement is no proof
    4. marker     one row a partition says that the batch counts; it is read back too
    5. confirm    nobody asked for the partition since: whoever asks from now on reads the marker
    6. publish    outputs go to Kafka, each confirmed; a row in the ledger says how far, and billing reads up to there
    7. offset     the group's offset, a hint for dashboards; recovery asks the ledger

A crash before 4 leaves rows that no view shows: the next claim writes them again. A crash after 4 and before 6 leaves
outputs unpublished: recovery publishes from the last published row on, with the same ids. Steps 2 to 6 may be
repeated in whole at any time by the same writer: identities make them idempotent. A writer that has lost its claim
can do no harm: its rows and markers carry a claim that no longer holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger import (
    ALERTS,
    CDRS,
    QUARANTINE,
    RATED_USAGE,
    READINGS,
    Claim,
    Ledger,
    Marker,
    Span,
    Sums,
    expected_sums,
)
from pipeline.rate.batch import CONTROL, DEAD_LETTERED, DUPLICATE, QUARANTINED, USED, Batch, Share
from pipeline.rate.doors import Sending
from pipeline.rate.isolate import insert
from pipeline.rate.outputs import publish
from pipeline.rate.refusals import note
from pipeline.rate.session_events import DataOf, session_events
from pipeline.rate.snapshot import CODE_VERSION

_WRAP: Final = 1 << 64
Tables = dict[str, pa.Table]


@dataclass(frozen=True)
class Written:
    """A batch on its way: its tables, and the marker of each partition."""

    tables: Tables
    markers: list[Marker]

    @property
    def spans(self) -> list[Span]:
        """The offsets that it covers."""
        return [Span(m.partition, m.claim, m.first_offset, m.last_offset) for m in self.markers]


def prepare(batch: Batch, tables: Tables, claims: Mapping[int, Claim], now_ms: int) -> Written:
    """Step 1: the rows have their identity; count and sum them for the markers."""
    totals = _Totals(tables)
    markers = [_marker(share, claims[share.partition], totals, now_ms) for share in batch.shares.values()]
    return Written(tables, markers)


def write(ledger: Ledger, written: Written, claims: Mapping[int, Claim], now_ms: int) -> None:
    """Steps 2 to 5. Raises DroppedError, IntegrityError, StoreUnavailableError, StoreRefusedError."""
    for refused in ledger.each([partial(insert, ledger, *table) for table in written.tables.items()]):
        if refused:
            note(ledger, refused, written.tables[READINGS], claims, now_ms)
    ledger.read_back(written.tables, written.spans)
    ledger.add_markers(written.markers)
    ledger.check_claims([claims[marker.partition] for marker in written.markers])


def announce(ledger: Ledger, sender: Sending, written: Written, data_of: DataOf, now_ms: int) -> None:
    """Step 6. Raises DeliveryError, BrokerUnavailableError, StoreUnavailableError."""
    publish(sender, written.tables, session_events(written.tables, ledger, data_of))
    ledger.add_published({m.partition: (m.claim, m.last_offset) for m in written.markers}, now_ms)


class _Totals:
    """Rows and sums of a batch by table and partition."""

    def __init__(self, tables: Tables) -> None:
        self.sums: dict[tuple[str, int], Sums] = {}
        for table, rows in tables.items():
            self.sums.update(expected_sums(table, rows))
        rated = tables[RATED_USAGE]
        self.energy_mwh = _sums_by_partition(rated, "quantity", _is_energy(rated))
        self.cost = _sums_by_partition(rated, "cost")

    def rows(self, table: str, partition: int) -> int:
        return self.sums[table, partition].rows if (table, partition) in self.sums else 0

    def checksum(self, partition: int) -> int:
        return sum(sums.check for (_, of), sums in self.sums.items() if of == partition) % _WRAP


def _is_energy(rated: pa.Table) -> npt.NDArray[np.bool_]:
    energy: Any = pc.equal(rated.column("dimension").cast(pa.string()), pa.scalar("ENERGY"))  # type: ignore[attr-defined,unused-ignore]
    found: npt.NDArray[np.bool_] = energy.to_numpy()
    return found


def _sums_by_partition(rows: pa.Table, column: str, chosen: Any = slice(None)) -> dict[int, int]:
    """By hand: grouping in Arrow takes longer than all the rest of a small batch's totals."""
    partitions = rows.column("partition").to_numpy().astype(np.intp)[chosen]
    sums = np.zeros(int(partitions.max(initial=-1)) + 1, np.int64)
    np.add.at(sums, partitions, rows.column(column).to_numpy()[chosen])
    return dict(enumerate(sums.tolist()))


def _marker(share: Share, claim: Claim, totals: _Totals, now_ms: int) -> Marker:
    partition = share.partition
    return Marker(
        partition=partition, claim=claim.claim, first_offset=share.first_offset, last_offset=share.last_offset,
        records=share.records, control=share.outcomes[CONTROL], used=share.outcomes[USED],
        duplicate=share.outcomes[DUPLICATE], quarantined=share.outcomes[QUARANTINED],
        dead_lettered=share.outcomes[DEAD_LETTERED], readings=totals.rows(READINGS, partition),
        rated=totals.rows(RATED_USAGE, partition), cdrs=totals.rows(CDRS, partition),
        alerts=totals.rows(ALERTS, partition), quarantine=totals.rows(QUARANTINE, partition),
        energy_mwh=totals.energy_mwh.get(partition, 0), cost=totals.cost.get(partition, 0),
        checksum=totals.checksum(partition), log_time=share.log_time_ms, reference_version=share.reference_version,
        code_version=CODE_VERSION, written_at=now_ms,
    )  # fmt: skip

"""Records of which the store refuses a row: noted in the ledger, and dead letters for whoever rates them after that.

The batch is dropped and the partitions are joined anew. Whoever takes a partition over adopts the notes of the offsets
to come under its own claim, before it rates any of them: a replay asks which notes the marker's claim had adopted, and
so gives the same rows. A writer never rates by a note of its own, so one that it fails to drop does no harm.
Control records are never set apart: what a tick or a decision brings about, and the store refuses, stops the worker.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NoReturn

import pyarrow as pa

from pipeline.errors import RefusedRowsError, StoreRefusedError
from pipeline.ledger import NOTED, Claim, Ledger, Refusal
from pipeline.log import Log
from pipeline.rate.isolate import Refused
from pipeline.topics import READINGS

LOG: Final = Log("rate")
_WINDOW: Final = 10_000  # records of a partition of which
_WINDOW_MAX: Final = 100  # may be refused: a table that refuses what comes, a few at a time, is broken as well
ByClaim = dict[int, dict[int, str]]  # claim → offset → the store's words


def note(
    ledger: Ledger, refused: Sequence[Refused], readings: pa.Table, claims: Mapping[int, Claim], now_ms: int
) -> NoReturn:
    """Note the records of refused rows. Raises RefusedRowsError when done, StoreRefusedError where they can't be."""
    records = {(one.partition, one.offset): one for one in reversed(refused)}  # by the first row of each
    _check_kind(records.values(), readings)
    partitions = sorted({partition for partition, _ in records})
    _check_number(records, ledger.refusals(partitions))
    ledger.check_claims([claims[partition] for partition in partitions])
    ledger.add_refusals([Refusal(p, NOTED, o, r.error.code, r.error.message) for (p, o), r in records.items()], now_ms)
    for one in records.values():
        LOG.error(
            "the store refuses a row of this record alone: it becomes a dead letter", topic=READINGS,
            partition=one.partition, offset=one.offset, table=one.table, code=one.error.code, why=one.error.message,
        )  # fmt: skip
    raise RefusedRowsError(
        f"{ledger.where} refuses rows of {len(records)} records alone, the first at partition {min(records)[0]} offset "
        f"{min(records)[1]}: they are noted, and the batch is rated again without them"
    )


def _check_kind(refused: Iterable[Refused], readings: pa.Table) -> None:
    """Only readings can be dead letters: each has a row in `readings`, control records have none."""
    known = set(zip(readings.column("partition").to_pylist(), readings.column("offset").to_pylist(), strict=True))
    for one in refused:
        if (one.partition, one.offset) not in known:
            raise StoreRefusedError(
                f"partition {one.partition} offset {one.offset} is a control record that a row of {one.table} comes "
                f"from; it can't be left out, so the worker stops. {one.error.message}",
                one.error.code,
            )


def _check_number(records: Mapping[tuple[int, int], Refused], before: Iterable[Refusal]) -> None:
    offsets: dict[int, set[int]] = defaultdict(set)
    for partition, offset in [*records, *((one.partition, one.offset) for one in before if one.claim == NOTED)]:
        offsets[partition].add(offset)
    for partition, found in offsets.items():
        newest = max(offset for of, offset in records if of == partition)
        lately = sum(newest - _WINDOW < offset <= newest for offset in found)
        if lately > _WINDOW_MAX:
            error = next(iter(records.values())).error
            raise StoreRefusedError(
                f"partition {partition}: of {_WINDOW} records up to offset {newest} the store refuses {lately}, more "
                f"than {_WINDOW_MAX}: it is the table that is wrong; put it right and start again. {error.message}",
                error.code,
            )


def in_force(ledger: Ledger, partitions: Sequence[int]) -> dict[int, ByClaim]:
    """By partition and claim, the records that were or are rated as dead letters."""
    found: dict[int, ByClaim] = {partition: {} for partition in partitions}
    for one in ledger.refusals(partitions):
        if one.claim != NOTED:
            found[one.partition].setdefault(one.claim, {})[one.offset] = one.message
    return found


def adopt(ledger: Ledger, claims: Mapping[int, Claim], now_ms: int) -> dict[int, ByClaim]:
    """Put the notes of offsets to come into force under new claims; then as `in_force`."""
    noted = [
        replace(one, claim=claims[one.partition].claim)
        for one in ledger.refusals(list(claims))
        if one.claim == NOTED and one.offset >= claims[one.partition].first_offset
    ]
    if noted:
        ledger.add_refusals(noted, now_ms)
    return in_force(ledger, list(claims))

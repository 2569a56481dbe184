"""What counts, as of one moment, for readers that ask several things: the markers' rule of the views, looked up once.

A row counts when its own claim covers its offset. At any offset that is one claim at most, so rows that count need no
FINAL: what is left twice is one row, told again by the same writer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from pipeline.clickhouse import Store


class Covered(NamedTuple):
    """The offsets of a partition that count under one claim; `end` is the one after the last."""

    claim: int
    first: int
    end: int


@dataclass(frozen=True)
class Coverage:
    """(log, partition) → what counts there."""

    spans: Mapping[tuple[int, int], tuple[Covered, ...]]

    @classmethod
    def of(cls, store: Store) -> Self:
        """As of now."""
        found: dict[tuple[int, int], list[Covered]] = {}
        for row in store.rows("SELECT log_id, partition, claim, first_offset, last_offset + 1 AS end FROM covered"):
            span = Covered(row["claim"], row["first_offset"], row["end"])
            found.setdefault((row["log_id"], row["partition"]), []).append(span)
        return cls({place: tuple(spans) for place, spans in found.items()})

    def condition(self, log_id: int, partition: int) -> str:
        """What a row of this partition must fulfil, in SQL; integers of ours only."""
        spans = self.spans.get((log_id, partition), ()) or (Covered(0, 0, 0),)
        claims, firsts, ends = ([int(value) for value in column] for column in zip(*spans, strict=True))
        return (
            f"log_id = {log_id:d} AND partition = {partition:d} AND offset < transform(claim, {claims}, {ends}, 0) "
            f"AND offset >= transform(claim, {claims}, {firsts}, 0)"
        )

    def touches(self, log_id: int, partition: int, claim: int, first: int, last: int) -> bool:
        """Whether some of the offsets from `first` to `last` count, when `claim` wrote them."""
        spans = self.spans.get((log_id, partition), ())
        return any(span.claim == claim and span.first <= last and first < span.end for span in spans)

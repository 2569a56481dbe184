"""What counts, as of one moment, for readers that ask several things: the markers' rule of the views, looked up once.

A row counts when its own claim covers its offset. At any offset that is one claim at most, so rows that count need no
FINAL: what is left twice is one row, told again by the same writer.

The rule is that of the views `claims` and `covered`, for the partitions that are asked about and in Python: the store
needs longer to plan those views than to look two tables up. A test holds the two equal.

What order gives is an answer of one moment. Markers are read before claims: a claim that is taken in between cuts off
what its predecessor goes on to write, not the reverse. Markers are read before rows: a row that they cover was there
before them. Rows and claims do not wait for each other.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from pipeline.clickhouse import Store

_NEVER: Final = 2**64 - 1  # an offset that is never reached
_ALL: Final = 2**32 - 1  # no claim is above it
_FEW: Final = 500  # claims that are read faster with those of all partitions than a question later
_HERE: Final = "(log_id, partition) IN {places:Array(Tuple(UInt64, UInt16))}"
_SUMS: Final = "SELECT log_id, partition, claim, min(first_offset) AS low, max(last_offset) AS high FROM marker_rows"
_EACH: Final = "GROUP BY log_id, partition, claim"
_SPANS: Final = f"{_SUMS} WHERE {_HERE} {_EACH}"
_EVERYWHERE: Final = f"{_SUMS} {_EACH} LIMIT {_FEW + 1}"
_ALL_CLAIMS: Final = "SELECT log_id, partition, claim, first_offset, member, previous FROM claim_rows"
_CLAIMS: Final = f"{_ALL_CLAIMS} WHERE {_HERE}"


class Span(NamedTuple):
    """The offsets that count under a claim; `end` is the one after the last."""

    first: int
    end: int


_NOTHING: Final = Span(0, 0)
Asked = Future[list[dict[str, Any]]]


def ask_markers(store: Store) -> Asked:
    """The markers as of now for `Coverage.begin`, before it is known in which partitions rows are."""
    return store.ask(_EVERYWHERE)


@dataclass(frozen=True)
class Coverage:
    """(log, partition, claim) → what counts of it; of other partitions than were asked about, nothing."""

    spans: Mapping[tuple[int, int, int], Span]

    @classmethod
    def of(cls, store: Store, places: Collection[tuple[int, int]]) -> Self:
        """As of now, in some partitions (log, partition)."""
        return cls.begin(store, places)()

    @classmethod
    def begin(
        cls, store: Store, places: Collection[tuple[int, int]], markers: Asked | None = None
    ) -> Callable[[], Self]:
        """The same in two steps: markers are read when this returns, so rows may be asked; the call waits for claims.

        `markers` of `ask_markers` are used unless there are too many claims to have read them all.
        """
        if not places:
            return lambda: cls({})
        asked = {"places": sorted(set(places))}
        told = markers.result() if markers else None
        if told is None or len(told) > _FEW:
            told = store.rows(_SPANS, asked)
        claims = store.ask(_CLAIMS, asked)
        return lambda: cls._made(told, claims.result())

    @classmethod
    def everywhere(cls, store: Store, markers: Asked) -> Callable[[], Self] | None:
        """The same of all partitions, for who does not know yet where rows are; None where there are too many claims.

        Without a condition on the partitions the store plans a third less.
        """
        told = markers.result()
        if len(told) > _FEW:
            return None
        claims = store.ask(_ALL_CLAIMS)
        return lambda: cls._made(told, claims.result())

    @classmethod
    def _made(cls, markers: list[dict[str, Any]], told: list[dict[str, Any]]) -> Self:
        claims = defaultdict(list)
        for row in told:
            claims[row["log_id"], row["partition"]].append(row)
        held = {(*place, claim): span for place, rows in claims.items() for claim, span in _in_force(rows)}
        return cls({name: span for name, span in _covered(markers, held) if span != _NOTHING})

    def touches(self, log_id: int, partition: int, claim: int, first: int, last: int) -> bool:
        """Whether some of the offsets from `first` to `last` count, when `claim` wrote them."""
        span = self.spans.get((log_id, partition, claim), _NOTHING)
        return span.first <= last and first < span.end


def _in_force(told: list[dict[str, Any]]) -> Iterator[tuple[int, Span]]:
    """The claims of a partition that hold, from the highest down, each until the one above it begins (migration 0004).

    The lowest member wins a number. A claim that those above went on without is passed over.
    """
    won: dict[int, dict[str, Any]] = {}
    for row in told:
        if row["claim"] not in won or row["member"] < won[row["claim"]]["member"]:
            won[row["claim"]] = row
    highest, end = _ALL, _NEVER
    for claim in sorted(won, reverse=True):
        if claim <= highest:
            first = won[claim]["first_offset"]
            yield claim, Span(first, end)
            highest, end = min(won[claim]["previous"], claim - 1), min(end, first)


def _covered(
    markers: list[dict[str, Any]], held: Mapping[tuple[int, int, int], Span]
) -> Iterator[tuple[tuple[int, int, int], Span]]:
    """What the markers of each claim cover, cut off where the next claim begins (migration 0006)."""
    for row in markers:
        name = row["log_id"], row["partition"], row["claim"]
        span = held.get(name, _NOTHING)
        inside = span.first <= row["low"] < span.end
        yield name, Span(row["low"], min(row["high"] + 1, span.end)) if inside else _NOTHING

"""What customers owe for a span of time, one of them or all: settled CDRs and credits that count, nothing else.

A session belongs to the span in which it began. Amounts in 1e-4 of the currency, energy mWh. What arrives after a
statement was sent is a delta between two cursors (`contract`), not another statement.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from pipeline.clickhouse import Store
from pipeline.coverage import Coverage

SLICES: Final = 16  # of the customers, so that a run's memory does not grow with them

_LINE: Final = (
    "(cdr_id, credit, toUnixTimestamp64Milli(start), toUnixTimestamp64Milli(end), toString(location_id), "
    "toString(tariff), energy_mwh, total_excl_e4, total_incl_e4)"
)
_SPAN: Final = (
    "start >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND start < fromUnixTimestamp64Milli({until:Int64}, 'UTC')"
)
_IDENTITY: Final = "c.log_id, c.partition, c.claim, c.offset, c.line"


@dataclass(frozen=True, slots=True)
class Line:
    """One CDR, or the credit of one (negative amounts)."""

    cdr_id: str
    credit: int
    start_ms: int
    end_ms: int
    location_id: str
    tariff: str
    energy_mwh: int
    total_excl_e4: int
    total_incl_e4: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A customer's lines in one currency, in order of time, and their sums."""

    id_token: str
    currency: str
    energy_mwh: int
    total_excl_e4: int
    total_incl_e4: int
    lines: list[Line]


def of_customer(store: Store, id_token: str, from_ms: int, until_ms: int) -> list[Statement]:
    """One customer's statements, one a currency; none where nothing was charged.

    From the table and what counts of it (`Coverage`): through the view, which sorts out repeats, the store reads every
    block that overlaps one with the customer in it, and that grows with what is stored.
    """
    values = {"token": id_token, "from": from_ms, "until": until_ms}
    mine = f"FROM cdr_rows AS c WHERE id_token = {{token:String}} AND {_SPAN}"
    places = store.rows(f"SELECT DISTINCT log_id, partition {mine}", values)
    counts = Coverage.begin(store, [(row["log_id"], row["partition"]) for row in places])
    rows = store.rows(f"SELECT {_IDENTITY}, toString(c.currency), {_LINE} {mine}", values)
    return _statements(id_token, rows, counts())


def of_everyone(store: Store, from_ms: int, until_ms: int) -> Iterator[Statement]:
    """Everyone's statements, each once."""
    for number in range(SLICES):
        mine = {"slices": SLICES, "slice": number}
        yield from _asked(store, "cityHash64(id_token) % {slices:UInt32} = {slice:UInt32}", from_ms, until_ms, mine)


def _asked(store: Store, whose: str, from_ms: int, until_ms: int, parameters: dict[str, Any]) -> Iterator[Statement]:
    found = store.arrow(
        "SELECT id_token, toString(currency) AS of_currency, sum(c.energy_mwh) AS energy, "
        "sum(c.total_excl_e4) AS excl, "
        f"sum(c.total_incl_e4) AS incl, arraySort(line -> (line.3, line.1, line.2), groupArray({_LINE})) AS lines "
        f"FROM cdrs AS c WHERE {whose} AND {_SPAN} GROUP BY id_token, of_currency ORDER BY id_token, of_currency",
        {**parameters, "from": from_ms, "until": until_ms},
    )
    for row in found.to_pylist():
        lines = [Line(*line.values()) for line in row["lines"]]
        yield Statement(row["id_token"], row["of_currency"], row["energy"], row["excl"], row["incl"], lines)


def _statements(id_token: str, rows: list[dict[str, Any]], counts: Coverage) -> list[Statement]:
    """Of rows that count, each once: one that was told twice has its identity twice."""
    once: dict[tuple[int, int, int, int], tuple[str, Line]] = {}
    for log_id, partition, claim, offset, line, currency, told in (row.values() for row in rows):
        if counts.touches(log_id, partition, claim, offset, offset):
            once[log_id, partition, offset, line] = currency, Line(*told)
    by_currency: dict[str, list[Line]] = defaultdict(list)
    for currency, told in once.values():
        by_currency[currency].append(told)
    return [_statement(id_token, currency, lines) for currency, lines in sorted(by_currency.items())]


def _statement(id_token: str, currency: str, lines: list[Line]) -> Statement:
    energy_mwh, excl_e4 = sum(line.energy_mwh for line in lines), sum(line.total_excl_e4 for line in lines)
    incl_e4 = sum(line.total_incl_e4 for line in lines)
    in_order = sorted(lines, key=attrgetter("start_ms", "cdr_id", "credit"))
    return Statement(id_token, currency, energy_mwh, excl_e4, incl_e4, in_order)

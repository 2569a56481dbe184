"""Control totals of the commit protocol: markers against each other, and rows against what their markers promise."""

from collections.abc import Iterator
from typing import Any, Final

from pipeline.clickhouse import Store
from pipeline.ledger import ALERTS, CDRS, DEAD_LETTERS, QUARANTINE, RATED_USAGE, READINGS
from pipeline.read.checks import FAST, OK, SHOWN, WARNING, Check, Place, Scope, check, log_name

# view → (its table, the marker's count, {sum over rows: the marker's sum})
_PROMISES: Final[dict[str, tuple[str, str, dict[str, str]]]] = {
    "readings": (READINGS, "readings", {}),
    "rated_usage": (
        RATED_USAGE,
        "rated",
        {"sumIf(v.quantity, v.dimension = 'ENERGY')": "energy_mwh", "sum(v.cost)": "cost"},
    ),
    "cdrs": (CDRS, "cdrs", {}),
    "alerts": (ALERTS, "alerts", {}),
    "quarantine": (QUARANTINE, "quarantine", {}),
    "dead_letters": (DEAD_LETTERS, "dead_lettered", {}),
}


def row_checks(store: Store, scope: Scope) -> Iterator[Check]:
    """Everything that can be said of markers and rows without looking into sessions."""
    yield _tiling(store)
    yield _outcomes(store, scope)
    seen: dict[str, int] = {}
    for view, (_, counted, sums) in _PROMISES.items():
        found = _promise(store, scope, view, counted, sums)
        seen[view] = found.compared
        yield found
    yield _published(store)
    yield _snapshots(store)
    if scope.since_ms is None:
        yield _repeats(store, seen)


def _tiling(store: Store) -> Check:
    """Markers follow each other without gap or overlap, from the offset that the first claim began at."""
    markers = int(store.scalar("SELECT count() FROM markers") or 0)
    rows = store.rows(
        "SELECT log_id, partition AS part, first_offset AS at_offset, should FROM (SELECT log_id, partition, "
        "first_offset, lagInFrame(last_offset + 1, 1, first_offset) OVER (PARTITION BY log_id, partition "
        "ORDER BY first_offset, last_offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS should FROM markers) "
        "WHERE first_offset != should UNION ALL "
        "SELECT log_id, partition, m.first, c.first FROM "
        "(SELECT log_id, partition, min(first_offset) AS first FROM markers GROUP BY log_id, partition) AS m "
        "INNER JOIN (SELECT log_id, partition, argMin(first_offset, claim) AS first FROM claims "
        "GROUP BY log_id, partition) AS c USING (log_id, partition) WHERE m.first != c.first"
    )
    places = [
        {
            "log_id": log_name(row["log_id"]),
            "partition": row["part"],
            "offset": row["at_offset"],
            "expected_offset": row["should"],
            "what": "gap" if row["at_offset"] > row["should"] else "overlap",
        }
        for row in rows
    ]
    return check("markers_tile", markers, places, f"{markers} markers follow each other without gap or overlap")


def _outcomes(store: Store, scope: Scope) -> Check:
    """Every record has one outcome."""
    outcomes = ("control", "used", "duplicate", "quarantined", "dead_lettered")
    total = " + ".join(outcomes)
    row = store.rows(
        f"{scope.head}SELECT count() AS markers, sum(m.records) AS all_records, "
        f"{', '.join(f'sum(m.{name}) AS all_{name}' for name in outcomes)}, countIf(m.records != {total}) AS wrong "
        f"FROM markers AS m WHERE {scope.covers('m.first_offset')}"
    )[0]
    places = [
        {**_marker_place(one), "records": one["said"], "outcomes": one["told"]}
        for one in (
            store.rows(
                f"{scope.head}SELECT log_id, partition AS part, first_offset AS from_offset, last_offset AS to_offset, "
                f"m.records AS said, {total} AS told FROM markers AS m WHERE said != told "
                f"AND {scope.covers('m.first_offset')} ORDER BY log_id, part, from_offset LIMIT {SHOWN}"
            )
            if row["wrong"]
            else ()
        )
    ]
    told = " + ".join(f"{row[f'all_{name}']} {name.replace('_', '-')}" for name in outcomes)
    return check("records_accounted", row["markers"], places, f"{row['all_records']} records = {told}", row["wrong"])


def _promise(store: Store, scope: Scope, view: str, counted: str, sums: dict[str, str]) -> Check:
    """The rows of a view equal its markers' counts and sums, by log, partition and claim."""
    promised = ["count", *sums.values()]
    found = _by_claim(
        store,
        f"{scope.head}SELECT log_id, partition AS part, claim AS the_claim, count() AS of_count"
        f"{''.join(f', {expression} AS of_{name}' for expression, name in sums.items())} "
        f"FROM {view} AS v WHERE {scope.covers('v.offset')} GROUP BY log_id, part, the_claim{FAST}",
        promised,
    )
    wanted = _by_claim(
        store,
        f"{scope.head}SELECT log_id, partition AS part, claim AS the_claim, sum(m.{counted}) AS of_count"
        f"{''.join(f', sum(m.{name}) AS of_{name}' for name in sums.values())} "
        f"FROM markers AS m WHERE {scope.covers('m.first_offset')} GROUP BY log_id, part, the_claim",
        promised,
    )
    nothing = dict.fromkeys(promised, 0)
    places: list[Place] = []
    for key in sorted(found.keys() | wanted.keys()):
        rows, marks = found.get(key, nothing), wanted.get(key, nothing)
        if rows != marks:
            places += _located(store, view, counted, sums, key) or [_difference(key, rows, marks)]
    total = sum(values["count"] for values in found.values())
    more = "".join(f", {name} {sum(values[name] for values in found.values())}" for name in sums.values())
    text = f"{total} rows in {view}{more}: as their markers say"
    return check(f"rows_of_{view}", total, places, text)


def _by_claim(store: Store, sql: str, names: list[str]) -> dict[tuple[int, int, int], dict[str, int]]:
    return {
        (row["log_id"], row["part"], row["the_claim"]): {name: int(row[f"of_{name}"]) for name in names}
        for row in store.rows(sql)
    }


def _located(store: Store, view: str, counted: str, sums: dict[str, str], key: tuple[int, int, int]) -> list[Place]:
    """The markers of one claim that do not hold, found by matching each row to the marker it falls under."""
    log_id, partition, claim = key
    where = "log_id = {log:UInt64} AND partition = {partition:UInt32} AND claim = {claim:UInt32}"
    parameters = {"log": log_id, "partition": partition, "claim": claim}
    names = ["count", *sums.values()]
    expressions = {"count": "count()", **{name: expression for expression, name in sums.items()}}
    rows = {
        row["first"]: row
        for row in store.rows(
            f"SELECT m.first AS first, {', '.join(f'{expressions[n]} AS of_{n}' for n in names)} "
            f"FROM (SELECT * FROM {view} WHERE {where}) AS v ASOF JOIN (SELECT partition, first_offset AS first "
            f"FROM markers WHERE {where}) AS m ON v.partition = m.partition AND v.offset >= m.first GROUP BY first",
            parameters,
        )
    }
    marks = store.rows(
        f"SELECT first_offset AS first, last_offset AS last, m.{counted} AS of_count"
        f"{''.join(f', m.{name} AS of_{name}' for name in sums.values())} "
        f"FROM markers AS m WHERE {where} ORDER BY first",
        parameters,
    )
    return [
        _difference(key, _values(rows.get(mark["first"], {}), names), _values(mark, names), mark)
        for mark in marks
        if _values(rows.get(mark["first"], {}), names) != _values(mark, names)
    ]


def _values(row: dict[str, Any], names: list[str]) -> dict[str, int]:
    return {name: int(row.get(f"of_{name}", 0)) for name in names}


def _difference(
    key: tuple[int, int, int], rows: dict[str, int], marks: dict[str, int], mark: dict[str, Any] | None = None
) -> Place:
    log_id, partition, claim = key
    span = {"first_offset": mark["first"], "last_offset": mark["last"]} if mark else {}
    return {"log_id": log_name(log_id), "partition": partition, "claim": claim, **span, "rows": rows, "marker": marks}


def _published(store: Store) -> Check:
    """What went to Kafka was marked before."""
    rows = store.rows(
        "SELECT p.log_id AS log_id, p.partition AS part, p.last AS published, c.last AS covered_to, c.marked AS marked "
        "FROM (SELECT log_id, partition, max(last_offset) AS last FROM published_rows GROUP BY log_id, partition) AS p "
        "LEFT JOIN (SELECT log_id, partition, max(last_offset) AS last, 1 AS marked FROM covered "
        "GROUP BY log_id, partition) AS c USING (log_id, partition)"
    )
    places = [
        {
            "log_id": log_name(row["log_id"]),
            "partition": row["part"],
            "published_offset": row["published"],
            "covered_offset": row["covered_to"] if row["marked"] else None,
        }
        for row in rows
        if not row["marked"] or row["published"] > row["covered_to"]
    ]
    return check("published_was_marked", len(rows), places, f"outputs of {len(rows)} partitions were published marked")


def _snapshots(store: Store) -> Check:
    """Worker state is never ahead of the rows that it stands for."""
    rows = store.rows(
        "SELECT s.log_id AS log_id, s.partition AS part, s.claim AS the_claim, s.last AS taken_at, "
        "c.last AS covered_to "
        "FROM (SELECT log_id, partition, claim, max(last_offset) AS last FROM state_rows "
        "GROUP BY log_id, partition, claim) AS s INNER JOIN (SELECT log_id, partition, claim, max(last_offset) AS last "
        "FROM covered GROUP BY log_id, partition, claim) AS c USING (log_id, partition, claim)"
    )
    places = [
        {
            "log_id": log_name(row["log_id"]),
            "partition": row["part"],
            "claim": row["the_claim"],
            "snapshot_offset": row["taken_at"],
            "covered_offset": row["covered_to"],
        }
        for row in rows
        if row["taken_at"] > row["covered_to"]
    ]
    return check(
        "snapshots_not_ahead", len(rows), places, f"snapshots of {len(rows)} claims are not ahead of their rows"
    )


def _repeats(store: Store, seen: dict[str, int]) -> Check:
    """Rows that are in a table more than once, or that no marker covers: harmless, but someone died or was fenced.

    `seen` holds the rows of each view; a table with as many needs no second look.
    """
    places: list[Place] = []
    stored_rows = 0
    for view, (table, _, _) in _PROMISES.items():
        stored = int(store.scalar(f"SELECT count() FROM {table}") or 0)
        stored_rows += stored
        if stored == seen[view]:
            continue
        once = int(store.scalar(f"SELECT count() FROM {table} FINAL{FAST}") or 0)
        places.append({"table": table, "repeated_rows": stored - once, "rows_without_marker": once - seen[view]})
    text = f"{stored_rows} rows in the tables, " + (
        "some written more than once or under no marker: a writer died in mid-batch, was fenced, or is writing now"
        if places
        else "each once and under a marker"
    )
    return Check("written_once", WARNING if places else OK, stored_rows, len(places), text, places)


def _marker_place(row: dict[str, Any]) -> Place:
    return {
        "log_id": log_name(row["log_id"]),
        "partition": row["part"],
        "first_offset": row["from_offset"],
        "last_offset": row["to_offset"],
    }

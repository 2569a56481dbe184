"""What counts, told by each claim's least and greatest marker, against the obvious twin that looks at every marker."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pipeline.clickhouse import Store
from pipeline.coverage import _EVERYWHERE, _FEW, _SPANS, Coverage, ask_markers
from pipeline.embedded.stack import Stack
from pipeline.store import StoreLedger
from tests.stack import prepared

TWIN = """
SELECT log_id, partition, claim, min(m.first_offset) AS first_offset, max(m.last_offset) AS last_offset
FROM (SELECT log_id, partition, claim, first_offset, last_offset FROM marker_rows) AS m
INNER JOIN claims AS c ON m.log_id = c.log_id AND m.partition = c.partition AND m.claim = c.claim
WHERE m.first_offset >= c.first_offset AND m.last_offset < c.end_offset
GROUP BY log_id, partition, claim
"""
NOT_SAID = 4_294_967_295


@pytest.fixture
def history(stack: Stack) -> Iterator[Store]:
    """Logs whose claims came late or beside others, and whose fenced writers went on writing markers."""
    dice = random.Random(7)
    claims: list[str] = []
    markers: list[str] = []
    for log in range(80):
        _life(dice, log, claims, markers)
    with Store(prepared(stack.settings)) as store:
        names = "log_id, partition, claim, first_offset, member, previous, claimed_at"
        store.command(f"INSERT INTO claim_rows ({names}) VALUES {', '.join(claims)}")
        names = "log_id, partition, claim, first_offset, last_offset, written_at, log_time"
        store.command(f"INSERT INTO marker_rows ({names}) VALUES {', '.join(markers)}")
        yield store


def _life(dice: random.Random, log: int, claims: list[str], markers: list[str]) -> None:
    end, number, ends = 0, 0, [0]
    before: list[tuple[int, int]] = []  # claims so far, and where each ended
    for _ in range(dice.randint(1, 6)):
        number += 1
        previous = before[-1][0] if before else 0
        if before and dice.random() < 0.2:
            named = dice.choice([previous, NOT_SAID])
            claims.append(f"({log}, 0, {number}, {dice.choice(ends)}, 'late', {named}, 0)")
            previous, number = dice.choice([(previous, number + 1), (number, number + 1)])
        claims.append(f"({log}, 0, {number}, {end}, 'm', {previous}, 0)")
        for fenced, at in before:
            if dice.random() < 0.4:
                markers.append(f"({log}, 0, {fenced}, {at}, {at + dice.randint(0, 5)}, 0, 0)")
        for _ in range(dice.randint(0, 4)):
            last = end + dice.randint(0, 9)
            markers += [f"({log}, 0, {number}, {end}, {last}, 0, 0)"] * dice.choice([1, 1, 2])
            end = last + 1
            ends.append(end)
        before.append((number, end))


def test_what_counts_by_claim_is_what_counts_marker_by_marker(history: Store) -> None:
    order = "ORDER BY log_id, partition, claim"
    truth = history.rows(f"SELECT * FROM ({TWIN}) {order}")
    assert history.rows(f"SELECT * FROM covered {order}") == truth
    assert len(truth) > 100
    spans = Coverage.of(history, [(log, 0) for log in range(80)]).spans
    assert {(log, claim, span.first, span.end - 1) for (log, _, claim), span in spans.items()} == {
        (row["log_id"], row["claim"], row["first_offset"], row["last_offset"]) for row in truth
    }


def test_what_counts_in_one_partition_tells_nothing_of_others(history: Store) -> None:
    whole = Coverage.of(history, [(log, 0) for log in range(80)]).spans
    for log in range(0, 80, 9):
        mine = {name: span for name, span in whole.items() if name[0] == log}
        assert Coverage.of(history, [(log, 0), (log, 1)]).spans == mine
    assert Coverage.of(history, []).spans == {}


def test_markers_that_were_asked_for_everywhere_tell_the_same_of_few_claims_and_of_many(history: Store) -> None:
    places = [(log, 0) for log in range(0, 80, 3)]
    truth = Coverage.of(history, places)
    markers = ask_markers(history)
    assert 100 < len(markers.result()) <= _FEW
    assert Coverage.begin(history, places, markers)() == truth
    assert Coverage.begin(history, [], markers)().spans == {}
    everywhere = Coverage.everywhere(history, markers)
    assert everywhere
    assert everywhere() == Coverage.of(history, [(log, 0) for log in range(80)])
    history.command(
        "INSERT INTO marker_rows (log_id, partition, claim, first_offset, last_offset) "
        f"SELECT 1000 + number, 0, 1, 0, 9 FROM numbers({_FEW})"
    )
    markers = ask_markers(history)
    assert len(markers.result()) == _FEW + 1  # not all of them: those of the places are asked for again
    assert Coverage.begin(history, places, markers)() == truth
    assert Coverage.everywhere(history, markers) is None


def test_a_claim_that_is_taken_while_rows_are_asked_cuts_off_nothing_that_counted(history: Store) -> None:
    log = next(iter(log for log, _, _ in Coverage.of(history, [(log, 0) for log in range(80)]).spans))
    before = Coverage.of(history, [(log, 0)])
    end = max(span.end for span in before.spans.values())
    highest = history.scalar("SELECT max(claim) FROM claim_rows WHERE log_id = {log:UInt64}", {"log": log})
    markers = ask_markers(history)
    markers.result()
    names = "log_id, partition, claim, first_offset, member, previous, claimed_at"
    history.command(f"INSERT INTO claim_rows ({names}) VALUES ({log}, 0, {highest + 1}, {end}, 'm', {highest}, 0)")
    assert Coverage.begin(history, [(log, 0)], markers)() == before


def test_looking_up_what_counts_reads_no_markers_but_their_sums(history: Store) -> None:
    for sql in ("SELECT * FROM covered", _SPANS, _EVERYWHERE):
        told = history.rows(f"EXPLAIN {sql}", {"places": [(1, 0), (2, 0)]})
        assert "ReadFromMergeTree (tilings)" in "\n".join(row["explain"] for row in told)


def test_how_far_markers_tile_is_the_same_from_sums_as_marker_by_marker(history: Store) -> None:
    ends = []
    for log in range(80):
        ledger = StoreLedger(history, log)
        tiles, extents = ledger.tilings([0])[0], ledger.extents([0])
        first = extents[0][0].first_offset  # a tiling that begins later has its hole there
        ends.append(tiles[-1].last_offset + 1 if tiles and tiles[0].first_offset == first else first)
        assert ledger.tiled_ends(extents) == {0: ends[-1]}, log
    assert len(set(ends)) > 20


class Listening(Store):
    """Keeps what was asked."""

    asked: Sequence[str] = ()

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        self.asked = [*self.asked, sql]
        return super().rows(sql, parameters)


def test_who_takes_over_reads_no_markers_but_their_sums(stack: Stack, history: Store) -> None:
    with Listening(replace(stack.settings, clickhouse_database=history.database)) as store:
        ledger = StoreLedger(store, 3)
        ledger.add_published({0: (1, 5)}, 0)
        ledger.marked([0])
        ledger.newest_reference()
        ledger.published([0])
        for sql, projection in zip(list(store.asked), ("tilings", "tilings", "reached"), strict=True):
            plan = store.rows(f"EXPLAIN {sql}", {"log": 3, "partitions": [0]})
            assert f"ReadFromMergeTree ({projection})" in "\n".join(row["explain"] for row in plan)

"""A reading that the table refuses, on the embedded store: its neighbours are billed, it is a dead letter, for ever."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.clickhouse import Store
from pipeline.errors import RefusedRowsError
from pipeline.rate.doors import RealDoors
from pipeline.rate.recompute import Recomputation
from pipeline.read.checks import BROKEN
from pipeline.read.verify import verify
from pipeline.settings import Settings
from tests.pipeline.read.network import charging, message, open_network, rate, send
from tests.stack import prepared

ODD_W = 424.242
CHECK = "ALTER TABLE reading_rows ADD CONSTRAINT odd CHECK ifNull(power_mw, 0) != 424242"
ROWS = ("readings", "rated_usage", "cdrs", "dead_letters")


@pytest.fixture
def refusing(ready: Settings, tmp_path: Path) -> Iterator[tuple[Settings, Store]]:
    settings = prepared(ready)
    open_network(settings, tmp_path)
    with Store(settings) as store:
        store.command(CHECK)
        yield settings, store


def with_odd() -> Iterator[tuple[str, dict[str, Any]]]:
    """An hour at 11 kW; in the middle one more reading, of a power that the table refuses."""
    *first, third, fourth, fifth, last = charging("BREMEN-1", "4711")
    yield from (*first, third, message("BREMEN-1", "4711", 35, 106_400, power_w=ODD_W), fourth, fifth, last)


def shown(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row that counts, whoever wrote it."""
    return {
        view: [tuple(row.values()) for row in store.rows(f"SELECT * EXCEPT claim FROM {view} ORDER BY ALL")]
        for view in ROWS
    }


def recomputed(settings: Settings) -> list[bool]:
    """Of each batch, whether the log gives its checksum again."""
    doors = RealDoors.of_topic(settings)
    try:
        again = Recomputation(doors)
        return [one.holds for partition in range(doors.partitions) for one in again.of(partition)]
    finally:
        doors.close()


def test_a_refused_reading_is_a_dead_letter_and_its_neighbours_are_billed(refusing: tuple[Settings, Store]) -> None:
    # given a session with a reading that the table refuses, and one of another charge point
    settings, store = refusing
    send(settings, [*with_odd(), *charging("BREMEN-2", "4712")])
    # when a worker meets it, then it drops the batch, and the next one rates all but that record
    with pytest.raises(RefusedRowsError, match="refuses rows of 1 records alone"):
        rate(settings)
    rate(settings, drain_s=2.0)
    cdrs = store.rows("SELECT transaction_id, energy_mwh FROM cdrs ORDER BY transaction_id")
    assert [tuple(row.values()) for row in cdrs] == [("4711", 11_000_000), ("4712", 11_000_000)]
    [letter] = store.rows("SELECT reason, detail, raw, offset, partition FROM dead_letters")
    assert letter["reason"] == "refused_by_store" and "`odd`" in letter["detail"] and "469" in letter["detail"]
    assert b"424.242" in str(letter["raw"]).encode()
    assert store.scalar("SELECT sum(dead_lettered) FROM markers") == 1
    assert [check.name for check in verify(store) if check.state == BROKEN] == []
    # and a worker that starts from nothing, and the recomputation, come to the same rows
    before = shown(store)
    store.command("TRUNCATE TABLE state_rows")
    send(settings, charging("BREMEN-3", "4713"))
    rate(settings, drain_s=2.0)
    after = shown(store)
    assert all(set(before[view]) <= set(after[view]) for view in ROWS)
    assert after["dead_letters"] == before["dead_letters"]
    store.command("TRUNCATE TABLE state_rows")
    holds = recomputed(settings)
    assert holds and all(holds)

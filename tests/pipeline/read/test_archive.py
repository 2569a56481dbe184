"""The log's records kept in the store: all of them, each once, and good for rating every batch again without Kafka."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pipeline.archive import Archive, KeptDoors
from pipeline.clickhouse import Store
from pipeline.commands.archive import command as archive
from pipeline.commands.verify import command as verify
from pipeline.commands.verify import recomputed
from pipeline.errors import DocumentError, IntegrityError, RetentionGapError
from pipeline.kafka import Admin, Reader
from pipeline.rate.doors import RealDoors
from pipeline.rate.records import by_partition
from pipeline.read.checks import BROKEN, OK, WARNING
from pipeline.read.verify import verify as checks
from pipeline.settings import Settings
from pipeline.topics import READINGS
from tests.pipeline.read.conftest import runner
from tests.pipeline.read.test_verify import change, copied

NOWHERE = "127.0.0.1:1"  # no Kafka listens there


@pytest.fixture
def kept(rated: Settings) -> Iterator[tuple[Settings, Store]]:
    """The rated network in a database of this test's own, its records archived there by a group of its own."""
    with copied(rated) as store:
        settings = replace(rated, clickhouse_database=store.database, group_id=store.database)
        result = runner(settings)(archive, "--drain", "0.5")
        assert result.exit_code == 0, result.output
        yield settings, store


def ends(settings: Settings) -> int:
    return sum(Admin(settings).end_offsets(READINGS).values())


def test_every_record_is_kept_as_kafka_has_it(kept: tuple[Settings, Store]) -> None:
    settings, store = kept
    count = ends(settings)
    assert store.scalar("SELECT count() FROM record_rows") == count > 0
    partitions = range(Admin(settings).partition_count(READINGS))
    with Reader(settings, READINGS) as reader, KeptDoors(settings).tape() as tape:
        for partition in partitions:
            end = Admin(settings).end_offsets(READINGS)[partition]
            if not end:
                continue
            reader.assign({partition: 0})
            tape.assign({partition: 0})
            held = by_partition(tape.consume(10_000, 0.0))[partition]
            told = by_partition(reader.consume(end, 20.0))[partition]
            assert (held.values, held.keys, held.content_types) == (told.values, told.keys, told.content_types)
            assert held.offsets.tolist() == told.offsets.tolist()
            assert held.times_ms is not None and told.times_ms is not None
            assert held.times_ms.tolist() == told.times_ms.tolist()


def test_batches_are_rated_again_from_it_while_there_is_no_kafka(kept: tuple[Settings, Store]) -> None:
    settings, _ = kept
    result = runner(replace(settings, kafka_bootstrap=NOWHERE))(verify, "--recompute", "--kept", "--json")
    assert result.exit_code == 0, result.output
    found = {one["name"]: one for one in json.loads(result.output)["checks"]}
    assert found["recomputed"]["state"] == OK and found["recomputed"]["compared"] > 0
    assert found["records_kept"]["compared"] == ends(settings)


def test_other_bytes_give_another_checksum(kept: tuple[Settings, Store]) -> None:
    settings, store = kept
    change(store, "ALTER TABLE record_rows UPDATE raw = replaceOne(raw, '4711', '4719') WHERE raw LIKE '%4711%'")
    told = recomputed(KeptDoors(settings), 0, None)
    assert told.state == BROKEN
    assert recomputed(RealDoors.of_topic(settings), 0, None).state == OK


def test_copied_again_a_record_is_one_row(kept: tuple[Settings, Store]) -> None:
    settings, store = kept
    result = runner(settings)(archive, "--again", "--drain", "0.5")
    assert f"{ends(settings)} records copied" in result.output
    assert store.scalar("SELECT count() FROM record_rows FINAL") == ends(settings)
    assert "0 records copied" in runner(settings)(archive, "--drain", "0.5").output


def test_what_the_store_lost_is_missed_named_and_made_up_for(kept: tuple[Settings, Store]) -> None:
    settings, store = kept
    partition = store.scalar("SELECT partition FROM record_rows GROUP BY partition ORDER BY count() DESC LIMIT 1")
    change(store, f"DELETE FROM record_rows WHERE partition = {partition} AND offset IN (2, 3)")
    [told] = [one for one in checks(store) if one.name == "records_kept"]
    assert told.state == BROKEN and told.places[0]["partition"] == partition and told.places[0]["gaps"] == [(2, 3)]
    with pytest.raises(RetentionGapError, match="can't be rated again"):
        recomputed(KeptDoors(settings), 0, partition)
    runner(settings)(archive, "--again", "--drain", "0.5")
    assert recomputed(KeptDoors(settings), 0, None).state == OK


def test_a_tail_that_the_store_lost_is_copied_again_by_itself(kept: tuple[Settings, Store]) -> None:
    settings, store = kept
    change(store, "DELETE FROM record_rows WHERE offset >= 4")
    lost = ends(settings) - store.scalar("SELECT count() FROM record_rows")
    assert f"{lost} records copied" in runner(settings)(archive, "--drain", "0.5").output
    assert store.scalar("SELECT count() FROM record_rows FINAL") == ends(settings)


def test_batches_that_end_after_what_is_kept_are_counted_and_the_others_rated(kept: tuple[Settings, Store]) -> None:
    settings, store = kept
    whole = recomputed(KeptDoors(settings), 0, None)
    partition = store.scalar("SELECT partition FROM markers GROUP BY partition ORDER BY max(last_offset) DESC LIMIT 1")
    change(store, f"DELETE FROM record_rows WHERE partition = {partition} AND offset >= 4")
    beyond = store.scalar(f"SELECT count() FROM markers WHERE partition = {partition} AND last_offset >= 4")
    told = recomputed(KeptDoors(settings), 0, None)
    assert told.state == WARNING and f"{beyond} more end after what is kept" in told.text
    assert 0 < told.compared == whole.compared - beyond
    change(store, f"DELETE FROM record_rows WHERE partition = {partition}")
    assert f"{beyond} more" in recomputed(KeptDoors(settings), 0, partition).text


def test_where_nothing_is_kept_it_says_so(rated: Settings) -> None:
    with copied(rated) as store:
        settings = replace(rated, clickhouse_database=store.database)
        with pytest.raises(DocumentError, match="there are no kept records"):
            KeptDoors(settings)
        [told] = [one for one in checks(store) if one.name == "records_kept"]
        assert told.state == OK and "no records are kept" in told.text


def test_another_log_than_those_kept_is_refused(kept: tuple[Settings, Store]) -> None:
    settings, _ = kept
    with pytest.raises(DocumentError, match="no records are kept, only of"):
        KeptDoors(settings, 7)
    result = runner(settings)(verify, "--recompute", "--kept", "--log", "what")
    assert isinstance(result.exception, DocumentError)
    assert runner(settings)(verify, "--kept").exit_code == 2
    named = f"{Admin(settings).log_id(READINGS):016x}"
    assert runner(settings)(verify, "--recompute", "--kept", "--log", named).exit_code == 0


def test_rows_that_the_store_does_not_show_are_not_taken_for_kept(rated: Settings) -> None:
    with copied(rated) as store:
        settings = replace(rated, clickhouse_database=store.database, group_id=store.database)
        store.command("CREATE TABLE few AS record_rows ENGINE = ReplacingMergeTree ORDER BY (log_id, partition)")
        store.command("EXCHANGE TABLES few AND record_rows")
        with Archive(settings) as one, pytest.raises(IntegrityError, match="copied again"):
            while True:
                one.step()

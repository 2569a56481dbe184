from collections.abc import Iterator
from dataclasses import replace

import pytest

from pipeline.clickhouse import Store
from pipeline.commands.init import prepare
from pipeline.errors import SchemaError, TopicError
from pipeline.kafka import Admin
from pipeline.migrations import Migration, inspect, migrate, on_cluster, shipped
from pipeline.settings import Settings
from pipeline.topics import TOPICS

ONE = Migration(
    1, "one", "-- first; not a statement;\nCREATE TABLE IF NOT EXISTS one (a UInt8) ENGINE = MergeTree ORDER BY a;\n"
)
TWO = Migration(2, "two", "CREATE VIEW IF NOT EXISTS two AS SELECT a FROM one;\n")


@pytest.fixture
def store(empty: Settings) -> Iterator[Store]:
    with Store(empty) as opened:
        yield opened


def test_the_shipped_migrations_run_once_and_every_view_answers(store: Store) -> None:
    assert migrate(store) == [f"{m.number:04}_{m.name}" for m in shipped()]
    assert migrate(store) == []
    views = store.rows("SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'")
    assert len(views) >= 9
    for view in views:
        assert store.rows(f"SELECT * FROM {view['name']} LIMIT 1") is not None


def test_only_what_is_new_runs(store: Store) -> None:
    assert migrate(store, migrations=[ONE]) == ["0001_one"]
    assert [m.name for m in inspect(store, [ONE, TWO]).pending] == ["two"]
    assert migrate(store, migrations=[ONE, TWO]) == ["0002_two"]
    assert inspect(store, [ONE, TWO]).applied == [1, 2]


def test_a_file_that_changed_after_it_ran_is_refused(store: Store) -> None:
    migrate(store, migrations=[ONE])
    changed = replace(ONE, sql=ONE.sql + "\n")
    with pytest.raises(SchemaError, match=r"0001_one\.sql was changed after it ran .* new, higher number"):
        migrate(store, migrations=[changed, TWO])


def test_a_newer_schema_than_the_program_knows_is_refused(store: Store) -> None:
    migrate(store, migrations=[ONE, TWO])
    with pytest.raises(SchemaError, match=r"newer than this program knows .* never go backwards"):
        migrate(store, migrations=[ONE])


def test_a_migration_that_died_half_way_is_finished_by_the_next_run(store: Store) -> None:
    store.command(ONE.statements()[0])
    assert migrate(store, migrations=[ONE, TWO]) == ["0001_one", "0002_two"]


def test_init_makes_topics_and_tables_and_is_safe_to_repeat(empty: Settings) -> None:
    made = prepare(empty)
    assert len(made["topics"]) == len(TOPICS) and made["migrations"]
    assert prepare(empty) == {"migrations": [], "topics": []}
    with pytest.raises(TopicError, match="has 4 partitions, settings ask for 5"):
        Admin(replace(empty, partitions=5)).create_topics(TOPICS, 5)


def test_on_a_cluster_a_table_is_a_replicated_part_and_a_distributed_whole() -> None:
    statement = (
        "CREATE TABLE IF NOT EXISTS rows\n(\n    log_id UInt64,\n    claim UInt32\n)\n"
        "ENGINE = ReplacingMergeTree(claim)\nORDER BY log_id"
    )
    local, over = on_cluster(statement, "main")
    assert local == (
        "CREATE TABLE IF NOT EXISTS rows_local ON CLUSTER 'main'\n(\n    log_id UInt64,\n    claim UInt32\n)\n"
        "ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}', claim)\n"
        "ORDER BY log_id"
    )
    assert over == (
        "CREATE TABLE IF NOT EXISTS rows ON CLUSTER 'main' AS rows_local\n"
        "ENGINE = Distributed('main', currentDatabase(), rows_local, cityHash64(log_id, partition))"
    )


def test_the_shipped_files_for_a_cluster_are_valid_sql_with_nothing_left_single(store: Store) -> None:
    statements = [s for m in shipped() for s in m.statements("main")]
    assert len(statements) > len([s for m in shipped() for s in m.statements()])
    for statement in statements:
        assert "ON CLUSTER 'main'" in statement
        assert "ENGINE = MergeTree" not in statement and "ENGINE = ReplacingMergeTree" not in statement
        parsed = store.scalar("SELECT formatQueryOrNull({q:String})", {"q": statement})
        assert parsed is not None, statement


def test_on_a_cluster_an_index_is_made_where_the_parts_are() -> None:
    assert on_cluster("ALTER TABLE rows ADD INDEX by_token token TYPE bloom_filter GRANULARITY 1", "main") == [
        "ALTER TABLE rows_local ON CLUSTER 'main' ADD INDEX by_token token TYPE bloom_filter GRANULARITY 1"
    ]
    assert on_cluster("ALTER TABLE rows MATERIALIZE INDEX by_token", "main") == [
        "ALTER TABLE rows_local ON CLUSTER 'main' MATERIALIZE INDEX by_token"
    ]
    assert len(on_cluster("ALTER TABLE rows ADD COLUMN a UInt8", "main")) == 2

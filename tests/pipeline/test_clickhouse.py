import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from pipeline.clickhouse import Store, _options, whole
from pipeline.errors import StoreError, StoreRefusedError, StoreUnavailableError
from pipeline.settings import Settings


@pytest.fixture
def store(empty: Settings) -> Iterator[Store]:
    with Store(empty) as opened:
        yield opened


A_DISK_THAT_FAILS = (
    33, 40, 77, 87, 88, 107, 172, 204, 214, 226, 228, 246, 271, 294, 400, 424, 458, 531, 566, 586, 641,
)  # fmt: skip


@pytest.mark.parametrize("code", [159, 202, 241, 242, 243, 252, 285, 319, 999, *A_DISK_THAT_FAILS])
def test_what_passes_is_an_outage(store: Store, code: int) -> None:
    found = store._problem(DatabaseError(f"Code: {code}. DB::Exception: x", code=code), "inserting")
    assert isinstance(found, StoreUnavailableError) and "inserting" in found.message


@pytest.mark.parametrize("code", [6, 16, 27, 47, 53, 60, 62, 115, 117, 131, 349, 469])
def test_what_never_gets_better_is_a_refusal_with_its_code(store: Store, code: int) -> None:
    found = store._problem(DatabaseError(f"Code: {code}. DB::Exception: x", code=code), "inserting")
    assert isinstance(found, StoreRefusedError) and found.code == code


def test_a_part_that_cannot_be_read_is_an_outage(store: Store) -> None:
    store.command("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
    store.insert("t", pa.table({"id": pa.array(range(1000), pa.uint64())}))
    [data] = Path(store.scalar("SELECT path FROM system.parts WHERE database = currentDatabase()")).glob("*.bin")
    os.truncate(data, data.stat().st_size // 2)
    with pytest.raises(StoreUnavailableError, match="Cannot read all data"):
        store.scalar("SELECT sum(id) FROM t")


def test_statements_that_are_asked_together_are_answered_each_by_itself(store: Store) -> None:
    numbers = [store.ask("SELECT {n:UInt8} AS n", {"n": number}) for number in range(20)]
    refused = store.ask("SELECT nothing_of_this_name")
    assert [one.result() for one in numbers] == [[{"n": number}] for number in range(20)]
    with pytest.raises(StoreRefusedError, match="nothing_of_this_name"):
        refused.result()


def test_steps_side_by_side_are_all_over_when_one_of_them_raises(store: Store) -> None:
    # given three tables, one of which takes nothing
    for table in "abc":
        store.command(f"CREATE TABLE {table} (id UInt64) ENGINE = MergeTree ORDER BY id")
    store.command("ALTER TABLE a ADD CONSTRAINT none CHECK id < 0")
    rows = pa.table({"id": pa.array(range(200_000), pa.uint64())})
    # when all are given rows, then what is raised is the refusal, and by then the others have theirs
    with pytest.raises(StoreRefusedError, match="none"):
        store.each([partial(store.insert, table, rows) for table in "abc"])
    assert [store.scalar(f"SELECT count() FROM {table}") for table in "abc"] == [0, 200_000, 200_000]
    # and answers are in the order of the steps
    assert store.each([partial(store.insert, "b", rows.slice(0, count)) for count in (3, 1, 2)]) == [3, 1, 2]


def test_a_short_answer_is_that_of_the_usual_way(store: Store) -> None:
    sql = (
        "SELECT toUInt64(18446744073709551615) AS most, toInt64(-9223372036854775808) AS least, "
        "CAST(NULL, 'Nullable(Int64)') AS none, toLowCardinality('Säule \\'7\\' / \\n') AS text, "
        "['a', ''] AS texts, toUInt8(number) AS n FROM numbers({n:UInt8}) ORDER BY n"
    )
    for rows in (0, 1, 3):
        assert store.short(sql, {"n": rows}) == store.rows(sql, {"n": rows})
    with pytest.raises(StoreRefusedError, match="nothing_of_this_name"):
        store.short("SELECT nothing_of_this_name")


def test_an_answer_that_was_not_finished_is_told_from_one_that_was() -> None:
    told = b'{"meta":[{"name":"n","type":"UInt8"}],"data":[[1],[2]],"rows":2'
    assert whole(told + b"}") == [{"n": 1}, {"n": 2}]
    assert whole(told[:50]) is None
    assert whole(told + b',"exception":"Code: 241. DB::Exception: memory"}') is None


def test_too_many_partitions_in_one_insert_is_a_refusal_though_its_code_is_that_of_too_many_parts(store: Store) -> None:
    store.command("CREATE TABLE p (d Date) ENGINE = MergeTree PARTITION BY d ORDER BY d")
    days = pa.table({"d": pa.array(range(200), pa.int32()).cast(pa.date32())})
    with pytest.raises(StoreRefusedError) as caught:
        store.insert("p", days)
    assert caught.value.code == 252
    assert store.scalar("SELECT count() FROM p") == 0


def test_a_folder_that_cannot_be_made_is_an_outage_though_its_code_is_that_of_any_library_error(store: Store) -> None:
    said = "Code: 1001. DB::Exception: std::__1::filesystem::filesystem_error: filesystem error: in create_directories"
    full = store._problem(DatabaseError(f"{said}: No space left on device", code=1001), "inserting")
    other = store._problem(DatabaseError("Code: 1001. DB::Exception: std::out_of_range", code=1001), "inserting")
    assert isinstance(full, StoreUnavailableError) and isinstance(other, StoreRefusedError)


def test_a_connection_that_broke_is_an_outage(store: Store) -> None:
    for error in (OperationalError("x"), ConnectionResetError(), TimeoutError()):
        assert isinstance(store._problem(error, "asking"), StoreUnavailableError)


def test_tls_credentials_and_cluster_reach_the_client() -> None:
    settings = replace(
        Settings(),
        clickhouse_host="ch.internal",
        clickhouse_port=8443,
        clickhouse_user="u",
        clickhouse_password="p",  # noqa: S106
        clickhouse_secure=True,
        clickhouse_ca_file="/ca.pem",
        clickhouse_cluster="main",
        clickhouse_settings={"insert_quorum": "3"},
    )
    found = _options(settings, None, "billing")
    assert (found["host"], found["port"], found["secure"], found["verify"]) == ("ch.internal", 8443, True, True)
    assert (found["username"], found["password"], found["ca_cert"]) == ("u", "p", "/ca.pem")
    assert (found["database"], found["compress"], found["query_retries"]) == ("billing", True, 0)
    assert found["settings"]["select_sequential_consistency"] == "1" and found["settings"]["insert_quorum"] == "3"
    assert _options(Settings(), None, "x")["settings"] == {} and not _options(Settings(), None, "x")["compress"]


def test_columns_of_the_ledger_go_through_arrow_and_back(store: Store) -> None:
    store.command(
        "CREATE TABLE t (id UInt64, big Int64, name LowCardinality(String), at DateTime64(3, 'UTC'), "
        "kind Enum8('a' = 1, 'b' = 2), may Nullable(Int64), raw String) ENGINE = MergeTree ORDER BY id"
    )
    rows = pa.table(
        {
            "id": pa.array([0, (1 << 64) - 1], pa.uint64()),
            "big": pa.array([-(1 << 63), (1 << 63) - 1], pa.int64()),
            "name": pa.array(["é", "é"]).dictionary_encode(),
            "at": pa.array([-1, 4_000_000_000_123], pa.timestamp("ms", "UTC")),
            "kind": pa.array([1, 2], pa.int8()),
            "may": pa.array([None, -5], pa.int64()),
            "raw": pa.array([b"\xff\x00", b""], pa.binary()),
        }
    )
    assert store.insert("t", rows) == 2
    first, last = store.rows("SELECT id, big, name, at, kind, may, hex(raw) AS raw FROM t ORDER BY id")
    assert first == {"id": 0, "big": -(1 << 63), "name": "é", "at": datetime(1969, 12, 31, 23, 59, 59, 999000, UTC),
                     "kind": "a", "may": None, "raw": "FF00"}  # fmt: skip
    assert (last["id"], last["big"], last["kind"], last["may"]) == ((1 << 64) - 1, (1 << 63) - 1, "b", -5)
    table = store.arrow("SELECT * FROM t ORDER BY id")
    assert table.column("id").to_pylist() == [0, (1 << 64) - 1]
    assert table.column("raw").cast(pa.binary())[0].as_py() == b"\xff\x00"


def test_nothing_to_insert_is_no_call(store: Store) -> None:
    assert store.insert("no_such_table", pa.table({"a": pa.array([], pa.int64())})) == 0


def test_an_answer_of_no_rows(store: Store) -> None:
    assert store.scalar("SELECT 1 WHERE 0") is None
    assert store.rows("SELECT 1 AS x WHERE 0") == []
    assert store.arrow("SELECT 1 AS x WHERE 0").schema.names == ["x"]


def test_a_dead_connection_says_where_it_went(empty: Settings) -> None:
    with pytest.raises(StoreError, match=r"ClickHouse at 127.0.0.1:1 does not answer .*refused"):
        Store(replace(empty, clickhouse_port=1))

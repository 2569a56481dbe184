"""ClickHouse's HTTP interface as the embedded store serves it, held through clickhouse-connect and our own door."""

import gzip
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import clickhouse_connect
import lz4.frame
import pyarrow as pa
import pytest
import zstandard
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from pipeline.clickhouse import Store
from pipeline.embedded.processes import free_port
from pipeline.errors import StoreRefusedError, StoreUnavailableError
from pipeline.settings import Settings

ROWS = 1000


def connect(settings: Settings, **options: Any) -> Client:
    return clickhouse_connect.get_client(
        host=settings.clickhouse_host, port=settings.clickhouse_port, autogenerate_session_id=False, **options
    )


@pytest.fixture
def client(store_server: Settings) -> Iterator[Client]:
    found = connect(store_server)
    found.command("CREATE OR REPLACE TABLE t (a UInt64, s String, n Nullable(Int64)) ENGINE = MergeTree ORDER BY a")
    yield found
    found.close()


@pytest.fixture
def store(store_server: Settings, client: Client) -> Iterator[Store]:
    with Store(store_server) as found:
        yield found


def table(rows: int = ROWS) -> pa.Table:
    return pa.table(
        {
            "a": pa.array(range(rows), pa.uint64()),
            "s": pa.array([f"é{i}" for i in range(rows)]),
            "n": pa.array([None if i % 2 else -i for i in range(rows)], pa.int64()),
        }
    )


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip", True])
def test_the_client_inserts_and_reads_in_every_way_and_compression(
    client: Client, store_server: Settings, compress: Any
) -> None:
    own = connect(store_server, compress=compress)
    own.insert("t", [[1, "x", None], [2, "y" * 100_000, -5]], column_names=["a", "s", "n"])
    assert own.insert_arrow("t", table()).written_rows == ROWS
    assert own.query("SELECT count(), sum(length(s)) > 100000, sum(n) FROM t").result_rows == [(ROWS + 2, 1, -249_505)]
    assert own.query_arrow("SELECT a FROM t ORDER BY a LIMIT 3").column("a").to_pylist() == [0, 1, 1]
    assert len(own.query("SELECT * FROM numbers(200000)").result_rows) == 200_000
    own.close()


def test_parameters_are_bound_not_pasted(client: Client) -> None:
    odd = 'it\'s \\ "a" \n\ttab `b` {x:String}; DROP TABLE t'
    found = client.query("SELECT {s:String}, {n:Int64}, {a:Array(UInt16)}", parameters={"s": odd, "n": -7, "a": [1, 2]})
    assert found.result_rows == [(odd, -7, [1, 2])]


def test_an_empty_result_has_its_columns(client: Client) -> None:
    found = client.query("SELECT a, s AS text FROM t WHERE a = {a:UInt64} -- none", parameters={"a": 5})
    assert (found.column_names, found.result_rows) == (("a", "text"), [])
    assert client.query_arrow("SELECT a, n FROM t").schema.names == ["a", "n"]


def test_settings_hold_for_one_statement_only(client: Client) -> None:
    sql = "SELECT getSetting('max_block_size')"
    usual = client.command(sql)
    assert client.query(sql, settings={"max_block_size": 77}).result_rows == [(77,)]
    assert client.command(sql, settings={"max_block_size": 78}) == 78
    client.command("CREATE TABLE IF NOT EXISTS u (a Int8) ENGINE = Memory", settings={"max_block_size": 79})
    assert client.query(f"{sql} SETTINGS max_threads = 1", settings={"max_block_size": 80}).result_rows == [(80,)]
    assert [client.command(sql) for _ in range(10)] == [usual] * 10


@pytest.mark.parametrize(
    ("sql", "code"),
    [("SELECT nope", 47), ("SELECT * FROM nope", 60), ("SELEC 1", 62), ("SELECT 1 SETTINGS no_such_setting = 1", 115),
     ("CREATE TABLE x (a Int8) ENGINE = Nope", 56), ("SELECT * FROM no_such_database.t", 81)],
)  # fmt: skip
def test_errors_have_clickhouses_codes(client: Client, sql: str, code: int) -> None:
    with pytest.raises(DatabaseError, match=f"Code: {code}\\. DB::Exception") as caught:
        client.query(sql)
    assert caught.value.code == code


def test_an_insert_that_fails_leaves_nothing_and_the_connection_works_on(client: Client, store: Store) -> None:
    good = table()
    for bad, code in (
        (good.rename_columns(["a", "s", "zzz"]), 16),
        (good.set_column(0, "a", pa.array(["x"] * ROWS)), 6),
    ):
        with pytest.raises(StoreRefusedError) as caught:
            store.insert("t", bad)
        assert caught.value.code == code
    assert store.scalar("SELECT count() FROM t") == 0
    assert store.insert("t", good) == ROWS
    assert store.scalar("SELECT count() FROM t") == ROWS


def test_a_torn_body_is_refused_whole(store_server: Settings, client: Client) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table().schema) as writer:
        writer.write_table(table())
    body = sink.getvalue().to_pybytes()
    status, said = post(store_server, "/?query=INSERT+INTO+t+FORMAT+ArrowStream", body[: len(body) // 2])
    assert status != 200 and said.startswith(b"Code: ")
    assert client.command("SELECT count() FROM t") == 0


def post(
    settings: Settings, path: str, body: bytes | Iterator[bytes], headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    link = http.client.HTTPConnection(settings.clickhouse_host, settings.clickhouse_port, timeout=30)
    link.request("POST", path, body, headers or {}, encode_chunked=not isinstance(body, bytes))
    answer = link.getresponse()
    found = answer.status, answer.read()
    link.close()
    return found


def test_plain_http_as_curl_sends_it(store_server: Settings, client: Client) -> None:
    assert post(store_server, "/", b"SELECT 1 + 1") == (200, b"2\n")
    assert post(store_server, "/?default_format=JSONEachRow", b"SELECT 1 AS x")[1] == b'{"x":1}\n'
    assert post(store_server, "/?param_x=5", b"SELECT {x:UInt8} FORMAT CSV")[1] == b"5\n"
    assert post(store_server, "/?query=INSERT+INTO+t+(a,s)+FORMAT+CSV", b"1,x\n2,y\n")[0] == 200
    assert post(store_server, "/", b"INSERT INTO t (a, s) FORMAT JSONEachRow\n" + b'{"a":3,"s":"z"}')[0] == 200
    assert post(store_server, "/", b"INSERT INTO t (a, s) VALUES (4, 'FORMAT CSV')")[0] == 200
    assert (
        post(store_server, "/", b"SELECT groupArray(s) FROM (SELECT s FROM t ORDER BY a)")[1]
        == b"['x','y','z','FORMAT CSV']\n"
    )


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("lz4", lz4.frame.compress), ("zstd", lambda b: zstandard.ZstdCompressor().compress(b))],
)
def test_compressed_and_chunked_bodies(store_server: Settings, client: Client, coding: str, pack: Any) -> None:
    packed = pack(b"".join(b"%d,s\n" % i for i in range(5000)))
    chunks = (packed[i : i + 1000] for i in range(0, len(packed), 1000))
    headers = {"Content-Encoding": coding, "Transfer-Encoding": "chunked"}
    assert post(store_server, "/?query=INSERT+INTO+t+(a,s)+FORMAT+CSV", chunks, headers)[0] == 200
    assert client.command("SELECT count() FROM t") == 5000
    assert post(store_server, "/?query=INSERT+INTO+t+FORMAT+CSV", b"not packed", {"Content-Encoding": coding})[0] == 500


def test_many_threads_at_once_get_their_own_answers(store_server: Settings, client: Client) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        with Store(store_server) as own:
            for i in range(20):
                own.insert("t", pa.table({"a": pa.array([number * 1000 + i], pa.uint64()), "s": ["x"]}))
                got = own.scalar("SELECT {n:UInt32} + count() * 0 FROM t", {"n": number})
                if got != number:
                    wrong.append((number, got))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and client.command("SELECT count() FROM t") == 240


def test_the_database_of_one_request_is_not_that_of_the_next(store_server: Settings, client: Client) -> None:
    client.command("CREATE DATABASE IF NOT EXISTS other")
    other = connect(store_server, database="other")
    answers = [c.command("SELECT currentDatabase()") for _ in range(10) for c in (client, other)]
    assert answers == ["default", "other"] * 10
    other.close()
    with pytest.raises(StoreRefusedError) as caught:
        Store(replace(store_server, clickhouse_database="nowhere"))
    assert caught.value.code == 81


def test_nobody_there_is_an_outage(store_server: Settings) -> None:
    away = replace(store_server, clickhouse_port=free_port(38123))
    with pytest.raises(StoreUnavailableError, match=r"does not answer .*Connection refused.*wattrate up"):
        Store(away)


def test_an_answer_that_takes_too_long_is_an_outage(store_server: Settings) -> None:
    with (
        Store(store_server, timeout_s=1) as slow,
        pytest.raises(StoreUnavailableError, match=r"does not answer .*timed out"),
    ):
        slow.scalar("SELECT sleep(3)")


def test_a_hundred_thousand_rows_a_call_go_in_quickly_and_a_point_query_answers_at_once(store: Store) -> None:
    """A floor that only a broken path misses; the figures are in docs and come from benchmarks."""
    rows = table(100_000)
    started = time.perf_counter()
    for _ in range(5):
        store.insert("t", rows)
    per_second = 500_000 / (time.perf_counter() - started)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        store.scalar("SELECT s FROM t WHERE a = 77 LIMIT 1")
        times.append(time.perf_counter() - started)
    assert per_second > 200_000 and sorted(times)[10] < 0.1, (per_second, times)

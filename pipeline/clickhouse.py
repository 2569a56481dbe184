"""The one door to ClickHouse: Arrow in, Arrow or rows out, and every failure told as an outage or a refusal.

One Store per thread; what does not wait for each other it asks side by side itself (`ask`). Nothing is retried here:
a retry that nobody planned is how rows get in twice.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, Self, TypeVar

import clickhouse_connect
import msgspec
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from pipeline.errors import StoreError, StoreRefusedError, StoreUnavailableError
from pipeline.settings import Settings

Answer = TypeVar("Answer")

# What the server may say today and not tomorrow: no space, no quorum, too busy, read-only, going down, a broken part.
_OUTAGE_CODES: Final = frozenset(
    (
        3,  # unexpected end of connection
        33,  # can't read all of a file: a part that was not written whole, put aside when the store opens anew
        40,  # a checksum does not match: as above
        74,  # can't read from file
        75,  # can't write to file
        76,  # can't open file
        77,  # can't close file
        87,  # can't seek in file
        88,  # can't shorten file
        95,  # can't read from socket
        96,  # can't write to socket
        107,  # a file is not there
        159,  # time-out
        164,  # read-only user or server
        172,  # can't make folder
        173,  # can't allocate memory
        198,  # DNS
        202,  # too many simultaneous queries
        204,  # can't fsync
        209,  # socket time-out
        210,  # network
        214,  # can't ask a disk for its room
        225,  # no ZooKeeper
        226,  # a part lacks a file
        228,  # a part's file has another size
        236,  # aborted
        241,  # memory limit
        242,  # table is read-only
        243,  # not enough space
        246,  # a part is corrupt
        252,  # too many parts
        271,  # a part can't be unpacked
        279,  # all connections failed
        285,  # too few live replicas
        286,  # quorum is not satisfied
        289,  # replica is not in quorum
        294,  # can't write to file
        319,  # unknown status of insert
        394,  # query was cancelled
        400,  # can't ask a file for its size
        424,  # can't link a file
        425,  # system error
        439,  # can't schedule a task
        458,  # can't delete a file
        531,  # can't ask an open file for its size
        566,  # can't delete a folder
        586,  # can't make file
        641,  # can't append to file
        999,  # Keeper
    )
)
_STD_EXCEPTION: Final = 1001
_SIDE_BY_SIDE: Final = 4  # statements of one Store at a time
_DISK: Final = "filesystem error"  # a folder can't be made on a full or read-only disk
# One row's look-up: threads beside the first cost more than they save, and numbers are to stay numbers.
_SHORT: Final = {"max_threads": "1", "output_format_json_quote_64bit_integers": "0"}
_STREAM: Final = pa.ipc.IpcWriteOptions(compression="lz4")
_TOO_MANY_PARTITIONS: Final = "Too many partitions for single INSERT block"  # Code 252 too, but it never gets better


class _Column(msgspec.Struct):
    name: str


class _Answer(msgspec.Struct):
    """JSONCompact; `exception` is what a server adds that failed after it had begun to answer."""

    meta: list[_Column]
    data: list[list[Any]]
    exception: str = ""


_ANSWERS: Final = msgspec.json.Decoder(_Answer)


class Store:
    """A connection to the ledger's database."""

    def __init__(self, settings: Settings, *, timeout_s: float | None = None, database: str | None = None) -> None:
        """Connect. Raises StoreUnavailableError when nobody answers, StoreRefusedError for wrong credentials."""
        self.where = f"ClickHouse at {settings.clickhouse_host}:{settings.clickhouse_port}"
        self.database = settings.clickhouse_database if database is None else database
        self.cluster = settings.clickhouse_cluster
        _quiet()
        try:
            self._client: Client = clickhouse_connect.get_client(**_options(settings, timeout_s, self.database))
        except (ClickHouseError, OSError) as error:
            raise self._problem(error, "connecting") from error
        self._beside = ThreadPoolExecutor(_SIDE_BY_SIDE, "store")  # starts a thread where one is needed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection, once what was asked is answered."""
        self._beside.shutdown(cancel_futures=True)
        self._client.close()

    def insert(self, table: str, rows: pa.Table, settings: Mapping[str, str] | None = None) -> int:
        """Insert an Arrow table, columns by name; number of rows given. An acknowledgement is not proof: read back."""
        if not rows.num_rows:
            return 0
        given = {"optimize_on_insert": "0", **(settings or {})}  # sorting out repeats is FINAL's work, not the insert's
        once: Any = arrow_stream(rows)  # bytes the library would send a second time by itself, a view it can't
        try:
            self._client.raw_insert(table, rows.column_names, once, given, "ArrowStream")
        except (ClickHouseError, OSError) as error:
            raise self._problem(error, f"inserting into {table}") from error
        return int(rows.num_rows)

    def arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Result of a SELECT as an Arrow table. `{name:Type}` in the SQL takes its value from `parameters`."""
        try:
            return self._client.query_arrow(sql, parameters=dict(parameters or {}), use_strings=True)
        except pa.ArrowInvalid as error:
            raise self._cut("asking") from error
        except (ClickHouseError, OSError) as error:
            raise self._problem(error, "asking") from error

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Result of a SELECT as one dict a row: for small answers."""
        try:
            found = self._client.query(sql, parameters=dict(parameters or {}))
        except (ClickHouseError, OSError) as error:
            raise self._problem(error, "asking") from error
        if not found.column_names:  # even an answer without rows has columns: this one was cut inside its headers
            raise self._cut("asking")
        return list(found.named_results())

    def short(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """`rows` of numbers and texts, for look-ups: as JSON, which takes half the client's time for a wide answer."""
        try:
            told = self._client.raw_query(sql, dict(parameters or {}), dict(_SHORT), "JSONCompact")
        except (ClickHouseError, OSError) as error:
            raise self._problem(error, "asking") from error
        found = whole(told)
        if found is None:
            raise self._cut("asking")
        return found

    def ask(self, sql: str, parameters: Mapping[str, Any] | None = None) -> "Future[list[dict[str, Any]]]":
        """`short`, asked now and read later with `result()`: for SELECTs that do not wait for each other."""
        return self._beside.submit(self.short, sql, parameters)

    def each(self, steps: Sequence[Callable[[], Answer]]) -> list[Answer]:
        """What steps that do not wait for each other come to, side by side; raises what the first of them raised.

        All are over by then: none goes on behind the back of who tries again.
        """
        under_way = [self._beside.submit(step) for step in steps]
        wait(under_way)
        return [step.result() for step in under_way]

    def ask_arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> "Future[pa.Table]":
        """`arrow`, asked now and read later."""
        return self._beside.submit(self.arrow, sql, parameters)

    def scalar(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """The first column of the first row; None when there is none."""
        found = self.rows(sql, parameters)
        return next(iter(found[0].values())) if found else None

    def command(self, sql: str, settings: Mapping[str, str] | None = None) -> None:
        """Run a statement without a result."""
        try:
            self._client.command(sql, settings=dict(settings or {}))
        except (ClickHouseError, OSError) as error:
            raise self._problem(error, "running a statement") from error

    def version(self) -> str:
        """Version of the server."""
        return str(self._client.server_version)

    def ping(self) -> None:
        """Raise StoreUnavailableError unless a statement runs now."""
        self.rows("SELECT 1")

    def _cut(self, doing: str) -> StoreUnavailableError:
        return StoreUnavailableError(f"{self.where} did not finish its answer ({doing})")

    def _problem(self, error: Exception, doing: str) -> StoreError:
        code = error.code if isinstance(error, DatabaseError) and error.code else 0
        text = _one_line(f"{error}: {error.__cause__}" if error.__cause__ and not code else str(error))
        if (code in _OUTAGE_CODES and _TOO_MANY_PARTITIONS not in text) or (code == _STD_EXCEPTION and _DISK in text):
            return StoreUnavailableError(f"{self.where} can't work now ({doing}: {text})")
        if isinstance(error, OSError) or (isinstance(error, OperationalError) and not code):
            return StoreUnavailableError(
                f"{self.where} does not answer ({doing}: {text}); is it running? "
                "`wattrate up` starts an embedded store, WATTRATE_CLICKHOUSE_HOST and _PORT name another"
            )
        return StoreRefusedError(f"{self.where} refused ({doing}: {text})", code)


def arrow_stream(rows: pa.Table) -> memoryview:
    """Rows as they are inserted: in lz4, a ninth of the bytes for less CPU on both sides (`benchmarks.inserts`)."""
    body = pa.BufferOutputStream()
    with pa.ipc.new_stream(body, rows.schema, options=_STREAM) as writer:
        writer.write_table(rows)
    return memoryview(body.getvalue())


def whole(told: bytes) -> list[dict[str, Any]] | None:
    """The rows of an answer in JSONCompact; None where it was not finished."""
    try:
        answer = _ANSWERS.decode(told)
    except msgspec.DecodeError:
        return None
    names = [column.name for column in answer.meta]
    return None if answer.exception else [dict(zip(names, row, strict=True)) for row in answer.data]


def _options(settings: Settings, timeout_s: float | None, database: str) -> dict[str, Any]:
    local = settings.clickhouse_host in ("127.0.0.1", "localhost", "::1")
    options: dict[str, Any] = {
        "host": settings.clickhouse_host,
        "port": settings.clickhouse_port,
        "username": settings.clickhouse_user,
        "password": settings.clickhouse_password,
        "database": database,
        "secure": settings.clickhouse_secure,
        "verify": settings.clickhouse_verify,
        "ca_cert": settings.clickhouse_ca_file or None,
        "client_cert": settings.clickhouse_cert_file or None,
        "client_cert_key": settings.clickhouse_key_file or None,
        "connect_timeout": math.ceil(settings.clickhouse_connect_timeout_s),  # the library takes whole seconds
        "send_receive_timeout": math.ceil(timeout_s or settings.clickhouse_timeout_s),
        "compress": not local,
        "query_retries": 0,
        "autogenerate_session_id": False,
        "show_clickhouse_errors": "scrub",
        "client_name": "wattrate",
        "dedicated_pool": True,
        "tz_mode": "aware",
    }
    if settings.clickhouse_cluster:
        # What a batch wrote is read back at once, from any replica (design: durability).
        options["settings"] = {
            "insert_quorum": "auto",
            "insert_quorum_parallel": "0",
            "select_sequential_consistency": "1",
            "distributed_foreground_insert": "1",
        }
    options["settings"] = {**options.get("settings", {}), **settings.clickhouse_settings}
    return options


def _quiet() -> None:
    """The libraries log what we raise; once is enough."""
    for name in ("clickhouse_connect", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:600]

"""chDB, the ClickHouse engine in this process, behind one call: a statement with its settings and data in, bytes out.

Knows SQL only as far as it must: where a statement's FORMAT stands, and where its settings can be put. One process
may open a folder; connections of the pool run in parallel, one statement each.
"""

import importlib
import json
import os
import queue
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.errors import EmbeddedError

_CONNECTIONS_MAX: Final = 8
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_INSERT = re.compile(
    rb"\s*(INSERT\s+INTO\s+(?:TABLE\s+)?(?:`[^`]*`|[\w.]|\"[^\"]*\")+\s*(?:\((?:`[^`]*`|\"[^\"]*\"|[^)`\"])*\))?)"
    rb"(?:\s*SETTINGS\s+(.*?))?\s*\bFORMAT\s+(\w+)[ \t\f]*\r?\n?",
    re.IGNORECASE | re.DOTALL,
)
_TRAILING_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*\Z", re.IGNORECASE)
_READS = re.compile(
    rb"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*\(*\s*(SELECT|WITH|SHOW|DESC|DESCRIBE|EXISTS|EXPLAIN|CHECK)\b", re.I | re.S
)
_TAKES_SETTINGS = re.compile(rb"\s*(SELECT|WITH|INSERT)\b", re.IGNORECASE)
_CODE = re.compile(r"Code: (\d+)\.")


class EngineError(Exception):
    """What the engine said: `message` begins with `Code: N.` as ClickHouse's does."""

    def __init__(self, message: str) -> None:
        start = message.find("Code: ")
        self.message = message[max(start, 0) :].strip()
        found = _CODE.match(self.message)
        self.code = int(found.group(1)) if found else 1002
        super().__init__(self.message)


# Statements go before merges: on two cores two merges kept inserts waiting for 3 s, every 10 s.
_MERGES_YIELD: Final = {"os_threads_nice_value_merge_mutate": "19"}


@dataclass(frozen=True)
class Statement:
    """One request: SQL (with the data of an INSERT after it), parameters {name:Type}, settings, database, format."""

    sql: bytes
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    database: str = ""
    default_format: str = "TabSeparated"


@dataclass(frozen=True)
class Answer:
    """The result in `form` ("" when the statement gives none) and what ClickHouse calls its summary."""

    body: bytes
    form: str
    summary: Mapping[str, str]


class Engine:
    """The engine on one folder. `run` may be called from any thread."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Open it, with settings beside ours. Raises EmbeddedError: chDB is not installed, the folder does not open."""
        try:
            chdb: Any = importlib.import_module("chdb._chdb")  # optional: the `embedded` extra
        except ImportError as error:
            raise EmbeddedError("the embedded store is not installed: pip install 'wattrate[embedded]'") from error
        chdb.set_signal_handlers_enabled(False)
        options = "&".join(f"{name}={value}" for name, value in (_MERGES_YIELD | settings).items())
        self._connect: Callable[[], Any] = lambda: chdb.connect(f"{folder}?{options}")
        self._idle: queue.LifoQueue[_Connection] = queue.LifoQueue()
        self._made = 0
        try:
            self._idle.put(self._new())
        except RuntimeError as error:
            raise EmbeddedError(f"the embedded store in {folder} does not open: {error}") from error

    def run(self, statement: Statement) -> Answer:
        """Carry out one statement. Raises EngineError with the engine's own words."""
        with self._connection() as connection:
            try:
                return connection.run(statement)
            except RuntimeError as error:
                raise EngineError(str(error)) from error

    def close(self) -> None:
        """Close the folder, waiting for the statements that still run."""
        for _ in range(self._made):
            self._idle.get().close()
        self._made = 0

    def _new(self) -> "_Connection":
        self._made += 1
        return _Connection(self._connect())

    @contextmanager
    def _connection(self) -> Iterator["_Connection"]:
        connection = self._take()
        try:
            yield connection
        finally:
            self._idle.put(connection)

    def _take(self) -> "_Connection":
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._new() if self._made < _CONNECTIONS_MAX else self._idle.get()


class _Connection:
    """One handle of the engine: its current database, one statement at a time."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._database = "default"

    def close(self) -> None:
        self._handle.close()

    def run(self, statement: Statement) -> Answer:
        self._use(statement.database or "default")
        insert = _INSERT.match(statement.sql[: 1 << 16])
        if insert and insert.group(3).lower() != b"values":
            return self._insert(insert, statement)
        if not statement.settings:
            return self._query(statement.sql, statement)
        if _TAKES_SETTINGS.match(statement.sql) and not re.search(rb"\bSETTINGS\b|\bVALUES\b", statement.sql, re.I):
            return self._query(_with_settings(statement.sql, statement.settings), statement)
        return self._query_with_set(statement)

    def _use(self, database: str) -> None:
        if database != self._database:
            self._handle.query(f"USE `{database.replace('`', '')}`", "TabSeparated")
            self._database = database

    def _query(self, sql: bytes, statement: Statement) -> Answer:
        named = _TRAILING_FORMAT.search(sql, max(0, len(sql) - 200))
        form = named.group(1).decode() if named else statement.default_format
        result = self._handle.query(sql, form, params=dict(statement.parameters))
        reads = bool(_READS.match(sql))
        body = result.bytes() or (self._native_header(sql, named, statement) if form == "Native" and reads else b"")
        return Answer(body, form if named or reads else "", _summary(result))

    def _native_header(self, sql: bytes, named: re.Match[bytes] | None, statement: Statement) -> bytes:
        """Names and types of a result without rows, which chDB leaves out and ClickHouse sends."""
        inner = sql[: named.start()] if named else sql
        described = self._handle.query(b"DESCRIBE (" + inner + b"\n)", "JSONCompact", params=dict(statement.parameters))
        columns = [(str(row[0]).encode(), str(row[1]).encode()) for row in json.loads(described.bytes())["data"]]
        header = b"".join(_native_string(name) + _native_string(kind) for name, kind in columns)
        return _varint(len(columns)) + _varint(0) + header

    def _query_with_set(self, statement: Statement) -> Answer:
        """For statements that take no SETTINGS clause: set, run, set back, on this connection only."""
        try:
            self._handle.query(f"SET {_assignments(statement.settings)}", "TabSeparated")
            return self._query(statement.sql, statement)
        finally:
            for name in statement.settings:
                self._handle.query(f"SET {name} = DEFAULT", "TabSeparated")

    def _insert(self, insert: re.Match[bytes], statement: Statement) -> Answer:
        """Feed the bytes after FORMAT to the engine as a file in memory: no SQL parser over them, no disk.

        chDB's own streaming insert (send_insert) is not used: it acknowledges an insert whose commit failed, such as
        with a full disk (tried in 26.9: 1.4 million of 2.8 million acknowledged rows were there).
        """
        clauses = [insert.group(2).decode()] if insert.group(2) else []
        clauses += [_assignments(statement.settings)] if statement.settings else []
        settings = f" SETTINGS {', '.join(clauses)}" if clauses else ""
        with open(os.memfd_create("insert"), "wb") as file:  # noqa: PTH123 (a descriptor, not a path)
            file.write(memoryview(statement.sql)[insert.end() :])
            file.flush()
            source = f" FROM INFILE '/proc/self/fd/{file.fileno()}'{settings} FORMAT {insert.group(3).decode()}"
            result = self._handle.query(insert.group(1) + source.encode(), "TabSeparated")
        return Answer(b"", "", _summary(result))


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _native_string(text: bytes) -> bytes:
    return _varint(len(text)) + text


def _assignments(settings: Mapping[str, str]) -> str:
    for name in settings:
        if not _SETTING_NAME.match(name):
            raise EngineError(f"Code: 115. DB::Exception: Unknown setting {name!r}. (UNKNOWN_SETTING)")
    quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in settings.items()}
    return ", ".join(f"{name} = '{value}'" for name, value in quoted.items())


def _with_settings(sql: bytes, settings: Mapping[str, str]) -> bytes:
    """Put a SETTINGS clause where the grammar wants it: at the end, before FORMAT."""
    clause = f"\nSETTINGS {_assignments(settings)}\n".encode()
    named = _TRAILING_FORMAT.search(sql, max(0, len(sql) - 200))
    body, tail = (sql[: named.start()], sql[named.start() :]) if named else (sql.rstrip().rstrip(b";"), b"")
    return body + clause + tail


def _summary(result: Any) -> dict[str, str]:
    return {
        "read_rows": str(result.rows_read()),
        "read_bytes": str(result.bytes_read()),
        "written_rows": str(result.rows_written()),
        "written_bytes": str(result.bytes_written()),
        "result_rows": str(result.rows_read()),
        "elapsed_ns": str(int(result.elapsed() * 1e9)),
    }

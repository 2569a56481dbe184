"""Numbered SQL files become the schema, once each and in order; what ran is kept with its checksum in the store.

The same files serve a single server and a cluster. On a cluster each table T becomes T_local (Replicated…, ON CLUSTER)
with a Distributed table T over it, sharded so that the rows of one log partition stay on one shard: FINAL is local.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files

import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.errors import SchemaError

TABLE = "schema_migrations"
_NAME = re.compile(r"(\d{4})_(\w+)\.sql\Z")
_CREATE_TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)\n?(.*)\Z", re.DOTALL)
_CREATE_VIEW = re.compile(r"\A(CREATE (?:OR REPLACE VIEW|VIEW IF NOT EXISTS) \w+)")
_ALTER = re.compile(r"\A(ALTER TABLE \w+)")
# A Distributed table has no parts of its own.
_OF_PARTS = re.compile(r"\AALTER TABLE \w+\s+(?:ADD INDEX|ADD PROJECTION|DROP PROJECTION|MATERIALIZE|MODIFY SETTING)")
_ENGINE = re.compile(r"ENGINE = (\w*MergeTree)(?:\(([^)]*)\))?")
_LEDGER = f"""CREATE TABLE IF NOT EXISTS {TABLE}
(
    number     UInt16,
    name       String,
    checksum   String,
    applied_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY number
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"""


@dataclass(frozen=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file's text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def statements(self, cluster: str = "") -> list[str]:
        """The file's statements, for a single server or for the named cluster."""
        plain = [
            text for part in _without_comments(self.sql).split(";\n") if (text := part.strip().rstrip(";").strip())
        ]
        return [statement for text in plain for statement in (on_cluster(text, cluster) if cluster else [text])]


@dataclass(frozen=True)
class SchemaState:
    """What `inspect` found: numbers applied, and the migrations still to come."""

    applied: list[int]
    pending: list[Migration]


def shipped() -> list[Migration]:
    """The migrations that came with this program, in order. Raises SchemaError when their numbers have a gap."""
    found = [
        Migration(int(match.group(1)), match.group(2), entry.read_text("utf-8"))
        for entry in files("deploy").joinpath("clickhouse").iterdir()
        if (match := _NAME.match(entry.name))
    ]
    found.sort(key=lambda m: m.number)
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise SchemaError(f"migrations are not numbered 1, 2, 3, …: {', '.join(f'{m.number:04}' for m in found)}")
    return found


def inspect(store: Store, migrations: Sequence[Migration] | None = None) -> SchemaState:
    """Compare the store with the files. Raises SchemaError when the store is newer or a file was changed."""
    wanted = shipped() if migrations is None else migrations
    applied = _applied(store)
    by_number = {m.number: m for m in wanted}
    for number, (name, checksum) in applied.items():
        if number not in by_number:
            raise SchemaError(
                f"{store.where}: its schema is at {max(applied):04}_{name}, newer than this program knows "
                f"({len(wanted):04}): install the newer wattrate; migrations never go backwards"
            )
        if by_number[number].checksum != checksum:
            raise SchemaError(
                f"{store.where}: {number:04}_{name}.sql was changed after it ran there: put the file back as it was "
                "and write the change as a new, higher number"
            )
    return SchemaState(sorted(applied), [m for m in wanted if m.number not in applied])


def migrate(store: Store, cluster: str = "", migrations: Sequence[Migration] | None = None) -> list[str]:
    """Run what has not run yet; the names of what ran. Safe to call again, and after a crash in the middle."""
    for statement in on_cluster(_LEDGER, cluster) if cluster else [_LEDGER]:
        store.command(statement)
    pending = inspect(store, migrations).pending
    for migration in pending:
        for statement in migration.statements(cluster):
            store.command(statement)
        _record(store, migration)
    return [f"{m.number:04}_{m.name}" for m in pending]


def _applied(store: Store) -> dict[int, tuple[str, str]]:
    exists = store.scalar(
        "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = {t:String}", {"t": TABLE}
    )
    if not exists:
        return {}
    rows = store.rows(f"SELECT number, name, checksum FROM {TABLE} FINAL ORDER BY number")
    return {row["number"]: (row["name"], row["checksum"]) for row in rows}


def _record(store: Store, migration: Migration) -> None:
    row = {
        "number": pa.array([migration.number], pa.uint16()),
        "name": pa.array([migration.name]),
        "checksum": pa.array([migration.checksum]),
        "applied_at": pa.array([datetime.now(UTC)], pa.timestamp("ms", "UTC")),
    }
    store.insert(TABLE, pa.table(row))
    if migration.number not in _applied(store):
        raise SchemaError(
            f"{store.where} acknowledged migration {migration.number:04} but does not show it; run init again"
        )


def _without_comments(sql: str) -> str:
    return "\n".join(line for line in sql.splitlines() if not line.lstrip().startswith("--"))


def on_cluster(statement: str, cluster: str) -> list[str]:
    """A statement for every server of the cluster; a table becomes its local part and the Distributed table over it."""
    everywhere = f"ON CLUSTER '{cluster}'"
    table = _CREATE_TABLE.match(statement)
    if table is None:
        if _ALTER.match(statement):  # the local part first: the Distributed table over it may not be ahead
            names = ("_local",) if _OF_PARTS.match(statement) else ("_local", "")
            return [_ALTER.sub(rf"\1{local} {everywhere}", statement) for local in names]
        return [_CREATE_VIEW.sub(rf"\1 {everywhere}", statement)]
    name, rest = table.group(1), table.group(2)
    columns, tail = _columns_and_tail(rest)
    local = (
        f"CREATE TABLE IF NOT EXISTS {name}_local {everywhere}\n{columns}\n{_ENGINE.sub(_replicated, tail, count=1)}"
    )
    shard = "cityHash64(log_id, partition)" if re.search(r"^\s*log_id\s", columns, re.MULTILINE) else "1"
    over = (
        f"CREATE TABLE IF NOT EXISTS {name} {everywhere} AS {name}_local\n"
        f"ENGINE = Distributed('{cluster}', currentDatabase(), {name}_local, {shard})"
    )
    return [local, over]


def _columns_and_tail(rest: str) -> tuple[str, str]:
    start = rest.index("ENGINE = ")
    return rest[:start].strip(), rest[start:].strip()


def _replicated(engine: re.Match[str]) -> str:
    """`{uuid}`, `{shard}` and `{replica}` are the servers' own macros."""
    more = f", {engine.group(2)}" if engine.group(2) else ""
    return f"ENGINE = Replicated{engine.group(1)}('/clickhouse/tables/{{uuid}}/{{shard}}', '{{replica}}'{more})"

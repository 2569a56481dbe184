"""What a check says, and the part of the log that it looks at."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.clickhouse import Store

OK: Final = "ok"
WARNING: Final = "warning"
BROKEN: Final = "broken"
# Rows of one identity are in one table partition, so FINAL need not merge across them: what is merged already is read
# as it is.
FAST: Final = " SETTINGS do_not_merge_across_partitions_select_final = 1"
SHOWN: Final = 10  # places that a check names; it counts all

Place = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """One control total: how much was compared, what was found, and where the first differences are."""

    name: str
    state: str
    compared: int
    wrong: int
    text: str
    places: list[Place] = field(default_factory=list)


@dataclass(frozen=True)
class Scope:
    """Markers whose log time is at or after `since_ms`, and what they cover; None is everything."""

    since_ms: int | None = None

    @property
    def head(self) -> str:
        """A WITH clause that `covers` needs; a first entry that matches nothing keeps the arrays from being empty."""
        if self.since_ms is None:
            return ""
        return (
            "WITH (SELECT (arrayPushFront(groupArray(k), toUInt64(0)), arrayPushFront(groupArray(f), toUInt64(0))) "
            "FROM (SELECT cityHash64(log_id, partition) AS k, min(first_offset) AS f FROM markers WHERE log_time >= "
            f"fromUnixTimestamp64Milli(toInt64({self.since_ms:d})) GROUP BY log_id, partition)) AS since "
        )

    def covers(self, offset: str) -> str:
        """A condition on rows: their offset is in scope."""
        if self.since_ms is None:
            return "1"
        return f"{offset} >= transform(cityHash64(log_id, partition), since.1, since.2, toUInt64(18446744073709551615))"


def check(name: str, compared: int, places: list[Place], text: str, wrong: int | None = None) -> Check:
    """A check that is broken when there is any place where it does not hold."""
    count = len(places) if wrong is None else wrong
    return Check(name, BROKEN if count else OK, compared, count, text, places[:SHOWN])


def log_name(log_id: int) -> str:
    """A log as it is printed."""
    return f"{log_id:016x}"


def instant(instant_ms: int) -> str:
    """An instant as it is printed."""
    return datetime.fromtimestamp(instant_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def one_row(store: Store, sql: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """The single row of an aggregate."""
    return store.rows(sql, parameters)[0]

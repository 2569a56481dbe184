"""Dead letters: inputs that can never be used, with their bytes."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.errors import DocumentError


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """One record of the log that was refused; `key` is empty where it had none."""

    log_id: int
    partition: int
    offset: int
    time_ms: int
    reason: str
    detail: str
    key: bytes
    raw: bytes

    @property
    def name(self) -> str:
        """How people call it: partition/offset."""
        return f"{self.partition}/{self.offset}"


def dead_letters(store: Store, log_id: int, reason: str = "", limit: int = 0) -> list[DeadRecord]:
    """The dead letters of a log, newest last; the newest `limit` of them, 0 = all."""
    return _select(
        store,
        "log_id = {log:UInt64} AND ({reason:String} = '' OR reason = {reason:String})",
        {"log": log_id, "reason": reason},
        f"LIMIT {limit:d}" if limit else "",
    )


def reasons(store: Store, log_id: int) -> dict[str, int]:
    """How many dead letters a log has, by reason."""
    rows = store.rows(
        "SELECT toString(reason) AS why, count() AS records FROM dead_letters WHERE log_id = {log:UInt64} "
        "GROUP BY why ORDER BY records DESC, why",
        {"log": log_id},
    )
    return {row["why"]: row["records"] for row in rows}


def dead_letter(store: Store, log_id: int, name: str) -> DeadRecord:
    """The dead letter called "partition/offset". Raises DocumentError when there is none."""
    partition, _, offset = name.partition("/")
    if not (partition.isdigit() and offset.isdigit()):
        raise DocumentError(f"a dead letter is named partition/offset, such as 3/1207, not {name!r}")
    found = _select(
        store,
        "log_id = {log:UInt64} AND partition = {partition:UInt32} AND offset = {offset:UInt64}",
        {"log": log_id, "partition": int(partition), "offset": int(offset)},
    )
    if not found:
        raise DocumentError(f"the record at {name} is no dead letter: `wattrate deadletters list` shows them")
    return found[0]


def _select(store: Store, where: str, values: dict[str, Any], limit: str = "") -> list[DeadRecord]:
    rows = store.arrow(
        "SELECT d.log_id AS log, toUInt32(d.partition) AS part, d.offset AS at_offset, "
        "toUnixTimestamp64Milli(d.record_time) AS at_ms, toString(d.reason) AS why, d.detail AS said, "
        f"d.record_key AS the_key, d.raw AS bytes FROM dead_letters AS d WHERE {where} "
        f"ORDER BY d.record_time DESC, d.partition, d.offset DESC {limit}",
        values,
    )
    columns = [rows.column(at).to_pylist() for at in range(6)]
    bodies = [rows.column(at).cast(pa.binary()).to_pylist() for at in (6, 7)]
    return [DeadRecord(*row) for row in zip(*columns, *bodies, strict=True)][::-1]

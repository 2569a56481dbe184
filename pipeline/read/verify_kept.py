"""Whether the records that `wattrate archive` keeps are all that were rated: markers say how many there were."""

from pipeline.clickhouse import Store
from pipeline.ledger import RECORDS
from pipeline.read.checks import FAST, SHOWN, Check, Place, Scope, check, log_name


def kept_check(store: Store, scope: Scope) -> Check:
    """Of each partition, the markers between the first and the last record that is kept: as many records are there."""
    edges = store.rows(
        "SELECT log_id, partition AS part, min(offset) AS low, max(offset) AS high "
        f"FROM {RECORDS} GROUP BY log_id, part"
    )
    places: list[Place] = []
    records = 0
    for edge in edges:
        parameters = {"log": edge["log_id"], "partition": edge["part"], "low": edge["low"], "high": edge["high"]}
        said = store.rows(
            f"{scope.head}SELECT min(m.first_offset) AS first, max(m.last_offset) AS last, sum(m.records) AS rated "
            "FROM markers AS m WHERE log_id = {log:UInt64} AND partition = {partition:UInt16} AND m.first_offset >= "
            f"{{low:UInt64}} AND m.last_offset <= {{high:UInt64}} AND {scope.covers('m.first_offset')}",
            parameters,
        )[0]
        if not said["rated"]:
            continue
        within = {**parameters, "low": said["first"], "high": said["last"]}
        found = int(
            store.scalar(
                f"SELECT count() FROM {RECORDS} FINAL WHERE log_id = {{log:UInt64}} "
                f"AND partition = {{partition:UInt16}} AND offset BETWEEN {{low:UInt64}} AND {{high:UInt64}}{FAST}",
                within,
            )
        )
        records += found
        if found != said["rated"]:
            place: Place = {
                "log_id": log_name(edge["log_id"]), "partition": edge["part"], "first_offset": said["first"],
                "last_offset": said["last"], "rated": int(said["rated"]), "kept": found,
            }  # fmt: skip
            places.append({**place, "gaps": _gaps(store, within)})
    text = f"{records} kept records: as many as were rated" if edges else "no records are kept (`wattrate archive`)"
    return check("records_kept", records, places, text)


def _gaps(store: Store, within: dict[str, int]) -> list[tuple[int, int]]:
    """The first stretches of offsets without a record; Kafka's own transaction marks are such too, and no loss."""
    rows = store.rows(
        "SELECT before + 1 AS first, offset - 1 AS last FROM (SELECT offset, "
        "lagInFrame(offset, 1, toUInt64({low:UInt64} - 1)) OVER (ORDER BY offset ROWS BETWEEN UNBOUNDED PRECEDING AND "
        f"CURRENT ROW) AS before FROM (SELECT DISTINCT offset FROM {RECORDS} WHERE log_id = {{log:UInt64}} "
        "AND partition = {partition:UInt16} AND offset BETWEEN {low:UInt64} AND {high:UInt64})) "
        f"WHERE toUInt64(before + 1) < offset ORDER BY first LIMIT {SHOWN}",
        within,
    )
    return [(int(row["first"]), int(row["last"])) for row in rows]

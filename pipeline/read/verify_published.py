"""What lies on the output topics against the ledger: nothing is there that does not count, nothing is missing there.

Ids are row identities. A record that is there twice was sent again after a crash; whoever reads it drops it by its id.
Rows of older logs are looked up too: output topics outlive a readings topic that was made anew.
"""

import io
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import topics
from pipeline.clickhouse import Store
from pipeline.kafka import Admin, Message, Reader
from pipeline.read.checks import Check, Place, check
from pipeline.settings import Settings

_VIEWS: Final = {topics.CDRS: "cdrs", topics.ALERTS: "alerts", topics.RATED_USAGE: "rated_usage"}
_ID: Final = np.dtype([("partition", np.uint16), ("offset", np.uint64), ("line", np.uint64)])
_READ: Final = 20_000
Ids = npt.NDArray[np.void]


class _Alert(msgspec.Struct):
    partition: int
    offset: int
    line: int


_alert: Final = msgspec.json.Decoder(_Alert)


def published_checks(settings: Settings, store: Store) -> Iterator[Check]:
    """One check a topic and direction. Needs the broker; reads the topics whole."""
    admin = Admin(settings)
    log_id = admin.log_id(topics.READINGS)
    for topic, view in _VIEWS.items():
        starts = admin.start_offsets(topic)
        sent = _sent(settings, topic, starts, admin.end_offsets(topic))
        ids = np.unique(sent)
        counted = np.unique(_counted(store, view))
        stray = np.setdiff1d(ids, counted)
        text = f"{len(ids)} rows on {topic} count, {len(sent) - len(ids)} were sent more than once"
        yield check(f"{view}_on_kafka_count", len(ids), _places(stray), text, len(stray))
        if any(starts.values()):
            continue  # retention took its beginning: what is not there may have been
        lacking = np.setdiff1d(np.unique(_counted(store, view, log_id)), ids)
        text = f"every row of {view} that is said to be published is on {topic}"
        yield check(f"{view}_are_on_kafka", len(counted), _places(lacking), text, len(lacking))


def _sent(settings: Settings, topic: str, starts: dict[int, int], ends: dict[int, int]) -> Ids:
    """The ids of all records of a topic, repeats too."""
    found: list[Ids] = []
    left = {p: end for p, end in ends.items() if end > starts[p]}
    with Reader(settings, topic, group_id="wattrate-verify") as reader:
        reader.assign({p: starts[p] for p in left})
        while left:
            for message in reader.consume(_READ, 1.0):
                found.append(_ids(topic, message))
                partition, offset = message.partition(), message.offset()
                if partition is not None and offset is not None and offset + 1 >= left.get(partition, offset + 2):
                    del left[partition]
    return np.concatenate(found) if found else np.zeros(0, _ID)


def _ids(topic: str, message: Message) -> Ids:
    value = message.value() or b""
    if topic == topics.RATED_USAGE:
        return _of(pa.ipc.open_stream(io.BytesIO(value)).read_all())
    if topic == topics.ALERTS:
        said = _alert.decode(value)
        return np.array([(said.partition, said.offset, said.line)], _ID)
    headers: dict[str, Any] = dict(message.headers() or ())
    partition, offset, line = headers["id"].decode().split("-")
    return np.array([(int(partition), int(offset), int(line))], _ID)


def _of(table: pa.Table) -> Ids:
    ids = np.zeros(table.num_rows, _ID)
    for name in _ID.names or ():
        ids[name] = table.column(name).to_numpy()
    return ids


def _counted(store: Store, view: str, log_id: int | None = None) -> Ids:
    """Identities of rows that count; of one log only those that are said to be published."""
    where, values = "", {}
    if log_id is not None:
        values = {"log": log_id}
        where = (
            "WHERE log_id = {log:UInt64} AND offset <= transform(partition, "
            "(SELECT groupArray(partition) FROM (SELECT partition FROM published_rows WHERE log_id = {log:UInt64} "
            "GROUP BY partition ORDER BY partition)), "
            "(SELECT groupArray(last) FROM (SELECT partition, max(last_offset) AS last FROM published_rows "
            "WHERE log_id = {log:UInt64} GROUP BY partition ORDER BY partition)), toUInt64(0))"
        )
    return _of(store.arrow(f"SELECT partition, offset, line FROM {view} {where}", values))


def _places(ids: Ids) -> list[Place]:
    return [{name: int(one[name]) for name in _ID.names or ()} for one in ids[:10]]

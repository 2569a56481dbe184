"""What the worker tells others on Kafka: rated usage as Arrow messages of many rows, the rest one record each.

Ids are row identities, so that a record sent again after a crash can be dropped by whoever reads it.
"""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pyarrow as pa

from pipeline import ledger, topics
from pipeline.rate.doors import Sending
from pipeline.rate.session_events import Event, columns_of, rows_of


def publish(sender: Sending, tables: dict[str, pa.Table], events: Iterable[Event]) -> None:
    """Send a batch's outputs and wait until every one is confirmed. Raises DeliveryError, BrokerUnavailableError."""
    rated = tables[ledger.RATED_USAGE]
    for message in rated_messages(rated):
        sender.send(topics.RATED_USAGE, message, headers=[(topics.CONTENT_TYPE, topics.ARROW_STREAM)])
    for name, document, *place in zip(*columns_of(tables[ledger.CDRS], _CDR), strict=True):
        sender.send(topics.CDRS, document, name.encode(), headers=[("id", "-".join(map(str, place)).encode())])
    for event in events:
        sender.send(topics.SESSION_EVENTS, event.value, event.key)
    for row in rows_of(tables[ledger.ALERTS], (*_ALERT_COLUMNS, *_IDENTITY)):
        sender.send(topics.ALERTS, alert(row), row["charge_point_id"].encode())
    sender.flush()


def rated_messages(rated: pa.Table) -> Iterator[bytes]:
    """Rows of rated usage as Arrow streams that a topic takes: a hundred bytes a row, and the names they use."""
    for first in range(0, rated.num_rows, ROWS_A_MESSAGE):
        yield _ipc(rated.slice(first, ROWS_A_MESSAGE))


ROWS_A_MESSAGE = 100_000
_IDENTITY = ("partition", "offset", "line")
_CDR = ("charge_point_id", "document", *_IDENTITY)
_ALERT_COLUMNS = (
    "alert_id", "kind", "severity", "action", "charge_point_id", "connector_id", "session_key", "id_token", "time",
    "evidence",
)  # fmt: skip


def alert(row: dict[str, Any]) -> bytes:
    """One action in the life of an alert; `row` as `rows_of` gives it."""
    return msgspec.json.encode(
        {
            **{n: row[n] for n in ("alert_id", "kind", "severity", "action", "charge_point_id", "connector_id")},
            "session_key": f"{row['session_key']:016x}",
            "id_token": row["id_token"],
            "time_ms": row["time"],
            "evidence": msgspec.Raw(row["evidence"]),
            **{n: row[n] for n in _IDENTITY},
        }
    )


def _ipc(table: pa.Table) -> bytes:
    body = io.BytesIO()
    with pa.ipc.new_stream(body, table.schema) as writer:
        writer.write_table(table)
    return body.getvalue()

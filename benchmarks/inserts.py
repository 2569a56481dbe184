"""In which form do a batch's rows go into the store fastest? What the worker uses, beside the other forms there are.

    python -m benchmarks.inserts [--connectors 5000] [--rounds 5] [--json]

The two large tables of one rated batch, as the worker has them, are inserted in each form in turn, into empty tables of
the ledger's own shape; the best round counts, and CPU is that of client and store over all of them. Every form must
leave the same rows. `native` is clickhouse-connect's insert of columns, which takes them as Python's lists; `lz4` and
`zstd` compress Arrow's buffers, `http lz4` the whole body. Over loopback bytes cost nothing: between machines compare
them with what your network takes.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

import lz4.frame
import pyarrow as pa

from benchmarks.counted import engine_of, rated, records_of
from benchmarks.stand import PACKAGES, Stand, stand
from benchmarks.surroundings import show, surroundings
from benchmarks.workload import Workload
from pipeline.clickhouse import Store, arrow_stream

TABLES: Final = ("reading_rows", "rated_usage_rows")
_SETTINGS: Final = {"optimize_on_insert": "0"}
_MINUTES: Final = 1_000
Compression = Literal["lz4", "zstd"] | None
Form = Callable[[Any, str, pa.Table], int]  # client, table, rows → bytes that were sent


def batch(connectors: int) -> dict[str, pa.Table]:
    """A rated batch: twenty readings of every connector, of which none starts or ends a session."""
    workload = Workload(connectors=connectors, minutes=_MINUTES, partitions=1, tariff="time_of_use")
    engine = engine_of(workload)
    starts, readings = records_of(workload, (1, 20))
    rated(engine, starts)
    tables = rated(engine, readings)
    return {name: tables[name] for name in TABLES}


def _arrow(compression: Compression, http: str | None, client: Any, table: str, rows: pa.Table) -> int:
    body = pa.BufferOutputStream()
    with pa.ipc.new_stream(body, rows.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(rows)
    sent: Any = memoryview(body.getvalue())
    sent = lz4.frame.compress(sent) if http else sent
    client.raw_insert(table, rows.column_names, sent, _SETTINGS, "ArrowStream", compression=http)
    return len(sent)


def _native(client: Any, table: str, rows: pa.Table) -> int:
    columns = [column.to_pylist() for column in rows.columns]
    client.insert(table, columns, column_names=rows.column_names, column_oriented=True, settings=_SETTINGS)
    return 0  # the client does not say


FORMS: Final[dict[str, Form]] = {
    "arrow": partial(_arrow, None, None),
    "arrow, lz4": partial(_arrow, "lz4", None),
    "arrow, zstd": partial(_arrow, "zstd", None),
    "arrow, http lz4": partial(_arrow, None, "lz4"),
    "native": _native,
}
USED: Final = "arrow, lz4"  # by `Store.insert`


def measured(one: Stand, store: Store, form: Form, tables: dict[str, pa.Table], rounds: int) -> dict[str, Any]:
    """One form, all rounds of it."""
    client, took, sent = store._client, [], 0  # noqa: SLF001 - forms that the door does not offer are compared with it
    client_s, store_s = time.process_time(), one.cpu_s()["store"]
    for _ in range(rounds):
        for table in tables:
            store.command(f"CREATE OR REPLACE TABLE again_{table} AS {table}")
        began = time.perf_counter()
        sent = sum(form(client, f"again_{table}", rows) for table, rows in tables.items())
        took.append(time.perf_counter() - began)
    rows, used = sum(table.num_rows for table in tables.values()), rounds * sum(t.num_rows for t in tables.values())
    return {
        "rows_per_s": round(rows / min(took)),
        "bytes_per_row": round(sent / rows, 1),
        "cpu_us_per_row": {
            "client": round(1e6 * (time.process_time() - client_s) / used, 2),
            "store": round(1e6 * (one.cpu_s()["store"] - store_s) / used, 2),
        },
        "rows_hash": [
            store.scalar(f"SELECT sum(cityHash64(formatRow('CSV', *))) FROM again_{table}") for table in tables
        ],
    }


def run(connectors: int, rounds: int) -> dict[str, Any]:
    """All forms, beside each other."""
    tables = batch(connectors)
    with stand() as one, Store(one.settings) as store:
        found = {name: measured(one, store, form, tables, rounds) for name, form in FORMS.items()}
    for name, form in found.items():
        assert form["rows_hash"] == found[USED]["rows_hash"], f"{name} leaves other rows than {USED}"
    rows = {name: table.num_rows for name, table in tables.items()}
    used = sum(len(arrow_stream(table)) for table in tables.values()) / sum(rows.values())
    assert found[USED]["bytes_per_row"] == round(used, 1), f"the worker does not insert in the form {USED}"
    return {"question": "inserts", "rows": rows, "forms": found, **surroundings(*PACKAGES)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connectors", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    show(run(given.connectors, given.rounds), as_json=given.json)


if __name__ == "__main__":
    main()

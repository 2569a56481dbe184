"""Session events say what the rows of a batch say, each written from a dict of its own."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from pipeline.ledger import CDRS, QUARANTINE, READINGS, Heard
from pipeline.metering.columns import KIND_START
from pipeline.rate.session_events import Event, session_events
from pipeline.rate.tables import tables_of
from pipeline.reference import ReferenceData
from tests.pipeline.rate.drive import Drive
from tests.pipeline.rate.test_batches import faulty

PLACE = ("partition", "offset", "line", "charge_point_id", "connector_id")


class Knows:
    """A ledger that has heard of every other session."""

    def heard(self, sessions: Iterable[tuple[str, int, int, int]]) -> Mapping[int, Heard]:
        return {key: Heard(f"T{key % 3}", offset, offset + 5, 1) for _, key, _, offset in sessions if key % 2}


def ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def obvious(tables: Mapping[str, pa.Table], data: ReferenceData) -> list[Event]:
    """Every event, one row after the other."""
    facts = sorted(
        (*starts(tables[READINGS], data), *stops(tables[CDRS]), *held(tables[QUARANTINE], data)),
        key=lambda fact: (fact["partition"], fact["offset"], fact["line"]),
    )
    return [Event((fact["id_token"] or fact["location_id"]).encode(), msgspec.json.encode(fact)) for fact in facts]


def starts(readings: pa.Table, data: ReferenceData) -> Iterator[dict[str, Any]]:
    for row in readings.to_pylist():
        late = row["kind"] == KIND_START and row["verdict"] == "late"
        if (row["verdict"] == "first" or late) and row["session_key"]:
            token = {"id_token": row["id_token"]}
            yield named("start", row) | {"time_ms": ms(row["time"])} | token | place(row, data)


def stops(cdrs: pa.Table) -> Iterator[dict[str, Any]]:
    for row in cdrs.to_pylist():
        where = msgspec.json.decode(row["document"])["cdr_location"].get("coordinates", {})
        yield named("credit" if row["credit"] else "stop", row) | {
            "time_ms": ms(row["end"]), "start_ms": ms(row["start"]), "id_token": row["id_token"],
            "energy_mwh": row["energy_mwh"], "location_id": row["location_id"],
            "latitude": where.get("latitude", ""), "longitude": where.get("longitude", ""),
        }  # fmt: skip


def held(quarantine: pa.Table, data: ReferenceData) -> Iterator[dict[str, Any]]:
    for row in quarantine.to_pylist():
        if row["action"] == "held" and row["session_key"] % 2:
            offset, token = row["offset"], {"id_token": f"T{row['session_key'] % 3}"}
            yield named("stop", row) | {"time_ms": offset + 5, "start_ms": offset} | token | place(row, data)


def named(event: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {"event": event} | {name: row[name] for name in PLACE} | {"session_key": f"{row['session_key']:016x}"}


def place(row: Mapping[str, Any], data: ReferenceData) -> dict[str, Any]:
    found = data.resolve(row["charge_point_id"], row["connector_id"], "", 0)
    return {"location_id": found.location_id, "latitude": found.latitude, "longitude": found.longitude}


def as_read(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The same tables as the store gives them: instants in seconds' fractions, verdicts as numbers, rows in pieces."""
    found = {}
    for name, table in tables.items():
        for at, column in enumerate(table.column_names):
            given: Any = table.column(column).combine_chunks()
            if column == "verdict":
                given = given.indices
            elif pa.types.is_dictionary(given.type):
                given = given.dictionary_decode()
            elif pa.types.is_timestamp(given.type):
                given = given.cast(pa.timestamp("us", "UTC"))
            table = table.set_column(at, column, given)
        middle = table.num_rows // 2
        found[name] = pa.concat_tables([table.slice(0, middle), table.slice(middle)])
    return found


@pytest.mark.parametrize("size", [0, 200])
def test_session_events_are_those_of_the_rows_one_by_one(size: int) -> None:
    log, published, _ = faulty(40, 6)
    drive, data, seen = Drive(published, 2).run(log, size), ReferenceData().changed(1, published), set[str]()
    for batch in drive.ledger.batches:
        tables = tables_of(batch, drive.engine.directory, drive.engine.sheets, 1, {0: 1, 1: 1})
        cdrs = tables[CDRS]
        every_other = pa.array([at % 2 for at in range(cdrs.num_rows)], pa.uint8())
        tables[CDRS] = cdrs.set_column(cdrs.column_names.index("credit"), "credit", every_other)
        expected = obvious(tables, data)
        for given in (tables, as_read(tables)):
            assert session_events(given, Knows(), lambda _: data) == expected
        seen |= {msgspec.json.decode(event.value)["event"] for event in expected}
    assert seen == {"start", "stop", "credit"}

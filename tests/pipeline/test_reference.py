import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.clickhouse import Store
from pipeline.errors import StoreRefusedError
from pipeline.kafka import Admin, Reader, Sender
from pipeline.publication import Document, publish, read_documents
from pipeline.read.history import tariff_of_history
from pipeline.reference import Change, ReferenceData, latest_version
from pipeline.settings import Settings
from pipeline.topics import READINGS, TARIFFS

ALWAYS = 1_700_000_000_000
Json = dict[str, Any]


def tariff(name: str = "T1", price: float = 0.3, **more: Any) -> Json:
    element = {"price_components": [{"type": "ENERGY", "price": price, "step_size": 1}]}
    return {"country_code": "DE", "party_id": "ABC", "id": name, "currency": "EUR", "elements": [element], **more}


def evse(uid: str, *tariffs: str, **more: Any) -> Json:
    return {"uid": uid, "connectors": [{"id": "1", "tariff_ids": list(tariffs), "max_electric_power": 11000}], **more}


def location(*evses: Json, name: str = "L1", zone: str = "Europe/Berlin") -> Json:
    return {"country_code": "DE", "party_id": "ABC", "id": name, "time_zone": zone, "evses": list(evses)}


def token(uid: str, **more: Any) -> Json:
    return {"country_code": "DE", "party_id": "ABC", "uid": uid, "type": "RFID", **more}


def data(*objects: Json, version: int = 1, base: ReferenceData | None = None) -> ReferenceData:
    """What loading these objects as one version gives, without a store."""
    kinds = {"elements": "tariff", "evses": "location", "uid": "token"}
    rows = []
    for thing in objects:
        kind = next(kind for key, kind in kinds.items() if key in thing)
        key = f"{thing['country_code']}*{thing['party_id']}*{thing.get('id') or thing['uid']}"
        rows.append(Change(version, kind, key, False, json.dumps(thing).encode()))
    return (base or ReferenceData()).changed(version, rows)


def test_a_connector_resolves_to_its_tariff_zone_and_limits() -> None:
    found = data(tariff(), location(evse("CP1", "T1", model="X", meter_public_key="30"), zone="Europe/Oslo")).resolve(
        "CP1", 1, "", ALWAYS
    )
    assert (found.reason, found.tariff_key, found.zone) == ("", "DE*ABC*T1@1", "Europe/Oslo")
    assert (found.max_power_w, found.location_id, found.evse_uid) == (11000, "L1", "CP1")
    assert (found.public_key, found.model) == ("30", "X")
    assert found.tariff is not None and found.tariff.elements[0].components[0].price_e4 == 3000


@pytest.mark.parametrize(
    ("charge_point", "connector", "objects", "reason"),
    [
        ("CP9", 1, [tariff(), location(evse("CP1", "T1"))], "unknown_charge_point"),
        ("CP1", 2, [tariff(), location(evse("CP1", "T1"))], "unknown_connector"),
        ("CP1", 1, [tariff(), location(evse("CP1"))], "no_tariff"),
        ("CP1", 1, [location(evse("CP1", "T1"))], "unknown_tariff"),
        ("CP1", 1, [tariff(end_date_time="2020-01-01T00:00:00Z"), location(evse("CP1", "T1"))], "tariff_not_valid"),
    ],
)
def test_what_can_not_be_resolved_has_a_reason(
    charge_point: str, connector: int, objects: list[Json], reason: str
) -> None:
    found = data(*objects).resolve(charge_point, connector, "", ALWAYS)
    assert found.reason == reason and found.tariff is None and found.tariff_key == ""


def test_the_first_tariff_that_exists_and_is_valid_then_is_taken() -> None:
    objects = [
        tariff("OLD", end_date_time="2020-01-01T00:00:00Z"),
        tariff("NEW"),
        location(evse("CP1", "GONE", "OLD", "NEW")),
    ]
    assert data(*objects).resolve("CP1", 1, "", ALWAYS).tariff_key == "DE*ABC*NEW@1"
    assert data(*objects).resolve("CP1", 1, "", 1_500_000_000_000).tariff_key == "DE*ABC*OLD@1"


def test_the_drivers_own_tariff_wins_and_tokens_ignore_case() -> None:
    base = data(tariff(), tariff("CLUB"), location(evse("CP1", "T1")), token("aB1", tariff_id="CLUB"), token("X"))
    assert base.resolve("CP1", 1, "Ab1", ALWAYS).tariff_key == "DE*ABC*CLUB@1"
    assert base.resolve("CP1", 1, "X", ALWAYS).tariff_key == "DE*ABC*T1@1"
    assert base.resolve("CP1", 1, "stranger", ALWAYS).tariff_key == "DE*ABC*T1@1"


def test_a_charge_point_of_several_evses_numbers_them() -> None:
    evses = [evse("A", "T1", charge_point_id="CP1"), evse("B", charge_point_id="CP1"), evse("Z", charge_point_id="CP2")]
    base = data(tariff(), location(*evses))
    assert base.resolve("CP1", 1, "", ALWAYS).evse_uid == "A"
    assert base.resolve("CP1", 2, "", ALWAYS).evse_uid == "B"
    assert base.resolve("CP1", 0, "", ALWAYS).reason == "unknown_connector"
    assert base.resolve("CP2", 0, "", ALWAYS).evse_uid == "Z"
    numbered = data(location(evse("A", charge_point_id="CP1", evse_id=7)))
    assert numbered.resolve("CP1", 7, "", ALWAYS).evse_uid == "A"


def test_a_charge_point_that_moved_is_where_it_was_published_last() -> None:
    first = data(location(evse("CP1"), name="A"), location(evse("CP2"), name="B"))
    moved = data(location(evse("CP1"), evse("CP2"), name="B"), version=2, base=first)
    assert moved.resolve("CP1", 1, "", ALWAYS).location_id == "B"
    back = data(location(evse("CP2"), name="B"), version=3, base=moved)
    assert back.resolve("CP1", 1, "", ALWAYS).location_id == "A"
    assert first.resolve("CP1", 1, "", ALWAYS).location_id == "A", "an older version never changes"


def test_deleting_takes_everything_away() -> None:
    base = data(tariff(), location(evse("CP1", "T1")), token("X", tariff_id="T1"))
    gone = base.changed(2, [Change(2, kind, key, True, b"") for kind, key in
                            (("tariff", "DE*ABC*T1"), ("location", "DE*ABC*L1"), ("token", "DE*ABC*X"))])  # fmt: skip
    assert gone == ReferenceData(2)


# with a store and a broker


@pytest.fixture
def store(ready: Settings) -> Iterator[Store]:
    with Store(ready) as opened:
        yield opened


def documents(folder: Path, *objects: Json) -> list[Document]:
    (folder / "all.json").write_text(json.dumps(objects))
    return read_documents([folder])


def controls(settings: Settings) -> dict[int, list[bytes | None]]:
    found: dict[int, list[bytes | None]] = {}
    ends = Admin(settings).end_offsets(READINGS)
    with Reader(settings, READINGS, group_id="test") as reader:
        reader.assign(dict.fromkeys(ends, 0))
        while sum(map(len, found.values())) < sum(ends.values()):
            for message in reader.consume(100, 0.5):
                assert message.key() is None
                found.setdefault(message.partition() or 0, []).append(message.value())
    return found


def test_publishing_makes_versions_and_tells_every_partition(ready: Settings, store: Store, tmp_path: Path) -> None:
    with Sender(ready) as sender:
        first = publish(store, sender, documents(tmp_path, tariff(), location(evse("CP1", "T1", "T9")), token("X")))
        again = publish(store, sender, documents(tmp_path, tariff(), location(evse("CP1", "T1", "T9")), token("X")))
        second = publish(store, sender, documents(tmp_path, tariff(price=0.5)))
    assert (first.version, first.changed, first.unchanged) == (1, {"tariff": 1, "location": 1, "token": 1}, 0)
    assert (again.version, again.changed, again.unchanged) == (1, {}, 3)
    assert (second.version, second.changed) == (2, {"tariff": 1})
    assert first.warnings == ["no tariff has the id 'T9' that connectors or tokens name: such usage is held"]
    told = [b'{"control":"reference","version":%d}' % version for version in (1, 1, 2)]
    assert controls(ready) == dict.fromkeys(range(ready.partitions), told)
    assert Admin(ready).end_offsets(TARIFFS) == {0: 3}


def test_a_version_loaded_whole_equals_one_that_grew(ready: Settings, store: Store, tmp_path: Path) -> None:
    with Sender(ready) as sender:
        publish(store, sender, documents(tmp_path, tariff(), location(evse("CP1", "T1")), token("X", tariff_id="T1")))
        publish(store, sender, documents(tmp_path, tariff(price=0.5), token("X"), token("Y", tariff_id="T1")))
        publish(store, sender, documents(tmp_path, location(evse("CP1"), evse("CP2", "T1"))))
    grown = ReferenceData.at(store, 1)
    for version in (2, 3):
        grown = grown.advance(store, version)
        assert grown == ReferenceData.at(store, version)
    assert grown.advance(store, 1) == ReferenceData.at(store, 1)
    found = grown.resolve("CP2", 1, "", ALWAYS)
    assert found.tariff_key == "DE*ABC*T1@2"
    assert tariff_of_history(store, "DE*ABC*T1@1") == ReferenceData.at(store, 1).resolve("CP1", 1, "", ALWAYS).tariff
    assert tariff_of_history(store, "DE*ABC*T1@3") is None
    again = "SELECT * REPLACE (toUInt64(3) AS version) FROM reference_rows AS r WHERE r.version = 1"
    store.command(f"INSERT INTO reference_rows {again}")
    assert tariff_of_history(store, "DE*ABC*T1@3") is not None  # what was not there is asked for again
    assert grown.tariff("DE*ABC*T1@2") == found.tariff and grown.tariff("DE*ABC*T1@1") is None


def test_a_large_version_is_read_in_parts_and_is_what_its_objects_give(store: Store) -> None:
    """More locations than are read at once, some published again or deleted since, some stored twice."""
    many = 20_000
    rows = [_stored(1, tariff()), *(_stored(1, location(evse(f"CP{n}", "T1"), name=f"L{n}")) for n in range(many))]
    rows += [_stored(2, location(evse(f"CP{n}", "T9"), name=f"L{n}"), deleted=n % 3 == 0) for n in range(0, many, 7)]
    rows += rows[:100]
    columns = {name: [row[at] for row in rows] for at, name in enumerate(Change._fields)}
    kinds = {"version": pa.uint64(), "deleted": pa.bool_(), "body": pa.binary()}
    store.insert(
        "reference_rows",
        pa.table({name: pa.array(values, kinds.get(name, pa.string())) for name, values in columns.items()}),
    )
    for version in (1, 2):
        last = {(row.kind, row.id): row for row in rows[:-100] if row.version <= version}
        assert ReferenceData.at(store, version) == ReferenceData().changed(version, last.values())


def _stored(version: int, thing: Json, *, deleted: bool = False) -> Change:
    kind = "tariff" if "elements" in thing else "location"
    return Change(version, kind, f"DE*ABC*{thing['id']}", deleted, b"" if deleted else json.dumps(thing).encode())


def test_a_version_that_this_store_does_not_have_is_refused(store: Store) -> None:
    assert latest_version(store) == 0
    with pytest.raises(StoreRefusedError, match="up to version 0, but the log asks for 5"):
        ReferenceData.at(store, 5)

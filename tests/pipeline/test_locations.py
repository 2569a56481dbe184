"""Packed objects and charge points against what they stand for: dictionaries; defaults against `resolve`."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.locations import Document, Documents, Load
from pipeline.reference import LOCATION, TARIFF, TOKEN, Change, Default, Priced, ReferenceData
from pipeline.texts import packed
from tests.pipeline.test_reference import ALWAYS, Json, evse, location, tariff

MANY = 4_200  # more than are kept beside
KEYS = st.text(max_size=2)
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), st.binary(min_size=1, max_size=50)), max_size=12)


@settings(deadline=None, max_examples=30)
@given(st.lists(CHANGES, max_size=5), st.integers(0, 5))
def test_documents_are_what_was_published_last(steps: list[dict[str, bytes | None]], packed_at: int) -> None:
    """With so many others at once that all are packed, or kept beside."""
    documents, twin = Documents(), dict[str, Document]()
    for version, step in enumerate(steps, 1):
        more = MANY if version == packed_at else 0
        changes: dict[str, Document | None] = {f"other {n}": Document(version, b"%d" % n) for n in range(more)}
        changes |= {key: Document(version, body) if body else None for key, body in step.items()}
        before, kept = documents, dict(twin)
        documents = documents.changed(changes)
        twin |= {key: document for key, document in changes.items() if document}
        twin = {key: document for key, document in twin.items() if changes.get(key, document)}
        assert dict(documents) == twin
        assert len(documents) == len(twin)
        assert dict(before) == kept, "another version changed"
    assert documents.get("never published") is None


NAMES = [f"CP{number}" for number in range(6)]
EVSES = st.lists(
    st.tuples(
        st.sampled_from(NAMES), st.sampled_from([None, 1, 2]), st.sampled_from([[], ["T1"], ["T2", "T1"], ["none"]])
    ),
    max_size=5,
)
SITES = st.lists(st.tuples(st.sampled_from(["L1", "L2", "L3"]), st.one_of(st.none(), EVSES)), max_size=6)
OTHERS = [
    Change(0, LOCATION, f"DE*ABC*X{number}", False, msgspec.json.encode(location(evse(f"X{number}", "T1"))))
    for number in range(MANY)
]
Outlets = list[tuple[str, int | None, list[str]]]


@settings(deadline=None, max_examples=30)
@given(SITES, st.integers(0, 8))
def test_defaults_are_what_resolve_says(sites: list[tuple[str, Outlets | None]], packed_at: int) -> None:
    data = ReferenceData().changed(
        1, [change(1, TARIFF, tariff("T1")), change(1, TARIFF, tariff("T2", start_date_time="2030-01-01T00:00:00Z"))]
    )
    for version, (name, outlets) in enumerate(sites, 2):
        more = MANY if version == packed_at else 0
        mine = location(*(numbered(at, *outlet) for at, outlet in enumerate(outlets or [])), name=name)
        changes = [one._replace(version=version) for one in OTHERS[:more]]
        data = data.changed(version, [*changes, change(version, LOCATION, mine, deleted=outlets is None)])
    asked = [(name, number) for name in [*NAMES, "X7", "unheard of"] for number in range(4)]
    where, found = data.defaults(packed([name for name, _ in asked]), np.array([n for _, n in asked]), ALWAYS)
    for at, (name, number) in enumerate(asked):
        resolved = data.resolve(name, number, "", ALWAYS)
        assert found[where[at]] == Default(Priced(*resolved[:3]), resolved.zone, resolved.max_power_w)


def test_charge_points_that_changed_lately_have_a_shape_too() -> None:
    data = ReferenceData().changed(1, [change(1, LOCATION, location(evse("CP1", "T1"), evse("CP2", "T1")))])
    data = data.changed(2, [change(2, LOCATION, location(evse("CP1", "T1"), evse("CP3", "T2"), name="L2"))])
    numbers, shapes = data.charge_points.shapes(packed(["CP1", "CP2", "CP3", "unheard of"]))
    assert (numbers >= 0).tolist() == [False, True, True, False], "CP1 has two locations: it is looked up by itself"
    assert [shapes[number].outlets[0].tariff_ids for number in numbers[1:3].tolist()] == [("T1",), ("T2",)]


@pytest.mark.parametrize("seed", range(3))
def test_a_load_is_what_its_changes_give_one_by_one(seed: int) -> None:
    """Charge points that move between locations, and locations that go, in a load of several parts."""
    dice = np.random.default_rng(seed)
    rows = list(OTHERS[:700])
    for version, (name, first, count, gone) in enumerate(dice.integers(0, (400, 900, 4, 9), (1_500, 4)).tolist(), 1):
        evses = [evse(f"M{number}", f"T{number % 3}") for number in range(first, first + count)]
        rows.append(change(version, LOCATION, location(*evses, name=f"L{name}"), deleted=gone == 0))
    load, one_by_one = ReferenceData().changed(1_500, rows), ReferenceData()
    for row in rows:
        one_by_one = one_by_one.changed(1_500, [row])
    assert_same(load, one_by_one)
    assert any(isinstance(place, tuple) for place in load.charge_points.values()), "none is at two locations"


@pytest.mark.parametrize("seed", range(3))
def test_a_load_in_columns_is_what_its_changes_give_one_by_one(seed: int) -> None:
    """Objects of every kind, each told once; charge points of several EVSEs, some of them at several locations."""
    dice = np.random.default_rng(seed)
    rows = [change(1, TARIFF, tariff(f"T{number}")) for number in range(3)]
    rows += [token_change(2, f"{number:04}", f"T{number % 3}") for number in range(5)]
    for name, (first, count, gone) in enumerate(dice.integers(0, (900, 9, 9), (700, 3)).tolist()):
        outlets = [
            (f"M{number // 2}", [None, 1, 2][number % 3], [f"T{number % 4}"]) for number in range(first, first + count)
        ]
        evses = [numbered(at, *outlet) for at, outlet in enumerate(outlets)]
        rows.append(change(3, LOCATION, location(*evses, name=f"L{name}"), deleted=gone == 0))
    rows += OTHERS
    load, one_by_one = ReferenceData.loaded(3, rows), ReferenceData()
    for row in rows:
        one_by_one = one_by_one.changed(3, [row])
    assert_same(load, one_by_one)
    assert any(isinstance(place, tuple) for place in load.charge_points.values()), "none is at two locations"
    later = [
        change(4, LOCATION, location(evse("M3", "T1"), name="L5")),
        change(4, LOCATION, location(evse("new"), name="L7")),
    ]
    assert_same(load.changed(4, later), one_by_one.changed(4, later))


def assert_same(found: ReferenceData, expected: ReferenceData) -> None:
    assert found == expected
    names = sorted(expected.charge_points)
    assert [found.charge_points.place(n) for n in names] == [expected.charge_points.place(n) for n in names]


def test_a_load_of_nothing_is_what_there_is_before() -> None:
    assert ReferenceData.loaded(0, []) == ReferenceData()


def numbered(at: int, charge_point: str, number: int | None, tariffs: list[str]) -> Json:
    said = {} if number is None else {"evse_id": number}
    return evse(f"{charge_point}*{at}", *tariffs, charge_point_id=charge_point, **said)


def token_change(version: int, uid: str, tariff_id: str) -> Change:
    said = {"country_code": "DE", "party_id": "ABC", "uid": uid, "tariff_id": tariff_id}
    return Change(version, TOKEN, f"DE*ABC*{uid}", False, msgspec.json.encode(said))


def change(version: int, kind: str, thing: Json, *, deleted: bool = False) -> Change:
    return Change(version, kind, f"DE*ABC*{thing['id']}", deleted, msgspec.json.encode(thing))


def test_a_part_without_locations_does_not_make_the_rest_larger() -> None:
    documents = {f"NL*X*{n}": Document(1, b'{"id":"%d","address":"Street of many words"}' % n) for n in range(50)}
    after_others, at_once = Load(), Load()
    after_others.add({}, [], [], [])
    for load in (after_others, at_once):
        load.add(documents, [], [0] * len(documents), [])
    sizes = [len(load.done()[0]._packed.bodies.data) for load in (after_others, at_once)]
    assert sizes[0] == sizes[1] < sum(len(one.body) for one in documents.values())

"""Rows of connectors against what they stand for: dictionaries of (charge point, number)."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metering.state import MARKS, NONE, periods_of
from pipeline.rate.directory import Directory

NAMES = [f"CP{number}" for number in range(7)]
PARTITIONS = 3
STEPS = st.lists(
    st.one_of(
        st.lists(st.tuples(st.integers(0, len(NAMES) - 1), st.integers(0, 3)), max_size=30),
        st.integers(0, PARTITIONS - 1),
    ),
    max_size=12,
)


def heard(directory: Directory, connectors: list[tuple[int, int]]) -> list[int]:
    """Rows of connectors, each named once; a charge point is on one partition."""
    keys = keys_of(connectors)
    found: list[int] = directory.rows(NAMES, keys, (keys >> 32) % PARTITIONS).tolist()
    return found


def keys_of(connectors: list[tuple[int, int]]) -> npt.NDArray[np.int64]:
    return np.array([point << 32 | number for point, number in connectors], np.int64)


@settings(deadline=None)
@given(STEPS)
def test_rows_are_given_in_order_and_given_back(steps: list[list[tuple[int, int]] | int]) -> None:
    directory, twin = Directory(PARTITIONS), dict[tuple[int, int], int]()
    spare, rows = list[int](), 0
    for step in steps:
        if isinstance(step, int):
            gone = [connector for connector in twin if connector[0] % PARTITIONS == step]
            spare += [twin.pop(connector) for connector in gone]
            directory.forget(step)
            continue
        named = list(dict.fromkeys(step))
        for connector in named:
            if connector not in twin:
                twin[connector] = spare.pop() if spare else rows
                rows = max(rows, twin[connector] + 1)
        assert heard(directory, named) == [twin[connector] for connector in named]
    assert len(directory.charge_points) == rows
    assert [directory.charge_points[row] for row in spare] == [""] * len(spare)
    for point, name in enumerate(NAMES):
        for number in range(4):
            assert directory.find(name, number) == twin.get((point, number))
    for (point, _), row in twin.items():
        assert directory.charge_points[row] == NAMES[point]
        assert ring(directory, row) == {r for (other, _), r in twin.items() if other == point}
    for partition in range(PARTITIONS):
        members = [row for (point, _), row in twin.items() if point % PARTITIONS == partition]
        assert directory.members(partition).tolist() == members
        assert directory.count(partition) == len(members)


def ring(directory: Directory, row: int) -> set[int]:
    """The rows of a charge point, from one to the next."""
    found, at = {row}, int(directory.state.connectors["sibling"][row])
    while at != row:
        found.add(at)
        at = int(directory.state.connectors["sibling"][at])
    return found


def test_charge_points_of_a_partition_that_left_are_forgotten() -> None:
    directory = Directory(2)
    names = [f"CP{number:04d}" for number in range(2_000)]
    keys = keys_of([(number, 1) for number in range(2_000)])
    rows = directory.rows(names, keys, (np.arange(2_000) % 10 > 0).astype(np.int32))
    directory.forget(1)
    assert len(directory.charge_points.texts) == 200
    stay = [directory.find(name, 1) for name in names[::10]]
    assert stay == rows[::10].tolist()
    assert directory.find(names[1], 1) is None


def test_periods_of_a_partition_that_left_are_free_again() -> None:
    directory = Directory(2)
    free = int(directory.state.periods["start_ms"][0])
    rows = np.array([directory.row(partition, f"CP{partition}", 1) for partition in (0, 1, 1)][:2])
    periods = np.zeros(5, directory.state.periods.dtype)
    periods["start_ms"] = 1 + np.arange(5)
    directory.append_periods(rows, np.array([2, 3]), periods)
    directory.forget(0)
    assert int(directory.state.periods["start_ms"][0]) == free - 3
    directory.forget(1)
    places = free_places(directory)
    assert len(set(places)) == len(places) == free


def test_periods_are_taken_off_the_free_end_in_its_order() -> None:
    """Sessions that begin and end in any order: what is free lies scattered."""
    directory, dice = Directory(1), np.random.default_rng(1)
    rows = np.array([directory.row(0, f"CP{number}", 1) for number in range(200)])
    for _ in range(40):
        begins = rows[(directory.state.connectors["head"][rows] <= 0) & (dice.random(len(rows)) < 0.5)]
        lengths = dice.integers(0, 5, len(begins))
        count, free = int(lengths.sum()), free_places(directory)
        new = len(directory.state.periods) + np.arange(max(0, count - len(free)))
        periods = np.zeros(count, directory.state.periods.dtype)
        periods["start_ms"] = 1 + np.arange(count)
        directory.append_periods(begins, lengths, periods)
        taken = [*new.tolist(), *free][:count]
        assert directory.state.periods["start_ms"][taken].tolist() == periods["start_ms"].tolist()
        assert free_places(directory) == [*new.tolist(), *free][count:]
        assert int(directory.state.periods["start_ms"][0]) == len(free_places(directory))
        found, counts = periods_of(directory.state.periods, directory.state.connectors["head"][begins])
        assert (found["start_ms"].tolist(), counts.tolist()) == (periods["start_ms"].tolist(), lengths.tolist())
        for row in rows[dice.random(len(rows)) < 0.4].tolist():
            directory.free_periods(row)
            directory.state.connectors["head"][row] = NONE


def free_places(directory: Directory) -> list[int]:
    """Rows of the pool that are free, in their order."""
    places, at = [], int(directory.state.periods["next"][0])
    while at > 0:
        places.append(at)
        at = int(directory.state.periods["next"][at])
    return places


@pytest.mark.parametrize("first", [3, 600])
def test_what_is_known_stays_when_room_is_made(first: int) -> None:
    directory, names = Directory(1), [f"CP{number:05d}" for number in range(20_000)]
    keys = keys_of([(number, 1) for number in range(20_000)])
    known = directory.rows(names[:first], keys[:first], np.zeros(first, np.int32))
    directory.state.connectors["last_mwh"][known] = 1 + known
    directory.state.marks.reshape(-1, MARKS)["start_ms"][known] = 7
    directory.transaction_ids[known] = b"T"
    rows = directory.rows(names, keys, np.zeros(20_000, np.int32))
    assert rows[:first].tolist() == known.tolist()
    state = directory.state
    assert state.connectors["last_mwh"][rows].tolist() == [*range(1, first + 1), *([0] * (20_000 - first))]
    assert state.marks.reshape(-1, MARKS)["start_ms"][rows].sum() == 7 * MARKS * first
    assert (directory.transaction_ids[rows] == b"T").tolist() == [True] * first + [False] * (20_000 - first)
    assert len(state.connectors) * MARKS == len(state.marks)
    assert len(state.connectors) == len(directory.transaction_ids) >= 20_000

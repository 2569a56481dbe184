"""A location's time zone is corrected while sessions run: no row depends on what else its worker has rated."""

import json
from typing import Any

import pytest

from pipeline.codec.control import Reference
from tests.pipeline.rate.drive import Drive, Log, Record, changes, control
from tests.pipeline.read.network import DAY_AND_NIGHT, LOCATION, NOON_MS, charging

MOVED = {**LOCATION, "time_zone": "Europe/Lisbon"}
PUBLISHED = [*changes({"tariffs": [DAY_AND_NIGHT], "locations": [LOCATION]}), *changes({"locations": [MOVED]}, 2)]


def active(version: int) -> Record:
    return control(Reference(version), NOON_MS)


def late_session() -> list[Record]:
    """One that is over and billed before the reading of its twentieth minute arrives."""
    said = [(k.encode(), json.dumps(v).encode(), None, NOON_MS) for k, v in charging("BREMEN-1", "4711")]
    return [*said[:2], *said[3:], said[2]]


def rows(log: Log) -> list[dict[str, Any]]:
    """Partition 0's rated rows of an engine that has all partitions, a record of each at a time."""
    drive = Drive(PUBLISHED, partitions=2).keep_rows().run(log, size=1)
    assert drive.rows is not None
    return [row for row in drive.rows["rated_usage_rows"] if row["partition"] == 0]


@pytest.mark.parametrize("neighbour", [[], [active(1), active(2)]], ids=["alone", "beside one that is ahead"])
def test_a_late_reading_changes_the_same_rows_whatever_other_partitions_have_reached(neighbour: list[Record]) -> None:
    found = rows({0: [active(1), *late_session()], 1: neighbour})
    alone = rows({0: [active(1), *late_session()], 1: []})
    assert found == alone
    assert any(row["flags"] for row in alone), "the late reading changed nothing: the test tests nothing"


def test_rows_that_stay_as_they_are_are_not_written_again_when_the_zone_has_changed() -> None:
    *first, late = late_session()
    plain = rows({0: [active(1), *first, late], 1: []})
    moved = rows({0: [active(1), *first, active(2), late], 1: []})
    place = ("offset", "line")  # the change itself is a record of the log
    assert [{**row, **dict.fromkeys(place)} for row in moved] == [{**row, **dict.fromkeys(place)} for row in plain]

import json
import logging
from collections.abc import Iterator

import pytest

from pipeline.log import Log, configure


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger("wattrate")
    kept = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = kept


def test_an_event_is_one_line_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    Log("rate").info("batch rated", partition=3, note='two words "quoted"', empty="")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line[23:] == 'Z INFO    rate: batch rated partition=3 note="two words \\"quoted\\"" empty=""\n'


def test_an_event_as_json_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "json")
    Log("rate").debug("é", at=b"x")
    found = json.loads(capsys.readouterr().err)
    assert found.pop("time").endswith("Z")
    assert found == {"level": "debug", "logger": "rate", "event": "é", "at": "b'x'"}


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning")
    log = Log("rate")
    log.info("quiet")
    log.warning("w")
    log.error("e")
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["WARNING", "ERROR"]

"""Control records: recognised by key and prefix, typed, and dead when malformed."""

import numpy as np
import pytest

from pipeline.codec.control import (
    PREFIX,
    Control,
    ControlAt,
    Decision,
    Policy,
    Reference,
    Tick,
    encode_control,
    parse_control,
    split_controls,
)
from pipeline.codec.records import Records, UndecodableError
from tests.pipeline.codec.payloads import FLAT, encoded, records

CONTROLS: list[Control] = [
    Tick(1_767_225_600_000),
    Reference(7),
    Policy(3),
    Decision("release", "CP-1/4711", "ops@example.org", "meter was swapped", 1_767_225_600_000),
]


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_survives_the_log(control: Control) -> None:
    value = encode_control(control)
    assert value.startswith(PREFIX)
    assert parse_control(value) == control


@pytest.mark.parametrize(
    "value",
    [
        b'{"control":',
        b'{"control":"tick"}',
        b'{"control":"tick","time_ms":-1}',
        b'{"control":"tick","time_ms":"now"}',
        b'{"control":"tick","time_ms":1.5}',
        b'{"control":"reference","version":99999999999999999999}',
        b'{"control":"reboot"}',
        b'{"control":{}}',
        b'{"control":"decision","action":"forgive","target":"x","actor":"y","note":"","time_ms":1}',
        b'{"control":"\xff"}',
        b'{"control":' + b"[" * 100_000,
    ],
)
def test_a_malformed_control_says_what_is_wrong(value: bytes) -> None:
    with pytest.raises(UndecodableError, match="bad_control: not a control record that this version knows"):
        parse_control(value)


def test_controls_are_split_from_data_and_keep_their_places() -> None:
    tick, data = encode_control(Tick(5)), encoded(FLAT)
    values = [data, tick, b'{"control":1}', data, tick]
    keys = [b"CP-0001", None, None, b"CP-0001", None]
    batch = Records(values, keys, np.arange(10, 15), [None] * 5, np.arange(100, 105))
    split = split_controls(batch)
    assert split.controls == [ControlAt(1, 11, Tick(5)), ControlAt(4, 14, Tick(5))]
    assert [letter.index for letter in split.dead] == [2]
    assert split.positions.tolist() == [0, 3]
    assert split.data.values == [data, data]
    assert split.data.keys == [b"CP-0001", b"CP-0001"]
    assert split.data.offsets.tolist() == [10, 13]
    assert split.data.times_ms is not None
    assert split.data.times_ms.tolist() == [100, 103]


def test_a_batch_without_controls_is_passed_on_as_it_is() -> None:
    batch = records(FLAT, FLAT)
    assert split_controls(batch).data is batch


def test_a_charge_point_can_not_send_a_control() -> None:
    batch = records(encode_control(Tick(5)))
    split = split_controls(batch)
    assert split.controls == []
    assert split.data is batch

"""Arrow batches: the same rules as JSON, column by column, and nothing that can be sent brings the decoder down."""

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.codec.decode import decode
from pipeline.codec.records import ARROW_CONTENT_TYPE, Decoded, Records
from pipeline.metering import columns as c
from pipeline.metering.columns import ABSENT_I64
from tests.pipeline.codec.agreement import assert_accounted, assert_same, plain
from tests.pipeline.codec.payloads import FLAT, START_MS, encoded

UTC_MS = pa.timestamp("ms", "UTC")


def table(rows: int = 3, **changed: Any) -> pa.Table:
    """Columns of some readings; a changed column of None is left out."""
    columns: dict[str, Any] = {
        "charge_point_id": pa.array([f"CP{row % 2}" for row in range(rows)]).dictionary_encode(),
        "connector_id": pa.array([1] * rows, pa.int32()),
        "transaction_id": pa.array([f"T{row % 2}" for row in range(rows)]).dictionary_encode(),
        "time": pa.array([START_MS + row for row in range(rows)], UTC_MS),
        "register_mwh": pa.array(range(rows), pa.int64()),
        **changed,
    }
    return pa.table({name: column for name, column in columns.items() if column is not None})


def stream(sent: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, sent.schema, **options) as writer:
        writer.write_table(sent)
    return sink.getvalue().to_pybytes()


def arrow_records(*values: bytes, keys: list[bytes | None] | None = None, **given: Any) -> Records:
    count = len(values)
    kinds: list[str | None] = [ARROW_CONTENT_TYPE] * count
    return Records(list(values), keys or [None] * count, np.arange(count, dtype=np.int64) + 50, kinds, **given)


def decoded(sent: pa.Table, **given: Any) -> Decoded:
    batch = arrow_records(stream(sent), **given)
    found = decode(batch)
    assert_accounted(batch, found)
    return found


def reason(sent: pa.Table, **given: Any) -> str:
    found = decoded(sent, **given)
    assert len(found.samples) == 0
    return found.dead[0].reason


def test_a_batch_says_what_the_same_readings_say_as_json() -> None:
    rows: list[dict[str, Any]] = [
        {"charge_point_id": "CP-0001", "connector_id": 1, "transaction_id": str(7 + n), "energy_wh": n, "power_w": 11,
         "current_a": 16, "event": "start" if n == 0 else "sample", "state": "Charging", "id_token": "A",
         "timestamp": f"2026-01-01T00:00:0{n}Z", "received_at": f"2026-01-01T00:00:0{n}.500Z"}
        for n in range(4)
    ]  # fmt: skip
    json = decode(Records([encoded(row) for row in rows], [b"CP-0001"] * 4, np.full(4, 50)))
    arrow = decoded(
        pa.table(
            {
                "charge_point_id": pa.array(["CP-0001"] * 4).dictionary_encode(),
                "connector_id": pa.array([1] * 4, pa.int32()),
                "transaction_id": pa.array([row["transaction_id"] for row in rows]),
                "time": pa.array([START_MS + 1000 * n for n in range(4)], UTC_MS),
                "register_mwh": pa.array([1000 * n for n in range(4)], pa.int64()),
                "power_mw": pa.array([11_000] * 4, pa.int64()),
                "current_ma": pa.array([16_000] * 4, pa.int64()),
                "event": pa.array([c.KIND_START, 0, 0, 0], pa.int8()),
                "state": pa.array([c.STATE_CHARGING] * 4, pa.int8()),
                "id_token": pa.array(["A"] * 4).dictionary_encode(),
                "received_at": pa.array([START_MS + 1000 * n + 500 for n in range(4)], UTC_MS),
            }
        ),
        keys=[b"CP-0001"],
    )
    one, other = plain(json), plain(arrow)
    assert other.pop("line") == [0, 1, 2, 3]
    assert one.pop("line") == [0, 0, 0, 0]
    assert other.pop("records") == [0, 0, 0, 0]
    one.pop("records")
    assert one == other


@pytest.mark.parametrize(
    "changed",
    [
        {"charge_point_id": pa.array(["CP0", "CP1", "CP0"])},
        {"charge_point_id": pa.array(["CP0", "CP1", "CP0"], pa.large_string())},
        {
            "charge_point_id": pa.DictionaryArray.from_arrays(
                pa.array([1, 2, 1], pa.uint8()), pa.array(["x", "CP0", "CP1"])
            )
        },
        {"transaction_id": pa.array(["T0", "T1", "T0"], pa.large_string()).dictionary_encode()},
        {"time": pa.array([(START_MS + n) * 1000 for n in range(3)], pa.timestamp("us", "UTC"))},
        {"time": pa.array([START_MS + n for n in range(3)], pa.timestamp("ms", "Europe/Berlin"))},
        {"register_mwh": pa.array([0, 1, 2], pa.int32())},
        {"connector_id": pa.array([1, 1, 1], pa.uint16())},
        {"extra": pa.array([[1], None, []], pa.list_(pa.int64()))},
    ],
)
def test_types_that_mean_the_same_are_the_same(changed: dict[str, Any]) -> None:
    assert_same(decoded(table(**changed)), decoded(table()))


def test_several_record_batches_in_a_message_are_one_message() -> None:
    sent = table(9)
    assert_same(decode(arrow_records(stream_in_pieces(sent, 4))), decoded(sent))


def stream_in_pieces(sent: pa.Table, rows: int) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, sent.schema) as writer:
        writer.write_table(sent, max_chunksize=rows)
    return sink.getvalue().to_pybytes()


def test_nulls_are_absent_and_not_zero() -> None:
    found = decoded(
        table(
            register_mwh=pa.array([None, 5, -1], pa.int64()),
            power_mw=pa.array([None, 7, 10**14], pa.int64()),
            transaction_id=pa.array([None, "-1", "T"]),
            id_token=pa.array(["", None, "A"]),
        )
    )
    assert found.samples["register_mwh"].tolist() == [ABSENT_I64, 5, ABSENT_I64]
    assert found.samples["power_mw"].tolist() == [ABSENT_I64, 7, ABSENT_I64]
    assert found.transaction_ids.tolist() == [b"", b"", b"T"]
    assert found.samples["token"].tolist() == [-1, -1, 0]
    assert found.samples["flags"].tolist() == [
        c.FLAG_NO_ENERGY | c.FLAG_TXN_UNUSABLE,
        c.FLAG_TXN_UNUSABLE,
        c.FLAG_NO_ENERGY | c.FLAG_NEGATIVE | c.FLAG_VALUE_DROPPED,
    ]


def test_times_that_are_none_give_way_to_the_arrival() -> None:
    found = decoded(table(time=pa.array([0, None, START_MS], UTC_MS)), times_ms=np.array([START_MS + 9]))
    assert found.samples["time_ms"].tolist() == [START_MS + 9, START_MS + 9, START_MS]
    assert (found.samples["flags"] & c.FLAG_TIME_UNUSABLE).astype(bool).tolist() == [True, True, False]
    zoneless = decoded(table(time=pa.array([START_MS] * 3, pa.timestamp("ms"))))
    assert zoneless.samples["flags"].tolist() == [c.FLAG_TIME_NO_ZONE] * 3


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"time": None}, "bad_arrow"),
        ({"time": pa.array([1, 2, 3])}, "bad_arrow"),
        ({"register_mwh": pa.array([1.5, 2, 3])}, "bad_arrow"),
        ({"register_mwh": pa.array([2**64 - 1, 2, 3], pa.uint64())}, "bad_arrow"),
        ({"register_mwh": pa.array([10**17, 2, 3])}, "bad_number"),
        ({"connector_id": pa.array([70_000, 1, 1], pa.int32())}, "bad_shape"),
        ({"event": pa.array([9, 0, 0], pa.int8())}, "bad_shape"),
        ({"state": pa.array([-2, 0, 0], pa.int8())}, "bad_shape"),
        ({"charge_point_id": pa.array(["", "a", "b"])}, "bad_charge_point_id"),
        ({"charge_point_id": pa.array([None, "a", "b"])}, "bad_charge_point_id"),
        ({"charge_point_id": pa.array(["a\nb", "a", "b"])}, "bad_charge_point_id"),
        ({"charge_point_id": pa.array(["a\u202eb", "a", "b"])}, "bad_charge_point_id"),
        ({"charge_point_id": pa.array([1, 2, 3])}, "bad_charge_point_id"),
        ({"transaction_id": pa.array(["x" * 37, "a", "b"])}, "bad_transaction_id"),
        ({"time": pa.array([0, 1, 2], UTC_MS)}, "no_time"),
    ],
)
def test_one_unusable_row_kills_the_message_with_a_reason(changed: dict[str, Any], expected: str) -> None:
    if expected == "bad_charge_point_id" and changed["charge_point_id"].type == pa.int64():
        assert decoded(table(**changed)).charge_points == ["1", "2", "3"]  # numbers have a text of their own
    else:
        assert reason(table(**changed)) == expected


def test_a_key_must_be_the_charge_point_of_all_rows() -> None:
    assert reason(table(), keys=[b"CP0"]) == "key_mismatch"
    assert len(decoded(table(1), keys=[b"CP0"]).samples) == 1


def test_an_empty_message_and_a_compressed_one_are_dead() -> None:
    assert reason(table(0)) == "no_values"
    for codec in ("lz4", "zstd"):
        options = pa.ipc.IpcWriteOptions(compression=codec)
        found = decode(arrow_records(stream(table(1000), options=options)))
        assert "compressed" in found.dead[0].detail


def test_json_and_arrow_share_a_partition() -> None:
    arrow, json = stream(table()), encoded(FLAT)
    values = [json, arrow, b"broken", json, arrow]
    keys: list[bytes | None] = [b"CP-0001", None, b"CP-0001", b"CP-0001", None]
    kinds = [None, ARROW_CONTENT_TYPE, None, "application/json", ARROW_CONTENT_TYPE]
    batch = Records(values, keys, np.arange(5, dtype=np.int64), kinds)
    found = decode(batch)
    assert_accounted(batch, found)
    assert found.records.tolist() == [0, 1, 1, 1, 3, 4, 4, 4]
    names = [found.charge_points[index] for index in found.samples["charge_point"]]
    assert names == ["CP-0001", "CP0", "CP1", "CP0", "CP-0001", "CP0", "CP1", "CP0"]


def test_no_bent_stream_brings_the_decoder_down() -> None:
    dice = random.Random(20260101)
    whole = stream(table(20))
    values = [whole[:length] for length in range(0, len(whole), 7)]
    for _ in range(3000):
        bent = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            bent[dice.randrange(len(bent))] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)])
        values.append(bytes(bent))
    batch = arrow_records(*values)
    assert_accounted(batch, decode(batch))

"""Messages to others: what a topic takes, whatever the size of a batch."""

import pyarrow as pa
import pytest

from pipeline.rate.outputs import ROWS_A_MESSAGE, rated_messages


@pytest.mark.parametrize("rows", [0, 1, ROWS_A_MESSAGE, ROWS_A_MESSAGE + 1, 3 * ROWS_A_MESSAGE])
def test_rated_usage_of_any_size_travels_in_messages_of_bounded_size(rows: int) -> None:
    names = [f"CP{at % 2}" for at in range(rows)]
    encoded = pa.array(names, pa.string()).dictionary_encode()
    rated = pa.table({"offset": pa.array(range(rows), pa.uint64()), "charge_point_id": encoded})
    read = [pa.ipc.open_stream(message).read_all() for message in rated_messages(rated)]
    assert all(part.num_rows <= ROWS_A_MESSAGE for part in read)
    assert [at for part in read for at in part.column("offset").to_pylist()] == list(range(rows))
    assert [name for part in read for name in part.column("charge_point_id").to_pylist()] == names

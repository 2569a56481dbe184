"""What billing may rely on: the same two cursors give the same bytes for ever, and late data comes after them."""

import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.clickhouse import Store
from pipeline.commands.export import command
from pipeline.embedded.stack import Stack
from pipeline.errors import DocumentError
from pipeline.read import contract
from pipeline.read.contract import CDRS, RATED, batches, cdrs, complete_up_to, covered
from pipeline.read.cursor import START, Cursor, parse_cursor
from pipeline.read.files import FORMATS
from tests.pipeline.read import network
from tests.pipeline.read.conftest import Run, runner
from tests.stack import prepared


def exported(store: Store, kind: contract.Kind, form: str, since: Cursor, until: Cursor) -> bytes:
    to = io.BytesIO()
    FORMATS[form](to, kind.schema, batches(store, kind, since, until))  # type: ignore[arg-type]
    return to.getvalue()


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("kind", [CDRS, RATED], ids=["cdrs", "rated"])
def test_the_same_cursors_give_the_same_bytes(store: Store, kind: contract.Kind, form: str) -> None:
    until = covered(store)
    assert exported(store, kind, form, START, until) == exported(store, kind, form, START, until)


def test_an_export_holds_what_the_views_show_in_the_order_of_the_log(store: Store) -> None:
    until = covered(store)
    table = pa.Table.from_batches(batches(store, RATED, START, until), RATED.schema)
    seen = store.arrow("SELECT * EXCEPT claim FROM rated_usage ORDER BY log_id, partition, offset, line")
    assert table.num_rows == seen.num_rows > 0
    for name in ("offset", "line", "session_key", "quantity", "cost", "price_e4"):
        assert table.column(name).to_pylist() == seen.column(name).to_pylist()


def test_pieces_between_cursors_are_the_whole(store: Store) -> None:
    until = covered(store)
    [(log_id, offsets)] = until.logs
    middle = Cursor(((log_id, tuple(offset // 2 for offset in offsets)),))
    first, second = (list(pa.Table.from_batches(batches(store, RATED, *span), RATED.schema).to_pylist())
                     for span in ((START, middle), (middle, until)))  # fmt: skip
    whole = pa.Table.from_batches(batches(store, RATED, START, until), RATED.schema).to_pylist()

    def place(row: dict[str, int]) -> tuple[int, int, int]:
        return row["partition"], row["offset"], row["line"]

    assert sorted([*first, *second], key=place) == whole
    assert first
    assert second


def test_batches_have_a_fixed_size_whatever_the_store_was_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    until = covered(store)
    whole = exported(store, RATED, "ndjson", START, until)
    monkeypatch.setattr(contract, "BATCH_ROWS", 4)
    monkeypatch.setattr(contract, "_ASK_ROWS", 3)
    sizes = [batch.num_rows for batch in batches(store, RATED, START, until)]
    assert set(sizes[:-1]) == {4}
    assert 0 < sizes[-1] <= 4
    assert exported(store, RATED, "ndjson", START, until) == whole


def test_a_typed_cdr_has_identity_amounts_and_document(store: Store) -> None:
    [cdr] = cdrs(store, START, covered(store))
    assert (cdr.cdr_id, cdr.revision, cdr.credit, cdr.currency) == ("BREMEN-1*4711", 1, 0, "EUR")
    assert (cdr.energy_mwh, cdr.total_excl_e4, cdr.total_incl_e4) == (11_000_000, 89_500, 105_300)
    assert cdr.start_ms == network.NOON_MS
    assert json.loads(cdr.document)["total_energy"] == 11
    assert cdr.id == f"{cdr.log_id:016x}-{cdr.partition}-{cdr.offset}-{cdr.line}"


def test_complete_up_to_needs_every_partition(store: Store) -> None:
    until = covered(store)
    [(log_id, offsets)] = until.logs
    assert complete_up_to(store, until, log_id, 4) == network.NOON_MS + 200 * network.MINUTE_MS
    assert complete_up_to(store, until, log_id, 5) is None
    assert complete_up_to(store, Cursor(((log_id, offsets[:3]),)), log_id, 4) is None


def test_a_cursor_of_another_store_is_refused(store: Store) -> None:
    until = covered(store)
    [(log_id, offsets)] = until.logs
    beyond = Cursor(((log_id, tuple(offset + 1 for offset in offsets)),))
    with pytest.raises(DocumentError, match="beyond"):
        list(batches(store, CDRS, START, beyond))
    with pytest.raises(DocumentError, match="beyond"):
        list(batches(store, CDRS, until, START))


def test_the_command_writes_a_file_whole_and_prints_where_to_go_on(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "cdrs.parquet"
    told = json.loads(run(command, "cdrs", "--out", out, "--format", "parquet", "--json").output)
    assert told["rows"] == 1
    assert told["complete_up_to"] == "2024-06-03T13:20:00Z"
    assert told["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert pq.read_table(out).schema.names == CDRS.schema.names
    assert [path.name for path in tmp_path.iterdir()] == ["cdrs.parquet"]
    again = run(command, "cdrs", "--since", told["cursor"])
    assert again.stdout == ""
    assert "0 rows, complete up to 2024-06-03T13:20:00Z" in again.stderr


def test_ndjson_on_standard_output_can_be_piped(run: Run) -> None:
    [line] = run(command, "cdrs").stdout.splitlines()
    row = json.loads(line)
    assert row["document"]["id"] == "BREMEN-1*4711"
    assert row["start"] == "2024-06-03T10:00:00Z"
    assert len(row["session_key"]) == 16


def test_what_arrives_late_comes_after_the_cursor_and_leaves_the_old_bytes_alone(stack: Stack, tmp_path: Path) -> None:
    settings = prepared(stack.settings)
    network.open_network(settings, tmp_path)
    readings = list(network.charging("BREMEN-1", "4711"))
    late = readings.pop(3)
    network.send(settings, readings)
    network.tick(settings, 61)
    network.rate(settings)
    with Store(settings) as store:
        first = covered(store)
        before = exported(store, CDRS, "ndjson", START, first)
        key, value = late
        network.send(
            settings, [(key, {**value, "energy_wh": value["energy_wh"] + 400, "received_at": "2024-06-03T11:02:00Z"})]
        )
        network.send(settings, network.charging("BREMEN-1", "4715", 70, 111_000))
        network.tick(settings, 140)
        network.rate(settings)
        then = covered(store)
        assert exported(store, CDRS, "ndjson", START, first) == before
        delta = [(cdr.cdr_id, cdr.revision, cdr.credit) for cdr in cdrs(store, first, then)]
        assert ("BREMEN-1*4715", 1, 0) in delta
        assert ("BREMEN-1*4711", 1, 0) not in delta
        whole = [cdr.id for cdr in cdrs(store, START, then)]
        assert len(whole) == len(set(whole))
    told = json.loads(
        runner(settings)(command, "rated", "--until", str(first), "--out", tmp_path / "r", "--json").output
    )
    assert parse_cursor(told["cursor"]) == first

"""The whole road on real sessions: rows = CDRs + held + rejected, and each CDR has the energy of its row."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipeline.clickhouse import Store
from pipeline.commands import replay
from pipeline.rate.worker import Worker
from pipeline.settings import Settings
from tests.pipeline.test_replay import slice_of


@pytest.mark.parametrize(("preset", "begin"), [("dundee", 900), ("norway", 12_000), ("sap", 300)])
def test_rows_are_cdrs_held_or_rejected_and_energies_are_the_files(
    preset: str, begin: int, ready: Settings, tmp_path: Path
) -> None:
    path, told = slice_of(preset, tmp_path, begin, 120), tmp_path / "told.parquet"
    options = ["--preset", preset, "--sample-seconds", "900", "--told", str(told), "--ocpp"]
    # The Norwegian ids are texts, which only OCPP 2 can say.
    version = "2.0.1" if preset == "norway" else "1.6"
    result = CliRunner().invoke(replay.command, [str(path), *options, version, "--json"], obj=ready)
    assert result.exit_code == 0, result.output
    Worker.connect(ready, wait=lambda: False).run(drain_s=4.0)
    rows = {row["session"]: row for row in pq.read_table(told).to_pylist()}
    with Store(ready) as store:
        cdrs = store.rows("SELECT transaction_id, energy_mwh FROM cdrs WHERE NOT credit ORDER BY revision")
        held = store.rows("SELECT DISTINCT charge_point_id, connector_id FROM quarantine")
    billed = {row["transaction_id"]: row["energy_mwh"] for row in cdrs}
    assert set(billed) <= set(rows)
    waiting = {(row["charge_point_id"], row["connector_id"]) for row in held}
    for session, row in rows.items():
        if session in billed and row["energy_mwh"] is not None and row["energy_mwh"] >= 0:
            assert billed[session] == row["energy_mwh"], row
        if session not in billed:
            assert (row["charge_point_id"], row["connector_id"]) in waiting, row
    assert len(billed) > 0.9 * len(rows)

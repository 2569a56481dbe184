"""The three files of real sessions, whole: rows = CDRs + held + rejected, every CDR's energy the file's to the Wh.

A negative energy is held, and bills nothing when it is released or the hold limit passes.

    python -m benchmarks.replayed [--rows N] [--json]     (reads the shared folder's data/sessions; WATTRATE_SHARED)

Each file is replayed into an embedded broker, rated, held against the file; then what is held is released and held
against the file again. Exits 1 where a row is unaccounted for or an energy differs in silence.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.stand import PACKAGES
from benchmarks.surroundings import surroundings
from pipeline.clickhouse import Store
from pipeline.commands.init import prepare
from pipeline.embedded.stack import Stack
from pipeline.rate.worker import Worker
from pipeline.settings import Settings, load

PARTITIONS = 4
HOLD_LIMIT_MS = 1_000 * 86_400_000  # longer than the files: held is what a person has not decided yet
SHARED = Path(os.environ.get("WATTRATE_SHARED", Path(__file__).parents[2] / "shared"))
FILES = {"dundee": "dundee_2018-06_2018-09.csv", "norway": "norway_residential.csv", "sap": "sap_labs_mougins.csv"}
VERSIONS = {"dundee": "1.6", "norway": "2.0.1", "sap": "1.6"}  # Norwegian session ids are texts, which 1.6 can't say


def wattrate(folder: Path, *arguments: str) -> str:
    """Run a command on the stack of a folder; its output."""
    environ = {**os.environ, "WATTRATE_DATA_DIR": str(folder)}
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"wattrate {' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout


def billed(settings: Settings) -> dict[str, int]:
    """Transaction → energy of the CDR that stands, mWh."""
    with Store(settings) as store:
        rows = store.rows(
            "SELECT transaction_id, sum(energy_mwh) AS mwh FROM cdrs GROUP BY session_key, transaction_id "
            "HAVING sum(if(credit, -1, 1)) > 0"
        )
    return {row["transaction_id"]: row["mwh"] for row in rows}


def held(settings: Settings) -> int:
    """Sessions held now."""
    with Store(settings) as store:
        return int(
            store.scalar(
                "SELECT countIf(last = 'held') FROM (SELECT argMax(toString(action), (offset, line)) AS last "
                "FROM quarantine GROUP BY session_key)"
            )
            or 0
        )


def compare(told: list[dict[str, Any]], cdrs: dict[str, int]) -> Counter[str]:
    """How the file's rows stand in the ledger."""
    found: Counter[str] = Counter()
    for row in told:
        stated, got = row["energy_mwh"], cdrs.get(row["session"])
        if got is None:
            found["no CDR"] += 1
        elif stated is None:
            found["CDR, no energy stated"] += 1
        elif stated < 0 and not got:
            found["CDR of 0 kWh, the register ran backwards"] += 1
        else:
            found["CDR, energy equal" if stated == got else "CDR, energy differs"] += 1
    return found


def differing(told: list[dict[str, Any]], cdrs: dict[str, int]) -> list[dict[str, Any]]:
    """The rows whose CDR has another energy than the file, with both."""
    return [
        {"session": row["session"], "category": row["category"], "file_mwh": row["energy_mwh"], "cdr_mwh": got}
        for row in told
        if (got := cdrs.get(row["session"])) is not None
        and row["energy_mwh"] is not None
        and got != max(row["energy_mwh"], 0)
    ]


def replay(preset: str, rows: int | None, sample_s: int | None) -> dict[str, Any]:
    """One file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = (SHARED / "data" / "sessions" / FILES[preset]).read_bytes().splitlines(keepends=True)
        file = folder / "sessions.csv"
        file.write_bytes(b"".join(lines if rows is None else lines[: rows + 1]))
        settings = replace(load(environ={}), data_dir=folder, partitions=PARTITIONS)
        with Stack.start(settings) as stack:
            prepare(stack.settings)
            stack.write_run_file(os.getpid(), ready=True)
            policy = folder / "policy.json"
            policy.write_text(json.dumps({"policy": "metering", "hold_limit_ms": HOLD_LIMIT_MS}))
            wattrate(folder, "publish", str(policy))
            options: tuple[str, ...] = (
                "--preset",
                preset,
                "--ocpp",
                VERSIONS[preset],
                "--told",
                str(folder / "told.parquet"),
                "--json",
            )
            options += ("--sample-seconds", str(sample_s)) if sample_s else ()
            replayed = json.loads(wattrate(folder, "replay", str(file), *options))
            began = time.perf_counter()
            progress = Worker.connect(stack.settings, wait=lambda: False).run(drain_s=3.0)
            rated_s = time.perf_counter() - began - 3.0
            told = pq.read_table(folder / "told.parquet").to_pylist()
            cdrs = billed(stack.settings)
            first, others, waiting = compare(told, cdrs), differing(told, cdrs), held(stack.settings)
            if waiting:
                wattrate(folder, "quarantine", "release", "--all")
                Worker.connect(stack.settings, wait=lambda: False).run(drain_s=3.0)
            after = compare(told, billed(stack.settings))
            wattrate(folder, "verify")
            return {
                "preset": preset, "rows": replayed["rows"], "rejected": replayed["rejected"], "told": replayed["told"],
                "rated": dict(first), "differing": others, "held": waiting, "after_release": dict(after),
                "held_after_release": held(stack.settings),
                "readings": progress.readings, "readings_per_s": round(progress.readings / rated_s),
            }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="only the first rows of each file")
    parser.add_argument("--sample-seconds", type=int, help="as of `wattrate replay`")
    parser.add_argument("--preset", choices=tuple(FILES), action="append")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results = [replay(preset, given.rows, given.sample_seconds) for preset in given.preset or FILES]
    if given.json:
        print(json.dumps({"files": results, "machine": surroundings(*PACKAGES)}, indent=2))
    else:
        for result in results:
            print("\n".join(f"{name:20} {value}" for name, value in result.items()), end="\n\n")
    for result in results:
        accounted = sum(result["rated"].values()) + sum(result["rejected"].values())
        differs = result["rated"].get("CDR, energy differs") or result["after_release"].get("CDR, energy differs")
        if accounted != result["rows"] or differs or result["held_after_release"]:
            sys.exit(f"{result['preset']}: a row is unaccounted for, or an energy differs")


if __name__ == "__main__":
    main()

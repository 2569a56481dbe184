"""`wattrate replay`: a table of real sessions becomes the messages that its chargers would have sent."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import click
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipeline.errors import DocumentError
from pipeline.kafka import Admin
from pipeline.logwriter import publish_folder, write, write_lines
from pipeline.replay.feed import ReplayFeed, locations, tariff_document, tokens
from pipeline.replay.mapping import PRESETS, TableMapping, with_changes
from pipeline.replay.plan import ReplayPlan, plan_replay
from pipeline.replay.table import REASONS, Ambiguous, read_table
from pipeline.settings import Settings
from pipeline.simulate.documents import Document, write_documents
from pipeline.topics import READINGS

_SHAPES = {"1.6": "ocpp16", "2.0.1": "ocpp201"}


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--preset", type=click.Choice(sorted(PRESETS)), help="How a known file keeps its columns.")
@click.option(
    "--map", "changes", multiple=True, metavar="NAME=COLUMN", help="Where the file keeps a fact; see docs/replay.md."
)
@click.option(
    "--ocpp", default="1.6", show_default=True, type=click.Choice(sorted(_SHAPES)), help="Which OCPP is spoken."
)
@click.option("--sample-seconds", default=300, show_default=True, type=click.IntRange(1, 86_400))
@click.option("--speed", default=0.0, help="Simulated seconds a second; 0 (default) is as fast as possible.")
@click.option(
    "--ambiguous",
    default="earlier",
    show_default=True,
    type=click.Choice(get_args(Ambiguous)),
    help="A local time in the hour that comes twice, where no duration tells which.",
)
@click.option("--tariff", type=click.Path(path_type=Path), help="OCPI Tariff for the file's connectors.")
@click.option("--publish/--no-publish", default=True, help="Publish the file's connectors, users and tariff first.")
@click.option("--reference-out", type=click.Path(path_type=Path), help="Write them to a folder as well.")
@click.option("--told", "told_out", type=click.Path(path_type=Path), help="Write a Parquet list of the rows told.")
@click.option("--list-rejected", is_flag=True, help="List every row that can't be told, and why.")
@click.option("--check", is_flag=True, help="Only count; send nothing.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the messages to a file (JSON lines), not to Kafka.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(
    settings: Settings,
    file: Path,
    preset: str | None,
    changes: tuple[str, ...],
    ocpp: str,
    sample_seconds: int,
    speed: float,
    ambiguous: Ambiguous,
    tariff: Path | None,
    publish: bool,
    reference_out: Path | None,
    told_out: Path | None,
    list_rejected: bool,
    check: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Turn FILE, a table of sessions (CSV), into the OCPP messages behind them, in the order of their time.

    A session's start, end and energy are the file's. The samples between are reconstructed on a plausible
    charging curve that meets the stated energy exactly: no public file has them. Rows that are wrong are told as
    wrongly as they stand; rows that leave open what to tell are rejected with a reason.
    """
    mapping = with_changes(PRESETS[preset] if preset else TableMapping(), changes)
    table = read_table(file, mapping, ambiguous)
    plan = plan_replay(table, mapping, sample_seconds * 1_000, whole_wh=ocpp == "1.6")
    if told_out:
        pq.write_table(_told_table(plan), told_out)
    feed = None
    if not check:
        partitions = settings.partitions if out else Admin(settings).partition_count(READINGS)
        feed = ReplayFeed(plan, shape=_SHAPES[ocpp], partitions=partitions)
        _reference(settings, plan, mapping, tariff, reference_out, publish=publish and out is None)
        if out:
            with out.open("w", encoding="utf-8") as lines:
                write_lines(lines, feed.batches())
        else:
            write(settings, feed.batches(), speed=speed)
    summary = _summary(plan, feed)
    if list_rejected:
        summary["rejected_rows"] = [vars(rejected) for rejected in plan.rejected]
    if as_json:
        print(json.dumps(summary))
    else:
        _print(summary)


def _reference(
    settings: Settings,
    plan: ReplayPlan,
    mapping: TableMapping,
    tariff: Path | None,
    reference_out: Path | None,
    *,
    publish: bool,
) -> None:
    if not publish and reference_out is None:
        return
    document = tariff_document(mapping, _read_tariff(tariff) if tariff else None)
    kinds = {"locations": locations(plan, mapping, document["id"]), "tokens": tokens(plan, mapping)}
    with TemporaryDirectory() as scratch:
        folder = reference_out or Path(scratch)
        write_documents(folder, [document], kinds)
        if publish:
            publish_folder(settings, folder)


def _read_tariff(path: Path) -> Document:
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DocumentError(f"{path}: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        raise DocumentError(f"{path}: not an OCPI Tariff object with an id")
    return document


def _told_table(plan: ReplayPlan) -> pa.Table:
    """The rows told: what the file says of each, for comparison with the ledger."""
    rows = [told.row for told in plan.told]
    return pa.table(
        {
            "line": [row.line for row in rows],
            "session": [row.session for row in rows],
            "charge_point_id": [row.charge_point for row in rows],
            "connector_id": [told.connector for told in plan.told],
            "id_token": [row.token for row in rows],
            "start_ms": [row.start_ms for row in rows],
            "end_ms": pa.array([row.end_ms for row in rows], pa.int64()),
            "energy_mwh": pa.array([row.energy_mwh for row in rows], pa.int64()),
            "category": [told.category for told in plan.told],
        }
    )


def _summary(plan: ReplayPlan, feed: ReplayFeed | None) -> dict[str, object]:
    energy = sum(told.row.energy_mwh or 0 for told in plan.told)
    return {
        "rows": len(plan.told) + len(plan.rejected),
        "told": dict(sorted(plan.categories.items())),
        "rejected": dict(sorted(plan.reasons.items())),
        "connectors": len(plan.connectors),
        "energy_kwh": energy / 1e6,
        "readings": feed.readings if feed else 0,
        "samples": "reconstructed",
    }


def _print(summary: dict[str, object]) -> None:
    console = Console()
    table = Table("rows", "count", "what becomes of them", box=None)
    for name, count in _pairs(summary["told"]):
        table.add_row(name, f"{count:,}", _CATEGORIES[name])
    for name, count in _pairs(summary["rejected"]):
        table.add_row(name, f"{count:,}", f"rejected: {REASONS[name]}")
    console.print(table)
    console.print(
        f"{summary['rows']:,} rows, {summary['energy_kwh']:,.3f} kWh, {summary['readings']:,} readings sent. "
        "Samples inside a session are reconstructed; its start, end and energy are the file's."
    )
    rejected = summary.get("rejected_rows")
    if isinstance(rejected, list):
        for row in rejected:
            console.print(f"line {row['line']}: {row['session']}: {row['reason']} {row['detail']}", highlight=False)


def _pairs(counts: object) -> Iterator[tuple[str, int]]:
    if isinstance(counts, dict):
        yield from counts.items()


_CATEGORIES = {
    "plain": "start, samples, stop",
    "zero_kwh": "start, samples, stop at the same register",
    "no_length": "start and stop at one instant",
    "no_end": "start and samples up to the energy, never a stop",
    "start_only": "only the start: the file says neither end nor energy",
    "overlap": "all energy before the next session on the connector; the stop comes late",
    "negative_energy": "the stop tells less than the start",
    "end_before_start": "the stop's timestamp lies before the start's",
}

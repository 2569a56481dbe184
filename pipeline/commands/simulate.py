"""`wattrate simulate`: the messages of an invented fleet, with faults on request and the truth beside them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipeline.errors import DocumentError
from pipeline.kafka import Admin
from pipeline.logwriter import publish_folder, write, write_lines
from pipeline.settings import Settings
from pipeline.simulate.documents import locations, tariffs, tokens, write_documents
from pipeline.simulate.faults import FAULTS
from pipeline.simulate.fleet import Fleet, FleetPlan
from pipeline.simulate.message import Batch, Chunk
from pipeline.simulate.truth import SCHEMA
from pipeline.topics import READINGS


@dataclass
class Counts:
    """What a run made."""

    messages: int = 0
    readings: int = 0
    sessions: int = 0
    energy_mwh: int = 0
    until_ms: int = 0


@click.command()
@click.option("--seed", default=7, show_default=True, help="The same seed and options give the same bytes.")
@click.option("--charge-points", default=1_000, show_default=True, type=click.IntRange(1, 1_000_000))
@click.option("--start", default="2026-01-05T00:00:00Z", show_default=True, help="Simulated time of the first message.")
@click.option("--hours", default=24.0, show_default=True, help="How long cars arrive; those that came may stay longer.")
@click.option("--sample-seconds", default=60, show_default=True, type=click.IntRange(1, 3600))
@click.option("--sessions-per-day", default=2.0, show_default=True, help="Of each connector, on average.")
@click.option(
    "--shape",
    default="mixed",
    show_default=True,
    type=click.Choice(["mixed", "ocpp16", "ocpp201", "flat", "arrow"]),
    help="How messages are told; mixed is OCPP 1.6, 2.0.1 and flat JSON by charge point.",
)
@click.option("--faults", "every", type=float, help="Rate of every fault, as 0.01.")
@click.option("--fault", "single", multiple=True, metavar="NAME=RATE", help="Rate of one fault; may be repeated.")
@click.option("--list-faults", is_flag=True, help="Name every fault and stop.")
@click.option("--tick-seconds", default=60, show_default=True, type=click.IntRange(1, 3600))
@click.option("--speed", default=0.0, help="Simulated seconds a second; 0 (default) is as fast as possible.")
@click.option("--truth", type=click.Path(path_type=Path), help="Write the truth about each session (Parquet) here.")
@click.option("--reference-out", type=click.Path(path_type=Path), help="Write tariffs, locations, tokens to a folder.")
@click.option("--publish", is_flag=True, help="Publish the fleet's tariffs, locations and tokens first.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the messages to a file (JSON lines), not to Kafka.")
@click.option("--partitions", type=int, help="With --out: partitions that get ticks (default: the setting).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(
    settings: Settings,
    seed: int,
    charge_points: int,
    start: str,
    hours: float,
    sample_seconds: int,
    sessions_per_day: float,
    shape: str,
    every: float | None,
    single: tuple[str, ...],
    list_faults: bool,
    tick_seconds: int,
    speed: float,
    truth: Path | None,
    reference_out: Path | None,
    publish: bool,
    out: Path | None,
    partitions: int | None,
    as_json: bool,
) -> None:
    """Send the messages of an invented fleet to Kafka (or to a file).

    With --publish its tariffs, locations and tokens are published first, so that its sessions can be rated; with
    --reference-out they are written to a folder that `wattrate publish` reads.
    """
    if list_faults:
        _print_faults(as_json)
        return
    plan = FleetPlan(
        seed=seed,
        charge_points=charge_points,
        start_ms=instant_ms(start),
        hours=hours,
        sample_ms=sample_seconds * 1_000,
        shape=shape,
        sessions_per_day=sessions_per_day,
        faults=fault_rates(every, single),
        partitions=partitions or (settings.partitions if out else Admin(settings).partition_count(READINGS)),
        tick_ms=tick_seconds * 1_000,
    )
    fleet = Fleet(plan)
    with TemporaryDirectory() as scratch:
        if reference_out or publish:
            folder = reference_out or Path(scratch)
            kinds = {"locations": locations(fleet.network), "tokens": tokens(fleet.network)}
            write_documents(folder, tariffs(), kinds)
            if publish:
                publish_folder(settings, folder)
    counts = Counts()
    batches = _batches(fleet, counts, truth)
    if out:
        with out.open("w", encoding="utf-8") as file:
            write_lines(file, batches)
    else:
        write(settings, batches, speed=speed)
    _print_counts(counts, as_json)


def instant_ms(text: str) -> int:
    """RFC 3339 with a zone as ms since 1970. Raises DocumentError with what to write instead."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise DocumentError(f"{text!r} is no instant; write 2026-01-05T00:00:00Z") from error
    if instant.tzinfo is None:
        raise DocumentError(f"{text!r} has no zone; write {text}Z for UTC")
    return int(instant.astimezone(UTC).timestamp() * 1_000)


def fault_rates(every: float | None, single: tuple[str, ...]) -> dict[str, float]:
    """Rates by fault from --faults and --fault; a single rate wins over that of all."""
    rates = dict.fromkeys(FAULTS, every) if every else {}
    for entry in single:
        name, separator, rate = entry.partition("=")
        try:
            rates[name] = float(rate)
        except ValueError as error:
            told = "the rate is no number" if separator else "there is no ="
            raise DocumentError(f"--fault {entry}: {told}; write --fault stuck_register=0.01") from error
    return {name: rate for name, rate in rates.items() if rate is not None}


def _batches(fleet: Fleet, counts: Counts, truth: Path | None) -> Iterator[Batch]:
    if truth is None:
        yield from (_counted(counts, chunk) for chunk in fleet.chunks())
        return
    with pq.ParquetWriter(truth, SCHEMA) as writer:
        for chunk in fleet.chunks():
            if chunk.truth.num_rows:
                writer.write_table(chunk.truth)
            yield _counted(counts, chunk)


def _counted(counts: Counts, chunk: Chunk) -> Batch:
    counts.messages += len(chunk.batch.values)
    counts.readings += chunk.readings
    counts.sessions += chunk.truth.num_rows
    counts.energy_mwh += int(chunk.truth["true_mwh"].to_numpy().sum())
    counts.until_ms = chunk.until_ms
    return chunk.batch


def _print_counts(counts: Counts, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**vars(counts), "energy_kwh": counts.energy_mwh / 1e6}))
        return
    until = datetime.fromtimestamp(counts.until_ms / 1_000, UTC).isoformat()
    print(f"messages  {counts.messages:,}   readings  {counts.readings:,}   sessions  {counts.sessions:,}")
    print(f"energy    {counts.energy_mwh / 1e6:,.3f} kWh   simulated until {until}")


def _print_faults(as_json: bool) -> None:
    if as_json:
        keep = ("name", "meets", "says", "scope", "outcome", "alerts")
        faults = [{name: getattr(fault, name) for name in keep} for fault in FAULTS.values()]
        print(json.dumps(faults))
        return
    table = Table("fault", "the charger", "rate is a share of", "metering should", box=None)
    for fault in FAULTS.values():
        concluded = ", ".join([fault.outcome.replace("_", " "), *fault.alerts])
        table.add_row(fault.name, fault.says, fault.scope.replace("_", " ") + "s", concluded)
    Console(width=140).print(table)

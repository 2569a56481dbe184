"""`wattrate demo`: a fleet's messages become rated rows, CDRs and alerts on this machine, in one command."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.clickhouse import Store
from pipeline.commands.init import prepare
from pipeline.embedded.services import Services
from pipeline.embedded.stack import Stack
from pipeline.errors import ChecksFailedError, EmbeddedError, StoreUnavailableError
from pipeline.kafka import Admin
from pipeline.logwriter import publish_folder, write
from pipeline.read.summary import Summary, largest_session, summarise
from pipeline.settings import Settings
from pipeline.simulate.documents import locations, tariffs, tokens, write_documents
from pipeline.simulate.faults import FAULTS
from pipeline.simulate.fleet import Fleet, FleetPlan
from pipeline.simulate.message import Batch
from pipeline.store import StoreLedger
from pipeline.topics import READINGS

_RATED_TIMEOUT_S = 900.0  # the first start on a machine may still compile


@dataclass
class Run:
    """How the demo went."""

    elapsed_s: float
    rated_s: float
    summary: Summary
    data_dir: Path
    session: str  # a CDR worth explaining


@click.command()
@click.option("--charge-points", default=400, show_default=True, type=click.IntRange(10, 100_000))
@click.option("--hours", default=24.0, show_default=True, help="Simulated time for which cars arrive.")
@click.option("--faults", default=0.02, show_default=True, help="Rate of every fault that chargers are known for.")
@click.option("--seed", default=7, show_default=True)
@click.option("--headless", is_flag=True, help="No progress shown; end after the summary.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end (implies --headless).")
@click.pass_obj
def command(
    settings: Settings, charge_points: int, hours: float, faults: float, seed: int, headless: bool, as_json: bool
) -> None:
    """Show all of it: embedded broker and store, a simulated fleet with every fault, the worker, and what it billed.

    Works in the data folder (WATTRATE_DATA_DIR, default ./wattrate-data) and may be run there again; delete the folder
    to forget it. In a terminal the demo stays up after its summary, so that you can look around, until Ctrl-C.
    """
    quiet = headless or as_json
    console = Console(quiet=as_json, stderr=False)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    plan = FleetPlan(
        seed=seed, charge_points=charge_points, hours=hours, faults=dict.fromkeys(FAULTS, faults),
        partitions=settings.embedded_partitions,
    )  # fmt: skip
    began = time.monotonic()
    settings = replace(settings, partitions=settings.embedded_partitions)
    with Stack.start(settings) as stack:
        prepare(stack.settings)
        stack.write_run_file(os.getpid(), ready=True)
        console.print(
            f"broker {stack.settings.kafka_bootstrap}, store :{stack.settings.clickhouse_port}, data {stack.folder}"
        )
        with Services.start(stack.settings, ("rate", "watch --no-ticks")) as services:
            run = _run(stack, services, plan, console, quiet, stopped, began)
            if as_json:
                print(json.dumps(as_document(run)))
            else:
                show(console, run)
            if not quiet and console.is_terminal:
                console.print("\nStill running: try the commands above in another terminal. Ctrl-C ends it.")
                stopped.wait()
    if not run.summary.adds_up:
        raise ChecksFailedError(f"the control totals do not add up: {run.summary.counts}; see `wattrate verify`")


def _run(
    stack: Stack, services: Services, plan: FleetPlan, console: Console, quiet: bool, stopped: threading.Event,
    began: float,
) -> Run:  # fmt: skip
    """Publish, send, and wait until the last record is rated."""
    settings = stack.settings
    fleet = Fleet(plan)
    with TemporaryDirectory() as scratch:
        write_documents(
            Path(scratch), tariffs(), {"locations": locations(fleet.network), "tokens": tokens(fleet.network)}
        )
        published = publish_folder(settings, Path(scratch))
    console.print(f"reference version {published.version}: tariffs, locations, tokens published")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    sent_s = time.monotonic()
    with Progress(*columns, console=console, disable=quiet) as progress:
        sending = progress.add_task("messages sent", total=None)

        def told(messages: int, _time_ms: int) -> None:
            progress.update(sending, completed=messages)
            if stopped.is_set():
                raise EmbeddedError("the demo was stopped before its end")

        written = write(settings, _batches(fleet), progress=told)
        progress.update(sending, completed=written.messages, total=written.messages)
        rating = progress.add_task("records rated", total=None)
        with Store(settings) as store:
            ledger = StoreLedger(store, Admin(settings).log_id(READINGS))
            _await_rated(
                settings,
                ledger,
                services,
                lambda done, whole: progress.update(rating, completed=done, total=whole),
                stopped,
            )
            summary = summarise(store, ledger.log_id)
            session = largest_session(store, ledger.log_id)
    now = time.monotonic()
    return Run(now - began, now - sent_s, summary, stack.folder, session)


def _batches(fleet: Fleet) -> Iterator[Batch]:
    for chunk in fleet.chunks():
        yield chunk.batch


def _await_rated(
    settings: Settings,
    ledger: StoreLedger,
    services: Services,
    told: Callable[[int, int], None],
    stopped: threading.Event,
) -> None:
    """Wait until every record that was sent is covered by a marker."""
    deadline = time.monotonic() + _RATED_TIMEOUT_S
    admin = Admin(settings)
    while time.monotonic() < deadline:
        services.check()
        if stopped.is_set():
            raise EmbeddedError("the demo was stopped before its end")
        try:
            covered = ledger.covered_ends()
        except StoreUnavailableError:
            covered = {}
        ends = admin.end_offsets(READINGS, covered)
        done = sum(min(covered.get(p, 0), end) for p, end in ends.items())
        told(done, sum(ends.values()))
        if ends and all(covered.get(p, 0) >= end for p, end in ends.items()):
            return
        time.sleep(0.2)
    raise EmbeddedError(
        f"the worker did not get through in {_RATED_TIMEOUT_S:.0f} s; its log is rate.log in the data folder"
    )


def as_document(run: Run) -> dict[str, object]:
    """The summary for programs. Money as decimal strings."""
    found = run.summary
    return {
        "records_in": found.counts["records"] - found.counts["control"],
        "control_records": found.counts["control"],
        **{name: found.counts[name] for name in ("used", "duplicate", "quarantined", "dead_lettered", "readings")},
        "sessions_settled": found.sessions_settled,
        "sessions_held": found.sessions_held,
        "credits": found.credits,
        "energy_kwh": round(found.energy_kwh, 6),
        "cost": {currency: str(amount) for currency, amount in found.cost.items()},
        "alerts": found.alerts,
        "readings_per_s": round(found.counts["readings"] / run.rated_s),
        "elapsed_s": round(run.elapsed_s, 2),
        "control_totals_hold": found.adds_up,
        "explain": run.session,
        "data_dir": str(run.data_dir),
    }


def show(console: Console, run: Run) -> None:
    """The summary for people."""
    found = run.summary
    counts = found.counts
    console.print()
    console.print(
        f"[bold]{counts['records'] - counts['control']:,}[/] records = {counts['used']:,} used + "
        f"{counts['duplicate']:,} duplicate + {counts['quarantined']:,} quarantined + "
        f"{counts['dead_lettered']:,} dead-lettered   "
        + ("[green]adds up[/]" if found.adds_up else "[red]does not add up[/]")
    )
    console.print(
        f"[bold]{found.sessions_settled:,}[/] sessions settled ({found.credits:,} credits), "
        f"{found.sessions_held:,} held, {found.energy_kwh:,.3f} kWh, "
        + ", ".join(f"{amount:,.2f} {c}" for c, amount in sorted(found.cost.items()))
    )
    usage = Table(
        "tariff", "band", "dimension", "quantity", "cost excl. rounding", title="rated usage", title_justify="left"
    )
    for row in found.usage:
        quantity = (
            f"{row.energy_kwh:,.3f} kWh" if row.dimension == "ENERGY" else f"{row.hours:,.2f} h" if row.hours else ""
        )
        usage.add_row(row.tariff, row.band, row.dimension, quantity, f"{row.cost:,.2f} {row.currency}")
    console.print(usage)
    alerts = Table("alert", "count", title="alerts", title_justify="left")
    for kind, count in found.alerts.items():
        alerts.add_row(kind, f"{count:,}")
    console.print(alerts)
    console.print(f"{counts['readings'] / run.rated_s:,.0f} readings/s sent and rated, {run.elapsed_s:.1f} s in all")
    console.print("\n[bold]Where to look next[/]")
    console.print(f"  wattrate explain '{run.session}'   one bill, line by line")
    console.print("  wattrate quarantine list        what is held back, and why")
    console.print("  wattrate verify                 the control totals, from the ledger")
    console.print("  wattrate publish my-tariffs/    change a price: sessions that start from now on pay it")

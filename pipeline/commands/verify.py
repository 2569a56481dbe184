"""`wattrate verify`: the control totals of the ledger, once or for ever."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import click

from pipeline.archive import KeptDoors
from pipeline.clickhouse import Store
from pipeline.errors import BrokerUnavailableError, ChecksFailedError, DocumentError, StoreUnavailableError
from pipeline.log import Log
from pipeline.metrics import Figure, MetricsPage
from pipeline.rate.doors import RealDoors
from pipeline.rate.recompute import Recomputation
from pipeline.read.checks import BROKEN, WARNING, Check, Place, check, log_name
from pipeline.read.verify import report, verify
from pipeline.read.verify_published import published_checks
from pipeline.settings import Settings

LOG = Log("verify")


@click.command()
@click.option("--since", default="", help="Only what was marked at this log time (RFC 3339) or later.")
@click.option("--published", is_flag=True, help="Also hold the output topics against the ledger (reads them whole).")
@click.option("--recompute", is_flag=True, help="Also rate every batch again from the log and compare checksums.")
@click.option("--kept", is_flag=True, help="Recompute from what `wattrate archive` keeps: Kafka is not asked.")
@click.option("--log", metavar="ID", help="Of the kept logs: this one (its id, as it is printed), not the newest.")
@click.option("--partition", type=int, help="Of the readings topic: recompute only this one.")
@click.option("--every", type=float, metavar="SECONDS", help="Go on for ever: again so long after each round.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(
    settings: Settings, since: str, published: bool, recompute: bool, kept: bool, log: str | None,
    partition: int | None, every: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Check the control totals of the ledger. Exit code 1 and the difference when one is broken.

    Checked are the markers (they tile each partition; every record has one outcome), the rows (as many, with the sums,
    as their markers promise), the outputs (nothing published that was not marked), and the sessions (rated energy and
    cost are what the CDRs say; corrections net to the last CDR; the meter's register is accounted for to the mWh).
    Only the store is asked, unless --published or --recompute ask for the log; with --kept, --recompute doesn't either.

    With --every it runs until it is stopped, tells broken totals in its log, and says what it found on a metrics page
    (WATTRATE_METRICS_PORT).
    """
    since_ms = _instant_ms(since) if since else None
    log_id = _log_id(log) if log else None
    if (kept or log_id is not None) and not (kept and recompute):
        raise click.UsageError("--kept goes with --recompute, --log with --kept")

    def checks() -> Iterator[Check]:
        with Store(settings) as store:
            yield from verify(store, since_ms)
            if published:
                yield from published_checks(settings, store)
            if recompute:
                doors = KeptDoors(settings, log_id) if kept else RealDoors.of_topic(settings)
                yield recomputed(doors, since_ms or 0, partition)

    if every is not None:
        _for_ever(settings, checks, every)
        return
    found: list[Check] = []
    for one in checks():
        found.append(one)
        if not as_json:
            _print(one)
    if as_json:
        print(json.dumps(report(found), indent=2))
    broken = [one.name for one in found if one.state == BROKEN]
    if broken:
        raise ChecksFailedError(f"broken control totals: {', '.join(broken)}")


def recomputed(doors: RealDoors, since_ms: int, partition: int | None) -> Check:
    """Every batch since a log time, rated again from the log behind these doors, which are closed then."""
    places: list[Place] = []
    batches = 0
    try:
        again = Recomputation(doors)
        for number in range(doors.partitions) if partition is None else [partition]:
            for one in again.of(number, since_ms):
                batches += 1
                if not one.holds:
                    places.append(
                        {
                            "log_id": log_name(doors.log_id), "partition": number,
                            "first_offset": one.marker.first_offset, "last_offset": one.marker.last_offset,
                            "marked_by": one.marker.code_version, "rated_by": one.code_version,
                        }
                    )  # fmt: skip
    finally:
        doors.close()
    found = check("recomputed", batches, places, f"{batches} batches give the checksum of their marker again")
    if not again.beyond or found.state == BROKEN:
        return found
    return replace(found, state=WARNING, text=f"{found.text}; {again.beyond} more end after what is kept")


class _Rounds:
    """What the last round found, for the metrics page."""

    def __init__(self) -> None:
        self.found: list[Check] = []
        self.ended_s = 0.0
        self.waits = False

    def figures(self) -> list[Figure]:
        """Of the last round that was finished."""
        wrong = [({"check": one.name}, float(one.wrong if one.state == BROKEN else 0)) for one in self.found]
        return [
            Figure("wattrate_verify_broken", "gauge", "Differences by control total; 0 is well.", wrong),
            Figure("wattrate_verify_ended_seconds", "gauge", "When the last round ended (Unix).", [({}, self.ended_s)]),
            Figure("wattrate_verify_waiting", "gauge", "1 in an outage of store or broker.", [({}, int(self.waits))]),
        ]


def _for_ever(settings: Settings, checks: Callable[[], Iterator[Check]], every_s: float) -> None:
    done, rounds = threading.Event(), _Rounds()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    page = MetricsPage(settings.metrics_host, settings.metrics_port, rounds.figures) if settings.metrics_port else None
    while not done.is_set():
        try:
            rounds.found = list(checks())
        except (StoreUnavailableError, BrokerUnavailableError) as outage:
            rounds.waits = True
            LOG.warning("outage: verified again later", why=outage.message)
        else:
            rounds.waits, rounds.ended_s = False, time.time()
            broken = [one for one in rounds.found if one.state == BROKEN]
            for one in broken:
                LOG.error("broken control total", check=one.name, wrong=one.wrong, first=one.places[:1])
            LOG.info("verified", checks=len(rounds.found), broken=len(broken))
        done.wait(every_s)
    if page is not None:
        page.close()


def _print(one: Check) -> None:
    text = one.text if one.state != BROKEN else f"{one.wrong} of {one.compared} differ"
    print(f"{one.state:<8} {one.name:<22} {text}")
    for place in one.places:
        print(f"{'':<8} {'':<22} " + ", ".join(f"{name} {value}" for name, value in place.items()))


def _instant_ms(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise DocumentError(f"--since {text!r} is no instant: write it as 2024-06-03T10:00:00Z") from error
    return round(instant.replace(tzinfo=instant.tzinfo or UTC).timestamp() * 1000)


def _log_id(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError as error:
        raise DocumentError(f"--log {text!r} is no log's id: write it as {log_name(0x1F2E3D4C5B6A7988)}") from error

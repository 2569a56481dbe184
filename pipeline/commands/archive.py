"""`wattrate archive`: the log's records are copied into the store, in the foreground."""

import signal
import threading
import time
from contextlib import AbstractContextManager, nullcontext

import click

from pipeline.archive import Archive
from pipeline.errors import BrokerUnavailableError, IntegrityError, StoreUnavailableError
from pipeline.log import Log
from pipeline.metrics import Figure, MetricsPage
from pipeline.settings import Settings

LOG = Log("archive")
_AGAIN_S = 1.0
_REPORT_S = 10.0


class _Said:
    """What has been copied, over all members that one command was, for its log and its page."""

    def __init__(self) -> None:
        self.records = self.bytes = 0
        self.behind: dict[int, int] = {}
        self.waits = False
        self._told_s = time.monotonic()

    def copied(self, one: Archive, records: int, size: int) -> None:
        self.records, self.bytes = self.records + records, self.bytes + size
        self.behind, self.waits = one.behind(), False
        if records and time.monotonic() - self._told_s > _REPORT_S:
            self._told_s = time.monotonic()
            LOG.info("copied", records=self.records, bytes=self.bytes, behind=sum(self.behind.values()))

    def figures(self) -> list[Figure]:
        behind = [({"partition": str(partition)}, float(count)) for partition, count in sorted(self.behind.items())]
        return [
            Figure("wattrate_archive_records_total", "counter", "Records copied.", [({}, self.records)]),
            Figure("wattrate_archive_bytes_total", "counter", "Their bytes.", [({}, self.bytes)]),
            Figure("wattrate_archive_behind_records", "gauge", "Records that are not copied yet.", behind),
            Figure("wattrate_archive_waiting", "gauge", "1 in an outage of store or broker.", [({}, int(self.waits))]),
        ]


@click.command()
@click.option("--drain", type=float, metavar="SECONDS", help="End when no record came for this long; default: never.")
@click.option("--again", is_flag=True, help="From the oldest record that Kafka still has: fills what is missing.")
@click.pass_obj
def command(settings: Settings, drain: float | None, again: bool) -> None:
    """Keep the records of the readings topic in the store (record_rows) until stopped.

    With them any batch can be rated again when Kafka no longer has it: `wattrate verify --recompute --kept`. Several of
    these share the partitions; a record that is copied twice is one row. `wattrate verify` says whether one is missing.
    Outages are waited for. WATTRATE_METRICS_PORT gives it a page for Prometheus.
    """
    done, said = threading.Event(), _Said()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    page: AbstractContextManager[object] = nullcontext()
    if settings.metrics_port:
        page = MetricsPage(settings.metrics_host, settings.metrics_port, said.figures)
    with page:
        while not _copy(settings, done, said, drain, again):
            again = False
            done.wait(_AGAIN_S)
    click.echo(f"{said.records} records copied")


def _copy(settings: Settings, done: threading.Event, said: _Said, drain: float | None, again: bool) -> bool:
    """As a member of the group until told to end, or nothing came for so long; False where an outage ended it."""
    try:
        with Archive(settings, again=again) as archive:
            quiet_s = time.monotonic()
            while not done.is_set():
                copied = archive.step()
                said.copied(archive, *copied)
                if copied.records or not archive.member:
                    quiet_s = time.monotonic()
                elif drain is not None and time.monotonic() - quiet_s > drain:
                    break
    except (BrokerUnavailableError, StoreUnavailableError, IntegrityError) as outage:
        LOG.warning("outage: begun again", why=outage.message)
        said.waits = True
        return done.is_set()
    return True

"""`wattrate rate`: a rating worker in the foreground."""

import json
import signal
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

import click

from pipeline.errors import DroppedError
from pipeline.log import Log
from pipeline.metrics import MetricsPage
from pipeline.rate.progress import Progress
from pipeline.rate.warm import make_ready
from pipeline.rate.worker import Worker
from pipeline.settings import Settings

LOG = Log("rate")


@click.command()
@click.option("--drain", type=float, metavar="SECONDS", help="End when no record came for this long; default: never.")
@click.option("--json", "as_json", is_flag=True, help="At the end print what was done as one JSON object.")
@click.pass_obj
def command(settings: Settings, drain: float | None, as_json: bool) -> None:
    """Rate the readings of the log until stopped (SIGTERM or Ctrl-C: finish, store the state, leave the group).

    Several workers with the same group id share the partitions. A worker waits for broker and store where they are
    not there; when it loses its partitions to another it drops what is not committed and joins again.
    WATTRATE_METRICS_PORT gives it a page for Prometheus: records by outcome, lag, log time, outages.
    """
    done = threading.Event()
    running: list[Worker] = []

    def stop(*_: object) -> None:
        done.set()
        for worker in running:
            worker.stop()

    page: AbstractContextManager[object] = nullcontext()
    if settings.metrics_port:
        page = MetricsPage(
            settings.metrics_host, settings.metrics_port, lambda: [f for worker in running for f in worker.figures()]
        )
        LOG.info("metrics page", url=f"http://{settings.metrics_host}:{settings.metrics_port}/metrics")
    LOG.info("kernels are made ready; the first time after an upgrade this compiles for a minute or two")
    make_ready()  # before joining the group: a member that compiles is taken for dead
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with page:
        progress = _rate(settings, drain, running, done)
    if as_json:
        print(json.dumps(asdict(progress)))


def _rate(settings: Settings, drain: float | None, running: list[Worker], done: threading.Event) -> Progress:
    """Run workers one after the other, a new one where the last dropped its batch, until one ends in peace."""
    while True:
        worker = Worker.connect(settings, wait=lambda: not done.is_set())
        running[:] = [worker]
        if done.is_set():  # told to end while it connected
            worker.stop()
        try:
            return worker.run(drain_s=drain)
        except DroppedError as error:
            LOG.warning("forgetting all: joining anew", why=str(error))
            if done.is_set():  # it was to end; what it dropped is for whoever comes next
                return worker.progress

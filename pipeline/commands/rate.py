"""`wattrate rate`: a rating worker in the foreground."""

import json
import signal
import threading
from dataclasses import asdict

import click

from pipeline.errors import FencedError
from pipeline.log import Log
from pipeline.rate.warm import compile_all
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
    """
    done = threading.Event()
    running: list[Worker] = []

    def stop(*_: object) -> None:
        done.set()
        for worker in running:
            worker.stop()

    LOG.info("kernels are made ready; the first time after an upgrade this compiles for a minute or two")
    compile_all()  # before joining the group: a member that compiles is taken for dead
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while True:
        worker = Worker.connect(settings, wait=lambda: not done.is_set())
        running[:] = [worker]
        try:
            progress = worker.run(drain_s=drain)
        except FencedError as error:
            LOG.warning("fenced: forgetting all, joining again", why=str(error))
            if not done.is_set():
                continue
            raise
        break
    if as_json:
        print(json.dumps(asdict(progress)))

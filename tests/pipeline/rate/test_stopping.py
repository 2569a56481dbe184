"""A worker that is told to end while it still connects."""

import threading

from pipeline.commands import rate
from pipeline.rate.progress import Progress
from pipeline.rate.worker import Worker
from pipeline.settings import Settings


def test_a_signal_that_comes_while_the_worker_connects_ends_it(ready: Settings) -> None:
    told, running, ended = threading.Event(), list[Worker](), list[Progress]()
    told.set()  # as the handler of SIGTERM does, which knows of no worker yet
    rating = threading.Thread(target=lambda: ended.append(rate._rate(ready, None, running, told)), daemon=True)
    rating.start()
    rating.join(60)
    assert [progress.records for progress in ended] == [0]

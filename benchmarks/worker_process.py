"""A rating worker in a process of its own that tells its time, CPU and memory from its first batch to its last.

Started by `stand.rate`; settings come as JSON on standard input, the answer goes as JSON to standard output.
"""

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.stand import settings_from
from pipeline.embedded.processes import die_with_parent
from pipeline.rate.progress import Progress
from pipeline.rate.warm import make_ready
from pipeline.rate.worker import Worker

_LOOK_S: Final = 0.05


class Watcher:
    """Looks at its own process every 50 ms: (monotonic s, CPU s, resident MB, readings that count)."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float, float, int]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._progress: Progress | None = None
        self._stop: Callable[[], None] = lambda: None
        self._enough = 0

    def start(self, progress: Progress, stop: Callable[[], None], enough: int) -> None:
        """Begin; call `stop` when `enough` records count, if that is not 0."""
        self._progress, self._stop, self._enough = progress, stop, enough
        self._thread.start()

    def stop(self) -> None:
        """End with a last look."""
        self._done.set()
        self._thread.join()
        self._note()

    def between(self, first_s: float, last_s: float) -> float:
        """CPU seconds used from one instant to another."""
        before = [cpu for at, cpu, _, _ in self.seen if at <= first_s]
        after = [cpu for at, cpu, _, _ in self.seen if at >= last_s]
        return (after[0] if after else self.seen[-1][1]) - (before[-1] if before else self.seen[0][1])

    def _look(self) -> None:
        while not self._done.wait(_LOOK_S):
            self._note()
            if self._enough and self._progress and self._progress.records >= self._enough:
                self._stop()

    def _note(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        readings = self._progress.readings if self._progress else 0
        self.seen.append((time.monotonic(), used.ru_utime + used.ru_stime, resident_mb(), readings))


def resident_mb(pid: int | str = "self") -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Rate until nothing came for as long as the first argument says (0: until SIGTERM), or so many records count."""
    die_with_parent()
    settings = settings_from(sys.stdin.readline())
    drain_s, records = float(sys.argv[1]), int(sys.argv[2])
    make_ready()
    base_mb, watcher = resident_mb(), Watcher()
    worker = Worker.connect(settings, wait=lambda: False)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    watcher.start(worker.progress, worker.stop, records)
    progress = worker.run(drain_s=drain_s or None)
    watcher.stop()
    found = {
        **asdict(progress),
        "cpu_s": watcher.between(progress.first_batch_s, progress.last_batch_s),
        "compiled_mb": base_mb,
        "resident_mb": max(mb for at, _, mb, _ in watcher.seen if at <= progress.last_batch_s or not progress.batches),
        "course": [(at, readings) for at, _, _, readings in watcher.seen[::20]],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

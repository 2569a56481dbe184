"""Rating workers at a fork's price: `python -m tests.faults.zygote` imports and compiles once, then forks on request.

Each line on its input is a JSON object {environ, log, arguments}; the child runs `wattrate` with those arguments and
that environment, its output in the log. Two lines come back for each: the child's process id, then its exit code
(minus the signal that killed it). One child at a time.
"""

import json
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pipeline.cli import main as wattrate
from pipeline.embedded.processes import die_with_parent
from pipeline.rate.warm import make_ready


def serve() -> None:
    """Until the input ends."""
    make_ready()
    _answer("ready")
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        child = os.fork()
        if not child:
            _become(asked)
        _answer(child)
        _answer(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _answer(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _become(asked: Mapping[str, Any]) -> None:
    """A worker, and never anything else."""
    code = 1
    die_with_parent()
    try:
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(log, number)
        os.environ.clear()
        os.environ.update(asked["environ"])
        wattrate(list(asked["arguments"]))
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 (told in the log; a fork must not run on as its parent)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Zygote:
    """The process that forks, seen from a test."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        self._ready = False

    def start(self, environ: Mapping[str, str], log: Path, *arguments: str) -> int:
        """Fork a worker; its process id."""
        assert self._process.stdin is not None
        if not self._ready:  # asked late, so that several get ready side by side
            assert self._line() == "ready"
            self._ready = True
        asked = {"environ": dict(environ), "log": str(log), "arguments": arguments}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def poll(self, timeout_s: float) -> int | None:
        """Exit code of the worker, if it ends in time."""
        assert self._process.stdout is not None
        ended, _, _ = select.select([self._process.stdout.fileno()], [], [], timeout_s)
        return int(self._line()) if ended else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and the worker with it."""
        with self._process as process:
            process.kill()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the forking process ended"
        return line.strip()


if __name__ == "__main__":
    serve()

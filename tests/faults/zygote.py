"""Workers and stores at a fork's price: `python -m tests.faults.zygote worker` loads all once, then forks on request.

Each line on its input is a JSON object {environ, log, arguments}; the child runs `wattrate` (or the store's server)
with those arguments and that environment, its output in the log. Two lines come back for each: the child's process id,
then its exit code (minus the signal that killed it). One child at a time. What starts threads (connections, the
engine on its folder) is left to the child.
"""

import importlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Self

from pipeline.cli import main as wattrate
from pipeline.embedded.processes import die_with_parent
from pipeline.embedded.store_server import serve as serve_store
from pipeline.rate.warm import make_ready

WORKER, STORE = "worker", "store"
# The engine compiles an expression at its third use, which costs a store that lives for seconds more than it saves.
_UNCOMPILED: Final = dict.fromkeys(
    ("compile_expressions", "compile_aggregate_expressions", "compile_sort_description"), "0"
)
_GONE_S: Final = 300.0  # on a machine that is busy with other things
Main = Callable[[Sequence[str]], object]


def serve(load: Callable[[], object], main: Main) -> None:
    """Until the input ends."""
    load()
    _answer("ready")
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        child = os.fork()
        if not child:
            _become(asked, main)
        _answer(child)
        _answer(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _answer(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _load_engine() -> None:
    """The engine's library without its Python package, whose import opens an engine in memory first."""
    found = importlib.util.find_spec("chdb")
    assert found is not None, "pip install 'wattrate[embedded]'"
    package = ModuleType("chdb")
    package.__path__ = list(found.submodule_search_locations or [])
    sys.modules["chdb"] = package
    importlib.import_module("chdb._chdb")


def _serve_store(arguments: Sequence[str]) -> None:
    folder, port = arguments
    serve_store(Path(folder), int(port), **_UNCOMPILED)


_KINDS: Final[Mapping[str, tuple[Callable[[], object], Main]]] = {
    WORKER: (make_ready, lambda arguments: wattrate(list(arguments))),
    STORE: (_load_engine, _serve_store),
}


def _become(asked: Mapping[str, Any], main: Main) -> None:
    """What was asked for, and never anything else."""
    code = 1
    die_with_parent()
    try:
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(log, number)
        os.environ.clear()
        os.environ.update(asked["environ"])
        main(asked["arguments"])
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

    def __init__(self, environ: Mapping[str, str], kind: str = WORKER) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote", kind],
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        self._ready = False
        self._child: int | None = None

    @property
    def running(self) -> bool:
        """Whether its child had not ended when it was asked last."""
        return self._child is not None

    def start(self, environ: Mapping[str, str], log: Path, *arguments: str) -> int:
        """Fork one; its process id."""
        assert self._process.stdin is not None
        if not self._ready:  # asked late, so that several get ready side by side
            assert self._line() == "ready"
            self._ready = True
        asked = {"environ": dict(environ), "log": str(log), "arguments": arguments}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        self._child = int(self._line())
        return self._child

    def poll(self, timeout_s: float) -> int | None:
        """Exit code of the child, if it ends in time."""
        assert self._process.stdout is not None
        ended, _, _ = select.select([self._process.stdout.fileno()], [], [], timeout_s)
        if not ended:
            return None
        self._child = None
        return int(self._line())

    def kill(self) -> None:
        """SIGKILL for its child, if it has one, and wait until that is gone."""
        if self._child is not None:
            with suppress(ProcessLookupError):  # it has ended since
                os.kill(self._child, signal.SIGKILL)
            assert self.poll(_GONE_S) is not None, "a killed process does not end"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and its child with it."""
        with self._process as process:
            process.kill()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the forking process ended"
        return line.strip()


if __name__ == "__main__":
    serve(*_KINDS[sys.argv[1]])

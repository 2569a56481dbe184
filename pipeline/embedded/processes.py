"""Child processes that don't outlive their parent, ports that are free, and waiting until a child answers."""

import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.errors import EmbeddedError

LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded before any fork
_PORTS_TRIED = 50
_LISTEN = "0A"  # in /proc/net/tcp
_Part = TypeVar("_Part")
_reserved: dict[int, socket.socket] = {}  # by this process


def free_port(first: int) -> int:
    """The first port from `first` on that nothing listens on (loopback). Raises EmbeddedError when 50 are taken.

    It may be taken a moment later: to start a part of ours use `start_on_free_port`.
    """
    for port in _ports(first):
        if _is_free(port):
            return port
    raise _all_taken(first)


def start_on_free_port(first: int, start: Callable[[int], _Part]) -> _Part:
    """What `start(port)` gives for the first port from `first` on that can be had.

    No two parts that any process here starts get the same: a name in Linux's abstract socket space stands for the
    port until `give_back` or the end of this process, so also while a part is down that comes back. A port that some
    other program takes in between makes `start` fail, and the next one is tried. Raises EmbeddedError when 50 are
    taken, and what `start` raises.
    """
    for port in _ports(first):
        if not _is_free(port) or not _reserve(port):
            continue
        try:
            return start(port)
        except EmbeddedError:
            give_back(port)
            if _is_free(port):  # it failed for a reason of its own
                raise
    raise _all_taken(first)


def give_back(port: int) -> None:
    """A part that was started on the port will not come back: another one may have it."""
    if port in _reserved:
        _reserved.pop(port).close()


def _ports(first: int) -> range:
    return range(first, min(first + _PORTS_TRIED, 65536))


def _all_taken(first: int) -> EmbeddedError:
    return EmbeddedError(
        f"ports {first} to {first + _PORTS_TRIED - 1} on {LOOPBACK} are all taken; choose another in the settings"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _reserve(port: int) -> bool:
    """Whether the port is ours now; the kernel gives it back however this process ends."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0wattrate-port-{port}")
    except OSError:
        name.close()
        return False
    _reserved[port] = name
    return True


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, however that happens. Called in the child."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """A program started by us, its output in a file."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, *, tied: bool = True) -> None:
        """Start it. `tied`: it ends when the thread that started it does; otherwise it lives on."""
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            try:
                self._process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in the terminal is for us: we stop the children in order
                    preexec_fn=die_with_parent if tied else None,
                )
            except OSError as error:
                raise EmbeddedError(f"can't start the {name} ({arguments[0]}): {error.strerror}") from error
        self.pid = self._process.pid

    def running(self) -> bool:
        """Whether it is still alive."""
        return self._process.poll() is None

    def listens_on(self, port: int) -> bool:
        """Whether it is this program that takes connections on the loopback port, and not another one's."""
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{self.pid}/fd").iterdir()]
        except OSError:  # it has ended
            return False
        return not _listening(port).isdisjoint(links)

    def await_ready(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Return when `ready` says so. Raises EmbeddedError with the end of its log when it dies or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.running():
                raise EmbeddedError(f"the {self.name} ended at once: {self.last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                raise EmbeddedError(f"the {self.name} does not answer after {timeout_s:g} s; see {self.log}")
            time.sleep(0.01)

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        return f"{lines[-1]} (all of it: {self.log})" if lines else f"it said nothing ({self.log})"

    def ask_to_end(self) -> None:
        """SIGTERM, without waiting."""
        if self.running():
            self._process.terminate()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End it: politely, then not."""
        self.ask_to_end()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()


def _listening(port: int) -> set[str]:
    """The sockets that listen on a port, as they stand in /proc/PID/fd."""
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {f"socket:[{row[9]}]" for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port}


def accepts(port: int) -> bool:
    """Whether something takes connections on this loopback port."""
    try:
        socket.create_connection((LOOPBACK, port), 0.2).close()
    except OSError:
        return False
    return True

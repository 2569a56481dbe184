"""The C shim `interpose.c`: built once, loaded into a process with LD_PRELOAD, armed through shared memory.

chDB calls the C library through its symbol table, so LD_PRELOAD sees every call that changes a file; compared with
strace call by call, none was missed. (Its loader asks for RTLD_DEEPBIND, which would bind it past us: the shim takes
that flag off in dlopen.) strace's own fault injection counts by thread, and the engine's inserts wander over threads.
"""

import mmap
import shutil
import struct
import subprocess
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

from pipeline.errors import EmbeddedError

_SOURCE: Final = Path(__file__).with_name("interpose.c")
_LAYOUT: Final = struct.Struct("<QQIIIIq16s200s")  # struct control, before `kinds`
_CLOCK_AT: Final = 32
_KINDS: Final = 16_384
KINDS: Final = {
    "w": "write", "p": "write", "s": "send", "f": "fsync", "t": "truncate", "r": "rename", "l": "link", "m": "mkdir",
    "d": "rmdir", "u": "unlink", "c": "create",
}  # fmt: skip


_Control = tuple[int, int, int, int, int, int, int, bytes, bytes]


class Action(IntEnum):
    """What happens at the call that is struck; the numbers are interpose.c's."""

    KILL_BEFORE = 1
    KILL_AFTER = 2
    DISK_FULL = 3
    IO_ERROR = 4
    TORN = 5
    READ_ONLY = 6

    @property
    def told(self) -> str:
        """For a table."""
        return {
            Action.KILL_BEFORE: "killed before the call",
            Action.KILL_AFTER: "killed after the call",
            Action.DISK_FULL: "disk full at the call",
            Action.IO_ERROR: "I/O error at the call",
            Action.TORN: "half written, then killed",
            Action.READ_ONLY: "read-only from the call on",
        }[self]


def build(folder: Path) -> Path:
    """Compile the shim. Raises EmbeddedError where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise EmbeddedError("crash points need a C compiler: apt-get install gcc libc6-dev")
    library = folder / "interpose.so"
    subprocess.run([compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
    return library


class Interposer:
    """The shim in one process at a time: what it has counted, and the call that it is to strike."""

    def __init__(self, library: Path, control: Path, prefix: str, port: int = 0) -> None:
        """Calls on paths that begin with `prefix` count; "socket:" those on sockets to `port` of this machine."""
        control.write_bytes(_LAYOUT.pack(0, 0, 0, 1, 0, port, 0, b"", b"") + bytes(_KINDS))
        with control.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _LAYOUT.size + _KINDS)
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAULTS_CONTROL": str(control),
            "FAULTS_PREFIX": prefix,
        }

    @property
    def count(self) -> int:
        """Calls so far."""
        return int(self._read()[0])

    def kinds(self, first: int) -> list[str]:
        """What the calls were, from the one after the `first` first ones on, as far as there is room to note them."""
        noted = self._shared[_LAYOUT.size + first : _LAYOUT.size + min(self.count, _KINDS)]
        return [KINDS[letter] for letter in noted.decode()]

    @property
    def fired(self) -> int:
        """How many were struck since it was armed."""
        return int(self._read()[4])

    @property
    def struck(self) -> str:
        """The first of them: the call and its path."""
        call, path = self._read()[7:9]
        return f"{call.rstrip(bytes(1)).decode()} {path.rstrip(bytes(1)).decode('utf-8', 'replace')}"

    def arm(self, call: int, action: Action, *, calls: int = 1) -> None:
        """Strike the `call`th call from now on, counted from 1, and the `calls` - 1 after it."""
        self.disarm()
        port, clock_s = self._read()[5:7]
        self._shared[16 : _LAYOUT.size] = _LAYOUT.pack(0, 0, action, calls, 0, port, clock_s, b"", b"")[16:]
        self._shared[8:16] = struct.pack("<Q", self.count + call)

    def shift_clock(self, seconds: int) -> None:
        """Put the process's wall clock so far ahead of the machine's."""
        self._shared[_CLOCK_AT : _CLOCK_AT + 8] = struct.pack("<q", seconds)

    def disarm(self) -> None:
        """Strike nothing."""
        self._shared[8:16] = bytes(8)

    def close(self) -> None:
        """Let go of the shared memory."""
        self._shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> _Control:
        found: _Control = _LAYOUT.unpack(self._shared[: _LAYOUT.size])
        return found

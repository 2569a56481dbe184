"""A TCP proxy on loopback that misbehaves on request: the network between worker and store, in a test's hands."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

CHUNK = 1 << 16


@dataclass(frozen=True)
class Fault:
    """What happens to the connections that begin while it is set.

    refuse: closed at once. cut_request_after, cut_answer_after: bytes that pass before both sides are reset (0 = none
    passes; the other side has read all of what was sent before). delay_s: before each chunk of an answer. late_s:
    before each chunk of a request, which is delivered even when the client has given up meanwhile. `times`: how many
    connections it hits, then all is well.
    """

    refuse: bool = False
    cut_request_after: int | None = None
    cut_answer_after: int | None = None
    delay_s: float = 0.0
    late_s: float = 0.0
    times: int = 1 << 30


class Proxy:
    """Listens on `port`, forwards to `target`; `fault` sets what happens next."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._fault = Fault()
        self._hits = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.drop_all()

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """Misbehave inside the block; connections that are open already are dropped first, so that none escapes."""
        self.drop_all()
        with self._lock:
            self._fault, self._hits = fault, 0
        try:
            yield
        finally:
            with self._lock:
                self._fault = Fault()
            self.drop_all()

    @property
    def hits(self) -> int:
        """Connections that the current fault met."""
        return self._hits

    def drop_all(self) -> None:
        """Reset every open connection."""
        for link in list(self._open):
            _reset(link)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client, self._next()), daemon=True).start()

    def _next(self) -> Fault:
        with self._lock:
            if self._fault == Fault() or self._hits >= self._fault.times:
                return Fault()
            self._hits += 1
            return self._fault

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        if fault.refuse:
            _reset(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:  # nobody there: the client is told as if there were no proxy
            _reset(client)
            return
        both = (client, server)
        self._open.update(both)

        def end() -> None:
            for link in both:
                _reset(link)

        answer = threading.Thread(
            target=_pump, args=(server, client, fault.cut_answer_after, fault.delay_s, end), daemon=True
        )
        answer.start()
        _pump(client, server, fault.cut_request_after, fault.late_s, end)
        answer.join()
        self._open.difference_update(both)


def _pump(
    source: socket.socket, sink: socket.socket, limit: int | None, delay_s: float, end: Callable[[], None]
) -> None:
    passed = 0
    with suppress(OSError):
        while data := source.recv(CHUNK):
            time.sleep(delay_s)
            if limit is not None and passed + len(data) > limit:
                sink.sendall(data[: limit - passed])
                break
            passed += len(data)
            sink.sendall(data)
    end()


def _reset(link: socket.socket) -> None:
    """Close so that the peer sees a reset, not an orderly end."""
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
    link.close()

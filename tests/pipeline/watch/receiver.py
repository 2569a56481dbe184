"""A real HTTP endpoint on loopback that keeps what it gets and answers as it is told."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Got:
    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    url: str
    answer: Callable[["Got"], int]
    got: list[Got] = field(default_factory=list)

    def event_ids(self) -> list[str]:
        return [one["event_id"] for got in self.got if got.status == 200 for one in got.json["alerts"]]


@contextmanager
def receiver(answer: Callable[[Got], int] = lambda got: 200) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got = Got(self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])), 0)
            got.status = kept.answer(got)
            kept.got.append(got)
            self.send_response(got.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept = Receiver(f"http://127.0.0.1:{server.server_address[1]}", answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

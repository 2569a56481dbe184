"""`python -m pipeline.embedded.store_server --path DIR --port N`: chDB behind ClickHouse's HTTP interface.

So worker, pages and billing jobs share one folder over a real connection, and tests meet a real network. Loopback
only, no users, no sessions (settings hold for one request); otherwise clickhouse-connect can't tell the difference.
A lock file lets one server open a folder.
"""

import argparse
import fcntl
import gzip
import json
import os
import signal
import socket
import sys
import threading
import zlib
from collections.abc import Mapping
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import lz4.frame
import zstandard

from pipeline.embedded.engine import Answer, Engine, EngineError, Statement
from pipeline.embedded.processes import LOOPBACK, die_with_parent
from pipeline.errors import EmbeddedError

LOCK_FILE: Final = "wattrate.lock"
# Names that belong to the transport, or to the session that we don't have: never the engine's.
_TRANSPORT: Final = frozenset(
    (
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "session_id",
        "session_timeout",
        "session_check",
        "query_id",
        "quota_key",
        "role",
        "compress",
        "decompress",
        "buffer_size",
        "wait_end_of_query",
        "client_protocol_version",
        "enable_http_compression",
        "http_zlib_compression_level",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
    )
)
_NOT_FOUND: Final = frozenset((36, 60, 81))
_BAD_REQUEST: Final = frozenset((6, 26, 27, 33, 38, 41, 46, 47, 53, 62, 70, 72, 115, 117, 130, 131, 349))
_COMPRESS_FROM_BYTES: Final = 1 << 16


class Refused(Exception):  # noqa: N818 (an HTTP answer, told in ClickHouse's words)
    """A request that never reaches the engine."""


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server_version = "wattrate-embedded-store"
    wbufsize = 1 << 16
    server: "StoreServer"

    def setup(self) -> None:
        """Answers are short and awaited: send them at once."""
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        """`/ping`, or a statement in the query string."""
        self._answer()

    def do_POST(self) -> None:
        """A statement in the query string, the body, or both (INSERT with its data)."""
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged; the engine keeps system.query_log for who needs it."""

    def _answer(self) -> None:
        try:
            body = self._body()
        except (Refused, ValueError) as error:
            self.close_connection = True
            return self._failed(
                EngineError(f"Code: 354. DB::Exception: Can't read the body: {error}. (INFLATE_FAILED)")
            )
        url = urlsplit(self.path)
        pairs = dict(parse_qsl(url.query, keep_blank_values=True))
        if url.path == "/ping" or (self.command == "GET" and "query" not in pairs):
            return self._send(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
        try:
            answer = self.server.engine.run(self._statement(pairs, body))
        except EngineError as error:
            return self._failed(error)
        return self._succeeded(answer, pairs)

    def _statement(self, pairs: dict[str, str], body: bytes) -> Statement:
        if self.headers.get_content_maintype() == "multipart":
            pairs.update(_form(self.headers.as_bytes(), body))
            body = b""
        query = pairs.get("query", "").encode()
        return Statement(
            sql=query + (b"\n" if query and body else b"") + body,
            parameters={k.removeprefix("param_"): v for k, v in pairs.items() if k.startswith("param_")},
            settings={k: v for k, v in pairs.items() if k not in _TRANSPORT and not k.startswith("param_")},
            database=pairs.get("database") or self.headers.get("X-ClickHouse-Database") or "",
            default_format=pairs.get("default_format") or self.headers.get("X-ClickHouse-Format") or "TabSeparated",
        )

    def _body(self) -> bytes:
        coding = self.headers.get("Transfer-Encoding", "").lower()
        raw = (
            _chunked(self.rfile) if coding == "chunked" else self.rfile.read(int(self.headers.get("Content-Length", 0)))
        )
        return _decompressed(raw, self.headers.get("Content-Encoding", ""))

    def _succeeded(self, answer: Answer, pairs: Mapping[str, str]) -> None:
        headers = {
            "X-ClickHouse-Query-Id": pairs.get("query_id") or str(uuid4()),
            "X-ClickHouse-Summary": json.dumps(answer.summary),
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Server-Display-Name": "wattrate-embedded",
            "Content-Type": "application/octet-stream",
        }
        if answer.form:
            headers["X-ClickHouse-Format"] = answer.form
        body = answer.body
        if pairs.get("enable_http_compression") == "1" and len(body) >= _COMPRESS_FROM_BYTES:
            body, coding = _compressed(body, self.headers.get("Accept-Encoding", ""))
            headers |= {"Content-Encoding": coding} if coding else {}
        self._send(200, body, headers)

    def _failed(self, error: EngineError) -> None:
        status = 404 if error.code in _NOT_FOUND else 400 if error.code in _BAD_REQUEST else 500
        headers = {"X-ClickHouse-Exception-Code": str(error.code), "Content-Type": "text/plain; charset=UTF-8"}
        self._send(status, error.message.encode() + b"\n", headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def _form(headers: bytes, body: bytes) -> dict[str, str]:
    """The text parts of a multipart form: query and parameters."""
    message = BytesParser(policy=HTTP).parsebytes(headers + b"\r\n" + body)
    parts = {str(part.get_param("name", header="content-disposition")): part for part in message.iter_parts()}
    if any(part.get_filename() for part in parts.values()):
        raise EngineError("Code: 48. DB::Exception: The embedded store takes no external tables. (NOT_IMPLEMENTED)")
    return {name: str(part.get_content()).rstrip("\r\n") for name, part in parts.items()}


def _chunked(stream: BufferedIOBase) -> bytes:
    chunks = []
    while size := int(stream.readline(64).split(b";")[0], 16):
        chunks.append(stream.read(size))
        stream.readline(8)
    while stream.readline(1024) not in (b"\r\n", b"\n", b""):
        pass
    return b"".join(chunks)


def _decompressed(raw: bytes, coding: str) -> bytes:
    try:
        match coding.lower():
            case "" | "identity":
                return raw
            case "lz4":
                return bytes(lz4.frame.decompress(raw))
            case "zstd":
                return zstandard.ZstdDecompressor().decompressobj().decompress(raw)
            case "gzip":
                return gzip.decompress(raw)
            case "deflate":
                return zlib.decompress(raw)
    except (RuntimeError, zstandard.ZstdError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Refused(f"it is not {coding}: {error}") from error
    raise Refused(f"Content-Encoding {coding} is not known here")


def _compressed(body: bytes, accepted: str) -> tuple[bytes, str]:
    codings = [part.split(";")[0].strip() for part in accepted.lower().split(",")]
    for coding in codings:
        match coding:
            case "lz4":
                return bytes(lz4.frame.compress(body)), coding
            case "zstd":
                return zstandard.ZstdCompressor(1).compress(body), coding
            case "gzip":
                return gzip.compress(body, 1), coding
    return body, ""


class StoreServer(ThreadingHTTPServer):
    """Serves one engine to many connections, a thread each."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, engine: Engine, port: int) -> None:
        self.engine = engine
        super().__init__((LOOPBACK, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is its own business; anything else is told in the log."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def lock(folder: Path) -> IO[str]:
    """Hold the folder's lock file. Raises EmbeddedError that says who has it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK_FILE).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise EmbeddedError(
            f"another embedded store (process {owner}) has {folder} open: use it, stop it, or name another folder"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def serve(folder: Path, port: int, **settings: str) -> None:
    """Run until SIGTERM or SIGINT; statements that run are finished first. Raises EmbeddedError."""
    held = lock(folder)
    engine = Engine(folder, **settings)
    try:
        server = StoreServer(engine, port)
    except OSError as error:
        raise EmbeddedError(f"port {port} on {LOOPBACK} is taken: {error.strerror}") from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"store ready on http://{LOOPBACK}:{port} in {folder}", flush=True)  # noqa: T201 (read by who started us)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    engine.close()
    held.close()


def main() -> None:
    """Command line of the server process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--path", type=Path, required=True, help="folder of the data; made when absent")
    parser.add_argument("--port", type=int, required=True, help="port on loopback")
    parser.add_argument("--tied", action="store_true", help="end when the starting process ends")
    options = parser.parse_args()
    if options.tied:
        die_with_parent()
    try:
        serve(options.path, options.port)
    except EmbeddedError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()

"""Events to tell, and receivers that really listen."""

from __future__ import annotations

import http.server
import queue
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from coldchain.model.events import Event, Notice, Severity
from coldchain.notify.message import Batch

WAIT_SECONDS = 20.0
HOSTILE = (
    "a\r\nBcc: evil@example.org\r\n\r\n.\r\nQUIT\n<11>1 - - evil - - - forged"
    "\x00\x1b[2J\u2028\u202e\udcff <!channel> ```@all ü"
)


def notice(
    number: int = 1,
    *,
    severity: Severity = Severity.WARNING,
    kind: str = "alert.raised",
    message: str = "the focus has changed",
    session: str = "visit",
    instrument: str = "krios",
    at: datetime = datetime(2026, 2, 3, 4, 5, 6, 789000, UTC),
) -> Notice:
    """The event of that number."""
    return Notice(Event(UUID(int=number), at, severity, kind, message), session, instrument)


def batch(*notices: Notice, lost: dict[str, int] | None = None) -> Batch:
    """Events to be told at once; one where none is given."""
    return Batch(notices or (notice(),), lost or {})


@dataclass(frozen=True)
class Identity:
    """A server's certificate for localhost, signed by itself, and its key."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """The server's side of TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_identity(folder: Path) -> Identity:
    """A new certificate, made by openssl."""
    identity = Identity(folder / "certificate.pem", folder / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", str(identity.key), "-out", str(identity.certificate)]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return identity


@contextmanager
def answering(answer: Callable[[socket.socket], None], port: int = 0) -> Iterator[int]:
    """A TCP server on 127.0.0.1 whose connections, one after the other, are answered by a function; its port."""
    with socket.create_server(("127.0.0.1", port)) as server:
        thread = threading.Thread(target=_answer_all, args=(server, answer))
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(WAIT_SECONDS)


def _answer_all(server: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            line, _ = server.accept()
        except OSError:
            return
        with line:
            line.settimeout(WAIT_SECONDS)
            try:
                answer(line)
            except OSError:
                continue


def read_all(line: socket.socket) -> bytes:
    """What comes until the other side has no more to say."""
    return b"".join(iter(lambda: line.recv(65536), b""))


def dead_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class Posted:
    """What a web server was sent."""

    path: str
    content_type: str
    body: bytes


class WebServer:
    """A real HTTP server. It answers with `statuses` in turn, then with 200; what was posted comes out of `posted`."""

    def __init__(
        self, identity: Identity | None = None, *, says: bytes = b"ok", headers: Mapping[str, str] | None = None
    ) -> None:
        self.posted: queue.Queue[Posted] = queue.Queue()
        self.statuses: list[int] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(outer.statuses.pop(0) if outer.statuses else 200)
                self.send_header("Content-Length", str(len(says)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(says)
                outer.posted.put(Posted(self.path, self.headers["Content-Type"], body))

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if identity is not None:
            self._server.socket = identity.context().wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self._server.server_address[1]

    def __enter__(self) -> WebServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

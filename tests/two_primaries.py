"""Two real servers that follow each other, set up by deploy/two-primaries.sh, over a link that can be cut."""

from __future__ import annotations

import re
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import text
from sqlalchemy.engine import create_engine

from coldchain.catalog import engine
from coldchain.catalog.tables import Base
from tests.mariadb_servers import PASSWORD, USER, MariaDbServer, free_port
from tests.notify.notify_givens import Identity

DEPLOY = Path(__file__).parent.parent / "deploy"
SCRIPT = DEPLOY / "two-primaries.sh"
DATABASE = "coldchain"
_QUICK = {"slave_net_timeout": "2"}
_PATIENCE_SECONDS = 120.0
_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 2 << 30


def configured(number: int) -> dict[str, str]:
    """The options of deploy/two-primaries.cnf, with the server's number."""
    lines = (DEPLOY / "two-primaries.cnf").read_text().splitlines()
    options = dict(re.fullmatch(r"(\w+) = (\S+).*", line).groups() for line in lines if re.match(r"\w+ = ", line))  # type: ignore[union-attr]
    numbered = dict.fromkeys(("gtid_domain_id", "auto_increment_offset"), str(number))
    assert options.pop("server_id") == "1" and options.pop("bind_address") == "*"  # a test's listens here alone
    return {**options, **numbered, **_QUICK}


class Link:
    """A way to a port: `cut` resets what is connected and refuses anew, `stall` lets nothing through."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._is_open = True
        self._flows = threading.Event()
        self._flows.set()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._guard = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._is_open = False
        self._reset()

    def stall(self) -> None:
        """Let nothing through, without a word."""
        self._flows.clear()

    def mend(self) -> None:
        """Let everything through again. What hung in a stalled connection is lost, as with a link that was rerouted."""
        if not self._flows.is_set():
            self._reset()
        self._flows.set()
        self._is_open = True

    def close(self) -> None:
        """End it."""
        self._ended.set()
        self._flows.set()
        self._reset()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _reset(self) -> None:
        with self._guard:
            for pair in self._pairs:
                for end in pair:
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        self._listener.settimeout(0.1)
        while not self._ended.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            if not self._is_open or not self._flows.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                near.close()
                continue
            thread = threading.Thread(target=self._carry, args=(near, far), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with self._guard:
            self._pairs.add((near, far))
        with near, far, suppress(OSError):
            while not self._ended.is_set():
                readable, _, _ = select.select([near, far], [], [], 0.5)
                if not self._flows.wait(0.5):
                    continue
                for source in readable:
                    if not (data := source.recv(1 << 16)):
                        return
                    (far if source is near else near).sendall(data)
        with self._guard:
            self._pairs.discard((near, far))


class TwoPrimaries:
    """Servers 0 and 1 that follow each other through `links[i]`, by which server i reaches the other."""

    def __init__(self, folder: Path, *, in_memory: bool = True, identity: Identity | None = None) -> None:
        self.folder = folder
        tls = {} if identity is None else {"ssl_cert": str(identity.certificate), "ssl_key": str(identity.key)}
        self._by_tls = () if identity is None else ("--tls-ca", str(identity.certificate))
        # What is flushed to memory outlives a kill as well, and the tests are not about the disk's speed.
        quick = in_memory and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES
        self._data = Path(tempfile.mkdtemp(prefix="pair-", dir=_MEMORY if quick else folder))
        self.servers = [
            MariaDbServer(self._data / f"server{number}", server_id=number, options={**configured(number), **tls})
            for number in (1, 2)
        ]
        self.links = [Link(self.servers[1].port), Link(self.servers[0].port)]

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        for _ in range(2):  # the first time the second server is not set up yet
            for number in (0, 1):
                self.set_up(number)
        for server in self.servers:  # a test has no patience
            server.run("STOP SLAVE", "CHANGE MASTER TO MASTER_CONNECT_RETRY = 1", "START SLAVE")
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.close()
        for link in self.links:
            link.close()
        shutil.rmtree(self._data, ignore_errors=True)

    def set_up(self, number: int, *more: str) -> str:
        """Run the script on a server; what it said."""
        files = {}
        for name, password in (("replication", "r-3:p@ss w%rd"), ("coldchain", PASSWORD)):
            files[name] = self.folder / name
            files[name].write_text(password + "\n")
        argv = [str(SCRIPT), "--number", str(number + 1), "--other-host", "127.0.0.1", "--wait", "0"]
        argv += ["--other-port", str(self.links[number].port), "--socket", str(self.servers[number].socket)]
        argv += ["--replication-password-file", str(files["replication"]), "--password-file", str(files["coldchain"])]
        done = subprocess.run(
            [*argv, "--user", USER, *self._by_tls, *more], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def url(self, number: int) -> str:
        """The catalog's URL on a server."""
        return self.servers[number].url(DATABASE)

    def make_catalog(self) -> None:
        """The tables, made on the first server; they reach the other by themselves."""
        engine.upgrade(self.url(0))
        self.wait_until_equal()

    def status(self, number: int) -> dict[str, Any]:
        """SHOW SLAVE STATUS of a server."""
        rows = self.servers[number].run("SHOW SLAVE STATUS")
        return rows[0] if rows else {}

    def position(self, number: int) -> dict[str, int]:
        """The last transaction of each domain that a server has written or applied."""
        found = self.servers[number].run("SELECT @@gtid_binlog_pos AS p, @@gtid_slave_pos AS q")[0]
        triples = [part.split("-") for part in f"{found['p']},{found['q']}".split(",") if part]
        return {
            domain: max(int(n) for d, _, n in triples if d == domain) for domain in {domain for domain, _, _ in triples}
        }

    def wait_until_equal(self) -> float:
        """Wait until each has what the other wrote; the seconds that it took. Fails where replication has stopped."""
        began = time.monotonic()
        while self.position(0) != self.position(1):
            self.assert_never_stopped()
            waited = time.monotonic() - began
            assert waited < _PATIENCE_SECONDS, [self.position(n) for n in (0, 1)]
            time.sleep(0.02)
        return time.monotonic() - began

    def assert_never_stopped(self) -> None:
        """Neither applier has stopped, nor any error stopped a reader for good."""
        for number in (0, 1):
            status = self.status(number)
            assert status["Last_SQL_Errno"] == 0, status["Last_SQL_Error"]
            assert status["Slave_SQL_Running"] == "Yes", status
            assert status["Slave_IO_Running"] != "No", status["Last_IO_Error"]


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, or fail."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def contents(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of a catalog, in the order of the keys, each with its key before it."""
    opened = create_engine(url)
    try:
        with opened.connect() as connection:
            return {
                table.name: [
                    tuple(row)
                    for row in connection.execute(text(f"SELECT t.id, t.* FROM {table.name} t ORDER BY t.id"))
                ]
                for table in Base.metadata.sorted_tables
            }
    finally:
        opened.dispose()


@contextmanager
def two_primaries(folder: Path, *, in_memory: bool = True, identity: Identity | None = None) -> Iterator[TwoPrimaries]:
    """Two servers with an empty catalog on both; with an `identity`, which both bear, they follow each other by TLS."""
    with TwoPrimaries(folder, in_memory=in_memory, identity=identity) as pair:
        pair.make_catalog()
        yield pair

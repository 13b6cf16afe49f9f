"""Real MariaDB servers of a test's own: on loopback, in folders of their own, children that die with the test.

An installation is made once a process and copied for each server, so that a start costs half a second.
"""

from __future__ import annotations

import atexit
import functools
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import pymysql
import pytest
from sqlalchemy.engine import URL

USER = "coldchain"
PASSWORD = "p@ss:/w%rd"  # everything in it means something in a URL
_STARTING_SECONDS = 60
_SMALL = {  # beside them: a server of a test's own needs neither memory nor rooms to grow
    "innodb_log_file_size": "8M",
    "innodb_buffer_pool_size": "32M",
    "innodb_buffer_pool_dump_at_shutdown": "OFF",
    "innodb_buffer_pool_load_at_startup": "OFF",
    "performance_schema": "OFF",
    "key_buffer_size": "1M",
    "aria_pagecache_buffer_size": "1M",
    "table_open_cache": "200",
    "max_connections": "100",
}
# A server that is killed loses nothing with 2: only a power cut does.
_HASTY = {"innodb_flush_log_at_trx_commit": "2"}


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def require_mariadb() -> None:
    """Skip the test where there is no MariaDB."""
    if _program("mariadbd") is None or _program("mariadb-install-db") is None:
        pytest.skip("needs the package mariadb-server")


@functools.cache
def _installed() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mariadb-installed-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = _program("mariadb-install-db")
    assert program is not None
    argv = [program, "--no-defaults", f"--user={getpass.getuser()}", "--skip-test-db", f"--datadir={folder / 'data'}"]
    argv += ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={getpass.getuser()}"]
    argv += [f"--{name.replace('_', '-')}={value}" for name, value in _SMALL.items() if name.startswith("innodb_")]
    made = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder / "data"


class MariaDbServer:
    """A MariaDB server whose files are in `folder`, which it makes and `close` removes, unless it `keeps` them for
    another time.

    `port` stays the same over restarts. `options` are the server's own, underscores or hyphens; `server_id` and
    `log_bin` make a primary. Commits outlive a kill, not a power cut, unless the options say otherwise.
    """

    def __init__(
        self,
        folder: Path,
        *,
        server_id: int = 1,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        keeps: bool = False,
    ) -> None:
        require_mariadb()
        self.keeps = keeps
        self.folder = folder
        self.socket = Path(tempfile.mkdtemp(prefix="mariadb-")) / "socket"  # a socket's path has 107 bytes at most
        self.port = port or free_port()
        self.options = {**_SMALL, **_HASTY, **(options or {}), "server_id": str(server_id)}
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        if not keeps or not (folder / "data").exists():
            shutil.copytree(_installed(), folder / "data")
        self._made_user = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The running server's process."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it, wait until it answers, and make its user if it has none."""
        program = _program("mariadbd")
        assert program is not None and self.process is None
        argv = [program, "--no-defaults", f"--user={getpass.getuser()}", f"--datadir={self.folder / 'data'}"]
        argv += [f"--socket={self.socket}", f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
        argv += [f"--pid-file={self.folder / 'pid'}", f"--tmpdir={self.folder}"]
        argv += [f"--{name.replace('_', '-')}={value}" for name, value in self.options.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        # Ends the server when this process ends, however it ends: its end of the pipe closes then.
        watch = f"read _ || kill -9 {self.process.pid}"
        self._guard = subprocess.Popen(["sh", "-c", watch], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._wait_until_it_answers()
        if not self._made_user:
            self.make_user(USER, PASSWORD)
            self._made_user = True

    def stop(self) -> None:
        """Shut it down in order."""
        self._end("terminate")

    def kill(self) -> None:
        """Kill it as a crash does."""
        self._end("kill")

    def restart(self) -> None:
        """Shut it down if it runs, and start it."""
        self.stop()
        self.start()

    def lose_everything(self) -> None:
        """Kill it and give it a new, empty installation; it does not run then."""
        self.kill()
        shutil.rmtree(self.folder / "data")
        shutil.copytree(_installed(), self.folder / "data")
        self._made_user = False

    def close(self) -> None:
        """Kill it and remove its files; with `keeps`, shut it down and leave them."""
        if self.keeps:
            self.stop()
            shutil.rmtree(self.socket.parent, ignore_errors=True)
            return
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.socket.parent, ignore_errors=True)

    def run(self, *statements: str, database: str | None = None) -> list[dict[str, Any]]:
        """Execute statements as the server's root, through its socket; the rows of the last."""
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def connect(self, database: str | None = None) -> pymysql.Connection[pymysql.cursors.DictCursor]:
        """A connection of the server's root, through its socket, that commits by itself."""
        return pymysql.connect(
            user=getpass.getuser(),
            unix_socket=str(self.socket),
            database=database,
            charset="utf8mb4",
            ssl_disabled=True,  # the driver reads the system's certificates for every connection: 0.07 s
            autocommit=True,
            cursorclass=pymysql.cursors.DictCursor,
        )

    def make_user(self, user: str, password: str, *, grants: str = "ALL PRIVILEGES ON *.*") -> None:
        """Make a user, on this server alone: replication does not carry it to another."""
        quoted = password.replace("'", "''")
        self.run(
            "SET sql_log_bin = 0",
            f"CREATE OR REPLACE USER '{user}'@'%' IDENTIFIED BY '{quoted}'",
            f"GRANT {grants} TO '{user}'@'%'",
        )

    def make_database(self, name: str) -> None:
        """Make an empty database, dropping one of that name."""
        self.run(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")

    def url(self, database: str, user: str = USER, password: str = PASSWORD) -> str:
        """The URL of a database on it, with the password, over loopback."""
        url = URL.create("mysql+pymysql", user, password, "127.0.0.1", self.port, database)
        return url.render_as_string(hide_password=False)

    def _wait_until_it_answers(self) -> None:
        until = time.monotonic() + _STARTING_SECONDS
        while True:
            if self._listens():  # asked first: the driver leaves a socket open that nothing listens at
                with suppress(pymysql.OperationalError):
                    self.connect().close()
                    return
            assert self.process is not None and self.process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)

    def _listens(self) -> bool:
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def _end(self, how: str) -> None:
        if self.process is None:
            return
        getattr(self.process, how)()
        try:
            self.process.wait(_STARTING_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None
            assert self._guard is not None
            with suppress(BrokenPipeError):
                self._guard.communicate(b"\n")
            self._guard = None


def free_port() -> int:
    """A port of loopback that nothing listens at."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def running_server(folder: Path, **options: Any) -> Iterator[MariaDbServer]:
    """What a fixture yields from: a server that runs until the fixture ends."""
    with MariaDbServer(folder, **options) as server:
        yield server

"""MariaDB's side of a backup: its own dump program, by a snapshot, and its own client to read it again.

The password reaches them by a file in memory that only they can read: arguments and environments show on the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from coldchain.catalog import server
from coldchain.catalog.backup_file import Sink, payload
from coldchain.catalog.faults import translated
from coldchain.errors import CatalogError, printable

_DUMP, _CLIENT = ("mariadb-dump", "mysqldump"), ("mariadb", "mysql")
_PACKAGE = "the program {} (Debian package mariadb-client)"
_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
_LAST_LINE = b"-- Dump completed"
_POSITION = re.compile(rb"^-- SET GLOBAL gtid_slave_pos='([0-9,\s-]*)';", re.MULTILINE)
_DUMP_OPTIONS = (
    "--single-transaction",
    "--quick",
    "--hex-blob",
    "--skip-add-drop-table",  # a restore never deletes anything, here or on a server that follows
    "--skip-add-locks",
    "--no-tablespaces",
    "--skip-dump-date",
    "--default-character-set=utf8mb4",
)
# With it the dump says at which GTID its snapshot is; it needs the right to ask the binary log.
_POSITION_OPTIONS = ("--master-data=2", "--gtid")
_CLIENT_OPTIONS = {"ssl_ca": "ssl-ca", "ssl_cert": "ssl-cert", "ssl_key": "ssl-key", "unix_socket": "socket"}
_UNLOGGED = "SET SESSION sql_log_bin = 0"
"""What follows is kept from the servers that follow this one; it needs a right of its own."""
_LONGEST_WORDS = 500


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of reading a dump: whether the server's followers get it, and which servers it follows."""

    is_logged: bool
    follows: tuple[str, ...]


def dump(url: URL, sink: Sink) -> tuple[str, int]:
    """Write a database's dump into a sink; its GTID position ("" where the server does not tell), and its bytes."""
    program = _program(_DUMP)
    with _connected(url) as connection:
        tells = _may(connection, "SHOW MASTER STATUS") and _variable(connection, "log_bin") == "1"
    options = [*_DUMP_OPTIONS, *(_POSITION_OPTIONS if tells else ())]
    with _defaults(url) as defaults, tempfile.TemporaryFile() as said:
        argv = [program, f"--defaults-file=/dev/fd/{defaults}", *options, "--", str(url.database)]
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            pass_fds=(defaults,),
            env=_environment(),
        )
        try:
            assert child.stdout is not None
            head, tail, size = _pass_on(child.stdout, sink)
            child.stdout.close()
            if child.wait() != 0 or _LAST_LINE not in tail:
                raise CatalogError(
                    f"the server could not be dumped ({_words(said)})", remedy="Mend that, then try again"
                )
        finally:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
    found = _POSITION.search(head)
    return ("" if found is None else found[1].decode("ascii").replace("\n", "")), size


def load(url: URL, backup: Path) -> Loaded:
    """Read a backup's dump into an empty database. Raises CatalogError; the database is empty again then."""
    program = _program(_CLIENT)
    with _connected(url) as connection:
        if _tables(connection):
            raise CatalogError(
                f"the database {printable(str(url.database))} has tables already",
                remedy="Make another one (CREATE DATABASE), let the catalog's url name it, and restore into that",
            )
        follows = _follows(connection)
        has_log = _variable(connection, "log_bin") == "1"
        keeps = has_log and _may(connection, _UNLOGGED)
        is_logged = has_log and not keeps
        if is_logged and follows:
            raise CatalogError(
                "what is restored here would reach the other server, which has rows of its own",
                remedy="Let the catalog's user keep it to this server: GRANT BINLOG ADMIN ON *.* TO it",
            )
    try:
        _feed(program, url, backup, before=_UNLOGGED.encode() + b";\n" if keeps else b"")
    except BaseException:
        _clear(url, keeps=keeps)
        raise
    return Loaded(is_logged, follows)


def _feed(program: str, url: URL, backup: Path, *, before: bytes) -> None:
    with _defaults(url) as defaults, tempfile.TemporaryFile() as said, payload(backup) as source:
        argv = [program, f"--defaults-file=/dev/fd/{defaults}", "--batch", "--default-character-set=utf8mb4"]
        argv += ["--", str(url.database)]
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=(defaults,),
            env=_environment(),
        )
        try:
            assert child.stdin is not None
            with suppress(BrokenPipeError):  # it has ended, and says why
                child.stdin.write(before)
                while chunk := source.read(_CHUNK_BYTES):
                    child.stdin.write(chunk)
            with suppress(BrokenPipeError):
                child.stdin.close()
            if child.wait() != 0:
                raise CatalogError(f"the server does not take the backup ({_words(said)})", remedy="Mend that first")
        finally:
            child.kill()
            child.wait()


def _pass_on(source: IO[bytes], sink: Sink) -> tuple[bytes, bytes, int]:
    """Copy all; its beginning, its end and its bytes."""
    head, tail, size = b"", b"", 0
    while chunk := source.read(_CHUNK_BYTES):
        sink.write(chunk)
        size += len(chunk)
        if len(head) < _HEAD_BYTES:
            head += chunk[: _HEAD_BYTES - len(head)]
        tail = (tail + chunk)[-len(_LAST_LINE) - 64 :]
    return head, tail, size


def _clear(url: URL, *, keeps: bool) -> None:
    """Drop what a failed restore has made in a database that was empty before it."""
    with suppress(CatalogError), _connected(url) as connection:
        if keeps:
            connection.exec_driver_sql(_UNLOGGED)
        connection.exec_driver_sql("SET SESSION foreign_key_checks = 0")
        for name in _tables(connection):
            connection.exec_driver_sql("DROP TABLE `{}`".format(name.replace("`", "``")))


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    arguments = server.connect_arguments(url, busy_seconds=10, is_patient=True)
    with translated(url):
        engine = create_engine(url, connect_args=arguments, poolclass=NullPool, hide_parameters=True)
        with engine.connect() as connection:
            yield connection


def _tables(connection: Connection) -> list[str]:
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
    return [str(name) for (name,) in connection.exec_driver_sql(query)]


def _variable(connection: Connection, name: str) -> str:
    return str(connection.exec_driver_sql(f"SELECT @@GLOBAL.{name}").scalar())


def _may(connection: Connection, statement: str) -> bool:
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError:
        return False
    return True


def _follows(connection: Connection) -> tuple[str, ...]:
    try:
        rows = connection.exec_driver_sql("SHOW ALL SLAVES STATUS").mappings()
        return tuple(f"{row['Master_Host']}:{row['Master_Port']}" for row in rows)
    except DBAPIError:
        return ()


def _program(names: tuple[str, ...]) -> str:
    for name in names:
        if (found := shutil.which(name)) is not None:
            return found
    raise CatalogError(f"{names[0]} is not installed", expected=_PACKAGE.format(names[0]), remedy="Install it")


@contextmanager
def _defaults(url: URL) -> Iterator[int]:
    """A descriptor of a file in memory that tells a client where to log in, and as whom."""
    values: dict[str, object] = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    values |= {name: url.query.get(key) for key, name in _CLIENT_OPTIONS.items()}
    lines = [f"{name}={_quoted(str(value))}\n" for name, value in values.items() if value is not None]
    descriptor = os.memfd_create("client", 0)
    try:
        os.fchmod(descriptor, 0o600)  # clients pass over a file that everybody may write
        os.write(descriptor, ("[client]\n" + "".join(lines)).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _quoted(value: str) -> str:
    if any(not character.isprintable() for character in value):
        raise CatalogError(
            "the catalog's URL holds characters that do not print", expected="a user and a password that do"
        )
    return '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))


def _environment() -> dict[str, str]:
    """This process's, without what the clients would take for a password, a host or a port."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MYSQL", "MARIADB"))}


def _words(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read(_HEAD_BYTES).decode("utf-8", "replace").splitlines()
    # The client shows the statement as well, which may be long and hold anything.
    told = [line for line in lines if line.startswith("ERROR")] or lines
    return printable("; ".join(told))[:_LONGEST_WORDS] or "it does not say why"

"""MariaDB and MySQL: how connections are set up and how transactions begin.

- One transaction writes at a time on a server, as on SQLite: it begins by locking the one row of `alembic_version`, and
  the next waits for it. So what it reads cannot change before it writes, whoever else uses this catalog, and writers
  never deadlock among themselves. That row also says whether somebody has migrated the catalog since it was opened.
- What replication brings from another primary does not wait in that queue. Nothing that it brings is another's own row,
  so nothing is lost by it; but a deadlock with it can end a transaction, which is a `CatalogAwayError`: as a whole, and
  whoever called may call again.
- Writers read committed rows (no gap locks, in which replication's inserts would wait); readers have a snapshot, so
  that what one transaction reads fits together, as on SQLite.
- The server's own settings decide nothing: SQL mode, time zone and character set are each connection's own.
"""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from coldchain.errors import CatalogError, printable

CONNECT_SECONDS = 10
ANSWER_SECONDS = 60
"""A connection that answers nothing for so long is given up: a cut link says nothing."""
MIGRATION_SECONDS = 86_400
_HERE = (None, "", "localhost", "127.0.0.1", "::1")
_REVISION = "SELECT version_num FROM alembic_version FOR UPDATE"
_MODE = (
    "STRICT_ALL_TABLES,STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,"
    "NO_ENGINE_SUBSTITUTION"
)


def is_server(url: URL) -> bool:
    """Whether a URL is of a database server, not of a file."""
    return url.get_backend_name() in ("mysql", "mariadb")


def connect_arguments(url: URL, *, busy_seconds: float, is_patient: bool) -> dict[str, Any]:
    """What the driver is given. `is_patient`: a migration may think for long. Raises CatalogError where a file of a
    certificate or a key is not there, or is none."""
    settings = {
        "sql_mode": f"'{_MODE}'",
        "time_zone": "'+00:00'",
        "innodb_lock_wait_timeout": str(max(1, int(busy_seconds))),
        "foreign_key_checks": "1",
        "unique_checks": "1",
    }
    arguments: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_SECONDS,
        "init_command": "SET SESSION " + ", ".join(f"{name} = {value}" for name, value in settings.items()),
    }
    if url.password is not None:
        arguments["password"] = str(url.password).encode()  # the driver takes text for Latin-1
    if url.host in _HERE and not any(key.startswith("ssl") for key in url.query):
        arguments["ssl_disabled"] = True  # the driver reads the system's certificates for every connection: 0.05 s
    for key in ("ssl_ca", "ssl_cert", "ssl_key"):
        _require_pem(key, url.query.get(key))
    if not is_patient:
        arguments |= {"read_timeout": ANSWER_SECONDS, "write_timeout": ANSWER_SECONDS}
    return arguments


def _require_pem(key: str, given: str | tuple[str, ...] | None) -> None:
    # The driver reads them before it connects, and says nothing of which file is at fault.
    if given is None:
        return
    path = Path(str(given))
    try:
        if key == "ssl_ca":
            ssl.create_default_context(cafile=path)
        else:
            path.read_bytes()
    except OSError as error:  # ssl.SSLError is one
        raise CatalogError(
            f"the file that {key} in the catalog's URL names is of no use: {error.strerror or error}",
            expected="a file in PEM",
            remedy=f"Correct {key}",
            path=path,
        ) from None


def set_transactions(engine: Engine, *, writes: bool) -> None:
    """Say once for each connection what its transactions see, and whether they may write."""
    kind = "READ COMMITTED, READ WRITE" if writes else "REPEATABLE READ, READ ONLY"

    def connect(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {kind}")
        cursor.close()

    event.listen(engine, "connect", connect)


def queue_writers(engine: Engine, head: str) -> None:
    """Let every transaction of this engine begin by waiting for its turn; it must find the revision `head`."""

    def begin(connection: Connection) -> None:
        found = connection.exec_driver_sql(_REVISION).scalar()
        if found != head:
            raise CatalogError(
                f"the catalog has been brought to the revision {printable(str(found))} since it was opened",
                expected=head,
                remedy="Start this program again, in the version that the catalog has now",
            )

    event.listen(engine, "begin", begin)


def number(connection: Connection) -> str:
    """The server's own number, by which two primaries tell each other apart."""
    return str(connection.execute(text("SELECT @@server_id")).scalar_one())


def wait_until_alone(connection: Connection) -> None:
    """Wait until no other process migrates this database; the next waits until this connection is closed. MariaDB ends
    a transaction at each change of a table, so no lock of a row would last."""
    name = "coldchain." + hashlib.sha256(str(connection.engine.url.database).encode()).hexdigest()[:40]
    connection.execute(text("SELECT GET_LOCK(:name, :seconds)"), {"name": name, "seconds": MIGRATION_SECONDS})

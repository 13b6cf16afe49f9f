"""Opening, migrating and transacting.

SQLite is set up for a service that must survive `kill -9` and power cuts:

- WAL: readers see a consistent catalog and are not blocked while another thread or process writes.
- synchronous=FULL: with WAL, NORMAL would keep the database whole but may lose the last commits in a power cut; here a
  commit means that a file may be trusted as copied, so every commit is flushed to the medium (one fsync of the log).
- Write transactions begin with BEGIN IMMEDIATE: they queue for `BUSY_SECONDS` at their beginning instead of failing in
  their middle, and what they read cannot change before they write.

`server` says how the same is had of MariaDB.
"""

from __future__ import annotations

import functools
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, orm
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from coldchain.catalog import server, sites
from coldchain.catalog.columns import json_text, json_value
from coldchain.catalog.faults import UPGRADE, shown, translated
from coldchain.catalog.ownership import Unit
from coldchain.errors import CatalogError, printable

BUSY_SECONDS = 30
_WRITES = "coldchain_writes"


class Catalog:
    """A facility's catalog, opened by `open_catalog`.

    Threads may share one; a process opens its own (a SQLite connection does not survive a fork). `site` owns the rows
    that are written through it.
    """

    def __init__(self, url: URL, site: str, facility: str = "") -> None:
        self.site = site
        self._facility = facility
        self._is_registered = False
        self._written = 0
        self._url = url
        self._reader = _engine(url)
        self._writer: Engine = self._reader.execution_options(**{_WRITES: True})
        if server.is_server(url):
            self._writer = _engine(url, writes=True)
            server.queue_writers(self._writer, head())
        # SQLite waits for a writer by polling, ever more seldom: with six threads writing, the longest wait was 1.6 s,
        # and 0.07 s where this process's threads queue here first.
        self._write_turn = threading.Lock()

    @property
    def url(self) -> str:
        """The URL, without what may be secret."""
        return shown(self._url)

    @property
    def written(self) -> int:
        """How many transactions have written by way of this object: while it stays, only others can have changed what
        is there."""
        return self._written

    def close(self) -> None:
        """Close every connection. Calling it twice does no harm."""
        self._reader.dispose()
        self._writer.dispose()

    def reading(self) -> AbstractContextManager[orm.Session]:
        """One transaction that only reads. For this room's modules."""
        return self._transaction(self._reader)

    @contextmanager
    def writing(self) -> Iterator[orm.Session]:
        """One transaction that may write, rolled back by an exception. For this room's modules.

        A thread does not begin another inside it.
        """
        with self._write_turn:
            with self._transaction(self._writer) as session:
                if not self._is_registered:
                    sites.register(session, self._who(session))
                yield session
            self._is_registered = True
            self._written += 1

    def lasting_connection(self) -> Connection:
        """A connection of its own, outside of every transaction, which whoever asks for it closes: for locks that end
        with it. For this room's modules. Raises CatalogError."""
        with translated(self._url):
            connection = self._reader.connect().execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()
            return connection

    def check_site(self) -> None:
        """Raise CatalogError where another facility writes here, or this site writes on another server."""
        if self._facility:
            with self.reading() as session:
                sites.check(session, self._who(session))

    def claim(self) -> None:
        """Say that this facility and site write here from now on, whatever was said before."""
        self._is_registered = True
        with self.writing() as session:
            sites.claim(session, self._who(session))

    def _who(self, session: orm.Session) -> sites.Writer:
        number = server.number(session.connection()) if server.is_server(self._url) else ""
        return sites.Writer(self._facility, self.site, number)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[orm.Session]:
        info = {"site": self.site}
        with translated(self._url), Unit(engine, expire_on_commit=False, info=info) as session, session.begin():
            yield session


def open_catalog(url: str, site: str, facility: str = "", *, claims: bool = False) -> Catalog:
    """Open a catalog whose tables are those of this version. With a `facility` it must be that one's, unless it is
    opened in order to `claim` it.

    Raises
    ------
    CatalogError
        It is not there, cannot be opened, has not been migrated yet, a newer Coldchain has migrated it, or it is
        another facility's.
    """
    parsed = _parse(url)
    _require_file(parsed)
    if not site:
        raise CatalogError("the site has no name", expected="a name that no other site has")
    catalog = Catalog(parsed, site, facility)
    try:
        with translated(parsed):
            _check_revision(catalog)
        if not claims:
            catalog.check_site()
    except CatalogError:
        catalog.close()
        raise
    return catalog


def upgrade(url: str, revision: str = "head") -> str:
    """Bring the catalog's tables to this version's, or to those of a revision before it, making the database where
    SQLite has none yet; return this version's revision.

    Whoever upgrades at the same time waits, then finds nothing left to do. On SQLite it is one transaction; a server
    commits each change of a table by itself, and what was killed in its middle is gone on with (`migrations.again`).
    """
    parsed = _parse(url)
    _require_folder(parsed)
    engine = _engine(parsed, writes=True, is_patient=True)
    config = _alembic_config()
    try:
        with translated(parsed), engine.execution_options(**{_WRITES: True}).begin() as connection:
            if server.is_server(parsed):
                server.wait_until_alone(connection)
            _require_not_newer(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        engine.dispose()
    return head()


def head() -> str:
    """The revision that this version's tables have."""
    return revisions()[0]


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # not chained: their texts show the URL, and a password in it
        raise CatalogError("the catalog's URL cannot be read", expected="sqlite:////folder/catalog.sqlite") from None
    if parsed.drivername in ("mysql", "mariadb"):
        parsed = parsed.set(drivername=f"{parsed.drivername}+pymysql")
    if not server.is_server(parsed) and parsed.get_backend_name() != "sqlite":
        raise CatalogError(
            f"the catalog's URL is one of {printable(parsed.get_backend_name())}",
            expected="sqlite:////folder/catalog.sqlite or mysql+pymysql://USER@HOST/DATABASE",
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise CatalogError(
            "the catalog's URL names no file", expected="sqlite:////folder/catalog.sqlite: a catalog outlives a process"
        )
    return parsed


def _sqlite_file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database is None or url.database.startswith("file:"):
        return None
    return Path(url.database)


def _require_file(url: URL) -> None:
    path = _sqlite_file(url)
    if path is not None and not path.exists():
        raise CatalogError("there is no catalog", remedy=UPGRADE + ", or correct its URL", path=path)


def _require_folder(url: URL) -> None:
    path = _sqlite_file(url)
    if path is not None and not path.parent.is_dir():
        raise CatalogError("the catalog's folder is not there", remedy="Make it, or correct the URL", path=path.parent)


def _engine(url: URL, *, writes: bool = False, is_patient: bool = False) -> Engine:
    # No pool limit: it is the callers' threads that are few.
    options: dict[str, Any] = {"hide_parameters": True, "max_overflow": -1}
    options |= {"json_serializer": json_text, "json_deserializer": json_value}
    if server.is_server(url):
        given = server.connect_arguments(url, busy_seconds=BUSY_SECONDS, is_patient=is_patient)
        # Its linter takes a join by a scalar subquery for a missing one.
        engine = _create(url, pool_pre_ping=True, connect_args=given, enable_from_linting=False, **options)
        server.set_transactions(engine, writes=writes)
        return engine
    engine = _create(url, connect_args={"timeout": BUSY_SECONDS}, **options)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _create(url: URL, **options: Any) -> Engine:
    try:
        with translated(url):
            return create_engine(url, **options)
    except ImportError as error:
        raise CatalogError(
            f"the driver of {url.drivername} is not installed",
            expected=f"the Python package {printable(str(error.name))}",
        ) from error


def _configure_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # sqlite3 would begin on its own, and late; `_begin_sqlite` does
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise CatalogError(
            f"SQLite keeps its journal in the mode {mode!r} here",
            expected="wal",
            remedy="Keep the catalog on a local disk: network file systems lack what WAL needs",
        )
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", "coldchain.catalog:migrations")
    return config


@functools.cache
def revisions() -> tuple[str, ...]:
    """Every revision that this version knows, the newest first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_alembic_config()).walk_revisions())


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _require_not_newer(connection: Connection) -> str | None:
    current = _current(connection)
    if current is not None and current not in revisions():
        raise CatalogError(
            f"the catalog has the revision {printable(current)}, which this version does not know",
            expected=head(),
            remedy="A newer Coldchain has written it: upgrade this one",
        )
    return current


def _check_revision(catalog: Catalog) -> None:
    with catalog.reading() as session:
        current = _require_not_newer(session.connection())
    if current != head():
        found = "the catalog has no tables yet" if current is None else f"the catalog has the older revision {current}"
        raise CatalogError(f"{found} ({catalog.url})", expected=head(), remedy=UPGRADE)

"""A Leginon database: opened read-only, its tables and columns as they are there.

Leginon's schema grew over twenty years, and every installation has that of its own age: each table is made anew by the
first program that writes to it. So nothing is taken for granted: which tables and columns there are is asked first, and
what is not there is as NULL.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import (
    BINARY,
    Column,
    Connection,
    MetaData,
    Select,
    Table,
    bindparam,
    cast,
    column,
    create_engine,
    event,
    func,
    select,
    table,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.sql.elements import ColumnElement, quoted_name
from sqlalchemy.types import NullType

from coldchain.errors import CatalogError, printable

Row = dict[str, Any]

EXPECTED = "mysql+pymysql://USER@HOST/leginondb"
_CONNECTING_SECONDS = 20
_READING_SECONDS = 600
_AT_ONCE = 500
_TEXT = frozenset({"char", "varchar", "text", "tinytext", "mediumtext", "longtext", "blob", "varbinary", "binary"})
_TIME = frozenset({"timestamp", "datetime"})
_DATABASE_NAME = re.compile(r"[\w$ -]{1,64}")
_ACCESS = (1044, 1045, 1698)
_AWAY = (2002, 2003, 2005, 2006, 2013, 1040, 1053, 1927)
_DENIED = (1142, 1143)
_UNKNOWN_DATABASE = 1049


@dataclass(frozen=True)
class SourceTable:
    """A table of Leginon's or Appion's: its columns, each with MySQL's type."""

    database: str
    name: str
    columns: dict[str, str]

    @cached_property
    def table(self) -> Table:
        """The same for SQLAlchemy, with columns of no type."""
        columns = (Column(quoted_name(name, quote=True), NullType(), key=name) for name in self.columns)
        return Table(quoted_name(self.name, quote=True), MetaData(), *columns, schema=self.database)

    def reference(self, field: str, kind: str) -> str | None:
        """The column that refers to a row of another table: `REF|…|kind|field`; databases of several ages differ in
        what stands between. None where there is none."""
        for name in self.columns:
            parts = name.split("|")
            if parts[-2:] == [kind, field] and (len(parts) == 2 or parts[0] == "REF"):
                return name
        return None

    def references_to(self, word: str) -> list[str]:
        """The columns that refer to rows of tables with this word in their names."""
        return [name for name in self.columns if name.startswith("REF|") and word in name.split("|")[-2]]


class LeginonServer:
    """The server that a URL names, with Leginon's own database and others on it. Threads do not share one.

    Raises CatalogError, in whose words there is no password, where the URL makes no sense.
    """

    def __init__(self, url: str, password: str | None = None) -> None:
        self._url = _parse(url, password)
        self.database = str(self._url.database)
        self._known: dict[str, dict[str, SourceTable]] = {}
        self._engine = create_engine(
            self._url,
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args={
                "charset": "utf8mb4",
                "connect_timeout": _CONNECTING_SECONDS,
                "read_timeout": _READING_SECONDS,
                "write_timeout": _READING_SECONDS,
            },
        )
        event.listen(self._engine, "connect", _read_only)

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self._url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that only reads. Raises CatalogError for whatever the server or its driver raises."""
        try:
            opened = self._engine.connect()
        except SQLAlchemyError as error:
            raise self._translated(error) from error
        except (RuntimeError, OSError, ValueError, IndexError, struct.error) as error:
            # The driver lets through what a server of another kind makes of it.
            found = f"Leginon's database ({self.shown}) does not answer as MySQL does: {printable(str(error))[:300]}"
            raise CatalogError(found, remedy="Check host and port") from error
        try:
            with opened as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._translated(error) from error

    def look_again(self) -> None:
        """Forget which tables there are: Leginon makes a table when it first has a row for it."""
        self._known.clear()

    def tables(self, connection: Connection, database: str) -> dict[str, SourceTable]:
        """The tables of a database by their names in lower case, since some servers keep them so; empty where there is
        no such database, or it may not be read."""
        if database not in self._known:
            self._known[database] = _tables(connection, database) if _DATABASE_NAME.fullmatch(database) else {}
        return self._known[database]

    def table(self, connection: Connection, name: str, database: str | None = None) -> SourceTable | None:
        """A table of a database, Leginon's own by default; None where there is none."""
        return self.tables(connection, database or self.database).get(name.lower())

    def databases_with(self, connection: Connection, *names: str) -> list[str]:
        """The databases that have all of these tables, in the order of their names."""
        found = table("tables", column("table_schema"), column("table_name"), schema="information_schema")
        query = (
            select(found.c.table_schema)
            .where(func.lower(found.c.table_name).in_([name.lower() for name in names]))
            .group_by(found.c.table_schema)
            .having(func.count() >= len(names))
            .order_by(found.c.table_schema)
        )
        return [str(row[0]) for row in connection.execute(query)]

    def _translated(self, error: SQLAlchemyError) -> CatalogError:
        cause = getattr(error, "orig", None)
        arguments = getattr(cause, "args", ())
        code = arguments[0] if arguments and isinstance(arguments[0], int) else 0
        said = printable(str(arguments[-1] if arguments else error))[:300]
        for secret in filter(None, (self._url.password,)):
            said = said.replace(str(secret), "[secret]")
        where = f"Leginon's database ({self.shown})"
        if code in _ACCESS:
            return CatalogError(f"{where} refuses the user or the password: {said}", remedy="Check both")
        if code in _AWAY:
            return CatalogError(f"{where} cannot be reached: {said}", remedy="Check host, port and network")
        if code == _UNKNOWN_DATABASE:
            return CatalogError(f"{where} is not there: {said}", remedy="Check the name after the last slash")
        if code in _DENIED:
            return CatalogError(f"{where} does not let this user read: {said}", remedy="Grant it SELECT")
        return CatalogError(f"{where} cannot be read: {said}")


def read_rows(
    connection: Connection,
    source: SourceTable,
    columns: Collection[str | None],
    *,
    where: Sequence[ColumnElement[bool]] = (),
    limit: int | None = None,
) -> list[Row]:
    """Rows in the order of their ids, each with `DEF_id` and these columns; those that are not there are left out.

    Text comes as bytes, times as seconds since 1970.
    """
    query = select_from(source, columns).where(*where).order_by(source.table.c["DEF_id"])
    if limit is not None:
        query = query.limit(limit)
    return [dict(row._mapping) for row in connection.execute(query)]


def rows_by_id(
    connection: Connection, source: SourceTable | None, ids: Collection[int], columns: Collection[str | None]
) -> dict[int, Row]:
    """The rows with these ids; those that are not there are left out, as are all where the table is not there."""
    found: dict[int, Row] = {}
    wanted = sorted(set(ids))
    for start in range(0, len(wanted) if source is not None else 0, _AT_ONCE):
        assert source is not None
        within = is_in(source, "DEF_id", wanted[start : start + _AT_ONCE])
        found |= {int(row["DEF_id"]): row for row in read_rows(connection, source, columns, where=[within])}
    return found


def select_from(source: SourceTable, columns: Collection[str | None]) -> Select[Any]:
    """A query for a table's ids and some of its columns."""
    names = dict.fromkeys(["DEF_id", *(name for name in columns if name is not None and name in source.columns)])
    return select(*(_read(source, name) for name in names)).select_from(source.table)


def is_in(source: SourceTable, name: str, values: Sequence[int]) -> ColumnElement[bool]:
    """The condition that a column has one of these values."""
    return source.table.c[name].in_(bindparam(None, list(values), expanding=True, unique=True))


def equals(source: SourceTable, name: str, value: object) -> ColumnElement[bool]:
    """The condition that a column has this value."""
    return source.table.c[name] == bindparam(None, value, unique=True)


def is_after(source: SourceTable, value: int) -> ColumnElement[bool]:
    """The condition that a row's id is above this one."""
    return source.table.c["DEF_id"] > bindparam(None, value, unique=True)


def _read(source: SourceTable, name: str) -> ColumnElement[Any]:
    kind = source.columns[name]
    if kind in _TEXT:
        return cast(source.table.c[name], BINARY).label(name)
    if kind in _TIME:
        return func.unix_timestamp(source.table.c[name]).label(name)
    return source.table.c[name].label(name)


def _tables(connection: Connection, database: str) -> dict[str, SourceTable]:
    found = table(
        "columns",
        *(column(name) for name in ("table_schema", "table_name", "column_name", "data_type", "ordinal_position")),
        schema="information_schema",
    )
    query = (
        select(found.c.table_name, found.c.column_name, found.c.data_type)
        .where(found.c.table_schema == database)
        .order_by(found.c.table_name, found.c.ordinal_position)
    )
    columns: dict[str, dict[str, str]] = {}
    for name, column_name, kind in connection.execute(query):
        columns.setdefault(str(name), {})[str(column_name)] = str(kind).lower()
    # A table without Leginon's own key is none of Leginon's.
    return {name.lower(): SourceTable(database, name, its) for name, its in columns.items() if "DEF_id" in its}


def _parse(url: str, password: str | None) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # not chained: their texts show the URL, and a password in it
        raise CatalogError("the URL of Leginon's database cannot be read", expected=EXPECTED) from None
    if parsed.get_backend_name() not in ("mysql", "mariadb"):
        raise CatalogError(
            f"the URL of Leginon's database is of {printable(parsed.drivername)}",
            expected=f"MySQL or MariaDB: {EXPECTED}",
        )
    if not parsed.database:
        raise CatalogError("the URL of Leginon's database names no database", expected=EXPECTED)
    parsed = parsed.set(drivername="mysql+pymysql")
    return parsed if password is None else parsed.set(password=password)


def _read_only(connection: Any, _record: object) -> None:
    """No statement of this session can write, whatever the user may; times are UTC."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute("SET SESSION sql_mode = ''")

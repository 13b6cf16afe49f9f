"""SQLAlchemy's and the drivers' exceptions → CatalogError, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alembic.util.exc import CommandError
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from coldchain.errors import CatalogError, printable

UPGRADE = "Run `coldchain catalog upgrade`"

# By the beginning of SQLite's own error names (sqlite3.Error.sqlite_errorname).
_SQLITE = (
    ("SQLITE_BUSY", "another process holds the catalog", "Find what holds it (fuser), then try again"),
    ("SQLITE_LOCKED", "another process holds the catalog", "Find what holds it (fuser), then try again"),
    ("SQLITE_READONLY", "the catalog cannot be written", "Give this user write permission on the file and its folder"),
    ("SQLITE_FULL", "no space is left for the catalog", "Free space on its file system, then try again"),
    (
        "SQLITE_CANTOPEN",
        "the catalog cannot be opened",
        "Check the URL, and this user's permissions on file and folder",
    ),
    ("SQLITE_PERM", "the catalog cannot be opened", "Check this user's permissions on the file and its folder"),
    ("SQLITE_NOTADB", "the file is not a catalog", "Check the URL, or restore the catalog from a backup"),
    ("SQLITE_CORRUPT", "the catalog is damaged", "Stop everything that writes it and restore it from a backup"),
    ("SQLITE_IOERR", "the catalog's file system fails", "Look at the kernel's log for the disk"),
    ("SQLITE_CONSTRAINT_FOREIGNKEY", "a row would refer to one that is not there", "Use the id of a row that exists"),
)


@contextmanager
def translated(url: URL) -> Iterator[None]:
    """Raise CatalogError for whatever SQLAlchemy and Alembic raise inside. The URL is shown without its password."""
    try:
        yield
    except (SQLAlchemyError, CommandError) as error:
        raise _translate(error, url) from error


def _translate(error: Exception, url: URL) -> CatalogError:
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, CatalogError):  # raised by a column type while it bound a value
        return cause
    said = printable(str(cause))
    where = url.render_as_string(hide_password=True)
    name = getattr(cause, "sqlite_errorname", "")
    for prefix, found, remedy in _SQLITE:
        if name.startswith(prefix):
            return CatalogError(f"{found} ({where}: {said})", remedy=remedy)
    if "no such table" in said or "no such column" in said:
        return CatalogError(f"the catalog lacks a table or a column ({where}: {said})", remedy=UPGRADE)
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
        return CatalogError(f"a value cannot be stored ({said})", expected="text and finite numbers")
    return CatalogError(f"the catalog refuses ({where}: {said})")

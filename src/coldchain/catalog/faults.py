"""SQLAlchemy's and the drivers' exceptions → CatalogError, each with its remedy."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from alembic.util.exc import CommandError
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from coldchain.errors import CatalogAwayError, CatalogError, printable
from coldchain.units import byte_size

UPGRADE = "Run `coldchain catalog upgrade`"

_HOLDS = ("another process holds the catalog", "Find what holds it (fuser), then try again")
# By the beginning of SQLite's own error names (sqlite3.Error.sqlite_errorname).
_SQLITE = (
    ("SQLITE_BUSY", *_HOLDS),
    ("SQLITE_LOCKED", *_HOLDS),
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
_LOGIN = ("the catalog's server refuses the login", "Check the URL's user, and the password or where it is read from")
_NOT_ALLOWED = ("the catalog's server lets this user not do it", "GRANT ALL ON its database to the URL's user")
_AWAY = ("the catalog's server is away", "It is tried again. Look whether the server runs, and at the way to it")
_NOT_BELIEVED = (
    "the catalog's server shows a certificate that is not believed",
    "Check ssl_ca in the catalog's URL, and the names and dates in the server's certificate",
)
_NO_TLS = (
    "the catalog's server does not talk by TLS, which the URL's ssl_… ask for",
    "Give the server a certificate, or take them away",
)
_WAITED = ("another connection holds the catalog", "Try again; SHOW PROCESSLIST on the server names what holds it")
_FULL = ("no space is left for the catalog", "Free space on its server, then try again")
_READ_ONLY = ("the catalog cannot be written", "Its server is read-only: make it writable, or name the one that is")
_LACKS = ("the catalog lacks a table or a column", UPGRADE)
_REFERENCE = ("a row would refer to one that is not there", "Use the id of a row that exists")
_TOO_LONG = ("a row is too long for the catalog's server", "Set max_allowed_packet to 64M on the server")
_LONG_BYTES = 4_000_000  # the least that servers allow by default is 4 MiB
_VALUE = ("a value cannot be stored", "Give text of the stated length, and finite numbers")
# By MariaDB's and MySQL's numbers, those of 2000 and more the client's own.
_SERVER = {
    **dict.fromkeys((1044, 1045, 1130, 1251, 1524, 1698, 1862, 4151), _LOGIN),
    **dict.fromkeys((1142, 1143, 1227, 1370), _NOT_ALLOWED),
    **dict.fromkeys((0, 1040, 1053, 1077, 1129, 1152, 1158, 1159, 1160, 1161, 1203, 1226), _AWAY),
    **dict.fromkeys((1317, 1927, 2002, 2003, 2006, 2013, 2014, 2027, 2055), _AWAY),
    **dict.fromkeys((1205, 1213, 3024, 3058, 3572, 1969), _WAITED),
    **dict.fromkeys((1021, 1114, 1041), _FULL),
    **dict.fromkeys((1290, 1792, 1836, 3100), _READ_ONLY),
    **dict.fromkeys((1146, 1054, 1932), _LACKS),
    **dict.fromkeys((1216, 1452), _REFERENCE),
    **dict.fromkeys((1264, 1265, 1366, 1406, 4025, 3140), _VALUE),
    1049: ("the catalog's server has no such database", "CREATE DATABASE it, then run `coldchain catalog upgrade`"),
    1153: _TOO_LONG,
    2026: _NO_TLS,
    2005: ("the catalog's server has a name that nobody knows", "Check the URL's host"),
    **dict.fromkeys(
        (126, 127, 144, 145, 1034, 1194, 1712),
        ("the catalog is damaged", "Stop everything that writes it and restore it from a backup"),
    ),
}
_PASSING = {_HOLDS[0], _AWAY[0], _WAITED[0]}


@contextmanager
def translated(url: URL) -> Iterator[None]:
    """Raise CatalogError for whatever SQLAlchemy, Alembic and the drivers raise inside; CatalogAwayError where the same
    call may succeed later. The URL is shown without its password."""
    try:
        yield
    except (SQLAlchemyError, CommandError) as error:
        raise _translate(_first(error), url) from error
    except UnicodeDecodeError as error:
        raise _undecodable(url, str(error)) from error


def shown(url: URL) -> str:
    """A URL without what may be secret: its password, and what follows a question mark."""
    return url.set(query={}).render_as_string(hide_password=True)


def _first(error: Exception) -> Exception:
    """What went wrong first: where a connection is lost, undoing its transaction fails as well, and hides why."""
    first, before = error, error.__context__
    while before is not None:
        if isinstance(before, DBAPIError):
            first = before
        before = before.__context__
    return first


def _translate(error: Exception, url: URL) -> CatalogError:
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, CatalogError):  # raised by a column type while it bound a value
        return cause
    said = printable(str(cause))
    where = f"({shown(url)}: {said})"
    found, remedy = _known(cause)
    if found == _AWAY[0] and (size := _size_bytes(error)) > _LONG_BYTES:
        # A server answers what exceeds its limit by closing the connection, and would again.
        found = f"the catalog's server has closed the connection at a statement of {byte_size(size)}"
        return CatalogError(f"{found} {where}", remedy=_TOO_LONG[1])
    if found in _PASSING:
        return CatalogAwayError(f"{found} {where}", remedy=remedy)
    if found:
        return CatalogError(f"{found} {where}", remedy=remedy)
    if "no such table" in said or "no such column" in said:
        return CatalogError(f"{_LACKS[0]} {where}", remedy=UPGRADE)
    if "Could not decode to UTF-8" in said:
        return _undecodable(url, said)
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
        return CatalogError(f"a value cannot be stored ({said})", expected="text and finite numbers")
    return CatalogError(f"the catalog refuses {where}")


def _known(cause: Exception) -> tuple[str, str]:
    """What is found and what to do, by the database's own name or number of an error; "" where it is not known."""
    name = getattr(cause, "sqlite_errorname", "")
    for prefix, found, remedy in _SQLITE:
        if name.startswith(prefix):
            return found, remedy
    if isinstance(getattr(cause, "original_exception", None), ssl.SSLCertVerificationError):
        return _NOT_BELIEVED
    number = cause.args[0] if cause.args else None
    return _SERVER.get(number, ("", "")) if isinstance(number, int) else ("", "")


def _size_bytes(error: Exception) -> int:
    """About how long a failed statement was."""
    params = getattr(error, "params", None) or ()
    rows = params if isinstance(params, list) else [params]
    values = (value for row in rows for value in (row.values() if isinstance(row, Mapping) else row))
    return sum(len(value) for value in values if isinstance(value, str | bytes))


def _undecodable(url: URL, said: str) -> CatalogError:
    return CatalogError(
        f"a text in the catalog is not UTF-8 ({shown(url)}: {said})",
        expected="what Coldchain wrote",
        remedy="Another program wrote it, or the disk damaged it: restore the catalog from a backup, or mend that row",
    )

"""SQLite's side of a backup: a snapshot by its online backup, and a restored file that takes the catalog's place."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from coldchain.catalog.backup_file import Label, Sink, copy, payload, private_file
from coldchain.errors import CatalogError, printable

_SIDES = ("-wal", "-shm")
_BUSY_SECONDS = 2.0


@contextmanager
def snapshot(catalog: Path, *, beside: Path) -> Iterator[Path]:
    """The catalog as it is at one moment, whole and checked, as a file beside another; removed afterwards."""
    whole = beside.with_name(f".{beside.name}.{os.getpid()}.sqlite")
    try:
        with _faults(catalog):
            with closing(_connect(catalog)) as source, closing(sqlite3.connect(whole)) as target:
                # All pages in one step: it reads in one transaction, and writers are not held up (WAL).
                source.backup(target, pages=-1)
                target.execute("PRAGMA journal_mode=DELETE")
            _check(whole)
        yield whole
    finally:
        for name in ("", "-journal", *_SIDES):
            with suppress(OSError):
                whole.with_name(whole.name + name).unlink(missing_ok=True)


def pour(whole: Path, sink: Sink) -> int:
    """Write a snapshot into a sink; its bytes."""
    with whole.open("rb") as file:
        return copy(file, sink)


def put(backup: Path, catalog: Path, label: Label, *, replace: bool) -> Path | None:
    """Make a catalog from a backup; where one that was there lies now. Raises CatalogError, OSError."""
    catalog = catalog.resolve()  # what a link leads to is replaced, not the link
    if not catalog.parent.is_dir():
        raise CatalogError(
            "the catalog's folder is not there", remedy="Make it, or correct the URL", path=catalog.parent
        )
    if catalog.exists() and not replace and not _is_empty(catalog):
        raise CatalogError(
            "there is a catalog already, with rows in it",
            remedy="Give --replace to put the backup in its place; it is renamed and kept",
            path=catalog,
        )
    new = catalog.with_name(f".{catalog.name}.{os.getpid()}.restored")
    try:
        _unpack(backup, new, label)
        with _faults(backup):
            _check(new)
        aside = None
        if catalog.exists():
            _take_after(new, catalog)
            aside = _move_aside(catalog)
        new.rename(catalog)
        _flush(catalog.parent)
    finally:
        for name in ("", "-journal", *_SIDES):
            with suppress(OSError):
                new.with_name(new.name + name).unlink(missing_ok=True)
    return aside


def _unpack(backup: Path, new: Path, label: Label) -> None:
    with payload(backup) as source, private_file(new) as file:
        if copy(source, file) != label.rows_bytes:
            raise CatalogError("the backup has another size than it says", path=backup)
        file.flush()
        os.fsync(file.fileno())


def _connect(catalog: Path) -> sqlite3.Connection:
    """To a database that is there: none is made."""
    return sqlite3.connect(f"{catalog.absolute().as_uri()}?mode=rw", uri=True)


def _check(file: Path) -> None:
    """Raise CatalogError where a database is not whole."""
    with closing(sqlite3.connect(file)) as connection:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
        found = [] if found == ["ok"] else found
        found += [f"{row[0]} refers to {row[2]}" for row in connection.execute("PRAGMA foreign_key_check").fetchmany(3)]
    if found:
        raise CatalogError(
            f"the catalog's content is damaged ({printable('; '.join(found))})",
            remedy="Restore it from an earlier backup",
            path=file,
        )


def _is_empty(catalog: Path) -> bool:
    """Whether no table of a catalog has a row, but for its revision. What is no catalog is not empty."""
    if catalog.stat().st_size == 0:
        return True
    with _faults(catalog), closing(_connect(catalog)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        quoted = ['"{}"'.format(name.replace('"', '""')) for name in tables if name != "alembic_version"]
        return not any(connection.execute(f"SELECT EXISTS (SELECT 1 FROM {name})").fetchone()[0] for name in quoted)  # noqa: S608


def _move_aside(catalog: Path) -> Path:
    """Rename a catalog that nobody uses, with what its log still holds."""
    _settle(catalog)
    aside = catalog.with_name(f"{catalog.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    catalog.rename(aside)
    for side in _SIDES:
        with suppress(FileNotFoundError):
            catalog.with_name(catalog.name + side).rename(aside.with_name(aside.name + side))
    return aside


def _take_after(new: Path, old: Path) -> None:
    """Give a file the mode and, as root, the owner of another: the service may run as another user than this one."""
    found = old.stat()
    with suppress(PermissionError):
        os.chown(new, found.st_uid, found.st_gid)
    new.chmod(found.st_mode & 0o777)


def _settle(catalog: Path) -> None:
    """Write a catalog's log into it; CatalogError where somebody has it open. What is damaged stays as it is."""
    try:
        with closing(sqlite3.connect(catalog, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith("SQLITE_BUSY"):
            raise CatalogError(
                "another process has the catalog open", remedy="Stop the service and the site first", path=catalog
            ) from error
    except sqlite3.DatabaseError:
        return


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorname", "").startswith("SQLITE_FULL")
        if full:
            raise CatalogError(
                "no space is left for it", remedy="Free space, or write it elsewhere", path=path
            ) from error
        raise CatalogError(
            f"it cannot be read ({printable(str(error))})", remedy="Restore it from a backup", path=path
        ) from error

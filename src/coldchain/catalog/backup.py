"""A whole catalog into one file while it is at work, and out of it again.

What is in the file is the catalog as it was at one moment: a SQLite file is read in one transaction, a server by one
snapshot. A backup is read again before it gets its name; a restored catalog is checked before it takes its place.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from coldchain.catalog import backup_server, backup_sqlite, engine, server
from coldchain.catalog.backup_file import Digesting, Label, compressed, new_file, seal, verify
from coldchain.errors import CatalogError, printable

_SQLITE, _SERVER = "sqlite", "mariadb"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `aside` is where a catalog that was there before lies now. `is_logged`: other servers that
    follow this one get it, too. `follows` are the servers that this one follows."""

    label: Label
    aside: Path | None = None
    is_logged: bool = False
    follows: tuple[str, ...] = ()


def make(url: str, site: str, path: Path) -> Label:
    """Write the catalog into a new file; what it is of. Whoever works with the catalog goes on meanwhile.

    Raises
    ------
    CatalogError
        The catalog cannot be opened or read, the name is taken, the disk is full; nothing is left then.
    """
    parsed = _parsed(url)
    revision = _revision(url, site)
    now = datetime.now(UTC)
    with _disk_faults(path), new_file(path) as file:
        digesting = Digesting(file)
        if server.is_server(parsed):
            with compressed(digesting) as sink:
                position, size = backup_server.dump(parsed, sink)
        else:
            snapshot = backup_sqlite.snapshot(Path(parsed.database or ""), beside=path)
            with snapshot as whole, compressed(digesting) as sink:
                position, size = "", backup_sqlite.pour(whole, sink)
        if _revision(url, site) != revision:
            raise CatalogError("the catalog was upgraded meanwhile", remedy="Make the backup again")
        label = Label(_SERVER if server.is_server(parsed) else _SQLITE, revision, site, now, position, size)
        seal(file, label, digesting.hexdigest())
    try:
        return verify(path)
    except CatalogError:
        path.unlink(missing_ok=True)
        raise


def restore(url: str, path: Path, *, replace: bool) -> Restored:
    """Make a catalog from a backup, where there is none or an empty one; with `replace`, also in another one's place.

    Nothing is deleted: a SQLite catalog that was there is renamed. A server's database must be empty, always.

    Raises
    ------
    CatalogError
        The backup is damaged, of another engine or a newer version, or something is in the way. What was there before
        is there still.
    """
    parsed = _parsed(url)
    label = verify(path)
    _require_fitting(label, parsed, path)
    with _disk_faults(path):
        if server.is_server(parsed):
            if replace:
                raise CatalogError(
                    "a server's database is not replaced",
                    remedy="Make another one (CREATE DATABASE), let the catalog's url name it, and restore into that",
                )
            done = backup_server.load(parsed, path)
            return Restored(label, is_logged=done.is_logged, follows=done.follows)
        return Restored(label, aside=backup_sqlite.put(path, Path(parsed.database or ""), label, replace=replace))


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):  # not chained: their texts show the URL, and a password in it
        raise CatalogError("the catalog's URL cannot be read", expected="sqlite:////folder/catalog.sqlite") from None


def _revision(url: str, site: str) -> str:
    """This version's revision, which the catalog must have. Raises CatalogError."""
    engine.open_catalog(url, site).close()
    return engine.head()


def _require_fitting(label: Label, url: URL, path: Path) -> None:
    kind = _SERVER if server.is_server(url) else _SQLITE
    if label.engine != kind:
        raise CatalogError(
            f"the backup is of a catalog in {printable(label.engine)}",
            expected=f"one of {kind}, as facility.toml says",
            remedy="Let [catalog] url name such a database",
            path=path,
        )
    if label.revision > engine.head():
        raise CatalogError(
            f"the backup has the revision {printable(label.revision)}, which this version does not know",
            expected=f"{engine.head()} or an older one",
            remedy="A newer Coldchain has made it: upgrade this one",
            path=path,
        )


@contextmanager
def _disk_faults(path: Path) -> Iterator[None]:
    """A full disk and its kin as CatalogError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free space, or write it elsewhere"
            raise CatalogError("no space is left for it", remedy=remedy, path=error.filename or path) from error
        raise

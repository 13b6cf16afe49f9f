"""Whose turn it is to clear a site's copies: one process at a time for each catalog, on however many hosts.

What is RETIRING or REMOVING when a turn begins was left by a killed process, and its copies may be moved back. So no
two may clear at once, be it from two folders of configuration or, by a server, from two hosts. On SQLite the turn is a
lock on a file beside the catalog; on a server, a lock of its own that ends with its connection.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url

from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError

_IDLE_SECONDS = 30 * 86_400
"""A pass may read terabytes while the turn's connection says nothing."""


@contextmanager
def clearing_turn(catalog: Catalog) -> Iterator[bool]:
    """Take the turn for as long as it lasts; False where another has it. Raises CatalogError."""
    url = make_url(catalog.url)
    if url.get_backend_name() == "sqlite":
        with _file_locked(Path(f"{os.path.realpath(str(url.database))}.{catalog.site}.clearing.lock")) as is_ours:
            yield is_ours
        return
    # 64 characters at most; a server's locks are those of all its databases.
    name = "coldchain-" + hashlib.sha256(f"{url.database}\n{catalog.site}".encode()).hexdigest()[:40]
    with catalog.reading() as unit:
        unit.execute(text(f"SET SESSION wait_timeout = {_IDLE_SECONDS}"))
        is_ours = unit.scalar(select(func.get_lock(name, 0))) == 1
        try:
            yield is_ours
        finally:
            if is_ours:
                unit.execute(select(func.release_lock(name)))


@contextmanager
def _file_locked(path: Path) -> Iterator[bool]:
    try:
        file = path.open("a")
    except OSError as error:
        raise CatalogError(
            f"its lock cannot be opened: {error.strerror or error}",
            remedy="Give this user write permission on the catalog's folder",
            path=path,
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True

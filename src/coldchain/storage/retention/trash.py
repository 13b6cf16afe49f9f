"""A store's trash: where a cleared copy lies until its grace time is over, under which name, and the way back.

The trash of a store is its folder `.coldchain-trash`, with a folder for each day (UTC), below which a copy keeps its
stored name. The catalog has the name in the trash before the file is moved, and is told afterwards: where the file is
found says which of both a killed process did last.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from coldchain.catalog.clearing_turn import clearing_turn
from coldchain.catalog.engine import Catalog
from coldchain.errors import StorageError
from coldchain.model.files import VerificationLevel
from coldchain.model.retention import FileOnStores, StoredCopy
from coldchain.storage.ring import Ring
from coldchain.storage.store import TRASH_FOLDER, Store

_LONGEST_PATH_BYTES = 4096
_TRIES = 1000


class Where(StrEnum):
    """Where a copy's file is found that was cleared, or was going to be."""

    PLACE = "place"
    TRASH = "trash"
    BOTH = "both"
    NOWHERE = "nowhere"


def name_in_trash(location: str, at: datetime, number: int = 1) -> str:
    """What a copy is called in the trash: the day, and its stored name; `number` tells apart those of one day."""
    day = f"{at.astimezone(UTC):%Y-%m-%d}" + ("" if number == 1 else f"-{number}")
    return f"{TRASH_FOLDER}/{day}/{location}"


def free_name(store: Store, location: str, at: datetime) -> str:
    """A name in the trash that nothing bears. Raises StorageError, also where the name would be too long."""
    for number in range(1, _TRIES):
        name = name_in_trash(location, at, number)
        if len(os.fsencode(name)) > _LONGEST_PATH_BYTES:
            break
        if store.size_of(name) is None:
            return name
    raise StorageError(
        "there is no name for it in the trash",
        expected=f"a path of at most {_LONGEST_PATH_BYTES} bytes that is free",
        remedy="Empty the store's trash of that day",
        path=location,
    )


def find(store: Store, copy: StoredCopy) -> Where:
    """Where the file of a copy is that bears a name in the trash. Raises StorageError where the store is away."""
    at_place = store.size_of(copy.location) is not None
    in_trash = copy.trashed_as is not None and store.size_of(copy.trashed_as) is not None
    if at_place:
        return Where.BOTH if in_trash else Where.PLACE
    return Where.TRASH if in_trash else Where.NOWHERE


def put_back(store: Store, file: FileOnStores, copy: StoredCopy, ring: Ring) -> VerificationLevel:
    """Read a copy in the trash, and move it to where it lay before; to what level it was read.

    Raises VerificationError where it is not the file's content, StorageError where it cannot be moved: nothing that
    stands in its place is overwritten.
    """
    assert copy.trashed_as is not None and file.sha256 is not None
    found = store.confirm(copy.trashed_as, file.sha256, file.size_bytes, ring)
    store.move(copy.trashed_as, copy.location)
    return found.level


@contextmanager
def clearing_alone(catalog: Catalog, lock: Path) -> Iterator[None]:
    """The only process of this facility.toml (`lock` lies beside it), and of this site of the catalog, that moves
    copies to and from trashes, as long as it lasts. Raises StorageError where another is; CatalogError."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _another(lock) from None
        with clearing_turn(catalog) as is_ours:
            if not is_ours:
                raise _another(catalog.url)
            yield


def _another(where: Path | str) -> StorageError:
    return StorageError(
        "another process is clearing stores now",
        remedy="Wait until it has done; `coldchain run` clears by itself, for a while each time",
        path=where,
    )

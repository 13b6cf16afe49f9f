"""Proves a copy again that was verified before, and says what is wrong with one that is not whole any more."""

from __future__ import annotations

from dataclasses import dataclass

from coldchain.errors import StorageError
from coldchain.model.files import CheckTask
from coldchain.storage.ring import RingPool
from coldchain.storage.store import Store, wrong_store

_RINGS = RingPool()


@dataclass(frozen=True, slots=True)
class Check:
    """What reading a copy again gave: whole (neither is set), `damage`, or that the store could not be asked."""

    damage: str = ""
    trouble: StorageError | None = None


def stored_name_of(store: Store, task: CheckTask) -> str:
    """Under which name a copy lies."""
    return task.replica.kept_as or task.replica.stored_as or store.stored_name(task.relative)


def check(store: Store, task: CheckTask) -> Check:
    """Read a copy in full, as near to its medium as its store allows, and compare.

    A store that is away, or not the one it was, proves nothing against its copies, nor does a link that breaks; an
    error that comes again while the store itself answers is the copy's.
    """
    first = _look(store, task)
    if first.trouble is None or _is_away(store):
        return first
    again = _look(store, task)
    if again.trouble is None or _is_away(store):
        return again
    return Check(damage=f"it cannot be read: {again.trouble.found}")


def _look(store: Store, task: CheckTask) -> Check:
    try:
        name = stored_name_of(store, task)
        if store.size_of(name) is None:
            # A store may trust for some seconds that it is the one it was; before damage is called, it is asked.
            found_mark = None if store.identity is None else store.mark()
            if store.identity is not None and found_mark != store.identity:
                return Check(trouble=wrong_store(store.name, store.identity, found_mark))
            return Check(damage="it is not there")
        with _RINGS.borrow() as ring:
            found = store.read_back(name, ring)
    except StorageError as error:
        return Check(trouble=error)
    if found.sha256 != task.sha256:
        return Check(damage=f"{found.size_bytes:,} bytes of SHA-256 {found.sha256}, where {task.sha256} was verified")
    return Check()


def _is_away(store: Store) -> bool:
    try:
        store.space()
        return store.identity is not None and store.mark() != store.identity
    except StorageError:
        return True

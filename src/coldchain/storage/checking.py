"""Proves a copy again that was verified before, and says what is wrong with one that is not whole any more."""

from __future__ import annotations

from dataclasses import dataclass

from coldchain.errors import StorageError
from coldchain.model.files import CheckTask
from coldchain.storage.ring import RingPool
from coldchain.storage.store import Store

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

    A store that is away, or not the one it was, proves nothing against its copies; an error that stays while the store
    itself answers is the copy's.
    """
    try:
        name = stored_name_of(store, task)
        if store.size_of(name) is None:
            return Check(damage="it is not there")
        with _RINGS.borrow() as ring:
            found = store.read_back(name, ring)
    except StorageError as error:
        return Check(trouble=error) if _is_away(store, error) else Check(damage=f"it cannot be read: {error.found}")
    if found.sha256 != task.sha256:
        return Check(damage=f"{found.size_bytes:,} bytes of SHA-256 {found.sha256}, where {task.sha256} was verified")
    return Check()


def _is_away(store: Store, error: StorageError) -> bool:
    if not store.is_at_fault(error):
        return False
    try:
        store.space()
        return store.identity is not None and store.mark() != store.identity
    except StorageError:
        return True

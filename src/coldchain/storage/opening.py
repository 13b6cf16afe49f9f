"""`[[store]]` of facility.toml → a store, with what it tells of itself."""

from __future__ import annotations

from uuid import UUID

from coldchain.storage.posix import PosixStore
from coldchain.storage.sections import StoreSection
from coldchain.storage.store import Store


def make_store(section: StoreSection, identity: UUID | None = None) -> Store:
    """The store that a section describes; nothing is touched yet."""
    return PosixStore(section.name, section.folder, identity=identity)


def describe(store: Store) -> str:
    """What a store tells of itself beside its size, in one line; "" where it tells nothing."""
    del store
    return ""

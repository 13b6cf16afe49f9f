"""A store around a store: everything passes, unless what is derived from it says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from uuid import UUID

from coldchain.errors import StorageError
from coldchain.model.files import KeptAside
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import Ring
from coldchain.storage.store import FileFacts, Found, Incoming, Reading, Space, Store


class WrappedStore:
    """Hands every call on to `inner`, whose name and identity are its own."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.name = inner.name
        self.batches = inner.batches
        self.near = inner.near

    @property
    def identity(self) -> UUID | None:
        """What the inner store must bear."""
        return self.inner.identity

    @identity.setter
    def identity(self, identity: UUID | None) -> None:
        self.inner.identity = identity

    def mark(self) -> UUID | None:
        """As the inner store."""
        return self.inner.mark()

    def set_mark(self, identity: UUID) -> None:
        """As the inner store."""
        self.inner.set_mark(identity)

    def space(self) -> Space | None:
        """As the inner store."""
        return self.inner.space()

    def stored_name(self, relative: str) -> str:
        """As the inner store."""
        return self.inner.stored_name(relative)

    def size_of(self, stored_as: str) -> int | None:
        """As the inner store."""
        return self.inner.size_of(stored_as)

    def receive(self, relative: str, facts: FileFacts) -> AbstractContextManager[Incoming]:
        """As the inner store."""
        return self.inner.receive(relative, facts)

    def flush(self) -> None:
        """As the inner store."""
        self.inner.flush()

    def read_back(self, stored_as: str, ring: Ring) -> ReadBack:
        """As the inner store."""
        return self.inner.read_back(stored_as, ring)

    def confirm(self, stored_as: str, sha256: str, size_bytes: int, ring: Ring) -> ReadBack:
        """As the inner store."""
        return self.inner.confirm(stored_as, sha256, size_bytes, ring)

    def reading(self, stored_as: str) -> AbstractContextManager[Reading]:
        """As the inner store."""
        return self.inner.reading(stored_as)

    def move(self, stored_as: str, to: str) -> None:
        """As the inner store."""
        self.inner.move(stored_as, to)

    def remove(self, stored_as: str) -> bool:
        """As the inner store."""
        return self.inner.remove(stored_as)

    def walk(self) -> Iterator[Found]:
        """As the inner store."""
        return self.inner.walk()

    def remove_partials(self) -> int:
        """As the inner store."""
        return self.inner.remove_partials()

    def is_at_fault(self, error: StorageError) -> bool:
        """As the inner store."""
        return self.inner.is_at_fault(error)


class WrappedIncoming:
    """Hands every call on to the copy `inner`."""

    def __init__(self, inner: Incoming) -> None:
        self.inner = inner

    @property
    def stored_as(self) -> str:
        """As the inner copy."""
        return self.inner.stored_as

    @property
    def skip_bytes(self) -> int:
        """As the inner copy."""
        return self.inner.skip_bytes

    @property
    def kept(self) -> KeptAside | None:
        """As the inner copy."""
        return self.inner.kept

    def write(self, view: memoryview) -> None:
        """As the inner copy."""
        self.inner.write(view)

    def seal(self, *, durable: bool = True) -> None:
        """As the inner copy."""
        self.inner.seal(durable=durable)

    def prove(self, sha256: str, ring: Ring) -> ReadBack:
        """As the inner copy."""
        return self.inner.prove(sha256, ring)

    def publish(self, sha256: str, ring: Ring, *, durable: bool = True) -> None:
        """As the inner copy."""
        self.inner.publish(sha256, ring, durable=durable)

"""A store in which nothing is changed: it is read as it is, and what would have been done is listed.

Whoever would change something gets an error, never a pretended success: nobody shall write into the catalog that a copy
was made, moved or removed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import NoReturn
from uuid import UUID

from coldchain.errors import StorageError
from coldchain.storage.store import FileFacts, Incoming, Store
from coldchain.storage.wrappers.wrapped import WrappedStore


class Change(StrEnum):
    """What would have been done."""

    COPY = "copy"
    MARK = "mark"
    MOVE = "move"
    REMOVE = "remove"
    SWEEP = "sweep"


@dataclass(frozen=True, slots=True)
class Intended:
    """A change that was not made: `name` is a copy's path, a stored name or an identity; `to` a move's new name, and
    `size_bytes` the copy's size where it is known."""

    change: Change
    name: str = ""
    to: str = ""
    size_bytes: int | None = None


class DryRunError(StorageError):
    """Nothing was done, because it was not to be done."""


class DryRun(WrappedStore):
    """Refuses and lists every change of `inner`."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._lock = Lock()
        self._intended: list[Intended] = []

    @property
    def intended(self) -> list[Intended]:
        """What would have been done, in its order."""
        with self._lock:
            return list(self._intended)

    def set_mark(self, identity: UUID) -> None:
        """List it, and raise DryRunError."""
        self._refuse(Intended(Change.MARK, str(identity)))

    def receive(self, relative: str, facts: FileFacts) -> AbstractContextManager[Incoming]:
        """List it, and raise DryRunError."""
        self._refuse(Intended(Change.COPY, relative, size_bytes=facts.size_bytes))

    def flush(self) -> None:
        """Nothing was written, and nothing is made durable."""

    def move(self, stored_as: str, to: str) -> None:
        """List it, and raise DryRunError."""
        self._refuse(Intended(Change.MOVE, stored_as, to, size_bytes=self.inner.size_of(stored_as)))

    def remove(self, stored_as: str) -> bool:
        """List it, and raise DryRunError."""
        self._refuse(Intended(Change.REMOVE, stored_as, size_bytes=self.inner.size_of(stored_as)))

    def remove_partials(self) -> int:
        """List it, and raise DryRunError."""
        self._refuse(Intended(Change.SWEEP))

    def is_at_fault(self, error: StorageError) -> bool:
        """A dry run is nobody's fault."""
        return not isinstance(error, DryRunError) and self.inner.is_at_fault(error)

    def _refuse(self, intended: Intended) -> NoReturn:
        with self._lock:
            self._intended.append(intended)
        what = f"{intended.change} {intended.name}".rstrip()
        raise DryRunError(f"store {self.name!r}: {what}: not done, for this is a dry run", remedy="Run it in earnest")

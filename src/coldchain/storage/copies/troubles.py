"""What stands in a copier's way: by store, and by copy or file. `backoff` decides when each is tried again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Lock
from uuid import UUID

from coldchain.errors import StorageError, StoreFullError
from coldchain.storage.copies import backoff
from coldchain.storage.copies.backoff import Trouble, after_failure, is_stale, may_try
from coldchain.storage.store import Space, Store

_HOPEFUL_FAILURES = 3
_BUSY_SECONDS = 30.0
_SILENT_SECONDS = 30.0
_SPACE_SECONDS = 1.0


class Troubles:
    """The troubles of these stores, and of what is copied to them. Threads may share it."""

    def __init__(self, stores: Mapping[str, Store]) -> None:
        self._stores = stores
        self._lock = Lock()
        self._of_stores: dict[str, Trouble] = {}
        self._copied_bytes = dict.fromkeys(stores, 0)
        self._copied_at: dict[str, float] = {}
        self._looks: dict[str, float] = {}
        self._spaces: dict[str, tuple[float, Space | None]] = {}
        self._of_copies: dict[UUID, Trouble] = {}  # by replica; by file where its source, or the catalog, is at fault

    def is_well(self, store: str) -> bool:
        """Whether a store may be written to now."""
        if self._is_silent(store):
            return False
        trouble = self._of_stores.get(store)
        full = trouble is not None and trouble.space_when_full is not None
        return may_try(trouble, time.monotonic(), self._space_of(store) if full else None)

    def look_begun(self, store: str) -> None:
        """Somebody is about to ask the store something that takes no time while it answers at all."""
        self._looks[store] = time.monotonic()

    def look_ended(self, store: str) -> None:
        """It has answered."""
        self._looks.pop(store, None)

    def _is_silent(self, store: str) -> bool:
        begun = self._looks.get(store)
        return begun is not None and time.monotonic() - begun > _SILENT_SECONDS

    def _space_of(self, store: str) -> Space | None:
        """What a full store has left, asked at most once a second: it is wanted for every file."""
        asked_at, space = self._spaces.get(store, (-_SPACE_SECONDS, None))
        if time.monotonic() - asked_at >= _SPACE_SECONDS:
            space = _space_of(self._stores[store])
            self._spaces[store] = (time.monotonic(), space)
        return space

    def is_hopeful(self, store: str) -> bool:
        """Whether a store may be well soon: it has not failed often yet."""
        trouble = self._of_stores.get(store)
        return trouble is None or trouble.failures < _HOPEFUL_FAILURES or self.is_well(store)

    def of_store(self, store: str) -> str:
        """Why a store is not well; "" while it is."""
        if self._is_silent(store):
            return f"store {store!r} does not answer; see to its mount and its network"
        trouble = self._of_stores.get(store)
        return "" if trouble is None else trouble.reason

    def copied_bytes(self, store: str) -> int:
        """How many bytes of copies a store was given since the start."""
        return self._copied_bytes[store]

    def is_busy(self, store: str) -> bool:
        """Whether a store was given a copy within the last seconds."""
        return time.monotonic() - self._copied_at.get(store, -_BUSY_SECONDS) < _BUSY_SECONDS

    def waiting(self) -> set[UUID]:
        """Copies and files whose next try is not due yet."""
        now_seconds = time.monotonic()
        with self._lock:
            self._of_copies = {key: t for key, t in self._of_copies.items() if not is_stale(t, now_seconds)}
            return {key for key, trouble in self._of_copies.items() if not may_try(trouble, now_seconds)}

    def hopeless(self) -> set[UUID]:
        """Those of `waiting` that have failed often."""
        now_seconds = time.monotonic()
        with self._lock:
            return {
                key
                for key, trouble in self._of_copies.items()
                if trouble.failures >= _HOPEFUL_FAILURES and not may_try(trouble, now_seconds)
            }

    def note(self, key: UUID, reason: str) -> Trouble:
        """A copy, or a file, has failed once more."""
        with self._lock:
            trouble = self._of_copies[key] = after_failure(self._of_copies.get(key), reason, time.monotonic())
            return trouble

    def forget(self, key: UUID) -> None:
        """It is well."""
        with self._lock:
            self._of_copies.pop(key, None)

    def note_outcome(self, store: str, replica_id: UUID, error: StorageError | None, size_bytes: int) -> bool:
        """Keep or clear the trouble of the store, or of this copy where the store is not at fault: what waits for a
        store goes on as soon as that is back. Whether the store was in that trouble already."""
        at_fault = error is not None and self._stores[store].is_at_fault(error)
        if error is not None and not at_fault:
            self.note(replica_id, str(error))
            return False
        space = _space_of(self._stores[store]) if isinstance(error, StoreFullError) else None
        with self._lock:
            before = self._of_stores.pop(store, None)
            if error is None:
                self._of_copies.pop(replica_id, None)
                self._copied_bytes[store] += size_bytes
                self._copied_at[store] = time.monotonic()
                return False
            self._of_stores[store] = after_failure(
                before,
                str(error),
                time.monotonic(),
                longest_seconds=backoff.LONGEST_STORE_WAIT_SECONDS,
                space_when_full=space,
                wanted_bytes=size_bytes,
            )
            return before is not None


def _space_of(store: Store) -> Space | None:
    try:
        return store.space()
    except StorageError:
        return None

"""Looks after one store: that it is the one that it was, how it is, how full, and how much is still wanted on it.

Each store has a keeper with a thread of its own: one that does not answer (a network mount whose server is gone) holds
up no other. What it finds goes to the catalog, where the page and the alerts take it from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from coldchain.catalog import stores
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError, StorageError
from coldchain.model.stores import StoreLook, StoreState
from coldchain.storage.copies.troubles import Troubles
from coldchain.storage.store import Store, wrong_store

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
SAMPLE_SECONDS = 600.0
_PACE_SECONDS = 600.0
_FIRST_LOOK_SECONDS = 5.0
# No memory, no descriptor, no thread: the machine is at its limit for a while.
_SCARCITY = (MemoryError, OSError, RuntimeError)


class StoreKeeper:
    """A part of the facility for one store that `stores.enrol` has enrolled.

    `describe` says what the store tells of itself (its file system, striping, quota), "" where nothing.
    """

    def __init__(
        self, catalog: Catalog, store: Store, troubles: Troubles, *, describe: Callable[[], str] = lambda: ""
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._troubles = troubles
        self._describe = describe
        self._pace: deque[tuple[float, int]] = deque()
        self._sampled_at: datetime | None = None
        self._said, self._described_until = "", 0.0
        self._stopping = threading.Event()
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"keeper of {store.name}", daemon=True)

    def start(self) -> None:
        """Begin; wait some seconds for the first look: nothing is written to a new store before it has its identity."""
        self._thread.start()
        self._looked.wait(_FIRST_LOOK_SECONDS)

    def stop(self) -> None:
        """End, unless the store does not answer: then the thread ends with the process."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_FIRST_LOOK_SECONDS)

    def idle(self) -> bool:
        """Always: looking after a store is no work that ends."""
        return True

    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except CatalogError as error:
                log.warning("keeper of %s: %s", self._store.name, error)
            except _SCARCITY:
                log.exception("keeper of %s: it could not look", self._store.name)
            self._looked.set()
            self._stopping.wait(LOOK_SECONDS)

    def look(self) -> StoreState:
        """Look once, and write down what was found. Raises CatalogError."""
        state = stores.find(self._catalog, self._store.name)
        self._store.identity = state.identity
        self._troubles.look_begun(self._store.name)
        try:
            look = self._look(state)
        finally:
            self._troubles.look_ended(self._store.name)
        state = stores.record_look(self._catalog, self._store.name, look)
        self._sample()
        return state

    def _look(self, state: StoreState) -> StoreLook:
        pace = self._bytes_per_second(state.backlog_bytes)
        try:
            self._require_identity(state)
            space = self._store.space()
            about = self._about()
        except StorageError as error:
            return StoreLook(trouble=str(error), bytes_per_second=pace)
        trouble = self._troubles.of_store(self._store.name)
        if space is None:
            return StoreLook(trouble=trouble, about=about, bytes_per_second=pace)
        return StoreLook(trouble, about, space.total_bytes, space.free_bytes, space.free_files, pace)

    def _about(self) -> str:
        """What the store tells of itself, asked as seldom as it is sampled: programs may have to be run for it."""
        now = time.monotonic()
        if now >= self._described_until:
            self._said, self._described_until = self._describe(), now + SAMPLE_SECONDS
        return self._said

    def _require_identity(self, state: StoreState) -> None:
        """See that the store bears its identity, and give it to one that is new."""
        name, found = self._store.name, self._store.mark()
        if found is not None:
            self._refuse_a_second_way(name, found)
        if found == state.identity and state.is_marked:
            return
        is_new = found is None or found == state.identity or stores.is_known(self._catalog, name, found)
        if state.is_marked or not is_new:
            raise wrong_store(name, state.identity, found)
        identity = state.identity if found is None else found
        self._store.identity = identity
        if found is None:
            self._store.set_mark(identity)
        stores.note_marked(self._catalog, name, identity)

    def _refuse_a_second_way(self, name: str, found: UUID) -> None:
        other = stores.bearer(self._catalog, name, found)
        if other:
            raise StorageError(
                f"what lies in the place of store {name!r} is the store {other!r}",
                expected="a store of its own",
                remedy="Mount another disk there: one tree that is reached twice is one copy",
            )

    def _bytes_per_second(self, backlog_bytes: int) -> float | None:
        """The pace of the copies of the last ten minutes in which there was something to copy."""
        now, copied = time.monotonic(), self._troubles.copied_bytes(self._store.name)
        if not backlog_bytes and self._pace and self._pace[-1][1] == copied:
            self._pace.clear()
        self._pace.append((now, copied))
        while self._pace and now - self._pace[0][0] > _PACE_SECONDS:
            self._pace.popleft()
        (begun, before) = self._pace[0]
        return (copied - before) / (now - begun) if copied > before and now > begun else None

    def _sample(self) -> None:
        now = datetime.now(UTC)
        if self._sampled_at is None:
            self._sampled_at = stores.last_sample_at(self._catalog, self._store.name) or now - timedelta(
                seconds=SAMPLE_SECONDS
            )
        # A clock that was set back must not stop the samples for as long.
        if abs((now - self._sampled_at).total_seconds()) >= SAMPLE_SECONDS:
            since = min(self._sampled_at, now)
            self._sampled_at = stores.record_sample(self._catalog, self._store.name, since).at

"""Reads every copy of a store again, round after round, so that what rots is found while there is a good copy left.

The copy that was proved longest ago is read first, and none is left for longer than the facility says. What is wrong is
written down, and the copier makes it again from a good copy.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from coldchain.catalog import checks, replicas
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError, StorageError
from coldchain.model.files import CheckTask
from coldchain.storage.checking import check
from coldchain.storage.store import Store

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 60.0
_AT_ONCE = 64
# No memory, no descriptor, no thread: the machine is at its limit for a while.
_SCARCITY = (MemoryError, OSError, RuntimeError)
# Begun before its time, a round is over in time.
_EARLY = 0.9


class Scrubber:
    """A part of the facility that scrubs one store.

    Parameters
    ----------
    days : within which every copy is read again.
    bytes_per_second : at most; None: as fast as the store gives them.
    is_busy : whether the store has copies to take; the scrub then waits, unless a copy is overdue.
    """

    def __init__(
        self,
        catalog: Catalog,
        store: Store,
        *,
        days: float,
        bytes_per_second: float | None = None,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._days = timedelta(days=days)
        self._bytes_per_second = bytes_per_second
        self._is_busy = is_busy
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"scrubber of {store.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the file in hand; one that does not answer ends with the process."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_PAUSE_SECONDS)

    def idle(self) -> bool:
        """Always: what it does is never done."""
        return True

    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                done = self.round()
            except (CatalogError, StorageError) as error:
                log.warning("scrubber of %s: %s", self._store.name, error)
                done = 0
            except _SCARCITY:
                log.exception("scrubber of %s: it could not read", self._store.name)
                done = 0
            if not done:
                self._stopping.wait(_PAUSE_SECONDS)

    def round(self) -> int:
        """Check some of the copies that are due; how many. Raises CatalogError, and StorageError where the store is
        away: that is no damage."""
        now = datetime.now(UTC)
        overdue = now - self._days
        before = overdue if self._is_busy() else now - self._days * _EARLY
        done = 0
        for task in checks.due(self._catalog, self._store.name, before=before, limit=_AT_ONCE):
            if self._stopping.is_set():
                break
            self._check(task)
            done += 1
        return done

    def _check(self, task: CheckTask) -> None:
        begun = time.monotonic()
        found = check(self._store, task)
        if found.trouble is not None:
            raise found.trouble
        replicas.record_check(self._catalog, task.replica.id, detail=found.damage)
        if self._bytes_per_second is not None:
            spent = time.monotonic() - begun
            self._stopping.wait(max(0.0, task.size_bytes / self._bytes_per_second - spent))

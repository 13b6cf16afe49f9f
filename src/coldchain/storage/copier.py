"""The copier: takes wanted replicas from the catalog, copies and proves them, and leaves its word there.

The catalog is the journal: a replica is WANTED there before its first byte is written, so a killed copier finds what it
had begun, recognises what is whole already, and copies the rest again. Trouble is kept for each store and for each
copy, with a wait that doubles (see `backoff`): a store in trouble holds up no other, and a file in trouble no other.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from threading import Event, Lock, Thread
from uuid import UUID

from coldchain.catalog import files, tasks
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError, StorageError, StoreFullError, printable
from coldchain.model.files import CopyTask, KeptAside, Replica, ReplicaState
from coldchain.storage import backoff
from coldchain.storage.backoff import Trouble, after_failure, is_stale, may_try
from coldchain.storage.copying import CopyOutcome, SourceVersion, copy_verified
from coldchain.storage.posix import PosixStore
from coldchain.storage.store import Space

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
_SWEEP_WAIT_SECONDS = 30.0
_BATCH = 256
_HOPEFUL_FAILURES = 3
# No memory, no buffer (mmap), no thread: the machine is at its limit for a while, and the copier outlives it.
_SCARCITY = (MemoryError, OSError, RuntimeError)
_NUMBER = re.compile(r"\d[\d,]*")

_Walk = Callable[[UUID | None], tuple[list[CopyTask], UUID | None]]


class Copier:
    """Copies every wanted replica of `stores`, `threads` files at a time, until it is stopped.

    A file that an exposure waits for is hashed even while no store can take it. One copier owns its stores: at start it
    removes the `.part` files that a killed one left there.
    """

    def __init__(self, catalog: Catalog, stores: Mapping[str, PosixStore], *, threads: int = 2) -> None:
        self._catalog = catalog
        self._stores = dict(stores)
        self._stopping = Event()
        self._lock = Lock()
        self._queue: deque[CopyTask] = deque()
        self._in_hand: set[UUID] = set()
        self._store_troubles: dict[str, Trouble] = {}
        self._troubles: dict[UUID, Trouble] = {}  # by replica; by file where its source, or the catalog, is at fault
        self._ends: dict[int, UUID | None] = {}
        self._workers = [Thread(target=self._work, name=f"copier-{n}") for n in range(threads)]
        self._sweeper = Thread(target=self._sweep, name="copier-sweep")

    def start(self) -> None:
        """Begin to copy. A copier is started once."""
        for thread in (self._sweeper, *self._workers):
            thread.start()

    def stop(self) -> None:
        """Take nothing new, finish and record what is in hand, and return when that is done."""
        self._stopping.set()
        for thread in (self._sweeper, *self._workers):
            if thread.is_alive():
                thread.join()

    def alive(self) -> bool:
        """Whether every worker runs. One that ended by itself has left its traceback in the log."""
        return all(worker.is_alive() for worker in self._workers)

    def idle(self) -> bool:
        """Whether there is nothing to do now.

        Copies that failed at least three times and wait for their next try do not count: a store may be full for days.
        Raises CatalogError.
        """
        with self._lock:
            if self._in_hand or self._queue:
                return False
            now_seconds = time.monotonic()
            stores = [name for name, store in self._stores.items() if self._is_hopeful(store)]
            hopeless = {
                key
                for key, trouble in self._troubles.items()
                if trouble.failures >= _HOPEFUL_FAILURES and not may_try(trouble, now_seconds)
            }
            return not any(_finds_any(walk) for walk in self._walks(stores, hopeless))

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                task = self._take()
            except CatalogError as error:
                log.warning("copier: %s", error)
                task = None
            except _SCARCITY:
                log.exception("copier: it could not look for work")
                task = None
            if task is None:
                self._stopping.wait(POLL_SECONDS)
            else:
                self._carry_out(task)

    def _take(self) -> CopyTask | None:
        """The next file to copy, with only those of its replicas whose stores are well, or to hash."""
        with self._lock:
            if not self._queue:
                self._queue.extend(self._due())
            while self._queue:
                task = self._queue.popleft()
                well = tuple(r for r in task.replicas if self._is_well(self._stores[r.store]))
                if well or not task.replicas:
                    self._in_hand.add(task.file.id)
                    return replace(task, replicas=well)
        return None

    def _due(self) -> list[CopyTask]:
        """Work whose time has come: of each walk, from where it last ended, the first that has any."""
        now_seconds = time.monotonic()
        self._troubles = {key: t for key, t in self._troubles.items() if not is_stale(t, now_seconds)}
        waiting = {key for key, trouble in self._troubles.items() if not may_try(trouble, now_seconds)}
        well = [name for name, store in self._stores.items() if self._is_well(store)]
        for number, walk in enumerate(self._walks(well, waiting | self._in_hand)):
            due, self._ends[number] = walk(self._ends.get(number))
            if due:
                return due
        return []

    def _walks(self, stores: list[str], exclude: set[UUID]) -> tuple[_Walk, _Walk, _Walk]:
        """The queues in the order of their urgency: copies never tried, copies that failed, digests alone."""

        def to_copy(state: ReplicaState) -> _Walk:
            return lambda after: tasks.to_copy(
                self._catalog, state=state, stores=stores, limit=_BATCH, exclude=exclude, after=after
            )

        return (
            to_copy(ReplicaState.WANTED),
            to_copy(ReplicaState.FAILED),
            lambda before: tasks.to_hash(self._catalog, limit=_BATCH, exclude=exclude, before=before),
        )

    def _is_well(self, store: PosixStore) -> bool:
        trouble = self._store_troubles.get(store.name)
        full = trouble is not None and trouble.space_when_full is not None
        return may_try(trouble, time.monotonic(), _space_of(store) if full else None)

    def _is_hopeful(self, store: PosixStore) -> bool:
        trouble = self._store_troubles.get(store.name)
        return trouble is None or trouble.failures < _HOPEFUL_FAILURES or self._is_well(store)

    def _carry_out(self, task: CopyTask) -> None:
        try:
            self._copy_and_record(task)
        except CatalogError as error:
            # Nothing is lost: what is not recorded is still wanted, and a whole copy is recognised at the next try.
            log.warning("copier: %s", error)
            self._note(task.file.id, str(error))
        except _SCARCITY as error:
            log.exception("copier: %s could not be copied", printable(_relative(task)))
            self._note(task.file.id, str(error))
            self._stopping.wait(POLL_SECONDS)
        finally:
            with self._lock:
                self._in_hand.discard(task.file.id)

    def _copy_and_record(self, task: CopyTask) -> None:
        try:
            report = copy_verified(
                Path(task.source_root),
                str(PurePosixPath(task.source_folder, task.file.relative_path)),
                _relative(task),
                [self._stores[replica.store] for replica in task.replicas],
                expected=SourceVersion(task.file.size_bytes, task.file.modified_ns, task.file.sha256),
            )
        except StorageError as error:
            self._source_failed(task, error)
            return
        if task.file.sha256 is None:
            files.set_digest(self._catalog, task.file.id, report.sha256)
        for replica, outcome in zip(task.replicas, report.outcomes, strict=True):
            self._note_outcome(replica, outcome, task.file.size_bytes)
            if outcome.error is None:
                self._record_success(replica, outcome)
            else:
                self._record_failure(replica, outcome.error, outcome.kept)
        with self._lock:
            self._troubles.pop(task.file.id, None)

    def _source_failed(self, task: CopyTask, error: StorageError) -> None:
        if self._note(task.file.id, str(error)).failures == 1:
            log.warning("copier: %s", error)
        for replica in task.replicas:
            self._record_failure(replica, error, None)

    def _record_success(self, replica: Replica, outcome: CopyOutcome) -> None:
        files.record_copy(
            self._catalog,
            replica.id,
            state=outcome.state,
            level=outcome.level,
            sha256=outcome.sha256,
            detail="",
            kept=outcome.kept,
        )

    def _record_failure(self, replica: Replica, error: StorageError, kept: KeptAside | None) -> None:
        # The same failure again is no news: it would be an event every few minutes for ever. Its numbers (free bytes,
        # a growing source's size) do not make it another one.
        known = replica.state is ReplicaState.FAILED and _gist(replica.detail) == _gist(str(error))
        if known and kept is None:
            return
        log.warning("copier: %s", error)
        files.record_copy(
            self._catalog, replica.id, state=ReplicaState.FAILED, level=None, sha256=None, detail=str(error), kept=kept
        )

    def _note(self, key: UUID, reason: str) -> Trouble:
        with self._lock:
            trouble = self._troubles[key] = after_failure(self._troubles.get(key), reason, time.monotonic())
            return trouble

    def _note_outcome(self, replica: Replica, outcome: CopyOutcome, size_bytes: int) -> None:
        """Keep or clear the trouble of the store, or of this copy where the store is not at fault: what waits for a
        store goes on as soon as that is back."""
        store, error = self._stores[replica.store], outcome.error
        full = isinstance(error, StoreFullError)
        at_fault = error is not None and store.is_at_fault(error)
        if error is not None and not at_fault:
            self._note(replica.id, str(error))
        space = _space_of(store) if full else None
        with self._lock:
            before = self._store_troubles.pop(replica.store, None)
            if error is None:
                self._troubles.pop(replica.id, None)
            if at_fault:
                self._store_troubles[replica.store] = after_failure(
                    before,
                    str(error),
                    time.monotonic(),
                    longest_seconds=backoff.LONGEST_STORE_WAIT_SECONDS,
                    space_when_full=space,
                    wanted_bytes=size_bytes,
                )

    def _sweep(self) -> None:
        """Remove what killed copies left, on each store as soon as it is there."""
        left = list(self._stores.values())
        while left and not self._stopping.is_set():
            left = [store for store in left if not _swept(store)]
            if left:
                self._stopping.wait(_SWEEP_WAIT_SECONDS)


def _swept(store: PosixStore) -> bool:
    try:
        removed = store.remove_partials()
    except StorageError as error:
        log.warning("copier: %s", error)
        return False
    except _SCARCITY:
        log.exception("copier: store %s could not be swept", store.name)
        return False
    if removed:
        log.info("copier: removed %d unfinished copies of an earlier process from store %s", removed, store.name)
    return True


def _finds_any(walk: _Walk) -> bool:
    """Whether anything lies on the whole of a walk."""
    found, end = walk(None)
    while not found and end is not None:
        found, end = walk(end)
    return bool(found)


def _gist(message: str) -> str:
    return _NUMBER.sub("#", message)


def _space_of(store: PosixStore) -> Space | None:
    try:
        return store.space()
    except StorageError:
        return None


def _relative(task: CopyTask) -> str:
    return str(PurePosixPath(task.instrument, task.session_folder, task.file.relative_path))

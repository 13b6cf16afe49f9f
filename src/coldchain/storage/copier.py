"""The copier: takes wanted replicas from the catalog, copies and proves them, and leaves its word there.

The catalog is the journal: a replica is WANTED there before its first byte is written, so a killed copier finds what it
had begun, recognises what is whole already, and copies the rest again. Trouble is kept for each store and for each
copy, with a wait that doubles (see `backoff`): a store in trouble holds up no other, and a file in trouble no other.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from threading import Event, Lock, Thread
from uuid import UUID

from coldchain.catalog import files
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError, StorageError, StoreFullError, printable
from coldchain.model.files import CopyTask, Replica, ReplicaState
from coldchain.storage.backoff import Trouble, after_failure, may_try
from coldchain.storage.copying import CopyOutcome, SourceVersion, copy_verified
from coldchain.storage.posix import PosixStore, Space

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
_SWEEP_WAIT_SECONDS = 30.0
_BATCH = 64
_HOPEFUL_FAILURES = 3


@dataclass(frozen=True, slots=True)
class CopierProgress:
    """What the copier has done since its start, and what it is at.

    `bytes_read` counts source bytes, also of copies that failed. `in_hand` are the copies' names below a store's root.
    `stores_in_trouble` maps the stores that wait to their reason; `copies_in_trouble` is how many copies wait.
    """

    bytes_read: int
    copies_verified: int
    copies_failed: int
    in_hand: tuple[str, ...]
    stores_in_trouble: Mapping[str, str]
    copies_in_trouble: int


class Copier:
    """Copies every wanted replica of `stores`, `threads` files at a time, until it is stopped.

    One copier owns its stores: at start it removes the `.part` files that a killed one left there.
    """

    def __init__(self, catalog: Catalog, stores: Mapping[str, PosixStore], *, threads: int = 2) -> None:
        self._catalog = catalog
        self._stores = dict(stores)
        self._stopping = Event()
        self._lock = Lock()
        self._queue: deque[CopyTask] = deque()
        self._in_hand: dict[UUID, str] = {}
        self._store_troubles: dict[str, Trouble] = {}
        self._copy_troubles: dict[UUID, Trouble] = {}
        self._bytes_read = 0
        self._copies_verified = 0
        self._copies_failed = 0
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
            troubles = [*self._store_troubles.values(), *self._copy_troubles.values()]
            return all(t.failures >= _HOPEFUL_FAILURES for t in troubles) and not self._tasks(limit=1)

    def progress(self) -> CopierProgress:
        """A snapshot of the counters."""
        with self._lock:
            return CopierProgress(
                bytes_read=self._bytes_read,
                copies_verified=self._copies_verified,
                copies_failed=self._copies_failed,
                in_hand=tuple(self._in_hand.values()),
                stores_in_trouble={name: trouble.reason for name, trouble in self._store_troubles.items()},
                copies_in_trouble=len(self._copy_troubles),
            )

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                task = self._take()
            except CatalogError as error:
                log.warning("copier: %s", error)
                task = None
            if task is None:
                self._stopping.wait(POLL_SECONDS)
            else:
                self._carry_out(task)

    def _take(self) -> CopyTask | None:
        """The next file to copy, with only those of its replicas whose stores are well."""
        with self._lock:
            if not self._queue:
                self._queue.extend(self._tasks(limit=_BATCH))
            while self._queue:
                task = self._queue.popleft()
                well = tuple(r for r in task.replicas if self._is_well(self._stores[r.store]))
                if well:
                    self._in_hand[task.file.id] = printable(_relative(task))
                    return replace(task, replicas=well)
        return None

    def _tasks(self, limit: int) -> list[CopyTask]:
        now_seconds = time.monotonic()
        well = [name for name, store in self._stores.items() if self._is_well(store)]
        waiting = {key for key, trouble in self._copy_troubles.items() if not may_try(trouble, now_seconds)}
        if not well:
            return []
        return files.copy_tasks(self._catalog, stores=well, limit=limit, exclude=waiting | self._in_hand.keys())

    def _is_well(self, store: PosixStore) -> bool:
        trouble = self._store_troubles.get(store.name)
        full = trouble is not None and trouble.space_when_full is not None
        return may_try(trouble, time.monotonic(), _space_of(store) if full else None)

    def _carry_out(self, task: CopyTask) -> None:
        try:
            self._copy_and_record(task)
        except CatalogError as error:
            # Nothing is lost: what is not recorded is still wanted, and a whole copy is recognised at the next try.
            log.warning("copier: %s", error)
            self._note_copies(task.replicas, str(error))
        finally:
            with self._lock:
                del self._in_hand[task.file.id]

    def _copy_and_record(self, task: CopyTask) -> None:
        try:
            report = copy_verified(
                _source(task),
                _relative(task),
                [self._stores[replica.store] for replica in task.replicas],
                expected=SourceVersion(task.file.size_bytes, task.file.modified_ns, task.file.sha256),
                progress=self._count_bytes,
            )
        except StorageError as error:
            self._note_copies(task.replicas, str(error))
            for replica in task.replicas:
                self._record_failure(replica, error)
            return
        if task.file.sha256 is None:
            files.set_digest(self._catalog, task.file.id, report.sha256)
        for replica, outcome in zip(task.replicas, report.outcomes, strict=True):
            self._note_outcome(replica, outcome, task.file.size_bytes)
            if outcome.error is None:
                self._record_success(replica, outcome)
            else:
                self._record_failure(replica, outcome.error)

    def _count_bytes(self, count_bytes: int) -> None:
        with self._lock:
            self._bytes_read += count_bytes

    def _record_success(self, replica: Replica, outcome: CopyOutcome) -> None:
        files.record_copy(
            self._catalog, replica.id, state=outcome.state, level=outcome.level, sha256=outcome.sha256, detail=""
        )
        with self._lock:
            self._copies_verified += 1

    def _record_failure(self, replica: Replica, error: StorageError) -> None:
        with self._lock:
            self._copies_failed += 1
        if (replica.state, replica.detail) == (ReplicaState.FAILED, str(error)):
            return  # not news: a vanished source would write an event every few minutes for ever
        log.warning("copier: %s", error)
        files.record_copy(
            self._catalog, replica.id, state=ReplicaState.FAILED, level=None, sha256=None, detail=str(error)
        )

    def _note_copies(self, replicas: Sequence[Replica], reason: str) -> None:
        now_seconds = time.monotonic()
        with self._lock:
            for replica in replicas:
                before = self._copy_troubles.get(replica.id)
                self._copy_troubles[replica.id] = after_failure(before, reason, now_seconds)

    def _note_outcome(self, replica: Replica, outcome: CopyOutcome, size_bytes: int) -> None:
        """Keep or clear the trouble of the store, and of this copy unless the store was merely full."""
        error = outcome.error
        full = isinstance(error, StoreFullError)
        if error is not None and not full:
            self._note_copies([replica], str(error))
        space = _space_of(self._stores[replica.store]) if full else None
        with self._lock:
            before = self._store_troubles.pop(replica.store, None)
            if error is None:
                self._copy_troubles.pop(replica.id, None)
                return
            self._store_troubles[replica.store] = after_failure(
                before, str(error), time.monotonic(), space_when_full=space, wanted_bytes=size_bytes
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
    if removed:
        log.info("copier: removed %d unfinished copies of an earlier process from store %s", removed, store.name)
    return True


def _space_of(store: PosixStore) -> Space | None:
    try:
        return store.space()
    except StorageError:
        return None


def _source(task: CopyTask) -> Path:
    return Path(task.source_root, task.session_folder, task.file.relative_path)


def _relative(task: CopyTask) -> str:
    return str(PurePosixPath(task.instrument, task.session_folder, task.file.relative_path))

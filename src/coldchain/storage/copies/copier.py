"""The copier: takes wanted replicas from the catalog, copies and proves them, and leaves its word there.

The catalog is the journal: a replica is WANTED there before its first byte is written, so a killed copier finds what it
had begun, recognises what is whole already, and copies the rest again. What is most urgent goes first, small files go
in batches, and where a source is gone a verified copy stands in for it. Trouble is kept for each store and for each
copy, with a wait that doubles (see `troubles`): a store in trouble holds up no other, and a file in trouble no other.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event, Lock, Semaphore, Thread
from uuid import UUID

from coldchain.catalog import replicas
from coldchain.catalog.engine import Catalog
from coldchain.compute.engine import Engine
from coldchain.errors import CatalogError, ComputeError, StorageError, printable
from coldchain.model.files import CopyRecord, CopyTask, KeptAside, Replica, ReplicaState
from coldchain.storage.copies.copying import (
    CopyOutcome,
    CopyReport,
    copy_stored,
    copy_verified,
    failed,
    recognised,
    stands,
)
from coldchain.storage.copies.queue import BATCHES, CopyQueue, Load
from coldchain.storage.copies.small import CopyRequest, are_tiny, copy_small
from coldchain.storage.copies.source import SourceVersion
from coldchain.storage.copies.troubles import Troubles
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.store import Store
from coldchain.storage.wrappers.throttled import Throttled

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
_SWEEP_WAIT_SECONDS = 30.0
# No memory, no buffer (mmap), no thread: the machine is at its limit for a while, and the copier outlives it.
_SCARCITY = (MemoryError, OSError, RuntimeError)
_NUMBER = re.compile(r"\d[\d,]*")


class Copier:
    """Copies every wanted replica of `stores`, `threads` files (or batches of small ones) at a time, until it stops.

    A file that an exposure waits for is hashed even while no store can take it. One copier owns its stores: at start it
    removes the `.part` files that a killed one left there. `troubles` may be looked at by others. `mends` names a store
    of which only damaged copies, and ones that failed, are made again. With `engine`, batches of small files for folder
    trees are copied in its processes: Python's threads have one interpreter, and a small file is mostly its work.
    """

    def __init__(
        self,
        catalog: Catalog,
        stores: Mapping[str, Store],
        *,
        threads: int = 2,
        troubles: Troubles | None = None,
        mends: str | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._catalog = catalog
        self._stores = dict(stores)
        self._engine = engine
        # No more than can run: a batch that hangs with its store's mount must have none behind it.
        self._processes = Semaphore(1 if engine is None else engine.slots)
        self._swept: set[str] = set()
        # Taking and recording are the interpreter's work: threads that do either at once only take it from each other.
        # One of each may: while what was copied is made durable in the catalog, the next is taken.
        self._take_turn, self._record_turn = Lock(), Lock()
        self._stopping = Event()
        self._troubles = Troubles(self._stores) if troubles is None else troubles
        # Those that are taken and written down here do not keep the processes waiting.
        batches = BATCHES if engine is None else BATCHES + 2 * engine.slots
        self._queue = CopyQueue(catalog, self._stores, self._troubles, mends=mends, batches=batches)
        self._workers = [Thread(target=self._work, name=f"copier-{n}") for n in range(threads)]
        self._sweeper = Thread(target=self._sweep, name="copier-sweep")

    def start(self) -> None:
        """Begin to copy. A copier is started once."""
        for thread in (self._sweeper, *self._workers):
            thread.start()

    def stop(self) -> None:
        """Take nothing new, finish and record what is in hand, and return when that is done.

        What waits for its share of a throttled store's bandwidth is given up: it is made at the next start.
        """
        self._stopping.set()
        for store in self._stores.values():
            if isinstance(store, Throttled):
                store.limit.stop()
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
        return self._queue.idle()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._take_turn:
                    load = self._queue.take()
            except CatalogError as error:
                log.warning("copier: %s", error)
                load = None
            except _SCARCITY:
                log.exception("copier: it could not look for work")
                load = None
            if load is not None:
                self._carry_out(load)
            else:
                self._stopping.wait(POLL_SECONDS)

    def _carry_out(self, load: Load) -> None:
        taken = load.tasks
        try:
            self._copy_and_record(taken)
        except (CatalogError, ComputeError) as error:
            # Nothing is lost: what is not recorded is still wanted, and a whole copy is recognised at the next try.
            log.warning("copier: %s", error)
            self._note_all(taken, error)
        except _SCARCITY as error:
            log.exception("copier: %s could not be copied", printable(_relative(taken[0])))
            self._note_all(taken, error)
            self._stopping.wait(POLL_SECONDS)
        finally:
            self._queue.let_go(load)

    def _note_all(self, taken: Sequence[CopyTask], error: Exception) -> None:
        for task in taken:
            self._troubles.note(task.file.id, str(error))

    def _copy_and_record(self, taken: Sequence[CopyTask]) -> None:
        records: list[CopyRecord] = []
        read: list[UUID] = []
        digests: dict[UUID, str] = {}
        for task, report in zip(taken, self._copied(taken), strict=True):
            if isinstance(report, StorageError):
                records += self._source_failed(task, report)
                continue
            read.append(task.file.id)
            if task.file.sha256 is None:
                digests[task.file.id] = report.sha256
            for replica, outcome in zip(task.replicas, report.outcomes, strict=True):
                was_known = self._troubles.note_outcome(replica.store, replica.id, outcome.error, task.file.size_bytes)
                # A store that is away is told by the first copy that it refused; the others stay wanted, in order. So
                # does what was given up at the end.
                is_no_news = outcome.error is not None and (was_known or self._stopping.is_set())
                if not (is_no_news and replica.state is ReplicaState.WANTED and outcome.kept is None):
                    records += _success(replica, outcome) if outcome.error is None else _failure(replica, outcome)
        self._record(records, digests)
        for file_id in read:
            self._troubles.forget(file_id)

    def _copied(self, taken: Sequence[CopyTask]) -> Sequence[CopyReport | StorageError]:
        if len(taken) == 1:
            return [self._copied_alone(taken[0])]
        requests = [CopyRequest(task.source_root, _source(task), _relative(task), _version(task)) for task in taken]
        stores = [self._stores[replica.store] for replica in taken[0].replicas]
        reports = self._copied_batch(requests, stores)
        return [
            self._copied_alone(task)
            if isinstance(report, StorageError) and (task.good or task.file.sha256 is not None)
            else report
            for task, report in zip(taken, reports, strict=True)
        ]

    def _copied_batch(
        self, requests: Sequence[CopyRequest], stores: Sequence[Store]
    ) -> Sequence[CopyReport | StorageError]:
        # Sweeping takes what it does not know of for a killed copier's: before it is done, nothing is copied elsewhere.
        # Nor where names must be told apart: which are in hand, only one process knows.
        movable = all(
            type(store) is PosixStore and store.name in self._swept and store.keeps_names() for store in stores
        )
        if self._engine is None or not movable or not are_tiny([request.expected.size_bytes for request in requests]):
            return copy_small(requests, stores)
        with self._processes:
            return self._engine.submit(copy_small, requests, stores).result()

    def _copied_alone(self, task: CopyTask) -> CopyReport | StorageError:
        """One file's copies, from the camera's file, or else from a good copy of it."""
        stores = [self._stores[replica.store] for replica in task.replicas]
        try:
            return copy_verified(
                Path(task.source_root), _source(task), _relative(task), stores, expected=_version(task)
            )
        except StorageError as error:
            return self._copied_from_good(task, stores) or _found_whole(task, stores, error) or error

    def _copied_from_good(self, task: CopyTask, stores: Sequence[Store]) -> CopyReport | None:
        version = _version(task)
        if version.sha256 is None:
            return None
        for good in task.good:
            store = self._stores.get(good.store)
            if store is None or not self._troubles.is_well(good.store):
                continue
            try:
                name = good.kept_as or good.stored_as or store.stored_name(_relative(task))
                return copy_stored(store, name, _relative(task), stores, expected=version)
            except StorageError as error:
                log.warning("copier: %s", error)
        return None

    def _record(self, records: Sequence[CopyRecord], digests: Mapping[UUID, str]) -> None:
        try:
            with self._record_turn:
                replicas.record_copies(self._catalog, records, digests)
        except CatalogError:
            if len(records) < 2:
                raise
            # One that the catalog refuses must not hold up the others of its batch.
            replicas.record_copies(self._catalog, [], digests)
            for record in records:
                self._record_alone(record)

    def _record_alone(self, record: CopyRecord) -> None:
        try:
            replicas.record_copies(self._catalog, [record])
        except CatalogError as error:
            log.warning("copier: %s", error)
            self._troubles.note(record.replica_id, str(error))

    def _source_failed(self, task: CopyTask, error: StorageError) -> list[CopyRecord]:
        if self._troubles.note(task.file.id, str(error)).failures == 1:
            log.warning("copier: %s", error)
        return [record for replica in task.replicas for record in _failed(replica, error, None)]

    def _sweep(self) -> None:
        """Remove what killed copies left, on each store as soon as it is there."""
        left = list(self._stores.values())
        while left and not self._stopping.is_set():
            swept = {store.name for store in left if _swept(store)}
            self._swept |= swept
            left = [store for store in left if store.name not in swept]
            if left:
                self._stopping.wait(_SWEEP_WAIT_SECONDS)


def _found_whole(task: CopyTask, stores: Sequence[Store], error: StorageError) -> CopyReport | None:
    """The report of copies that lie there whole already, where there is nothing left to make them from."""
    version = _version(task)
    if version.sha256 is None:
        return None
    size_bytes = version.size_bytes
    found = {
        store.name: recognised(store, _relative(task), version.sha256)
        for store in stores
        if stands(store, _relative(task), size_bytes)
    }
    if not any(found.values()):
        return None
    # Without what the system said of the source: no store is to blame for that.
    of_source = StorageError(error.found, expected=error.expected, remedy=error.remedy, path=error.path)
    outcomes = tuple(found.get(store.name) or failed(store, of_source, None) for store in stores)
    return CopyReport(version.sha256, version.size_bytes, version.modified_ns, outcomes)


def _success(replica: Replica, outcome: CopyOutcome) -> list[CopyRecord]:
    record = CopyRecord(
        replica.id,
        outcome.state,
        outcome.level,
        outcome.sha256,
        detail="" if outcome.kept is None else f"what stood under its name is kept as {printable(outcome.kept.path)}",
        kept=outcome.kept,
        stored_as=outcome.stored_as,
    )
    return [record]


def _failure(replica: Replica, outcome: CopyOutcome) -> list[CopyRecord]:
    assert outcome.error is not None  # or it would be a success
    return _failed(replica, outcome.error, outcome.kept)


def _failed(replica: Replica, error: StorageError, kept: KeptAside | None) -> list[CopyRecord]:
    """The failure, unless it is no news: it would be an event every few minutes for ever. Its numbers (free bytes, a
    growing source's size) do not make it another one."""
    known = replica.state is ReplicaState.FAILED and _gist(replica.detail) == _gist(str(error))
    if known and kept is None:
        return []
    log.warning("copier: %s", error)
    return [CopyRecord(replica.id, ReplicaState.FAILED, None, None, str(error), kept)]


def _swept(store: Store) -> bool:
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


def _gist(message: str) -> str:
    return _NUMBER.sub("#", message)


def _source(task: CopyTask) -> str:
    return _joined(task.source_folder, task.file.relative_path)


def _relative(task: CopyTask) -> str:
    return _joined(task.instrument, task.session_folder, task.file.relative_path)


def _joined(*parts: str) -> str:
    # Not by pathlib, which takes as long as writing a small file does.
    return "/".join(part for part in parts if part not in ("", "."))


def _version(task: CopyTask) -> SourceVersion:
    return SourceVersion(task.file.size_bytes, task.file.modified_ns, task.file.sha256)

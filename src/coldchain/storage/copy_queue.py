"""What a copier takes next: the most urgent file, or a batch of small ones, among those that may be tried now."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from uuid import UUID

from coldchain.catalog import tasks
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tasks import Position
from coldchain.model.files import CopyTask, ReplicaState
from coldchain.storage.small_copies import MOST_BYTES, MOST_FILES, SMALL_BYTES
from coldchain.storage.store import Store
from coldchain.storage.troubles import Troubles

_BATCH = 512
# Batches of small files at once: one is read while another is flushed, and memory holds no more.
_BATCHES = 2
# What is more urgent than the rest of a batch waits no longer than this, and the file in hand.
_FRESH_SECONDS = 3.0

_Walk = Callable[[Position | None], tuple[list[CopyTask], Position | None]]


class CopyQueue:
    """The work of one copier, over the queues of the catalog. Its threads share it.

    `mends` names a store of which only damaged copies, and ones that failed, are to be made.
    """

    def __init__(
        self, catalog: Catalog, stores: Mapping[str, Store], troubles: Troubles, *, mends: str | None = None
    ) -> None:
        self._catalog = catalog
        self._stores = stores
        self._mends = mends
        self._troubles = troubles
        self._lock = Lock()
        self._found: deque[CopyTask] = deque()
        self._found_at = 0.0
        self._in_hand: set[UUID] = set()
        self._batches: set[UUID] = set()
        self._ends: dict[int, Position | None] = {}

    def take(self) -> list[CopyTask]:
        """The next file to copy, with only those of its replicas whose stores are well, or to hash; or as many small
        ones as go together. They are in hand until `let_go`. Raises CatalogError."""
        with self._lock:
            if not self._found or time.monotonic() - self._found_at > _FRESH_SECONDS:
                self._found = deque(self._due())
                self._found_at = time.monotonic()
            taken: list[CopyTask] = []
            size_bytes = 0
            while self._found and len(taken) < MOST_FILES and size_bytes <= MOST_BYTES:
                task = self._now(self._found[0])
                if taken and not (task and self._goes_with(task, taken[0])):
                    break
                if not taken and task and self._is_small(task) and len(self._batches) >= _BATCHES:
                    break  # the next thread that is done with a batch takes it
                self._found.popleft()
                if task:
                    taken.append(task)
                    size_bytes += task.file.size_bytes
                    self._in_hand.add(task.file.id)
                    if not self._is_small(task):
                        break
            if taken and self._is_small(taken[0]):
                self._batches.add(taken[0].file.id)
            return taken

    def let_go(self, taken: Sequence[CopyTask]) -> None:
        """These are done, or failed."""
        with self._lock:
            self._in_hand.difference_update(task.file.id for task in taken)
            self._batches.discard(taken[0].file.id)

    def idle(self) -> bool:
        """Whether there is nothing to do now, but for what has failed often and waits. Raises CatalogError."""
        with self._lock:
            if self._in_hand or self._found:
                return False
            stores = [name for name in self._meant() if self._troubles.is_hopeful(name)]
            return not any(_finds_any(walk) for walk in self._walks(stores, self._troubles.hopeless()))

    def _meant(self) -> list[str]:
        return list(self._stores) if self._mends is None else [self._mends]

    def _now(self, task: CopyTask) -> CopyTask | None:
        """The task with what can be done of it now; None for nothing."""
        well = tuple(replica for replica in task.replicas if self._troubles.is_well(replica.store))
        return replace(task, replicas=well) if well or not task.replicas else None

    def _is_small(self, task: CopyTask) -> bool:
        small = task.file.size_bytes <= SMALL_BYTES
        return small and bool(task.replicas) and all(self._stores[r.store].batches for r in task.replicas)

    def _goes_with(self, task: CopyTask, first: CopyTask) -> bool:
        same = [replica.store for replica in task.replicas] == [replica.store for replica in first.replicas]
        return same and self._is_small(task) and self._is_small(first)

    def _due(self) -> list[CopyTask]:
        """Work whose time has come: of each walk what stands at its front, else from where it last ended, the first
        that has any."""
        well = [name for name in self._meant() if self._troubles.is_well(name)]
        for number, walk in enumerate(self._walks(well, self._troubles.waiting() | self._in_hand)):
            due, end = walk(None)
            if not due and end is not None:
                due, self._ends[number] = walk(self._ends.get(number) or end)
            if due:
                return due
        return []

    def _walks(self, stores: list[str], exclude: set[UUID]) -> tuple[_Walk, ...]:
        """The queues in the order of their urgency: copies never tried, damaged ones, ones that failed, digests."""

        def to_copy(state: ReplicaState) -> _Walk:
            return lambda after: tasks.to_copy(
                self._catalog, state=state, stores=stores, limit=_BATCH, exclude=exclude, after=after
            )

        def to_hash(after: Position | None) -> tuple[list[CopyTask], Position | None]:
            before = None if after is None else after[1]
            found, end = tasks.to_hash(self._catalog, limit=_BATCH, exclude=exclude, before=before)
            return found, None if end is None else (0, end)

        if self._mends is not None:
            return to_copy(ReplicaState.DAMAGED), to_copy(ReplicaState.FAILED)
        states = (ReplicaState.WANTED, ReplicaState.DAMAGED, ReplicaState.FAILED)
        return (*(to_copy(state) for state in states), to_hash)


def _finds_any(walk: _Walk) -> bool:
    """Whether anything lies on the whole of a walk."""
    found, end = walk(None)
    while not found and end is not None:
        found, end = walk(end)
    return bool(found)

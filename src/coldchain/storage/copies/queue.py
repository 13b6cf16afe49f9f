"""What a copier takes next: the most urgent file, or a batch of small ones, among those that may be tried now."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from uuid import UUID

from coldchain.catalog import tasks
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tasks import Position
from coldchain.model.files import CopyTask, ReplicaState
from coldchain.storage.copies.small import MOST_BYTES, MOST_FILES, SMALL_BYTES
from coldchain.storage.copies.troubles import Troubles
from coldchain.storage.store import Store

# What is looked at at once: several times what is in hand, which every look begins with.
_BATCH = 2048
BATCHES = 2
"""Batches of small files at once: one is read while another is flushed."""

# Files at once for a store that does not keep up.
_FAR_LOADS = 4
_UNBOUNDED = 1 << 30
# Every so many looks the walks behind the most urgent come first.
_OTHERS_TURN = 4
# What is more urgent than the rest of a batch waits no longer than this, and the file in hand.
_FRESH_SECONDS = 3.0
# So long a lane in which nothing was found is believed to be empty, unless this process has written since: its threads
# all ask, and an idle service would look four hundred times a second.
_EMPTY_SECONDS = 0.5

_Walk = Callable[[Position | None], tuple[list[CopyTask], Position | None]]


@dataclass(slots=True)
class _Lane:
    """Stores that are served together, and what is known of their work. Nothing was found until `empty_until`, when the
    catalog had been written to `empty_at` times."""

    stores: tuple[str, ...]
    most_loads: int
    found: deque[CopyTask] = field(default_factory=deque)
    found_at: float = 0.0
    empty_until: float = 0.0
    empty_at: int = -1
    looks: int = 0
    ends: dict[int, Position | None] = field(default_factory=dict)
    began_at: dict[int, float] = field(default_factory=dict)
    files: set[UUID] = field(default_factory=set)
    paths: set[tuple[UUID, str]] = field(default_factory=set)
    loads: int = 0
    batches: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What one thread has in hand: a file, or a batch of small ones for the same stores."""

    tasks: tuple[CopyTask, ...]
    is_batch: bool
    lane: _Lane


class CopyQueue:
    """The work of one copier, over the queues of the catalog. Its threads share it.

    Stores that keep up with the source are served together, by one read; each other has a lane of its own, with a few
    of the threads. `mends` names a store of which only damaged copies, and ones that failed, are to be made. So many
    `batches` of small files are in hand at once.
    """

    def __init__(
        self,
        catalog: Catalog,
        stores: Mapping[str, Store],
        troubles: Troubles,
        *,
        mends: str | None = None,
        batches: int = BATCHES,
    ) -> None:
        self._catalog = catalog
        self._stores = stores
        self._mends = mends
        self._batches = batches
        self._troubles = troubles
        self._lock = Lock()
        self._lanes = self._made_lanes()
        self._turn = 0

    def _made_lanes(self) -> list[_Lane]:
        if self._mends is not None:
            return [_Lane((self._mends,), _UNBOUNDED)]
        near = tuple(name for name, store in self._stores.items() if store.near)
        far = [name for name, store in self._stores.items() if not store.near]
        # Also without any store near: digests are its work, too.
        return [_Lane(near, _UNBOUNDED), *(_Lane((name,), _FAR_LOADS) for name in far)]

    def take(self) -> Load | None:
        """The next file to copy, with only those of its replicas whose stores are well, or to hash; or as many small
        ones as go together. They are in hand until `let_go`. Raises CatalogError."""
        with self._lock:
            for step in range(len(self._lanes)):
                lane = self._lanes[(self._turn + step) % len(self._lanes)]
                load = self._of_lane(lane) if lane.loads < lane.most_loads else None
                if load is not None:
                    self._turn += step + 1
                    return load
        return None

    def let_go(self, load: Load) -> None:
        """These are done, or failed."""
        with self._lock:
            lane = load.lane
            lane.loads -= 1
            lane.batches -= load.is_batch
            lane.files.difference_update(task.file.id for task in load.tasks)
            lane.paths.difference_update(_path_of(task) for task in load.tasks)

    def idle(self) -> bool:
        """Whether there is nothing to do now, but for what has failed often and waits. Raises CatalogError."""
        with self._lock:
            if any(lane.loads or lane.found for lane in self._lanes):
                return False
            meant = [name for lane in self._lanes for name in lane.stores]
            stores = [name for name in meant if self._troubles.is_hopeful(name)]
            return not any(_finds_any(walk) for walk in self._walks(stores, self._troubles.hopeless()))

    def _of_lane(self, lane: _Lane) -> Load | None:
        now_seconds, written = time.monotonic(), self._catalog.written
        if now_seconds < lane.empty_until and written == lane.empty_at:
            return None
        if not lane.found or now_seconds - lane.found_at > _FRESH_SECONDS:
            lane.found = deque(self._due(lane))
            is_empty = not lane.found and not any(lane.ends.values())  # or what is due lies further on
            lane.empty_until = now_seconds + _EMPTY_SECONDS if is_empty else 0.0
            lane.empty_at = written
        taken: list[CopyTask] = []
        size_bytes = 0
        while lane.found and len(taken) < MOST_FILES and size_bytes <= MOST_BYTES:
            task = self._now(lane, lane.found[0])
            if taken and not (task and self._goes_with(task, taken[0])):
                break
            if not taken and task and self._is_small(task) and lane.batches >= self._batches:
                return None  # the next thread that is done with a batch takes it
            lane.found.popleft()
            if task:
                taken.append(task)
                size_bytes += task.file.size_bytes
                lane.files.add(task.file.id)
                lane.paths.add(_path_of(task))
                if not self._is_small(task):
                    break
        if not taken:
            return None
        load = Load(tuple(taken), self._is_small(taken[0]), lane)
        lane.loads += 1
        lane.batches += load.is_batch
        return load

    def _now(self, lane: _Lane, task: CopyTask) -> CopyTask | None:
        """The task with what can be done of it now; None for nothing. Of one path, one version at a time."""
        if _path_of(task) in lane.paths:
            return None
        well = tuple(replica for replica in task.replicas if self._troubles.is_well(replica.store))
        if len(well) == len(task.replicas):
            return task
        return replace(task, replicas=well) if well else None

    def _is_small(self, task: CopyTask) -> bool:
        small = task.file.size_bytes <= SMALL_BYTES
        return small and bool(task.replicas) and all(self._stores[r.store].batches for r in task.replicas)

    def _goes_with(self, task: CopyTask, first: CopyTask) -> bool:
        same = [replica.store for replica in task.replicas] == [replica.store for replica in first.replicas]
        return same and self._is_small(task) and self._is_small(first)

    def _due(self, lane: _Lane) -> list[CopyTask]:
        """Work whose time has come: of each walk what stands at its front, else from where it last ended, the first
        that has any. The most urgent walk is not always the first, so that none waits for ever. What stands at the
        front is mostly in hand: a walk that was begun there just now is gone on with."""
        well = [name for name in lane.stores if self._troubles.is_well(name)]
        walks = list(enumerate(self._walks(well, self._troubles.waiting() | lane.files)))
        if lane is not self._lanes[0]:
            walks = walks[:-1]  # digests are the first lane's
        lane.looks += 1
        if not lane.looks % _OTHERS_TURN:
            walks = walks[1:] + walks[:1] if lane.looks % (2 * _OTHERS_TURN) else walks[-1:] + walks[:-1]
        now_seconds = time.monotonic()
        for number, walk in walks:
            due: list[CopyTask] = []
            last_end = lane.ends.get(number)
            if last_end is not None and now_seconds - lane.began_at.get(number, -_FRESH_SECONDS) < _FRESH_SECONDS:
                due, lane.ends[number] = walk(last_end)
            if not due:
                lane.began_at[number] = now_seconds
                due, end = walk(None)
                if due or end is None:
                    lane.ends[number] = end
                else:
                    due, lane.ends[number] = walk(last_end or end)
            if due:
                lane.found_at = lane.began_at[number]
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


def _path_of(task: CopyTask) -> tuple[UUID, str]:
    return task.file.session_id, task.file.relative_path


def _finds_any(walk: _Walk) -> bool:
    """Whether anything lies on the whole of a walk."""
    found, end = walk(None)
    while not found and end is not None:
        found, end = walk(end)
    return bool(found)

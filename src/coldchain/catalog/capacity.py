"""What lies on stores, whose it is, and what they still want.

Everything is counted by the database: no query here reads a row for each file into Python. What lies on one store is
summed from an index alone, as is the backlog; by sessions and kinds, each copy's file is looked up (`CapacityBook` in
`storage` keeps that, and has only those sessions counted again in which something happened).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, orm, select, true

from coldchain.catalog import tasks
from coldchain.catalog.by_index import KEY, by_index
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import EventRow, FileRow, ReplicaRow, SessionRow, StoreSampleRow
from coldchain.model.files import CopyTask, FileKind, ReplicaState
from coldchain.model.identity import first_id_at
from coldchain.model.stores import StoreSample

MOST_LATE = 2000
_TRASH = frozenset({ReplicaState.RETIRING, ReplicaState.TRASHED, ReplicaState.REMOVING})
_THERE = (ReplicaState.VERIFIED, ReplicaState.DAMAGED, *sorted(_TRASH))
_TO_DO = (ReplicaState.WANTED, ReplicaState.DAMAGED, ReplicaState.FAILED)

_Key = tuple[str, str]
"""Site and store."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Copies on a store: those that stand (they are verified), those that lie in its trash, those that are damaged."""

    files: int = 0
    size_bytes: int = 0
    trash_files: int = 0
    trash_bytes: int = 0
    damaged_files: int = 0
    damaged_bytes: int = 0

    @property
    def all_bytes(self) -> int:
        """What it takes of the store in all."""
        return self.size_bytes + self.trash_bytes + self.damaged_bytes

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.files + other.files,
            self.size_bytes + other.size_bytes,
            self.trash_files + other.trash_files,
            self.trash_bytes + other.trash_bytes,
            self.damaged_files + other.damaged_files,
            self.damaged_bytes + other.damaged_bytes,
        )


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What a site's store holds of one kind of files of a session."""

    site: str
    store: str
    session_id: UUID
    kind: FileKind
    usage: Usage


@dataclass(frozen=True, slots=True)
class ToDo:
    """Copies that a store still wants, of one priority and for one reason. `reason` is "" where they are new."""

    store: str
    priority: int
    state: ReplicaState
    reason: str
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Late:
    """Copies that are wanted for too long, `MOST_LATE` at most of each queue, and since when the oldest is wanted."""

    files: int
    size_bytes: int
    since: datetime


def totals(catalog: Catalog, keys: Collection[_Key]) -> dict[_Key, Usage]:
    """What lies on stores, each a site's."""
    with catalog.reading() as unit:
        return {key: _sum(unit, total_query(*key)) for key in keys}


def lines(catalog: Catalog, session_id: UUID | None = None) -> list[UsageLine]:
    """What lies on every store, of one session or of all, by session and kind."""
    found: defaultdict[tuple[str, str, UUID, FileKind], Usage] = defaultdict(Usage)
    with catalog.reading() as unit:
        wanted = [session_id] if session_id is not None else unit.scalars(select(SessionRow.id)).all()
        for each in wanted:  # one at a time: of all together a database would sort all that there is
            for site, store, session, kind, state, files, size in unit.execute(lines_query(each)):
                found[site, store, session, kind] += _usage(state, files, size)
    return [UsageLine(*key, usage) for key, usage in found.items()]


def sessions_changed(catalog: Catalog, since: datetime) -> set[UUID | None]:
    """The sessions in which something has happened since a time; None among them: a store was exchanged, all of it."""
    with catalog.reading() as unit:
        return set(unit.scalars(changed_query(since)))


def to_do(catalog: Catalog) -> list[ToDo]:
    """What this site's stores still want, the most urgent first, most files first within one priority and state."""
    with catalog.reading() as unit:
        return [
            ToDo(store, priority, state, reason, int(files), int(size))
            for store, priority, state, reason, files, size in unit.execute(to_do_query(catalog.site))
        ]


def next_copies(catalog: Catalog, store: str, *, limit: int) -> list[CopyTask]:
    """The files that a copier takes next for this site's store, in its order, should none fail."""
    found: list[CopyTask] = []
    for state in _TO_DO:
        more, _ = tasks.to_copy(catalog, state=state, stores=[store], limit=limit, exclude=[])
        found += more
    return found[:limit]


def oldest_wanted(catalog: Catalog, store: str) -> datetime | None:
    """Since when the copy is wanted that this site's store wants the longest; None where it wants none.

    Of a copy that was found damaged, since that.
    """
    with catalog.reading() as unit:
        times = [
            _time_of(found)
            for state in (ReplicaState.WANTED, ReplicaState.FAILED)
            for priority in _priorities(unit, catalog.site, state, store)
            if (found := unit.scalar(oldest_query(catalog.site, state, store, priority))) is not None
        ]
        damaged = unit.scalar(damaged_query(catalog.site, store))
    return min([*times, *([] if damaged is None else [damaged])], default=None)


def late(catalog: Catalog, store: str, kinds: Collection[FileKind], wanted_before: datetime) -> Late | None:
    """This site's copies of files of these kinds that a store wants since before that time; None where there are none.

    A copy that is to be mended counts from when it was found damaged.
    """
    before = first_id_at(wanted_before)
    files, size_bytes, since = 0, 0, []
    with catalog.reading() as unit:
        queries = [
            late_query(catalog.site, state, store, priority, kinds, before)
            for state in (ReplicaState.WANTED, ReplicaState.FAILED)
            for priority in _priorities(unit, catalog.site, state, store)
        ]
        for query in queries:
            count, size, oldest = unit.execute(query).one()
            if count:
                files, size_bytes = files + int(count), size_bytes + int(size)
                since.append(_time_of(oldest))
        count, size, oldest_time = unit.execute(late_damaged_query(catalog.site, store, kinds, wanted_before)).one()
        if oldest_time is not None:
            files, size_bytes = files + int(count), size_bytes + int(size)
            since.append(oldest_time)
    return Late(files, size_bytes, min(since)) if since else None


def history(catalog: Catalog, key: _Key, *, days: float) -> list[StoreSample]:
    """The samples of a site's store of the last so many days, oldest first. Quicker than `stores.samples`."""
    since = datetime.now(UTC) - timedelta(days=days)
    with catalog.reading() as unit:
        return [StoreSample(key[1], *row) for row in unit.execute(history_query(key, since))]


def newest_sample_at(catalog: Catalog, key: _Key) -> datetime | None:
    """When a site's store was last sampled."""
    with catalog.reading() as unit:
        return unit.scalar(newest_sample_query(key))


def total_query(site: str, store: str) -> Select[ReplicaState, int, int]:
    """How many copies in each state lie on a store, and their bytes, from an index alone."""
    query = (
        select(ReplicaRow.state, func.count(), func.sum(ReplicaRow.size_bytes))
        .where(ReplicaRow.site == site, ReplicaRow.store == store, ReplicaRow.state.in_(_THERE))
        .group_by(ReplicaRow.state)
    )
    return by_index(query, ReplicaRow, "ix_replicas_scrub")


def lines_query(session_id: UUID) -> Select[str, str, UUID, FileKind, ReplicaState, int, int]:
    """How many copies of each kind in each state of a session lie on which store, and their bytes."""
    of = (ReplicaRow.site, ReplicaRow.store, FileRow.session_id, FileRow.kind, ReplicaRow.state)
    return (
        select(*of, func.count(), func.sum(ReplicaRow.size_bytes))
        .join(FileRow, FileRow.id == ReplicaRow.file_id)
        .where(FileRow.session_id == session_id, ReplicaRow.state.in_(_THERE))
        .group_by(*of)
    )


def changed_query(since: datetime) -> Select[UUID | None]:
    """The sessions of the events since a time: keys grow with the time of their writing."""
    matters = EventRow.session_id.is_not(None) | (EventRow.kind == "store.adopted")
    # SQLite would go through an index on sessions, all of it, were it the plain column.
    session = func.coalesce(EventRow.session_id, EventRow.session_id)
    return by_index(select(session).where(EventRow.id >= first_id_at(since), matters).distinct(), EventRow, KEY)


def to_do_query(site: str) -> Select[str, int, ReplicaState, str, int, int]:
    """What a site's stores still want, and why."""
    of = (ReplicaRow.store, ReplicaRow.priority, ReplicaRow.state, ReplicaRow.detail)
    query = (
        select(*of, func.count(), func.sum(ReplicaRow.size_bytes))
        .where(ReplicaRow.site == site, ReplicaRow.pending == true())
        .group_by(*of)
        .order_by(ReplicaRow.store, ReplicaRow.priority, ReplicaRow.state, func.count().desc(), ReplicaRow.detail)
    )
    return by_index(query, ReplicaRow, "ix_replicas_queue")


def oldest_query(site: str, state: ReplicaState, store: str, priority: int) -> Select[UUID]:
    """The oldest copy of a priority that a store wants."""
    query = select(func.min(ReplicaRow.id)).where(*_queue(site, state, store), ReplicaRow.priority == priority)
    return by_index(query, ReplicaRow, "ix_replicas_queue")


def damaged_query(site: str, store: str) -> Select[datetime | None]:
    """When the first of the copies that are to be mended was found damaged."""
    query = select(func.min(ReplicaRow.checked_at)).where(*_queue(site, ReplicaState.DAMAGED, store))
    return by_index(query, ReplicaRow, "ix_replicas_scrub")


def late_query(
    site: str, state: ReplicaState, store: str, priority: int, kinds: Collection[FileKind], before: UUID
) -> Select[int, int, UUID]:
    """How many copies of files of these kinds, from before a key, a store wants; their bytes; the oldest."""
    query = (
        select(ReplicaRow.id, ReplicaRow.size_bytes)
        .join(FileRow, FileRow.id == ReplicaRow.file_id)
        .where(
            *_queue(site, state, store),
            ReplicaRow.priority == priority,
            ReplicaRow.id < before,
            FileRow.kind.in_(kinds),
        )
        .order_by(ReplicaRow.id)
        .limit(MOST_LATE)
    )
    found = by_index(query, ReplicaRow, "ix_replicas_queue").subquery()
    return select(func.count(), func.sum(found.c.size_bytes), func.min(found.c.id))


def late_damaged_query(
    site: str, store: str, kinds: Collection[FileKind], before: datetime
) -> Select[int, int, datetime | None]:
    """How many copies of files of these kinds are damaged since before a time; their bytes; since when."""
    query = (
        select(func.count(), func.sum(ReplicaRow.size_bytes), func.min(ReplicaRow.checked_at))
        .join(FileRow, FileRow.id == ReplicaRow.file_id)
        .where(*_queue(site, ReplicaState.DAMAGED, store), ReplicaRow.checked_at < before, FileRow.kind.in_(kinds))
    )
    return by_index(query, ReplicaRow, "ix_replicas_scrub")


def history_query(key: _Key, since: datetime) -> Select[datetime, int | None, int | None, int, int]:
    """A store's samples since a time, oldest first, as columns."""
    return (
        select(
            StoreSampleRow.at,
            StoreSampleRow.total_bytes,
            StoreSampleRow.free_bytes,
            StoreSampleRow.arrived_bytes,
            StoreSampleRow.backlog_bytes,
        )
        .where(StoreSampleRow.site == key[0], StoreSampleRow.store == key[1], StoreSampleRow.at >= since)
        .order_by(StoreSampleRow.at)
    )


def newest_sample_query(key: _Key) -> Select[datetime]:
    """The time of a store's newest sample."""
    return select(func.max(StoreSampleRow.at)).where(StoreSampleRow.site == key[0], StoreSampleRow.store == key[1])


def _queue(site: str, state: ReplicaState, store: str) -> tuple[ColumnElement[bool], ...]:
    return (
        ReplicaRow.site == site,
        ReplicaRow.pending == true(),
        ReplicaRow.state == state,
        ReplicaRow.store == store,
    )


def _priorities(unit: orm.Session, site: str, state: ReplicaState, store: str) -> Iterator[int]:
    """The priorities of which a store wants copies: a look at an index for each."""
    priority = unit.scalar(tasks.next_priority_query(site, state, store, None))
    while priority is not None:
        yield priority
        priority = unit.scalar(tasks.next_priority_query(site, state, store, priority))


def _sum(unit: orm.Session, query: Select[ReplicaState, int, int]) -> Usage:
    found = Usage()
    for state, files, size_bytes in unit.execute(query):
        found += _usage(state, files, size_bytes)
    return found


def _usage(state: ReplicaState, files: int, size_bytes: int) -> Usage:
    counted = (int(files), int(size_bytes))
    if state in _TRASH:
        return Usage(0, 0, *counted)
    return Usage(0, 0, 0, 0, *counted) if state == ReplicaState.DAMAGED else Usage(*counted)


def _time_of(key: UUID) -> datetime:
    """When a UUIDv7 was minted."""
    return datetime.fromtimestamp((key.int >> 80) / 1000, UTC)

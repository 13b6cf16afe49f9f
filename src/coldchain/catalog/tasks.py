"""What there is to do with files: copies that stores still want, and digests that exposures wait for.

Copies go by priority, and the newest first within one: what is being looked at now is of more use than what waits
already. Both are walked: a call looks at a stated number of entries and says where it ended, so that however many of
them wait for their next try, one call costs the same, and going on reaches every one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice, starmap
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, orm, select, true

from coldchain.catalog.by_index import by_index
from coldchain.catalog.engine import Catalog
from coldchain.catalog.file_rows import COPIED_STATES, FILE_COLUMNS, REPLICA_COLUMNS
from coldchain.catalog.tables import ExposureRow, FileRow, InstrumentRow, ReplicaRow, SessionPlaceRow, SessionRow
from coldchain.model.files import CopyTask, DataFile, Replica, ReplicaState
from coldchain.model.session import ExposureState

Position = tuple[int, UUID]
"""Where a walk through the copies ended: priority and replica."""


def to_copy(
    catalog: Catalog,
    *,
    state: ReplicaState,
    stores: Sequence[str],
    limit: int,
    exclude: Collection[UUID],
    after: Position | None = None,
) -> tuple[list[CopyTask], Position | None]:
    """This site's files of which a copy on one of those stores is in that state (WANTED, FAILED or DAMAGED), by
    priority, the newest first.

    It looks at `limit` copies, from the one after `after` on, and returns the files among them with all that these
    stores still want of them, and the position of the last copy that it looked at, or None at the queue's end.

    `exclude` holds ids of files, or of single replicas, that are in hand or wait for their next try.
    """
    excluded = frozenset(exclude)
    with catalog.reading() as unit:
        # One query for each store and priority: an index gives each in order, and only its beginning is read.
        found = [
            entry
            for store in dict.fromkeys(stores)
            for entry in islice(_queue(unit, catalog.site, state, store, limit, after), limit)
        ]
        seen = sorted(found, key=lambda entry: (entry[0], -entry[1].int))[:limit]
        chosen = dict.fromkeys(
            file_id for _, replica_id, file_id in seen if replica_id not in excluded and file_id not in excluded
        )
        tasks = _tasks(unit, catalog.site, list(chosen), stores, excluded)
    return tasks, seen[-1][:2] if seen and len(seen) == limit else None


def _queue(
    unit: orm.Session, site: str, state: ReplicaState, store: str, limit: int, after: Position | None
) -> Iterator[tuple[int, UUID, UUID]]:
    priority, before = (None, None) if after is None else after
    if priority is None:
        priority = unit.scalar(next_priority_query(site, state, store, None))
    while priority is not None:
        for replica_id, file_id in unit.execute(queue_query(site, state, store, priority, limit, before)):
            yield priority, replica_id, file_id
        priority, before = unit.scalar(next_priority_query(site, state, store, priority)), None


def to_hash(
    catalog: Catalog, *, limit: int, exclude: Collection[UUID], before: UUID | None = None
) -> tuple[list[CopyTask], UUID | None]:
    """This site's files that an exposure waits for only because they have no digest yet, as tasks without replicas.

    The newest exposure's first. It looks at `limit` exposures that are READY, from the one after `before` on, and
    returns the id of the last that it looked at, None at the end. `exclude` holds ids of files.
    """
    excluded = frozenset(exclude)
    with catalog.reading() as unit:
        seen = unit.execute(ready_query(catalog.site, limit, before)).all()
        inputs = [file_id for _, file_id in seen if file_id is not None]
        unknown = set(unit.scalars(unhashed_query(catalog.site, inputs))) - excluded if inputs else set()
        tasks = _tasks(unit, catalog.site, [file_id for file_id in inputs if file_id in unknown], (), excluded)
    return tasks, seen[-1][0] if seen and len(seen) == limit else None


def queue_query(
    site: str, state: ReplicaState, store: str, priority: int, limit: int, before: UUID | None
) -> Select[UUID, UUID]:
    """Replica and file of the copies of one priority that a store still wants, newest first, from the one before
    `before` on."""
    query = (
        select(ReplicaRow.id, ReplicaRow.file_id)
        .where(*_pending(site, state, store), ReplicaRow.priority == priority)
        .order_by(ReplicaRow.id.desc())
        .limit(limit)
    )
    query = by_index(query, ReplicaRow, "ix_replicas_queue")
    return query if before is None else query.where(ReplicaRow.id < before)


def next_priority_query(site: str, state: ReplicaState, store: str, after: int | None) -> Select[int]:
    """The next priority of which a store still wants a copy; NULL where there is none."""
    query = select(func.min(ReplicaRow.priority)).where(*_pending(site, state, store))
    query = by_index(query, ReplicaRow, "ix_replicas_queue")
    return query if after is None else query.where(ReplicaRow.priority > after)


def _pending(site: str, state: ReplicaState, store: str) -> tuple[ColumnElement[bool], ...]:
    return (
        ReplicaRow.site == site,
        ReplicaRow.pending == true(),
        ReplicaRow.state == state,
        ReplicaRow.store == store,
    )


def ready_query(site: str, limit: int, before: UUID | None) -> Select[UUID, UUID | None]:
    """A site's READY exposures with their inputs, newest first, from the one before `before` on."""
    query = (
        select(ExposureRow.id, ExposureRow.input_file_id)
        .where(ExposureRow.site == site, ExposureRow.state == ExposureState.READY)
        .order_by(ExposureRow.id.desc())
        .limit(limit)
    )
    query = by_index(query, ExposureRow, "ix_exposures_site_state_id")
    return query if before is None else query.where(ExposureRow.id < before)


def unhashed_query(site: str, file_ids: Sequence[UUID]) -> Select[UUID]:
    """Those of these files that are a site's, can be copied and have no digest yet: another's it could not give one."""
    return select(FileRow.id).where(
        FileRow.id.in_(file_ids), FileRow.site == site, FileRow.sha256.is_(None), FileRow.state.in_(COPIED_STATES)
    )


def files_query(file_ids: Sequence[UUID]) -> Select[*tuple[Any, ...]]:
    """These files, as `DataFile` has them."""
    return select(*FILE_COLUMNS).where(FileRow.id.in_(file_ids))


def copies_query(file_ids: Sequence[UUID]) -> Select[*tuple[Any, ...]]:
    """All copies of these files: their site, whether a copier is to try, and what `Replica` has; oldest first."""
    columns = (ReplicaRow.site, ReplicaRow.pending, *REPLICA_COLUMNS)
    return select(*columns).where(ReplicaRow.file_id.in_(file_ids)).order_by(ReplicaRow.id)


def _tasks(
    unit: orm.Session, site: str, file_ids: Sequence[UUID], stores: Sequence[str], excluded: frozenset[UUID]
) -> list[CopyTask]:
    if not file_ids:
        return []
    # Not through the session, whose rows cost more than all else that is done with a small file.
    connection = unit.connection()
    by_id = {file.id: file for file in starmap(DataFile, connection.execute(files_query(file_ids)))}
    homes = _homes(unit, {file.session_id for file in by_id.values()})
    places = _places(unit, {file.place_id for file in by_id.values() if file.place_id is not None})
    replicas: dict[UUID, list[Replica]] = {file_id: [] for file_id in file_ids}
    good: dict[UUID, list[Replica]] = {file_id: [] for file_id in file_ids}
    # Chosen here and not by the database, which would search the whole queue for the few replicas of these files.
    for of_site, pending, *columns in connection.execute(copies_query(file_ids)):
        replica = Replica(*columns)
        if pending and of_site == site and replica.store in stores and replica.id not in excluded:
            replicas[replica.file_id].append(replica)
        elif replica.state is ReplicaState.VERIFIED:
            good[replica.file_id].append(replica)
    tasks = []
    for file_id in file_ids:
        file = by_id[file_id]
        instrument, source_root, folder = homes[file.session_id]
        root, source_folder = (source_root, folder) if file.place_id is None else places[file.place_id]
        task = CopyTask(
            file=file,
            instrument=instrument,
            session_folder=folder,
            source_root=root,
            source_folder=source_folder,
            replicas=tuple(replicas[file_id]),
            good=tuple(good[file_id]),
        )
        tasks.append(task)
    return tasks


def _homes(unit: orm.Session, session_ids: Collection[UUID]) -> dict[UUID, tuple[str, str, str]]:
    """Instrument, source root and folder of sessions."""
    query = (
        select(SessionRow.id, InstrumentRow.name, SessionRow.source_root, SessionRow.folder)
        .join(InstrumentRow, SessionRow.instrument_id == InstrumentRow.id)
        .where(SessionRow.id.in_(session_ids))
    )
    return {session_id: (name, root, folder) for session_id, name, root, folder in unit.execute(query)}


def _places(unit: orm.Session, place_ids: Collection[UUID]) -> dict[UUID, tuple[str, str]]:
    """Root and folder of sessions' other places."""
    query = select(SessionPlaceRow.id, SessionPlaceRow.root, SessionPlaceRow.folder)
    return {
        place_id: (root, folder)
        for place_id, root, folder in unit.execute(query.where(SessionPlaceRow.id.in_(place_ids)))
    }

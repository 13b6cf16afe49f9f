"""Which verified copies are to be proved again: those that were proved longest ago."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePosixPath
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select

from coldchain.catalog.by_index import KEY, by_index
from coldchain.catalog.engine import Catalog
from coldchain.catalog.file_rows import as_replica
from coldchain.catalog.tables import FileRow, InstrumentRow, ReplicaRow, SessionRow
from coldchain.model.files import CheckTask, ReplicaState


def due(catalog: Catalog, store: str, *, before: datetime, limit: int) -> list[CheckTask]:
    """This site's verified copies on a store that were last proved before a time, the longest ago first."""
    with catalog.reading() as unit:
        ids = unit.scalars(due_query(catalog.site, store, before, limit)).all()
        found = {row.replica.id: row for row in _tasks(unit.execute(_joined(ids)).all())}
        return [found[replica_id] for replica_id in ids]


def of_session(
    catalog: Catalog, store: str, session_id: UUID | None, *, state: ReplicaState, after: UUID | None, limit: int
) -> list[CheckTask]:
    """This site's copies on a store in a state, of one session or of all, in the order of their ids from the one after
    `after` on."""
    with catalog.reading() as unit:
        ids = unit.scalars(ids_query(catalog.site, store, session_id, state, after, limit)).all()
        found = _tasks(unit.execute(_joined(ids)).all())
        return sorted(found, key=lambda task: task.replica.id)


def count(catalog: Catalog, store: str, session_id: UUID | None, *, state: ReplicaState) -> tuple[int, int]:
    """How many copies on a store are in a state, of one session or of all, and their bytes."""
    with catalog.reading() as unit:
        files, size_bytes = unit.execute(count_query(catalog.site, store, session_id, state)).one()
        return int(files), int(size_bytes)


def ids_query(
    site: str, store: str, session_id: UUID | None, state: ReplicaState, after: UUID | None, limit: int
) -> Select[UUID]:
    """The copies on a store in a state, of one session or of all, in the order of their ids."""
    query = select(ReplicaRow.id).where(ReplicaRow.store == store, ReplicaRow.state == state)
    if session_id is not None:
        query = query.join(FileRow, FileRow.id == ReplicaRow.file_id)
        query = query.where(FileRow.session_id == session_id, _its_site() == site)
    elif state == ReplicaState.VERIFIED:
        # Most copies are: they are met on a walk along the key, where an index on the state would sort them all.
        query = by_index(query.where(_its_site() == site), ReplicaRow, KEY)
    else:
        query = by_index(query.where(ReplicaRow.site == site), ReplicaRow, "ix_replicas_scrub")
    query = query.order_by(ReplicaRow.id).limit(limit)
    return query if after is None else query.where(ReplicaRow.id > after)


def count_query(site: str, store: str, session_id: UUID | None, state: ReplicaState) -> Select[int, int]:
    """How many copies on a store are in a state, of one session or of all, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(ReplicaRow.size_bytes), 0))
    query = query.where(ReplicaRow.store == store, ReplicaRow.state == state)
    if session_id is None:
        return by_index(query.where(ReplicaRow.site == site), ReplicaRow, "ix_replicas_scrub")
    query = query.join(FileRow, FileRow.id == ReplicaRow.file_id)
    return query.where(FileRow.session_id == session_id, _its_site() == site)


def _its_site() -> ColumnElement[str]:
    """The site of a copy where no index is to be read by it: SQLite would go through all that lies on a store."""
    return func.coalesce(ReplicaRow.site, "")


def due_query(site: str, store: str, before: datetime, limit: int) -> Select[UUID]:
    """Verified copies on a store that were last proved before a time, the longest ago first."""
    query = (
        select(ReplicaRow.id)
        .where(
            ReplicaRow.site == site,
            ReplicaRow.store == store,
            ReplicaRow.state == ReplicaState.VERIFIED,
            ReplicaRow.checked_at < before,
        )
        .order_by(ReplicaRow.checked_at, ReplicaRow.id)
        .limit(limit)
    )
    return by_index(query, ReplicaRow, "ix_replicas_scrub")


def _joined(ids: Sequence[UUID]) -> Select[ReplicaRow, FileRow, str, str]:
    return (
        select(ReplicaRow, FileRow, InstrumentRow.name, SessionRow.folder)
        .join(FileRow, FileRow.id == ReplicaRow.file_id)
        .join(SessionRow, SessionRow.id == FileRow.session_id)
        .join(InstrumentRow, InstrumentRow.id == SessionRow.instrument_id)
        .where(ReplicaRow.id.in_(ids))
    )


def _tasks(rows: Sequence[tuple[ReplicaRow, FileRow, str, str]]) -> list[CheckTask]:
    return [
        CheckTask(
            replica=as_replica(replica),
            relative=str(PurePosixPath(instrument, folder, file.relative_path)),
            size_bytes=file.size_bytes,
            sha256=file.sha256 or replica.sha256 or "",
        )
        for replica, file, instrument, folder in rows
    ]

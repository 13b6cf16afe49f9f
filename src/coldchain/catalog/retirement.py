"""What may be cleared: sessions, files with their copies, and stores' trash, as decisions want to see them.

Everything is read in pages: of a session's files in the order of their ids, of a store's trash the longest there first.
Only this site's copies are seen: what another site calls by a store's name is another store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from uuid import UUID

from sqlalchemy import Select, func, orm, select, tuple_

from coldchain.catalog import holds
from coldchain.catalog.by_index import by_index
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import (
    ExposureRow,
    FileRow,
    HoldRow,
    InstrumentRow,
    ReplicaRow,
    SessionPlaceRow,
    SessionRow,
    StoreRow,
)
from coldchain.errors import CatalogError
from coldchain.model.files import ReplicaState
from coldchain.model.policy import SOURCE
from coldchain.model.retention import Amount, FileOnStores, SessionLife, StoredCopy, Trashed
from coldchain.model.session import ExposureState

IN_WORK = (ExposureState.WAITING, ExposureState.READY, ExposureState.PROCESSING)
IN_TRASH = (ReplicaState.RETIRING, ReplicaState.TRASHED, ReplicaState.REMOVING)
AT_ONCE = 500

Mark = tuple[datetime, UUID]
"""How far a store's trash was gone through: time and id of the last copy that was looked at."""


def lives(catalog: Catalog) -> list[SessionLife]:
    """All sessions, with what holds them."""
    with catalog.reading() as unit:
        held: defaultdict[UUID, list[str]] = defaultdict(list)
        for session_id, reason in unit.execute(held_query()):
            held[session_id].append(reason)
        return [_life(row, "; ".join(held.get(row.id, ()))) for row in unit.scalars(select(SessionRow))]


def life(unit: orm.Session, session_id: UUID) -> SessionLife:
    """A session as it stands in a transaction that this room has begun."""
    row = unit.get(SessionRow, session_id, populate_existing=True)
    if row is None:
        raise CatalogError(f"there is no session with the id {session_id}")
    return _life(row, holds.reasons(unit, session_id))


def life_of(catalog: Catalog, session_id: UUID) -> SessionLife:
    """A session as it stands now."""
    with catalog.reading() as unit:
        return life(unit, session_id)


def page(catalog: Catalog, session_id: UUID, *, after: UUID | None = None, limit: int = AT_ONCE) -> list[FileOnStores]:
    """A session's files that this site took in, all versions of them, each with its copies; from the one after `after`
    on."""
    with catalog.reading() as unit:
        ids = list(unit.scalars(page_query(catalog.site, session_id, after, limit)))
        return files(unit, ids)


def in_trash(
    catalog: Catalog, store: str, state: ReplicaState, *, after: Mark | None = None, limit: int = AT_ONCE
) -> tuple[list[FileOnStores], Mark | None]:
    """A store's copies in one of the states `IN_TRASH`, each as its file, in the order of their clearing; and where to
    go on, None at the end."""
    with catalog.reading() as unit:
        rows = unit.execute(trash_query(catalog.site, store, state, after, limit)).all()
        found = files(unit, [file_id for file_id, _, _ in rows])
    last = rows[-1] if len(rows) == limit else None
    return found, None if last is None or last[1] is None else (last[1], last[2])


def sessions_on(catalog: Catalog, store: str) -> set[UUID]:
    """The sessions of which a store has verified copies. Costs by what lies on the store, not by what ever did."""
    with catalog.reading() as unit:
        return set(unit.scalars(sessions_query(catalog.site, store)))


def trash_bytes(catalog: Catalog, store: str) -> int:
    """How much lies in a store's trash, or is on its way there."""
    with catalog.reading() as unit:
        return sum(int(unit.scalar(bytes_query(catalog.site, store, state)) or 0) for state in IN_TRASH)


def trash_of(catalog: Catalog, session_id: UUID) -> list[Trashed]:
    """What of a session lies in which stores' trashes, of all sites. Where no trash holds anything, no file is looked
    at."""
    with catalog.reading() as unit:
        known = {(row.site, row.name) for row in unit.execute(select(StoreRow.site, StoreRow.name))}
        known |= {(site, SOURCE) for site, _ in known}
        if not any(unit.scalar(any_query(*key, state)) is not None for key in known for state in IN_TRASH):
            return []
        return [
            Trashed(site, store, Amount(int(files), int(size or 0)), since)
            for site, store, files, size, since in unit.execute(trash_of_query(session_id))
        ]


def files(unit: orm.Session, file_ids: Sequence[UUID], *, lock: bool = False) -> list[FileOnStores]:
    """Files with their copies, in that order, in a transaction that this room has begun.

    With `lock`, whoever else begins to clear a copy of one of them waits until this transaction has ended.
    """
    if lock:
        unit.scalars(select(FileRow.id).where(FileRow.id.in_(file_ids)).with_for_update()).all()
    rows = unit.execute(files_query(file_ids)).all()
    by_id = {found[0].id: found for found in rows}
    copies: defaultdict[UUID, list[ReplicaRow]] = defaultdict(list)
    for replica in unit.scalars(copies_query(file_ids, lock=lock)):
        if replica.site == unit.info["site"]:
            copies[replica.file_id].append(replica)
    busy = _busy(unit, {found[0].session_id for found in rows})
    made = []
    for file_id in dict.fromkeys(file_ids):
        row, instrument, session, place, exposure = by_id[file_id]
        folder = session.folder if place is None else place.folder
        source_name = str(PurePosixPath(folder, row.relative_path))
        usual = str(PurePosixPath(instrument, session.folder, row.relative_path))
        made.append(
            FileOnStores(
                id=row.id,
                session_id=row.session_id,
                relative_path=row.relative_path,
                kind=row.kind,
                state=row.state,
                size_bytes=row.size_bytes,
                modified_ns=row.modified_ns,
                sha256=row.sha256,
                root=session.source_root if place is None else place.root,
                source_name=source_name,
                in_work=exposure in IN_WORK if exposure is not None else row.session_id in busy,
                copies=tuple(
                    _copy(replica, source_name if replica.store == SOURCE else usual)
                    for replica in copies.get(file_id, ())
                ),
            )
        )
    return made


def held_query() -> Select[UUID, str]:
    """What holds which session."""
    return select(HoldRow.session_id, HoldRow.reason).where(HoldRow.lifted_at.is_(None)).order_by(HoldRow.id)


def page_query(site: str, session_id: UUID, after: UUID | None, limit: int) -> Select[UUID]:
    """The ids of a session's files that a site took in, in their order."""
    query = (
        select(FileRow.id)
        .where(FileRow.session_id == session_id, FileRow.site == site)
        .order_by(FileRow.id)
        .limit(limit)
    )
    query = by_index(query, FileRow, "ix_files_session_id_id")
    return query if after is None else query.where(FileRow.id > after)


def trash_query(
    site: str, store: str, state: ReplicaState, after: Mark | None, limit: int
) -> Select[UUID, datetime | None, UUID]:
    """File, time of clearing and id of a store's copies in a state, in the index's order. A copy that begins to be
    cleared was proved just then, so that `checked_at` is that time."""
    query = (
        select(ReplicaRow.file_id, ReplicaRow.checked_at, ReplicaRow.id)
        .where(ReplicaRow.site == site, ReplicaRow.store == store, ReplicaRow.state == state)
        .order_by(ReplicaRow.checked_at, ReplicaRow.id)
        .limit(limit)
    )
    query = by_index(query, ReplicaRow, "ix_replicas_scrub")
    return query if after is None else query.where(tuple_(ReplicaRow.checked_at, ReplicaRow.id) > after)


def sessions_query(site: str, store: str) -> Select[UUID]:
    """The sessions of a store's verified copies."""
    query = (
        select(FileRow.session_id)
        .join(ReplicaRow, ReplicaRow.file_id == FileRow.id)
        .where(ReplicaRow.site == site, ReplicaRow.store == store, ReplicaRow.state == ReplicaState.VERIFIED)
        .distinct()
    )
    return by_index(query, ReplicaRow, "ix_replicas_scrub")


def bytes_query(site: str, store: str, state: ReplicaState) -> Select[int | None]:
    """The sum of a store's copies in a state, from the index alone."""
    return select(func.sum(ReplicaRow.size_bytes)).where(
        ReplicaRow.site == site, ReplicaRow.store == store, ReplicaRow.state == state
    )


def any_query(site: str, store: str, state: ReplicaState) -> Select[UUID]:
    """Any one of a store's copies in a state."""
    return (
        select(ReplicaRow.id)
        .where(ReplicaRow.site == site, ReplicaRow.store == store, ReplicaRow.state == state)
        .limit(1)
    )


def trash_of_query(session_id: UUID) -> Select[str, str, int, int, datetime | None]:
    """Site, store, number, bytes and first time of a session's copies in trashes."""
    return (
        select(
            ReplicaRow.site,
            ReplicaRow.store,
            func.count(),
            func.sum(ReplicaRow.size_bytes),
            func.min(ReplicaRow.trashed_at),
        )
        .join(FileRow, FileRow.id == ReplicaRow.file_id)
        .where(FileRow.session_id == session_id, ReplicaRow.state.in_(IN_TRASH))
        .group_by(ReplicaRow.site, ReplicaRow.store)
        .order_by(ReplicaRow.site, ReplicaRow.store)
    )


def files_query(
    file_ids: Sequence[UUID],
) -> Select[FileRow, str, SessionRow, SessionPlaceRow | None, ExposureState | None]:
    """Files with what says where they and their copies lie, and how far their exposures are."""
    return (
        select(FileRow, InstrumentRow.name, SessionRow, SessionPlaceRow, ExposureRow.state)
        .join(SessionRow, FileRow.session_id == SessionRow.id)
        .join(InstrumentRow, SessionRow.instrument_id == InstrumentRow.id)
        .join(SessionPlaceRow, FileRow.place_id == SessionPlaceRow.id, isouter=True)
        .join(ExposureRow, FileRow.exposure_id == ExposureRow.id, isouter=True)
        .where(FileRow.id.in_(file_ids))
        .execution_options(populate_existing=True)
    )


def copies_query(file_ids: Sequence[UUID], *, lock: bool = False) -> Select[ReplicaRow]:
    """The copies of files, each file's oldest first."""
    query = (
        select(ReplicaRow)
        .where(ReplicaRow.file_id.in_(file_ids))
        .order_by(ReplicaRow.file_id, ReplicaRow.id)
        .execution_options(populate_existing=True)
    )
    return query.with_for_update() if lock else query


def busy_query(session_id: UUID) -> Select[UUID]:
    """An exposure of a session that is not through, if there is one."""
    return select(ExposureRow.id).where(ExposureRow.session_id == session_id, ExposureRow.state.in_(IN_WORK)).limit(1)


def _busy(unit: orm.Session, session_ids: Iterable[UUID]) -> set[UUID]:
    return {session_id for session_id in session_ids if unit.scalar(busy_query(session_id)) is not None}


def _life(row: SessionRow, held: str) -> SessionLife:
    return SessionLife(
        id=row.id,
        name=row.name,
        state=row.state,
        since=row.created_at if row.state_since is None else row.state_since,
        root=row.source_root,
        folder=row.folder,
        held=held,
        owner_mail=row.owner_mail,
    )


def _copy(row: ReplicaRow, usual: str) -> StoredCopy:
    return StoredCopy(
        replica_id=row.id,
        store=row.store,
        state=row.state,
        level=row.level,
        sha256=row.sha256,
        location=row.kept_as or row.stored_as or usual,
        has_own_name=row.kept_as is None,
        detail=row.detail,
        trashed_as=row.trashed_as,
        trashed_at=row.trashed_at,
    )

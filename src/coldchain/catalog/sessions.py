"""Instruments, projects and sessions: a session's parameters, life and counters."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import CursorResult, Select, case, func, orm, select
from sqlalchemy import update as sql_update

from coldchain.catalog import events
from coldchain.catalog.by_index import by_index
from coldchain.catalog.columns import path_digest
from coldchain.catalog.documents import parameters_from_json, parameters_to_json, written_over
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import ExposureRow, FileRow, InstrumentRow, ProjectRow, ReplicaRow, SessionRow
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.files import FileState, ReplicaState
from coldchain.model.policy import GIVEN_UP
from coldchain.model.session import (
    ExposureState,
    Instrument,
    Layout,
    Project,
    Session,
    SessionCounts,
    SessionParameters,
    SessionState,
)

_NamedRow = TypeVar("_NamedRow", InstrumentRow, ProjectRow)

_STANDING_FILES = tuple(state for state in FileState if state is not FileState.REPLACED)
_BAD_FILES = (FileState.DAMAGED, FileState.UNREADABLE)
# A file has fewer than a million copies: their sum says how many are verified, lack something, and have failed.
_LACKS = 1 << 20
_FAILS = 1 << 40
_STANDING = {
    ReplicaState.VERIFIED: 1,
    ReplicaState.FAILED: _FAILS + _LACKS,
    ReplicaState.DAMAGED: _FAILS + _LACKS,
    **dict.fromkeys(GIVEN_UP, 0),
}
"""What a copy adds to its file's sum by its state; any other state lacks something."""


def create(
    catalog: Catalog,
    *,
    name: str,
    instrument_name: str,
    source_root: str,
    folder: str,
    layout: Layout,
    project_name: str | None = None,
    owner_name: str = "",
    owner_mail: str = "",
    parameters: SessionParameters = SessionParameters(),  # noqa: B008  # frozen
    only_new: bool = False,
) -> Session:
    """A new open session, with its instrument and project where they are new.

    Where that folder of that instrument has a session already, that one is returned as it is; with `only_new` it is a
    CatalogError that names it. Both in one transaction: of two that create at once, one makes the session.
    """
    with catalog.writing() as unit:
        instrument = _named(unit, catalog.site, InstrumentRow, instrument_name)
        standing = unit.execute(_find_query(instrument_name, folder)).first()
        if standing is not None and only_new:
            raise CatalogError(
                f"the folder {printable(folder)} of {printable(instrument_name)} already belongs to session "
                f"{printable(standing[0].name)}",
                remedy="Change that session, or give another folder",
            )
        if standing is not None:
            return _session(*standing)
        project = _named(unit, catalog.site, ProjectRow, project_name) if project_name else None
        now = datetime.now(UTC)
        row = SessionRow(
            site=catalog.site,
            name=name,
            project_id=None if project is None else project.id,
            instrument_id=instrument.id,
            source_root=source_root,
            folder=folder,
            folder_digest=path_digest(folder),
            layout=layout,
            owner_name=owner_name,
            owner_mail=owner_mail,
            state=SessionState.OPEN,
            parameters=parameters_to_json(parameters),
            created_at=now,
            state_since=now,
        )
        unit.add(row)
        unit.flush()
        _note(unit, row, "session.created", f"session {printable(name)} on {printable(instrument_name)}")
        return _session(row, instrument, project)


def find(catalog: Catalog, *, instrument_name: str, folder: str) -> Session | None:
    """The session of an instrument's folder."""
    with catalog.reading() as unit:
        found = unit.execute(_find_query(instrument_name, folder)).first()
        return None if found is None else _session(*found)


def get(catalog: Catalog, session_id: UUID) -> Session:
    """The session with that id; CatalogError if there is none."""
    with catalog.reading() as unit:
        return _load(unit, session_id)


def known(catalog: Catalog, session_id: UUID) -> Session | None:
    """The session with that id, None where there is none."""
    with catalog.reading() as unit:
        found = unit.execute(_joined().where(SessionRow.id == session_id)).one_or_none()
        return None if found is None else _session(*found)


def by_name(catalog: Catalog, name: str) -> Session:
    """The session of that name, or with that id in text.

    CatalogError names the nearest where there is none, and the ids where there are several.
    """
    with catalog.reading() as unit:
        found = unit.execute(_joined().where(SessionRow.name == name).order_by(SessionRow.id)).all()
        if not found and (session_id := _as_uuid(name)) is not None:
            return _load(unit, session_id)
        if not found:
            raise _unknown(name, unit.scalars(select(SessionRow.name)).all())
        if len(found) > 1:
            listed = ", ".join(f"{row.id} ({printable(row.folder)})" for row, _, _ in found)
            raise CatalogError(f"{len(found)} sessions are named {printable(name)!r}", remedy=f"Give its id: {listed}")
        return _session(*found[0])


def list_all(catalog: Catalog, *, limit: int | None = None, before: UUID | None = None) -> list[Session]:
    """All sessions, newest first; so many at most, and only those made before one."""
    query = _joined().order_by(SessionRow.id.desc()).limit(limit)
    if before is not None:
        query = query.where(SessionRow.id < before)
    with catalog.reading() as unit:
        return [_session(*found) for found in unit.execute(query)]


def update(
    catalog: Catalog,
    session_id: UUID,
    *,
    project_name: str | None = None,
    owner_name: str | None = None,
    owner_mail: str | None = None,
) -> Session:
    """Change what is given; None leaves a value as it is, a project's name of "" takes the session out of its own."""
    with catalog.writing() as unit:
        row = _row(unit, session_id)
        if project_name is not None:
            row.project_id = _named(unit, catalog.site, ProjectRow, project_name).id if project_name else None
        if owner_name is not None:
            row.owner_name = owner_name
        if owner_mail is not None:
            row.owner_mail = owner_mail
        unit.flush()
        return _load(unit, session_id)


def change_parameters(
    catalog: Catalog, session_id: UUID, change: Callable[[SessionParameters], SessionParameters]
) -> Session:
    """Set a session's parameters to what `change` makes of those that stand.

    Changed parameters make every exposure that has an input READY again, in the same transaction.
    `change` is called inside the transaction, so that what somebody else changes at the same time (a forced
    reprocessing's generation) is not set back. It must be quick and must not use the catalog.
    """
    with catalog.writing() as unit:
        row = _row(unit, session_id)
        _change(unit, row, change(parameters_from_json(row.parameters)))
        unit.flush()
        return _load(unit, session_id)


def set_source_root(catalog: Catalog, session_id: UUID, root: str) -> Session:
    """Say where the session's folder is reached from now on: an instrument's movie root may be mounted elsewhere."""
    with catalog.writing() as unit:
        row = _row(unit, session_id)
        if row.source_root != root:
            message = f"session {printable(row.name)}: {printable(row.source_root)} → {printable(root)}"
            _note(unit, row, "session.moved", message)
            row.source_root = root
            unit.flush()
        return _load(unit, session_id)


def set_layout(catalog: Catalog, session_id: UUID, layout: Layout) -> Session:
    """Say how a session's files lie, once that is seen: the first file to arrive may not tell."""
    with catalog.writing() as unit:
        row = _row(unit, session_id)
        if row.layout != layout:
            _note(unit, row, "session.layout", f"session {printable(row.name)} is laid out as {layout}")
            row.layout = layout
            unit.flush()
        return _load(unit, session_id)


def set_state(catalog: Catalog, session_id: UUID, state: SessionState) -> Session:
    """Move a session through its life."""
    with catalog.writing() as unit:
        row = _row(unit, session_id)
        if row.state != state:
            _note(unit, row, f"session.{state}", f"session {printable(row.name)}: {row.state} → {state}")
            row.state, row.state_since = state, datetime.now(UTC)
            unit.flush()
        return _load(unit, session_id)


def reprocess(catalog: Catalog, session_id: UUID, *, only_quarantined: bool, force: bool) -> int:
    """Make exposures that have an input READY again and return how many.

    Steps that are done with the same key are not run again, unless `force` raises the parameters' generation, which is
    part of every key.
    """
    with catalog.writing() as unit:
        row = _row(unit, session_id)
        if force:
            generation = parameters_from_json(row.parameters).generation + 1
            row.parameters = {**row.parameters, "generation": generation}
        marked = _mark_ready(unit, session_id, only_quarantined=only_quarantined)
        _note(unit, row, "session.reprocessed", f"{marked} exposures to process again")
        return marked


def counts(catalog: Catalog, session_id: UUID) -> SessionCounts:
    """The session's counters.

    Every path counts once, with its newest content. Copied: at least one replica is verified; verified: all are, and
    there is one; failed: a replica's last try failed, or the file is damaged or unreadable.
    """
    with catalog.reading() as unit:
        states = dict(unit.execute(exposure_counts_query(session_id)).all())
        alike = [_alike(*found) for found in unit.execute(file_counts_query(session_id))]
    return SessionCounts(
        exposures=sum(states.values()),
        waiting=states.get(ExposureState.WAITING, 0),
        processed=states.get(ExposureState.DONE, 0),
        quarantined=states.get(ExposureState.QUARANTINED, 0),
        files_arrived=sum(some.count for some in alike),
        files_copied=sum(some.count for some in alike if some.is_copied),
        files_verified=sum(some.count for some in alike if some.is_verified),
        files_failed=sum(some.count for some in alike if some.has_failed),
        bytes_arrived=sum(some.size_bytes for some in alike),
        bytes_verified=sum(some.size_bytes for some in alike if some.is_verified),
    )


@dataclass(frozen=True, slots=True)
class _Alike:
    """Files of which the same is to be said."""

    count: int
    size_bytes: int
    is_copied: bool
    is_verified: bool
    has_failed: bool


def _alike(state: FileState, copies: int, count: int, size_bytes: int) -> _Alike:
    copies = int(copies)  # MariaDB sums to Decimal
    is_copied, lacks_one = copies % _LACKS > 0, copies % _FAILS >= _LACKS
    has_failed = copies >= _FAILS or state in _BAD_FILES
    return _Alike(count, int(size_bytes), is_copied, is_copied and not lacks_one, has_failed)


def exposure_counts_query(session_id: UUID) -> Select[ExposureState, int]:
    """How many exposures are in each state."""
    return (
        select(ExposureRow.state, func.count()).where(ExposureRow.session_id == session_id).group_by(ExposureRow.state)
    )


def file_counts_query(session_id: UUID) -> Select[FileState, int, int, int]:
    """A session's files in the few groups of which the same is to be said: their state, how their copies stand
    (`_STANDING` summed), how many they are, and their bytes.

    Each file's copies are summed by a look of their own, in the order of both indexes: joined and grouped by file,
    MariaDB sorts them all, and takes three times as long.
    """
    weight = case(_STANDING, value=ReplicaRow.state, else_=_LACKS)
    of_file = select(func.sum(weight)).where(ReplicaRow.file_id == FileRow.id).correlate(FileRow).scalar_subquery()
    per_file = (
        select(FileRow.state, FileRow.size_bytes, func.coalesce(of_file, 0).label("copies"))
        # Each state by name: by its index the files of one come in the order of their keys.
        .where(FileRow.session_id == session_id, FileRow.state.in_(_STANDING_FILES))
    )
    found = by_index(per_file, FileRow, "ix_files_session_id_state_id").subquery().c
    return select(found.state, found.copies, func.count(), func.sum(found.size_bytes)).group_by(
        found.state, found.copies
    )


def _find_query(instrument_name: str, folder: str) -> Select[SessionRow, InstrumentRow, ProjectRow | None]:
    # The oldest: two sites may both have made one.
    return (
        _joined()
        .where(InstrumentRow.name == instrument_name, SessionRow.folder_digest == path_digest(folder))
        .order_by(SessionRow.id)
        .limit(1)
    )


def _joined() -> Select[SessionRow, InstrumentRow, ProjectRow | None]:
    return (
        select(SessionRow, InstrumentRow, ProjectRow)
        .join(InstrumentRow, SessionRow.instrument_id == InstrumentRow.id)
        .join(ProjectRow, SessionRow.project_id == ProjectRow.id, isouter=True)
    )


def _row(unit: orm.Session, session_id: UUID) -> SessionRow:
    row = unit.get(SessionRow, session_id)
    if row is None:
        raise CatalogError(f"there is no session with the id {session_id}", remedy="Run `coldchain session list`")
    return row


def _load(unit: orm.Session, session_id: UUID) -> Session:
    _row(unit, session_id)
    return _session(*unit.execute(_joined().where(SessionRow.id == session_id)).one())


def _named(unit: orm.Session, site: str, kind: type[_NamedRow], name: str) -> _NamedRow:
    # The oldest: two sites may both have made one of that name.
    row = unit.scalars(select(kind).where(kind.name == name).order_by(kind.id).limit(1)).first()
    if row is None:
        row = kind(site=site, name=name, created_at=datetime.now(UTC))
        unit.add(row)
        unit.flush()
    return row


def _change(unit: orm.Session, row: SessionRow, parameters: SessionParameters) -> None:
    if parameters == parameters_from_json(row.parameters):
        return
    row.parameters = written_over(row.parameters, parameters_to_json(parameters))
    marked = _mark_ready(unit, row.id, only_quarantined=False)
    _note(unit, row, "session.changed", f"new parameters; {marked} exposures to process again")


def _mark_ready(unit: orm.Session, session_id: UUID, *, only_quarantined: bool) -> int:
    change = (
        sql_update(ExposureRow)
        .where(
            ExposureRow.session_id == session_id,
            ExposureRow.site == unit.info["site"],
            ExposureRow.input_file_id.is_not(None),
        )
        .values(state=ExposureState.READY, reason="")
    )
    if only_quarantined:
        change = change.where(ExposureRow.state == ExposureState.QUARANTINED)
    changed = unit.execute(change.execution_options(synchronize_session=False))
    assert isinstance(changed, CursorResult)
    return changed.rowcount


def _note(unit: orm.Session, row: SessionRow, kind: str, message: str) -> None:
    events.add(unit, Severity.INFO, kind, message, session_id=row.id)


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _unknown(name: str, names: Sequence[str]) -> CatalogError:
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"The nearest is {printable(nearest[0])!r}" if nearest else "Run `coldchain session list`"
    return CatalogError(f"there is no session named {printable(name)!r}", remedy=hint)


def _instrument(row: InstrumentRow) -> Instrument:
    return Instrument(id=row.id, name=row.name, created_at=row.created_at)


def _project(row: ProjectRow) -> Project:
    return Project(id=row.id, name=row.name, created_at=row.created_at)


def _session(row: SessionRow, instrument: InstrumentRow, project: ProjectRow | None) -> Session:
    return Session(
        id=row.id,
        name=row.name,
        project=None if project is None else _project(project),
        instrument=_instrument(instrument),
        source_root=row.source_root,
        folder=row.folder,
        layout=row.layout,
        owner_name=row.owner_name,
        owner_mail=row.owner_mail,
        state=row.state,
        parameters=parameters_from_json(row.parameters),
        created_at=row.created_at,
        state_since=row.state_since,
    )

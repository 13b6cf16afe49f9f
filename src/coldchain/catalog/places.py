"""Where a session's files lie besides its own folder: in other roots of its instrument, or in a folder of another name.

A session has one folder of its own, which is its identity. A file that lies elsewhere names its place; the session's
folder there stands for its own, so that equal paths inside them are one path of the session.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from sqlalchemy import orm, select

from coldchain.catalog import events
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import InstrumentRow, SessionPlaceRow, SessionRow
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.files import DataFile
from coldchain.model.session import Session, SessionPlace


def ensure(catalog: Catalog, session_id: UUID, *, root: str, folder: str) -> SessionPlace:
    """The session's place in that folder of that root, made with an event where there is none."""
    with catalog.writing() as unit:
        return ensure_in(unit, session_id, root=root, folder=folder)


def ensure_in(unit: orm.Session, session_id: UUID, *, root: str, folder: str) -> SessionPlace:
    """As `ensure`, in a transaction that this room has begun."""
    of_session = select(SessionPlaceRow).where(SessionPlaceRow.session_id == session_id).order_by(SessionPlaceRow.id)
    row = next((row for row in unit.scalars(of_session) if (row.root, row.folder) == (root, folder)), None)
    if row is None:
        row = SessionPlaceRow(site=unit.info["site"], session_id=session_id, root=root, folder=folder)
        unit.add(row)
        where = printable(str(Path(root, folder)))
        events.add(unit, Severity.INFO, "session.joined", f"files of {where} belong to it", session_id=session_id)
        unit.flush()
    return _place(row)


def of_instrument(catalog: Catalog, instrument_name: str) -> list[SessionPlace]:
    """All places of an instrument's sessions, oldest first."""
    query = (
        select(SessionPlaceRow)
        .join(SessionRow, SessionPlaceRow.session_id == SessionRow.id)
        .join(InstrumentRow, SessionRow.instrument_id == InstrumentRow.id)
        .where(InstrumentRow.name == instrument_name)
        .order_by(SessionPlaceRow.id)
    )
    with catalog.reading() as unit:
        return [_place(row) for row in unit.scalars(query)]


def move(catalog: Catalog, place_id: UUID, root: str) -> SessionPlace:
    """Say under which root a place is reached from now on: it may be mounted elsewhere."""
    with catalog.writing() as unit:
        row = unit.get(SessionPlaceRow, place_id)
        if row is None:
            raise CatalogError(f"there is no place with the id {place_id}")
        if row.root != root:
            message = f"its files of {printable(row.root)} are looked for in {printable(root)}"
            events.add(unit, Severity.INFO, "session.moved", message, session_id=row.session_id)
            row.root = root
        return _place(row)


def folder_of(catalog: Catalog, session: Session, file: DataFile) -> Path:
    """The folder to which a file's path is relative."""
    if file.place_id is None:
        return Path(session.source_root, session.folder)
    with catalog.reading() as unit:
        row = unit.get(SessionPlaceRow, file.place_id)
        if row is None:
            raise CatalogError(f"there is no place with the id {file.place_id}", path=file.relative_path)
        return Path(row.root, row.folder)


def _place(row: SessionPlaceRow) -> SessionPlace:
    return SessionPlace(id=row.id, session_id=row.session_id, root=row.root, folder=row.folder)

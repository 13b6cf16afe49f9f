"""What this room's modules about files and about copies of them share: rows as values, and an event for each change."""

from __future__ import annotations

from dataclasses import fields
from uuid import UUID

from sqlalchemy import Select, orm, select

from coldchain.catalog import events
from coldchain.catalog.tables import FileRow, ReplicaRow
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.files import DataFile, FileState, Replica

FILE_COLUMNS = tuple(getattr(FileRow, each.name) for each in fields(DataFile))
"""What a query selects whose rows are to be `DataFile(*row)`: where there are many, by far the quickest."""
REPLICA_COLUMNS = tuple(getattr(ReplicaRow, each.name) for each in fields(Replica))
"""As `FILE_COLUMNS`, for `Replica(*row)`."""

# A damaged movie's bytes are still the user's only copy; what cannot be read cannot be copied.
COPIED_STATES = (FileState.ARRIVED, FileState.DAMAGED)


def file_row(unit: orm.Session, file_id: UUID) -> FileRow:
    """The row with that id; CatalogError if there is none."""
    row = unit.get(FileRow, file_id)
    if row is None:
        raise CatalogError(f"there is no file with the id {file_id}")
    return row


def note(unit: orm.Session, row: FileRow, severity: Severity, kind: str, message: str) -> None:
    """Write an event of a file."""
    events.add(unit, severity, kind, message, session_id=row.session_id, exposure_id=row.exposure_id, file_id=row.id)


def checked_digest(sha256: str) -> str:
    """The digest, if it is one; else CatalogError."""
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise CatalogError(f"the digest {printable(sha256[:80])!r}", expected="64 lower-case hexadecimal digits")
    return sha256


def versions_query(session_id: UUID, digest: bytes) -> Select[FileRow]:
    """All that ever stood under a path."""
    return select(FileRow).where(FileRow.session_id == session_id, FileRow.path_digest == digest)


def replicas_query(file_id: UUID) -> Select[ReplicaRow]:
    """A file's replicas, oldest first."""
    return select(ReplicaRow).where(ReplicaRow.file_id == file_id).order_by(ReplicaRow.id)


def as_file(row: FileRow) -> DataFile:
    """The row as a value."""
    return DataFile(
        id=row.id,
        session_id=row.session_id,
        exposure_id=row.exposure_id,
        relative_path=row.relative_path,
        kind=row.kind,
        size_bytes=row.size_bytes,
        modified_ns=row.modified_ns,
        state=row.state,
        sha256=row.sha256,
        detail=row.detail,
        arrived_at=row.arrived_at,
        place_id=row.place_id,
    )


def as_replica(row: ReplicaRow) -> Replica:
    """The row as a value."""
    return Replica(
        id=row.id,
        file_id=row.file_id,
        store=row.store,
        state=row.state,
        level=row.level,
        sha256=row.sha256,
        attempts=row.attempts,
        detail=row.detail,
        verified_at=row.verified_at,
        kept_as=row.kept_as,
        stored_as=row.stored_as,
        checked_at=row.checked_at,
        trashed_at=row.trashed_at,
        trashed_as=row.trashed_as,
    )

"""Files of sessions and their copies: journalled on arrival, copied, verified."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from uuid import UUID

from sqlalchemy import Select, orm, select

from coldchain.catalog import wants
from coldchain.catalog.by_index import by_index
from coldchain.catalog.columns import is_path, path_digest
from coldchain.catalog.engine import Catalog
from coldchain.catalog.file_rows import (
    COPIED_STATES,
    as_file,
    checked_digest,
    file_row,
    note,
    replicas_query,
    versions_query,
)
from coldchain.catalog.tables import FileRow, SessionPlaceRow
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.files import (
    DataFile,
    FileKind,
    FileState,
)
from coldchain.model.identity import is_safe_relative

_PATHS_AT_ONCE = 1000
_SEVERITY = {
    FileState.ARRIVED: Severity.INFO,
    FileState.DAMAGED: Severity.ERROR,
    FileState.UNREADABLE: Severity.ERROR,
    FileState.REPLACED: Severity.WARNING,
}


def record_arrival(
    catalog: Catalog,
    *,
    session_id: UUID,
    relative_path: str,
    kind: FileKind,
    size_bytes: int,
    modified_ns: int,
    stores: Sequence[str],
    priority: int = 50,
    exposure_id: UUID | None = None,
    state: FileState = FileState.ARRIVED,
    detail: str = "",
    place_id: UUID | None = None,
) -> DataFile:
    """Journal a file that has arrived: its row, a WANTED replica for each store, and an event, in one transaction.
    `priority` is that of the copies: the smaller, the sooner.

    The same path, size and time stamp again give the row that is there, with state, detail, kind and exposure brought
    up to date and missing replicas added; each of these but the kind is an event. A changed size or time stamp makes
    the old row REPLACED and a new row. An UNREADABLE file gets no replicas.

    Where a file of another place stands for the path, that one stays, whatever comes: the second is noted as REPLACED
    with an event, once for each content of it, and the row that is returned is the first's.

    Where both this site and another have a row, this one's is meant. Where only another has one, that stays as it is:
    it gets the replicas, and other content becomes a row of this site's.
    """
    with catalog.writing() as unit:
        return arrive(
            unit,
            session_id=session_id,
            relative_path=relative_path,
            kind=kind,
            size_bytes=size_bytes,
            modified_ns=modified_ns,
            stores=stores,
            priority=priority,
            exposure_id=exposure_id,
            state=state,
            detail=detail,
            place_id=place_id,
        )


def arrive(
    unit: orm.Session,
    *,
    session_id: UUID,
    relative_path: str,
    kind: FileKind,
    size_bytes: int,
    modified_ns: int,
    stores: Sequence[str],
    priority: int,
    exposure_id: UUID | None = None,
    state: FileState = FileState.ARRIVED,
    detail: str = "",
    place_id: UUID | None = None,
) -> DataFile:
    """As `record_arrival`, in a transaction that this room has begun."""
    if not is_safe_relative(PurePosixPath(relative_path)):
        raise CatalogError(f"the path {printable(relative_path)!r}", expected="a path inside its session's folder")
    row = _known(unit, session_id, relative_path)
    is_own = row is not None and row.site == unit.info["site"]
    if row is not None and row.place_id != place_id:
        _note_second(unit, row, place_id, size_bytes, modified_ns)
        return as_file(row)
    if row is not None and (row.size_bytes, row.modified_ns) != (size_bytes, modified_ns):
        if is_own:
            _move(unit, row, FileState.REPLACED, "its content changed")
        row = None
    is_known = row is not None
    if row is None:
        row = FileRow(
            site=unit.info["site"],
            session_id=session_id,
            exposure_id=exposure_id,
            relative_path=relative_path,
            path_digest=path_digest(relative_path),
            kind=kind,
            size_bytes=size_bytes,
            modified_ns=modified_ns,
            state=state,
            detail=detail,
            arrived_at=datetime.now(UTC),
            place_id=place_id,
        )
        unit.add(row)
        unit.flush()
        _note_state(unit, row)
    elif is_own:
        row.kind = kind
        if exposure_id not in (None, row.exposure_id):
            row.exposure_id = exposure_id
            note(unit, row, Severity.INFO, "file.placed", f"{printable(row.relative_path)} belongs to an exposure")
        _move(unit, row, state, detail)
    if state in COPIED_STATES:
        lacking = wants.want(unit, row, stores, priority)
        if is_known and lacking:  # of a new file, that it arrived says it
            message = f"{printable(row.relative_path)} is wanted on {printable(', '.join(lacking))} too"
            note(unit, row, Severity.INFO, "replica.wanted", message)
    return as_file(row)


def standing(catalog: Catalog, session_id: UUID, relative_path: str) -> DataFile | None:
    """The file that stands for a path of a session, the oldest where two sites have written one; None where there is
    none, or the name can be no path."""
    if not is_path(relative_path):
        return None
    with catalog.reading() as unit:
        row = unit.scalars(standing_query(session_id, relative_path)).first()
        return None if row is None else as_file(row)


def signatures(
    catalog: Catalog, session_id: UUID, relative_paths: Sequence[str]
) -> dict[tuple[str, UUID | None], tuple[int, int, FileState]]:
    """Size, time stamp and state, as last recorded, of those of these paths of a session that were recorded at all.

    By path and place: that of the file that stands for the path, and those where only a second one lies. What this site
    has written counts before what another has, as it does for `record_arrival`; of others' the oldest. Costs by the
    paths that are asked for, however many files the session has.
    """
    found: dict[tuple[str, UUID | None], tuple[int, int, FileState]] = {}
    standing: dict[str, UUID | None] = {}
    of_others: set[str] = set()
    paths = {path_digest(path): path for path in relative_paths if is_path(path)}
    digests = list(paths)
    with catalog.reading() as unit:
        for start in range(0, len(digests), _PATHS_AT_ONCE):
            query = signatures_query(session_id, digests[start : start + _PATHS_AT_ONCE])
            # Not through the session: its rows cost more than SQLite does.
            for digest, place_id, size_bytes, modified_ns, state, site in unit.connection().execute(query):
                path = paths[digest]
                if state == FileState.REPLACED:
                    if path not in standing or standing[path] != place_id:
                        found[path, place_id] = (size_bytes, modified_ns, state)
                elif path not in standing or (path in of_others and site == catalog.site):
                    found[path, place_id] = (size_bytes, modified_ns, state)
                    standing[path] = place_id
                    (of_others.discard if site == catalog.site else of_others.add)(path)
    # What was replaced in its own place is nothing any more, whatever came back.
    return {
        (path, place_id): signature
        for (path, place_id), signature in found.items()
        if signature[2] != FileState.REPLACED or standing.get(path, place_id) != place_id
    }


def of_kinds(catalog: Catalog, session_id: UUID, kinds: Collection[FileKind]) -> list[DataFile]:
    """A session's files of these kinds that have arrived, oldest first."""
    with catalog.reading() as unit:
        found = [row for kind in set(kinds) for row in unit.scalars(kind_query(session_id, kind))]
        return [as_file(row) for row in sorted(found, key=lambda row: row.id)]


def get(catalog: Catalog, file_id: UUID) -> DataFile:
    """The file with that id; CatalogError if there is none."""
    with catalog.reading() as unit:
        return as_file(file_row(unit, file_id))


def set_digest(catalog: Catalog, file_id: UUID, sha256: str) -> DataFile:
    """Write down the SHA-256 (64 hexadecimal digits) of a file's content."""
    with catalog.writing() as unit:
        row = file_row(unit, file_id)
        row.sha256 = checked_digest(sha256)
        return as_file(row)


def set_state(catalog: Catalog, file_id: UUID, state: FileState, detail: str) -> DataFile:
    """Move a file."""
    with catalog.writing() as unit:
        row = file_row(unit, file_id)
        _move(unit, row, state, detail)
        return as_file(row)


def of_session(
    catalog: Catalog, session_id: UUID, *, states: Collection[FileState] | None = None, limit: int
) -> list[DataFile]:
    """A session's files, newest first, in those states or in all."""
    with catalog.reading() as unit:
        if states is None:
            rows = list(unit.scalars(session_query(session_id, None, limit)))
        else:
            found = [row for state in set(states) for row in unit.scalars(session_query(session_id, state, limit))]
            rows = sorted(found, key=lambda row: row.id, reverse=True)[:limit]
        return [as_file(row) for row in rows]


def of_exposure(catalog: Catalog, exposure_id: UUID) -> list[DataFile]:
    """An exposure's files, oldest first; the replaced among them."""
    with catalog.reading() as unit:
        return [as_file(row) for row in unit.scalars(exposure_query(exposure_id))]


def standing_query(session_id: UUID, relative_path: str) -> Select[FileRow]:
    """The row that stands for a path: that which is not REPLACED; the oldest first where two sites have written one."""
    return (
        select(FileRow)
        .where(
            FileRow.session_id == session_id,
            FileRow.path_digest == path_digest(relative_path),
            FileRow.state != FileState.REPLACED,
        )
        .order_by(FileRow.id)
    )


def signatures_query(
    session_id: UUID, digests: Sequence[bytes]
) -> Select[bytes, UUID | None, int, int, FileState, str]:
    """Digest, place, size, time stamp, state and site of all that ever stood under a session's paths that have these
    digests; of each the oldest first.

    In the order of the index: for that of the ids alone, SQLite would go through all of the session's files.
    """
    return (
        select(
            FileRow.path_digest,
            FileRow.place_id,
            FileRow.size_bytes,
            FileRow.modified_ns,
            FileRow.state,
            FileRow.site,
        )
        .where(FileRow.session_id == session_id, FileRow.path_digest.in_(digests))
        .order_by(FileRow.path_digest, FileRow.id)
    )


def kind_query(session_id: UUID, kind: FileKind) -> Select[FileRow]:
    """A session's files of one kind that have arrived."""
    return select(FileRow).where(
        FileRow.session_id == session_id, FileRow.kind == kind, FileRow.state == FileState.ARRIVED
    )


def exposure_query(exposure_id: UUID) -> Select[FileRow]:
    """An exposure's files, oldest first."""
    return select(FileRow).where(FileRow.exposure_id == exposure_id).order_by(FileRow.id)


def session_query(session_id: UUID, state: FileState | None, limit: int) -> Select[FileRow]:
    """A session's newest files."""
    query = select(FileRow).where(FileRow.session_id == session_id).order_by(FileRow.id.desc()).limit(limit)
    if state is None:
        return by_index(query, FileRow, "ix_files_session_id_id")
    return by_index(query.where(FileRow.state == state), FileRow, "ix_files_session_id_state_id")


def _known(unit: orm.Session, session_id: UUID, relative_path: str) -> FileRow | None:
    """What stands for a path as far as this site writes it: its own row before another's."""
    stands = unit.scalars(standing_query(session_id, relative_path)).all()
    return next((row for row in stands if row.site == unit.info["site"]), stands[0] if stands else None)


def _note_second(unit: orm.Session, first: FileRow, place_id: UUID | None, size_bytes: int, modified_ns: int) -> None:
    """Remember, and say once, that another place of the session holds a file of a path that is taken."""
    versions = unit.scalars(versions_query(first.session_id, first.path_digest))
    if any((row.place_id, row.size_bytes, row.modified_ns) == (place_id, size_bytes, modified_ns) for row in versions):
        return
    place = None if place_id is None else unit.get(SessionPlaceRow, place_id)
    where = "the session's own folder" if place is None else printable(f"{place.root}/{place.folder}")
    same = size_bytes == first.size_bytes
    how = "of the same size" if same else f"of {size_bytes:,} bytes, where the first has {first.size_bytes:,}"
    message = f"{printable(first.relative_path)}: a second one lies in {where}, {how}; the first stays, and is copied"
    second = FileRow(
        site=unit.info["site"],
        session_id=first.session_id,
        exposure_id=None,
        relative_path=first.relative_path,
        path_digest=first.path_digest,
        kind=first.kind,
        size_bytes=size_bytes,
        modified_ns=modified_ns,
        state=FileState.REPLACED,
        detail="another place of the session had it first",
        arrived_at=datetime.now(UTC),
        place_id=place_id,
    )
    unit.add(second)
    unit.flush()
    note(unit, second, Severity.INFO if same else Severity.WARNING, "file.second", message)


def _move(unit: orm.Session, row: FileRow, state: FileState, detail: str) -> None:
    if (row.state, row.detail) == (state, detail):
        return
    row.state, row.detail = state, detail
    if state == FileState.REPLACED:
        for replica in unit.scalars(replicas_query(row.id)):
            replica.pending = False
    _note_state(unit, row)


def _note_state(unit: orm.Session, row: FileRow) -> None:
    why = f": {row.detail}" if row.detail else ""
    message = f"{printable(row.relative_path)} ({row.kind}) is {row.state}{why}"
    note(unit, row, _SEVERITY[row.state], f"file.{row.state}", message)

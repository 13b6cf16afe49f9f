"""Files of sessions and their copies: journalled on arrival, copied, verified."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from sqlalchemy import Select, insert, orm, select

from coldchain.catalog import events
from coldchain.catalog.columns import is_path, path_digest
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import FileRow, ReplicaRow, SessionPlaceRow
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.files import (
    DataFile,
    FileKind,
    FileState,
    KeptAside,
    Replica,
    ReplicaState,
    VerificationLevel,
)
from coldchain.model.identity import is_safe_relative

# A damaged movie's bytes are still the user's only copy; what cannot be read cannot be copied.
COPIED_STATES = (FileState.ARRIVED, FileState.DAMAGED)
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
    exposure_id: UUID | None = None,
    state: FileState = FileState.ARRIVED,
    detail: str = "",
    place_id: UUID | None = None,
) -> DataFile:
    """Journal a file that has arrived: its row, a WANTED replica for each store, and an event, in one transaction.

    The same path, size and time stamp again give the row that is there, with state, detail, kind and exposure brought
    up to date and missing replicas added. A changed size or time stamp makes the old row REPLACED and a new row.
    An UNREADABLE file gets no replicas.

    Where a file of another place stands for the path, that one stays, whatever comes: the second is noted as REPLACED
    with an event, once for each content of it, and the row that is returned is the first's.
    """
    if not is_safe_relative(PurePosixPath(relative_path)):
        raise CatalogError(f"the path {printable(relative_path)!r}", expected="a path inside its session's folder")
    with catalog.writing() as unit:
        row = unit.scalars(standing_query(session_id, relative_path)).first()
        if row is not None and row.place_id != place_id:
            _note_second(unit, row, place_id, size_bytes, modified_ns)
            return as_file(row)
        if row is not None and (row.size_bytes, row.modified_ns) != (size_bytes, modified_ns):
            _move(unit, row, FileState.REPLACED, "its content changed")
            row = None
        if row is None:
            row = FileRow(
                site=catalog.site,
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
        else:
            row.kind = kind
            row.exposure_id = exposure_id or row.exposure_id
            _move(unit, row, state, detail)
        if state in COPIED_STATES:
            _want(unit, row, stores)
        return as_file(row)


def standing(catalog: Catalog, session_id: UUID, relative_path: str) -> DataFile | None:
    """The file that stands for a path of a session; None where there is none, or the name can be no path."""
    if not is_path(relative_path):
        return None
    with catalog.reading() as unit:
        row = unit.scalars(standing_query(session_id, relative_path)).first()
        return None if row is None else as_file(row)


def want_everywhere(catalog: Catalog, session_id: UUID, stores: Sequence[str]) -> int:
    """Add the WANTED replicas that a session's files lack on these stores: a store that was added to the facility gets
    what arrived before it. Returns how many were added.

    Only files that this site took in, and whose content stands and can be copied, are meant.
    """
    added = 0
    with catalog.writing() as unit:
        for store in dict.fromkeys(stores):
            lacking = unit.scalars(lacking_query(catalog.site, session_id, store)).all()
            if lacking:
                unit.execute(insert(ReplicaRow), [_wanted(catalog.site, file_id, store) for file_id in lacking])
                message = f"{len(lacking)} files that arrived before are wanted on {printable(store)} too"
                events.add(unit, Severity.INFO, "replica.wanted", message, session_id=session_id)
            added += len(lacking)
    return added


def signatures(
    catalog: Catalog, session_id: UUID, relative_paths: Sequence[str]
) -> dict[tuple[str, UUID | None], tuple[int, int, FileState]]:
    """Size, time stamp and state, as last recorded, of those of these paths of a session that were recorded at all.

    By path and place: that of the file that stands for the path, and those where only a second one lies. Costs by the
    paths that are asked for, however many files the session has.
    """
    found: dict[tuple[str, UUID | None], tuple[int, int, FileState]] = {}
    standing: dict[str, UUID | None] = {}
    paths = {path_digest(path): path for path in relative_paths if is_path(path)}
    digests = list(paths)
    with catalog.reading() as unit:
        for start in range(0, len(digests), _PATHS_AT_ONCE):
            query = signatures_query(session_id, digests[start : start + _PATHS_AT_ONCE])
            # Not through the session: its rows cost more than SQLite does.
            for digest, place_id, size_bytes, modified_ns, state in unit.connection().execute(query):
                path = paths[digest]
                found[path, place_id] = (size_bytes, modified_ns, state)
                if state != FileState.REPLACED:
                    standing[path] = place_id
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
        return as_file(_row(unit, file_id))


def set_digest(catalog: Catalog, file_id: UUID, sha256: str) -> DataFile:
    """Write down the SHA-256 (64 hexadecimal digits) of a file's content."""
    with catalog.writing() as unit:
        row = _row(unit, file_id)
        row.sha256 = _checked_digest(sha256)
        return as_file(row)


def set_state(catalog: Catalog, file_id: UUID, state: FileState, detail: str) -> DataFile:
    """Move a file."""
    with catalog.writing() as unit:
        row = _row(unit, file_id)
        _move(unit, row, state, detail)
        return as_file(row)


def record_copy(
    catalog: Catalog,
    replica_id: UUID,
    *,
    state: ReplicaState,
    level: VerificationLevel | None,
    sha256: str | None,
    detail: str,
    kept: KeptAside | None = None,
) -> Replica:
    """Write down how a try to copy ended: one more attempt, the new state, and an event.

    VERIFIED needs the level of the proof and the digest that was read back, which must be the file's own.

    `kept` is what was renamed to make way for the copy. Earlier versions' verified copies that lay there are said to be
    where they are now: kept aside, or, where their bytes were not what was kept, FAILED.
    """
    with catalog.writing() as unit:
        replica = unit.get(ReplicaRow, replica_id)
        if replica is None:
            raise CatalogError(f"there is no replica with the id {replica_id}")
        file = _row(unit, replica.file_id)
        verified = state == ReplicaState.VERIFIED
        if verified:
            _check_proof(file, level, sha256)
            replica.kept_as = None
        replica.state, replica.level, replica.detail = state, level, detail
        replica.sha256 = None if sha256 is None else _checked_digest(sha256)
        replica.attempts += 1
        replica.pending = not verified and file.state != FileState.REPLACED
        replica.verified_at = datetime.now(UTC) if verified else None
        _note_replica(unit, file, replica)
        if verified or kept is not None:
            _displace(unit, file, replica, kept)
        return as_replica(replica)


def replicas_of(catalog: Catalog, file_id: UUID) -> list[Replica]:
    """A file's copies, oldest first."""
    with catalog.reading() as unit:
        return [as_replica(row) for row in unit.scalars(replicas_query(file_id))]


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
    query = select(FileRow).where(FileRow.exposure_id == exposure_id).order_by(FileRow.id)
    with catalog.reading() as unit:
        return [as_file(row) for row in unit.scalars(query)]


def standing_query(session_id: UUID, relative_path: str) -> Select[FileRow]:
    """The row that stands for a path: that which is not REPLACED; the newest, should two sites have written one."""
    return (
        select(FileRow)
        .where(
            FileRow.session_id == session_id,
            FileRow.path_digest == path_digest(relative_path),
            FileRow.state != FileState.REPLACED,
        )
        .order_by(FileRow.id.desc())
        .limit(1)
    )


def signatures_query(session_id: UUID, digests: Sequence[bytes]) -> Select[bytes, UUID | None, int, int, FileState]:
    """Digest, place, size, time stamp and state of a session's paths that have these digests; of each what stands last.

    In the order of the index: for that of the ids alone, SQLite would go through all of the session's files.
    """
    return (
        select(FileRow.path_digest, FileRow.place_id, FileRow.size_bytes, FileRow.modified_ns, FileRow.state)
        .where(FileRow.session_id == session_id, FileRow.path_digest.in_(digests))
        .order_by(FileRow.path_digest, FileRow.id)
    )


def kind_query(session_id: UUID, kind: FileKind) -> Select[FileRow]:
    """A session's files of one kind that have arrived."""
    return select(FileRow).where(
        FileRow.session_id == session_id, FileRow.kind == kind, FileRow.state == FileState.ARRIVED
    )


def versions_query(session_id: UUID, digest: bytes) -> Select[FileRow]:
    """All that ever stood under a path."""
    return select(FileRow).where(FileRow.session_id == session_id, FileRow.path_digest == digest)


def lacking_query(site: str, session_id: UUID, store: str) -> Select[UUID]:
    """A session's files, oldest first, that a site took in and that a store has no replica of, wanted or made."""
    there = select(ReplicaRow.id).where(ReplicaRow.file_id == FileRow.id, ReplicaRow.store == store)
    return (
        select(FileRow.id)
        .where(
            FileRow.session_id == session_id,
            FileRow.site == site,
            FileRow.state.in_(COPIED_STATES),
            ~there.exists(),
        )
        .order_by(FileRow.id)
    )


def replicas_query(file_id: UUID) -> Select[ReplicaRow]:
    """A file's replicas, oldest first."""
    return select(ReplicaRow).where(ReplicaRow.file_id == file_id).order_by(ReplicaRow.id)


def session_query(session_id: UUID, state: FileState | None, limit: int) -> Select[FileRow]:
    """A session's newest files."""
    query = select(FileRow).where(FileRow.session_id == session_id).order_by(FileRow.id.desc()).limit(limit)
    return query if state is None else query.where(FileRow.state == state)


def _row(unit: orm.Session, file_id: UUID) -> FileRow:
    row = unit.get(FileRow, file_id)
    if row is None:
        raise CatalogError(f"there is no file with the id {file_id}")
    return row


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
    _note(unit, second, Severity.INFO if same else Severity.WARNING, "file.second", message)


def _want(unit: orm.Session, row: FileRow, stores: Iterable[str]) -> None:
    present = {replica.store for replica in unit.scalars(replicas_query(row.id))}
    for store in dict.fromkeys(stores):
        if store not in present:
            unit.add(ReplicaRow(**_wanted(unit.info["site"], row.id, store)))


def _wanted(site: str, file_id: UUID, store: str) -> dict[str, Any]:
    return {
        "site": site,
        "file_id": file_id,
        "store": store,
        "state": ReplicaState.WANTED,
        "pending": True,
        "attempts": 0,
        "detail": "",
    }


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
    _note(unit, row, _SEVERITY[row.state], f"file.{row.state}", message)


def _note_replica(unit: orm.Session, file: FileRow, replica: ReplicaRow) -> None:
    why = f": {replica.detail}" if replica.detail else ""
    severity = Severity.ERROR if replica.state == ReplicaState.FAILED else Severity.INFO
    message = f"{printable(file.relative_path)} on {printable(replica.store)} is {replica.state}{why}"
    _note(unit, file, severity, f"replica.{replica.state}", message)


def _displace(unit: orm.Session, file: FileRow, replica: ReplicaRow, kept: KeptAside | None) -> None:
    """Say where the copies of other versions are, whose name a copy has taken or was about to take.

    A process that is killed after it renamed them and before it said so leaves `kept` unknown: what nobody can vouch
    for is not called verified.
    """
    versions = unit.scalars(versions_query(file.session_id, file.path_digest)).all()
    others = [row for row in versions if row is not file]
    for its_file, older in [(row, copy) for row in others for copy in unit.scalars(replicas_query(row.id))]:
        was_here = (older.site, older.store, older.kept_as) == (replica.site, replica.store, None)
        if older.state != ReplicaState.VERIFIED or not was_here or older.sha256 == replica.sha256:
            continue  # of the same content, what lies under the name is the copy, too
        if kept is not None and kept.sha256 == older.sha256:
            older.kept_as = kept.path
            message = (
                f"{printable(its_file.relative_path)} on {printable(older.store)} is kept as {printable(kept.path)}"
            )
            _note(unit, its_file, Severity.INFO, "replica.kept", message)
            continue
        where = (
            f"NAME.replaced-{(older.sha256 or '')[:8]} beside it" if kept is None else f"{kept.path}, as other bytes"
        )
        older.state, older.level, older.pending = ReplicaState.FAILED, None, False
        older.detail = f"another version has its name now; look for {where}"
        _note_replica(unit, its_file, older)


def _note(unit: orm.Session, row: FileRow, severity: Severity, kind: str, message: str) -> None:
    events.add(unit, severity, kind, message, session_id=row.session_id, exposure_id=row.exposure_id, file_id=row.id)


def _check_proof(file: FileRow, level: VerificationLevel | None, sha256: str | None) -> None:
    if level is None or sha256 is None:
        raise CatalogError("a copy is to be verified without a proof", expected="a level and the digest read back")
    if file.sha256 is not None and file.sha256 != sha256:
        raise CatalogError(
            f"the copy's digest is {printable(sha256)}",
            expected=f"{file.sha256}, the file's own",
            remedy="Copy the file again",
            path=file.relative_path,
        )


def _checked_digest(sha256: str) -> str:
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise CatalogError(f"the digest {printable(sha256[:80])!r}", expected="64 lower-case hexadecimal digits")
    return sha256


def as_file(row: FileRow) -> DataFile:
    """The row as a value, for this room's modules."""
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
    """The row as a value, for this room's modules."""
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
    )

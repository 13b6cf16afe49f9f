"""Copies of files: wanted, made, proved, damaged."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Row, Select, and_, bindparam, insert, orm, select, update

from coldchain.catalog.engine import Catalog
from coldchain.catalog.file_rows import as_replica, checked_digest, file_row, note, replicas_query
from coldchain.catalog.ownership import require_own_site
from coldchain.catalog.tables import Base, EventRow, FileRow, ReplicaRow
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.files import CopyRecord, FileState, KeptAside, Replica, ReplicaState, VerificationLevel
from coldchain.model.identity import new_id

_AT_ONCE = 500
_BAD = frozenset({ReplicaState.FAILED, ReplicaState.DAMAGED})
_STOOD = frozenset({ReplicaState.VERIFIED, ReplicaState.DAMAGED})

_TRIED_COPY: Select[*tuple[Any, ...]] = select(
    ReplicaRow.id,
    ReplicaRow.file_id,
    ReplicaRow.site,
    ReplicaRow.store,
    ReplicaRow.state,
    ReplicaRow.attempts,
    FileRow.session_id,
    FileRow.exposure_id,
    FileRow.relative_path,
    FileRow.path_digest,
    FileRow.sha256,
    FileRow.state.label("file_state"),
).join(FileRow, FileRow.id == ReplicaRow.file_id)
# A digest that is known stays: a copy that was read otherwise is refused then.
_SET_DIGEST = (
    update(FileRow)
    .where(FileRow.id == bindparam("of"), FileRow.site == bindparam("by"), FileRow.sha256.is_(None))
    .values(sha256=bindparam("sha256"))
)
_TRIED = ("state", "level", "detail", "sha256", "attempts", "pending", "verified_at", "checked_at")
_SET_TRIED = (
    update(ReplicaRow).where(ReplicaRow.id == bindparam("of")).values({name: bindparam(name) for name in _TRIED})
)
_SET_NAME = update(ReplicaRow).where(ReplicaRow.id == bindparam("of")).values(stored_as=bindparam("stored_as"))
_SET_VERIFIED = _SET_TRIED.values({name: bindparam(name) for name in ("kept_as", "stored_as")})

T = TypeVar("T")
RowT = TypeVar("RowT", bound=Base)


def of_file(catalog: Catalog, file_id: UUID) -> list[Replica]:
    """A file's copies, oldest first."""
    with catalog.reading() as unit:
        return [as_replica(row) for row in unit.scalars(replicas_query(file_id))]


def record_copy(
    catalog: Catalog,
    replica_id: UUID,
    *,
    state: ReplicaState,
    level: VerificationLevel | None,
    sha256: str | None,
    detail: str,
    kept: KeptAside | None = None,
    stored_as: str | None = None,
) -> Replica:
    """Write down how one try to copy ended; see `record_copies`."""
    record = CopyRecord(replica_id, state, level, sha256, detail, kept, stored_as)
    with catalog.writing() as unit:
        _record(unit, [record], {})
        return as_replica(_by_id(unit, ReplicaRow, [replica_id])[replica_id])


def record_copies(catalog: Catalog, records: Sequence[CopyRecord], digests: Mapping[UUID, str] | None = None) -> None:
    """Write down how tries to copy ended, in one transaction: each one more attempt, the new state, and an event; one
    event for all of a session that were verified on one store, and of which there is no more to say.

    VERIFIED needs the level of the proof and the digest that was read back, which must be the file's own. A record's
    `kept` is what was renamed to make way for the copy: earlier versions' verified copies that lay there are said to be
    where they are now, kept aside, or, where their bytes were not what was kept, FAILED.

    `digests` are those of files, by id, that are known since.
    """
    with catalog.writing() as unit:
        _record(unit, records, digests or {})


def record_check(catalog: Catalog, replica_id: UUID, *, detail: str) -> Replica:
    """Write down that a verified copy was proved again ("" as `detail`), or that it is DAMAGED, and why.

    A damaged copy is `pending`: it is made again from whatever good copy there is. A copy that is no longer VERIFIED
    (it was retired meanwhile) is left as it is.
    """
    with catalog.writing() as unit:
        replica = _by_id(unit, ReplicaRow, [replica_id])[replica_id]
        if replica.state == ReplicaState.VERIFIED:
            replica.checked_at = datetime.now(UTC)
            if detail:
                file = file_row(unit, replica.file_id)
                replica.state, replica.level, replica.detail = ReplicaState.DAMAGED, None, detail
                replica.pending = file.state != FileState.REPLACED
                _note_replica(unit, file, replica)
        return as_replica(replica)


def _record(unit: orm.Session, records: Sequence[CopyRecord], digests: Mapping[UUID, str]) -> None:
    # Not through the session, whose rows cost more than all else that is done with a small file.
    connection = unit.connection()
    if digests:
        known = [
            {"of": file_id, "by": unit.info["site"], "sha256": checked_digest(sha256)}
            for file_id, sha256 in digests.items()
        ]
        connection.execute(_SET_DIGEST, known)
    alike = _alike(unit, records)
    now = datetime.now(UTC)
    for group in alike.values():
        _set_verified(connection, group, now)
    done = {record.replica_id for group in alike.values() for record in group}
    left = [record for record in records if record.replica_id not in done]
    counted = Counter({key: len(group) for key, group in alike.items()})
    noted = _record_left(unit, left, counted, now)
    noted += [_verified_event(unit, *key, count, now) for key, count in counted.items()]
    if noted:
        connection.execute(insert(EventRow), noted)


def _alike(unit: orm.Session, records: Sequence[CopyRecord]) -> dict[tuple[UUID, str], list[CopyRecord]]:
    """By session and store, the copies that were verified as nearly all are, where there are several."""
    connection = unit.connection()
    plain = {
        record.replica_id: record
        for record in records
        if record.state == ReplicaState.VERIFIED and not record.detail and record.kept is None
    }
    groups: defaultdict[tuple[UUID, str], list[CopyRecord]] = defaultdict(list)
    for some in _pages(list(plain)):
        versioned = set(connection.scalars(versioned_query(some)))
        for replica_id, session_id, store, state, sha256 in connection.execute(alike_query(unit.info["site"], some)):
            record = plain[replica_id]
            is_usual = state != ReplicaState.DAMAGED and replica_id not in versioned
            if is_usual and record.level is not None and record.sha256 is not None and record.sha256 == sha256:
                groups[session_id, store].append(record)
    return {key: group for key, group in groups.items() if len(group) > 1}


def _record_left(
    unit: orm.Session, records: Sequence[CopyRecord], counted: Counter[tuple[UUID, str]], now: datetime
) -> list[dict[str, Any]]:
    """Write these down one by one; the events of those of which there is something to say. `counted` counts the others
    by session and store."""
    connection = unit.connection()
    copies = _tried_copies(connection, [record.replica_id for record in records])
    others = _others(unit, list(copies.values()))
    verified: list[dict[str, Any]] = []
    tried: list[dict[str, Any]] = []
    noted: list[dict[str, Any]] = []
    plain: defaultdict[tuple[UUID, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        copy = copies[record.replica_id]
        require_own_site(unit, copy.site, "replicas")
        is_verified = record.state == ReplicaState.VERIFIED
        (verified if is_verified else tried).append(_values(copy, record, now))
        event = _event(unit, copy, *_words(copy, copy.store, record.state, record.detail, of=copy.state), now)
        is_plain = is_verified and not record.detail and copy.state != ReplicaState.DAMAGED
        (plain[copy.session_id, copy.store] if is_plain else noted).append(event)
        if copy.file_id in others and (is_verified or record.kept is not None):
            displacing = Replacement(copy.site, copy.store, record.sha256)
            _displace(unit, others[copy.file_id], displacing, record.kept)
    for statement, given in ((_SET_VERIFIED, verified), (_SET_TRIED, tried)):
        if given:
            connection.execute(statement, given)
    for key, alone in plain.items():
        if len(alone) + counted[key] > 1:
            counted[key] += len(alone)
        else:
            noted += alone
    return noted


def alike_query(site: str, replica_ids: Sequence[UUID]) -> Select[UUID, UUID, str, ReplicaState, str | None]:
    """Of these copies of a site: id, session, store, state, and the digest of the file."""
    return (
        select(ReplicaRow.id, FileRow.session_id, ReplicaRow.store, ReplicaRow.state, FileRow.sha256)
        .join(FileRow, FileRow.id == ReplicaRow.file_id)
        .where(ReplicaRow.id.in_(replica_ids), ReplicaRow.site == site)
    )


def versioned_query(replica_ids: Sequence[UUID]) -> Select[UUID]:
    """Those of these copies whose file's path another version stands, or stood, under."""
    other = orm.aliased(FileRow)
    same_path = and_(
        other.session_id == FileRow.session_id, other.path_digest == FileRow.path_digest, other.id != FileRow.id
    )
    return (
        select(ReplicaRow.id)
        .join(FileRow, FileRow.id == ReplicaRow.file_id)
        .join(other, same_path)
        .where(ReplicaRow.id.in_(replica_ids))
    )


def _set_verified(connection: Connection, records: Sequence[CopyRecord], now: datetime) -> None:
    """Write down that these copies, which are this site's, have the digests of their files."""
    of_file = select(FileRow.sha256).where(FileRow.id == ReplicaRow.file_id).scalar_subquery()
    change = update(ReplicaRow).values(
        state=ReplicaState.VERIFIED,
        detail="",
        sha256=of_file,
        attempts=ReplicaRow.attempts + 1,
        pending=False,
        verified_at=now,
        checked_at=now,
        kept_as=None,
        stored_as=None,
    )
    by_level: defaultdict[VerificationLevel | None, list[UUID]] = defaultdict(list)
    for record in records:
        by_level[record.level].append(record.replica_id)
    for level, ids in by_level.items():
        for some in _pages(ids):
            connection.execute(change.values(level=level).where(ReplicaRow.id.in_(some)))
    named = [{"of": each.replica_id, "stored_as": each.stored_as} for each in records if each.stored_as is not None]
    if named:
        connection.execute(_SET_NAME, named)


def _verified_event(unit: orm.Session, session_id: UUID, store: str, count: int, now: datetime) -> dict[str, Any]:
    """One event for copies of one session on one store: a line for each small file would hide all others."""
    return {
        "id": new_id(),
        "site": unit.info["site"],
        "at": now,
        "severity": Severity.INFO,
        "kind": "replica.verified",
        "message": f"{count} files are verified on {printable(store)}",
        "session_id": session_id,
        "exposure_id": None,
        "file_id": None,
    }


def _values(copy: Row[Any], record: CopyRecord, now: datetime) -> dict[str, Any]:
    verified = record.state == ReplicaState.VERIFIED
    if verified:
        _check_proof(copy, record.level, record.sha256)
    values = {
        "of": record.replica_id,
        "state": record.state,
        "level": record.level,
        "detail": record.detail,
        "sha256": None if record.sha256 is None else checked_digest(record.sha256),
        "attempts": copy.attempts + 1,
        "pending": not verified and copy.file_state != FileState.REPLACED,
        "verified_at": now if verified else None,
        "checked_at": now if verified else None,
    }
    return values | {"kept_as": None, "stored_as": record.stored_as} if verified else values


def _event(
    unit: orm.Session, copy: Row[Any], severity: Severity, kind: str, message: str, now: datetime
) -> dict[str, Any]:
    return {
        "id": new_id(),
        "site": unit.info["site"],
        "at": now,
        "severity": severity,
        "kind": kind,
        "message": message,
        "session_id": copy.session_id,
        "exposure_id": copy.exposure_id,
        "file_id": copy.file_id,
    }


def _words(
    file: FileRow | Row[Any], store: str, state: ReplicaState, detail: str, *, of: ReplicaState | None = None
) -> tuple[Severity, str, str]:
    """Severity, kind and message of an event of a copy that is in `state` now and was in the state `of`."""
    where = f"{printable(file.relative_path)} on {printable(store)}"
    if of == ReplicaState.DAMAGED and state == ReplicaState.VERIFIED:
        return Severity.INFO, "replica.repaired", f"{where} was damaged and is whole again"
    why = f": {detail}" if detail else ""
    return Severity.ERROR if state in _BAD else Severity.INFO, f"replica.{state}", f"{where} is {state}{why}"


def _tried_copies(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, Row[Any]]:
    """Replicas with what is wanted of their files, by their ids; CatalogError where one is not there."""
    found = {
        row.id: row for some in _pages(ids) for row in connection.execute(_TRIED_COPY.where(ReplicaRow.id.in_(some)))
    }
    for wanted_id in ids:
        if wanted_id not in found:
            raise CatalogError(f"there is no replica with the id {wanted_id}")
    return found


def _by_id(unit: orm.Session, kind: type[RowT], ids: Iterable[UUID]) -> dict[UUID, RowT]:
    """Rows by their ids; CatalogError where one is not there."""
    wanted = list(dict.fromkeys(ids))
    found: dict[UUID, RowT] = {}
    for some in _pages(wanted):
        for row in unit.scalars(select(kind).where(kind.id.in_(some))):
            found[row.id] = row
    for wanted_id in wanted:
        if wanted_id not in found:
            raise CatalogError(f"there is no {kind.__tablename__[:-1]} with the id {wanted_id}")
    return found


def _others(unit: orm.Session, copies: Sequence[Row[Any]]) -> dict[UUID, list[FileRow]]:
    """By the files' ids, those other versions that ever stood under the path of a copy's file, where there are any."""
    others: defaultdict[UUID, list[FileRow]] = defaultdict(list)
    by_path = {(copy.session_id, copy.path_digest): copy.file_id for copy in copies}
    known = list(by_path.values())
    for session_id in {session_id for session_id, _ in by_path}:
        digests = [digest for of_session, digest in by_path if of_session == session_id]
        for some in _pages(digests):
            for row in unit.scalars(others_query(session_id, some, known)):
                others[by_path[session_id, row.path_digest]].append(row)
    return others


def others_query(session_id: UUID, digests: Sequence[bytes], known: Sequence[UUID]) -> Select[FileRow]:
    """The files of these paths but the known ones."""
    return select(FileRow).where(
        FileRow.session_id == session_id, FileRow.path_digest.in_(digests), FileRow.id.not_in(known)
    )


def _pages(things: Sequence[T]) -> Iterator[Sequence[T]]:
    return (things[start : start + _AT_ONCE] for start in range(0, len(things), _AT_ONCE))


def _note_replica(unit: orm.Session, file: FileRow, replica: ReplicaRow) -> None:
    note(unit, file, *_words(file, replica.store, replica.state, replica.detail))


@dataclass(frozen=True, slots=True)
class Replacement:
    """The copy that takes a name: of which site, on which store, with which bytes (None: it failed)."""

    site: str
    store: str
    sha256: str | None


def _displace(unit: orm.Session, others: Sequence[FileRow], replica: Replacement, kept: KeptAside | None) -> None:
    """Say where the copies of other versions are, whose name a copy has taken or was about to take.

    A process that is killed after it renamed them and before it said so leaves `kept` unknown: what nobody can vouch
    for is not called verified.
    """
    for its_file, older in [(row, copy) for row in others for copy in unit.scalars(replicas_query(row.id))]:
        was_here = (older.site, older.store, older.kept_as) == (replica.site, replica.store, None)
        if older.state not in _STOOD or not was_here or older.sha256 == replica.sha256:
            continue  # of the same content, what lies under the name is the copy, too
        if kept is not None and kept.sha256 is not None and kept.sha256 == older.sha256:
            older.kept_as = kept.path
            if older.state == ReplicaState.DAMAGED:
                # A scrub had read what took its name. It was read whole since, but nobody says past which cache.
                older.state, older.level, older.detail = ReplicaState.VERIFIED, VerificationLevel.CACHE, ""
                older.pending, older.checked_at = False, datetime.now(UTC)
            message = (
                f"{printable(its_file.relative_path)} on {printable(older.store)} is kept as {printable(kept.path)}"
            )
            note(unit, its_file, Severity.INFO, "replica.kept", message)
            continue
        where = (
            f"NAME.replaced-{(older.sha256 or '')[:8]} beside it" if kept is None else f"{kept.path}, as other bytes"
        )
        older.state, older.level, older.pending = ReplicaState.FAILED, None, False
        older.detail = f"another version has its name now; look for {where}"
        _note_replica(unit, its_file, older)


def _check_proof(copy: Row[Any], level: VerificationLevel | None, sha256: str | None) -> None:
    if level is None or sha256 is None:
        raise CatalogError("a copy is to be verified without a proof", expected="a level and the digest read back")
    if copy.sha256 is not None and copy.sha256 != sha256:
        raise CatalogError(
            f"the copy's digest is {printable(sha256)}",
            expected=f"{copy.sha256}, the file's own",
            remedy="Copy the file again",
            path=copy.relative_path,
        )

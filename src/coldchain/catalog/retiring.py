"""The guarded steps of clearing a copy: RETIRING, TRASHED, REMOVING, REMOVED, and back.

A step is taken only from the state that it begins in; a copy that somebody else has moved meanwhile is left as it is,
and not counted. The two steps after which a file is touched, `begin` and `begin_removing`, ask a judge inside their
transaction, with the rows as they stand there, locked: of two copies of one file that are cleared at once, the second
sees the first.

What a session's counters see is an event in the same transaction: a copy that is damaged, and one that goes or is back
and is the only verified one of its file. Of others they do not see whether they are there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import orm, select

from coldchain.catalog import events, retirement
from coldchain.catalog.engine import Catalog
from coldchain.catalog.file_rows import file_row, replicas_query
from coldchain.catalog.tables import FileRow, ReplicaRow
from coldchain.errors import printable
from coldchain.model.events import Severity
from coldchain.model.files import FileState, ReplicaState
from coldchain.model.policy import SOURCE
from coldchain.model.retention import FileOnStores, Kept, SessionLife, StoredCopy

Judge = Callable[[SessionLife, FileOnStores, frozenset[UUID]], str]
"""Why a file may not go, "" where it may: of a session as it stands, a file, and the replicas just confirmed."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A copy that is to be cleared: its file, its name in the trash (for `begin`), and the ids of the replicas that
    were confirmed for it; `read_again` are those of them that were read in full."""

    file_id: UUID
    confirmed: frozenset[UUID]
    read_again: frozenset[UUID] = frozenset()
    trashed_as: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a step was begun for, and of what was not, why and how often."""

    files: tuple[FileOnStores, ...]
    kept: Kept


def begin(
    catalog: Catalog, session_id: UUID, store: str, intents: Sequence[Intent], judge: Judge, *, now: datetime
) -> Begun:
    """Journal that a session's copies on a store are going to be moved into its trash, those that may go. Where a judge
    lets the only verified copy go, that is an event."""
    only: list[ReplicaRow] = []
    with catalog.writing() as unit:
        allowed, kept = _judged(unit, session_id, intents, judge)
        for intent, file in allowed:
            copy = file.on(store)
            row = unit.get(ReplicaRow, copy.replica_id) if copy is not None else _at_source(unit, file)
            assert row is not None  # it was read in this transaction
            if not any(its.state is ReplicaState.VERIFIED and its.store != store for its in file.copies):
                only.append(row)
            row.state, row.pending, row.detail = ReplicaState.RETIRING, False, ""
            row.checked_at, row.trashed_at, row.trashed_as = now, None, intent.trashed_as
            _note_confirmed(unit, intent, now)
        unit.flush()
        _tell(unit, only, "replica.retiring", "going to its trash, as the only verified copy")
        return Begun(tuple(retirement.files(unit, [file.id for _, file in allowed])), kept)


def begin_removing(
    catalog: Catalog, session_id: UUID, store: str, intents: Sequence[Intent], judge: Judge, *, now: datetime
) -> Begun:
    """Journal that a session's copies in a store's trash are going to be removed for good, those that may go."""
    with catalog.writing() as unit:
        allowed, kept = _judged(unit, session_id, intents, judge)
        for intent, file in allowed:
            copy = file.on(store)
            row = None if copy is None else unit.get(ReplicaRow, copy.replica_id)
            assert row is not None
            row.state = ReplicaState.REMOVING
            _note_confirmed(unit, intent, now)
        unit.flush()
        return Begun(tuple(retirement.files(unit, [file.id for _, file in allowed])), kept)


def trashed(catalog: Catalog, replica_ids: Collection[UUID], *, now: datetime) -> int:
    """They lie in the trash."""

    def change(_: orm.Session, row: ReplicaRow) -> None:
        row.state, row.trashed_at = ReplicaState.TRASHED, now

    return _change(catalog, replica_ids, {ReplicaState.RETIRING}, change)


def removed(catalog: Catalog, replica_ids: Collection[UUID], *, detail: str = "") -> int:
    """They are not in the trash any more: removed, or, with a `detail`, taken away by somebody else."""

    def change(_: orm.Session, row: ReplicaRow) -> None:
        row.state, row.detail = ReplicaState.REMOVED, detail

    return _change(catalog, replica_ids, {ReplicaState.REMOVING, ReplicaState.TRASHED}, change)


def restored(catalog: Catalog, replica_ids: Collection[UUID]) -> int:
    """They are where they were before, and whole: verified, or, at the source, without a row again. Where no other copy
    of the file is verified, that is an event."""
    only: list[ReplicaRow] = []

    def change(unit: orm.Session, row: ReplicaRow) -> None:
        if row.store == SOURCE:
            unit.delete(row)
            return
        if not any(copy.state is ReplicaState.VERIFIED for copy in unit.scalars(replicas_query(row.file_id))):
            only.append(row)
        row.state, row.pending, row.detail = ReplicaState.VERIFIED, False, ""
        row.trashed_at = row.trashed_as = None

    def tell(unit: orm.Session, _: Sequence[ReplicaRow]) -> None:
        _tell(unit, only, "replica.restored", "as the only verified copy")

    states = {ReplicaState.RETIRING, ReplicaState.TRASHED, ReplicaState.REMOVING}
    return _change(catalog, replica_ids, states, change, tell)


def kept_aside(catalog: Catalog, file: FileOnStores, copy: StoredCopy, kept_as: str, *, why: str) -> int:
    """A copy that was going to be cleared was kept aside under another name, where it is whole; `why` is told."""

    def change(unit: orm.Session, row: ReplicaRow) -> None:
        row.state, row.pending, row.detail = ReplicaState.VERIFIED, False, ""
        row.trashed_at, row.trashed_as, row.kept_as = None, None, kept_as
        message = f"{printable(file.relative_path)} on {row.store} is kept as {printable(kept_as)}: {why}"
        events.add(unit, Severity.INFO, "replica.kept", message, session_id=file.session_id, file_id=file.id)

    return _change(catalog, [copy.replica_id], {ReplicaState.RETIRING}, change)


def damaged(catalog: Catalog, details: Mapping[UUID, str]) -> int:
    """They are not whole, or not there; `details` says by replica what was found. They are to be made again, but at
    the source. It is one event for each session and store."""

    def change(unit: orm.Session, row: ReplicaRow) -> None:
        file = unit.get(FileRow, row.file_id)
        standing = file is not None and file.state is not FileState.REPLACED
        row.state, row.level, row.detail = ReplicaState.DAMAGED, None, details[row.id]
        row.pending = standing and row.store != SOURCE
        row.trashed_at = row.trashed_as = None

    def tell(unit: orm.Session, found: Sequence[ReplicaRow]) -> None:
        _tell(unit, found, "replica.suspect", "not what the catalog says")

    return _change(catalog, details, {ReplicaState.VERIFIED, ReplicaState.RETIRING}, change, tell)


def kept_in_trash(catalog: Catalog, details: Mapping[UUID, str]) -> int:
    """They lie in the trash and are to stay there: what was found is not what the catalog knows. How many of them that
    is new of."""
    news = {*details}

    def change(_: orm.Session, row: ReplicaRow) -> None:
        if row.detail == details[row.id]:
            news.discard(row.id)
        row.state, row.detail = ReplicaState.TRASHED, details[row.id]

    _change(catalog, details, {ReplicaState.TRASHED, ReplicaState.REMOVING}, change)
    return len(news)


def note_source(catalog: Catalog, file_ids: Mapping[UUID, str], state: ReplicaState) -> int:
    """Say what is known of files at the source that are not cleared from there: REMOVED, as they were not there any
    more, or DAMAGED, as they are not what was copied, which is an event. A file of which something is known is left."""
    added: list[ReplicaRow] = []
    with catalog.writing() as unit:
        for file in retirement.files(unit, list(file_ids), lock=True):
            if file.on(SOURCE) is None:
                row = _at_source(unit, file)
                row.state, row.detail = state, file_ids[file.id]
                added.append(row)
        if state is ReplicaState.DAMAGED:
            _tell(unit, added, "replica.suspect", "not what was copied")
    return len(added)


def _judged(
    unit: orm.Session, session_id: UUID, intents: Sequence[Intent], judge: Judge
) -> tuple[list[tuple[Intent, FileOnStores]], Kept]:
    by_file = {intent.file_id: intent for intent in intents}
    files = retirement.files(unit, list(by_file), lock=True)
    session = retirement.life(unit, session_id)
    allowed: list[tuple[Intent, FileOnStores]] = []
    kept = Kept()
    for file in files:
        reason = judge(session, file, by_file[file.id].confirmed)
        if reason:
            kept.note(reason, file.relative_path)
        else:
            allowed.append((by_file[file.id], file))
    return allowed, kept


def _at_source(unit: orm.Session, file: FileOnStores) -> ReplicaRow:
    row = ReplicaRow(
        site=unit.info["site"],
        file_id=file.id,
        store=SOURCE,
        state=ReplicaState.RETIRING,
        pending=False,
        level=None,
        sha256=file.sha256,
        attempts=0,
        detail="",
        size_bytes=file.size_bytes,
    )
    unit.add(row)
    return row


def _note_confirmed(unit: orm.Session, intent: Intent, now: datetime) -> None:
    for row in _rows(unit, intent.read_again):
        row.checked_at = now


def _change(
    catalog: Catalog,
    replica_ids: Iterable[UUID],
    expected: Collection[ReplicaState],
    change: Callable[[orm.Session, ReplicaRow], None],
    tell: Callable[[orm.Session, Sequence[ReplicaRow]], None] | None = None,
) -> int:
    """Change those of these replicas that are in one of the expected states, and tell of them; how many."""
    ids = list(replica_ids)
    if not ids:
        return 0
    with catalog.writing() as unit:
        found = [row for row in _rows(unit, ids, lock=True) if row.state in expected]
        for row in found:
            change(unit, row)
        if tell is not None:
            tell(unit, found)
        return len(found)


def _tell(unit: orm.Session, rows: Sequence[ReplicaRow], kind: str, what: str) -> None:
    """Write one event for each session and store of these copies: which is the first, and how many more there are."""
    groups: defaultdict[tuple[UUID, str], list[FileRow]] = defaultdict(list)
    for row in rows:
        file = file_row(unit, row.file_id)
        groups[file.session_id, row.store].append(file)
    for (session_id, store), files in groups.items():
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        message = f"{printable(files[0].relative_path)}{more} on {printable(store)}: {what}"
        events.add(unit, Severity.INFO, kind, message, session_id=session_id)


def _rows(unit: orm.Session, ids: Iterable[UUID], *, lock: bool = False) -> list[ReplicaRow]:
    wanted, query = list(ids), select(ReplicaRow)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    pages = (wanted[start : start + retirement.AT_ONCE] for start in range(0, len(wanted), retirement.AT_ONCE))
    return [row for page in pages for row in unit.scalars(query.where(ReplicaRow.id.in_(page)))]


def own_copy(file: FileOnStores, store: str) -> StoredCopy:
    """The copy that a step was begun for."""
    copy = file.on(store)
    assert copy is not None
    return copy

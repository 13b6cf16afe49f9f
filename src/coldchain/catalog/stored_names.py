"""Which of a store's files the catalog knows, asked by their stored names.

Nearly every copy lies under `<instrument>/<session's folder>/<its path>`, so that session and path are read from the
name and looked up by the path's digest. The few that lie elsewhere (kept aside, or under a name that the store could
hold) are found by going through the store's copies once for many names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from uuid import UUID

from sqlalchemy import Select, or_, orm, select

from coldchain.catalog.columns import is_path, path_digest
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import FileRow, InstrumentRow, ReplicaRow, SessionRow
from coldchain.model.files import ReplicaState

_AT_ONCE = 500
_NOT_THERE = (ReplicaState.TRASHED, ReplicaState.REMOVING, ReplicaState.REMOVED)


class StoredNames:
    """What the catalog knows of one store of this site. Sessions are read once, at the beginning."""

    def __init__(self, catalog: Catalog, store: str) -> None:
        self._catalog = catalog
        self._store = store
        self._sessions: defaultdict[str, list[UUID]] = defaultdict(list)
        with catalog.reading() as unit:
            for session_id, instrument, folder in unit.execute(
                select(SessionRow.id, InstrumentRow.name, SessionRow.folder).join(
                    InstrumentRow, SessionRow.instrument_id == InstrumentRow.id
                )
            ):
                self._sessions[str(PurePosixPath(instrument, folder))].append(session_id)

    def not_plain(self, names: Sequence[str]) -> list[str]:
        """Those of these names under which no copy lies that is called as its path says."""
        asked: defaultdict[UUID, dict[bytes, list[str]]] = defaultdict(dict)
        for name in names:
            for session_id, path in self._meant(name):
                asked[session_id].setdefault(path_digest(path), []).append(name)
        known: set[str] = set()
        with self._catalog.reading() as unit:
            for session_id, by_digest in asked.items():
                digests = list(by_digest)
                for start in range(0, len(digests), _AT_ONCE):
                    found = unit.execute(files_query(session_id, digests[start : start + _AT_ONCE])).all()
                    lying = self._lying(unit, [file_id for file_id, _ in found])
                    known.update(name for file_id, digest in found if file_id in lying for name in by_digest[digest])
        return [name for name in names if name not in known]

    def _lying(self, unit: orm.Session, file_ids: Sequence[UUID]) -> set[UUID]:
        """Those of these files of which a copy lies here, called as its path says."""
        here = (self._catalog.site, self._store)
        # Chosen here and not by the database, which would go through all that the store has.
        return {
            row.file_id
            for row in unit.execute(copies_query(file_ids))
            if (row.site, row.store) == here
            and row.state not in _NOT_THERE
            and row.kept_as is None
            and row.stored_as is None
        }

    def not_known(self, names: Collection[str]) -> set[str]:
        """Those of these names under which no copy lies that was kept aside, or is called otherwise than its path."""
        left = set(names)
        if not left:
            return left
        with self._catalog.reading() as unit:
            rows = unit.execute(elsewhere_query(self._catalog.site, self._store).execution_options(yield_per=_AT_ONCE))
            for kept_as, stored_as in rows:
                left.discard(kept_as or stored_as or "")
        return left

    def _meant(self, name: str) -> Iterator[tuple[UUID, str]]:
        """The sessions in whose folders a stored name lies, with the rest of it."""
        parts = PurePosixPath(name).parts
        for length in range(1, len(parts)):
            path = str(PurePosixPath(*parts[length:]))
            for session_id in self._sessions.get(str(PurePosixPath(*parts[:length])), ()):
                if is_path(path):
                    yield session_id, path


def files_query(session_id: UUID, digests: Sequence[bytes]) -> Select[UUID, bytes]:
    """The files, all versions, of a session's paths that have these digests."""
    return select(FileRow.id, FileRow.path_digest).where(
        FileRow.session_id == session_id, FileRow.path_digest.in_(digests)
    )


def copies_query(
    file_ids: Sequence[UUID],
) -> Select[UUID, str, str, ReplicaState, str | None, str | None]:
    """The copies of files: file_id, site, store, state, kept_as, stored_as."""
    return select(
        ReplicaRow.file_id,
        ReplicaRow.site,
        ReplicaRow.store,
        ReplicaRow.state,
        ReplicaRow.kept_as,
        ReplicaRow.stored_as,
    ).where(ReplicaRow.file_id.in_(file_ids))


def elsewhere_query(site: str, store: str) -> Select[str | None, str | None]:
    """Where the copies of a store lie that are not called as their paths say."""
    return select(ReplicaRow.kept_as, ReplicaRow.stored_as).where(
        ReplicaRow.site == site,
        ReplicaRow.store == store,
        ReplicaRow.state.not_in(_NOT_THERE),
        or_(ReplicaRow.kept_as.is_not(None), ReplicaRow.stored_as.is_not(None)),
    )

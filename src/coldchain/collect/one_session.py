"""A session that somebody named: all files of one folder are its, whatever their paths would make of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from uuid import UUID

from coldchain.catalog import places, sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect.layout import Placement, exposure_name, place
from coldchain.collect.roster import Spot
from coldchain.model.session import Layout, Session


class OneSession:
    """Places the files below one folder of one root; stands in for a `SessionRoster` where the session is known.

    Parameters
    ----------
    catalog : where the session is.
    session : the session.
    root, folder : where the files lie: the session's own folder, or another that is to be a place of it.
    told : placements that are known otherwise, by path relative to the root; the rest is placed by their names.
    """

    def __init__(
        self,
        catalog: Catalog,
        session: Session,
        *,
        root: Path,
        folder: str,
        told: Mapping[str, Placement] | None = None,
    ) -> None:
        self._catalog = catalog
        self._session = session
        self._folder = folder
        self._told = told if told is not None else {}
        is_own = (session.source_root, session.folder) == (str(root), folder)
        self._place_id = None if is_own else places.ensure(catalog, session.id, root=str(root), folder=folder).id

    def refresh(self) -> list[Session]:
        """The session, as the catalog has it now. Raises CatalogError."""
        self._session = sessions.get(self._catalog, self._session.id)
        return [self._session]

    def place(self, path: str) -> Placement:
        """Where a file belongs; `path` is relative to the root and lies in the folder."""
        if path in self._told:
            return self._told[path]
        found = place(PurePosixPath(path), sessions={self._folder: self._session.layout})
        if found.session_folder == self._folder:
            return found
        inside = path[self._start :]
        name = None if found.exposure_name is None else exposure_name(inside)
        return replace(found, session_folder=self._folder, path_in_session=inside, exposure_name=name)

    def spots(self, paths: Collection[str]) -> Iterator[tuple[str, Spot]]:
        """Where in the session each file stands."""
        for path in paths:
            yield path, Spot(self._session.id, self._place_id, path[self._start :])

    def knows(self, placement: Placement) -> bool:
        """Whether a file tells nothing new of the session's layout."""
        return self._session.layout is not Layout.PLAIN or placement.layout is Layout.PLAIN

    def session(self, placement: Placement) -> Session:
        """The session, whose layout a file may tell. Raises CatalogError."""
        if not self.knows(placement):
            self._session = sessions.set_layout(self._catalog, self._session.id, placement.layout)
        return self._session

    def place_id(self, session: Session, placement: Placement) -> UUID | None:  # noqa: ARG002  # as a roster
        """The session's place that the folder is; None: its own folder."""
        return self._place_id

    def nearest(self, path: str) -> Session:  # noqa: ARG002  # as a roster
        """The session."""
        return self._session

    @property
    def _start(self) -> int:
        return 0 if self._folder == "." else len(self._folder) + 1

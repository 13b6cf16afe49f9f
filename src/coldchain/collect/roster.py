"""The sessions of one instrument, as the catalog has them."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from coldchain.catalog import sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect.layout import Placement, folders_above, is_disc_of_epu, place
from coldchain.errors import printable
from coldchain.formats.beneath import folder_beneath, lstat_beneath
from coldchain.model.session import Layout, Session

_LONGEST_NAME = 200


class SessionRoster:
    """Which session a file belongs to; one is made where there is none.

    The catalog is read when a folder is met for the first time, so a session that a person announces for a folder
    counts for all of its files if it is announced before the first of them arrives. One that is announced later counts
    from the next start on, for the files that arrive from then on.

    Parameters
    ----------
    catalog : where sessions are found and made.
    instrument_name : as facility.toml names it.
    root : the instrument's movie root.
    """

    def __init__(self, catalog: Catalog, *, instrument_name: str, root: Path) -> None:
        self._catalog = catalog
        self._instrument_name = instrument_name
        self._root = root
        self._by_folder: dict[str, Session] = {}
        self._met: set[str] = set()

    def refresh(self) -> list[Session]:
        """Read the instrument's sessions, one for each folder, newest first. Raises CatalogError.

        Their files are looked for under the instrument's movie root from now on, should that have moved.
        """
        found: dict[str, Session] = {}
        for session in sessions.list_all(self._catalog):
            if session.instrument.name == self._instrument_name:
                found[session.folder] = session  # the oldest: two sites may both have made one
        self._by_folder = {folder: self._followed(session) for folder, session in found.items()}
        return list(self._by_folder.values())

    def place(self, path: str) -> Placement:
        """Where a file belongs; `path` is relative to the movie root. Raises CatalogError."""
        folders = (".", *folders_above(path))
        if not self._met.issuperset(folders):
            self.refresh()
            self._met.update(folders)
        layouts = {folder: self._by_folder[folder].layout for folder in folders if folder in self._by_folder}
        epu = dict.fromkeys((folder for folder in folders if self._has_session_file(folder)), Layout.EPU)
        return place(PurePosixPath(path), sessions=layouts | epu)

    def session(self, placement: Placement) -> Session:
        """The session of a file, found or made. Raises CatalogError."""
        session = self._by_folder.get(placement.session_folder) or self._made(placement)
        if session.layout is Layout.PLAIN and placement.layout is not Layout.PLAIN:
            session = sessions.set_layout(self._catalog, session.id, placement.layout)
        self._by_folder[session.folder] = session
        return session

    def nearest(self, path: str) -> Session | None:
        """The session that a path lies in, as far as it is known; the path may be the session's folder itself."""
        near = (self._by_folder.get(folder) for folder in (path, *reversed(tuple(folders_above(path))), "."))
        return next((session for session in near if session is not None), None)

    def _made(self, placement: Placement) -> Session:
        folder = placement.session_folder
        name = self._root.name or self._instrument_name if folder == "." else folder
        session = sessions.create(
            self._catalog,
            name=printable(name)[-_LONGEST_NAME:],
            instrument_name=self._instrument_name,
            source_root=str(self._root),
            folder=folder,
            layout=self._layout(placement),
        )
        return self._followed(session)

    def _followed(self, session: Session) -> Session:
        """The session with its files under this movie root.

        One whose folder stands where it was, and not here, stays there: a movie root that is pointed at a new disk must
        not cut off what is still to be copied from the old one.
        """
        if session.source_root == str(self._root):
            return session
        if _has_folder(Path(session.source_root), session.folder) and not _has_folder(self._root, session.folder):
            return session
        return sessions.set_source_root(self._catalog, session.id, str(self._root))

    def _layout(self, placement: Placement) -> Layout:
        if placement.layout is not Layout.PLAIN:
            return placement.layout
        folder = PurePosixPath(placement.session_folder)
        if any(is_disc_of_epu(name) for name in self._names_in(folder)):
            return Layout.EPU
        beside = (folder / placement.path_in_session).parent
        return Layout.SERIALEM if any(name.endswith(".mdoc") for name in self._names_in(beside)) else Layout.PLAIN

    def _names_in(self, folder: PurePosixPath) -> list[str]:
        try:
            with folder_beneath(self._root, str(folder)) as descriptor:
                return os.listdir(descriptor)  # noqa: PTH208  # a path could lead elsewhere by now
        except OSError:
            return []  # it went a moment ago

    def _has_session_file(self, folder: str) -> bool:
        try:
            return stat.S_ISREG(lstat_beneath(self._root, f"{folder}/EpuSession.dm").st_mode)
        except OSError:
            return False


def _has_folder(root: Path, folder: str) -> bool:
    try:
        with folder_beneath(root, folder):
            return True
    except OSError:
        return False

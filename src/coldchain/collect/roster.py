"""The sessions of one instrument, as the catalog has them."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from uuid import UUID

from coldchain.catalog import events, places, sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect.layout import Placement, folders_above, is_disc_of_epu, is_square_of_epu, place
from coldchain.collect.place_pattern import PlacePattern
from coldchain.errors import printable
from coldchain.formats.beneath import folder_beneath, lstat_beneath
from coldchain.model.events import Severity
from coldchain.model.session import Layout, Session, SessionPlace

log = logging.getLogger(__name__)

_LONGEST_NAME = 200
_MOST_DISCS = 64
_NO_PLACE = UUID(int=0)


class Spot(NamedTuple):
    """Where a file may stand: its path in a session, and the session's place in which it lies; None: its own folder."""

    session_id: UUID
    place_id: UUID | None
    path: str


class SessionRoster:
    """Which session a file belongs to; one is made where there is none.

    The catalog is read when a folder is met for the first time, so a session that a person announces for a folder
    counts for all of its files if it is announced before the first of them arrives. One that is announced later counts
    from the next start on, for the files that arrive from then on.

    An instrument may have several roots: the movie root, and others that hold files of the same sessions. A folder of
    another root belongs to the session whose folder has the same path; where no root has two such folders, also to the
    one session whose folder merely has the same name, if something tells that they are the same (`_is_same`).

    Parameters
    ----------
    catalog : where sessions are found and made.
    instrument_name : as facility.toml names it.
    root : the root whose files are placed.
    movie_root : the instrument's movie root, where that is another one: new sessions are made for it.
    others : the instrument's other roots.
    pattern : places the paths that it matches, before all else.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        instrument_name: str,
        root: Path,
        movie_root: Path | None = None,
        others: Sequence[Path] = (),
        pattern: PlacePattern | None = None,
    ) -> None:
        self._catalog = catalog
        self._instrument_name = instrument_name
        self._root = root
        self._movie_root = movie_root or root
        self._others = tuple(others)
        self._pattern = pattern
        self._by_folder: dict[str, Session] = {}
        self._place_ids: dict[tuple[UUID, str], UUID] = {}
        self._elsewhere: dict[UUID, list[SessionPlace]] = {}
        self._met: set[str] = set()
        self._said_slow = False

    def refresh(self) -> list[Session]:
        """Read the instrument's sessions, one for each folder, newest first. Raises CatalogError.

        Their files are looked for under the instrument's movie root from now on, should that have moved.
        """
        found: dict[str, Session] = {}
        for session in sessions.list_all(self._catalog):
            if session.instrument.name == self._instrument_name:
                found[session.folder] = session  # the oldest: two sites may both have made one
        if self._root == self._movie_root:
            found = {folder: self._followed(session) for folder, session in found.items()}
        self._by_folder = found | self._read_places({session.id: session for session in found.values()})
        return list(found.values())

    def place(self, path: str) -> Placement:
        """Where a file belongs; `path` is relative to the root. Raises CatalogError."""
        folders = (".", *folders_above(path))
        self._meet(folders)
        if (told := self._told(path)) is not None:
            return told
        layouts = {folder: self._by_folder[folder].layout for folder in folders if folder in self._by_folder}
        epu = dict.fromkeys((folder for folder in folders if self._has_session_file(folder)), Layout.EPU)
        return place(PurePosixPath(path), sessions=layouts | epu)

    def spots(self, paths: Collection[str]) -> Iterator[tuple[str, Spot]]:
        """Where in the sessions that are known each file may stand, in none or several, with its path. No file is
        looked at. Raises CatalogError."""
        folders = {path.rpartition("/")[0] for path in paths}
        self._meet({".", *(above for folder in folders for above in folders_above(f"{folder}/"))})
        spots_in = {folder: self._spots_in(folder) for folder in folders}
        for path in paths:
            told = self._told(path)
            session = None if told is None else self._by_folder.get(told.session_folder)
            if told is not None and session is not None:
                place_id = self._known_place_id(session, told.lies_in or told.session_folder)
                yield path, Spot(session.id, place_id, told.path_in_session)
            for session_id, place_id, start in spots_in[path.rpartition("/")[0]]:
                yield path, Spot(session_id, place_id, path[start:])

    def _spots_in(self, folder: str) -> list[tuple[UUID, UUID | None, int]]:
        """The known sessions in which a folder lies: each with its place, and where a path in the session begins."""
        spots = []
        for above in (".", *folders_above(f"{folder}/")):
            if (session := self._by_folder.get(above)) is not None:
                start = 0 if above == "." else len(above) + 1
                spots.append((session.id, self._known_place_id(session, above), start))
        return spots

    def _meet(self, folders: Collection[str]) -> None:
        """Read the sessions where a folder is met for the first time."""
        if not self._met.issuperset(folders):
            self.refresh()
            self._met.update(folders)

    def knows(self, placement: Placement) -> bool:
        """Whether the session of a file is there, and the file tells nothing new of its layout."""
        session = self._by_folder.get(placement.session_folder)
        return session is not None and not _tells_layout(session, placement)

    def session(self, placement: Placement) -> Session:
        """The session of a file, found or made. Raises CatalogError."""
        folder = placement.session_folder
        if folder not in self._by_folder and self._others:
            self.refresh()  # another root may just have made it
        session = self._by_folder.get(folder) or self._joined(placement) or self._made(placement)
        if _tells_layout(session, placement):
            session = sessions.set_layout(self._catalog, session.id, placement.layout)
        self._by_folder[folder] = session
        return session

    def place_id(self, session: Session, placement: Placement) -> UUID | None:
        """The place of the session in which a file lies, made where there is none; None: in its own folder.

        Raises CatalogError.
        """
        folder = placement.lies_in or placement.session_folder
        if self._is_own(session, folder):
            return None
        key = session.id, folder
        if key not in self._place_ids:
            self._place_ids[key] = places.ensure(self._catalog, session.id, root=str(self._root), folder=folder).id
        return self._place_ids[key]

    def _known_place_id(self, session: Session, folder: str) -> UUID | None:
        """The place of a session in a folder: an id that no file has where there is none."""
        return None if self._is_own(session, folder) else self._place_ids.get((session.id, folder), _NO_PLACE)

    def _is_own(self, session: Session, folder: str) -> bool:
        return (str(self._root), folder) == (session.source_root, session.folder)

    def nearest(self, path: str) -> Session | None:
        """The session that a path lies in, as far as it is known; the path may be the session's folder itself."""
        near = (self._by_folder.get(folder) for folder in (path, *reversed(tuple(folders_above(path))), "."))
        return next((session for session in near if session is not None), None)

    def _made(self, placement: Placement) -> Session:
        folder = placement.session_folder
        name = self._movie_root.name or self._instrument_name if folder == "." else folder
        session = sessions.create(
            self._catalog,
            name=printable(name)[-_LONGEST_NAME:],
            instrument_name=self._instrument_name,
            source_root=str(self._movie_root),
            folder=folder,
            layout=self._layout(placement),
        )
        return self._followed(session) if self._root == self._movie_root else session

    def _told(self, path: str) -> Placement | None:
        """Where the pattern places a path."""
        if self._pattern is None:
            return None
        try:
            return self._pattern.place(path)
        except TimeoutError:
            self._say_slow(path)
            return None

    def _say_slow(self, path: str) -> None:
        """Say once, and log each time, that the pattern could not be matched in time."""
        message = f"{printable(path)}: name_pattern takes too long for it; it is placed as if there were no pattern"
        log.warning("%s", message)
        if not self._said_slow:
            events.record(self._catalog, Severity.WARNING, "name_pattern.slow", f"{message}. Mend the pattern")
            self._said_slow = True

    def _joined(self, placement: Placement) -> Session | None:
        """The session of another root whose folder has the same name elsewhere, if it is the same one for sure."""
        name = placement.session_folder.rpartition("/")[2]
        if not self._others or placement.lies_in is not None or name == ".":
            return None
        alike = {
            session.id: session
            for session in self._by_folder.values()
            if session.folder.rpartition("/")[2] == name and not self._has_here(session)
        }
        (session,) = alike.values() if len(alike) == 1 else (None,)
        return session if session is not None and self._is_same(session, placement) else None

    def _has_here(self, session: Session) -> bool:
        """Whether a session has a folder under this root already."""
        here = any(its.root == str(self._root) for its in self._elsewhere.get(session.id, ()))
        return here or _has_folder(self._root, session.folder)

    def _is_same(self, session: Session, placement: Placement) -> bool:
        """Whether a session of the same name is the one of a file.

        Leginon's names of sessions are unique. EPU's need not be: the two folders must have a grid square in common,
        whose number is in no other session but those that share its atlas.
        """
        if session.layout is not placement.layout:
            return False
        if session.layout is not Layout.EPU:
            return session.layout is Layout.LEGINON
        roots = {str(root) for root in self._others}
        there = [(session.source_root, session.folder)]
        there += [(its.root, its.folder) for its in self._elsewhere.get(session.id, ())]
        seen = {square for root, folder in there if root in roots for square in _squares(Path(root), folder)}
        return not seen.isdisjoint(_squares(self._root, placement.session_folder))

    def _read_places(self, by_id: Mapping[UUID, Session]) -> dict[str, Session]:
        """Note where the sessions' files lie; return the sessions by the folders that are theirs under this root."""
        self._elsewhere = {}
        by_folder: dict[str, Session] = {}
        for noted in places.of_instrument(self._catalog, self._instrument_name):
            session = by_id.get(noted.session_id)
            if session is None:
                continue
            its = self._moved(noted)
            self._elsewhere.setdefault(session.id, []).append(its)
            if its.root == str(self._root):
                self._place_ids[session.id, its.folder] = its.id
                if not _is_above(its.folder, session.folder):  # else it is shared (`place_pattern`)
                    by_folder.setdefault(its.folder, session)
        return by_folder

    def _moved(self, place: SessionPlace) -> SessionPlace:
        """The place under this root, where it was under one that this root can only be the new name of."""
        known = {str(root) for root in (self._root, *self._others)}
        is_only = self._root != self._movie_root and len(self._others) == 1
        if place.root in known or not is_only or _has_folder(Path(place.root), place.folder):
            return place
        if not _has_folder(self._root, place.folder):
            return place
        return places.move(self._catalog, place.id, str(self._root))

    def _followed(self, session: Session) -> Session:
        """The session with its files under this movie root.

        One whose folder is not here stays where it was: a movie root that is pointed at a new disk must not cut off
        what is still to be copied from the old one, nor a mount that is away what was imported from it.
        """
        if session.source_root in {str(self._root), *map(str, self._others)}:
            return session
        if not _has_folder(self._root, session.folder):
            return session
        return sessions.set_source_root(self._catalog, session.id, str(self._root))

    def _layout(self, placement: Placement) -> Layout:
        if placement.layout is not Layout.PLAIN:
            return placement.layout
        folder = PurePosixPath(placement.session_folder)
        if any(is_disc_of_epu(name) for name in self._names_in(folder)):
            return Layout.EPU
        beside = (folder / placement.path_in_session).parent
        return (
            Layout.SERIALEM if any(name.lower().endswith(".mdoc") for name in self._names_in(beside)) else Layout.PLAIN
        )

    def _names_in(self, folder: PurePosixPath) -> list[str]:
        return _names_in(self._root, str(folder))

    def _has_session_file(self, folder: str) -> bool:
        try:
            return stat.S_ISREG(lstat_beneath(self._root, f"{folder}/EpuSession.dm").st_mode)
        except OSError:
            return False


def _names_in(root: Path, folder: str) -> list[str]:
    try:
        with folder_beneath(root, folder) as descriptor:
            return os.listdir(descriptor)  # noqa: PTH208  # a path could lead elsewhere by now
    except OSError:
        return []  # it went a moment ago


def _squares(root: Path, folder: str) -> set[tuple[str, str]]:
    """The grid squares of an EPU session's folder, each with its disc."""
    discs = [name for name in _names_in(root, folder) if is_disc_of_epu(name)][:_MOST_DISCS]
    return {
        (disc.lower(), name)
        for disc in discs
        for name in _names_in(root, str(PurePosixPath(folder, disc)))
        if is_square_of_epu(name)
    }


def _is_above(folder: str, inner: str) -> bool:
    return folder == "." or inner.startswith(f"{folder}/")


def _has_folder(root: Path, folder: str) -> bool:
    try:
        with folder_beneath(root, folder):
            return True
    except OSError:
        return False


def _tells_layout(session: Session, placement: Placement) -> bool:
    return session.layout is Layout.PLAIN and placement.layout is not Layout.PLAIN

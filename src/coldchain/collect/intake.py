"""One file at a time: looked into, journalled in the catalog, joined to its session and its exposure.

Everything here may be done again: the catalog gives the row that is there for a path, size and time stamp that it
knows, so a file that is taken twice stands there once. The order of the writes makes a kill harmless: an exposure gets
its metadata before the file is journalled, and what is left after that (the exposure's input, its references) is made
up for by `resume`.

A damaged file is journalled as such and its exposure quarantined with the reason; an unreadable one is waited for.
Nothing here stops for either.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from uuid import UUID

from coldchain.catalog import events, exposures, files, sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect.completeness import Examination, Signature, Verdict
from coldchain.collect.content import IMAGES, REFERENCES, Content, look_inside, words
from coldchain.collect.layout import Placement, folders_above, place
from coldchain.collect.metadata import References, with_references
from coldchain.collect.watcher import Notice
from coldchain.errors import FormatError, IncompleteFileError, StorageError, printable
from coldchain.model.events import Severity
from coldchain.model.files import DataFile, FileKind, FileState
from coldchain.model.session import Exposure, ExposureState, Layout, Session

_EVERY_FILE = 1 << 62
_PAGE = 500
_LONGEST_NAME = 200


class Intake:
    """Takes the files of one instrument's movie root into the catalog.

    Parameters
    ----------
    catalog : where everything is journalled.
    instrument_name : as facility.toml names it.
    source_root : the movie root.
    stores : the names of the stores that want a copy of every file.
    """

    def __init__(self, catalog: Catalog, *, instrument_name: str, source_root: Path, stores: Sequence[str]) -> None:
        self._catalog = catalog
        self._instrument_name = instrument_name
        self._root = source_root
        self._stores = tuple(stores)
        self._sessions: dict[str, Session] = {}
        self._references: dict[UUID, References] = {}

    def resume(self) -> dict[str, Signature]:
        """Finish what an earlier process began, and tell what it had dealt with.

        Returns size and time stamp by path, relative to the movie root, of every file that need not be taken again
        unless it changes. Unreadable files are not among them.
        """
        known: dict[str, Signature] = {}
        for session in sessions.list_all(self._catalog):
            if session.instrument.name != self._instrument_name:
                continue
            self._adopt(session)
            prefix = "" if session.folder == "." else session.folder + "/"
            for path, (size_bytes, modified_ns, state) in files.known(self._catalog, session.id).items():
                if state is not FileState.UNREADABLE:
                    known[prefix + path] = (size_bytes, modified_ns)
        return known

    def take(self, examination: Examination) -> Verdict:
        """Examine a file and journal it, whole or not.

        Raises CatalogError where the catalog refuses; the file may then be taken again.
        """
        absolute = self._root / examination.path
        if (verdict := _compare(absolute, examination.signature)) is not None:
            return verdict
        placement = self._place(examination.path)
        try:
            content = look_inside(absolute, placement)
        except IncompleteFileError as error:
            if not examination.last_try:
                return Verdict.INCOMPLETE
            return self._hold_back(placement, examination.signature, FileState.DAMAGED, words(error))
        except FormatError as error:
            return self._hold_back(placement, examination.signature, FileState.DAMAGED, words(error))
        except (StorageError, OSError) as error:
            if (verdict := _compare(absolute, examination.signature)) is not None:
                return verdict
            return self._hold_back(placement, examination.signature, FileState.UNREADABLE, words(error))
        if (verdict := _compare(absolute, examination.signature)) is not None:
            return verdict
        self._journal(content, examination.signature)
        return Verdict.TAKEN

    def report(self, notice: Notice) -> None:
        """Put a notice on the page, with the session that it concerns if there is one."""
        self._event(notice.severity, notice.kind, notice.message, notice.path)

    # -- sessions ---------------------------------------------------------------------------------------------------

    def _place(self, path: str) -> Placement:
        epu_sessions = {folder for folder in (".", *folders_above(path)) if _has_session_file(self._root / folder)}
        return place(PurePosixPath(path), sessions=epu_sessions)

    def _session(self, placement: Placement) -> Session:
        folder = placement.session_folder
        if folder not in self._sessions:
            session = sessions.find(self._catalog, instrument_name=self._instrument_name, folder=folder)
            if session is None:
                session = sessions.create(
                    self._catalog,
                    name=self._session_name(folder),
                    instrument_name=self._instrument_name,
                    source_root=str(self._root),
                    folder=folder,
                    layout=self._layout(placement),
                )
            self._adopt(session)
        session = self._sessions[folder]
        if session.layout is Layout.PLAIN and placement.layout is not Layout.PLAIN:
            session = self._sessions[folder] = sessions.set_layout(self._catalog, session.id, placement.layout)
        return session

    def _session_name(self, folder: str) -> str:
        name = self._root.name or self._instrument_name if folder == "." else folder
        return printable(name)[-_LONGEST_NAME:]

    def _layout(self, placement: Placement) -> Layout:
        if placement.layout is not Layout.PLAIN:
            return placement.layout
        folder = self._root / placement.session_folder
        if any(folder.glob("Images-Disc*")):
            return Layout.EPU
        beside = (folder / placement.path_in_session).parent
        return Layout.SERIALEM if any(beside.glob("*.mdoc")) else Layout.PLAIN

    def _adopt(self, session: Session) -> None:
        """Know a session, and make up for what a killed process left undone in it."""
        standing = files.of_session(self._catalog, session.id, states=[FileState.ARRIVED], limit=_EVERY_FILE)
        standing.reverse()  # oldest first
        self._references[session.id] = References(
            gains=tuple(file.relative_path for file in standing if file.kind is FileKind.GAIN),
            defects=tuple(file.relative_path for file in standing if file.kind is FileKind.DEFECTS),
        )
        if standing:
            self._refer(session)
            for exposure_id, file_id in inputs_left(standing, self._all_exposures(session)):
                exposures.attach_input(self._catalog, exposure_id, file_id)
        self._sessions[session.folder] = session

    def _all_exposures(self, session: Session) -> Iterator[Exposure]:
        before: UUID | None = None
        while page := exposures.page(self._catalog, session.id, limit=_PAGE, before=before):
            yield from page
            before = page[-1].id

    # -- whole files ------------------------------------------------------------------------------------------------

    def _journal(self, content: Content, signature: Signature) -> None:
        session = self._session(content.placement)
        exposure = self._exposure(session, content)
        if exposure is not None:
            self._describe(session, exposure, content)
        file = self._record(session, exposure, content.placement, signature, FileState.ARRIVED, "")
        if exposure is not None and file.kind in IMAGES:
            exposures.attach_input(self._catalog, exposure.id, file.id)
        if file.kind in REFERENCES:
            self._reference_arrived(session, file)
        if content.complaint:
            self._event(Severity.WARNING, "metadata.unusable", content.complaint, session.folder, file)

    def _exposure(self, session: Session, content: Content) -> Exposure | None:
        """The file's exposure. Images and descriptions make one; a preview joins one that is there."""
        placement = content.placement
        if placement.exposure_name is None:
            return None
        if placement.kind in IMAGES or content.description is not None:
            return self._ensure(session, placement)
        return exposures.by_name(self._catalog, session.id, placement.exposure_name)

    def _ensure(self, session: Session, placement: Placement) -> Exposure:
        assert placement.exposure_name is not None
        return exposures.ensure(
            self._catalog,
            session.id,
            placement.exposure_name,
            grid_square=placement.grid_square,
            foil_hole=placement.foil_hole,
        )

    def _describe(self, session: Session, exposure: Exposure, content: Content) -> None:
        metadata = exposure.metadata
        if content.description is not None:
            metadata = content.description.over(metadata)
        if content.header is not None:
            metadata = metadata.over(content.header)
        metadata = with_references(metadata, self._references[session.id], exposure.name)
        if metadata != exposure.metadata:
            exposures.attach_metadata(self._catalog, exposure.id, metadata)

    def _record(
        self,
        session: Session,
        exposure: Exposure | None,
        placement: Placement,
        signature: Signature,
        state: FileState,
        detail: str,
    ) -> DataFile:
        return files.record_arrival(
            self._catalog,
            session_id=session.id,
            relative_path=placement.path_in_session,
            kind=placement.kind,
            size_bytes=signature[0],
            modified_ns=signature[1],
            stores=self._stores,
            exposure_id=None if exposure is None else exposure.id,
            state=state,
            detail=detail,
        )

    # -- references -------------------------------------------------------------------------------------------------

    def _reference_arrived(self, session: Session, file: DataFile) -> None:
        """A gain or defect file counts for exposures that were there before it, too."""
        references = self._references[session.id]
        listed = references.gains if file.kind is FileKind.GAIN else references.defects
        if file.relative_path in listed:
            return
        in_use = next((path for path in listed if "/" not in path), None)
        if in_use is not None and "/" not in file.relative_path:
            message = (
                f"{printable(file.relative_path)}: a second {file.kind} reference; where the metadata names none, "
                f"{printable(in_use)} stays in use. Choose with `coldchain session set`"
            )
            self._event(Severity.WARNING, "reference.second", message, session.folder, file)
        if file.kind is FileKind.GAIN:
            references = replace(references, gains=(*listed, file.relative_path))
        else:
            references = replace(references, defects=(*listed, file.relative_path))
        self._references[session.id] = references
        self._refer(session)

    def _refer(self, session: Session) -> None:
        """Note the session's references in every exposure that lacks them."""
        references = self._references[session.id]
        if references == References():
            return
        for exposure in self._all_exposures(session):
            metadata = with_references(exposure.metadata, references, exposure.name)
            if metadata != exposure.metadata:
                exposures.attach_metadata(self._catalog, exposure.id, metadata)

    # -- files that are not well ------------------------------------------------------------------------------------

    def _hold_back(self, placement: Placement, signature: Signature, state: FileState, detail: str) -> Verdict:
        session = self._session(placement)
        of_exposure = placement.exposure_name is not None and placement.kind in IMAGES
        exposure = self._ensure(session, placement) if of_exposure else None
        file = self._record(session, exposure, placement, signature, state, detail)
        damaged = state is FileState.DAMAGED
        if exposure is not None and self._has_nothing_else(exposure.input_file_id, placement):
            reason = f"its {placement.kind} is {state}: {detail}"
            if damaged:  # it is the exposure's input all the same: whoever asks for it may have it tried
                exposures.attach_input(self._catalog, exposure.id, file.id)
            to = ExposureState.QUARANTINED if damaged else ExposureState.WAITING
            exposures.set_state(self._catalog, exposure.id, to, reason)
        return Verdict.DAMAGED if damaged else Verdict.UNREADABLE

    def _has_nothing_else(self, input_file_id: UUID | None, placement: Placement) -> bool:
        """Whether an exposure has no input, or one that this very file has just replaced."""
        if input_file_id is None:
            return True
        return files.get(self._catalog, input_file_id).relative_path == placement.path_in_session

    def _event(self, severity: Severity, kind: str, message: str, path: str, file: DataFile | None = None) -> None:
        near = (self._sessions.get(folder) for folder in (path, *reversed(tuple(folders_above(path))), "."))
        session = next((session for session in near if session is not None), None)
        events.record(
            self._catalog,
            severity,
            kind,
            message,
            session_id=None if session is None else session.id,
            exposure_id=None if file is None else file.exposure_id,
            file_id=None if file is None else file.id,
        )


def inputs_left(standing: Iterable[DataFile], known: Iterable[Exposure]) -> list[tuple[UUID, UUID]]:
    """Which exposures still lack an input that has arrived, as (exposure id, file id), in the order of arrival. Pure.

    A kill between journalling a file and giving it to its exposure leaves such pairs. A micrograph is no better input
    than a movie that stands.
    """
    images = {file.id: file for file in standing if file.kind in IMAGES and file.exposure_id is not None}
    input_of = {exposure.id: images.get(exposure.input_file_id) for exposure in known if exposure.input_file_id}
    left = []
    for file in images.values():
        assert file.exposure_id is not None
        current = input_of.get(file.exposure_id)
        better = current is None or (current.kind is FileKind.MICROGRAPH and file.kind is FileKind.MOVIE)
        if better and current is not file:
            input_of[file.exposure_id] = file
            left.append((file.exposure_id, file.id))
    return left


def _compare(absolute: Path, signature: Signature) -> Verdict | None:
    """GONE or CHANGED where a file is not what was sighted any more, UNREADABLE where that cannot be told now."""
    try:
        status = absolute.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Verdict.GONE
    except OSError:  # its folder was closed or its mount is away: the watcher says which
        return Verdict.UNREADABLE
    if not stat.S_ISREG(status.st_mode):
        return Verdict.GONE
    return None if (status.st_size, status.st_mtime_ns) == signature else Verdict.CHANGED


def _has_session_file(folder: Path) -> bool:
    try:
        return stat.S_ISREG((folder / "EpuSession.dm").lstat().st_mode)
    except OSError:
        return False

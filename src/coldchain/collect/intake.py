"""One file at a time: looked into, journalled in the catalog, joined to its session and its exposure.

Everything here may be done again: the catalog gives the row that is there for a path, size and time stamp that it
knows, so a file that is taken twice stands there once. The order of the writes makes a kill harmless: an exposure gets
its metadata before the file is journalled, and what is left after that (the exposure's input, its references) is made
up for by `resume`.

A damaged or unreadable file is journalled as such and its exposure waits with the reason; nothing here stops for it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from uuid import UUID

from coldchain.catalog import events, exposures, files, sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect.completeness import Examination, Signature, Verdict
from coldchain.collect.layout import (
    MOVIE_SUFFIXES,
    Placement,
    exposure_name,
    folders_above,
    is_exposure_of_epu,
    place,
    split_suffix,
)
from coldchain.collect.metadata import References, header_metadata, read_description, with_references
from coldchain.collect.watcher import Notice
from coldchain.errors import ColdchainError, FormatError, IncompleteFileError, MetadataError, StorageError, printable
from coldchain.formats.movie import probe_movie
from coldchain.formats.structure import check_structure
from coldchain.model.events import Severity
from coldchain.model.files import DataFile, FileKind, FileState
from coldchain.model.optics import ExposureMetadata
from coldchain.model.session import Exposure, ExposureState, Layout, Session

_IMAGES = (FileKind.MOVIE, FileKind.MICROGRAPH)
_REFERENCES = (FileKind.GAIN, FileKind.DEFECTS)
_PARTNER_ENDINGS = (*sorted(MOVIE_SUFFIXES), "_fractions.tiff", "_Fractions.mrc", "_EER.eer", ".xml", ".mdoc")
_PNG_COLOUR_TYPE_BYTE = 25
_PNG_GREY_TYPES = (b"\x00", b"\x04")  # without and with transparency
_EVERY_FILE = 1 << 62
_PAGE = 500
_LONGEST_NAME = 200
_ACCESS_REMEDY = "Give the account that runs Coldchain permission to read it; it is tried again by itself"


@dataclass(frozen=True, slots=True)
class _Content:
    """What a whole file turned out to be: its placement, the kind made sure of, and what it says of its exposure."""

    placement: Placement
    description: ExposureMetadata | None = None
    header: ExposureMetadata | None = None
    complaint: str = ""


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
            content = _look_inside(absolute, placement)
        except IncompleteFileError as error:
            if not examination.last_try:
                return Verdict.INCOMPLETE
            return self._hold_back(placement, examination.signature, FileState.DAMAGED, _words(error))
        except FormatError as error:
            return self._hold_back(placement, examination.signature, FileState.DAMAGED, _words(error))
        except (StorageError, OSError) as error:
            if (verdict := _compare(absolute, examination.signature)) is not None:
                return verdict
            return self._hold_back(placement, examination.signature, FileState.UNREADABLE, _words(error))
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
        return self._sessions[folder]

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

    def _journal(self, content: _Content, signature: Signature) -> None:
        session = self._session(content.placement)
        exposure = self._exposure(session, content)
        if exposure is not None:
            self._describe(session, exposure, content)
        file = self._record(session, exposure, content.placement, signature, FileState.ARRIVED, "")
        if exposure is not None and file.kind in _IMAGES:
            exposures.attach_input(self._catalog, exposure.id, file.id)
        if file.kind in _REFERENCES:
            self._reference_arrived(session, file)
        if content.complaint:
            self._event(Severity.WARNING, "metadata.unusable", content.complaint, session.folder, file)

    def _exposure(self, session: Session, content: _Content) -> Exposure | None:
        """The file's exposure. Images and descriptions make one; a preview joins one that is there."""
        placement = content.placement
        if placement.exposure_name is None:
            return None
        if placement.kind in _IMAGES or content.description is not None:
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

    def _describe(self, session: Session, exposure: Exposure, content: _Content) -> None:
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
        of_exposure = placement.exposure_name is not None and placement.kind in _IMAGES
        exposure = self._ensure(session, placement) if of_exposure else None
        self._record(session, exposure, placement, signature, state, detail)
        if exposure is not None and self._has_nothing_else(exposure.input_file_id, placement):
            reason = f"its {placement.kind} is {state}: {detail}"
            exposures.set_state(self._catalog, exposure.id, ExposureState.WAITING, reason)
        return Verdict.DAMAGED if state is FileState.DAMAGED else Verdict.UNREADABLE

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
    images = {file.id: file for file in standing if file.kind in _IMAGES and file.exposure_id is not None}
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


def _look_inside(absolute: Path, placement: Placement) -> _Content:
    """Examine a file's structure and make sure of its kind. Raises FormatError, StorageError, OSError."""
    _try_to_read(absolute)
    if placement.kind is FileKind.OTHER:
        return _Content(placement)
    check_structure(absolute)
    if placement.kind in (*_IMAGES, *_REFERENCES) and split_suffix(absolute.name)[1] in MOVIE_SUFFIXES:
        return _image_content(absolute, placement)
    if placement.kind is FileKind.MICROGRAPH:
        return _Content(placement if is_micrograph_picture(absolute) else replace(placement, kind=FileKind.PREVIEW))
    if placement.kind is FileKind.METADATA and placement.exposure_name is not None:
        return _description_content(absolute, placement)
    return _Content(placement)


def _image_content(absolute: Path, placement: Placement) -> _Content:
    info = probe_movie(absolute)
    placement = refine(placement, info.frames, info.container)
    if placement.kind not in _IMAGES:
        return _Content(placement)
    try:
        return _Content(placement, header=header_metadata(absolute, info))
    except MetadataError as error:
        # The pixels may be whole and the header's values nonsense: the image counts, and the exposure asks for values.
        return _Content(placement, complaint=f"{printable(placement.path_in_session)}: {_words(error)}")


def refine(placement: Placement, frames: int, container: str) -> Placement:
    """The placement with its kind decided by what is in the file: one frame is a micrograph, several are a movie,
    even where the name speaks of a gain reference. An EER file is always a movie. Pure."""
    several = frames > 1 or container == "eer"
    if placement.kind in _REFERENCES:
        if not several:
            return placement
        return replace(placement, kind=FileKind.MOVIE, exposure_name=exposure_name(placement.path_in_session))
    return replace(placement, kind=FileKind.MOVIE if several else FileKind.MICROGRAPH)


def _description_content(absolute: Path, placement: Placement) -> _Content:
    """An XML or mdoc. One that is no exposure's is kept all the same; it is worth an event only where its name promises
    otherwise."""
    try:
        return _Content(placement, description=read_description(absolute))
    except MetadataError as error:
        promised = is_exposure_of_epu(absolute.name) or split_suffix(absolute.name)[1] == ".mdoc"
        where = printable(placement.path_in_session)
        return _Content(placement, complaint=f"{where}: {_words(error)}" if promised else "")


def is_micrograph_picture(absolute: Path) -> bool:
    """Whether a PNG is a micrograph: grey, and with no movie and no description of its own name beside it."""
    with absolute.open("rb") as stream:
        header = stream.read(_PNG_COLOUR_TYPE_BYTE + 1)
    if header[_PNG_COLOUR_TYPE_BYTE:] not in _PNG_GREY_TYPES:
        return False
    stem = split_suffix(absolute.name)[0]
    return not any(os.path.lexists(absolute.with_name(stem + ending)) for ending in _PARTNER_ENDINGS)


def _compare(absolute: Path, signature: Signature) -> Verdict | None:
    """GONE or CHANGED where a file is not what was sighted any more."""
    try:
        status = absolute.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Verdict.GONE
    if not stat.S_ISREG(status.st_mode):
        return Verdict.GONE
    return None if (status.st_size, status.st_mtime_ns) == signature else Verdict.CHANGED


def _try_to_read(absolute: Path) -> None:
    # Neither a link nor a pipe that took the file's place a moment ago may be followed or waited for.
    descriptor = os.open(absolute, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.read(descriptor, 1)
    finally:
        os.close(descriptor)


def _has_session_file(folder: Path) -> bool:
    try:
        return stat.S_ISREG((folder / "EpuSession.dm").lstat().st_mode)
    except OSError:
        return False


def _words(error: ColdchainError | OSError) -> str:
    """An error in words, without the path that stands beside it anyway."""
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror}). {_ACCESS_REMEDY}"
    expected = f"; expected {error.expected}" if error.expected else ""
    return f"{error.found}{expected}" + (f". {error.remedy}" if error.remedy else "")

"""What an exposure is computed from, gathered from the catalog and the files that its metadata names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from coldchain.catalog import files, places
from coldchain.catalog.engine import Catalog
from coldchain.errors import ProcessingError, printable
from coldchain.model.files import DataFile, FileKind
from coldchain.model.identity import is_safe_relative
from coldchain.model.optics import Optics
from coldchain.model.session import Exposure, Session
from coldchain.preprocess.plan import ExposureInput

_NO_DEFECTS = "its defect list {} is not there; defects are found from the movie alone"


@dataclass(frozen=True, slots=True)
class ExposureSources:
    """An exposure's files on this host, what decides its steps, and what is to be said before they are run."""

    movie: Path
    gain: Path | None
    defects: Path | None
    file: DataFile
    optics: Optics
    given: ExposureInput
    warnings: tuple[str, ...]


class SourceFinder:
    """Finds an exposure's sources. Digests of gain references are kept, as one serves a whole session."""

    def __init__(self, catalog: Catalog, instrument_optics: Mapping[str, Optics]) -> None:
        self._catalog = catalog
        self._instrument_optics = instrument_optics
        self._digests: dict[tuple[str, int, int], str] = {}

    def find(self, exposure: Exposure, session: Session) -> ExposureSources | None:
        """The sources of an exposure; None while its input has no digest, for identity comes before computing.

        Raises ProcessingError where the input or a named gain is not there, or cannot be read: the exposure waits.
        """
        file = None if exposure.input_file_id is None else files.get(self._catalog, exposure.input_file_id)
        if file is None or file.sha256 is None:
            return None
        assumed = self._instrument_optics.get(session.instrument.name, Optics())
        optics = session.parameters.optics.over(exposure.metadata.optics).over(assumed)
        movie = places.folder_of(self._catalog, session, file) / file.relative_path
        _require(movie, f"its {file.kind}", "It was there: bring it or its disk back")
        # A single image has been corrected by whoever summed it.
        gain = self._of_session(session, optics.gain) if optics.gain and file.kind is FileKind.MOVIE else None
        if gain is not None:
            remedy = (
                f"Bring it, or give another with `coldchain session set {session.shell_word} --gain FILE` (or none)"
            )
            _require(gain, "its gain reference", remedy)
        defects_name = exposure.metadata.defects_name
        defects = self._defects(defects_name, session, movie)
        given = ExposureInput(
            kind=file.kind,
            sha256=file.sha256,
            optics=optics,
            gain_sha256=self._digest(gain),
            defects_sha256=self._digest(defects),
            particle_diameter_angstrom=session.parameters.particle_diameter_angstrom,
            generation=session.parameters.generation,
        )
        warnings = () if defects or not defects_name else (_NO_DEFECTS.format(printable(defects_name)),)
        return ExposureSources(movie, gain, defects, file, optics, given, warnings)

    def _of_session(self, session: Session, name: str) -> Path:
        """Where a file of the session lies, by its path in it or an absolute one: in its own folder, or where it
        arrived."""
        path = Path(session.source_root, session.folder, name)
        if PurePosixPath(name).is_absolute() or _is_there(path):
            return path
        file = files.standing(self._catalog, session.id, name)
        return path if file is None else places.folder_of(self._catalog, session, file) / name

    def _defects(self, name: str | None, session: Session, movie: Path) -> Path | None:
        """The defect list that the metadata names: in the session's folder, as `collect` noted it, or by the movie."""
        if not name:
            return None
        wanted = PurePosixPath(name.replace("\\", "/"))
        inside = [self._of_session(session, str(wanted))] if is_safe_relative(wanted) else []
        return next((path for path in [*inside, movie.with_name(wanted.name)] if path.is_file()), None)

    def _digest(self, path: Path | None) -> str | None:
        if path is None:
            return None
        try:
            status = path.stat()
            key = (str(path), status.st_size, status.st_mtime_ns)
            if key not in self._digests:
                with path.open("rb") as file:
                    self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _absent(path, "a reference", f"cannot be read ({error.strerror})", "Mend that") from error
        return self._digests[key]


def _is_there(path: Path) -> bool:
    """Whether a file is there; also where that cannot be told, so that whoever needs it says why."""
    try:
        return path.is_file()
    except OSError:
        return True


def _require(path: Path, what: str, remedy: str) -> None:
    try:
        there = path.is_file()
    except OSError as error:
        raise _absent(path, what, f"cannot be reached ({error.strerror})", remedy) from error
    if not there:
        raise _absent(path, what, "is not there", remedy)


def _absent(path: Path, what: str, how: str, remedy: str) -> ProcessingError:
    return ProcessingError(f"{what} {how}", remedy=f"{remedy}; it is looked for again by itself", path=path)

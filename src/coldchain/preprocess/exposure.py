"""What is known of a lone movie: what the user says, what lies beside it, what its own headers say, in that order.

A facility's exposures have their metadata from the catalog. A movie that is named on a command line has only its
neighbours: SerialEM's mdoc, EPU's XML, and the references that the mdoc names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from coldchain.errors import FormatError, MetadataError, ProcessingError, printable
from coldchain.formats.epu import read_exposure_xml
from coldchain.formats.fei import read_extended_header
from coldchain.formats.mdoc import read_mdoc
from coldchain.formats.movie import MovieInfo
from coldchain.model import limits
from coldchain.model.optics import ExposureMetadata, Optics

_FRACTIONS = re.compile(r"_(?:fractions|eer)$", re.IGNORECASE)
# What most programs write into an MRC header where they know nothing.
_UNSET_PIXEL_SIZE_ANGSTROM = 1.0
# Of each value that the alignment takes from metadata: what it is called, its unit, and between what it can be true.
_OPTICS = {
    "pixel_size_angstrom": ("the pixel size", "Å", limits.PIXEL_SIZE_ANGSTROM),
    "voltage_kilovolt": ("the voltage", "kV", limits.VOLTAGE_KILOVOLT),
    "dose_e_per_square_angstrom": ("the dose", "e⁻/Å²", limits.DOSE_E_PER_SQUARE_ANGSTROM),
    "frame_count": ("the number of frames", "frames", limits.FRAME_COUNT),
}
# Calibrations differ by more; what was rounded differs by less. Doses are measured, and told with few digits.
_SAME, _SAME_DOSE = 0.005, 0.05
_COUNTS = ("the scale", "counts per electron", limits.COUNTS_PER_ELECTRON)


@dataclass(frozen=True, slots=True)
class Stated:
    """What the user says of every movie; None where the metadata is to decide.

    pixel_size_angstrom : of the frames as they are stored; of an EER, of the sensor's pixel.
    dose_per_frame_e_per_square_angstrom : of a frame as it is read; of an EER, of a fraction.
    dose_per_camera_frame_e_per_square_angstrom : the same for an EER's frames as the camera wrote them.
    gain : the reference. `no_gain`: there is none, whatever the metadata names.
    counts_per_electron : the frames are divided by it.
    """

    pixel_size_angstrom: float | None = None
    voltage_kilovolt: float | None = None
    dose_per_frame_e_per_square_angstrom: float | None = None
    dose_per_camera_frame_e_per_square_angstrom: float | None = None
    gain: Path | None = None
    no_gain: bool = False
    defects: Path | None = None
    dark: Path | None = None
    counts_per_electron: float | None = None


@dataclass(frozen=True, slots=True)
class KnownExposure:
    """A movie and all that has to be known to align it.

    info : what its headers say of its frames.
    pixel_size_angstrom : of the frames as they are stored; of an EER, of the sensor's pixel.
    frame_dose_e_per_square_angstrom : of a frame as the camera wrote it; None where nobody knows.
    gain, defects, dark : references; None where there is none.
    defects_stated : whether the user named the defects: then it is an error if they cannot be used.
    counts_per_electron : the frames are divided by it; 1 for counting cameras.
    warnings : what the reader of a result should know.
    """

    info: MovieInfo
    pixel_size_angstrom: float
    voltage_kilovolt: float
    frame_dose_e_per_square_angstrom: float | None
    gain: Path | None = None
    defects: Path | None = None
    defects_stated: bool = False
    dark: Path | None = None
    counts_per_electron: float = 1.0
    warnings: tuple[str, ...] = ()

    @property
    def movie(self) -> Path:
        """The movie's path."""
        return self.info.path

    @property
    def is_eer(self) -> bool:
        """Whether its frames are made on reading."""
        return self.info.container == "eer"


def find_exposure(info: MovieInfo, stated: Stated, *, camera_frames_per_frame: int = 1) -> KnownExposure:
    """All that is known of a lone movie.

    Parameters
    ----------
    info : of the movie.
    stated : what the user says; it counts over all else.
    camera_frames_per_frame : of an EER, the camera frames in its first fraction.

    A value of the metadata that cannot be true is said, and is as if it were not there: the next source is asked.

    Raises ProcessingError where pixel size or voltage are known from nowhere, where what the user says cannot be true,
    or where the metadata name a gain reference that is not there.
    """
    _refuse_impossible(stated, info.path)
    own = Optics(pixel_size_angstrom=stated.pixel_size_angstrom, voltage_kilovolt=stated.voltage_kilovolt)
    metadata, about_metadata = find_metadata(info, ExposureMetadata(optics=own))
    optics = metadata.optics
    if optics.pixel_size_angstrom is None or optics.voltage_kilovolt is None:
        known = (optics.pixel_size_angstrom, optics.voltage_kilovolt)
        raise lacking(info.path, *known, "neither from an mdoc or XML beside it nor from its header", about_metadata)
    dose, about_dose = _frame_dose(stated, metadata.optics, info, camera_frames_per_frame)
    defects, about_defects = _defects(stated, metadata.defects_name, info.path)
    return KnownExposure(
        info=info,
        pixel_size_angstrom=optics.pixel_size_angstrom,
        voltage_kilovolt=optics.voltage_kilovolt,
        frame_dose_e_per_square_angstrom=dose,
        gain=_gain(stated, metadata.gain_name, info.path),
        defects=defects,
        defects_stated=stated.defects is not None,
        dark=stated.dark,
        counts_per_electron=_counts_per_electron(stated, metadata),
        warnings=(
            *about_metadata,
            *_contradictions(stated, info, camera_frames_per_frame),
            *about_dose,
            *about_defects,
        ),
    )


def _contradictions(stated: Stated, info: MovieInfo, camera_frames_per_frame: int) -> tuple[str, ...]:
    """What the user says otherwise than what lies beside the movie and its header: it counts, and may be a slip."""
    optics = find_metadata(info, ExposureMetadata())[0].optics
    known_dose, _ = _frame_dose(Stated(), optics, info, camera_frames_per_frame)
    said_dose = stated.dose_per_camera_frame_e_per_square_angstrom
    if said_dose is None:
        said_dose = stated.dose_per_frame_e_per_square_angstrom
        known_dose = None if known_dose is None else known_dose * camera_frames_per_frame
    return (
        *contradiction("--pixel-size", "Å", stated.pixel_size_angstrom, optics.pixel_size_angstrom),
        *contradiction("--voltage", "kV", stated.voltage_kilovolt, optics.voltage_kilovolt),
        *contradiction("--dose-per-frame", "e⁻/Å²", said_dose, known_dose, tolerance=_SAME_DOSE),
    )


def contradiction(
    option: str, unit: str, said: float | None, known: float | None, *, tolerance: float = _SAME
) -> tuple[str, ...]:
    """The sentence that an option's value is not that of the metadata, where it differs by more than the tolerance, a
    fraction of 1; nothing where it is the same, or one of the two is None."""
    if said is None or known is None or math.isclose(said, known, rel_tol=tolerance):
        return ()
    return (f"{option} {said:.4g} {unit} was used; its metadata say {known:.4g} {unit}.",)


def share_of_dose(
    total_e_per_square_angstrom: float, planned: int | None, info: MovieInfo
) -> tuple[float | None, tuple[str, ...]]:
    """A camera frame's share of the exposure's dose, and a warning where the metadata count other frames than the file.

    A camera that stops halfway writes half the frames, and each has its share of the whole dose all the same. An EER
    file's frames are made on reading: the metadata's count says nothing of them. None where nobody knows how many
    frames there were: the file is cut, and the metadata does not count them.
    """
    counts = planned is not None and info.container != "eer"
    if info.is_cut and not counts:
        return None, (
            f"The file ends after {_frames(info.frames)} and nothing says how many there were: the dose of one is not "
            "known.",
        )
    if planned is None or not counts or planned == info.frames:
        return total_e_per_square_angstrom / info.frames, ()
    said = f"The metadata says {_frames(planned)}, the file has {info.frames}; each is given 1/{planned} of the dose."
    return total_e_per_square_angstrom / planned, (said,)


def _frames(count: int) -> str:
    return f"{count} frame{'s' * (count != 1)}"


def _frame_dose(
    stated: Stated, optics: Optics, info: MovieInfo, camera_frames_per_frame: int
) -> tuple[float | None, tuple[str, ...]]:
    if stated.dose_per_camera_frame_e_per_square_angstrom is not None:
        return stated.dose_per_camera_frame_e_per_square_angstrom, ()
    if stated.dose_per_frame_e_per_square_angstrom is not None:
        return stated.dose_per_frame_e_per_square_angstrom / camera_frames_per_frame, ()
    if optics.dose_e_per_square_angstrom is None:
        return None, ()
    return share_of_dose(optics.dose_e_per_square_angstrom, optics.frame_count, info)


def _counts_per_electron(stated: Stated, metadata: ExposureMetadata) -> float:
    """The user's, or for an integrating camera, whose dark reference is given, the mdoc's. A counting camera's frames
    count electrons, and SerialEM's number is for the image that it shows."""
    if stated.counts_per_electron is not None:
        return stated.counts_per_electron
    return metadata.counts_per_electron or 1.0 if stated.dark is not None else 1.0


def find_metadata(info: MovieInfo, own: ExposureMetadata) -> tuple[ExposureMetadata, tuple[str, ...]]:
    """What is known already (`own`), what mdoc or XML beside the file say where that is silent, and its headers where
    these are. What cannot be used is said in the warnings, and is as if it were not there."""
    found, warnings = own, list[str]()
    for path in _descriptions(info.path):
        try:
            said = read_exposure_xml(path) if path.suffix.lower() == ".xml" else read_mdoc(path)
        except FormatError as error:
            warnings.append(_unused(error, "It was not used."))
            continue
        found = found.over(_possible(said, found, path, warnings))
    try:
        found = found.over(_possible(header_metadata(info), found, info.path, warnings))
    except MetadataError as error:
        warnings.append(_unused(error, "Its header was not used."))
    return found, tuple(warnings)


def _possible(said: ExposureMetadata, known: ExposureMetadata, path: Path, warnings: list[str]) -> ExposureMetadata:
    """The metadata of one source without the values that cannot be true; there is a warning of those that are not
    `known` from a better one."""

    def check(value: float | None, better: object, kind: tuple[str, str, tuple[float, float]]) -> bool:
        error = _impossible(value, kind, path)
        if error is not None and better is None:
            warnings.append(_unused(error, "It was not used."))
        return error is None

    wrong = {
        name: None
        for name, kind in _OPTICS.items()
        if not check(getattr(said.optics, name), getattr(known.optics, name), kind)
    }
    right_counts = check(said.counts_per_electron, known.counts_per_electron, _COUNTS)
    return replace(
        said,
        optics=replace(said.optics, **wrong),
        counts_per_electron=said.counts_per_electron if right_counts else None,
    )


def _refuse_impossible(stated: Stated, movie: Path) -> None:
    dose = _OPTICS["dose_e_per_square_angstrom"]
    for value, kind in (
        (stated.pixel_size_angstrom, _OPTICS["pixel_size_angstrom"]),
        (stated.voltage_kilovolt, _OPTICS["voltage_kilovolt"]),
        (stated.dose_per_frame_e_per_square_angstrom, dose),
        (stated.dose_per_camera_frame_e_per_square_angstrom, dose),
        (stated.counts_per_electron, _COUNTS),
    ):
        error = _impossible(value, kind, movie)
        if error is not None:
            raise ProcessingError(
                error.found, expected=error.expected, remedy="Is it given in another unit?", path=movie
            )


def _impossible(value: float | None, kind: tuple[str, str, tuple[float, float]], path: Path) -> MetadataError | None:
    what, unit, (least, most) = kind
    if value is None or least <= value <= most:
        return None
    return MetadataError(f"{what} is {float(value):g} {unit}", expected=f"from {least:g} to {most:g}", path=path)


def _unused(error: FormatError, so: str) -> str:
    said = str(error)
    return f"{said}{'' if said.endswith(('.', '?')) else '.'} {so}"


def _descriptions(movie: Path) -> Iterator[Path]:
    """The files beside a movie that may tell of it, and those beside the file that it is a link to."""
    for place in _places(movie):
        stem = place.stem
        names = (f"{place.name}.mdoc", f"{stem}.mdoc", f"{_FRACTIONS.sub('', stem) or stem}.xml", f"{stem}.xml")
        yield from (path for name in dict.fromkeys(names) if (path := place.with_name(name)).is_file())


def _places(movie: Path) -> tuple[Path, ...]:
    """Where a movie is: as it is named, and where its link leads to, if it is one."""
    return (movie, movie.resolve()) if movie.is_symlink() else (movie,)


def header_metadata(info: MovieInfo) -> ExposureMetadata:
    """What a file's own headers say, true or not; a pixel size of 1 Å in an MRC says nothing.

    Raises MetadataError where the extended header cannot be.
    """
    pixel = info.pixel_size_angstrom
    if info.container == "mrc" and pixel == _UNSET_PIXEL_SIZE_ANGSTROM:
        pixel = None
    plain = ExposureMetadata(optics=Optics(pixel_size_angstrom=pixel))
    extended = read_extended_header(info.path) if info.container == "mrc" else None
    return plain if extended is None else extended.over(plain)


def _gain(stated: Stated, named: str | None, movie: Path) -> Path | None:
    if stated.no_gain or stated.gain is not None or not named:
        return stated.gain
    found = _reference(named, movie)
    if found is None:
        raise ProcessingError(
            f"its metadata name the gain reference {printable(named)}, which is neither beside it nor one folder up",
            remedy="Bring it, give one with --gain FILE, or say --gain none",
            path=movie,
        )
    return found


def _defects(stated: Stated, named: str | None, movie: Path) -> tuple[Path | None, tuple[str, ...]]:
    if stated.defects is not None or not named:
        return stated.defects, ()
    found = _reference(named, movie)
    missing = f"The defect list {printable(named)} is not there; defects are found from the movie alone."
    return found, () if found else (missing,)


def _reference(name: str, movie: Path) -> Path | None:
    """A reference that the metadata name, perhaps with the camera computer's own path: beside the movie, or one up."""
    base = name.replace("\\", "/").rpartition("/")[2]
    if base in ("", ".", ".."):
        return None
    folders = [folder for place in _places(movie) for folder in (place.parent, place.absolute().parent.parent)]
    return next((path for folder in folders if (path := folder / base).is_file()), None)


def lacking(
    path: Path, pixel_size: float | None, voltage: float | None, sought: str, warnings: tuple[str, ...]
) -> ProcessingError:
    """The error that says which of the two is None, where it was `sought` ("neither … nor …"), what of the metadata
    could not be used, and which option gives it."""
    values = {"pixel size": ("--pixel-size Å", pixel_size), "voltage": ("--voltage kV", voltage)}
    missing = {name: option for name, (option, value) in values.items() if value is None}
    verb = "is" if len(missing) == 1 else "are"
    why = f" ({' '.join(warnings)})" if warnings else ""
    return ProcessingError(
        f"{' and '.join(missing)} {verb} not known, {sought}{why}",
        remedy=f"Give with {' and '.join(missing.values())}",
        path=path,
    )

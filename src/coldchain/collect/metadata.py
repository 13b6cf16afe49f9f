"""What is known about an exposure from its files: exposure XML, mdoc, extended and plain headers, references.

XML and mdoc are what the operator's software meant; a header fills in what they leave out and never overrules them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coldchain.collect.layout import split_suffix
from coldchain.formats.epu import read_exposure_xml
from coldchain.formats.fei import read_extended_header
from coldchain.formats.mdoc import read_mdoc
from coldchain.formats.movie import MovieInfo
from coldchain.model.optics import ExposureMetadata, Optics

_UNSET_PIXEL_SIZE_ANGSTROM = 1.0


@dataclass(frozen=True, slots=True)
class References:
    """A session's gain and defect files, relative to its folder, in the order of their arrival."""

    gains: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()


def read_description(path: Path) -> ExposureMetadata | None:
    """What an exposure's XML or mdoc says; None where the file is neither.

    Raises MetadataError where it is one of the two and cannot be used, StorageError where it cannot be read.
    """
    suffix = split_suffix(path.name)[1]
    if suffix == ".xml":
        return read_exposure_xml(path)
    if suffix == ".mdoc":
        return read_mdoc(path)
    return None


def header_metadata(path: Path, info: MovieInfo) -> ExposureMetadata:
    """What an image's own headers say, the extended header over the plain one.

    A plain MRC header that gives exactly 1 Å says nothing: it is what most programs write where they know nothing, and
    a wrong pixel size spoils every later number, where a missing one is asked for. The count of frames is left out for
    a single image.
    """
    pixel = info.pixel_size_angstrom
    if info.container == "mrc" and pixel == _UNSET_PIXEL_SIZE_ANGSTROM:
        pixel = None
    frames = info.frames if info.frames > 1 else None
    plain = ExposureMetadata(optics=Optics(pixel_size_angstrom=pixel, frame_count=frames), source="header")
    extended = read_extended_header(path) if info.container == "mrc" else None
    return plain if extended is None else extended.over(plain)


def with_references(metadata: ExposureMetadata, references: References, exposure_name: str) -> ExposureMetadata:
    """The metadata with `optics.gain` and `defects_name` as paths of reference files, relative to the session's folder.

    Where the metadata names no gain, the first in the session's folder counts, and one that is noted already stays.
    Where it names one, none but that file will do: as long as no such file has arrived, `optics.gain` is its bare name,
    so that the exposure waits for it and says so (the instrument's own gain does not stand in: metadata counts over it,
    a session's `--gain` over both); when it arrives, its path takes the name's place. A movie that is normalised
    already names none: SerialEM writes `GainReference` only where frames are saved unnormalised, and for EER (its help,
    "Frame File Options Dialog"). A defect list that does not arrive keeps its name.
    """
    defects = choose_reference(metadata.defects_name, references.defects, exposure_name) or metadata.defects_name
    gain = _choose_gain(metadata, references, exposure_name)
    return replace(metadata, optics=replace(metadata.optics, gain=gain), defects_name=defects)


def _choose_gain(metadata: ExposureMetadata, references: References, exposure_name: str) -> str | None:
    noted, named = metadata.optics.gain, metadata.gain_name
    if named is None:
        return noted or choose_reference(None, references.gains, exposure_name)
    if noted in references.gains and _same_name(noted, named):
        return noted
    return choose_reference(named, references.gains, exposure_name) or _base_name(named)


def choose_reference(named: str | None, paths: Sequence[str], exposure_name: str) -> str | None:
    """The reference file of an exposure, as a path relative to its session's folder; None where there is none.

    Where the metadata names a file (perhaps with the camera computer's own path, in either slash), it is that file and
    no other: beside the exposure, else in the session's folder, else wherever it lies. Where it names none, it is the
    file in the session's folder itself that arrived first.

    Parameters
    ----------
    named : the file's name as the metadata gives it.
    paths : the session's files of that kind, in the order of their arrival.
    exposure_name : the exposure's name: its path in the session without suffixes.
    """
    if named is None:
        return next((path for path in paths if "/" not in path), None)
    folder = exposure_name.rpartition("/")[0]
    same = [path for path in paths if _same_name(path, named)]
    return min(same, key=lambda path: _distance(path, folder), default=None)


def _distance(path: str, folder: str) -> int:
    lies_in = path.rpartition("/")[0]
    return 0 if lies_in == folder else 1 if lies_in == "" else 2


def _same_name(path: str, named: str) -> bool:
    return path.rpartition("/")[2].casefold() == _base_name(named).casefold()


def _base_name(named: str) -> str:
    return named.replace("\\", "/").rpartition("/")[2]

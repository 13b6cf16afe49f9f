"""What is in a file: whether it is whole and may be read, what kind of file it really is, what it says.

The readers of the formats take a path, and a folder on the way may be swapped for a symbolic link under them. So
whoever looks inside compares `identity_of` before and after, and throws away what was read where it differs.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from coldchain.collect.frame_sets import of_many
from coldchain.collect.layout import MOVIE_SUFFIXES, Placement, exposure_name, is_exposure_of_epu, split_suffix
from coldchain.collect.metadata import header_metadata, read_description
from coldchain.errors import (
    ColdchainError,
    FormatError,
    IncompleteFileError,
    MetadataError,
    StorageError,
    printable,
)
from coldchain.formats.beneath import lstat_beneath, open_beneath
from coldchain.formats.mdoc import FrameSet, is_stack_of_images, read_frame_sets
from coldchain.formats.movie import probe_movie
from coldchain.formats.structure import check_structure
from coldchain.model.files import FileKind
from coldchain.model.optics import ExposureMetadata

IMAGES = (FileKind.MOVIE, FileKind.MICROGRAPH)
REFERENCES = (FileKind.GAIN, FileKind.DEFECTS)
_PARTNER_ENDINGS = (*sorted(MOVIE_SUFFIXES), "_fractions.tiff", "_Fractions.mrc", "_EER.eer", ".xml", ".mdoc")
_PNG_COLOUR_TYPE_BYTE = 25
_PNG_GREY_TYPES = (b"\x00", b"\x04")  # without and with transparency
_WHOLE_REMEDY = "Bring the whole file; it is looked at again when it changes"
_ACCESS_REMEDY = "Give the account that runs Coldchain permission to read it; it is tried again by itself"


@dataclass(frozen=True, slots=True)
class Content:
    """What a whole file turned out to be: its placement, the kind made sure of, and what it says of its exposure, or of
    several (`frame_sets`, which name the movies).

    `mistaken_for` is the exposure that its name alone, or an earlier version of it, makes of a file that is none.
    """

    placement: Placement
    description: ExposureMetadata | None = None
    header: ExposureMetadata | None = None
    complaint: str = ""
    frame_sets: tuple[FrameSet, ...] = ()
    mistaken_for: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a file from another one in its place, and from itself after a change."""

    inode: int
    size_bytes: int
    modified_ns: int


def identity_of(root: Path, path: str) -> Identity | None:
    """The regular file at `path` below `root`, no link followed on the way; None where there is none.

    Raises OSError where that cannot be told now: a folder on the way may not be entered, or its mount is away.
    """
    try:
        status = lstat_beneath(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    if not stat.S_ISREG(status.st_mode):
        return None
    return Identity(status.st_ino, status.st_size, status.st_mtime_ns)


def look_inside(root: Path, path: str, placement: Placement) -> Content:
    """Examine a file's structure and make sure of its kind. Raises FormatError, StorageError, OSError.

    `path` is relative to the movie root `root`.
    """
    _try_to_read(root, path)
    absolute = root / path
    if placement.kind is FileKind.OTHER:
        return Content(placement)
    check_structure(absolute)
    if placement.kind in (*IMAGES, *REFERENCES) and split_suffix(absolute.name)[1] in MOVIE_SUFFIXES:
        return _image_content(absolute, placement)
    if placement.kind is FileKind.MICROGRAPH:
        return Content(placement if is_micrograph_picture(absolute) else replace(placement, kind=FileKind.PREVIEW))
    if placement.kind is FileKind.METADATA and placement.exposure_name is not None:
        return _description_content(absolute, placement)
    return Content(placement)


def _image_content(absolute: Path, placement: Placement) -> Content:
    info = probe_movie(absolute)
    placement = refine(placement, info.frames, info.container)
    if placement.kind not in IMAGES:
        return Content(placement)
    if info.frames > 1 and _is_stack_of_images(absolute):
        other = replace(placement, kind=FileKind.OTHER, exposure_name=None)
        return Content(other, mistaken_for=placement.exposure_name)
    try:
        return Content(placement, header=header_metadata(absolute, info))
    except MetadataError as error:
        # The pixels may be whole and the header's values nonsense: the image counts, and the exposure asks for values.
        return Content(placement, complaint=f"{printable(placement.path_in_session)}: {words(error)}")


def refine(placement: Placement, frames: int, container: str) -> Placement:
    """The placement with its kind decided by what is in the file: one frame is a micrograph, several are a movie,
    even where the name speaks of a gain reference. An EER file is always a movie. Pure."""
    several = frames > 1 or container == "eer"
    if placement.kind in REFERENCES:
        if not several:
            return placement
        return replace(placement, kind=FileKind.MOVIE, exposure_name=exposure_name(placement.path_in_session))
    return replace(placement, kind=FileKind.MOVIE if several else FileKind.MICROGRAPH)


def _description_content(absolute: Path, placement: Placement) -> Content:
    """An XML or mdoc. One that is no exposure's is kept all the same; it is worth an event only where its name promises
    otherwise."""
    try:
        if split_suffix(absolute.name)[1] == ".mdoc":
            return _mdoc_content(absolute, placement)
        return Content(placement, description=read_description(absolute))
    except MetadataError as error:
        promised = is_exposure_of_epu(absolute.name) or split_suffix(absolute.name)[1] == ".mdoc"
        where = printable(placement.path_in_session)
        return Content(placement, complaint=f"{where}: {words(error)}" if promised else "")


def _mdoc_content(absolute: Path, placement: Placement) -> Content:
    """What an mdoc says of the movie of its own name, or of those that it names."""
    mdoc = read_frame_sets(absolute)
    many = of_many(mdoc, absolute.name)
    if many is None:
        return Content(placement, description=read_description(absolute))
    fault = f"{printable(placement.path_in_session)}: {printable(mdoc.fault)}" if mdoc.fault else ""
    return Content(replace(placement, exposure_name=None), complaint=fault, frame_sets=many)


def _is_stack_of_images(absolute: Path) -> bool:
    """Whether the mdoc beside an image says that it holds images, a tilt series' perhaps, and not a movie's frames."""
    mdoc = absolute.with_name(f"{absolute.name}.mdoc")
    try:
        return mdoc.is_file() and not mdoc.is_symlink() and is_stack_of_images(mdoc)
    except (FormatError, StorageError, OSError):
        return False


def is_micrograph_picture(absolute: Path) -> bool:
    """Whether a PNG is a micrograph: grey, and with no movie and no description of its own name beside it."""
    with absolute.open("rb") as stream:
        header = stream.read(_PNG_COLOUR_TYPE_BYTE + 1)
    if header[_PNG_COLOUR_TYPE_BYTE:] not in _PNG_GREY_TYPES:
        return False
    stem = split_suffix(absolute.name)[0]
    return not any(os.path.lexists(absolute.with_name(stem + ending)) for ending in _PARTNER_ENDINGS)


def _try_to_read(root: Path, path: str) -> None:
    descriptor = open_beneath(root, path)
    try:
        os.read(descriptor, 1)
    finally:
        os.close(descriptor)


def words(error: ColdchainError | OSError) -> str:
    """An error in words that can be printed, without the path that stands beside it anyway."""
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror}). {_ACCESS_REMEDY}"
    expected = f"; expected {error.expected}" if error.expected else ""
    remedy = _WHOLE_REMEDY if isinstance(error, IncompleteFileError) else error.remedy  # it was waited for long enough
    return printable(f"{error.found}{expected}" + (f". {remedy}" if remedy else ""))

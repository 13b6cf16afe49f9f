"""What a file is, by its first bytes; its name decides only where those say nothing."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats.files import reading
from coldchain.formats.ifd import is_tiff
from coldchain.formats.mrc import HEADER_BYTES

PNG_START = b"\x89PNG"
_JPEG_START = b"\xff\xd8\xff"
_MRC_SUFFIXES = frozenset((".mrc", ".mrcs", ".map", ".st", ".ali", ".rec"))
_TIFF_SUFFIXES = frozenset((".tif", ".tiff", ".gain"))
_PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg"))
_LIST_SUFFIXES = frozenset((".txt", ".lst"))
_DM_SUFFIXES = frozenset((".dm3", ".dm4"))


class Container(StrEnum):
    """The kinds of image file that are read."""

    MRC = "mrc"
    TIFF = "tiff"
    EER = "eer"
    PICTURE = "image"  # PNG and JPEG
    LIST = "list"  # a text that names a movie's frames, one file each


def container_of(path: Path) -> Container:
    """The container of an image file.

    An EER is told from other TIFFs by its suffix `.eer`: its first directory may be an ordinary image. What is named
    `.txt` or `.lst` and does not begin as an image does is a list of frames. Raises
    IncompleteFileError for an empty file, FormatError with a remedy for what is not read, StorageError where the file
    cannot be read.
    """
    with reading(path) as stream:
        head = stream.read(HEADER_BYTES)
    suffix = path.suffix.lower()
    if not head:
        raise IncompleteFileError(
            "the file is empty", remedy="Wait until it is written, or fetch it from the camera again", path=path
        )
    if is_tiff(head):
        return Container.EER if suffix == ".eer" else Container.TIFF
    if head.startswith((PNG_START, _JPEG_START)):
        return Container.PICTURE
    if head[208:211] == b"MAP" or suffix in _MRC_SUFFIXES:
        return Container.MRC
    if suffix in _LIST_SUFFIXES:
        return Container.LIST
    if suffix in _DM_SUFFIXES:
        raise FormatError(
            "DigitalMicrograph files are not read",
            expected="MRC or TIFF",
            remedy=f"Convert it with IMOD: dm2mrc {path.name} {path.stem}.mrc",
            path=path,
        )
    if not any(head) or len(head) < 8:
        raise IncompleteFileError(
            "the file has no header yet",
            remedy="Wait until it is written, or fetch it from the camera again",
            path=path,
        )
    expected = "an EER" if suffix == ".eer" else "MRC, TIFF, EER, PNG or JPEG"
    if suffix in _TIFF_SUFFIXES:
        expected = "a TIFF"
    elif suffix in _PICTURE_SUFFIXES:
        expected = "a PNG or JPEG"
    raise FormatError(
        f"the file begins with {head[:4].hex(' ')}",
        expected=expected,
        remedy="Fetch the file from the camera again, or convert it",
        path=path,
    )

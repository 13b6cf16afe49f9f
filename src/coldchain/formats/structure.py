"""Whether a file is whole by its own structure, without decoding a pixel."""

from __future__ import annotations

from pathlib import Path

from coldchain.errors import IncompleteFileError
from coldchain.formats.container import Container, container_of
from coldchain.formats.document import read_xml
from coldchain.formats.eer import check_streams, event_pages
from coldchain.formats.files import reading, size_of
from coldchain.formats.ifd import read_pages
from coldchain.formats.mrc import check_size, read_header
from coldchain.formats.picture import check_picture
from coldchain.formats.tiff import frame_pages

_CONTAINER_SUFFIXES = frozenset((".mrc", ".mrcs", ".tif", ".tiff", ".eer", ".gain", ".png"))
_XML_SUFFIXES = frozenset((".xml", ".dm"))


def check_structure(path: Path) -> None:
    """Return where the file is whole as far as its structure says; raise otherwise.

    MRC: the file is as long as its header says. TIFF, EER and `.gain`: the chain of directories and every strip lie
    inside the file, no two strips share bytes, and an EER's streams are long enough for its sensor. PNG: its chunks
    chain to the end, and their check sums agree. A JPEG under one of their names: it has a header and an end. XML and
    EPU's `.dm`: the document parses to its end. Everything else is whole unless it is empty.

    Raises IncompleteFileError where the file ends too early (it may still grow), FormatError where no more bytes would
    help, StorageError where it cannot be read. A TIFF or EER that is still being written is whole between two frames;
    so this complements, and does not replace, seeing it closed.
    """
    suffix = path.suffix.lower()
    if suffix in _CONTAINER_SUFFIXES:
        _check_container(path)
    elif suffix in _XML_SUFFIXES:
        read_xml(path)
    else:
        _check_not_empty(path)


def _check_container(path: Path) -> None:
    kind = container_of(path)
    if kind is Container.MRC:
        header = read_header(path)
        with reading(path) as stream:
            check_size(header, size_of(stream), path)
    elif kind is Container.EER:
        check_streams(event_pages(read_pages(path), path), path)
    elif kind is Container.TIFF:
        # A camera's gain file may carry more than its gain; a movie's pages must be alike.
        frame_pages(read_pages(path), path, count=1 if path.suffix.lower() == ".gain" else None)
    else:
        check_picture(path)


def _check_not_empty(path: Path) -> None:
    with reading(path) as stream:
        if size_of(stream) == 0:
            raise IncompleteFileError(
                "the file is empty", remedy="Wait until it is written, or fetch it again", path=path
            )

"""TIFF movies and images, as cameras write them and as we write them.

A TIFF's first row is the picture's top: rows are reversed on reading and on writing, as RELION, MotionCor2 and IMOD
do, so that arrays here begin with the picture's bottom row. Every directory that is no thumbnail is a frame, whatever
its tags say beside the picture's shape and type.

Threads share out runs of strips, not frames, so that a movie of few frames keeps as many threads busy as one of many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats.arrays import allocate
from coldchain.formats.files import reading, replacing
from coldchain.formats.ifd import Page, survey
from coldchain.formats.loading import BadFrames, LoadedMovie, MovieReading, loaded
from coldchain.formats.strips import decode_strips, fault_of, layout_of
from coldchain.formats.workers import run_all

Compression = Literal["lzw", "deflate", "none"]

_TIFFFILE_COMPRESSION = {"lzw": "lzw", "deflate": "zlib", "none": None}
_ANGSTROM_PER_CENTIMETER = 1e8
_LARGEST_PIXEL_SIZE_ANGSTROM = 1000.0
# A thread decodes about so much before it takes the next run: little beside a movie, much beside the taking.
_RUN_BYTES = 1 << 20


def frame_pages(pages: Sequence[Page], path: Path, *, count: int | None = None) -> tuple[Page, ...]:
    """The first `count` pages (all by default) that are frames: thumbnails are left out, and all must have one shape
    and type (else FormatError)."""
    frames = (tuple(page for page in pages if not page.reduced) or tuple(pages))[:count]
    first = frames[0]
    for page in frames:
        if _shape_and_type(page) != _shape_and_type(first):
            raise FormatError(
                f"page {page.index + 1} is {page.width} × {page.height} with {page.bits_per_sample} bits",
                expected=f"{first.width} × {first.height} with {first.bits_per_sample} bits, as page {first.index + 1}",
                remedy="The file is no movie, or it is damaged; fetch it from the camera again",
                path=path,
            )
    return frames


def _shape_and_type(page: Page) -> tuple[int, ...]:
    return page.height, page.width, page.bits_per_sample, page.sample_format, page.samples_per_pixel


def pixel_size_angstrom(page: Page) -> float | None:
    """The pixel size that the resolution tags give, as SerialEM and IMOD write them; None where it cannot be one."""
    if page.resolution_per_centimeter is None:
        return None
    size = _ANGSTROM_PER_CENTIMETER / page.resolution_per_centimeter
    return size if size < _LARGEST_PIXEL_SIZE_ANGSTROM else None


def read_tiff(path: Path, *, threads: int = 1, count: int | None = None) -> NDArray[Any]:
    """The first `count` pages (all by default) as (frame, row, column), bottom row first. Raises as `load_tiff`."""
    return load_tiff(path, MovieReading(threads=threads), count=count).frames


def read_first_page(path: Path) -> NDArray[Any]:
    """The first page (row, column), bottom row first. Raises as `load_tiff`."""
    page: NDArray[Any] = read_tiff(path, count=1)[0]
    return page


def load_tiff(path: Path, how: MovieReading, *, count: int | None = None) -> LoadedMovie:
    """The frames that `how` asks for, of the first `count` pages (all by default).

    A frame is bad where one of its strips lies outside the file, cannot be decoded or is too short. The file may end
    before its last directory if no frame from there on is asked for.

    Raises IncompleteFileError and FormatError as `ifd.survey`; FormatError naming frame and strip (both from 1) where
    more frames are bad than are tolerated, where the pixels take more than 64 GiB or more than their strips can hold,
    and where the compression is not known; UsageError where frames are asked for that there are not; StorageError where
    the file cannot be read.
    """
    with reading(path) as stream:
        directories = survey(stream, path)
        pages = frame_pages(directories.pages, path, count=count)
        if directories.broken is not None and count is None and (how.last_frame is None or how.last_frame > len(pages)):
            raise directories.broken
        chosen = how.chosen(len(pages), path)
        layout = layout_of(pages[0], path)
        bad = BadFrames(how.tolerate_frames, path)
        runs: list[tuple[int, int, int]] = []
        for index in chosen:
            fault = fault_of(pages[index], layout, path)
            if fault is not None:
                bad.add(index + 1, fault)
            else:
                runs += _runs(index, pages[index], layout.frame_bytes)
        stack = allocate((len(chosen), layout.height, layout.width), layout.dtype, path)

        def decode(number: int) -> None:
            index, first, end = runs[number]
            if index + 1 in bad:
                return
            frame = stack[index - chosen.start]
            failed = decode_strips(stream.fileno(), pages[index], first, end, layout, frame)
            if failed is not None:
                strip, why = failed
                bad.add(index + 1, _strip_error(index + 1, pages[index], strip, why, path), part=strip)

        run_all(decode, len(runs), how.threads)
    held = np.array([index + 1 not in bad for index in chosen], dtype=np.int64)
    return loaded(stack, held, chosen.start + 1, bad, path)


def _runs(index: int, page: Page, frame_bytes: int) -> list[tuple[int, int, int]]:
    """A page's strips in runs: (page's index, first strip, behind the last)."""
    strips = len(page.segments)
    step = max(1, strips * _RUN_BYTES // frame_bytes)
    return [(index, first, min(first + step, strips)) for first in range(0, strips, step)]


def _strip_error(frame_number: int, page: Page, strip: int, why: str, path: Path) -> FormatError:
    return FormatError(
        f"strip {strip + 1} of frame {frame_number} cannot be decoded: {why}",
        expected=f"its pixels from {page.segments[strip, 1]:,} bytes with compression {page.compression}",
        remedy="Fetch the file from the camera again; if it is damaged there too, the exposure is lost",
        path=path,
    )


def write_tiff_movie(
    path: Path,
    frames: Iterable[NDArray[Any]],
    *,
    compression: Compression = "lzw",
    big: bool = False,
    pixel_size_angstrom: float | None = None,
) -> None:
    """Write frames (row, column) as pages, the picture's top row first, one strip per few rows as cameras do.

    All frames share one shape and type. `big` makes a BigTIFF, which files over 4 GB need. The pixel size goes into
    the resolution tags. Nobody sees half a file. Raises FormatError without frames, StorageError where the file
    cannot be written.
    """
    resolution = None if pixel_size_angstrom is None else (_resolution(pixel_size_angstrom),) * 2
    written = 0
    with replacing(path) as stream:
        with tifffile.TiffWriter(stream, bigtiff=big) as writer:
            for frame in frames:
                writer.write(
                    np.ascontiguousarray(frame[::-1]),
                    photometric="minisblack",
                    compression=_TIFFFILE_COMPRESSION[compression],
                    resolution=resolution,
                    resolutionunit=None if resolution is None else "CENTIMETER",
                    metadata=None,
                    software=False,
                )
                written += 1
        if not written:
            raise FormatError("no frames were given", expected="at least one", path=path)


def _resolution(size_angstrom: float) -> tuple[int, int]:
    return round(_ANGSTROM_PER_CENTIMETER / size_angstrom * 8), 8

"""Movies of one file a frame, given by a text file that names them.

The list is called `.txt` or `.lst`. It names one image a line, in the order of the exposure; empty lines and lines that
begin with `#` are passed over. Names are relative to the list's own folder, and lie in it or below it: an absolute name
or one with `..` is refused, so that a list that came from elsewhere reads nothing but what lies beside it (or is linked
there). The images are MRC or TIFF, of one frame, one shape and one type.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError, IncompleteFileError, StorageError
from coldchain.formats.arrays import allocate
from coldchain.formats.container import Container, container_of
from coldchain.formats.files import reading
from coldchain.formats.ifd import read_pages
from coldchain.formats.loading import BadFrames, LoadedMovie, MovieReading, loaded
from coldchain.formats.mrc import load_mrc, read_header
from coldchain.formats.strips import layout_of
from coldchain.formats.tiff import frame_pages, load_tiff, pixel_size_angstrom
from coldchain.formats.workers import run_all
from coldchain.model.identity import is_safe_relative

_LARGEST_TEXT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """What the header of one frame's file says."""

    height: int
    width: int
    dtype: np.dtype[Any]
    pixel_size_angstrom: float | None


def read_frame_list(path: Path) -> tuple[Path, ...]:
    """The files that a list names, in its order.

    Raises FormatError where it is no text, names nothing or leads out of its folder; StorageError where it cannot be
    read.
    """
    with reading(path) as stream:
        data = stream.read(_LARGEST_TEXT_BYTES + 1)
    if len(data) > _LARGEST_TEXT_BYTES or b"\0" in data:
        raise FormatError(
            "the list of frames is no text" if b"\0" in data else "the list of frames is too long",
            expected="one file name a line",
            remedy="Give the movie itself, or a text that names its frames",
            path=path,
        )
    names = [name for line in data.splitlines() if (name := line.strip()) and not name.startswith(b"#")]
    if not names:
        raise IncompleteFileError(
            "the list names no frame", expected="one file name a line", remedy="Name the frames in it", path=path
        )
    return tuple(path.parent / _checked(os.fsdecode(name), path) for name in names)


def _checked(name: str, path: Path) -> PurePosixPath:
    relative = PurePosixPath(name)
    if not is_safe_relative(relative):
        raise FormatError(
            f"the list names {name!r}",
            expected="names of files in the list's folder or below it",
            remedy="Put the list into the frames' folder, or above it, and name them from there",
            path=path,
        )
    return relative


def probe_frames(paths: tuple[Path, ...]) -> FrameInfo:
    """What the first file of a list says that can be looked at; the first one's error where none can."""
    first_error: FormatError | StorageError | None = None
    for path in paths:
        try:
            return _probe(path)
        except (FormatError, StorageError) as failure:
            first_error = first_error or failure
    assert first_error is not None  # a list names at least one
    raise first_error


def _probe(path: Path) -> FrameInfo:
    kind = container_of(path)
    if kind is Container.MRC:
        header = read_header(path)
        frames = header.sections
        info = FrameInfo(header.height, header.width, header.dtype, header.pixel_size_angstrom)
    elif kind is Container.TIFF:
        pages = frame_pages(read_pages(path), path)
        layout = layout_of(pages[0], path)
        frames = len(pages)
        info = FrameInfo(layout.height, layout.width, layout.dtype, pixel_size_angstrom(pages[0]))
    else:
        raise FormatError("the list names what is no MRC or TIFF", expected="one image a line", path=path)
    if frames != 1:
        raise FormatError(f"the list names a file of {frames} frames", expected="one frame a file", path=path)
    return info


def load_frames(path: Path, how: MovieReading) -> LoadedMovie:
    """The frames of a list that `how` asks for.

    A frame is bad where its file is missing, cannot be read, is damaged, or differs from the others in shape or type.
    Raises as `read_frame_list`, FormatError naming the frame where more are bad than are tolerated, UsageError where
    frames are asked for that there are not.
    """
    paths = read_frame_list(path)
    chosen = how.chosen(len(paths), path)
    info = probe_frames(tuple(paths[index] for index in chosen))
    bad = BadFrames(how.tolerate_frames, path)
    stack = allocate((len(chosen), info.height, info.width), info.dtype, path)

    def load(index: int) -> None:
        number = chosen[index] + 1
        try:
            stack[index] = _frame(paths[number - 1], info)
        except (FormatError, StorageError) as failure:
            bad.add(number, _frame_error(failure, number, path))

    run_all(load, len(chosen), how.threads)
    held = np.array([index + 1 not in bad for index in chosen], dtype=np.int64)
    return loaded(stack, held, chosen.start + 1, bad, path)


def _frame(path: Path, expected: FrameInfo) -> NDArray[Any]:
    info = _probe(path)
    if (info.height, info.width, info.dtype) != (expected.height, expected.width, expected.dtype):
        raise FormatError(
            f"{info.width} × {info.height} pixels of type {info.dtype}",
            expected=f"{expected.width} × {expected.height} of type {expected.dtype}, as the others",
            remedy="Name the frames of one movie",
            path=path,
        )
    load = load_mrc if container_of(path) is Container.MRC else load_tiff
    frame: NDArray[Any] = load(path, MovieReading()).frames[0]
    return frame


def _frame_error(failure: FormatError | StorageError, number: int, path: Path) -> FormatError:
    """The same with the frame's number and file name in front, as a fault of the list's movie."""
    kind = type(failure) if isinstance(failure, FormatError) else FormatError
    where = failure.path.name if failure.path is not None else ""
    return kind(
        f"frame {number}, {where}: {failure.found}", expected=failure.expected, remedy=failure.remedy, path=path
    )

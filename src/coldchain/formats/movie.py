"""The one door to movies, whatever their container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldchain.formats.container import Container, container_of
from coldchain.formats.eer import event_pages, fraction_bounds, read_eer
from coldchain.formats.ifd import read_pages
from coldchain.formats.mrc import read_header, read_mrc
from coldchain.formats.picture import read_picture, read_picture_header
from coldchain.formats.tiff import frame_pages, page_dtype, pixel_size_angstrom, read_tiff


@dataclass(frozen=True, slots=True)
class MovieInfo:
    """What the headers say. `container` is "mrc", "tiff", "eer" or "image" (PNG, JPEG); `frames` of an EER are the
    camera's own, before they are gathered into fractions, and its size is the sensor's."""

    path: Path
    container: str
    frames: int
    height: int
    width: int
    dtype: str
    pixel_size_angstrom: float | None


def probe_movie(path: Path) -> MovieInfo:
    """What the headers of a movie or image say; no pixel is decoded, and no memory is taken for any.

    Raises IncompleteFileError and FormatError where the headers are cut or cannot be, StorageError where the file
    cannot be read.
    """
    kind = container_of(path)
    if kind is Container.MRC:
        header = read_header(path)
        size = header.pixel_size_angstrom
        return MovieInfo(path, kind, header.sections, header.height, header.width, header.dtype.name, size)
    if kind is Container.TIFF:
        pages = frame_pages(read_pages(path), path)
        first = pages[0]
        dtype = page_dtype(first, path).name
        return MovieInfo(path, kind, len(pages), first.height, first.width, dtype, pixel_size_angstrom(first))
    if kind is Container.EER:
        pages = event_pages(read_pages(path), path)
        return MovieInfo(path, kind, len(pages), pages[0].height, pages[0].width, "uint8", None)
    picture = read_picture_header(path)
    return MovieInfo(path, kind, 1, picture.rows, picture.columns, picture.dtype, None)


def frames_per_fraction(info: MovieInfo, *, eer_fractions: int | None = None) -> tuple[int, ...]:
    """How many of the camera's frames each frame holds that `read_movie` gives with the same `eer_fractions`.

    Always 1 but for an EER, whose numbers differ by one at most: its dose is to be shared out in their proportion.
    """
    if info.container != Container.EER:
        return (1,) * info.frames
    return tuple(int(count) for count in np.diff(fraction_bounds(info.frames, eer_fractions)))


def read_movie(
    path: Path, *, eer_fractions: int | None = None, eer_upsampling: int = 1, threads: int = 1
) -> NDArray[Any]:
    """The frames as (frame, row, column), the picture's bottom row first, in the camera's own type.

    16-bit floats become float32; a single image gives one frame; an EER is gathered into `eer_fractions` (40, or as
    many as it has frames if those are fewer) and counted on pixels of 1/`eer_upsampling`. Raises as `probe_movie`, and
    FormatError naming frame and strip where pixels cannot be decoded.
    """
    kind = container_of(path)
    if kind is Container.MRC:
        frames = read_mrc(path)
    elif kind is Container.TIFF:
        frames = read_tiff(path, threads=threads)
    elif kind is Container.EER:
        frames = read_eer(path, fractions=eer_fractions, upsampling=eer_upsampling, threads=threads)
    else:
        frames = read_picture(path)
    if frames.dtype == np.float16:
        frames = frames.astype(np.float32)
    return frames[np.newaxis] if frames.ndim == 2 else frames

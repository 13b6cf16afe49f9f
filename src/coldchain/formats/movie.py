"""The one door to movies, whatever their container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coldchain.errors import UsageError
from coldchain.formats.container import Container, container_of
from coldchain.formats.eer import check_streams, event_pages, fraction_bounds, load_eer
from coldchain.formats.files import reading
from coldchain.formats.framelist import load_frames, probe_frames, read_frame_list
from coldchain.formats.ifd import Page, read_pages, survey
from coldchain.formats.loading import BadFrames, LeftOut, LoadedMovie, MovieReading, loaded
from coldchain.formats.mrc import load_mrc, read_header
from coldchain.formats.picture import read_picture, read_picture_header
from coldchain.formats.strips import layout_of
from coldchain.formats.tiff import frame_pages, load_tiff, pixel_size_angstrom

__all__ = [
    "LeftOut",
    "LoadedMovie",
    "MovieInfo",
    "MovieReading",
    "fractions_for_dose",
    "frames_per_fraction",
    "load_movie",
    "probe_movie",
]

_WHOLE = MovieReading()


@dataclass(frozen=True, slots=True)
class MovieInfo:
    """What the headers say. `container` is "mrc", "tiff", "eer", "list" (of frames) or "image" (PNG, JPEG); `frames` of
    an EER are the camera's own, before they are gathered into fractions, and its size is the sensor's. `is_cut`: the
    file ends before its directories do, and `frames` are those up to there."""

    path: Path
    container: str
    frames: int
    height: int
    width: int
    dtype: str
    pixel_size_angstrom: float | None
    is_cut: bool = False


def probe_movie(path: Path, *, whole: bool = True) -> MovieInfo:
    """What the headers of a movie or image say; no pixel is decoded, and no memory is taken for any.

    Of a list of frames the first file is looked at that can be. Raises IncompleteFileError and FormatError where the
    headers are cut or cannot be, StorageError where the file cannot be read. Unless it is to be `whole`, frames whose
    headers alone are there count, as far as the directories can be followed: `load_movie` may be told to go on without
    the rest.
    """
    kind = container_of(path)
    if kind is Container.MRC:
        header = read_header(path)
        size = header.pixel_size_angstrom
        return MovieInfo(path, kind, header.sections, header.height, header.width, header.dtype.name, size)
    if kind is Container.TIFF:
        found, is_cut = _pages(path, whole=whole)
        pages = frame_pages(found, path)
        layout, size = layout_of(pages[0], path), pixel_size_angstrom(pages[0])
        return MovieInfo(path, kind, len(pages), layout.height, layout.width, layout.dtype.name, size, is_cut)
    if kind is Container.EER:
        found, is_cut = _pages(path, whole=whole)
        pages = event_pages(found, path)
        if whole:
            check_streams(pages, path)
        return MovieInfo(path, kind, len(pages), pages[0].height, pages[0].width, "uint8", None, is_cut)
    if kind is Container.LIST:
        frames = read_frame_list(path)
        first = probe_frames(frames)
        size = first.pixel_size_angstrom
        return MovieInfo(path, kind, len(frames), first.height, first.width, first.dtype.name, size)
    picture = read_picture_header(path)
    return MovieInfo(path, kind, 1, picture.rows, picture.columns, picture.dtype, None)


def _pages(path: Path, *, whole: bool) -> tuple[tuple[Page, ...], bool]:
    """The directories, and whether there may be more behind the file's end."""
    if whole:
        return read_pages(path), False
    with reading(path) as stream:
        directories = survey(stream, path)
    return directories.pages, directories.broken is not None


def frames_per_fraction(info: MovieInfo, *, eer_fractions: int | None = None) -> tuple[int, ...]:
    """How many of the camera's frames each frame holds that `load_movie` gives with the same `eer_fractions`, if none
    is bad. Always 1 but for an EER; its fractions have the first one's number, and the last has the rest as well."""
    if info.container != Container.EER:
        return (1,) * info.frames
    return tuple(int(count) for count in np.diff(fraction_bounds(info.frames, eer_fractions)))


def fractions_for_dose(
    info: MovieInfo,
    *,
    total_dose_e_per_square_angstrom: float,
    dose_per_fraction_e_per_square_angstrom: float,
) -> int:
    """The `eer_fractions` with which a fraction of an EER has about the wanted dose: at least one, at most one a camera
    frame. UsageError where a dose is not above 0."""
    doses = total_dose_e_per_square_angstrom, dose_per_fraction_e_per_square_angstrom
    if not all(0 < dose < float("inf") for dose in doses):
        raise UsageError(
            f"a dose of {doses[0]:g} e⁻/Å² in fractions of {doses[1]:g}", expected="doses above 0", path=info.path
        )
    return max(1, min(info.frames, round(doses[0] / doses[1])))


def load_movie(path: Path, how: MovieReading = _WHOLE) -> LoadedMovie:
    """The frames of a movie, gathered, chosen and forgiven as `how` says.

    A single image gives one frame. Raises as `probe_movie`, UsageError where a frame is asked for that there is not,
    FormatError naming frame and strip where more frames cannot be decoded than are tolerated.
    """
    kind = container_of(path)
    if kind is Container.MRC:
        return load_mrc(path, how)
    if kind is Container.TIFF:
        return load_tiff(path, how)
    if kind is Container.EER:
        return load_eer(path, how)
    if kind is Container.LIST:
        return load_frames(path, how)
    how.chosen(1, path)
    one = np.ones(1, dtype=np.int64)
    return loaded(read_picture(path)[np.newaxis], one, 1, BadFrames(how.tolerate_frames, path), path)

"""A movie as the camera wrote it, in memory, with its references: all that has to be read before it can be aligned.

It stands apart from `alignment` so that reading can begin while the kernels are still being imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError, ProcessingError, UsageError
from coldchain.formats.defects import read_defects
from coldchain.formats.gain import read_dark, read_gain
from coldchain.formats.movie import LoadedMovie, MovieReading, fractions_for_dose, frames_per_fraction, load_movie
from coldchain.preprocess.exposure import KnownExposure
from coldchain.preprocess.wishes import FramesWanted

Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RawMovie:
    """The frames of a movie and its references.

    wanted : how it was read.
    frames : (frames, rows, columns), as the camera wrote them.
    numbers : (frames,) each frame's number in the movie, from 1.
    camera_frames : of each frame that the movie has, read or not, how many of the camera's it holds.
    left_out : sentences on the frames that were wanted and could not be read.
    gain, dark, defects : None where there is none.
    warnings : what the reader of a result should know.
    seconds : what reading took.
    """

    exposure: KnownExposure
    wanted: FramesWanted
    frames: NDArray[Any]
    numbers: tuple[int, ...]
    camera_frames: tuple[int, ...]
    left_out: tuple[str, ...]
    gain: Image | None
    dark: Image | None
    defects: NDArray[np.bool_] | None
    warnings: tuple[str, ...]
    seconds: float


class References:
    """Gain and dark references; the one of either kind that was read last is kept, as one serves a whole session."""

    def __init__(self) -> None:
        self._kept: dict[Callable[[Path], Image], tuple[tuple[Path, int, int], Image]] = {}

    def gain(self, path: Path | None) -> Image | None:
        """A gain reference; raises as `read_gain`."""
        return self._read(read_gain, path)

    def dark(self, path: Path | None) -> Image | None:
        """A dark reference; raises as `read_dark`."""
        return self._read(read_dark, path)

    def _read(self, read: Callable[[Path], Image], path: Path | None) -> Image | None:
        if path is None:
            return None
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns)
        if read not in self._kept or self._kept[read][0] != key:
            self._kept[read] = key, read(path)
        return self._kept[read][1]


def read_raw(
    exposure: KnownExposure, wanted: FramesWanted, references: References | None = None, *, threads: int = 1
) -> RawMovie:
    """Read a movie and its references. Raises as the formats do."""
    began = time.perf_counter()
    references = references or References()
    camera_frames = frames_per_fraction(exposure.info, eer_fractions=wanted.eer_fractions)
    _refuse_missing(wanted, len(camera_frames), exposure)
    gain, dark = references.gain(exposure.gain), references.dark(exposure.dark)
    movie = load_movie(
        exposure.movie,
        MovieReading(
            eer_fractions=wanted.eer_fractions,
            eer_upsampling=wanted.eer_upsampling,
            first_frame=wanted.first,
            last_frame=wanted.last,
            tolerate_frames=wanted.tolerate,
            threads=threads,
        ),
    )
    defects, warnings = _defects(exposure, (movie.frames.shape[1], movie.frames.shape[2]))
    return RawMovie(
        exposure=exposure,
        wanted=wanted,
        frames=movie.frames,
        numbers=movie.numbers,
        camera_frames=camera_frames,
        left_out=_left_out(movie, exposure),
        gain=gain,
        dark=dark,
        defects=defects,
        warnings=warnings,
        seconds=time.perf_counter() - began,
    )


def with_fractions(wanted: FramesWanted, exposure: KnownExposure) -> FramesWanted:
    """The same with the number of an EER's fractions, where these are wanted by their dose.

    Raises ProcessingError where the dose is not known.
    """
    dose = wanted.eer_dose_e_per_square_angstrom
    if dose is None or not exposure.is_eer:
        return wanted
    frame_dose, info = exposure.frame_dose_e_per_square_angstrom, exposure.info
    if frame_dose is None:
        raise ProcessingError(
            "its dose is not known, and its frames are wanted by their dose",
            remedy="Give the dose of a camera frame with --dose-per-frame, or use --eer-fractions",
            path=info.path,
        )
    fractions = fractions_for_dose(
        info,
        total_dose_e_per_square_angstrom=frame_dose * info.frames,
        dose_per_fraction_e_per_square_angstrom=dose,
    )
    return replace(wanted, eer_fractions=fractions)


def _refuse_missing(wanted: FramesWanted, frames: int, exposure: KnownExposure) -> None:
    """Say which option asks for a frame that there is not. How many a cut movie had, only reading it tells."""
    if exposure.info.is_cut:
        return
    for option, number in (("--first", wanted.first), ("--last", wanted.last)):
        if number is not None and number > frames:
            raise UsageError(
                f"{option} is {number}, and the movie has {frames} frame{'s' * (frames != 1)}",
                expected=f"{option} from 1 to {frames}",
                path=exposure.movie,
            )


def _left_out(movie: LoadedMovie, exposure: KnownExposure) -> tuple[str, ...]:
    kind = "Camera frame" if exposure.is_eer else "Frame"
    return tuple(f"{kind} {frame.number} is left out: {frame.reason}." for frame in movie.left_out)


def _defects(exposure: KnownExposure, shape: tuple[int, int]) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """The mask of the defect list, if there is one. One that the metadata name and that cannot be used is said, and
    stops nothing: the movie itself shows most of its defects."""
    if exposure.defects is None:
        return None, ()
    try:
        return read_defects(exposure.defects, shape), ()
    except FormatError as error:
        if exposure.defects_stated:
            raise
        return None, (f"{error} Defects are found from the movie alone.",)

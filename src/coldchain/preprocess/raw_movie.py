"""A movie as the camera wrote it, in memory, with its references: all that has to be read before it can be aligned.

It stands apart from `alignment` so that decoding can begin while the kernels are still being imported.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats.defects import read_defects
from coldchain.formats.gain import read_dark, read_gain
from coldchain.formats.movie import frames_per_fraction, read_movie
from coldchain.preprocess.exposure import KnownExposure


@dataclass(frozen=True, slots=True)
class FramesWanted:
    """Which frames are read, and how. Frames (of an EER: fractions) count from 1, both ends included."""

    first: int = 1
    last: int | None = None
    eer_fractions: int | None = None
    eer_upsampling: int = 1
    tolerate: int = 0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of an alignment. `patches`: (columns, rows), None: as the size suggests. `gain_auto`: a gain
    reference that fits otherwise is taken as it fits."""

    patches: tuple[int, int] | None = None
    bin_factor: float = 1.0
    halves: bool = False
    dose_weighting: bool = True
    pre_exposure_e_per_square_angstrom: float = 0.0
    gain_auto: bool = False
    threads: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class RawMovie:
    """The frames of a movie and its references.

    frames : (frames, rows, columns), as the camera wrote them.
    numbers : (frames,) each frame's number in the movie, from 1.
    camera_frames : of each frame that the movie has, read or not, how many of the camera's it holds.
    left_out : numbers and reasons of those that were wanted and could not be read.
    gain, dark, defects : None where there is none.
    seconds : what reading took.
    """

    exposure: KnownExposure
    wanted: FramesWanted
    frames: NDArray[Any]
    numbers: tuple[int, ...]
    camera_frames: tuple[int, ...]
    left_out: tuple[tuple[int, str], ...]
    gain: NDArray[np.float32] | None
    dark: NDArray[np.float32] | None
    defects: NDArray[np.bool_] | None
    warnings: tuple[str, ...]
    seconds: float


def read_raw(exposure: KnownExposure, wanted: FramesWanted, *, threads: int = 1) -> RawMovie:
    """Read a movie and its references. Raises as the formats do."""
    began = time.perf_counter()
    frames = read_movie(
        exposure.movie, eer_fractions=wanted.eer_fractions, eer_upsampling=wanted.eer_upsampling, threads=threads
    )
    total = len(frames)
    frames = frames[wanted.first - 1 : wanted.last]
    defects, warnings = _defects(exposure, (frames.shape[1], frames.shape[2]))
    return RawMovie(
        exposure=exposure,
        wanted=wanted,
        frames=frames,
        numbers=tuple(range(wanted.first, wanted.first + len(frames))),
        camera_frames=frames_per_fraction(exposure.info, eer_fractions=wanted.eer_fractions)[:total],
        left_out=(),
        gain=None if exposure.gain is None else read_gain(exposure.gain),
        dark=None if exposure.dark is None else read_dark(exposure.dark),
        defects=defects,
        warnings=warnings,
        seconds=time.perf_counter() - began,
    )


def _defects(exposure: KnownExposure, shape: tuple[int, int]) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """The mask of the defect list, if there is one. One that the metadata name and that cannot be used is said, and
    stops nothing: the movie itself shows most of its defects."""
    if exposure.defects is None:
        return None, ()
    try:
        return read_defects(exposure.defects, shape), ()
    except FormatError as error:
        if exposure.defects_matter:
            raise
        return None, (f"{error} Defects are found from the movie alone.",)

"""A movie's frames corrected, aligned and added up: the order of the steps.

1. One look at all pixels: defects, and the frames binned to about 3 Å (`prepare`).
2. The track of the whole frame, from those binned once more to about 10 Å (`track`).
3. One fit of the track and of the local motion to patches (`patches`, `joint`).
4. One pass over the pixels into a few sums, and their transforms (`accumulate`, `sums`).

**Sign.** Frame f shows the specimen displaced by s_f = (shift_x, shift_y) relative to the first frame: positive x is
towards higher columns, positive y towards higher rows. aligned(X) = frame_f(X + s_f), so the sum is a picture of the
specimen where the *first* frame has it, as in RELION.

**Edges.** Where a frame does not reach, the picture is mirrored at its border: no strip of the opposite edge is moved
in, nor zeros, whose step would shine through every later Fourier transform.

**Memory.** The frames stay in the camera's own type. Beside them there are at most the small frames, or the few sums of
the last pass.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from coldchain.compiled import in_bands
from coldchain.errors import ProcessingError
from coldchain.kernels.binning import sums_of_bins
from coldchain.kernels.dose import frame_doses, frame_exposures
from coldchain.kernels.fourier import rfft2, taper
from coldchain.kernels.joint import JointFit, fit_motion
from coldchain.kernels.motion import Motion, still
from coldchain.kernels.orientation import GainCheck
from coldchain.kernels.patches import cut_patches
from coldchain.kernels.prepare import Image, Mask, PreparedMovie, prepare
from coldchain.kernels.standing import Standing, level_lines, pixel_patterns, standing_pattern, subtract
from coldchain.kernels.sums import Exposures, add_up
from coldchain.kernels.survey import Stack
from coldchain.kernels.track import Track, find_track
from coldchain.kernels.voltage import check_voltage

Grid: TypeAlias = tuple[int, int]

_BINNED_PIXEL_ANGSTROM = 3.0
_COARSE_PIXEL_ANGSTROM = 10.0
_PATCH_ANGSTROM = 400.0
_NARROWEST_PATCH_ANGSTROM = 200.0
_FEWEST_BINNED_PIXELS = 64
_TAPER_FRACTION = 1 / 16
_TRACK_BFACTOR_SQUARE_ANGSTROM = 150.0
_WORTH_SAYING_ANGSTROM = 1.5
LARGEST_GRID = 64
_PIXEL_SIZES_ANGSTROM = (0.01, 1000.0)


@dataclass(frozen=True, slots=True)
class AlignmentParameters:
    """What the alignment must know of the exposure, and what is wanted of it.

    dose_per_frame_e_per_square_angstrom : one dose for every frame, or a dose for each; None: no exposure filter.
    pre_exposure_e_per_square_angstrom : before the first frame.
    exposure_before_e_per_square_angstrom : before each frame, where frames of the movie are missing among these and the
        doses of those here do not add up to it; None: they do. It includes the pre-exposure.
    counts_per_electron : what an electron counts once the gain is applied; the sums are in electrons.
    patches : (columns, rows) from which local motion is found; (1, 1): none is looked for; None: chosen by size.
    bin_factor : pixel of the sums over that of the movie, at least 1.
    halves : whether sums of the even and of the odd frames are wanted.
    automatic_gain, either_gain_sense : see `prepare`.
    threads : at most this many are used.
    """

    pixel_size_angstrom: float
    voltage_kilovolt: float
    dose_per_frame_e_per_square_angstrom: float | tuple[float, ...] | None = None
    pre_exposure_e_per_square_angstrom: float = 0.0
    exposure_before_e_per_square_angstrom: tuple[float, ...] | None = None
    counts_per_electron: float = 1.0
    patches: Grid | None = None
    bin_factor: float = 1.0
    halves: bool = False
    automatic_gain: bool = False
    either_gain_sense: bool = False
    threads: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class AlignedMovie:
    """The sums of a movie, in the frame of reference of its first frame, and the motion that was undone.

    micrograph : (rows, columns) float32, exposure-filtered if the dose is known, else the same as `unweighted`. Its
        mean and the strength of its noise are those of the plain sum.
    unweighted : (rows, columns) float32, the plain sum of the aligned frames.
    even, odd : sums of every second frame, counted from 1, filtered as the micrograph; None where not asked for.
    amplitude_spectrum : (512, 512) float32, root mean square amplitudes of the micrograph; frequency 0 in the middle.
    amplitude_spectrum_pixel_angstrom : pixel of a picture that has this spectrum.
    pixel_size_angstrom : of the sums.
    motion : displacements in pixels of the movie. A blank frame is given a place between its neighbours'.
    used : (m,) numbers, from 0, of the frames that were added up; blank ones are not.
    error_angstrom : of the motion, root mean square, as the fit expects it of itself; infinite where there is no fit.
    gain_check : what the movie says of its gain reference; None without one.
    hot_pixels : (n, 2) columns and rows of the defects that only the movie's own sum showed.
    rank : terms into which the exposure filter was taken apart.
    warnings : sentences for a reader of the result.
    seconds : what finding the motion took, "align", and adding up, "sum".
    """

    micrograph: Image
    unweighted: Image
    even: Image | None
    odd: Image | None
    amplitude_spectrum: Image
    amplitude_spectrum_pixel_angstrom: float
    pixel_size_angstrom: float
    motion: Motion
    used: NDArray[np.intp]
    error_angstrom: float
    gain_check: GainCheck | None
    hot_pixels: NDArray[np.int64]
    rank: int
    warnings: tuple[str, ...]
    seconds: dict[str, float]


def align_movie(
    frames: NDArray[np.generic],
    *,
    gain: NDArray[np.generic] | None,
    defects: Mask | None,
    dark: NDArray[np.generic] | None = None,
    parameters: AlignmentParameters,
) -> AlignedMovie:
    """Correct, align and add up the frames of a movie.

    Parameters
    ----------
    frames : (frames, rows, columns) as the camera wrote them, of any real type; they are left as they are.
    gain : (rows, columns), multiplicative, 0 or NaN where a pixel is defective; None if the frames need none.
    defects : (rows, columns), True where a pixel is known to be bad.
    dark : (rows, columns), what the camera shows without a beam, in a frame's counts; None for counting cameras.
    parameters : see `AlignmentParameters`.

    Raises
    ------
    ProcessingError : parameters that cannot be true, a gain or mask of another shape, a gain that fits only turned or
        inverted, more than a fifth of the pixels defective, more than a tenth of the frames blank.

    Notes
    -----
    The same input gives the same output: the noise that fills defects is seeded. The exposure filter is that of Grant &
    Grigorieff, eLife 2015, 4:e06980, https://doi.org/10.7554/eLife.06980.
    """
    # The fit's matrices are small; left alone, every process would start a thread a core for them.
    with threadpool_limits(1, user_api="blas"):
        return _align_movie(frames, gain, defects, dark, parameters)


def _align_movie(
    frames: NDArray[np.generic],
    gain: NDArray[np.generic] | None,
    defects: Mask | None,
    dark: NDArray[np.generic] | None,
    parameters: AlignmentParameters,
) -> AlignedMovie:
    began = time.perf_counter()
    _check(parameters)
    exposures = _exposures(frames.shape[0], parameters)
    movie = prepare(
        frames,
        gain=gain,
        defects=defects,
        dark=dark,
        factor=_binning(frames, parameters),
        automatic_gain=parameters.automatic_gain,
        either_gain_sense=parameters.either_gain_sense,
        counts_per_electron=parameters.counts_per_electron,
        threads=parameters.threads,
    )
    fit, warnings = _find_motion(movie, exposures, parameters)
    # The small frames are as large as several of the sums.
    movie = replace(movie, binned=movie.binned[:0].copy())
    halves = parameters.halves and np.unique(movie.correction.used % 2).size == 2
    if parameters.halves and not halves:
        warnings = (*warnings, "There are not two frames to make sums of the even and of the odd ones.")
    found = time.perf_counter()
    sums = add_up(
        movie,
        fit.motion,
        pixel_size_angstrom=parameters.pixel_size_angstrom,
        exposures=exposures,
        bin_factor=parameters.bin_factor,
        halves=halves,
        threads=parameters.threads,
    )
    y, x = np.divmod(movie.correction.found_index, frames.shape[2])
    return AlignedMovie(
        micrograph=sums.weighted,
        unweighted=sums.plain,
        even=sums.even,
        odd=sums.odd,
        amplitude_spectrum=sums.amplitudes,
        amplitude_spectrum_pixel_angstrom=sums.amplitudes_pixel_angstrom,
        pixel_size_angstrom=sums.pixel_size_angstrom,
        motion=fit.motion,
        used=movie.correction.used,
        error_angstrom=fit.error_angstrom,
        gain_check=movie.correction.gain_check,
        hot_pixels=np.stack([x, y], axis=1),
        rank=sums.rank,
        warnings=movie.correction.warnings + warnings,
        seconds={"align": found - began, "sum": time.perf_counter() - found},
    )


def _binning(frames: NDArray[np.generic], parameters: AlignmentParameters) -> int:
    """Pixels to a bin of the small frames, which stay large enough to be compared."""
    largest = max(1, min(frames.shape[1:], default=1) // _FEWEST_BINNED_PIXELS)
    return max(1, round(min(_BINNED_PIXEL_ANGSTROM / parameters.pixel_size_angstrom, largest)))


def _exposures(frames: int, parameters: AlignmentParameters) -> Exposures | None:
    dose = parameters.dose_per_frame_e_per_square_angstrom
    if dose is None:
        return None
    doses = frame_doses(frames, dose)
    middle = frame_exposures(frames, dose, parameters.pre_exposure_e_per_square_angstrom)
    if parameters.exposure_before_e_per_square_angstrom is not None:
        middle = frame_doses(frames, parameters.exposure_before_e_per_square_angstrom) + doses / 2
    return Exposures(tuple(middle.tolist()), tuple(doses.tolist()), parameters.voltage_kilovolt)


def _find_motion(
    movie: PreparedMovie, exposures: Exposures | None, parameters: AlignmentParameters
) -> tuple[JointFit, tuple[str, ...]]:
    """The motion of all frames, and what is to be said of it."""
    frames, rows, columns = movie.frames.shape
    used = movie.correction.used
    none = JointFit(still((rows, columns), frames), math.inf, 0.0, math.inf)
    if used.size == 1:
        return none, ()
    binned = movie.binned if used.size == frames else movie.binned[used]
    standing = standing_pattern(movie, parameters.threads)
    track = _track_despite(standing, binned, movie.factor, parameters)
    if track.frames_together == frames:
        return none, standing.warnings + track.warnings
    grid = parameters.patches
    patches = cut_patches(
        binned,
        movie.factor,
        track.y_pixel,
        track.x_pixel,
        grid=grid,
        patch_pixel=_PATCH_ANGSTROM / parameters.pixel_size_angstrom,
        threads=parameters.threads,
    )
    fit = fit_motion(
        patches,
        (rows, columns),
        track.y_pixel,
        track.x_pixel,
        pixel_size_angstrom=parameters.pixel_size_angstrom,
        exposures=None if exposures is None else np.array(exposures.at_middle)[used],
        voltage_kilovolt=parameters.voltage_kilovolt,
        local=max(patches.grid) > 1,
        threads=parameters.threads,
    )
    about_local: tuple[str, ...] = ()
    if fit.local_angstrom < fit.local_error_angstrom:
        about_local = ("What moves locally is less than this movie can tell; only the whole frames were aligned.",)
        fit = replace(fit, motion=fit.motion.whole_frame_only())
    weak: tuple[str, ...] = ()
    if fit.error_angstrom > _WORTH_SAYING_ANGSTROM:
        weak = (f"The frames are weak: the motion is right to about {fit.error_angstrom:.1f} Å only.",)
    narrow = _about_patches((rows, columns), parameters)
    warnings = standing.warnings + track.warnings + narrow + about_local + weak
    return replace(fit, motion=_for_all_frames(fit.motion, used, frames)), warnings


def _about_patches(shape: tuple[int, int], parameters: AlignmentParameters) -> tuple[str, ...]:
    """Whether the patches that were asked for have too little in them to be compared."""
    if parameters.patches is None or parameters.patches == (1, 1):
        return ()
    columns, rows = parameters.patches
    height, width = (side * parameters.pixel_size_angstrom for side in shape)
    narrowest = min(height / rows, width / columns)
    if narrowest >= _NARROWEST_PATCH_ANGSTROM:
        return ()
    usual = " × ".join(str(math.ceil(side / _PATCH_ANGSTROM)) for side in (width, height))
    return (
        f"{columns} × {rows} patches are {narrowest:.0f} Å wide, too little to tell how each moved: the motion may be "
        f"wrong. With auto there would be about {usual}, of {_PATCH_ANGSTROM:.0f} Å.",
    )


def _track_despite(standing: Standing, binned: Stack, factor: int, parameters: AlignmentParameters) -> Track:
    """The track of the whole frame, kept from the camera's patterns; they are taken out of `binned`, for the fit."""
    level_lines(binned, standing, parameters.threads)
    for_search, for_fit = pixel_patterns(binned, standing, factor, parameters.threads)
    if for_search is None or for_fit is None:
        return _coarse_track(binned, factor, parameters)
    subtract(binned, for_search, parameters.threads)
    track = _coarse_track(binned, factor, parameters)
    subtract(binned, for_fit - for_search, parameters.threads)
    return track


def _coarse_track(binned: Stack, factor: int, parameters: AlignmentParameters) -> Track:
    """Track of the whole frame in pixels of the movie: from frames of 10 Å a pixel, or where these do not tell, of
    less."""
    pixel = factor * parameters.pixel_size_angstrom
    again = max(1, min(round(_COARSE_PIXEL_ANGSTROM / pixel), min(binned.shape[1:]) // _FEWEST_BINNED_PIXELS))
    track = _track_at(binned, again, pixel, parameters.threads)
    if track.warnings and again > 1:
        finer = _track_at(binned, max(1, again // 2), pixel, parameters.threads)
        track = min(track, finer, key=lambda either: either.frames_together)
    return replace(track, x_pixel=track.x_pixel * factor, y_pixel=track.y_pixel * factor)


def _track_at(binned: Stack, factor: int, pixel_size_angstrom: float, threads: int) -> Track:
    """Track in pixels of `binned`, from its frames binned once more."""
    rows, columns = binned.shape[1] // factor, binned.shape[2] // factor
    window = np.outer(taper(rows, _TAPER_FRACTION), taper(columns, _TAPER_FRACTION))
    transforms = np.empty((len(binned), rows, columns // 2 + 1), dtype=np.complex64)

    def transform(first: int, end: int) -> None:
        for number in range(first, end):
            picture = sums_of_bins(binned[number], factor)
            picture -= picture.mean(dtype=np.float64)
            picture *= window
            transforms[number] = rfft2(picture)

    in_bands(transform, len(binned), threads)
    track = find_track(
        transforms,
        (rows, columns),
        pixel_size_angstrom=pixel_size_angstrom * factor,
        bfactor_square_angstrom=_TRACK_BFACTOR_SQUARE_ANGSTROM,
        threads=threads,
    )
    return replace(track, x_pixel=track.x_pixel * factor, y_pixel=track.y_pixel * factor)


def _for_all_frames(motion: Motion, used: NDArray[np.intp], frames: int) -> Motion:
    """The motion with a place for the frames that were left out, between their neighbours'."""
    if used.size == frames:
        return motion
    numbers = np.arange(frames)

    def between(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([np.interp(numbers, used, row) for row in values]) if len(values) else np.zeros((0, frames))

    return replace(
        motion,
        shift_x_pixel=np.interp(numbers, used, motion.shift_x_pixel),
        shift_y_pixel=np.interp(numbers, used, motion.shift_y_pixel),
        field_x=between(motion.field_x),
        field_y=between(motion.field_y),
    )


def _check(parameters: AlignmentParameters) -> None:
    pixel_size = parameters.pixel_size_angstrom
    if not _PIXEL_SIZES_ANGSTROM[0] <= pixel_size <= _PIXEL_SIZES_ANGSTROM[1]:
        raise ProcessingError(
            f"the pixel size is {pixel_size} Å",
            expected="from {:g} to {:g} Å".format(*_PIXEL_SIZES_ANGSTROM),
            remedy="Correct the session's pixel size",
        )
    check_voltage(parameters.voltage_kilovolt)
    if not math.isfinite(parameters.bin_factor) or parameters.bin_factor < 1:
        raise ProcessingError(f"frames cannot be binned by {parameters.bin_factor}", expected="1 or more")
    if not math.isfinite(parameters.counts_per_electron) or parameters.counts_per_electron <= 0:
        raise ProcessingError(f"{parameters.counts_per_electron} counts per electron", expected="a positive number")
    if parameters.patches is not None and not all(1 <= count <= LARGEST_GRID for count in parameters.patches):
        columns, rows = parameters.patches
        raise ProcessingError(f"{columns} × {rows} patches were asked for", expected=f"1 to {LARGEST_GRID} each way")

"""A movie's frames aligned and added up: gain, defects, the whole-frame track, the exposure filter.

**Sign.** Frame f shows the specimen displaced by s_f = (shift_x, shift_y) relative to the first frame: positive x is
towards higher columns, positive y towards higher rows. aligned(X) = frame_f(X + s_f), so the sum is a picture of the
specimen where the *first* frame has it, as in RELION.

**Edges.** A frame is first moved by whole pixels in real space, with the picture mirrored at its border, then by the
remaining half pixel at most in Fourier space. So no strip of the opposite edge is moved in, nor zeros, whose step would
shine through every later Fourier transform; only the half pixel sees the picture as periodic.

**Memory.** The frames stay in the camera's own type; at any time one of them is held in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled, in_bands
from coldchain.errors import ProcessingError
from coldchain.kernels.dose import exposure_weights, frame_doses, frame_exposures
from coldchain.kernels.fourier import column_frequencies, fourier_crop, irfft2, rfft2, row_frequencies
from coldchain.kernels.prepare import Correction, Image, Mask, prepare
from coldchain.kernels.track import Track, Transform, find_track, shift_phases
from coldchain.kernels.voltage import check_voltage

ShiftedTransform: TypeAlias = tuple[Transform, Transform, Transform]

_BINNED_PIXEL_ANGSTROM = 4.0
_BAND_ANGSTROM = 8.0
_FEWEST_BINNED_PIXELS = 64
_TAPER_FRACTION = 1 / 16
_SAMPLES_PER_CYCLE = 4096


@dataclass(frozen=True, slots=True)
class AlignmentParameters:
    """What the alignment must know of the exposure.

    dose_per_frame_e_per_square_angstrom : one dose for every frame, or a dose for each; None: no exposure filter.
    bfactor_square_angstrom : B of the weight exp(−B k²/4) on the amplitudes that are compared; larger is smoother.
    threads : at most this many are used.
    """

    pixel_size_angstrom: float
    voltage_kilovolt: float
    dose_per_frame_e_per_square_angstrom: float | tuple[float, ...] | None = None
    pre_exposure_e_per_square_angstrom: float = 0.0
    bfactor_square_angstrom: float = 150.0
    threads: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class AlignedMovie:
    """The sums of a movie, in the frame of reference of its first frame.

    micrograph : (rows, columns) float32, exposure-filtered if the dose is known, else the same as `unweighted`. Its
        mean and the strength of its noise are those of the plain sum.
    unweighted : (rows, columns) float32, the plain sum of the aligned frames.
    shift_x_pixel, shift_y_pixel : (frames,) float64, displacement of the specimen in each frame; 0 in the first. A
        blank frame, which is left out of the sums, is given a place between its neighbours'.
    warnings : sentences for a reader of the result.
    """

    micrograph: Image
    unweighted: Image
    shift_x_pixel: NDArray[np.float64]
    shift_y_pixel: NDArray[np.float64]
    warnings: tuple[str, ...]


def align_movie(
    frames: NDArray[np.generic],
    *,
    gain: NDArray[np.generic] | None,
    defects: Mask | None,
    parameters: AlignmentParameters,
) -> AlignedMovie:
    """Correct, align and add up the frames of a movie.

    Parameters
    ----------
    frames : (frames, rows, columns) as the camera wrote them, of any real type; they are left as they are.
    gain : (rows, columns), multiplicative, 0 or NaN where a pixel is defective; None if the frames need none.
    defects : (rows, columns), True where a pixel is known to be bad.
    parameters : see `AlignmentParameters`.

    Raises
    ------
    ProcessingError : parameters that cannot be true, a gain or mask of another shape, more than a fifth of the pixels
        defective, more than a tenth of the frames blank.

    Notes
    -----
    The same input gives the same output: the noise that fills defects is seeded. The exposure filter is that of Grant &
    Grigorieff, eLife 2015, 4:e06980, https://doi.org/10.7554/eLife.06980.
    """
    _check(parameters)
    correction = prepare(frames, gain=gain, defects=defects)
    track = _whole_frame_track(frames, correction, parameters)
    unweighted, micrograph = _add_up(frames, correction, track, parameters)
    return AlignedMovie(micrograph, unweighted, track.x_pixel, track.y_pixel, correction.warnings + track.warnings)


def shift_image(picture: Image, y_pixel: float, x_pixel: float, threads: int = 1) -> ShiftedTransform:
    """Transform of picture(X + shift), as a half-plane and the factors of its rows and columns that complete the shift.

    Parameters
    ----------
    picture : (rows, columns) float32.
    y_pixel, x_pixel : the shift; its whole part is applied with mirrored borders.

    Returns
    -------
    (rows, columns // 2 + 1), (rows,), (columns // 2 + 1,) complex64; their product is the transform.
    """
    whole_y, whole_x = round(y_pixel), round(x_pixel)
    moved = picture
    if whole_y or whole_x:
        moved = np.empty_like(picture)
        in_bands(lambda first, end: _move_mirrored(picture, whole_y, whole_x, moved, first, end), len(moved), threads)
    y_phases, x_phases = shift_phases((picture.shape[0], picture.shape[1]), y_pixel - whole_y, x_pixel - whole_x)
    return rfft2(moved, threads), y_phases, x_phases


def _whole_frame_track(frames: NDArray[np.generic], correction: Correction, parameters: AlignmentParameters) -> Track:
    """Track in pixels of the movie, from frames binned to 3–4 Å and cropped to 8 Å in Fourier space."""
    shape = (int(frames.shape[1]), int(frames.shape[2]))
    used = correction.used
    if used.size == 1:
        return Track(np.zeros(frames.shape[0]), np.zeros(frames.shape[0]), ())
    factor = int(_BINNED_PIXEL_ANGSTROM / parameters.pixel_size_angstrom)
    factor = max(1, min(factor, min(shape) // _FEWEST_BINNED_PIXELS))
    binned = (shape[0] // factor, shape[1] // factor)
    shrink = min(1.0, 2 * factor * parameters.pixel_size_angstrom / _BAND_ANGSTROM)
    small = (max(1, round(binned[0] * shrink)), max(1, round(binned[1] * shrink)))
    window = np.outer(_taper(binned[0]), _taper(binned[1]))
    transforms = np.empty((used.size, small[0], small[1] // 2 + 1), dtype=np.complex64)
    for place, number in enumerate(used):
        picture = bin_image(correction.apply(frames[number], number), factor, parameters.threads)
        picture -= picture.mean(dtype=np.float64)
        picture *= window
        transforms[place] = fourier_crop(rfft2(picture, parameters.threads), binned, small)
    # Rounding makes the two axes' sampling differ by parts in a thousand; shifts are scaled back for each axis exactly.
    track = find_track(
        transforms,
        small,
        pixel_size_angstrom=factor * parameters.pixel_size_angstrom * binned[0] / small[0],
        bfactor_square_angstrom=parameters.bfactor_square_angstrom,
        threads=parameters.threads,
    )
    y_scale, x_scale = factor * binned[0] / small[0], factor * binned[1] / small[1]
    numbers = np.arange(frames.shape[0])
    x_pixel, y_pixel = (np.interp(numbers, used, shifts) for shifts in (track.x_pixel, track.y_pixel))
    return Track(x_pixel * x_scale, y_pixel * y_scale, track.warnings)


def _add_up(
    frames: NDArray[np.generic], correction: Correction, track: Track, parameters: AlignmentParameters
) -> tuple[Image, Image]:
    """Plain sum and exposure-filtered sum of the frames, each shifted exactly."""
    shape = (int(frames.shape[1]), int(frames.shape[2]))
    half_plane = (shape[0], shape[1] // 2 + 1)
    plain = np.zeros(half_plane, dtype=np.complex64)
    table = _weight_table(frames.shape[0], correction.used, parameters)
    weighted = None if table is None else np.zeros(half_plane, dtype=np.complex64)
    for place, number in enumerate(correction.used):
        picture = correction.apply(frames[number], number)
        shifted = shift_image(picture, track.y_pixel[number], track.x_pixel[number], parameters.threads)
        if weighted is None or table is None:
            _add(plain, shifted, parameters.threads)
        else:
            _add_weighted(plain, weighted, shifted, table[place], shape[1], parameters.threads)
    unweighted = irfft2(plain, shape, parameters.threads)
    return unweighted, unweighted.copy() if weighted is None else irfft2(weighted, shape, parameters.threads)


def bin_image(picture: Image, factor: int, threads: int = 1) -> Image:
    """Sums of factor × factor pixels; rows and columns that fill no bin are left out: (rows // factor, …) float32."""
    binned = np.empty((picture.shape[0] // factor, picture.shape[1] // factor), dtype=np.float32)
    in_bands(lambda first, end: _bin(picture, factor, binned, first, end), len(binned), threads)
    return binned


def _weight_table(frames: int, used: NDArray[np.intp], parameters: AlignmentParameters) -> NDArray[np.float32] | None:
    """Exposure weights (frames used, samples), with `_SAMPLES_PER_CYCLE`; None if no dose is known."""
    dose = parameters.dose_per_frame_e_per_square_angstrom
    if dose is None:
        return None
    exposures = frame_exposures(frames, dose, parameters.pre_exposure_e_per_square_angstrom)
    # To the corner of Fourier space, and to the interpolation's upper neighbour.
    samples = math.ceil(math.sqrt(0.5) * _SAMPLES_PER_CYCLE) + 2
    frequency = np.arange(samples) / (_SAMPLES_PER_CYCLE * parameters.pixel_size_angstrom)
    weights = exposure_weights(frequency, exposures[used], parameters.voltage_kilovolt, frame_doses(frames, dose)[used])
    return weights.astype(np.float32)


def _add(plain: Transform, shifted: ShiftedTransform, threads: int) -> None:
    """Add a shifted frame to the plain sum."""
    in_bands(lambda first, end: _add_band(plain, *shifted, first, end), plain.shape[0], threads)


def _add_weighted(
    plain: Transform,
    weighted: Transform,
    shifted: ShiftedTransform,
    weights: NDArray[np.float32],
    columns: int,
    threads: int,
) -> None:
    """Add a shifted frame to the plain sum and, times its exposure weights, to the filtered one."""
    y = row_frequencies(plain.shape[0]) * _SAMPLES_PER_CYCLE
    x = column_frequencies(columns) * _SAMPLES_PER_CYCLE
    in_bands(
        lambda first, end: _add_weighted_band(plain, weighted, *shifted, weights, y, x, first, end),
        plain.shape[0],
        threads,
    )


def _taper(length: int) -> Image:
    """Cosine rise and fall over a sixteenth of the length at either end, so that the borders do not correlate."""
    edge = max(1, int(length * _TAPER_FRACTION))
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.minimum(distance / edge, 1)), dtype=np.float32)


def _check(parameters: AlignmentParameters) -> None:
    pixel_size = parameters.pixel_size_angstrom
    if not math.isfinite(pixel_size) or pixel_size <= 0:
        raise ProcessingError(
            f"the pixel size is {pixel_size} Å", expected="a positive number", remedy="Correct the session's pixel size"
        )
    check_voltage(parameters.voltage_kilovolt)
    if not math.isfinite(parameters.bfactor_square_angstrom) or parameters.bfactor_square_angstrom < 0:
        raise ProcessingError(
            f"the B-factor is {parameters.bfactor_square_angstrom} Å²", expected="a number that is not negative"
        )


@compiled
def _move_mirrored(picture: Image, whole_y: int, whole_x: int, out: Image, first: int, end: int) -> None:
    rows, columns = picture.shape
    inside_first = min(max(0, -whole_x), columns)
    inside_end = max(min(columns, columns - whole_x), inside_first)
    for y in range(first, end):
        # The remainder is taken of 2n, for a mirrored picture repeats itself after there and back.
        source_y = (y + whole_y) % (2 * rows)
        source = picture[min(source_y, 2 * rows - 1 - source_y)]
        for x in range(inside_first, inside_end):
            out[y, x] = source[x + whole_x]
        for x in range(inside_first):
            source_x = (x + whole_x) % (2 * columns)
            out[y, x] = source[min(source_x, 2 * columns - 1 - source_x)]
        for x in range(inside_end, columns):
            source_x = (x + whole_x) % (2 * columns)
            out[y, x] = source[min(source_x, 2 * columns - 1 - source_x)]


@compiled
def _bin(picture: Image, factor: int, out: Image, first: int, end: int) -> None:
    for y in range(first, end):
        out[y] = 0
        for source_y in range(y * factor, (y + 1) * factor):
            for x in range(out.shape[1]):
                total = np.float32(0)
                for source_x in range(x * factor, (x + 1) * factor):
                    total += picture[source_y, source_x]
                out[y, x] += total


@compiled
def _add_band(
    plain: Transform, transform: Transform, y_phases: Transform, x_phases: Transform, first: int, end: int
) -> None:
    for j in range(first, end):
        for i in range(plain.shape[1]):
            plain[j, i] += transform[j, i] * (y_phases[j] * x_phases[i])


@compiled
def _add_weighted_band(
    plain: Transform,
    weighted: Transform,
    transform: Transform,
    y_phases: Transform,
    x_phases: Transform,
    weights: NDArray[np.float32],
    y_samples: NDArray[np.float64],
    x_samples: NDArray[np.float64],
    first: int,
    end: int,
) -> None:
    """The same into two sums; `y_samples` and `x_samples` are the frequency's components in samples of `weights`."""
    for j in range(first, end):
        for i in range(plain.shape[1]):
            value = transform[j, i] * (y_phases[j] * x_phases[i])
            plain[j, i] += value
            sample = np.sqrt(y_samples[j] * y_samples[j] + x_samples[i] * x_samples[i])
            below = int(sample)
            part = np.float32(sample - below)
            weighted[j, i] += value * (weights[below] + part * (weights[below + 1] - weights[below]))

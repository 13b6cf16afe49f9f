"""From a movie and its motion to pictures: the pass over the pixels, then a handful of full-size transforms.

The exposure filter weighs every frame at every frequency. Since these weights are a product of a few terms
(`dose.few_terms`), the frames are added into as many sums, and only those are transformed, whatever the number of
frames. In the same step the B-spline's prefilter is applied, and the picture cropped in Fourier space to the output's
pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled_loosely, in_bands
from coldchain.kernels.accumulate import (
    TILE_COLUMNS,
    TILE_ROWS,
    accumulate,
    interpolation_response,
    tile_centres,
)
from coldchain.kernels.dose import exposure_weights, few_terms
from coldchain.kernels.fourier import column_frequencies, fourier_crop, irfft2, rfft2, row_frequencies
from coldchain.kernels.motion import Motion
from coldchain.kernels.prepare import PreparedMovie

Image: TypeAlias = NDArray[np.float32]
Transform: TypeAlias = NDArray[np.complex64]
Vector: TypeAlias = NDArray[np.float64]

SPECTRUM_PIXELS = 512
# As RELION's: no rings are fitted beyond 2.8 Å.
SPECTRUM_PIXEL_ANGSTROM = 1.4
# Weights are tabulated over the square of the frequency, which needs no root for each wave.
_SAMPLES = 16384
_HIGHEST_SQUARE = 0.5


@dataclass(frozen=True, slots=True)
class Exposures:
    """What the exposure filter must know: e⁻/Å² at the middle of each frame and in each frame, and the voltage."""

    at_middle: tuple[float, ...]
    of_frame: tuple[float, ...]
    voltage_kilovolt: float


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """The pictures of a movie: float32 (rows, columns) on the output's pixel; row 0 is the movie's.

    weighted : exposure-filtered, with the mean and the noise of the plain sum; the same object as `plain` where no dose
        is known.
    plain : of all frames as they are.
    even, odd : of every second frame, weighted as `weighted`; counted from 1. None where not asked for.
    amplitudes : (512, 512) float32, root mean square amplitudes of the weighted sum; frequency 0 in the middle.
    amplitudes_pixel_angstrom : pixel of a picture that has this spectrum.
    pixel_size_angstrom : of the pictures.
    rank : terms of the exposure weights.
    """

    weighted: Image
    plain: Image
    even: Image | None
    odd: Image | None
    amplitudes: Image
    amplitudes_pixel_angstrom: float
    pixel_size_angstrom: float
    rank: int


def add_up(
    movie: PreparedMovie,
    motion: Motion,
    *,
    pixel_size_angstrom: float,
    exposures: Exposures | None,
    bin_factor: float = 1.0,
    halves: bool = False,
    threads: int = 1,
) -> Sums:
    """Add the frames up along their motion.

    Parameters
    ----------
    movie : as `prepare` made it.
    motion : of the specimen.
    pixel_size_angstrom : of the movie.
    exposures : None: no exposure filter.
    bin_factor : pixel of the output over that of the movie, at least 1.
    halves : whether the sums of even and odd frames are wanted.
    threads : at most this many.
    """
    used = np.isin(np.arange(len(movie.frames)), movie.correction.used)
    terms, table = _terms(used, exposures, pixel_size_angstrom)
    odd = np.arange(used.size) % 2 == 0
    weights = np.concatenate([terms * odd, terms * ~odd]) if halves else terms
    shifts = _tile_shifts(motion)
    stack = accumulate(movie.frames, movie.correction, *shifts, weights.astype(np.float32), threads)
    shape = (stack.shape[1], stack.shape[2])
    output = (max(1, round(shape[0] / bin_factor)), max(1, round(shape[1] / bin_factor)))
    # Frequencies of the output's waves, in cycles per pixel of the movie.
    y, x = row_frequencies(output[0]) * output[0] / shape[0], column_frequencies(output[1]) * output[1] / shape[1]
    sharpness = [
        (1 / interpolation_response(frequency, shift, used.astype(np.float64))).astype(np.float32)
        for frequency, shift in zip((y, x), shifts, strict=True)
    ]
    whole_plain, parts = _mix(stack, table, output, (y, x), sharpness, threads)
    del stack
    whole = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    amplitudes, spectrum_pixel = amplitude_spectrum(
        whole, output, pixel_size_angstrom * shape[0] / output[0], pixel_size_angstrom * shape[1] / output[1], threads
    )
    # Where there are no halves, their one part is the whole.
    weighted = None if exposures is None else irfft2(whole, output, threads, spend=True)
    pictures = [
        irfft2(transform, output, threads, spend=True) for transform in (whole_plain, *(parts if halves else ()))
    ]
    odd_sum, even_sum = pictures[1:] if halves else (None, None)
    pixel = pixel_size_angstrom * math.sqrt(shape[0] * shape[1] / (output[0] * output[1]))
    plain = pictures[0]
    return Sums(
        plain if weighted is None else weighted, plain, even_sum, odd_sum, amplitudes, spectrum_pixel, pixel, len(terms)
    )


def amplitude_spectrum(
    transform: Transform, shape: tuple[int, int], pixel_y_angstrom: float, pixel_x_angstrom: float, threads: int = 1
) -> tuple[Image, float]:
    """Root mean square amplitudes on a grid of 512 × 512, zero frequency in the middle and 0.

    The average over the waves in a cell of the grid takes the place of one over many tiles of the picture; where there
    is none in a cell, the nearest is taken.

    Parameters
    ----------
    transform : half-plane of a picture.
    shape : (rows, columns) of the picture.
    pixel_y_angstrom, pixel_x_angstrom : its pixel along the two axes.
    threads : at most this many.

    Returns
    -------
    (512, 512) float32, and the pixel size in Å of a picture of 512 × 512 with such a spectrum: 1.4 Å, or the picture's
    own where that is larger.
    """
    pixel = max(SPECTRUM_PIXEL_ANGSTROM, pixel_y_angstrom, pixel_x_angstrom)
    # Waves of the picture to a cell of the grid, along either axis.
    density_y = shape[0] * pixel_y_angstrom / (SPECTRUM_PIXELS * pixel)
    density_x = shape[1] * pixel_x_angstrom / (SPECTRUM_PIXELS * pixel)
    half = np.empty((SPECTRUM_PIXELS, SPECTRUM_PIXELS // 2 + 1), dtype=np.float32)
    in_bands(
        lambda first, end: _gather_power(transform, shape[0], density_y, density_x, half, first, end),
        SPECTRUM_PIXELS,
        threads,
    )
    half /= np.float32(shape[0] * shape[1])
    middle = SPECTRUM_PIXELS // 2
    half[middle, 0] = 0
    full = np.empty((SPECTRUM_PIXELS, SPECTRUM_PIXELS), dtype=np.float32)
    full[:, middle:] = half[:, :-1]
    # A real picture's waves come in pairs of opposite direction.
    full[1:, :middle] = half[:0:-1, :0:-1]
    full[0, :middle] = half[0, :0:-1]
    return full, pixel


def _terms(used: NDArray[np.bool_], exposures: Exposures | None, pixel_size_angstrom: float) -> tuple[Vector, Image]:
    """Weights of the frames in each sum, (terms, frames), and of each sum at squares of the frequency from 0 to the
    corner of Fourier space and one beyond: (terms, samples)."""
    squares = np.arange(_SAMPLES + 2) * (_HIGHEST_SQUARE / _SAMPLES)
    weights = np.zeros((used.size, squares.size))
    weights[used] = 1
    if exposures is not None:
        frequency = np.sqrt(squares) / pixel_size_angstrom
        middle, dose = (np.array(values)[used] for values in (exposures.at_middle, exposures.of_frame))
        weights[used] = exposure_weights(frequency, middle, exposures.voltage_kilovolt, dose)
    terms, table = few_terms(weights)
    return terms, table.astype(np.float32)


def _tile_shifts(motion: Motion) -> tuple[Image, Image]:
    """Displacements at the tiles' centres along y and x: (tile rows, tile columns, frames) float32."""
    y, x = tile_centres(motion.shape[0], TILE_ROWS), tile_centres(motion.shape[1], TILE_COLUMNS)
    places = np.meshgrid(y, x, indexing="ij")
    along_x, along_y = motion.at(places[1].ravel(), places[0].ravel())
    shape = (y.size, x.size, motion.shift_x_pixel.size)
    return along_y.reshape(shape).astype(np.float32), along_x.reshape(shape).astype(np.float32)


def _mix(
    stack: Image,
    table: Image,
    output: tuple[int, int],
    frequencies: tuple[Vector, Vector],
    sharpness: list[Image],
    threads: int,
) -> tuple[Transform, list[Transform]]:
    """The plain sum's transform, and the weighted one's; where there are odd and even sums, one for each of these."""
    rank, parts = len(table), len(stack) // len(table)
    shape = (stack.shape[1], stack.shape[2])
    half_plane = (output[0], output[1] // 2 + 1)
    plain = np.zeros(half_plane, dtype=np.complex64)
    mixed = [np.zeros(half_plane, dtype=np.complex64) for _ in range(parts)]
    full = np.empty((shape[0], shape[1] // 2 + 1), dtype=np.complex64)
    y, x = ((frequency**2 * (_SAMPLES / _HIGHEST_SQUARE)).astype(np.float32) for frequency in frequencies)
    for part, out in enumerate(mixed):
        for term in range(rank):
            transform = rfft2(stack[part * rank + term], threads, full)
            if output != shape:
                transform = fourier_crop(full, shape, output)
            # The first term is the plain sum over the root of the number of frames.
            _add(transform, table[term], y, x, sharpness, out, threads)
            if term == 0:
                _add(transform, np.full_like(table[0], table[0, 0]), y, x, sharpness, plain, threads)
    return plain, mixed


def _add(
    transform: Transform, weights: Image, y: Image, x: Image, sharpness: list[Image], out: Transform, threads: int
) -> None:
    sharp_y, sharp_x = sharpness
    in_bands(
        lambda first, end: _add_weighted(transform, weights, y, x, sharp_y, sharp_x, out, first, end), len(y), threads
    )


@compiled_loosely
def _add_weighted(
    transform: Transform,
    weights: Image,
    y: Image,
    x: Image,
    sharp_y: Image,
    sharp_x: Image,
    out: Transform,
    first: int,
    end: int,
) -> None:
    """Add a transform times its weights, interpolated; `y` and `x` are squares of the frequency in samples of them."""
    for j in range(first, end):
        for i in range(x.size):
            sample = y[j] + x[i]
            below = np.uint32(sample)
            low = weights[below]
            weight = low + (sample - np.float32(below)) * (weights[below + np.uint32(1)] - low)
            out[j, i] += transform[j, i] * np.float32(weight * (sharp_y[j] * sharp_x[i]))


@compiled_loosely
def _gather_power(
    transform: Transform, rows: int, density_y: float, density_x: float, half: Image, first: int, end: int
) -> None:
    """Root mean square of the waves in each cell; row `SPECTRUM_PIXELS // 2` of the grid is frequency 0."""
    highest_y, highest_x = (rows - 1) // 2, transform.shape[1] - 1
    for row in range(first, end):
        place = row - half.shape[0] // 2
        low_y, high_y = _cell(place, density_y, -highest_y, highest_y)
        for column in range(half.shape[1]):
            low_x, high_x = _cell(column, density_x, 0, highest_x)
            total = 0.0
            for j in range(low_y, high_y + 1):
                of_row = j if j >= 0 else j + rows
                for i in range(low_x, high_x + 1):
                    wave = transform[of_row, i]
                    total += wave.real * wave.real + wave.imag * wave.imag
            half[row, column] = np.sqrt(total / ((high_y - low_y + 1) * (high_x - low_x + 1)))


@compiled_loosely
def _cell(place: int, density: float, lowest: int, highest: int) -> tuple[int, int]:
    """First and last wave in a cell; the nearest where there is none."""
    low, high = int(np.ceil((place - 0.5) * density)), int(np.ceil((place + 0.5) * density)) - 1
    if high < low:
        low = high = int(np.round(place * density))
    return min(max(low, lowest), highest), max(min(high, highest), lowest)

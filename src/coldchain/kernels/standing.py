"""Patterns that belong to the camera and not to the specimen, and how they are kept from holding the alignment.

What a dark or gain reference has left (the dark current has drifted, the reference is noisy, there is none) is in every
frame at the same place, and pulls every frame towards the place where it was taken.

**Of single pixels.** Such a pattern's power is the same at all frequencies. It is measured where no specimen is, in the
corners of Fourier space: there frames of independent noise are together as rough as their sum is, and what the sum has
beyond that is the pattern's. As much power is then taken from what all frames have in common, for the first search and
for the fit each in its way (`pixel_patterns`).

**Of columns and rows**, standing or drifting. They lie on the axes of Fourier space, which the alignment leaves out,
but a window smears them over what lies beside. They are found by lines whose means differ from the next one's by more
than their pixels' noise can do, and taken out of each frame for itself, in four parts of the picture one by one, since
cameras are read out from more than one side.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled_loosely, in_bands
from coldchain.kernels.fourier import irfft2, radial_frequencies, rfft2
from coldchain.kernels.prepare import PreparedMovie
from coldchain.kernels.survey import NO_DARK, Image, Stack

Mask: TypeAlias = NDArray[np.bool_]
Numbers: TypeAlias = NDArray[np.int64]
Vector: TypeAlias = NDArray[np.float64]

_SAMPLES = 400_000
_SURE_DEVIATIONS = 4.0
_LEAST_EXCESS = 0.01
# Of the squares of the differences of normal noise, where neighbouring differences share pixels.
_RELATIVE_VARIANCE = 4.5
_FEWEST_PIXELS = 16
_LEAST_NOISE = 1e-6
_LEAST_LINE_PER_NOISE = 0.03
_LEAST_LINE_RATIO = 4.0
_WORTH_SAYING = 0.5
_PARTS = 4
_SHORTEST_PART_PIXEL = 32
# What is as wide as this is no line.
_LINE_NEIGHBOURHOOD_PIXEL = 41


@dataclass(frozen=True, slots=True)
class Standing:
    """What of the frames is the camera's.

    variance : of a pattern of single pixels that all frames share, in squares of a corrected frame's unit; 0 where it
        is not more than chance.
    per_noise : its deviation over that of one frame's noise.
    columns_per_noise, rows_per_noise : the same of what whole columns and rows have in common, in all frames or in one;
        0 where it is too little to matter.
    """

    variance: float = 0.0
    per_noise: float = 0.0
    columns_per_noise: float = 0.0
    rows_per_noise: float = 0.0

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for a reader of the result, where a pattern is strong."""
        kinds = {
            "single pixels": self.per_noise,
            "columns": self.columns_per_noise,
            "rows": self.rows_per_noise,
        }
        strong = {kind: strength for kind, strength in kinds.items() if strength >= _WORTH_SAYING}
        if not strong:
            return ()
        return (
            f"A pattern of {' and '.join(strong)} is {max(strong.values()):.1f} times as strong as one frame's noise."
            " It is in the sums, and may have held the frames where they were taken. Is a dark or a gain reference"
            " missing, or out of date?",
        )


def standing_pattern(movie: PreparedMovie, threads: int = 1) -> Standing:
    """Measure the patterns of a movie, from pairs of rows with some 400,000 pixels a frame.

    The roughness of single pixels is the mean square of a[y, x] − a[y, x+1] − a[y+1, x] + a[y+1, x+1]; columns and rows
    do not show in it.
    """
    _, rows, columns = movie.frames.shape
    used = movie.correction.used.astype(np.int64)
    if min(rows, columns) < _FEWEST_PIXELS or used.size < 2:
        return Standing()
    pairs = np.unique(np.linspace(0, rows - 2, max(2, _SAMPLES // columns)).astype(np.int64))
    good = _good(movie.correction.defects, pairs)
    samples, count = float(good.sum()), used.size
    if samples < good.size / 2:
        return Standing()
    of_frames, of_sum = _roughness_of(movie, used, pairs, good, threads)
    pixels = float(of_frames[:, 0].mean()) / (4 * samples)
    if pixels == 0:
        return Standing()
    # The sum of frames of noise is as rough as they are together, that of F frames of a pattern F times as much.
    excess = float(of_sum[0] / of_frames[:, 0].sum()) - 1
    sure = _SURE_DEVIATIONS * math.sqrt(_RELATIVE_VARIANCE / samples)
    share = min(excess / (count - 1), 1.0) if excess > max(_LEAST_EXCESS, sure) else 0.0
    noise = max(pixels * (1 - share), _LEAST_NOISE * pixels)
    lines = [
        max(
            _line_strength(of_frames[:, kind].mean(axis=0), _products(good, axis), noise),
            _line_strength(of_sum[kind] / count**2, _products(good, axis), noise),
        )
        for axis, kind in enumerate((slice(1, 3), slice(3, 5)))
    ]
    return Standing(pixels * share, math.sqrt(pixels * share / noise), *lines)


def level_lines(binned: Stack, standing: Standing, threads: int = 1) -> None:
    """Take what whole columns and rows have in common out of binned frames, in place, if they have any."""
    if standing.columns_per_noise > 0:
        in_bands(lambda first, end: _level_columns(binned[first:end]), len(binned), threads)
    if standing.rows_per_noise > 0:
        in_bands(lambda first, end: _level_columns(binned[first:end].transpose(0, 2, 1)), len(binned), threads)


def pixel_patterns(
    binned: Stack, standing: Standing, factor: int, threads: int = 1
) -> tuple[Image, Image] | tuple[None, None]:
    """What of a pattern of single pixels is in each of the frames, of factor × factor binned pixels: two pictures.

    Both are the frames' mean with its waves scaled down, ring by ring, by as much power as the pattern has. The first
    is what would be right if the specimen were not in the mean; without it a search for the specimen finds nothing
    that stands still, though it finds a specimen that hardly moves too far away. The second leaves the specimen's power
    in the mean: where that is strong, some of the pattern too, which a track that is right within a few ångströms
    withstands. Where the mean is noise and pattern alone the two are one, and without it no two frames correlate but by
    chance: without the whole mean they would repel each other.

    Returns
    -------
    (rows, columns) each, or None where there is no pattern.
    """
    if standing.variance <= 0:
        return None, None
    count, rows, columns = binned.shape
    transform = rfft2(binned.mean(axis=0), threads)
    power = (transform.real**2 + transform.imag**2).astype(np.float64)
    # Beside the axes, where whole columns and rows lie, and the step from one edge to the other.
    power[0], power[:, 0] = 0, 0
    ring = (radial_frequencies((rows, columns)) * min(rows, columns)).astype(np.intp)
    of_ring = np.bincount(ring.ravel(), power.ravel()) / np.maximum(np.bincount(ring[1:, 1:].ravel()), 1)
    of_pattern = standing.variance * factor**2 * rows * columns
    of_noise = of_pattern / (standing.per_noise**2 * count)

    def scaled(mean_power: Vector) -> Image:
        share = np.divide(of_pattern, mean_power, out=np.ones_like(mean_power), where=mean_power > 0)
        taken = 1 - np.sqrt(np.maximum(1 - share, 0))
        taken[0] = 0
        return irfft2(transform * taken.astype(np.float32)[ring], (rows, columns), threads)

    return scaled(np.full_like(of_ring, of_pattern + of_noise)), scaled(of_ring)


def subtract(binned: Stack, picture: Image, threads: int = 1) -> None:
    """Take a picture from each of the frames, in place."""
    in_bands(lambda first, end: _subtract(binned[first:end], picture), len(binned), threads)


def _subtract(frames: Stack, picture: Image) -> None:
    for frame in frames:
        frame -= picture


def _level_columns(frames: Stack) -> None:
    """Take from each column, in each part of each frame, by how much its mean differs from those around it."""
    rows, columns = frames.shape[1:]
    parts = max(1, min(_PARTS, rows // _SHORTEST_PART_PIXEL))
    reach = min(_LINE_NEIGHBOURHOOD_PIXEL, columns) // 2
    around = np.ones(2 * reach + 1) / (2 * reach + 1)
    edges = [rows * part // parts for part in range(parts + 1)]
    for frame in frames:
        for first, end in itertools.pairwise(edges):
            means = frame[first:end].mean(axis=0, dtype=np.float64)
            frame[first:end] -= (means - np.convolve(np.pad(means, reach, mode="reflect"), around, "valid")).astype(
                np.float32
            )


def _line_strength(found: Vector, products: float, noise: float) -> float:
    """Deviation of lines over that of noise, from the sum over lines of the products of their pixels' differences two
    by two, and of their squares; 0 where it is small, or might come from noise that neighbours share."""
    of_products, of_squares = (float(value) for value in found)
    variance = of_products / (2 * products)
    if of_products < _LEAST_LINE_RATIO * of_squares or variance < _LEAST_LINE_PER_NOISE**2 * noise:
        return 0.0
    return math.sqrt(variance / noise)


def _products(good: Image, axis: int) -> float:
    """How many products of two of its pixels' differences all columns (0) or rows (1) have."""
    count = good.sum(axis=axis, dtype=np.float64)
    return max(float(np.sum(count * (count - 1))), 1.0)


def _good(bad: Mask, pairs: Numbers) -> Image:
    """1 where a pixel, those to its right, above, and between the two are good, else 0: (pairs, columns − 1)."""
    line = bad[pairs] | bad[pairs + 1]
    return (~(line[:, 1:] | line[:, :-1])).astype(np.float32)


def _roughness_of(
    movie: PreparedMovie, used: Numbers, pairs: Numbers, good: Image, threads: int
) -> tuple[Vector, Vector]:
    """What `_roughness` finds of each frame, (frames, 5), and of their sum, (5,)."""
    correction = movie.correction
    dark = NO_DARK if correction.dark is None else correction.dark
    columns = movie.frames.shape[2]
    of_frames = np.empty((used.size, 5))
    totals: list[Stack] = []

    def look(first: int, end: int) -> None:
        total = np.zeros((pairs.size, 2, columns), dtype=np.float32)
        lines = np.empty_like(total)
        totals.append(total)
        for place in range(first, end):
            _correct(movie.frames[used[place]], correction.gain, dark, pairs, lines, total)
            _roughness(lines, good, of_frames[place])

    in_bands(look, used.size, threads)
    of_sum = np.empty(5)
    _roughness(np.sum(totals, axis=0, dtype=np.float32), good, of_sum)
    return of_frames, of_sum


@compiled_loosely
def _correct(frame: NDArray[np.generic], gain: Image, dark: Image, pairs: Numbers, lines: Stack, total: Stack) -> None:
    """Pairs of rows of a frame, corrected: (pairs, 2, columns); they are added to the total."""
    for pair in range(pairs.size):
        for which in range(2):
            y = pairs[pair] + which
            line, of_total = lines[pair, which], total[pair, which]
            if dark.size:
                for x in range(line.size):
                    line[x] = (np.float32(frame[y, x]) - dark[y, x]) * gain[y, x]
                    of_total[x] += line[x]
            else:
                for x in range(line.size):
                    line[x] = np.float32(frame[y, x]) * gain[y, x]
                    of_total[x] += line[x]


@compiled_loosely
def _roughness(lines: Stack, good: Image, found: Vector) -> None:
    """Sums over good pixels: squares of the differences of differences; of the differences from column to column the
    products two by two within columns, and the squares; and of those from row to row, within rows, the same."""
    columns = good.shape[1]
    of_column, squares_of_column = np.zeros(columns, dtype=np.float32), np.zeros(columns, dtype=np.float32)
    found[:] = 0
    for pair in range(good.shape[0]):
        upper, lower, counts = lines[pair, 0], lines[pair, 1], good[pair]
        squares = of_row = squares_of_row = np.float32(0)
        for x in range(columns):
            across = (upper[x] - upper[x + 1]) * counts[x]
            along = (upper[x] - lower[x]) * counts[x]
            both = across - (lower[x] - lower[x + 1]) * counts[x]
            squares += both * both
            of_column[x] += across
            squares_of_column[x] += across * across
            of_row += along
            squares_of_row += along * along
        found[0] += squares
        found[3] += np.float64(of_row) ** 2 - squares_of_row
        found[4] += squares_of_row
    for x in range(columns):
        found[1] += np.float64(of_column[x]) ** 2 - squares_of_column[x]
        found[2] += squares_of_column[x]

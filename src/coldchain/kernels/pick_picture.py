"""The micrograph at a few Å a pixel, on which particles are sought: read once, in whatever type it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from coldchain.compiled import compiled_loosely, in_bands
from coldchain.errors import ProcessingError
from coldchain.kernels.junk import SAMPLE, robust_deviation, sampled_median

Mask = NDArray[np.bool_]
Pixels = NDArray[np.float32]

_MOST_UNKNOWN = 0.5
# A value that is so many times as far from the median as all but a hundredth of the others measures nothing: it is a
# broken pixel, beside which all others would be the same number.
_ABSURD = 1e4
_ALL_BUT = 0.99
# A deviation of less than this part of the values is rounding.
_LEAST_DEVIATION = 1e-9
_LEAST_RATIO_FOR_TEXTURE = 2.0
# What is wider than so many particles is ice and illumination.
_GRADIENT_DIAMETERS = 3.5
# One hot pixel must not outweigh a particle,
_CLIP_DEVIATIONS = 5.0
# nor be a texture.
_HIGHEST_TEXTURE = 5.0
_NATIVE_TYPES = frozenset("bhilqBHILQfd")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Means of the micrograph over squares, standardised.

    pixels : (rows, columns) float32, mean 0, deviation 1; 0 where nothing is known.
    texture : (rows, columns) float32, the variance of the micrograph's pixels within each square, over its median:
        what of the micrograph is too fine for particles; None where squares are single pixels.
    unknown : (rows, columns): squares in which a pixel of the micrograph was no finite number, or an absurd one.
    ratio : pixels of the micrograph to one here; pixel (i, j) is centred on row i · ratio, column j · ratio.
    spacing_angstrom : of the pixels here.
    mean, deviation : what was taken off and divided by, in the micrograph's units.
    """

    pixels: Pixels
    texture: Pixels | None
    unknown: Mask
    ratio: float
    spacing_angstrom: float
    mean: float
    deviation: float


def coarse_picture(
    image: NDArray[np.generic], pixel_size_angstrom: float, spacing_angstrom: float, threads: int = 1
) -> Picture:
    """The micrograph at a coarser pixel.

    Every pixel is the mean of the square that it covers, parts of pixels counted as parts: what lies above the Nyquist
    frequency is not wholly gone, but a template of many pixels does not see it.

    Parameters
    ----------
    image : (rows, columns), any real type, with NaN, infinity or absurd values in some places.
    spacing_angstrom : wanted; a micrograph that is coarser keeps its pixels.

    Raises
    ------
    ProcessingError : half of the pixels are not finite numbers.
    """
    ratio = max(1.0, spacing_angstrom / pixel_size_angstrom)
    means, variances = _squares(image, ratio, threads)
    unknown = ~np.isfinite(means)
    if unknown.mean() > _MOST_UNKNOWN:
        raise ProcessingError(
            "half of the image's pixels are not finite numbers",
            expected="a number in nearly every pixel",
            remedy="Make the image again from its movie, or leave it out",
        )
    middle, most = _usual_range(means)
    if most > 0:
        with np.errstate(over="ignore"):  # of values at the ends of their type's range
            unknown |= np.abs(means - middle) > most
    known = means[~unknown] if unknown.any() else means
    # Of values near the end of their type's range the squares would be infinite.
    largest = max(float(np.abs(known).max()), float(np.finfo(np.float64).tiny))
    mean, deviation = float((known / largest).mean()) * largest, float((known / largest).std()) * largest
    means[unknown] = mean
    pixels = np.zeros(means.shape, dtype=np.float32)
    if deviation > _LEAST_DEVIATION * largest:
        pixels[...] = (means - mean) / deviation
    texture = _relative(variances, unknown) if ratio >= _LEAST_RATIO_FOR_TEXTURE else None
    return Picture(pixels, texture, unknown, ratio, ratio * pixel_size_angstrom, mean, deviation)


def _usual_range(values: NDArray[np.generic]) -> tuple[float, float]:
    """The median of an array's finite values, and how far from it a value may be that is not absurd; 0 and 0 where it
    has none. Of many values only some are looked at."""
    step = max(1, math.isqrt(values.size // SAMPLE))
    sample = values[::step, ::step].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return 0.0, 0.0
    middle = float(np.median(sample))
    with np.errstate(over="ignore"):  # as above
        return middle, _ABSURD * float(np.quantile(np.abs(sample - middle), _ALL_BUT))


def _relative(variances: NDArray[np.float64], unknown: Mask) -> Pixels | None:
    """Variances over their median; 1 where unknown. None where there is no noise to speak of."""
    usual = float(np.median(variances[~unknown]))
    if not (math.isfinite(usual) and usual > 0):
        return None
    relative = np.minimum(variances / usual, _HIGHEST_TEXTURE)
    return np.where(unknown, 1.0, relative).astype(np.float32)


def _squares(image: NDArray[np.generic], ratio: float, threads: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and variances in squares `ratio` wide, centred on its multiples; NaN or infinite where a value is."""
    readable = image.dtype.char in _NATIVE_TYPES and image.dtype.isnative
    values = image if readable else image.astype(np.float32 if image.dtype.itemsize < 4 else np.float64)
    shape = (math.floor((image.shape[0] - 1) / ratio) + 1, math.floor((image.shape[1] - 1) / ratio) + 1)
    means, variances = np.empty(shape), np.empty(shape)
    # Squares are taken of differences from some value of the image: its offset may be large against its noise.
    origin = float(values[image.shape[0] // 2, image.shape[1] // 2])
    middle, most = _usual_range(values)
    if not abs(origin - middle) <= most and most > 0:
        origin = middle
    origin = origin if math.isfinite(origin) else 0.0
    in_bands(lambda first, end: _fill(values, ratio, origin, means, variances, first, end), shape[0], threads)
    return means, variances


@compiled_loosely
def _fill(
    image: NDArray[np.generic],
    ratio: float,
    origin: float,
    means: NDArray[np.float64],
    variances: NDArray[np.float64],
    first: int,
    end: int,
) -> None:  # pragma: no cover  # compiled
    rows, columns = image.shape
    line, squares = np.empty(columns), np.empty(columns)
    for i in range(first, end):
        low, high = max((i - 0.5) * ratio, -0.5), min((i + 0.5) * ratio, rows - 0.5)
        line[:] = 0.0
        squares[:] = 0.0
        for row in range(math.floor(low + 0.5), min(rows, math.ceil(high + 0.5))):
            part = min(high, row + 0.5) - max(low, row - 0.5)
            for column in range(columns):
                value = float(image[row, column]) - origin
                line[column] += part * value
                squares[column] += part * value * value
        for j in range(means.shape[1]):
            left, right = max((j - 0.5) * ratio, -0.5), min((j + 0.5) * ratio, columns - 0.5)
            total, square = 0.0, 0.0
            for column in range(math.floor(left + 0.5), min(columns, math.ceil(right + 0.5))):
                part = min(right, column + 0.5) - max(left, column - 0.5)
                total += part * line[column]
                square += part * squares[column]
            area = (high - low) * (right - left)
            mean = total / area
            means[i, j] = mean + origin
            variances[i, j] = square / area - mean * mean


def flattened(pixels: Pixels, clean: Mask, diameter_pixel: float) -> Pixels:
    """The picture without slow gradients, about its median; 0 where it is not clean. (rows, columns) float32."""
    width = max(3, min(round(_GRADIENT_DIAMETERS * diameter_pixel), *pixels.shape))

    def slow(values: Pixels) -> Pixels:
        # Two running means are a triangle: nearly a Gaussian, at a cost that does not grow with its width.
        once = ndimage.uniform_filter(values, width, mode="reflect")
        return np.asarray(ndimage.uniform_filter(once, width, mode="reflect"))

    if clean.all():
        flat = pixels - slow(pixels)
        return np.asarray(flat - np.float32(sampled_median(flat)))
    ones = clean.astype(np.float32)
    flat = pixels - slow(pixels * ones) / np.maximum(slow(ones), np.float32(1e-3))
    middle = sampled_median(flat[clean]) if clean.any() else 0.0
    return np.where(clean, flat - np.float32(middle), np.float32(0))


def clipped(flat: Pixels, clean: Mask) -> Pixels:
    """The picture without outliers."""
    limit = _CLIP_DEVIATIONS * robust_deviation(flat[clean] if clean.any() else flat)
    return np.clip(flat, -limit, limit)

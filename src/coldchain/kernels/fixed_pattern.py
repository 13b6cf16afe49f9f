"""A camera's fixed pattern: how each pixel differs from its neighbours, in a sum of frames and in a gain reference.

What both have in common is the response of single pixels; a specimen is smoother, and electrons arrive at random.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.kernels.fourier import irfft2, rfft2

Image: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

_WINDOW_PIXEL = (512, 525)  # of even and of odd sides: the window and the frame have one centre
_CLIPPED_DEVIATIONS = 4.0
_LEAST_NEIGHBOURS = 3
_LEAST_LEVEL = 0.05  # of the mean: what a shadow may have
_NORMAL_MEDIAN = 0.6745
_ROUNDING = 1e-3
_LEAST_PATTERN = 1e-5
_LARGEST_SAMPLE = 40_000
# Of a power spectrum whose values are distributed exponentially, one in 60,000 lies beyond.
_LARGEST_POWER_PER_MEDIAN = 16.0
_LEAST_MEDIAN_PER_MEAN = 1e-3


def central_window(shape: tuple[int, int]) -> tuple[slice, slice]:
    """The middle of the frame, whose centre stays where it is when the frame is turned or flipped."""
    sides = [min(side, _WINDOW_PIXEL[side % 2]) for side in shape]
    starts = [(side - inside) // 2 for side, inside in zip(shape, sides, strict=True)]
    rows, columns = (slice(start, start + inside) for start, inside in zip(starts, sides, strict=True))
    return rows, columns


def counts_pattern(counts: Image, good: Mask) -> tuple[Image, float]:
    """Each pixel less its neighbours' mean, over the root of that mean: of counts, the same noise everywhere; and the
    root's own mean, by which a relative response is multiplied on the way. What stands out is left out."""
    level = float(counts[good].mean(dtype=np.float64)) if good.any() else 0.0
    if level <= 0:
        return np.zeros_like(counts), 0.0
    for _ in range(2):
        rest, mean = _beyond_neighbours(counts, good)
        root = np.sqrt(np.maximum(mean, _LEAST_LEVEL * level))
        rest /= root
        limit = _CLIPPED_DEVIATIONS * _deviation(rest[good])
        # A dead or hot pixel, found in the first round, spoils its neighbours' mean in the first round only.
        good = good & (np.abs(rest) <= limit)
    return np.where(good, rest, np.float32(0)), float(root[good].mean(dtype=np.float64)) if good.any() else 0.0


def gain_pattern(gain: Image) -> Image:
    """The logarithm of each pixel's response, which is the gain's inverse, less its neighbours' mean."""
    good = np.isfinite(gain) & (gain > 0)
    response = -np.log(gain, out=np.zeros_like(gain), where=good)
    rest, _ = _beyond_neighbours(response, good)
    deviation = _deviation(rest[good])
    if deviation < _LEAST_PATTERN:
        return np.zeros_like(rest)
    limit = np.float32(_CLIPPED_DEVIATIONS * deviation)
    return np.clip(rest, -limit, limit)


def _beyond_neighbours(image: Image, good: Mask) -> tuple[Image, Image]:
    """Each good pixel less the mean of the good ones of its eight neighbours, 0 where there are few; and that mean."""
    values = np.where(good, image, np.float32(0))
    weights = good.astype(np.float32)
    count = _blocks_of_nine(weights) - weights
    mean = (_blocks_of_nine(values) - values) / np.maximum(count, 1)
    return np.where(good & (count >= _LEAST_NEIGHBOURS), values - mean, np.float32(0)), mean


def _blocks_of_nine(image: Image) -> Image:
    padded = np.pad(image, 1)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    summed: Image = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return summed


def _deviation(values: Image) -> float:
    """A standard deviation that a few outliers do not move; the plain one where most values are equal, but for
    rounding."""
    if values.size == 0:
        return 0.0
    usual = _median(np.abs(values)) / _NORMAL_MEDIAN
    plain = math.sqrt(float(np.mean(np.square(values, dtype=np.float64))))
    return usual if usual > _ROUNDING * plain else plain


def _median(values: Image) -> float:
    """Of some ten thousand of the values: more make it no better, only slower."""
    return float(np.median(values.reshape(-1)[:: 1 + values.size // _LARGEST_SAMPLE]))


class Limited(NamedTuple):
    """A pattern without lines in its spectrum: the image, its power spectrum, and by how much each mode was scaled."""

    image: Image
    power: Image
    scale: Image


def limited(pattern: Image) -> Limited:
    """The pattern with its strongest modes scaled down to a few times the median power, their phases left."""
    transform = rfft2(pattern)
    power = power_spectrum(transform)
    usual = max(_median(power), _LEAST_MEDIAN_PER_MEAN * float(power.mean(dtype=np.float64)))
    if usual == 0:
        return Limited(pattern, power, np.ones_like(power))
    scale = 1 / np.sqrt(np.maximum(power / np.float32(_LARGEST_POWER_PER_MEDIAN * usual), 1))
    return Limited(irfft2(transform * scale, (pattern.shape[0], pattern.shape[1])), power * scale**2, scale)


def power_spectrum(transform: NDArray[np.complex64]) -> Image:
    """The squares of a half-plane's magnitudes."""
    power: Image = transform.real**2 + transform.imag**2
    return power

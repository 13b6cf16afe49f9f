"""Places of a micrograph where no particle is to be sought: carbon, ice, aggregates, gold, and pixels that are broken.

Two kinds are told apart. *Sides*: where the picture falls into two parts of different brightness, or different fine
texture, with a sharp border, the denser is carbon or a patch of crystals. *Bodies*: what is far darker or brighter than
noise and wider than a particle; or stronger than the particles, once these are known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

# A body is this many robust standard deviations from the median, after smoothing at a tenth of the particle's diameter,
_EXTREME_DEVIATIONS = 6.0
_SMOOTHING_DIAMETERS = 0.1
# and of half its height or more nearby,
_PART_OF_HEIGHT = 0.45
# and holds a circle this many particles wide: strong particles, alone or touching, do not.
_LEAST_WIDTH = 1.15
# It is grown by this part of the diameter, for its fringe.
_GROWTH = 0.1
# Gaps narrower than twice this part of it, as between a body and its fringes, are closed.
_CLOSING = 0.25
# Background is what is so many particles wide.
_BACKGROUND_DIAMETERS = 11
# Two sides: the picture is smoothed over this many diameters, for its particles,
_SIDE_SMOOTHING_DIAMETERS = 0.5
# the means differ by so many deviations within the sides, and the border is at least so sharp against a step's,
_LEAST_SEPARATION = 5.0
_LEAST_SHARPNESS = 0.5
# and the smaller side is this many particles large.
_LEAST_SIDE_DIAMETERS = 3.0
_LEVELS = 128
_MAD_TO_SIGMA = 1.4826
# Medians of more pixels than this are taken of every few.
SAMPLE = 1 << 15


@dataclass(frozen=True, slots=True, eq=False)
class Relief:
    """How far the picture stands out of its background: (rows, columns) float32, smoothed at a tenth of a particle.

    deviation : of what is no body, by differences between places half a particle apart, of which bodies spoil few.
    """

    height: Floats
    deviation: float
    diameter_pixel: float

    @classmethod
    def of(cls, values: Floats, clean: Mask, diameter_pixel: float, *, everywhere: bool = False) -> Relief:
        """The relief of a picture (rows, columns); 0 where it is not clean. The background is what is wide, or, if it
        is asked for, the same everywhere."""
        usual = np.float32(sampled_median(values[clean]) if clean.any() else 0)
        level = values - (usual if everywhere else _background(values, clean, diameter_pixel))
        level[~clean] = 0
        height = ndimage.gaussian_filter(level, _SMOOTHING_DIAMETERS * diameter_pixel, mode="nearest")
        lag = max(1, min(round(0.5 * diameter_pixel), min(values.shape) // 2))
        both = clean[:, lag:] & clean[:, :-lag]
        steps = (height[:, lag:] - height[:, :-lag])[both]
        return cls(height, robust_deviation(steps) / math.sqrt(2), diameter_pixel)

    def wide_bodies(self) -> Mask:
        """Bodies that stand out of the noise and are wider than particles, dark ones and bright ones."""
        found = np.zeros(self.height.shape, dtype=bool)
        for signed in (self.height, -self.height):
            radius = 0.5 * _LEAST_WIDTH * self.diameter_pixel
            body = _large_parts(self._bodies(signed, 0.0), math.pi * radius**2)
            if body.any():
                core = inner_distance(body) > radius
                found |= ndimage.binary_propagation(core, mask=body)
        return _rounded(found, self.diameter_pixel)

    def strong_bodies(self, least: float) -> Mask:
        """Bodies of any size that somewhere stand out by more than `least`, down to half of that."""
        size = np.abs(self.height)
        core = size > max(least, _EXTREME_DEVIATIONS * self.deviation)
        if not core.any():
            return core
        return _rounded(ndimage.binary_propagation(core, mask=self._bodies(size, 0.5 * least)), self.diameter_pixel)

    def _bodies(self, signed: Floats, least: float) -> Mask:
        """What stands out of the noise, as wide as at a part of its height: the smoothing widened its foot."""
        extreme = signed > max(least, _EXTREME_DEVIATIONS * self.deviation)
        if not extreme.any():
            return extreme
        summits = ndimage.maximum_filter(signed, max(3, round(self.diameter_pixel)))
        return np.asarray(extreme & (signed > _PART_OF_HEIGHT * summits))


def _background(values: Floats, clean: Mask, diameter_pixel: float) -> Floats:
    """What is far wider than particles, by medians of means: bodies that cover less than half do not count.

    (rows, columns) float32.
    """
    step = max(1, round(diameter_pixel))
    places = [np.arange(0, length, step) for length in values.shape]

    def summed(of: Floats) -> Floats:
        return np.asarray(np.add.reduceat(np.add.reduceat(of, places[0], 0), places[1], 1))

    ones = clean.astype(np.float32)
    counts = summed(ones)
    means = summed(values * ones) / np.maximum(counts, 1)
    means[counts == 0] = sampled_median(values[clean]) if clean.any() else 0
    wide = ndimage.median_filter(means, _BACKGROUND_DIAMETERS, mode="nearest")
    ways = [_interpolation(length, step) for length in values.shape]
    return np.asarray(ways[0] @ wide @ ways[1].T, dtype=np.float32)


def _interpolation(length: int, step: int) -> Floats:
    """Linear interpolation from the middles of steps to pixels: (length, steps)."""
    steps = -(-length // step)
    place = np.clip((np.arange(length) + 0.5) / step - 0.5, 0, steps - 1)
    distance = np.abs(place[:, np.newaxis] - np.arange(steps)[np.newaxis, :])
    return np.asarray(np.maximum(1 - distance, 0), dtype=np.float32)


def denser_side(values: Floats, clean: Mask, diameter_pixel: float, *, denser_is_higher: bool) -> Mask:
    """True on one side of the sharp border that divides the picture; nowhere where there is none.

    Parameters
    ----------
    values : (rows, columns): brightness, or texture.
    clean : what counts of it.
    denser_is_higher : which side is wanted.

    The threshold is the one that leaves the least variance within the sides (Otsu, IEEE Trans. Syst. Man Cybern. 1979,
    9, 62, doi:10.1109/TSMC.1979.4310076).
    """
    nothing = np.zeros(values.shape, dtype=bool)
    if not clean.any():
        return nothing
    values = np.where(clean, values, np.float32(sampled_median(values[clean])))
    sigma = max(1.0, _SIDE_SMOOTHING_DIAMETERS * diameter_pixel)
    # A quarter of the smoothing's width between samples is enough.
    step = max(1, int(sigma / 4))
    rows, columns = (math.ceil(length / step) for length in values.shape)
    small = np.add.reduceat(np.add.reduceat(values, np.arange(rows) * step, 0), np.arange(columns) * step, 1)
    counts = np.add.reduceat(
        np.add.reduceat(np.ones_like(values), np.arange(rows) * step, 0), np.arange(columns) * step, 1
    )
    level: Floats = ndimage.gaussian_filter(small / counts, sigma / step, mode="nearest").astype(np.float32)
    threshold = _otsu(level)
    fewest = (_LEAST_SIDE_DIAMETERS * diameter_pixel / step) ** 2 * 0.25 * math.pi
    denser = _large_parts(level > threshold if denser_is_higher else level <= threshold, fewest)
    high = denser if denser_is_higher else ~denser
    if min(np.count_nonzero(high), np.count_nonzero(~high)) < fewest:
        return nothing
    above, below = level[high], level[~high]
    separation = float(np.median(above) - np.median(below))
    within = max(robust_deviation(above), robust_deviation(below))
    if separation < _LEAST_SEPARATION * within or separation <= 0:
        return nothing
    border = high ^ ndimage.binary_erosion(high, border_value=1)
    slope = np.hypot(*np.gradient(level))[border]
    if float(np.median(slope)) * math.sqrt(2 * math.pi) * sigma / step < _LEAST_SHARPNESS * separation:
        return nothing
    return np.repeat(np.repeat(denser, step, 0), step, 1)[: values.shape[0], : values.shape[1]]


def _large_parts(mask: Mask, least: float) -> Mask:
    """The connected parts of at least so many pixels: many small ones are particles."""
    if np.count_nonzero(mask) < least:
        return np.zeros(mask.shape, dtype=bool)
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes >= least)[labels])


def _otsu(values: Floats) -> float:
    counts, edges = np.histogram(values, _LEVELS)
    middles = 0.5 * (edges[1:] + edges[:-1])
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * middles)[:-1]
    above = counts.sum() - below
    total = float((counts * middles).sum())
    known = np.maximum(below, 1), np.maximum(above, 1)
    between = below * above * (sums / known[0] - (total - sums) / known[1]) ** 2
    # The middle of the best, which are many where nothing lies between the sides.
    best = np.flatnonzero(between >= (1 - 1e-6) * between.max())
    return float(edges[1 + best[len(best) // 2]])


def _rounded(found: Mask, diameter_pixel: float) -> Mask:
    """Bodies grown a little, and their gaps closed."""
    if not found.any():
        return found
    larger = grown(found, (_GROWTH + _CLOSING) * diameter_pixel)
    return np.asarray(inner_distance(larger) > _CLOSING * diameter_pixel)


def grown(mask: Mask, distance_pixel: float) -> Mask:
    """The mask and what lies within a distance of it."""
    return mask if distance_pixel <= 0 or not mask.any() else np.asarray(inner_distance(~mask) <= distance_pixel)


def inner_distance(inside: Mask) -> NDArray[np.float64]:
    """Distance in pixels from each True place to the nearest False one; infinite where there is none."""
    if inside.all():
        return np.full(inside.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(inside), dtype=np.float64)


def sampled_median(values: NDArray[np.floating]) -> float:
    """Median; of very many values, of every few."""
    return float(np.median(_sample(values)))


def robust_deviation(values: NDArray[np.floating]) -> float:
    """Standard deviation by the median absolute deviation: what a minority of outliers does not change."""
    some = _sample(values)
    return float(_MAD_TO_SIGMA * np.median(np.abs(some - np.median(some)))) if some.size else 0.0


def _sample(values: NDArray[np.floating]) -> NDArray[np.floating]:
    flat = values.reshape(-1)
    return flat[:: max(1, flat.size // SAMPLE)]

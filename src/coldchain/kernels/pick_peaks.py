"""From a map of scores to places: peaks a particle apart, and the score from which on a peak is no noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from coldchain.compiled import compiled
from coldchain.kernels.junk import SAMPLE, robust_deviation
from coldchain.kernels.matching import Floats, Mask

# Neighbours may touch and overlap a little.
LEAST_DISTANCE_DIAMETERS = 0.85
# No peak has a higher place this near.
_WINDOW_DIAMETERS = 0.2
# What the decoys may make of the picks: beyond it more noise than particles is gained.
_FALSE_PART = 0.1
# In noise, so many picks before the second decoy have a chance of a few in a million.
_FEWEST_FOR_DECOYS = 25
# The noise's own deviation is that of the map this far from the picks, out of reach of their circles of comparison;
# nearer where less than this part of the map is so far away.
_CLEAR_DIAMETERS = (1.1, 1.0, 0.9, 0.8, 0.7, 0.6)
_LEAST_CLEAR = 0.05
_ROUNDS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Peaks of a map, best first: (peaks,) rows, columns and heights."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    heights: Floats

    def first(self, count: int) -> Peaks:
        """The best ones."""
        return Peaks(self.rows[:count], self.columns[:count], self.heights[:count])

    def where(self, kept: NDArray[np.bool_]) -> Peaks:
        """Those that are True in (peaks,)."""
        return Peaks(self.rows[kept], self.columns[kept], self.heights[kept])


def peaks_of(scores: Floats, allowed: Mask, diameter_pixel: float) -> Peaks:
    """Local maxima above 0, none within `LEAST_DISTANCE_DIAMETERS` of a better one, none where it is not allowed.

    None on the picture's outermost pixels: what is best there has its centre outside.
    """
    rows, columns = np.nonzero(_is_peak(scores, max(1, int(_WINDOW_DIAMETERS * diameter_pixel))) & allowed)
    heights = scores[rows, columns]
    order = np.argsort(-heights, kind="stable")
    rows, columns = rows[order], columns[order]
    kept = _apart(rows, columns, scores.shape, LEAST_DISTANCE_DIAMETERS * diameter_pixel)
    return Peaks(rows[kept], columns[kept], scores[rows[kept], columns[kept]])


def threshold_of(
    scores: Floats, clean: Mask, peaks: Peaks, decoys: Peaks, diameter_pixel: float, alarms: float
) -> float:
    """The score from which on a place counts as a particle.

    Two readings of the micrograph's own noise; the lower one holds.

    *Gaussian*: the level that a Gaussian field with the noise's deviation and steepness exceeds `alarms` times on
    average (Adler, The Geometry of Random Fields, 1981, doi:10.1137/1.9780898718980). The noise is what lies between
    the picks: it is measured again without what was found, until nothing more is.

    *Decoys*: noise scores as often below zero as above, so the peaks of the map turned upside down say how many of the
    picks are false (Elias & Gygi, Nat. Methods 2007, 4, 207, doi:10.1038/nmeth1019); asked only where the picks are too
    many to be noise.
    """
    decoy_level = _decoy_level(peaks.heights, decoys.heights)
    certain = int(np.count_nonzero(peaks.heights >= decoy_level))
    return min(decoy_level, gaussian_level(scores, clean, peaks, diameter_pixel, alarms, certain))


def gaussian_level(
    scores: Floats, clean: Mask, peaks: Peaks, diameter_pixel: float, alarms: float, certain: int = 0
) -> float:
    """The level that the noise between the picks exceeds `alarms` times on average, where so many picks are certain."""
    found, level = certain, math.inf
    for _ in range(_ROUNDS):
        deviation, steepness = noise_of(scores, clean, peaks.first(found), diameter_pixel)
        if deviation <= 0:
            return level
        level = min(level, _level(deviation, steepness, int(np.count_nonzero(clean)), alarms))
        more = int(np.count_nonzero(peaks.heights >= level))
        if more <= found:
            break
        found = more
    return level


def noise_of(scores: Floats, clean: Mask, found: Peaks, diameter_pixel: float) -> tuple[float, float]:
    """Robust deviation of the clean map away from what was found, and the geometric mean of its slopes' deviations."""
    clear = clean
    for distance in _CLEAR_DIAMETERS if len(found.rows) else ():
        free = _free_of(found.rows, found.columns, scores.shape, distance * diameter_pixel) & clean
        if int(np.count_nonzero(free)) >= _LEAST_CLEAR * max(1, int(np.count_nonzero(clean))):
            clear = free
            break
    both = np.flatnonzero(clear[:-1, :-1] & clear[1:, :-1] & clear[:-1, 1:])
    if not len(both):
        return 0.0, 0.0
    some = both[:: max(1, len(both) // SAMPLE)]
    rows, columns = np.divmod(some, clear.shape[1] - 1)
    here = scores[rows, columns]
    down, along = scores[rows + 1, columns] - here, scores[rows, columns + 1] - here
    return robust_deviation(here), math.sqrt(robust_deviation(down) * robust_deviation(along))


def _level(deviation: float, steepness: float, area: int, alarms: float) -> float:
    """The level that a Gaussian field exceeds in `alarms` separate places on average."""
    density = area * (steepness / max(deviation, 1e-12)) ** 2 / (2 * math.pi) ** 1.5

    def excess(level: float) -> float:
        return math.log(max(density, 1e-300)) + math.log(level) - 0.5 * level**2 - math.log(alarms)

    # The expected number falls with the level from one standard deviation on.
    return deviation * (float(brentq(excess, 1.0, 40.0)) if excess(1.0) > 0 else 1.0)


def _decoy_level(heights: Floats, decoys: Floats) -> float:
    """The lowest pick above which decoys are at most `_FALSE_PART` of the picks all the way; infinite for few picks."""
    false = len(decoys) - np.searchsorted(np.sort(decoys), heights)
    picks = np.arange(1, len(heights) + 1)
    too_many = np.flatnonzero(false > np.maximum(1, _FALSE_PART * picks))
    last = int(too_many[0]) if len(too_many) else len(heights)
    return float(heights[last - 1]) if last >= _FEWEST_FOR_DECOYS else math.inf


def summit(three: NDArray[np.floating]) -> float:
    """Where the parabola through three values has its summit, −0.5 … 0.5 from the middle."""
    below, middle, above = (float(v) for v in three)
    curvature = below - 2 * middle + above
    return max(-0.5, min(0.5, 0.5 * (below - above) / curvature)) if curvature < 0 else 0.0


@compiled
def _is_peak(scores: Floats, reach: int) -> Mask:  # pragma: no cover  # compiled
    rows, columns = scores.shape
    peak = np.zeros((rows, columns), dtype=np.bool_)
    for i in range(1, rows - 1):
        for j in range(1, columns - 1):
            here = scores[i, j]
            if not (here > 0 and here >= scores[i, j - 1] and here > scores[i, j + 1]):
                continue
            highest = True
            for k in range(max(0, i - reach), min(rows, i + reach + 1)):
                for m in range(max(0, j - reach), min(columns, j + reach + 1)):
                    if scores[k, m] > here:
                        highest = False
                        break
                if not highest:
                    break
            peak[i, j] = highest
    return peak


@compiled
def _apart(
    rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int], distance: float
) -> NDArray[np.bool_]:  # pragma: no cover  # compiled
    taken = np.zeros(shape, dtype=np.bool_)
    kept = np.zeros(len(rows), dtype=np.bool_)
    for i in range(len(rows)):
        if not taken[rows[i], columns[i]]:
            kept[i] = True
            _fill(taken, rows[i], columns[i], distance)
    return kept


@compiled
def _free_of(
    rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int], distance: float
) -> Mask:  # pragma: no cover  # compiled
    taken = np.zeros(shape, dtype=np.bool_)
    for i in range(len(rows)):
        _fill(taken, rows[i], columns[i], distance)
    return ~taken


@compiled
def _fill(taken: Mask, row: int, column: int, radius: float) -> None:  # pragma: no cover  # compiled
    reach = int(radius)
    for i in range(max(0, row - reach), min(taken.shape[0], row + reach + 1)):
        for j in range(max(0, column - reach), min(taken.shape[1], column + reach + 1)):
            if (i - row) ** 2 + (j - column) ** 2 <= radius * radius:
                taken[i, j] = True

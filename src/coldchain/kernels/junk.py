"""Places of a micrograph where no particle is to be sought: very dark or bright bodies, and defects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# A body is this many robust standard deviations from the median, after smoothing at a tenth of the particle's diameter,
_EXTREME_DEVIATIONS = 6.0
# and holds a circle this many particles wide: strong particles, alone or touching, do not.
_LEAST_WIDTH = 1.15
# It is grown by this part of the diameter, for its fringe.
_GROWTH = 0.15
_MAD_TO_SIGMA = 1.4826


def junk_mask(picture: NDArray[np.float64], diameter_pixel: float) -> NDArray[np.bool_]:
    """True where the picture is far darker or brighter than particles are, over more than a speck.

    Parameters
    ----------
    picture : (rows, columns), slow gradients removed.
    diameter_pixel : diameter of the particles sought.

    Returns
    -------
    (rows, columns) bool.
    """
    smooth = ndimage.gaussian_filter(picture, 0.1 * diameter_pixel, mode="nearest")
    extreme = np.abs(smooth - np.median(smooth)) > _EXTREME_DEVIATIONS * robust_deviation(smooth)
    if not extreme.any():
        return np.zeros(picture.shape, dtype=bool)
    core = inner_distance(extreme) > 0.5 * _LEAST_WIDTH * diameter_pixel
    whole = ndimage.binary_propagation(core, mask=extreme)
    return np.asarray(inner_distance(~whole) <= _GROWTH * diameter_pixel)


def inner_distance(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance in pixels from each True place to the nearest False one; infinite where there is none."""
    if inside.all():
        return np.full(inside.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(inside), dtype=np.float64)


def robust_deviation(values: NDArray[np.float64]) -> float:
    """Standard deviation by the median absolute deviation: what a minority of outliers does not change."""
    return float(_MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def disc(radius_pixel: float) -> NDArray[np.bool_]:
    """A filled circle, as a square array of odd size; at least one pixel."""
    half = max(0, int(radius_pixel))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return np.asarray(x**2 + y**2 <= max(radius_pixel, 0.5) ** 2)

"""How much of the beam came through a micrograph, and how evenly: what its ice tells without a fit.

Electrons that the specimen scatters beyond the objective aperture, or out of the energy slit, are missing from the
picture: I = I₀ exp(−t/λ), with λ some hundred nm of ice (Rice et al., J. Struct. Biol. 2018, 204, 38,
https://doi.org/10.1016/j.jsb.2018.06.007).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coldchain.kernels.binning import sums_of_bins
from coldchain.model.results import QualityResult

# Coarser than particles and Thon rings, whose contrast is no thickness; fine enough to see ice thin out in a hole.
_BLOCK_ANGSTROM = 200.0
_FEWEST_BLOCKS = 4
_COARSEST_SHARE = 1 / 8


def measure_brightness(
    image: NDArray[np.generic], pixel_size_angstrom: float, dose_e_per_square_angstrom: float | None
) -> QualityResult:
    """Transmission and unevenness of a micrograph.

    Parameters
    ----------
    image : (rows, columns), the plain sum of a movie in electrons, or another image that is proportional to them.
    pixel_size_angstrom : of the image.
    dose_e_per_square_angstrom : what was sent; None where nobody knows.

    Returns
    -------
    transmission : the median over blocks of 200 Å of the electrons per Å², over the dose where it is known. None where
        the image has none: a mean of 0 or less, as of one that was normalised.
    unevenness : the standard deviation of the logarithm of the blocks' brightness, which is that of t/λ: the square
        root of the power below about 1/400 Å⁻¹. None where there are fewer than 4 × 4 blocks, or a block has nothing.
    """
    if image.ndim != 2 or min(image.shape) < _FEWEST_BLOCKS:
        return QualityResult(None, None)
    picture = np.asarray(image, dtype=np.float32)
    factor = max(1, min(round(_BLOCK_ANGSTROM / pixel_size_angstrom), int(min(image.shape) * _COARSEST_SHARE)))
    blocks = sums_of_bins(picture, factor).astype(np.float64) / (factor * pixel_size_angstrom) ** 2
    middle = float(np.median(blocks))
    if not math.isfinite(middle) or middle <= 0:
        return QualityResult(None, None)
    is_lit = bool(np.isfinite(blocks).all()) and float(blocks.min()) > 0 and min(blocks.shape) >= _FEWEST_BLOCKS
    return QualityResult(
        transmission=middle / (dose_e_per_square_angstrom or 1.0),
        unevenness=float(np.log(blocks).std()) if is_lit else None,
    )

"""How large the particles of a micrograph are, where nobody said."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coldchain.kernels.fourier import fourier_crop, good_size, irfft2, rfft2
from coldchain.kernels.junk import Relief
from coldchain.kernels.matching import Floats, Scene, projected_shell
from coldchain.kernels.pick_peaks import peaks_of, summit, threshold_of
from coldchain.kernels.pick_picture import Picture, clipped, flattened

_STEP = 1.12
TRIED_DIAMETERS_ANGSTROM = tuple(70.0 * _STEP**i for i in range(16))
# Of the smallest, which sets the picture's own pixel,
_LEAST_PIXELS_PER_DIAMETER = 12.0
SPACING_ANGSTROM = TRIED_DIAMETERS_ANGSTROM[0] / _LEAST_PIXELS_PER_DIAMETER
# and of the others.
_PIXELS_PER_DIAMETER = 17.0
_CAVITIES = (0.0, 0.7)
# Noise that is taken for a particle at each size; what one wrong particle explains is little.
_FALSE_ALARMS = 1.0
# One body of another kind must not count for many particles.
_MOST_OF_TYPICAL = 3.0
# Parts of a particle may be as plain as the whole, but the whole is larger: the largest of the sizes that explain
# nearly as much as the best.
_NEARLY = 0.6
# Correlation coefficient beyond which rounding decides.
_HIGHEST = np.float32(0.9999)
_LEAST_PICTURE_DIAMETERS = 5.0


def estimate_size(picture: Picture, threads: int = 1) -> float | None:
    """The particle diameter in Å with which most of the micrograph is explained; None where nothing stands out.

    At every size the places that stand out of the noise as a ball's or a shell's projection are taken as the particles,
    and the variance that the projections at these places explain is added up. Too small a particle leaves much of each
    unexplained, too large a one takes in what is beside it, and noise explains nothing. The diameter is so that of the
    ball or shell that is most like the particles, seen from all sides: of a long particle, a mean of its diameters.

    Parameters
    ----------
    picture : at `SPACING_ANGSTROM` a pixel, or coarser.
    """
    extent = min(picture.pixels.shape) * picture.spacing_angstrom
    tried = [d for d in TRIED_DIAMETERS_ANGSTROM if d * _LEAST_PICTURE_DIAMETERS <= extent]
    tried = [d for d in tried if d >= 5 * picture.spacing_angstrom]
    if not tried:
        return None
    transform = rfft2(picture.pixels, threads)

    def amount(diameter: float) -> float:
        return _amount(_reduced(picture, transform, diameter / _PIXELS_PER_DIAMETER), diameter)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        amounts = np.array(list(pool.map(amount, tried)))
    if amounts.max() <= 0:
        return None
    around = np.concatenate(([0], amounts, [0]))
    summits = (amounts >= around[:-2]) & (amounts > around[2:]) & (amounts >= _NEARLY * amounts.max())
    best = int(np.flatnonzero(summits)[-1])
    return float(tried[best] * _STEP ** summit(around[best : best + 3]))


def _amount(picture: Picture, diameter_angstrom: float) -> float:
    """How much variance, times area, particles of a size explain."""
    diameter = diameter_angstrom / picture.spacing_angstrom
    everywhere = ~picture.unknown
    clean = everywhere & ~Relief.of(picture.pixels, everywhere, diameter).wide_bodies()
    scene = Scene.of(clipped(flattened(picture.pixels, clean, diameter), clean), clean, diameter)
    most = 0.0
    for cavity in _CAVITIES:
        coefficients, _ = scene.score(projected_shell(diameter, cavity))
        # A coefficient cannot pass 1, so that strong particles stand less far out of the noise than they should; its
        # inverse hyperbolic tangent is as wide everywhere (Fisher, Metron 1921, 1, 3).
        scores = np.arctanh(np.clip(coefficients, -_HIGHEST, _HIGHEST))
        light, dark = (peaks_of(signed, clean, diameter) for signed in (scores, -scores))
        for signed, peaks, decoys in ((scores, light, dark), (-scores, dark, light)):
            found = peaks.where(peaks.heights >= threshold_of(signed, clean, peaks, decoys, diameter, _FALSE_ALARMS))
            explained = np.tanh(found.heights) ** 2 * scene.variation[found.rows, found.columns]
            most = max(most, _capped_sum(explained) * picture.spacing_angstrom**2)
    return most


def _capped_sum(amounts: Floats) -> float:
    return float(np.minimum(amounts, _MOST_OF_TYPICAL * np.median(amounts)).sum()) if len(amounts) else 0.0


def _reduced(picture: Picture, transform: NDArray[np.complex64], spacing_angstrom: float) -> Picture:
    """The picture at a coarser pixel, from its transform, in the same units of grey."""
    rows, columns = picture.pixels.shape
    part = min(1.0, picture.spacing_angstrom / spacing_angstrom)
    shape = tuple(min(length, good_size(math.ceil(length * part), even=True)) for length in (rows, columns))
    if shape == (rows, columns):
        return picture
    pixels = irfft2(fourier_crop(transform, (rows, columns), (shape[0], shape[1])), (shape[0], shape[1]))
    nearest = np.ix_(*(np.arange(new) * old // new for new, old in zip(shape, (rows, columns), strict=True)))
    ratio = math.sqrt(rows * columns / (shape[0] * shape[1]))
    return replace(
        picture,
        pixels=pixels,
        texture=None,
        unknown=picture.unknown[nearest],
        ratio=picture.ratio * ratio,
        spacing_angstrom=picture.spacing_angstrom * ratio,
    )

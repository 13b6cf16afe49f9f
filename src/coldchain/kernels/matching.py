"""How well every place of a picture looks like the projection of a ball or of a hollow shell.

The score is the locally normalised cross-correlation (Roseman, Ultramicroscopy 2003, 94, 225,
doi:10.1016/S0304-3991(02)00333-9): the correlation coefficient, −1 … 1, of a template with the pixels below it, in a
circle around it. Templates are analytic: a ball of radius R projects to √(R² − r²), a shell to that less the same of
its cavity, so that no reference is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coldchain.kernels.fourier import HalfPlane, good_size, irfft2, rfft2

Floats = NDArray[np.float64]

# Sub-pixels per axis when a template is drawn.
_OVERSAMPLING = 5


# The picture is compared in a circle this many diameters wide: the particle and a rim of background.
_MASK_DIAMETERS = 1.2


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture made ready to be compared with shells of one diameter: padded with its own mirror image, transformed.

    shape : (rows, columns) of the picture; margin : pixels of mirror at each side.
    mask : the circle of comparison, a square array of odd size. deviation : (rows, columns) of the pixels in it.
    """

    diameter_pixel: float
    shape: tuple[int, int]
    margin: int
    padded_shape: tuple[int, int]
    transform: HalfPlane
    mask: Floats
    deviation: Floats
    threads: int

    @classmethod
    def of(cls, picture: Floats, diameter_pixel: float, threads: int = 1) -> Scene:
        """The scene of `picture` (rows, columns) for shells of an outer diameter in its pixels."""
        rows, columns = picture.shape
        mask = _drawn(_MASK_DIAMETERS * diameter_pixel, lambda squared, radius: (squared <= radius**2).astype(float))
        margin = min(len(mask) // 2 + 1, rows, columns)
        padded_shape = (good_size(rows + 2 * margin, even=True), good_size(columns + 2 * margin, even=True))
        padding = ((margin, padded_shape[0] - rows - margin), (margin, padded_shape[1] - columns - margin))
        padded = np.pad(picture, padding, mode="symmetric")
        scene = cls(
            diameter_pixel=diameter_pixel,
            shape=(rows, columns),
            margin=margin,
            padded_shape=padded_shape,
            transform=rfft2(padded, threads),
            mask=mask,
            deviation=np.zeros((0, 0)),
            threads=threads,
        )
        area = float(mask.sum())
        mean = scene.correlate(mask) / area
        variance = replace(scene, transform=rfft2(padded**2, threads)).correlate(mask) / area - mean**2
        # Where the picture is flat there is nothing to compare; the floor keeps rounding errors from becoming scores.
        floor = 1e-4 * float(np.median(variance)) + 1e-12
        return replace(scene, deviation=np.sqrt(np.maximum(variance, floor)))

    def correlate(self, kernel: Floats) -> Floats:
        """Correlation of the picture with an odd square kernel, on the picture's own pixels: (rows, columns)."""
        padded = np.zeros(self.padded_shape)
        size = min(len(kernel), *self.padded_shape)
        padded[:size, :size] = kernel[:size, :size]
        kernel_transform = rfft2(np.roll(padded, (-(size // 2), -(size // 2)), (0, 1)), self.threads)
        whole = irfft2(self.transform * np.conj(kernel_transform), self.padded_shape, self.threads)
        m, (rows, columns) = self.margin, self.shape
        return np.asarray(whole[m : m + rows, m : m + columns], dtype=np.float64)

    def score(self, cavity: float) -> tuple[Floats, Floats]:
        """How well, and how strongly, every place shows a shell's projection (bright on dark).

        Parameters
        ----------
        cavity : the cavity's diameter as a part of the outer one; 0 is a solid ball.

        Returns
        -------
        scores, contrasts : (rows, columns) each: the correlation coefficient, −1 … 1, and the factor by which the
            projection would have to be multiplied, in grey values of the picture per pixel of thickness.
        """
        projection = np.zeros_like(self.mask)
        drawn = projected_shell(self.diameter_pixel, cavity)
        rim = (len(self.mask) - len(drawn)) // 2
        projection[rim : rim + len(drawn), rim : rim + len(drawn)] = drawn
        area = float(self.mask.sum())
        template = self.mask * (projection - float((self.mask * projection).sum()) / area)
        length = math.sqrt(float((template**2).sum()))
        overlap = self.correlate(template)
        return overlap / (length * math.sqrt(area) * self.deviation), overlap / length**2


def projected_shell(diameter_pixel: float, cavity: float) -> Floats:
    """Thickness, in pixels, of a shell seen from far away: a square array of odd size, drawn with sub-pixels."""

    def half_thickness(squared: Floats, radius: float) -> Floats:
        whole = np.sqrt(np.maximum(radius**2 - squared, 0))
        return np.asarray(whole - np.sqrt(np.maximum((cavity * radius) ** 2 - squared, 0)))

    return 2 * _drawn(diameter_pixel, half_thickness)


def _drawn(diameter: float, value: Callable[[Floats, float], Floats]) -> Floats:
    """Pixel means of a function of squared distance and radius."""
    half = math.ceil(0.5 * diameter + 0.5)
    size = 2 * half + 1
    fine = (np.arange(size * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - (half + 0.5)
    squared = fine[:, np.newaxis] ** 2 + fine[np.newaxis, :] ** 2
    blocks = value(squared, 0.5 * diameter).reshape(size, _OVERSAMPLING, size, _OVERSAMPLING)
    return np.asarray(blocks.mean(axis=(1, 3)))

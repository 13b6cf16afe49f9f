"""How well every place of a picture looks like the projection of a ball or of a hollow shell.

The score is the locally normalised cross-correlation (Roseman, Ultramicroscopy 2003, 94, 225,
doi:10.1016/S0304-3991(02)00333-9): the correlation coefficient, −1 … 1, of a template with the pixels below it, in a
circle around it. Templates are analytic: a ball of radius R projects to √(R² − r²), a shell to that less the same of its
cavity, so that no reference is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coldchain.kernels.fourier import HalfPlane, good_size, irfft2, rfft2

Floats = NDArray[np.float64]

# Sub-pixels per axis when a template is drawn.
_OVERSAMPLING = 5


@dataclass(frozen=True, slots=True)
class Shell:
    """A member of the family: outer diameter, and the cavity's diameter as a part of it (0 is a solid ball)."""

    diameter_pixel: float
    cavity: float

    @property
    def mask_diameter_pixel(self) -> float:
        """The circle in which the picture is compared: the particle and a rim of background."""
        return _RIM * self.diameter_pixel


_RIM = 1.2


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture made ready for many templates: padded with its own mirror image, transformed once.

    shape : (rows, columns) of the picture; margin : pixels of mirror at each side.
    """

    shape: tuple[int, int]
    margin: int
    padded_shape: tuple[int, int]
    transform: HalfPlane
    squared_transform: HalfPlane
    threads: int

    @classmethod
    def of(cls, picture: Floats, margin: int, threads: int = 1) -> Scene:
        """The scene of `picture` (rows, columns), for templates of a radius up to `margin` pixels."""
        rows, columns = picture.shape
        margin = min(margin, rows - 1, columns - 1)
        padded_shape = (good_size(rows + 2 * margin, even=True), good_size(columns + 2 * margin, even=True))
        padding = (
            (margin, padded_shape[0] - rows - margin),
            (margin, padded_shape[1] - columns - margin),
        )
        padded = np.pad(picture, padding, mode="symmetric")
        return cls(
            shape=(rows, columns),
            margin=margin,
            padded_shape=padded_shape,
            transform=rfft2(padded, threads),
            squared_transform=rfft2(padded**2, threads),
            threads=threads,
        )

    def correlate(self, kernel_transform: HalfPlane, *, squared: bool = False) -> Floats:
        """Correlation of the picture (or its square) with a kernel that is even, on the picture's own pixels."""
        of = self.squared_transform if squared else self.transform
        whole = irfft2(of * np.conj(kernel_transform), self.padded_shape, self.threads)
        m, (rows, columns) = self.margin, self.shape
        return np.asarray(whole[m : m + rows, m : m + columns], dtype=np.float64)


def draw(shell: Shell) -> tuple[Floats, Floats]:
    """The shell's projection and its circular mask: two square arrays of odd size, drawn with sub-pixels."""
    half = math.ceil(0.5 * shell.mask_diameter_pixel + 0.5)
    fine = (np.arange((2 * half + 1) * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - (half + 0.5)
    squared = fine[:, np.newaxis] ** 2 + fine[np.newaxis, :] ** 2
    radius = 0.5 * shell.diameter_pixel
    projection = np.sqrt(np.maximum(radius**2 - squared, 0))
    projection -= np.sqrt(np.maximum((shell.cavity * radius) ** 2 - squared, 0))
    mask = (squared <= (0.5 * shell.mask_diameter_pixel) ** 2).astype(np.float64)
    return _binned(projection), _binned(mask)


def _binned(fine: Floats) -> Floats:
    size = len(fine) // _OVERSAMPLING
    return np.asarray(fine.reshape(size, _OVERSAMPLING, size, _OVERSAMPLING).mean(axis=(1, 3)))


def score_map(scene: Scene, shell: Shell) -> Floats:
    """Correlation coefficient of every place with the shell's projection (bright on dark): (rows, columns), −1 … 1."""
    projection, mask = draw(shell)
    area = float(mask.sum())
    template = mask * (projection - float((mask * projection).sum()) / area)
    length = math.sqrt(float((template**2).sum()))
    mask_transform = _kernel_transform(mask, scene)
    mean = scene.correlate(mask_transform) / area
    variance = scene.correlate(mask_transform, squared=True) / area - mean**2
    # Where the picture is flat there is nothing to compare; the floor keeps rounding errors from becoming scores.
    floor = 1e-4 * float(np.median(variance)) + 1e-12
    overlap = scene.correlate(_kernel_transform(template, scene))
    return np.asarray(overlap / (length * np.sqrt(area * np.maximum(variance, floor))))


def _kernel_transform(kernel: Floats, scene: Scene) -> HalfPlane:
    """Transform of a kernel whose middle is the origin."""
    padded = np.zeros(scene.padded_shape)
    size = len(kernel)
    padded[:size, :size] = kernel
    return rfft2(np.roll(padded, (-(size // 2), -(size // 2)), (0, 1)), scene.threads)

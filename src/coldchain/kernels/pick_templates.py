"""Pictures of the particle to compare a micrograph with, turned in the plane."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from coldchain.errors import ProcessingError
from coldchain.kernels.matching import Floats, circle_of_comparison

# Two neighbouring angles move the particle's rim by this much.
_RIM_STEP_PIXEL = 2.0
# What lies outside this part of the variance is background.
_INSIDE = 0.95
_MOST_TEMPLATES = 1000
_LEAST_BOX, _LARGEST_BOX = 8, 4096


@dataclass(frozen=True, slots=True, eq=False)
class Templates:
    """Pictures of the particle: (n, rows, columns) float32, centred on pixel (rows // 2, columns // 2) as RELION's and
    cryoSPARC's are, each with mean 0 at its edge and deviation 1."""

    pictures: Floats
    pixel_size_angstrom: float

    @classmethod
    def of(cls, stack: NDArray[np.generic], pixel_size_angstrom: float) -> Templates:
        """The templates of a stack (n, rows, columns), or of one picture (rows, columns), of any real type.

        Raises
        ------
        ProcessingError : they are not square, too many, too small, blank, or not finite.
        """
        if stack.ndim not in (2, 3) or stack.shape[-1] != stack.shape[-2] or not stack.size:
            raise ProcessingError(f"templates of shape {stack.shape}", expected="n square pictures")
        pictures = stack.reshape(-1, *stack.shape[-2:])
        if len(pictures) > _MOST_TEMPLATES or not _LEAST_BOX <= pictures.shape[-1] <= _LARGEST_BOX:
            raise ProcessingError(
                f"{len(pictures)} templates of {pictures.shape[-1]} pixels",
                expected=f"at most {_MOST_TEMPLATES}, of {_LEAST_BOX} to {_LARGEST_BOX} pixels",
            )
        if not (math.isfinite(pixel_size_angstrom) and pixel_size_angstrom > 0):
            raise ProcessingError(
                f"templates with a pixel size of {pixel_size_angstrom} Å", expected="a positive number"
            )
        values = pictures.astype(np.float64)
        if not np.isfinite(values).all():
            raise ProcessingError("values in the templates are not finite numbers", expected="a number in every pixel")
        values -= np.array([np.median(_rim(picture)) for picture in values])[:, np.newaxis, np.newaxis]
        deviations = values.std(axis=(1, 2), keepdims=True)
        if not (deviations > 0).all():
            raise ProcessingError("a template is blank", expected="a picture of the particle in each")
        return cls((values / deviations).astype(np.float32), pixel_size_angstrom)

    def diameter_angstrom(self) -> float:
        """The diameter of the circle in which the particles lie, by what differs from the pictures' edges."""
        size = self.pictures.shape[-1]
        y, x = np.mgrid[:size, :size] - size // 2
        order = np.argsort(np.hypot(y, x), axis=None)
        energy = np.mean(self.pictures.astype(np.float64) ** 2, axis=0)
        # Noise is everywhere; what the rim has of it is taken off everywhere.
        inner = np.maximum(energy - np.median(_rim(energy)), 0).reshape(-1)[order]
        within = int(np.searchsorted(np.cumsum(inner), _INSIDE * inner.sum()))
        radius = float(np.hypot(y, x).reshape(-1)[order][min(within, size * size - 1)])
        return 2 * max(radius, 2.0) * self.pixel_size_angstrom

    def turned(self, diameter_pixel: float, spacing_angstrom: float) -> Iterator[Floats]:
        """Every picture at another pixel and at every angle, on the circle of comparison of a diameter."""
        size = len(circle_of_comparison(diameter_pixel))
        scale = spacing_angstrom / self.pixel_size_angstrom
        y, x = (np.mgrid[:size, :size] - size // 2) * scale
        centre = self.pictures.shape[-1] // 2
        for picture in self.pictures:
            smooth = ndimage.gaussian_filter(picture, 0.4 * scale) if scale > 1 else picture
            smooth = ndimage.spline_filter(smooth)
            for angle in angles(diameter_pixel):
                sine, cosine = math.sin(angle), math.cos(angle)
                places = np.stack((centre + cosine * y + sine * x, centre - sine * y + cosine * x))
                yield ndimage.map_coordinates(smooth, places, prefilter=False, cval=0.0).astype(np.float32)

    def count(self, diameter_pixel: float) -> int:
        """How many `turned` gives."""
        return len(self.pictures) * len(angles(diameter_pixel))


def angles(diameter_pixel: float) -> NDArray[np.float64]:
    """Rotations in radian, evenly over the circle."""
    count = max(4, math.ceil(math.pi * diameter_pixel / _RIM_STEP_PIXEL))
    return np.asarray(np.arange(count) * (2 * math.pi / count), dtype=np.float64)


def _rim(picture: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.concatenate((picture[0], picture[-1], picture[:, 0], picture[:, -1]))

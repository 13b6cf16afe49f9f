"""How well every place of a picture looks like the projection of a ball, of a hollow shell, or like a given picture.

The score is the locally normalised cross-correlation (Roseman, Ultramicroscopy 2003, 94, 225,
doi:10.1016/S0304-3991(02)00333-9): the correlation coefficient, −1 … 1, of a template with the pixels below it, in a
circle around it. Only pixels that are known and clean count, of the picture and of the template (Padfield, IEEE Trans.
Image Process. 2012, 21, 2706, doi:10.1109/TIP.2011.2181402), so that a particle at the picture's edge or beside junk is
judged by what is seen of it. Templates are analytic unless given: a ball of radius R projects to √(R² − r²), a shell to
that less the same of its cavity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coldchain.kernels.fourier import HalfPlane, good_size, irfft2, rfft2

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Sub-pixels per axis when a template is drawn.
_OVERSAMPLING = 5
# The picture is compared in a circle this many diameters wide: the particle and a rim of background.
_MASK_DIAMETERS = 1.2
# Where less of the circle is clean there is too little to judge by.
_LEAST_CLEAN = 0.2
# Of the mean variance in the circle; no noise is so uneven.
_LEAST_VARIATION = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture made ready to be compared with templates in circles of one size.

    shape : (rows, columns) of the picture; margin : pixels of nothing at each side of it in the padded one.
    picture_transform, clean_transform : half-planes of the padded picture, and of 1 where it is clean.
    circle : the circle of comparison, a square array of odd size.
    counted, total, variation : (rows, columns): the clean pixels in the circle, their sum, and the sum of their squared
        differences from their mean.
    """

    diameter_pixel: float
    shape: tuple[int, int]
    margin: int
    padded_shape: tuple[int, int]
    picture_transform: HalfPlane
    clean_transform: HalfPlane
    circle: Floats
    counted: Floats
    total: Floats
    variation: Floats
    threads: int

    @classmethod
    def of(cls, picture: Floats, clean: Mask, diameter_pixel: float, threads: int = 1) -> Scene:
        """The scene of a picture (rows, columns), about standardised, for particles of a diameter in its pixels."""
        circle = circle_of_comparison(diameter_pixel)
        margin = len(circle) // 2 + 1
        rows, columns = picture.shape
        # Zeros at the end of one row of pixels serve the beginning of the next as well.
        padded_shape = (good_size(rows + margin, even=True), good_size(columns + margin, even=True))

        def transformed(values: Floats) -> HalfPlane:
            padded = np.zeros(padded_shape, dtype=np.float32)
            padded[:rows, :columns] = values
            return rfft2(padded, threads)

        ones = clean.astype(np.float32)
        seen = picture * ones
        transforms = transformed(seen), transformed(seen * seen), transformed(ones)
        circle_transform = _kernel_transform(circle, padded_shape, threads)

        def summed(transform: HalfPlane) -> Floats:
            whole = irfft2(transform * circle_transform, padded_shape, threads)
            return np.asarray(whole[:rows, :columns], dtype=np.float32)

        total, squares, counted = (summed(transform) for transform in transforms)
        counted = np.maximum(counted, 1)
        variation = squares - total * total / counted
        # Where the picture is flat there is nothing to compare; the floor keeps rounding errors from becoming scores.
        floor = _LEAST_VARIATION * float(variation.mean()) + 1e-6
        return cls(
            diameter_pixel=diameter_pixel,
            shape=(rows, columns),
            margin=margin,
            padded_shape=padded_shape,
            picture_transform=transforms[0],
            clean_transform=transforms[2],
            circle=circle,
            counted=counted,
            total=total,
            variation=np.maximum(variation, floor),
            threads=threads,
        )

    def score(self, template: Floats) -> tuple[Floats, Floats]:
        """How well, and how strongly, every place shows a template.

        Parameters
        ----------
        template : square, of the circle's size; what lies outside the circle does not count.

        Returns
        -------
        scores, contrasts : (rows, columns) each: the correlation coefficient, −1 … 1, less where less of the circle is
            clean, and the factor that would make the template the picture.
        """
        weighed = (self.circle * (template - _mean_within(template, self.circle))).astype(np.float32)
        kernel = _kernel_transform(weighed, self.padded_shape, self.threads)
        squared = _kernel_transform(weighed * weighed, self.padded_shape, self.threads)
        overlap = self._correlate(self.picture_transform, kernel)
        seen = self._correlate(self.clean_transform, kernel)
        energy = self._correlate(self.clean_transform, squared)
        area = float(self.circle.sum())
        part = self.counted / np.float32(area)
        overlap -= seen * self.total / self.counted
        energy -= seen * seen / self.counted
        whole = float((weighed * weighed).sum())
        np.maximum(energy, 1e-2 * whole, out=energy)
        part[part < _LEAST_CLEAN] = 0
        return overlap * np.sqrt(part / (self.variation * energy)), overlap / energy

    def _correlate(self, transform: HalfPlane, kernel: HalfPlane) -> Floats:
        whole = irfft2(transform * kernel, self.padded_shape, self.threads)
        rows, columns = self.shape
        return np.array(whole[:rows, :columns], dtype=np.float32)


def circle_of_comparison(diameter_pixel: float) -> Floats:
    """The part of each pixel that is compared for particles of a diameter: a square array of odd size."""
    return _drawn(
        _MASK_DIAMETERS * diameter_pixel, lambda squared, radius: (squared <= radius**2).astype(np.float64)
    ).astype(np.float32)


def projected_shell(diameter_pixel: float, cavity: float) -> Floats:
    """Thickness, in pixels, of a shell seen from far away, drawn with sub-pixels on the circle of comparison.

    `cavity` is the cavity's diameter as a part of the outer one; 0 is a solid ball.
    """

    def half_thickness(squared: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
        whole = np.sqrt(np.maximum(radius**2 - squared, 0))
        return np.asarray(whole - np.sqrt(np.maximum((cavity * radius) ** 2 - squared, 0)))

    drawn = 2 * _drawn(diameter_pixel, half_thickness)
    size = len(circle_of_comparison(diameter_pixel))
    rim = (size - len(drawn)) // 2
    template = np.zeros((size, size), dtype=np.float32)
    template[rim : rim + len(drawn), rim : rim + len(drawn)] = drawn
    return template


def _mean_within(template: Floats, circle: Floats) -> float:
    return float((circle * template).sum() / circle.sum())


def _kernel_transform(kernel: Floats, shape: tuple[int, int], threads: int) -> HalfPlane:
    """What a transform is multiplied with to correlate a picture with an odd square kernel about its middle."""
    half = len(kernel) // 2
    padded = np.zeros(shape, dtype=np.float32)
    # Kernels are no larger than the padded picture: the caller asks for two particles at least on each side.
    padded[: half + 1, : half + 1] = kernel[half:, half:]
    padded[-half:, : half + 1] = kernel[:half, half:]
    padded[: half + 1, -half:] = kernel[half:, :half]
    padded[-half:, -half:] = kernel[:half, :half]
    return np.asarray(np.conj(rfft2(padded, threads)))


def _drawn(diameter: float, value: Callable[[NDArray[np.float64], float], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Pixel means of a function of squared distance and radius."""
    half = math.ceil(0.5 * diameter + 0.5)
    size = 2 * half + 1
    fine = (np.arange(size * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - (half + 0.5)
    squared = fine[:, np.newaxis] ** 2 + fine[np.newaxis, :] ** 2
    blocks = value(squared, 0.5 * diameter).reshape(size, _OVERSAMPLING, size, _OVERSAMPLING)
    return np.asarray(blocks.mean(axis=(1, 3)))

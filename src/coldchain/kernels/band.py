"""The waves of all patches that are compared: what of them is noise, what is signal, and how they are weighed.

What is maximised, and why so, says `joint`. Noise and signal come from the movie itself, ring by ring. A patch's signal
is the mean's times a strength of its own.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled_loosely, in_bands
from coldchain.kernels.dose import critical_exposure
from coldchain.kernels.patches import Patches

Vector: TypeAlias = NDArray[np.float64]
Image: TypeAlias = NDArray[np.float32]

_LOWEST_RESOLUTION_ANGSTROM = 120.0
_SMOOTHING_RINGS = 3
_LEAST_STRENGTH = 0.1


class Band:
    """The frequencies that are compared, what noise and signal have there, and the weights that follow.

    weights : (patches, 2 K + 1, K + 1) float32, of the squares of the sums' waves in what is maximised.
    """

    def __init__(
        self, patches: Patches, pixel_size_angstrom: float, exposures: Vector | None, voltage_kilovolt: float
    ) -> None:
        y, x = (f.astype(np.float64) for f in (patches.frequency_y, patches.frequency_x))
        self._squares_y, self._squares_x = (y**2)[:, np.newaxis], x**2
        radius = np.hypot(y[:, np.newaxis], x)
        step = x[1] if x.size > 1 else 1.0
        # The axes are left out: whatever is wrong with whole columns or rows lies there.
        used = (radius <= x[-1]) & (radius >= pixel_size_angstrom / _LOWEST_RESOLUTION_ANGSTROM)
        used[y == 0, :] = False
        used[:, x == 0] = False
        self._used = used
        self._ring = np.minimum((radius / step).astype(np.intp), x.size)
        self._rings = x.size + 1
        self._count = np.maximum(np.bincount(self._ring[used], minlength=self._rings), 1)
        frames = patches.real.shape[1]
        self._left = np.ones((frames, *radius.shape), dtype=np.float32)
        if exposures is not None:
            critical = critical_exposure(np.maximum(radius, step / 2) / pixel_size_angstrom, voltage_kilovolt)
            since_first = (exposures - exposures.min())[:, np.newaxis, np.newaxis]
            self._left = np.exp(-since_first / (2 * critical)).astype(np.float32)
        self._noise = np.zeros(self._rings)
        self._signal = np.zeros(self._rings)
        self._all_left = self._mean(np.square(self._left, dtype=np.float64).sum(axis=0))
        self._strength = np.ones(patches.real.shape[0])
        self.weights = np.zeros((patches.real.shape[0], *radius.shape), dtype=np.float32)

    def fold(self, patches: Patches, threads: int) -> None:
        """Measure the noise, then weigh every frame by what damage has left of its signal.

        Of a frame of r times as many electrons the signal is r times as strong, the noise's power too: as it is, it is
        weighed right in the sum, and counts as r frames.
        """
        count, frames = patches.real.shape[:2]
        power, of_frames = np.zeros((count, *self._used.shape)), np.zeros((count, frames))
        is_fine = self._used & (self._ring > self._rings / 2)
        in_bands(
            lambda first, end: _fold(
                patches.real, patches.imaginary, self._left, is_fine, power, of_frames, first, end
            ),
            count,
            threads,
        )
        self._noise = self._mean(power.sum(axis=0)) / (count * frames)
        of_frame = of_frames.sum(axis=0)
        if of_frame.any():
            self._left *= np.sqrt(of_frame / of_frame.mean()).astype(np.float32)[:, np.newaxis, np.newaxis]
            self._all_left = self._mean(np.square(self._left, dtype=np.float64).sum(axis=0))

    def compare(self, patches: Patches, shift_y: Vector, shift_x: Vector, threads: int) -> tuple[Vector, Vector]:
        """Weights from the sums at these shifts, and the gradient of what is maximised: (patches, frames) each."""
        turns_y = _turns(patches.frequency_y, shift_y - patches.offset_y)
        turns_x = _turns(patches.frequency_x, shift_x - patches.offset_x)
        count = patches.real.shape[0]
        sums_real = np.empty((count, *self._used.shape), dtype=np.float32)
        sums_imaginary = np.empty_like(sums_real)
        both = (patches.real, patches.imaginary, *turns_y, *turns_x, sums_real, sums_imaginary)
        in_bands(lambda first, end: _add_up(*both, first, end), count, threads)
        self._weigh(sums_real, sums_imaginary)
        gradient_y, gradient_x = np.empty(shift_y.shape), np.empty(shift_x.shape)
        frequencies = (patches.frequency_y, patches.frequency_x)
        in_bands(
            lambda first, end: _differentiate(*both, self.weights, *frequencies, gradient_y, gradient_x, first, end),
            count,
            threads,
        )
        return gradient_y, gradient_x

    def information(self) -> tuple[Vector, Vector]:
        """Expected negative curvature of a patch of unit strength with respect to its shifts along y and x: (frames,
        frames) each."""
        expected = 8 * math.pi**2 * self._weights_at(1.0) * self._signal[self._ring]
        squares = np.square(self._left.reshape(len(self._left), -1), dtype=np.float64)

        def along(frequency_squares: Vector) -> Vector:
            root = squares * np.sqrt(expected * frequency_squares).ravel()
            pairs = root @ root.T
            np.fill_diagonal(pairs, 0)
            return np.asarray(np.diag(pairs.sum(axis=1)) - pairs)

        return along(self._squares_y), along(self._squares_x)

    def strength(self) -> Vector:
        """What each patch tells over what one of unit strength would: (patches,)."""
        squares = (self._squares_y + self._squares_x) * self._signal[self._ring]
        unit = float(np.sum(self._weights_at(1.0) * squares))
        told = np.einsum("pji,ji->p", self.weights, squares) * self._strength
        return np.asarray(told / unit if unit > 0 else np.ones_like(told))

    def _weigh(self, sums_real: Image, sums_imaginary: Image) -> None:
        power = np.square(sums_real, dtype=np.float64) + np.square(sums_imaginary)
        excess = self._mean(power.sum(axis=0)) / len(sums_real) - self._noise * self._all_left
        self._signal = np.maximum(_smoothed(excess / np.maximum(self._all_left, 1e-12) ** 2), 0)
        # Carbon in a corner must not speak for all: each patch has its own strength.
        weights = self._weights_at(1.0)
        expected = self._signal * self._all_left**2
        of_patch = np.einsum("pji,ji->p", power - (self._noise * self._all_left)[self._ring], weights)
        whole = float(np.sum(weights * expected[self._ring]))
        self._strength = np.maximum(of_patch / whole, _LEAST_STRENGTH) if whole > 0 else np.ones(len(power))
        self.weights = np.stack([self._weights_at(strength) for strength in self._strength]).astype(np.float32)

    def _weights_at(self, strength: float) -> Vector:
        """Weights of the waves of a patch whose signal is so many times as strong as the mean."""
        signal = strength * self._signal
        total = self._noise * (self._noise + signal * self._all_left)
        weight = np.divide(signal, total, out=np.zeros_like(total), where=total > 0)
        return np.where(self._used, weight[self._ring], 0)

    def _mean(self, values: NDArray[np.floating]) -> Vector:
        return np.bincount(self._ring[self._used], values[self._used], self._rings) / self._count


def _smoothed(values: Vector) -> Vector:
    """A running mean with cosine weights over some rings; the rings before the first and after the last repeat."""
    weights = np.hanning(2 * _SMOOTHING_RINGS + 3)[1:-1]
    padded = np.pad(values, _SMOOTHING_RINGS, mode="edge")
    return np.asarray(np.convolve(padded, weights / weights.sum(), "valid"), dtype=np.float64)


def _turns(frequency: Image, shifts: Vector) -> tuple[Image, Image]:
    """Cosine and sine of 2π k s: (patches, frames, frequencies) float32."""
    angles = (2 * np.pi * shifts[:, :, np.newaxis] * frequency).astype(np.float32)
    return np.cos(angles), np.sin(angles)


@compiled_loosely
def _fold(
    real: Image,
    imaginary: Image,
    left: Image,
    is_fine: NDArray[np.bool_],
    power: NDArray[np.float64],
    of_frames: Vector,
    first: int,
    end: int,
) -> None:
    """Squares of the waves, over the frames, and of the fine ones, frame by frame; then the waves by what is left."""
    _, frames, rows, columns = real.shape
    for p in range(first, end):
        for f in range(frames):
            for j in range(rows):
                re, im, of_left, of_power, fine = real[p, f, j], imaginary[p, f, j], left[f, j], power[p, j], is_fine[j]
                total = np.float32(0)
                for i in range(columns):
                    square = re[i] * re[i] + im[i] * im[i]
                    of_power[i] += square
                    total += square if fine[i] else np.float32(0)
                    re[i] *= of_left[i]
                    im[i] *= of_left[i]
                of_frames[p, f] += total


@compiled_loosely
def _add_up(
    real: Image,
    imaginary: Image,
    cosine_y: Image,
    sine_y: Image,
    cosine_x: Image,
    sine_x: Image,
    sums_real: Image,
    sums_imaginary: Image,
    first: int,
    end: int,
) -> None:
    """Sums over the frames of the patches' waves, each turned back by its shift."""
    _, frames, rows, columns = real.shape
    for p in range(first, end):
        sums_real[p] = 0
        sums_imaginary[p] = 0
        for f in range(frames):
            cx, sx = cosine_x[p, f], sine_x[p, f]
            for j in range(rows):
                cy, sy = cosine_y[p, f, j], sine_y[p, f, j]
                re, im, out_re, out_im = real[p, f, j], imaginary[p, f, j], sums_real[p, j], sums_imaginary[p, j]
                for i in range(columns):
                    c, s = cy * cx[i] - sy * sx[i], cy * sx[i] + sy * cx[i]
                    out_re[i] += re[i] * c - im[i] * s
                    out_im[i] += re[i] * s + im[i] * c


@compiled_loosely
def _differentiate(
    real: Image,
    imaginary: Image,
    cosine_y: Image,
    sine_y: Image,
    cosine_x: Image,
    sine_x: Image,
    sums_real: Image,
    sums_imaginary: Image,
    weights: Image,
    frequency_y: Image,
    frequency_x: Image,
    gradient_y: Vector,
    gradient_x: Vector,
    first: int,
    end: int,
) -> None:
    """Derivative of Σ w |S|² with respect to each shift: −4π Σ w k Im(conj(S) · turned wave)."""
    _, frames, rows, columns = real.shape
    of_columns = np.empty(columns, dtype=np.float32)
    for p in range(first, end):
        for f in range(frames):
            cx, sx = cosine_x[p, f], sine_x[p, f]
            of_columns[:] = 0
            along_y = 0.0
            for j in range(rows):
                cy, sy = cosine_y[p, f, j], sine_y[p, f, j]
                re, im, weight = real[p, f, j], imaginary[p, f, j], weights[p, j]
                sum_re, sum_im = sums_real[p, j], sums_imaginary[p, j]
                of_row = np.float32(0)
                for i in range(columns):
                    c, s = cy * cx[i] - sy * sx[i], cy * sx[i] + sy * cx[i]
                    value = weight[i] * (sum_re[i] * (re[i] * s + im[i] * c) - sum_im[i] * (re[i] * c - im[i] * s))
                    of_columns[i] += value
                    of_row += value
                along_y += frequency_y[j] * of_row
            along_x = 0.0
            for i in range(columns):
                along_x += frequency_x[i] * of_columns[i]
            gradient_y[p, f] = -4 * np.pi * along_y
            gradient_x[p, f] = -4 * np.pi * along_x

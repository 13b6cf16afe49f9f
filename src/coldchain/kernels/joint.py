"""One fit of all patches and frames at once: the smooth motion that makes the sums of the patches strongest.

**What is maximised.** A patch p of frame f holds, at frequency k, the specimen's wave q_f(k) A_p(k), turned by the
shift s_pf, and noise of power N(k); q_f is what damage has left. If A is a random wave of power P(k), the logarithm of
the likelihood of the shifts is, but for a constant,

    Σ_p Σ_k w(k) |S_p(k)|²,   S_p(k) = Σ_f q_f(k) F_pf(k) exp(2πi k·s_pf),   w = P / (N (N + P Σ_f q_f²)),

the band-limited power of the dose-weighted sum. N and P come from the movie itself, ring by ring, and anew in every
step: as long as the frames are badly placed, P is small where waves are short, so the fit goes by itself from coarse
to fine, and no B-factor is chosen.

**The model.** s_pf is a sum of spatial terms (the constant, and Legendre polynomials of the patch's place up to third
order) times functions of time. Functions of time are free but for a prior: their acceleration is small, more so
of third order, and ten times less so while the beam is new to the specimen. How small is not chosen either; it is what
makes the movie most likely
(S. N. Wood & M. Fasiolo, Biometrics 2017, 73, 1071, https://doi.org/10.1111/biom.12666). Where a movie tells little,
the prior holds, and the local motion shrinks to none.

**The steps** are Fisher's scoring: the gradient is exact, the curvature is what the model expects of it, which is
always that of a maximum. Four or five of them do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled_loosely, in_bands
from coldchain.kernels.dose import critical_exposure
from coldchain.kernels.motion import SPATIAL_ORDERS, Motion, middle_of, spatial_terms
from coldchain.kernels.patches import Patches

Vector: TypeAlias = NDArray[np.float64]
Image: TypeAlias = NDArray[np.float32]

_LOWEST_RESOLUTION_ANGSTROM = 120.0
_TEMPORAL_MODES = 32
_LOCAL_MODES = 16
_EARLY_EXPOSURE = 3.0
_EARLY_FREEDOM = 9.0
# Standard deviations with which the search begins, in Å a frame and frame, and bounds of what it may find.
_FIRST_ACCELERATION_ANGSTROM = (0.2, 0.05)
_ACCELERATION_BOUNDS_ANGSTROM = (0.003, 3.0)
_VELOCITY_ANGSTROM = (3.0, 0.5)
# Of the spatial orders from 0 to 3, relative to the first.
_RIGIDITY = (1.0, 1.0, 1.0, 16.0)
_STEPS = 10
_SOFTENINGS = 4
_STEP_ANGSTROM = 0.015
_LARGEST_STEP_ANGSTROM = 5.0
_SMOOTHING_RINGS = 3
_LEAST_STRENGTH = 0.1
_SLOWEST = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class JointFit:
    """What the fit found.

    motion : the track and the local motion.
    error_angstrom : root mean square distance of the places from the truth, as the fit expects it of itself.
    local_angstrom, local_error_angstrom : root mean square of the local motion in the last frame, and its error.
    """

    motion: Motion
    error_angstrom: float
    local_angstrom: float
    local_error_angstrom: float


def fit_motion(
    patches: Patches,
    shape: tuple[int, int],
    track_y: Vector,
    track_x: Vector,
    *,
    pixel_size_angstrom: float,
    exposures: Vector | None,
    voltage_kilovolt: float,
    local: bool = True,
    threads: int = 1,
) -> JointFit:
    """Fit the motion of all patches, beginning with the track of the whole frame.

    Parameters
    ----------
    patches : as `cut_patches` made them with that track; their transforms are overwritten.
    shape : (rows, columns) of the movie.
    track_y, track_x : (frames,) in pixels of the movie, 0 in the first frame.
    pixel_size_angstrom : of the movie.
    exposures : (frames,) e⁻/Å² at the middle of each frame; None: nothing is known of damage.
    voltage_kilovolt : for the damage.
    local : whether to look for local motion.
    threads : at most this many.
    """
    band = _Band(patches, pixel_size_angstrom, exposures, voltage_kilovolt)
    model = _Model(patches, shape, track_y, track_x, pixel_size_angstrom, exposures, local=local)
    band.fold(patches)
    before, damping = math.inf, 1.0
    for _ in range(_STEPS):
        gradient_y, gradient_x = band.compare(patches, *model.shifts(), threads)
        if not band.weights.any():
            break
        step = model.step(gradient_y, gradient_x, *band.information(), band.strength(), damping)
        if step * pixel_size_angstrom < _STEP_ANGSTROM:
            break
        if step > _SLOWEST * before:
            # To and fro: the movie's curvature is more than the model expects.
            damping /= 2
        before = step
    return model.result(patches)


class _Band:
    """The frequencies that are compared, what noise and signal have there, and the weights that follow."""

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

    def fold(self, patches: Patches) -> None:
        """Measure the noise, then weigh every frame by what damage has left of its signal.

        Of a frame of r times as many electrons the signal is r times as strong, the noise's power too: as it is, it is
        weighed right in the sum, and counts as r frames.
        """
        power = np.zeros(self._used.shape)
        of_frame = np.zeros(patches.real.shape[1])
        fine = (self._used & (self._ring > self._rings / 2)).astype(np.float32)
        for real, imaginary in zip(patches.real, patches.imaginary, strict=True):
            for part in (real, imaginary):
                power += np.einsum("fji,fji->ji", part, part)
                of_frame += np.einsum("fji,fji,ji->f", part, part, fine)
                part *= self._left
        self._noise = self._mean(power) / (patches.real.shape[0] * patches.real.shape[1])
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


class _Model:
    """Shifts as spatial terms times functions of time, the prior of these, and one step of the fit."""

    def __init__(
        self,
        patches: Patches,
        shape: tuple[int, int],
        track_y: Vector,
        track_x: Vector,
        pixel_size_angstrom: float,
        exposures: Vector | None,
        *,
        local: bool,
    ) -> None:
        self._shape, self._pixel_size_angstrom = shape, pixel_size_angstrom
        constant = np.ones((patches.centre_y.size, 1))
        self._used = _told_by(patches.grid) if local else []
        terms = spatial_terms(patches.centre_x, patches.centre_y, shape)[:, self._used]
        self._spatial = np.concatenate([constant, terms], axis=1)
        self._modes, accelerations, velocities = _temporal_modes(track_y.size, exposures)
        groups = [slice(0, 1), slice(1, self._spatial.shape[1])][: 2 if terms.shape[1] else 1]
        self._rigidity = np.array([1.0, *(_RIGIDITY[sum(SPATIAL_ORDERS[number])] for number in self._used)])
        # The track has all modes, the local motion the smoothest.
        places = np.ones((self._spatial.shape[1], self._modes.shape[1]), dtype=np.bool_)
        places[1:, _LOCAL_MODES:] = False
        self._free = np.flatnonzero(places)
        self._penalties = [self._penalty(group, accelerations) for group in groups]
        self._fixed = sum(
            self._penalty(group, velocities) * (pixel_size_angstrom / sigma) ** 2
            for group, sigma in zip(groups, _VELOCITY_ANGSTROM, strict=False)
        )
        self._stiffness = [(pixel_size_angstrom / sigma) ** 2 for sigma in _FIRST_ACCELERATION_ANGSTROM[: len(groups)]]
        # The track's noise beyond the modes is dropped; what is as smooth as they are is kept.
        begin = np.linalg.lstsq(self._modes, np.stack([track_y, track_x], axis=1), rcond=None)[0]
        self._factors = np.zeros((self._spatial.shape[1], self._modes.shape[1], 2))
        self._factors[0] = begin
        self._covariance: list[Vector] = []

    def shifts(self) -> tuple[Vector, Vector]:
        """Displacements along y and x, (patches, frames) each, in pixels of the movie."""
        y, x = (self._spatial @ self._factors[:, :, axis] @ self._modes.T for axis in (0, 1))
        return y, x

    def step(
        self,
        gradient_y: Vector,
        gradient_x: Vector,
        information_y: Vector,
        information_x: Vector,
        strength: Vector,
        damping: float,
    ) -> float:
        """Go one step; its root mean square in pixels. With the movie's word taken as it is here, a quadratic form, the
        stiffness of the prior and where it leads are settled together."""
        overlap = (self._spatial.T * strength) @ self._spatial
        curvatures, pulls = [], []
        for axis, (gradient, information) in enumerate(((gradient_y, information_y), (gradient_x, information_x))):
            curvature = self._of_free(np.kron(overlap, self._modes.T @ information @ self._modes))
            uphill = (self._spatial.T @ gradient @ self._modes).ravel()[self._free]
            curvatures.append(curvature)
            pulls.append(curvature @ self._factors[:, :, axis].ravel()[self._free] + uphill)
        before = self._factors
        for _ in range(_SOFTENINGS):
            prior = self._prior()
            self._covariance = [np.asarray(np.linalg.inv(c + prior), dtype=np.float64) for c in curvatures]
            self._factors = np.zeros_like(before)
            for axis, (covariance, pull) in enumerate(zip(self._covariance, pulls, strict=True)):
                self._factors.reshape(-1, 2)[self._free, axis] = covariance @ pull
            self._soften(prior)
        steps = self._factors - before
        moved = np.stack([self._spatial @ steps[:, :, axis] @ self._modes.T for axis in (0, 1)])
        farthest = float(np.abs(moved).max()) * self._pixel_size_angstrom
        shortened = min(damping, _LARGEST_STEP_ANGSTROM / farthest) if farthest > 0 else 1.0
        self._factors = before + shortened * steps
        return math.sqrt(float(np.mean(moved**2)))

    def result(self, patches: Patches) -> JointFit:
        """Where the fit stands."""
        errors = [self._error(slice(0, None)), self._error(slice(1, None))]
        terms = spatial_terms(*middle_of(self._shape), self._shape)
        fields = [np.zeros((terms.shape[1] if self._used else 0, len(self._modes))) for _ in range(2)]
        for axis, field in zip((1, 0), fields, strict=True):
            field[self._used] = self._factors[1:, :, axis] @ self._modes.T
        terms = terms[:, : len(fields[0])]
        track_x, track_y = (
            self._factors[0, :, axis] @ self._modes.T + (terms @ field)[0]
            for axis, field in zip((1, 0), fields, strict=True)
        )
        motion = Motion(
            self._shape, track_x, track_y, fields[0], fields[1], patches.grid, patches.centre_x, patches.centre_y
        )
        last = [local[:, -1] for local in motion.local_at(patches.centre_x, patches.centre_y)]
        local_angstrom = math.sqrt(float(np.mean(last[0] ** 2 + last[1] ** 2))) * self._pixel_size_angstrom
        return JointFit(motion, errors[0], local_angstrom, errors[1])

    def _error(self, terms: slice) -> float:
        """Root mean square error over patches and frames, in Å, of what some of the terms say."""
        if not self._covariance:
            return math.inf
        weights = np.zeros(self._spatial.shape[1])
        weights[terms] = 1
        chosen = self._spatial * weights
        spread = self._of_free(np.kron(chosen.T @ chosen, self._modes.T @ self._modes))
        variance = sum(float(np.sum(spread * covariance)) for covariance in self._covariance)
        return math.sqrt(max(variance, 0.0) / (len(chosen) * len(self._modes))) * self._pixel_size_angstrom

    def _penalty(self, group: slice, temporal: Vector) -> Vector:
        chosen = np.zeros(self._spatial.shape[1])
        chosen[group] = self._rigidity[group]
        return self._of_free(np.kron(np.diag(chosen), temporal))

    def _of_free(self, matrix: NDArray[np.floating]) -> Vector:
        """Rows and columns of the factors that the fit may choose."""
        return np.asarray(matrix[np.ix_(self._free, self._free)], dtype=np.float64)

    def _prior(self) -> Vector:
        return np.asarray(
            self._fixed
            + sum(stiffness * penalty for stiffness, penalty in zip(self._stiffness, self._penalties, strict=True))
        )

    def _soften(self, prior: Vector) -> None:
        """One step of Wood & Fasiolo's towards the stiffness that makes the movie most likely."""
        free = np.linalg.inv(prior)
        low, high = ((self._pixel_size_angstrom / sigma) ** 2 for sigma in reversed(_ACCELERATION_BOUNDS_ANGSTROM))
        for number, penalty in enumerate(self._penalties):
            expected = 2 * float(np.sum(free * penalty))
            kept = sum(float(np.sum(covariance * penalty)) for covariance in self._covariance)
            found = sum(
                float(factors @ penalty @ factors)
                for factors in (self._factors[:, :, axis].ravel()[self._free] for axis in (0, 1))
            )
            if found > 0:
                self._stiffness[number] = float(
                    np.clip(self._stiffness[number] * max(expected - kept, 0.0) / found, low, high)
                )


def _told_by(grid: tuple[int, int]) -> list[int]:
    """Which of `spatial_terms` a grid of (columns, rows) of patches can tell: along an axis, an order for each patch
    beyond the first."""
    columns, rows = grid
    return [number for number, (i, j) in enumerate(SPATIAL_ORDERS) if i < columns and j < rows]


def _temporal_modes(frames: int, exposures: Vector | None) -> tuple[Vector, Vector, Vector]:
    """The smoothest functions of time, all 0 in the first frame: (frames, modes); and, between modes, the squares of
    their accelerations and velocities, each relative to what the prior allows at that exposure."""
    since_first = np.arange(frames, dtype=np.float64) if exposures is None else exposures - exposures[0]
    freedom = 1 + _EARLY_FREEDOM * np.exp(-since_first / _EARLY_EXPOSURE)
    free = np.eye(frames)[:, 1:]
    acceleration = np.diff(free, 2, axis=0) / freedom[: max(0, frames - 2), np.newaxis]
    velocity = np.diff(free, 1, axis=0) / freedom[: frames - 1, np.newaxis]
    roughness = acceleration.T @ acceleration + 1e-6 * velocity.T @ velocity
    modes = free @ np.linalg.eigh(roughness)[1][:, :_TEMPORAL_MODES]
    accelerations, velocities = (
        np.diff(modes, order, axis=0) / freedom[: max(0, frames - order), np.newaxis] for order in (2, 1)
    )
    return modes, accelerations.T @ accelerations, velocities.T @ velocities


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

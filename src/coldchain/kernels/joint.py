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
makes the movie most likely (S. N. Wood & M. Fasiolo, Biometrics 2017, 73, 1071, https://doi.org/10.1111/biom.12666).
Where a movie tells little, the prior holds, and the local motion shrinks to none.

**The steps** are Fisher's scoring: the gradient is exact, the curvature is what the model expects of it, which is
always that of a maximum. Four or five of them do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.kernels.band import Band
from coldchain.kernels.motion import SPATIAL_ORDERS, Motion, middle_of, spatial_terms
from coldchain.kernels.patches import Patches

Vector: TypeAlias = NDArray[np.float64]

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
    band = Band(patches, pixel_size_angstrom, exposures, voltage_kilovolt)
    model = _Model(patches, shape, track_y, track_x, pixel_size_angstrom, exposures, local=local)
    band.fold(patches, threads)
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

    def _inverse_of(self, prior: Vector) -> Vector:
        """Of the prior, in which no two spatial terms have to do with each other: one by one."""
        inverse = np.zeros_like(prior)
        term_of = self._free // self._modes.shape[1]
        for term in range(self._spatial.shape[1]):
            own = np.flatnonzero(term_of == term)
            block = np.ix_(own, own)
            inverse[block] = np.linalg.inv(prior[block])
        return inverse

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
        free = self._inverse_of(prior)
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

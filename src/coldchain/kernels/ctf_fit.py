"""Search and refinement of the defocus on a polar spectrum.

The logarithm of the power in a sector is modelled as a smooth background plus envelope(k) · (−cos 2χ(k, θ)). What a
smooth background can explain is projected out of data and model alike (variable projection), so the background is never
guessed before the rings are known. Values are divided by their standard errors throughout, so that on pure noise every
score is a standard normal deviate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.optimize import nnls

from coldchain.compiled import compiled
from coldchain.kernels.ctf_model import Defocus, Floats, Lens
from coldchain.kernels.spectrum import PolarSpectrum

_BACKGROUND_TERMS = 8
_ENVELOPE_TERMS = 6
# A background of few terms never follows a real spectrum to better than this (natural logarithm of power).
_MODEL_ERROR = 0.03
# Envelopes exp(−B k² / 2) of power that the search tries, in Å².
_SEARCH_BFACTORS_SQUARE_ANGSTROM = (20.0, 100.0, 300.0)
_SEARCH_RESOLUTION_ANGSTROM = 4.0
_LARGEST_HALF_ASTIGMATISM_ANGSTROM = 1300.0
_REFINEMENT_STEPS = 12


@dataclass(frozen=True, slots=True, eq=False)
class Rings:
    """A polar spectrum made ready for fitting. Arrays are (sectors, rings) or one of the two.

    flat : logarithm of power without what a smooth background explains, in standard errors.
    inverse_error : (rings,) what the logarithm was multiplied by.
    background : (rings, terms) orthonormal basis of the backgrounds, in standard errors.
    defocus_phase, constant_phase : (rings,) χ = defocus_phase · Δf + constant_phase.
    """

    lens: Lens
    frequency_per_angstrom: Floats
    azimuth_radian: Floats
    log_power: Floats
    flat: Floats
    inverse_error: Floats
    background: Floats
    defocus_phase: Floats
    constant_phase: Floats

    def without_background(self, values: Floats) -> Floats:
        """`values` (…, rings), in standard errors, without what a smooth background explains."""
        return np.asarray(values - (values @ self.background) @ self.background.T)

    def phase(self, defocus: Defocus) -> Floats:
        """χ, (sectors, rings)."""
        at_sector = defocus.at(self.azimuth_radian)[:, np.newaxis]
        return np.asarray(at_sector * self.defocus_phase + self.constant_phase + defocus.phase_radian)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place of the search: its defocus, its score in standard deviations, the best score elsewhere."""

    defocus: Defocus
    score: float
    runner_up_score: float


@dataclass(frozen=True, slots=True, eq=False)
class Refinement:
    """A refined fit.

    envelope : (rings,) half the height of the rings in the logarithm of power, ≥ 0.
    covariance : of (mean, cosine, sine[, phase]) in Å (and radian), scaled by the residual.
    score : signal in standard deviations of noise. correlation : normalised correlation of data and model, −1 … 1.
    """

    defocus: Defocus
    envelope: Floats
    covariance: Floats
    score: float
    correlation: float
    converged: bool


def prepare(spectrum: PolarSpectrum, samples_per_bin: float, lens: Lens) -> Rings:
    """Take logarithms, weigh, and project out the background."""
    k = spectrum.frequency_per_angstrom
    log_power = np.log(spectrum.power)
    independent = samples_per_bin * np.maximum(spectrum.count.mean(axis=0), 1e-3)
    inverse_error = 1.0 / np.sqrt(1.0 / independent + _MODEL_ERROR**2)
    basis, _ = np.linalg.qr(spline_basis(k, _BACKGROUND_TERMS) * inverse_error[:, np.newaxis])
    scaled = log_power * inverse_error
    return Rings(
        lens=lens,
        frequency_per_angstrom=k,
        azimuth_radian=spectrum.azimuth_radian,
        log_power=log_power,
        flat=scaled - (scaled @ basis) @ basis.T,
        inverse_error=inverse_error,
        background=basis,
        defocus_phase=lens.defocus_phase(k),
        constant_phase=lens.constant_phase(k),
    )


def spline_basis(x: Floats, terms: int) -> Floats:
    """Cubic B-splines on equal knots over the range of x: (len(x), terms), every value ≥ 0, rows adding up to one."""
    inner = np.linspace(x[0], x[-1], terms - 2)
    knots = np.concatenate([np.repeat(inner[0], 3), inner, np.repeat(inner[-1], 3)])
    return np.asarray(BSpline.design_matrix(np.clip(x, x[0], x[-1]), knots, 3).toarray(), dtype=np.float64)


def search(
    rings: Rings, min_defocus_angstrom: float, max_defocus_angstrom: float, *, fit_phase_shift: bool
) -> Candidate:
    """The best defocus and astigmatism on a grid, every sector looked up at its own defocus."""
    used = int(np.count_nonzero(rings.frequency_per_angstrom <= 1.0 / _SEARCH_RESOLUTION_ANGSTROM))
    used = used if used > 2 * _BACKGROUND_TERMS else len(rings.frequency_per_angstrom)
    step = 1.0 / (2.0 * rings.defocus_phase[used - 1])
    reach = math.ceil(_LARGEST_HALF_ASTIGMATISM_ANGSTROM / step)
    count = math.ceil((max_defocus_angstrom - min_defocus_angstrom) / step) + 1
    grid = min_defocus_angstrom + step * np.arange(-reach, count + reach)
    offsets, vectors = _astigmatism_offsets(rings.azimuth_radian, reach)
    waves = -np.exp(2j * (grid[:, np.newaxis] * rings.defocus_phase[:used] + rings.constant_phase[:used]))
    best: Candidate | None = None
    for bfactor in _SEARCH_BFACTORS_SQUARE_ANGSTROM:
        sums, norms = _projections(rings, waves, bfactor, fit_phase_shift=fit_phase_shift)
        scores, winners, phases = _best_astigmatism(sums, norms, offsets, reach, fit_phase_shift)
        top = int(np.argmax(scores))
        if best is not None and scores[top] <= best.score:
            continue
        cosine, sine = vectors[winners[top]] * step
        best = Candidate(
            Defocus(float(grid[top + reach]), float(cosine), float(sine), float(phases[top])),
            float(scores[top]),
            _runner_up(scores, top),
        )
    assert best is not None
    return best


def _astigmatism_offsets(azimuth_radian: Floats, reach: int) -> tuple[NDArray[np.int64], Floats]:
    """For each astigmatism vector of a square lattice within `reach`: the grid offset of every sector."""
    axis = np.arange(-reach, reach + 1)
    vectors = np.array([(c, s) for c in axis for s in axis if c * c + s * s <= reach * reach], dtype=np.float64)
    directions = np.stack([np.cos(2 * azimuth_radian), np.sin(2 * azimuth_radian)])
    return np.rint(vectors @ directions).astype(np.int64), vectors


def _projections(
    rings: Rings, waves: NDArray[np.complex128], bfactor: float, *, fit_phase_shift: bool
) -> tuple[NDArray[np.complex128], Floats]:
    """Every sector's data times the rings of every defocus (sectors, grid), and the rings' own norm (grid,).

    waves : (grid, rings used) rings of every defocus, real part; a quarter of a ring further, imaginary part.
    """
    used = waves.shape[1]
    k = rings.frequency_per_angstrom[:used]
    weighted = waves * (np.exp(-0.5 * bfactor * k**2) * rings.inverse_error[:used])
    basis = rings.background[:used]

    def squared_norms(values: Floats) -> Floats:
        # Length without the part that lies in the background: the basis is orthonormal over all rings.
        return np.asarray(np.sum(values**2, axis=1) - np.sum((values @ basis) ** 2, axis=1))

    norms = squared_norms(weighted.real)
    if fit_phase_shift:
        norms = 0.5 * (norms + squared_norms(weighted.imag))
    floor = 1e-9 * float(norms.max())
    sums = rings.flat[:, :used] @ weighted.T
    return sums, np.sqrt(np.maximum(norms, floor) * len(rings.azimuth_radian))


@compiled
def _best_astigmatism(
    sums: NDArray[np.complex128],
    norms: Floats,
    offsets: NDArray[np.int64],
    reach: int,
    fit_phase_shift: bool,
) -> tuple[Floats, NDArray[np.int64], Floats]:
    """For each mean defocus: the best score over all astigmatisms, which one, and its phase shift in radians."""
    count = sums.shape[1] - 2 * reach
    scores = np.full(count, -np.inf)
    winners = np.zeros(count, dtype=np.int64)
    phases = np.zeros(count)
    real_sums, imaginary_sums = sums.real.copy(), sums.imag.copy()
    real, imaginary = np.empty(count), np.zeros(count)
    for vector in range(offsets.shape[0]):
        real[:] = 0.0
        imaginary[:] = 0.0
        for sector in range(offsets.shape[1]):
            start = reach + offsets[vector, sector]
            # Slices first: an index that could be negative would keep the loops from being vectorised.
            real_part = real_sums[sector, start : start + count]
            for i in range(count):
                real[i] += real_part[i]
            if fit_phase_shift:
                imaginary_part = imaginary_sums[sector, start : start + count]
                for i in range(count):
                    imaginary[i] += imaginary_part[i]
        for i in range(count):
            total = math.sqrt(real[i] ** 2 + imaginary[i] ** 2) if fit_phase_shift else real[i]
            total /= norms[i + reach]
            if total > scores[i]:
                scores[i] = total
                winners[i] = vector
                # Re(e^{2iφ} · sum) is largest where 2φ undoes the sum's own argument.
                phases[i] = (-0.5 * math.atan2(imaginary[i], real[i])) % math.pi if fit_phase_shift else 0.0
    return scores, winners, phases


def _runner_up(scores: Floats, top: int) -> float:
    """The best local maximum that is not the winner's own peak."""
    left = top
    while left > 0 and scores[left - 1] <= scores[left]:
        left -= 1
    right = top
    while right < len(scores) - 1 and scores[right + 1] <= scores[right]:
        right += 1
    elsewhere = np.concatenate([scores[:left], scores[right + 1 :]])
    return float(elsewhere.max()) if len(elsewhere) else 0.0


def refine(rings: Rings, start: Defocus, *, fit_phase_shift: bool) -> Refinement:
    """Gauss–Newton on defocus, astigmatism and (if asked) phase shift, the envelope solved anew at every step."""
    defocus = start
    converged = False
    for _ in range(_REFINEMENT_STEPS):
        envelope = fit_envelope(rings, defocus)
        jacobian, residual, _ = _linearise(rings, defocus, envelope, fit_phase_shift=fit_phase_shift)
        step = _solve(jacobian, residual)
        # A step of more than a third of a ring at the band's edge leaves the region where the slope means anything.
        longest = float(np.max(np.abs(step[:3]))) * 2 * float(rings.defocus_phase[-1])
        step = step * min(1.0, 2.0 / max(longest, 1e-9))
        defocus = _moved(defocus, step)
        if float(np.max(np.abs(step[:3]))) < 0.5:
            converged = True
            break
    envelope = fit_envelope(rings, defocus)
    jacobian, residual, model = _linearise(rings, defocus, envelope, fit_phase_shift=fit_phase_shift)
    degrees = residual.size - len(rings.azimuth_radian) * _BACKGROUND_TERMS - _ENVELOPE_TERMS - len(jacobian)
    chi_square = float(np.sum(residual**2)) / max(1, degrees)
    normal = jacobian @ jacobian.T
    covariance = np.asarray(np.linalg.pinv(normal) * max(1.0, chi_square), dtype=np.float64)
    length = float(np.sqrt(np.sum(model**2)))
    overlap = float(np.sum(model * rings.flat)) / max(length, 1e-12)
    total = float(np.sqrt(np.sum(rings.flat**2)))
    phase = defocus.phase_radian % math.pi
    return Refinement(
        defocus=replace(defocus, phase_radian=phase),
        envelope=envelope,
        covariance=covariance,
        score=overlap,
        correlation=overlap / max(total, 1e-12),
        converged=converged,
    )


def fit_envelope(rings: Rings, defocus: Defocus) -> Floats:
    """The smooth, nowhere negative envelope that fits best with this defocus: (rings,)."""
    shapes = spline_basis(rings.frequency_per_angstrom, _ENVELOPE_TERMS)
    waves = -np.cos(2 * rings.phase(defocus)) * rings.inverse_error
    columns = np.stack([rings.without_background(waves * shape).ravel() for shape in shapes.T])
    normal = columns @ columns.T
    # The normal equations as a small least-squares problem, for nnls.
    root = np.linalg.cholesky(normal + 1e-9 * np.trace(normal) * np.eye(len(normal)))
    coefficients, _ = nnls(root.T, np.linalg.solve(root, columns @ rings.flat.ravel()))
    return np.asarray(shapes @ coefficients)


def _linearise(
    rings: Rings, defocus: Defocus, envelope: Floats, *, fit_phase_shift: bool
) -> tuple[Floats, Floats, Floats]:
    """Derivatives of the model by each parameter (parameters, samples), the residual (samples,), the model."""
    phase = rings.phase(defocus)
    height = envelope * rings.inverse_error
    model = rings.without_background(-height * np.cos(2 * phase))
    by_phase = 2 * height * np.sin(2 * phase)
    by_defocus = by_phase * rings.defocus_phase
    cosine = np.cos(2 * rings.azimuth_radian)[:, np.newaxis]
    sine = np.sin(2 * rings.azimuth_radian)[:, np.newaxis]
    derivatives = [by_defocus, by_defocus * cosine, by_defocus * sine]
    if fit_phase_shift:
        derivatives.append(by_phase)
    jacobian = np.stack([rings.without_background(d).ravel() for d in derivatives])
    return jacobian, (rings.flat - model).ravel(), model


def _solve(jacobian: Floats, residual: Floats) -> Floats:
    normal = jacobian @ jacobian.T
    # Scaling to a unit diagonal keeps Å and radian apart; the ridge holds where nothing is measured.
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
    scaled = normal / np.outer(scale, scale) + 1e-6 * np.eye(len(scale))
    return np.asarray(np.linalg.solve(scaled, (jacobian @ residual) / scale) / scale)


def _moved(defocus: Defocus, step: Floats) -> Defocus:
    return Defocus(
        defocus.mean_angstrom + float(step[0]),
        defocus.cosine_angstrom + float(step[1]),
        defocus.sine_angstrom + float(step[2]),
        defocus.phase_radian + (float(step[3]) if len(step) > 3 else 0.0),
    )

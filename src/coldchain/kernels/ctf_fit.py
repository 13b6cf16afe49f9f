"""A polar spectrum made ready for fitting, and the refinement of a defocus on it.

The logarithm of the power in a sector is modelled as a smooth background plus envelope(k) · (−cos 2χ(k, θ)). What a
smooth background can explain is projected out of data and model alike (variable projection: Golub & Pereyra, SIAM J.
Numer. Anal. 1973, 10, 413, doi:10.1137/0710036), so the background is never guessed before the rings are known. Values
are divided by their standard errors throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import BSpline
from scipy.optimize import nnls
from scipy.special import digamma

from coldchain.kernels.ctf_model import Defocus, Floats, Lens
from coldchain.kernels.spectrum import PolarSpectrum

BACKGROUND_TERMS = 8
_ENVELOPE_TERMS = 10
# A background of few terms never follows a real spectrum to better than this (natural logarithm of power).
_MODEL_ERROR = 0.03
_FEWEST_SAMPLES = 0.3
_TRIGAMMA_SHIFT = 4
_REFINEMENT_STEPS = 20
_HALVINGS = 6
_SMALLEST_STEP_ANGSTROM = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Rings:
    """A polar spectrum made ready for fitting. Arrays are (sectors, rings) or one of the two.

    log_power : its logarithm, free of the bias that few samples cause.
    flat : the same without what a smooth background explains, in standard errors.
    inverse_error : what the logarithm was multiplied by; 0 where a bin has no sample.
    background : (sectors, terms, rings) orthonormal basis of each sector's backgrounds, in standard errors.
    envelope_shapes : (terms, rings) what an envelope is made of.
    defocus_phase, constant_phase : (rings,) χ = defocus_phase · Δf + constant_phase.
    """

    lens: Lens
    frequency_per_angstrom: Floats
    azimuth_radian: Floats
    blur_per_angstrom: tuple[float, ...]
    log_power: Floats
    flat: Floats
    inverse_error: Floats
    background: Floats
    envelope_shapes: Floats
    defocus_phase: Floats
    constant_phase: Floats

    @property
    def ring_inverse_error(self) -> Floats:
        """(rings,) what a sector's values were multiplied by, in the root mean square over the sectors."""
        return np.asarray(np.sqrt(np.mean(self.inverse_error**2, axis=0)))

    def without_background(self, values: Floats) -> Floats:
        """`values` (sectors, rings), in standard errors, without what a smooth background explains."""
        return np.asarray(values - self.in_background(values))

    def in_background(self, values: Floats) -> Floats:
        """The part of `values` (sectors, rings), in standard errors, that a smooth background explains."""
        terms = np.matmul(self.background, values[:, :, np.newaxis])
        return np.asarray(np.matmul(terms.transpose(0, 2, 1), self.background)[:, 0])

    def phase(self, defocus: Defocus) -> Floats:
        """χ, (sectors, rings)."""
        at_sector = defocus.at(self.azimuth_radian)[:, np.newaxis]
        return np.asarray(at_sector * self.defocus_phase + self.constant_phase + defocus.phase_radian)

    def contrast(self, mean_defocus_angstrom: Floats | float, *, single: bool = False) -> Floats:
        """What averaging over the width of a ring leaves of the waves: (…, rings) for defoci of shape (…, 1).

        In `single` precision that takes a third of the time.
        """
        slope = np.abs(self.lens.phase_slope(self.frequency_per_angstrom, mean_defocus_angstrom))
        slope = slope.astype(np.float32) if single else slope
        left = np.ones_like(slope)
        for width in self.blur_per_angstrom:
            angle = np.minimum(slope * width, math.pi) + 1e-6
            left *= np.sin(angle) / angle
        return np.maximum(left, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Refinement:
    """A refined fit.

    envelope : (rings,) half the height of the rings in the logarithm of power, ≥ 0.
    covariance : of (mean, cosine, sine[, phase]) in Å (and radian), scaled by the residual.
    score : signal in standard deviations of noise. chi_square : of the residual, per degree of freedom.
    weakest_score : what is left of the score without the ring, from one zero to the next, that gives most of it.
    model : (sectors, rings) the fitted rings without background, in standard errors.
    """

    defocus: Defocus
    envelope: Floats
    covariance: Floats
    score: float
    chi_square: float
    weakest_score: float
    model: Floats
    converged: bool


def prepare(spectrum: PolarSpectrum, lens: Lens) -> Rings:
    """Take logarithms, weigh, and project out the background.

    The logarithm of a mean over n independent exponential deviates has the mean ψ(n) − ln n and the variance ψ′(n).
    """
    k = spectrum.frequency_per_angstrom
    seen = spectrum.samples > _FEWEST_SAMPLES
    samples = np.maximum(spectrum.samples, _FEWEST_SAMPLES)
    log_power = np.log(spectrum.power) - (digamma(samples) - np.log(samples))
    inverse_error = np.where(seen, 1.0 / np.sqrt(_trigamma(samples) + _MODEL_ERROR**2), 0.0)
    smooth = spline_basis(k, BACKGROUND_TERMS)
    basis, _ = np.linalg.qr(smooth[np.newaxis] * inverse_error[:, :, np.newaxis])
    rings = Rings(
        lens=lens,
        frequency_per_angstrom=k,
        azimuth_radian=spectrum.azimuth_radian,
        blur_per_angstrom=spectrum.blur_per_angstrom,
        log_power=log_power,
        flat=log_power,
        inverse_error=inverse_error,
        background=np.ascontiguousarray(basis.transpose(0, 2, 1)),
        envelope_shapes=np.ascontiguousarray(spline_basis(k, _ENVELOPE_TERMS).T),
        defocus_phase=lens.defocus_phase(k),
        constant_phase=lens.constant_phase(k),
    )
    return replace(rings, flat=rings.without_background(log_power * inverse_error))


def _trigamma(x: Floats) -> Floats:
    """ψ′(x) for x > 0, to 1e-6: Abramowitz & Stegun 6.4.6 and 6.4.12, in a tenth of SciPy's time."""
    shifted = x + _TRIGAMMA_SHIFT
    tail = 1 / shifted + 1 / (2 * shifted**2) + 1 / (6 * shifted**3) - 1 / (30 * shifted**5)
    for i in range(_TRIGAMMA_SHIFT):
        tail += 1 / (x + i) ** 2
    return tail


def spline_basis(x: Floats, terms: int) -> Floats:
    """Cubic B-splines on equal knots over the range of x: (len(x), terms), every value ≥ 0, rows adding up to one."""
    inner = np.linspace(x[0], x[-1], terms - 2)
    knots = np.concatenate([np.repeat(inner[0], 3), inner, np.repeat(inner[-1], 3)])
    return np.asarray(BSpline.design_matrix(np.clip(x, x[0], x[-1]), knots, 3).toarray(), dtype=np.float64)


def refine(rings: Rings, start: Defocus, *, fit_phase_shift: bool) -> Refinement:
    """Gauss–Newton on defocus, astigmatism and (if asked) phase shift, the envelope solved anew at every step.

    A step that does not improve the fit is halved until it does.
    """
    defocus = start
    envelope, explained = fit_envelope(rings, defocus)
    converged = False
    for _ in range(_REFINEMENT_STEPS):
        step = _step(rings, defocus, envelope, fit_phase_shift=fit_phase_shift)
        for _ in range(_HALVINGS):
            trial = _moved(defocus, step)
            trial_envelope, trial_explained = fit_envelope(rings, trial)
            if trial_explained >= explained:
                break
            step = step * 0.4
        else:
            converged = True
            break
        defocus, envelope, explained = trial, trial_envelope, trial_explained
        if float(np.max(np.abs(step[:3]))) < _SMALLEST_STEP_ANGSTROM:
            converged = True
            break
    return _assess(rings, defocus, envelope, converged, fit_phase_shift=fit_phase_shift)


def _assess(rings: Rings, defocus: Defocus, envelope: Floats, converged: bool, *, fit_phase_shift: bool) -> Refinement:
    model, by_phase = _derivatives(rings, defocus, envelope)
    normal, _ = _moments(rings, by_phase, rings.flat, fit_phase_shift=fit_phase_shift)
    residual = rings.flat - model
    used = int(np.count_nonzero(rings.inverse_error))
    degrees = used - len(rings.azimuth_radian) * BACKGROUND_TERMS - _ENVELOPE_TERMS - len(normal)
    chi_square = float(np.sum(residual**2)) / max(1, degrees)
    length = max(math.sqrt(float(np.sum(model**2))), 1e-12) * math.sqrt(max(1.0, chi_square))
    gained = model * rings.flat
    ring = np.floor(rings.phase(defocus) / math.pi).astype(np.int64)
    of_ring = np.bincount((ring - ring.min()).ravel(), weights=gained.ravel())
    score = float(np.sum(gained)) / length
    return Refinement(
        defocus=replace(defocus, phase_radian=defocus.phase_radian % math.pi),
        envelope=envelope,
        covariance=np.asarray(np.linalg.pinv(normal) * max(1.0, chi_square), dtype=np.float64),
        score=score,
        chi_square=chi_square,
        weakest_score=score - float(of_ring.max()) / length,
        model=model,
        converged=converged,
    )


def fit_envelope(rings: Rings, defocus: Defocus) -> tuple[Floats, float]:
    """The smooth, nowhere negative envelope that fits best with this defocus, (rings,), and how much it explains."""
    shapes = rings.envelope_shapes * rings.contrast(defocus.mean_angstrom)
    waves = -np.cos(2 * rings.phase(defocus)) * rings.inverse_error
    # Every column is the waves times a shape that is the same in all sectors, so sums over sectors come first.
    within = (rings.background * waves[:, np.newaxis, :]).reshape(-1, waves.shape[1]) @ shapes.T
    normal = (shapes * np.einsum("sr,sr->r", waves, waves)) @ shapes.T - within.T @ within
    projected = shapes @ np.einsum("sr,sr->r", waves, rings.flat)
    # The normal equations as a small least-squares problem, for nnls.
    root = np.linalg.cholesky(normal + (1e-9 * np.trace(normal) + 1e-30) * np.eye(len(normal)))
    coefficients, _ = nnls(root.T, np.linalg.solve(root, projected))
    explained = float(2 * coefficients @ projected - coefficients @ normal @ coefficients)
    return np.asarray(coefficients @ shapes), explained


def _derivatives(rings: Rings, defocus: Defocus, envelope: Floats) -> tuple[Floats, Floats]:
    """The model without background, (sectors, rings), and its derivative by the phase, with it."""
    twice = 2 * rings.phase(defocus)
    height = envelope * rings.inverse_error
    return rings.without_background(-height * np.cos(twice)), 2 * height * np.sin(twice)


def _moments(rings: Rings, by_phase: Floats, data: Floats, *, fit_phase_shift: bool) -> tuple[Floats, Floats]:
    """Products of the derivatives by (mean, cosine, sine[, phase]) with each other, and with `data`, all without what
    lies in the background (of which the data are free already).

    Each derivative is that by the phase times a function of the frequency and one of the azimuth, so the frequencies
    are summed over first, and then the sectors.
    """
    along = [rings.defocus_phase, np.ones_like(rings.defocus_phase)][: 2 if fit_phase_shift else 1]
    columns = np.stack([by_phase * function for function in along], axis=2)
    within = np.matmul(rings.background, columns)
    products = np.matmul(columns.transpose(0, 2, 1), columns) - np.matmul(within.transpose(0, 2, 1), within)
    with_data = np.matmul(columns.transpose(0, 2, 1), data[:, :, np.newaxis])[:, :, 0]
    twice = 2 * rings.azimuth_radian
    around = [np.ones_like(twice), np.cos(twice), np.sin(twice)] + [np.ones_like(twice)] * fit_phase_shift
    which = [0, 0, 0, 1][: len(around)]
    weights = np.stack(around)
    normal = np.einsum("cs,ds,scd->cd", weights, weights, products[:, which][:, :, which])
    return np.asarray(normal), np.asarray(np.einsum("cs,sc->c", weights, with_data[:, which]))


def _step(rings: Rings, defocus: Defocus, envelope: Floats, *, fit_phase_shift: bool) -> Floats:
    """The Gauss–Newton step, not longer than a third of a ring at the band's edge."""
    model, by_phase = _derivatives(rings, defocus, envelope)
    normal, projected = _moments(rings, by_phase, rings.flat - model, fit_phase_shift=fit_phase_shift)
    # Scaling to a unit diagonal keeps Å and radian apart; the ridge holds where nothing is measured.
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
    scaled = normal / np.outer(scale, scale) + 1e-6 * np.eye(len(scale))
    step = np.linalg.solve(scaled, projected / scale) / scale
    longest = float(np.max(np.abs(step[:3]))) * 2 * float(rings.defocus_phase[-1])
    return np.asarray(step * min(1.0, 2.0 / max(longest, 1e-9)))


@dataclass(frozen=True, slots=True)
class MeanStep:
    """How far the mean defocus is from where a spectrum has it, with everything else known.

    worth : its inverse variance in 1/Å². signal, square : the data times the rings, and the rings' own squared norm.
    """

    step_angstrom: float
    worth: float
    signal: float
    square: float


def mean_step(rings: Rings, defocus: Defocus, envelope: Floats) -> MeanStep:
    """The Gauss–Newton step of the mean defocus alone, for rings of a known height."""
    model, by_phase = _derivatives(rings, defocus, envelope)
    normal, projected = _moments(rings, by_phase, rings.flat - model, fit_phase_shift=False)
    worth = max(float(normal[0, 0]), 1e-30)
    return MeanStep(float(projected[0]) / worth, worth, float(np.sum(model * rings.flat)), float(np.sum(model * model)))


def _moved(defocus: Defocus, step: Floats) -> Defocus:
    return Defocus(
        defocus.mean_angstrom + float(step[0]),
        defocus.cosine_angstrom + float(step[1]),
        defocus.sine_angstrom + float(step[2]),
        defocus.phase_radian + (float(step[3]) if len(step) > 3 else 0.0),
    )

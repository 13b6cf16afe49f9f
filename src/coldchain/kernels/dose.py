"""How much each frame is worth at each spatial frequency: the exposure filter of Grant & Grigorieff.

T. Grant and N. Grigorieff, "Measuring the optimal exposure for single particle cryo-EM using a 2.6 Å reconstruction of
rotavirus VP6", eLife 2015, 4:e06980, https://doi.org/10.7554/eLife.06980.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import ProcessingError
from coldchain.units import electron_wavelength_angstrom

_ELECTRON_COMPTON_WAVELENGTH_ANGSTROM = 0.0242631023538
_REFERENCE_VOLTAGE_KILOVOLT = 300.0
_REMEDY = "Correct the session's dose"


def critical_exposure(frequency_per_angstrom: NDArray[np.floating], voltage_kilovolt: float) -> NDArray[np.float64]:
    """Exposure in e⁻/Å² after which the signal's amplitude at a spatial frequency has fallen to 1/e^½, per frequency.

    Nₑ(k) = 0.245 k^−1.665 + 2.81 at 300 kV. Other voltages are scaled by (v/c)², as the energy that an electron leaves
    behind goes with its inverse: 0.80 at 200 kV, which is the authors' factor.

    Parameters
    ----------
    frequency_per_angstrom : any shape, 1/Å, ≥ 0; at zero the critical exposure is infinite.
    voltage_kilovolt : acceleration voltage.
    """
    frequency = np.asarray(frequency_per_angstrom, dtype=np.float64)
    with np.errstate(divide="ignore"):
        at_reference = 0.245 * np.power(frequency, -1.665) + 2.81
    scale = _beta_squared(voltage_kilovolt) / _beta_squared(_REFERENCE_VOLTAGE_KILOVOLT)
    return np.asarray(at_reference * scale, dtype=np.float64)


def frame_doses(frames: int, dose_per_frame: float | Sequence[float]) -> NDArray[np.float64]:
    """What each frame was exposed to, e⁻/Å²: one number for all frames, or one for each of them.

    Returns
    -------
    (frames,) float64. A `ProcessingError` is raised where a dose is negative or no number, or their count another.
    """
    given = (dose_per_frame,) * frames if isinstance(dose_per_frame, int | float) else tuple(dose_per_frame)
    if len(given) != frames:
        raise ProcessingError(f"{len(given)} doses for {frames} frames", expected="one for each", remedy=_REMEDY)
    doses = np.array(given, dtype=np.float64)
    wrong = doses[~(np.isfinite(doses) & (doses >= 0))]
    if wrong.size:
        raise ProcessingError(
            f"the dose per frame is {wrong[0]} e⁻/Å²", expected="a number that is not negative", remedy=_REMEDY
        )
    return doses


def frame_exposures(
    frames: int, dose_per_frame: float | Sequence[float], pre_exposure: float = 0.0
) -> NDArray[np.float64]:
    """Exposure of the specimen at the middle of each frame, e⁻/Å²: the pre-exposure, the doses of the frames before
    it, and half of its own.

    Returns
    -------
    (frames,) float64. Raises as `frame_doses`, and where the pre-exposure is negative or no number.
    """
    if not math.isfinite(pre_exposure) or pre_exposure < 0:
        raise ProcessingError(
            f"the pre-exposure is {pre_exposure} e⁻/Å²", expected="a number that is not negative", remedy=_REMEDY
        )
    doses = frame_doses(frames, dose_per_frame)
    return np.asarray(np.cumsum(doses) - 0.5 * doses + pre_exposure, dtype=np.float64)


def exposure_weights(
    frequency_per_angstrom: NDArray[np.floating],
    exposure: NDArray[np.float64],
    voltage_kilovolt: float,
    dose: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Weight of each frame at each spatial frequency, such that the weighted sum's noise is as white as the plain's.

    w_f(k) = q_f(k) / √(mean over frames of q²), q_f(k) = exp(−N_f / 2Nₑ(k)). This is the paper's normalisation times
    √frames, so that at every frequency the weighted sum has the same noise as the plain one, and at zero the same mean;
    a single frame has the weight one everywhere. The mean over frames is weighted by their doses, for the noise of a
    frame goes with its electrons: of equal doses, the squares of the weights add up to the number of frames.

    Parameters
    ----------
    frequency_per_angstrom : any shape, 1/Å.
    exposure : (frames,) e⁻/Å², as `frame_exposures` gives it.
    voltage_kilovolt : acceleration voltage.
    dose : (frames,) each frame's own dose in any unit; None where they are equal.

    Returns
    -------
    (frames, *frequency shape) float64.
    """
    critical = critical_exposure(frequency_per_angstrom, voltage_kilovolt)
    # What all frames have in common cancels; left in, a large pre-exposure would underflow to 0/0.
    since_first = (exposure - exposure.min()).reshape(-1, *(1,) * critical.ndim)
    kept = np.exp(-since_first / (2 * critical))
    shares = dose if dose is not None and dose.sum() > 0 else None
    return np.asarray(kept / np.sqrt(np.average(kept**2, axis=0, weights=shares)), dtype=np.float64)


def few_terms(weights: NDArray[np.float64], tolerance: float = 1e-3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights as a product of few: w_f(k) ≈ Σ_r v_rf u_r(k), the rows of v orthonormal, the first of them constant.

    Exposure weights fall smoothly with frame and frequency, so that as a matrix their singular values fall by about ten
    a term. A sum over frames of weight × transform thereby becomes a sum over a few terms of u_r × the transform of
    Σ_f v_rf · frame, and that of the first term is the plain sum.

    Parameters
    ----------
    weights : (frames, samples); a frame that is left out has the weight 0 everywhere.
    tolerance : largest error at any frequency, of any frame, relative to the largest weight.

    Returns
    -------
    v (terms, frames), u (terms, samples).
    """
    used = weights.any(axis=1)
    constant = np.asarray(used / math.sqrt(max(1, int(np.count_nonzero(used)))), dtype=np.float64)
    rest = weights - np.outer(constant, constant @ weights)
    vectors = np.linalg.svd(rest @ rest.T).U.T if rest.any() else np.zeros((0, len(weights)))
    v = constant[np.newaxis]
    for vector in vectors:
        if np.abs(weights - v.T @ (v @ weights)).max() <= tolerance * np.abs(weights).max():
            break
        v = np.concatenate([v, vector[np.newaxis]])
    return v, v @ weights


def _beta_squared(voltage_kilovolt: float) -> float:
    """(v/c)² of an electron, from its wavelength: momentum over mc is the Compton wavelength over its own."""
    momentum = _ELECTRON_COMPTON_WAVELENGTH_ANGSTROM / electron_wavelength_angstrom(voltage_kilovolt)
    return momentum**2 / (1 + momentum**2)

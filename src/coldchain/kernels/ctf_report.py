"""What is told and shown of a CTF fit: equiphase profile, fit resolution, ice, uncertainty, the diagnostic picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from coldchain.compiled import in_bands
from coldchain.kernels.ctf_fit import Refinement, Rings
from coldchain.kernels.ctf_model import Floats
from coldchain.kernels.spectrum import PolarSpectrum

# Below this correlation with the fit the rings are taken as lost.
AGREEMENT_LEVEL = 0.5
DIAGNOSTIC_PIXELS = 512
_FEWEST_WINDOW_SAMPLES = 11
_STANDARD_ERRORS = 3.0
# What the sampling of the spectrum alone may cost, however strong the rings are.
_LEAST_UNCERTAINTY_ANGSTROM = 15.0
_TYPICAL_FREQUENCY_PER_ANGSTROM = 0.2
_ICE_BAND_PER_ANGSTROM = (0.25, 0.28)
_ICE_SIDE_PER_ANGSTROM = 0.025


# Along lines of equal phase the picture is smoothed by this many sectors (standard deviation), as by a mean over ± 10°,
# as far as there are rings; beyond them noise is to look like noise.
_SMOOTHED_SECTORS = 2.0
# And across the rings by this part of a ring, in one of these numbers of samples.
_SMOOTHED_RING = 0.12
_SMOOTHED_SAMPLES = (1.0, 2.0, 4.0, 8.0)
# Noise alone is drawn as this many standard deviations from black to grey.
_NOISE_SHOWN = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Averages along lines of equal phase, all (rings,); `measured` is scaled like `fitted`, which is |CTF|²."""

    frequency_per_angstrom: Floats
    measured: Floats
    fitted: Floats
    agreement: Floats


def equiphase_profile(rings: Rings, refined: Refinement) -> Profile:
    """Every sample is moved to the frequency where the mean defocus has its phase, and averaged there."""
    k = rings.frequency_per_angstrom
    at_sector = refined.defocus.at(rings.azimuth_radian)[:, np.newaxis]
    moved = rings.lens.equiphase_frequency(k[np.newaxis, :], at_sector, refined.defocus.mean_angstrom)
    flattened = rings.log_power - background(rings, refined)
    edges = np.concatenate([[k[0] - 0.5 * (k[1] - k[0])], 0.5 * (k[1:] + k[:-1]), [k[-1] + 0.5 * (k[-1] - k[-2])]])
    ring = np.searchsorted(edges, moved.ravel()) - 1
    inside = np.isfinite(moved.ravel()) & (ring >= 0) & (ring < len(k))
    count = np.bincount(ring[inside], minlength=len(k))
    total = np.bincount(ring[inside], weights=flattened.ravel()[inside], minlength=len(k))
    mean = np.where(count > 0, total / np.maximum(count, 1), 0.0)
    phase = rings.lens.phase(k, refined.defocus.mean_angstrom) + refined.defocus.phase_radian
    waves = -np.cos(2 * phase)
    noise = 2.0 / np.maximum(rings.ring_inverse_error * math.sqrt(len(rings.azimuth_radian)), 1e-6)
    height = np.maximum(refined.envelope, noise)
    return Profile(
        frequency_per_angstrom=k,
        measured=0.5 * (1 + mean / height),
        fitted=0.5 * (1 + waves),
        agreement=_local_correlation(mean, waves, _ring_width(k, phase)),
    )


def background(rings: Rings, refined: Refinement) -> Floats:
    """The smooth part of the logarithm of power beside the fitted rings: (sectors, rings)."""
    waves = -refined.envelope * np.cos(2 * rings.phase(refined.defocus))
    explained = rings.in_background((rings.log_power - waves) * rings.inverse_error)
    seen = rings.inverse_error > 0
    return np.asarray(np.where(seen, explained / np.where(seen, rings.inverse_error, 1), rings.log_power))


def _ring_width(frequency: Floats, phase: Floats) -> Floats:
    """Samples from one zero of the CTF to the next, at every frequency."""
    slope = np.abs(np.gradient(phase, np.arange(len(frequency))))
    return np.asarray(math.pi / np.maximum(slope, 1e-6))


def _local_correlation(measured: Floats, fitted: Floats, ring_width: Floats) -> Floats:
    """Pearson correlation in a window of two rings, not less than `_FEWEST_WINDOW_SAMPLES`."""
    count = len(measured)
    half = np.maximum(_FEWEST_WINDOW_SAMPLES // 2, np.minimum(ring_width, count)).astype(np.int64)
    first, end = np.maximum(0, np.arange(count) - half), np.minimum(count, np.arange(count) + half + 1)

    def window(values: Floats) -> Floats:
        running = np.concatenate([[0.0], np.cumsum(values)])
        return np.asarray((running[end] - running[first]) / (end - first))

    a, b = measured - measured.mean(), fitted - fitted.mean()
    mean_a, mean_b = window(a), window(b)
    square = (window(a * a) - mean_a**2) * (window(b * b) - mean_b**2)
    return np.asarray((window(a * b) - mean_a * mean_b) / np.sqrt(np.maximum(square, 1e-24)))


def fit_resolution_angstrom(profile: Profile, min_resolution_angstrom: float) -> float:
    """The resolution up to which the agreement stays above `AGREEMENT_LEVEL`, beginning where it is best.

    The first ring is wide and lies where the particle's own shape is seen, so the walk begins at the best agreement
    of the lower half of the band. `min_resolution_angstrom` where nothing agrees.
    """
    lower_half = profile.agreement[: max(1, len(profile.agreement) // 2)]
    best = int(np.argmax(lower_half))
    if profile.agreement[best] < AGREEMENT_LEVEL:
        return min_resolution_angstrom
    lost = np.flatnonzero(profile.agreement[best:] < AGREEMENT_LEVEL)
    last = best + int(lost[0]) - 1 if len(lost) else len(profile.agreement) - 1
    return float(1.0 / profile.frequency_per_angstrom[last])


def uncertainty_angstrom(refined: Refinement, off_centre_per_angstrom: float = 0.0) -> float:
    """Three standard errors of U and V, but not less than what the sampling may cost.

    Frequencies that are all off by so much stretch the defocus, which goes with their square.
    """
    variance = refined.covariance[0, 0] + 0.5 * (refined.covariance[1, 1] + refined.covariance[2, 2])
    stretched = 2 * refined.defocus.mean_angstrom * off_centre_per_angstrom / _TYPICAL_FREQUENCY_PER_ANGSTROM
    return float(
        math.hypot(_STANDARD_ERRORS * math.sqrt(max(0.0, float(variance))), _LEAST_UNCERTAINTY_ANGSTROM, stretched)
    )


def ice_ring_density(polar: PolarSpectrum, waves: Floats) -> float:
    """Mean power at 0.25–0.28 Å⁻¹ over that of the bands beside it; 0 where the spectrum does not reach so far.

    waves : (sectors, rings) the fitted rings in the logarithm of power, which are taken away first.
    """
    k = polar.frequency_per_angstrom
    low, high = _ICE_BAND_PER_ANGSTROM
    level = polar.power * np.exp(-waves) * polar.samples
    power = np.sum(level, axis=0) / np.maximum(polar.samples.sum(axis=0), 1e-9)
    inside = (k >= low) & (k <= high)
    below = (k >= low - _ICE_SIDE_PER_ANGSTROM) & (k < low)
    above = (k > high) & (k <= high + _ICE_SIDE_PER_ANGSTROM)
    if not (inside.any() and below.any() and above.any()):
        return 0.0
    # The geometric mean of the sides is what a steadily falling spectrum has in the middle.
    return float(power[inside].mean() / math.sqrt(float(power[below].mean()) * float(power[above].mean())))


def diagnostic(
    rings: Rings, refined: Refinement, resolution_angstrom: float, *, smoothed: bool, threads: int = 1
) -> NDArray[np.float32]:
    """The picture to judge a fit by: measured left, fitted right; see `CtfFit.diagnostic`.

    The measured half is drawn from the sectors. As far as the fitted half reaches it is `smoothed` along lines of equal
    phase, which shows rings that the noise would hide; where there are none that would make some of noise.
    """
    k = rings.frequency_per_angstrom
    flattened = rings.log_power - background(rings, refined)
    phase = rings.phase(refined.defocus).mean(axis=0)
    limit = resolution_angstrom if smoothed else math.inf
    smooth, noise = _smoothed(rings, refined, flattened, _ring_width(k, phase), limit)
    scaled = np.clip(0.5 + 0.5 * smooth / np.maximum(refined.envelope, _NOISE_SHOWN * noise), 0, 1)
    edge, middle = DIAGNOSTIC_PIXELS, DIAGNOSTIC_PIXELS // 2
    axis = ((np.arange(edge) - middle) * (float(k[-1]) / middle)).astype(np.float32)
    picture = np.empty((edge, edge), dtype=np.float32)

    def draw(first: int, end: int) -> None:
        y, left, right = axis[first:end, np.newaxis], axis[:middle], axis[middle:]
        picture[first:end, :middle] = _measured_half(rings, scaled, np.hypot(y, left), np.arctan2(y, left))
        picture[first:end, middle:] = _fitted_half(
            rings, refined, np.hypot(y, right), np.arctan2(y, right), resolution_angstrom
        )

    in_bands(draw, edge, threads)
    return picture


def _smoothed(
    rings: Rings, refined: Refinement, flattened: Floats, ring_width: Floats, resolution_angstrom: float
) -> tuple[Floats, Floats]:
    """Averages across the rings over a small part of a ring, and along them as far as the resolution; and what noise is
    left: (rings,)."""
    k, mean = rings.frequency_per_angstrom, refined.defocus.mean_angstrom
    averaged = np.ones(len(k))
    across = flattened.copy()
    for samples in _SMOOTHED_SAMPLES:
        wide = ring_width * _SMOOTHED_RING > samples
        if not wide.any():
            break
        across[:, wide] = ndimage.gaussian_filter1d(flattened, samples, axis=1)[:, wide]
        averaged[wide] = 2 * math.sqrt(math.pi) * samples
    ringed = k <= 1.0 / resolution_angstrom
    averaged[ringed] *= 2 * math.sqrt(math.pi) * _SMOOTHED_SECTORS
    noise = 1.0 / np.maximum(rings.ring_inverse_error * np.sqrt(averaged), 1e-6)
    if not ringed.any():
        return across, noise
    at_sector = refined.defocus.at(rings.azimuth_radian)[:, np.newaxis]
    straight = _moved(across, k, rings.lens.equiphase_frequency(k, mean, at_sector))
    along = ndimage.gaussian_filter1d(straight, _SMOOTHED_SECTORS, axis=0, mode="wrap")
    back = _moved(along, k, rings.lens.equiphase_frequency(k, at_sector, mean))
    return np.where(ringed, back, across), noise


def _moved(values: Floats, frequency: Floats, places: Floats) -> Floats:
    """Every sector's values (sectors, rings) at other frequencies, likewise; where there are none, at its own."""
    places = np.where(np.isfinite(places), places, frequency)
    return np.stack([np.interp(place, frequency, one) for place, one in zip(places, values, strict=True)])


def _measured_half(rings: Rings, scaled: Floats, frequency: Floats, azimuth: Floats) -> Floats:
    """Bilinear interpolation between sectors (which close on themselves after π) and rings."""
    k = rings.frequency_per_angstrom
    sectors = len(rings.azimuth_radian)
    sector = (azimuth % math.pi) * sectors / math.pi - 0.5
    ring = np.interp(frequency, k, np.arange(len(k)))
    closed = np.concatenate([scaled[-1:], scaled, scaled[:1]])
    half = ndimage.map_coordinates(closed, np.stack([sector + 1, ring]), order=1, mode="nearest")
    return np.where(frequency < k[0], 0.0, np.where(frequency > k[-1], 0.5, half))


def _fitted_half(
    rings: Rings, refined: Refinement, frequency: Floats, azimuth: Floats, resolution_angstrom: float
) -> Floats:
    phase = rings.lens.phase(frequency, refined.defocus.at(azimuth)) + refined.defocus.phase_radian
    half = 0.5 * (1 - np.cos(2 * phase))
    inside = frequency >= rings.frequency_per_angstrom[0]
    return np.where(frequency > 1.0 / resolution_angstrom, 0.5, np.where(inside, half, 0.0))

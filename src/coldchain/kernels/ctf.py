"""Contrast transfer function of a micrograph: defocus, astigmatism, phase shift, and whether to believe them.

The averaged power spectrum (`spectrum`) is put into rings and sectors, the defocus is searched and refined there
(`ctf_fit`), and the fit is then questioned: how far above noise it stands, whether another defocus would do nearly as
well, how many rings agree. Conventions are those of Rohou & Grigorieff, J. Struct. Biol. 2015, 192, 216,
doi:10.1016/j.jsb.2015.08.008, and of RELION's STAR labels; `ctf_model` writes them out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from coldchain.errors import ProcessingError
from coldchain.kernels import ctf_fit, ctf_report, ctf_search, ctf_tilt, spectrum
from coldchain.kernels.ctf_model import Defocus, Lens
from coldchain.kernels.extent import Extent, extent_of
from coldchain.kernels.voltage import check_voltage
from coldchain.model.results import CtfResult

# On noise alone the best of all places searched scores 4 to 6 standard deviations, 6.7 in the worst of hundreds.
_LOWEST_SCORE = 8.0
# Of a second ring system: a part of the first's score, where the first has been taken away.
_HIGHEST_BESIDE = 0.4
# Squares of scores are twice the logarithm of the likelihood: this much is beyond chance.
_LEAST_LEAD = 20.0
# Beyond that the model's own faults decide between two places.
_HIGHEST_RIVAL = 0.98
# A bump of the spectrum that is no ring is one.
_LOWEST_WITHOUT_A_RING = 5.0
_FEWEST_RINGS = 2.0
_LARGEST_UNCERTAINTY_ANGSTROM = 300.0
# A phase shift makes up for a good deal of defocus.
_LARGEST_UNCERTAINTY_WITH_PHASE_ANGSTROM = 450.0
_SMALLEST_EDGE_PIXEL = 256
_SMALLEST_EDGE_ANGSTROM = 250.0
_SECTORS = 60
# Mean and magnitude of a picture need not be exact; a value that is no number shows in its spectrum.
_SPARSE_ROWS = 16
_FEWEST_RINGS_OF_BAND = 40
_MOST_RINGS = 1200
# How far the phase of the largest defocus's rings may turn within one ring of the spectrum.
_RING_WIDTH_RADIAN = 2.2
_LAST_OF_NYQUIST = 0.48
# The waves in a cell of somebody's spectrum may lie so far to one side of its middle, in cells.
_CELL_OFF_CENTRE = 0.125
_CANDIDATES = 4
_TILT_ROUNDS = 2
_WORTH_REFINING = 0.6
# Noise alone has this; its rivals are noise as well.
_SCORE_WORTH_REFINING = 5.5
# Beyond it no other place nearby is likely.
_SCORE_OF_ONE_PLACE = 30.0
# Two fits are one if their rings at the band's end are not farther apart.
_APART_RADIAN = 1.5
_LEAST_PHASE_SHIFT_DEGREES = -20.0


@dataclass(frozen=True, slots=True)
class CtfParameters:
    """What is known of the microscope, and where to look.

    The fit band runs from `min_resolution_angstrom` (coarse) to `max_resolution_angstrom` (fine). With
    `fit_phase_shift` the phase shift is fitted in [−20°, 160°), otherwise `phase_shift_degrees` is taken as known. With
    `tilt` the specimen's tilt is fitted too, for which the picture itself is needed.
    """

    pixel_size_angstrom: float
    voltage_kilovolt: float
    spherical_aberration_millimeter: float
    amplitude_contrast: float = 0.1
    min_resolution_angstrom: float = 30.0
    max_resolution_angstrom: float = 3.0
    min_defocus_angstrom: float = 3000.0
    max_defocus_angstrom: float = 50000.0
    phase_shift_degrees: float = 0.0
    fit_phase_shift: bool = False
    tilt: bool = False
    threads: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class CtfFit:
    """The fit and what to show of it.

    diagnostic : (n, n) float32 in [0, 1], zero frequency at [n // 2, n // 2], y grows with the row; the left half is
        the measured spectrum without background, scaled to its rings, and if `smoothed` along them (± 10°) as far as
        the right half goes, which is |CTF|² of the fit up to the resolution to which it holds (0.5 beyond).
    profile_frequency_per_angstrom : (rings,) float32; the others likewise, averages along lines of equal phase:
    profile_measured : the measured spectrum scaled like |CTF|²; profile_fitted : |CTF|²;
    profile_agreement : their correlation over about two rings, −1 … 1.
    smoothed : whether the measured half is, which it is where rings stand out of the noise.
    tilt_degrees, tilt_axis_degrees : where asked for, the angle between specimen and picture, in [0, 90), and the
        azimuth of the line along which the defocus does not change, in [0, 180). Both are 0, and the fit is that of a
        flat specimen, where no tilt stands out of its uncertainty.
    tilt_uncertainty_degrees : three standard errors; None where nothing is known of the tilt or none was asked for.

    Where there was nothing to fit the arrays are empty, (0, 0) and (0,).
    """

    result: CtfResult
    diagnostic: NDArray[np.float32]
    profile_frequency_per_angstrom: NDArray[np.float32]
    profile_measured: NDArray[np.float32]
    profile_fitted: NDArray[np.float32]
    profile_agreement: NDArray[np.float32]
    smoothed: bool = False
    tilt_degrees: float = 0.0
    tilt_axis_degrees: float = 0.0
    tilt_uncertainty_degrees: float | None = None


def fit_ctf(image: NDArray[np.generic], parameters: CtfParameters) -> CtfFit:
    """Fit the CTF of a micrograph.

    Parameters
    ----------
    image : (rows, columns), any real type, as stored (row 0 first): the azimuth is from x towards increasing row.
    parameters : optics and search range.

    Returns
    -------
    The fit. A picture in which no CTF can be found is not an error: its result has `trustworthy` False and says why
    (blank, too small, values that are not numbers, no rings, two ring systems, …); numbers are finite always.

    Raises
    ------
    ProcessingError : the parameters cannot be, or the image is not a two-dimensional array.

    Notes
    -----
    `score` is the signal over the standard deviation of noise (noise alone gives 4 to 6); `uncertainty_angstrom` is
    three standard errors of U and V; `fit_resolution_angstrom` is where the equiphase profile's correlation with the
    fit falls below 0.5.
    """
    check_parameters(parameters)
    if image.ndim != 2:
        raise ProcessingError(f"the image has {image.ndim} dimensions", expected="rows and columns")
    # The fit's matrices are small: threads that wait for more of them take the time of those that work.
    with threadpool_limits(1, user_api="blas"):
        return _fit_picture(image, parameters)


def _fit_picture(image: NDArray[np.generic], parameters: CtfParameters) -> CtfFit:
    reason = _too_small(image, parameters)
    if reason:
        return _no_fit(reason)
    extent = extent_of(image[::_SPARSE_ROWS])
    if not (extent.is_finite and extent.highest > extent.lowest):
        extent = extent_of(image, parameters.threads)
    reason = _unusable(image, extent)
    if reason:
        return _no_fit(reason)
    band = _band(parameters, 1 / (min(image.shape) * parameters.pixel_size_angstrom))
    if band.rings < _FEWEST_RINGS_OF_BAND:
        return _no_fit(_few(band.rings))
    polar = spectrum.of_picture(image, parameters.pixel_size_angstrom, band, parameters.threads, extent=extent)
    if not math.isfinite(float(polar.power.max())):  # of a value that is no number nothing is left
        reason = _unusable(image, extent_of(image, parameters.threads))
        if reason:
            return _no_fit(reason)
    flat = _fit(polar, parameters)
    return _fit_tilted(image, flat, parameters) if parameters.tilt else flat


def fit_ctf_spectrum(amplitudes: NDArray[np.generic], parameters: CtfParameters) -> CtfFit:
    """Fit the CTF to a spectrum that an alignment wrote beside its sum.

    Parameters
    ----------
    amplitudes : (rows, columns), root mean square over a cell, as stored; frequency 0 at [rows // 2, columns // 2].
    parameters : as for `fit_ctf`; the pixel size is that of a picture which has this spectrum.

    Returns
    -------
    The fit, as from `fit_ctf`. Where the cells are too coarse for the rings of a large defocus, only the frequencies
    below are of use.

    Raises
    ------
    ProcessingError : the parameters cannot be, or the spectrum is not a two-dimensional array.
    """
    check_parameters(parameters)
    if amplitudes.ndim != 2:
        raise ProcessingError(f"the spectrum has {amplitudes.ndim} dimensions", expected="rows and columns")
    reason = _unusable_spectrum(amplitudes, parameters)
    if reason:
        return _no_fit(reason)
    cell = 1 / (min(amplitudes.shape) * parameters.pixel_size_angstrom)
    with threadpool_limits(1, user_api="blas"):
        polar = spectrum.of_amplitudes(amplitudes, parameters.pixel_size_angstrom, _band(parameters, cell))
        return _fit(polar, parameters, off_centre_per_angstrom=_CELL_OFF_CENTRE * cell)


def _fit_tilted(image: NDArray[np.generic], flat: CtfFit, parameters: CtfParameters) -> CtfFit:
    """The fit at the picture's centre on all tiles levelled, where they lie on a slope that stands out of its own
    uncertainty and on which they fit better than on a flat specimen; else `flat`."""
    p = parameters
    edge = ctf_tilt.tile_edge_pixel((image.shape[0], image.shape[1]), p.pixel_size_angstrom)
    band = _band(p, 1 / (edge * p.pixel_size_angstrom))
    if band.rings < _FEWEST_RINGS_OF_BAND:
        return flat
    tiles = ctf_tilt.tiles_of(image, p.pixel_size_angstrom, band, p.threads)
    if not ctf_tilt.tell_a_slope(tiles) or any(_unfit(tile) for tile in tiles.spectra):
        return flat
    lens = Lens.of(p.voltage_kilovolt, p.spherical_aberration_millimeter, p.amplitude_contrast, p.phase_shift_degrees)
    rings = [ctf_fit.prepare(tile, lens) for tile in tiles.spectra]
    fit, plane = flat, ctf_tilt.Plane(0.0)
    for _ in range(_TILT_ROUNDS):
        # The astigmatism of a picture blurred by tilt is a guess only, and better the second time.
        seen = _defocus_of(fit.result, p) if fit.result.trustworthy else Defocus(0.0)
        plane = ctf_tilt.fit_plane(
            tiles, rings, seen, (p.min_defocus_angstrom, p.max_defocus_angstrom), threads=p.threads
        )
        fit = _fit(ctf_tilt.level(tiles, lens, plane, seen), p)
    level, tilted = (_settled(tiles, rings, of, slope, p) for of, slope in ((flat, ctf_tilt.Plane(0.0)), (fit, plane)))
    if (
        not fit.result.trustworthy
        or tilted.significance < _LEAST_LEAD
        or tilted.score**2 - level.score**2 < _LEAST_LEAD
    ):
        known = replace(level, plane=ctf_tilt.Plane(0.0)).uncertainty_degrees if flat.result.trustworthy else None
        return replace(flat, tilt_uncertainty_degrees=known)
    return replace(
        fit,
        tilt_degrees=tilted.plane.tilt_degrees,
        tilt_axis_degrees=tilted.plane.axis_degrees,
        tilt_uncertainty_degrees=tilted.uncertainty_degrees,
    )


def _settled(
    tiles: ctf_tilt.Tiles, rings: list[ctf_fit.Rings], fit: CtfFit, plane: ctf_tilt.Plane, parameters: CtfParameters
) -> ctf_tilt.Settled:
    """How well a plane is known whose tiles, levelled, have this fit."""
    defocus = _defocus_of(fit.result, parameters)
    about = replace(plane, mean_angstrom=defocus.mean_angstrom)
    levelled = ctf_fit.prepare(ctf_tilt.level(tiles, rings[0].lens, about, defocus), rings[0].lens)
    refined = ctf_fit.refine(levelled, defocus, fit_phase_shift=parameters.fit_phase_shift)
    return ctf_tilt.settle_plane(tiles, rings, refined, about)


def _defocus_of(result: CtfResult, parameters: CtfParameters) -> Defocus:
    u, v, twice = result.defocus_u_angstrom, result.defocus_v_angstrom, 2 * math.radians(result.defocus_angle_degrees)
    shift = math.radians(result.phase_shift_degrees - parameters.phase_shift_degrees)
    return Defocus(0.5 * (u + v), 0.5 * (u - v) * math.cos(twice), 0.5 * (u - v) * math.sin(twice), shift)


def _band(parameters: CtfParameters, least_width_per_angstrom: float) -> spectrum.Band:
    """The fit band, in rings that are narrow enough for those of the largest defocus where the spectrum allows it."""
    p = parameters
    highest = min(1 / p.max_resolution_angstrom, _LAST_OF_NYQUIST / p.pixel_size_angstrom)
    lens = Lens.of(p.voltage_kilovolt, p.spherical_aberration_millimeter, p.amplitude_contrast)
    steepest = 2 * math.pi * lens.wavelength_angstrom * p.max_defocus_angstrom * highest
    narrow = max(_RING_WIDTH_RADIAN / (2 * steepest), (highest - 1 / p.min_resolution_angstrom) / _MOST_RINGS)
    return spectrum.Band(1 / p.min_resolution_angstrom, highest, max(least_width_per_angstrom, narrow), _SECTORS)


def _few(rings: int) -> str:
    return f"the fit band holds only {rings} samples of the spectrum, {_FEWEST_RINGS_OF_BAND} needed"


def _unfit(polar: spectrum.PolarSpectrum) -> str:
    """Why nothing can be fitted to this spectrum; "" where something can."""
    if not float(polar.power.min()) > 0.0:
        return "the spectrum is empty in places: the picture has been filtered or is blank"
    if not math.isfinite(float(polar.power.max())):
        return "the spectrum is not finite"
    return ""


def _fit(polar: spectrum.PolarSpectrum, parameters: CtfParameters, *, off_centre_per_angstrom: float = 0.0) -> CtfFit:
    """The fit to a spectrum whose frequencies may all be off by so much."""
    reason = _unfit(polar)
    if reason:
        return _no_fit(reason)
    lens = Lens.of(
        parameters.voltage_kilovolt,
        parameters.spherical_aberration_millimeter,
        parameters.amplitude_contrast,
        parameters.phase_shift_degrees,
    )
    rings = ctf_fit.prepare(polar, lens)
    found = ctf_search.search(
        rings,
        parameters.min_defocus_angstrom,
        parameters.max_defocus_angstrom,
        fit_phase_shift=parameters.fit_phase_shift,
        threads=parameters.threads,
    )
    refined, rival = _refine(rings, found, fit_phase_shift=parameters.fit_phase_shift)
    profile = ctf_report.equiphase_profile(rings, refined)
    result = _judge(parameters, rings, polar, refined, rival, profile, off_centre_per_angstrom)
    smoothed = refined.score >= _LOWEST_SCORE
    return CtfFit(
        result=result,
        smoothed=smoothed,
        diagnostic=ctf_report.diagnostic(
            rings, refined, result.fit_resolution_angstrom, smoothed=smoothed, threads=parameters.threads
        ),
        profile_frequency_per_angstrom=profile.frequency_per_angstrom.astype(np.float32),
        profile_measured=profile.measured.astype(np.float32),
        profile_fitted=profile.fitted.astype(np.float32),
        profile_agreement=profile.agreement.astype(np.float32),
    )


@dataclass(frozen=True, slots=True)
class _Rival:
    """Another place of the search: the score of a fit there instead, and that of one to what the best fit leaves."""

    score: float = 0.0
    beside: float = 0.0


def _refine(
    rings: ctf_fit.Rings, found: list[ctf_search.Candidate], *, fit_phase_shift: bool
) -> tuple[ctf_fit.Refinement, _Rival]:
    """The best of what the search found, refined, and what can be said for any other."""
    close = [candidate for candidate in found[:_CANDIDATES] if candidate.score > _WORTH_REFINING * found[0].score]
    if found[0].score < _SCORE_WORTH_REFINING:
        close = found[:1]
    tried = [ctf_fit.refine(rings, candidate.defocus, fit_phase_shift=fit_phase_shift) for candidate in close]
    best = max(tried, key=lambda refined: refined.score)
    apart = _APART_RADIAN / (2 * float(rings.defocus_phase[-1]))
    others = [other for other in tried if abs(other.defocus.mean_angstrom - best.defocus.mean_angstrom) > apart]
    if best.score < _SCORE_OF_ONE_PLACE:
        covariance = best.covariance.copy()
        covariance[:3, :3] += ctf_search.spread(rings, best, fit_phase_shift=fit_phase_shift)
        best = replace(best, covariance=covariance)
    left = replace(rings, flat=rings.flat - best.model)
    beside = [math.sqrt(max(0.0, ctf_fit.fit_envelope(left, other.defocus)[1])) for other in others]
    return best, _Rival(max((other.score for other in others), default=0.0), max(beside, default=0.0))


def check_parameters(parameters: CtfParameters) -> None:
    """Raise `ProcessingError` where the optics or the search range cannot be."""
    p = parameters
    check_voltage(p.voltage_kilovolt)
    wrong = [
        (not _positive(p.pixel_size_angstrom), f"a pixel size of {p.pixel_size_angstrom} Å", "a positive number"),
        (
            not 0 <= p.spherical_aberration_millimeter < 100,
            f"a spherical aberration of {p.spherical_aberration_millimeter} mm",
            "0 to 100 mm",
        ),
        (not 0 <= p.amplitude_contrast < 1, f"an amplitude contrast of {p.amplitude_contrast}", "0 to 1"),
        (
            not 0 < p.max_resolution_angstrom < p.min_resolution_angstrom < math.inf,
            f"a fit band from {p.min_resolution_angstrom} to {p.max_resolution_angstrom} Å",
            "a coarse limit first and a finer one second",
        ),
        (
            not 0 < p.min_defocus_angstrom < p.max_defocus_angstrom <= 1e6,
            f"a defocus range from {p.min_defocus_angstrom} to {p.max_defocus_angstrom} Å",
            "0 < least < largest ≤ 1,000,000",
        ),
        (not math.isfinite(p.phase_shift_degrees), f"a phase shift of {p.phase_shift_degrees}°", "a number"),
    ]
    for is_wrong, found, expected in wrong:
        if is_wrong:
            raise ProcessingError(found, expected=expected, remedy="Correct the session's optics")


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _too_small(image: NDArray[np.generic], parameters: CtfParameters) -> str:
    """Whether too little can be seen in a picture of this size, and why; "" where it is large enough."""
    edge = min(image.shape)
    if edge >= _SMALLEST_EDGE_PIXEL and edge * parameters.pixel_size_angstrom >= _SMALLEST_EDGE_ANGSTROM:
        return ""
    return (
        f"the picture is too small: its shorter side has {edge} pixels or"
        f" {edge * parameters.pixel_size_angstrom:.0f} Å, {_SMALLEST_EDGE_PIXEL} pixels and"
        f" {_SMALLEST_EDGE_ANGSTROM:.0f} Å are needed"
    )


def _unusable(image: NDArray[np.generic], extent: Extent) -> str:
    """Why no spectrum can be had of this picture; "" where one can."""
    if not extent.is_finite:
        bad = int(np.size(image) - np.count_nonzero(np.isfinite(np.asarray(image, dtype=np.float64))))
        return f"{bad} pixels of the picture are not finite numbers"
    if extent.highest <= extent.lowest:
        return "the picture is blank: every pixel has the same value"
    return ""


def _unusable_spectrum(amplitudes: NDArray[np.generic], parameters: CtfParameters) -> str:
    """Why nothing can be fitted to these amplitudes; "" where something can."""
    edge = min(amplitudes.shape)
    if edge < _SMALLEST_EDGE_PIXEL:
        return f"the spectrum is too small: its shorter side has {edge} cells, {_SMALLEST_EDGE_PIXEL} are needed"
    lowest, highest = float(amplitudes.min()), float(amplitudes.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return "the spectrum holds values that are not finite numbers"
    if lowest < 0:
        return f"the spectrum holds {lowest:.3g}: amplitudes are not negative"
    if highest <= lowest:
        return "the spectrum is blank: every cell has the same value"
    rings = _band(parameters, 1 / (edge * parameters.pixel_size_angstrom)).rings
    return _few(rings) if rings < _FEWEST_RINGS_OF_BAND else ""


def _judge(
    parameters: CtfParameters,
    rings: ctf_fit.Rings,
    polar: spectrum.PolarSpectrum,
    refined: ctf_fit.Refinement,
    rival: _Rival,
    profile: ctf_report.Profile,
    off_centre_per_angstrom: float,
) -> CtfResult:
    """The result with its verdict: the first doubt that holds is the reason."""
    defocus = refined.defocus
    resolution = ctf_report.fit_resolution_angstrom(profile, parameters.min_resolution_angstrom)
    uncertainty = ctf_report.uncertainty_angstrom(refined, off_centre_per_angstrom)
    largest = _LARGEST_UNCERTAINTY_WITH_PHASE_ANGSTROM if parameters.fit_phase_shift else _LARGEST_UNCERTAINTY_ANGSTROM
    band = np.array([1 / parameters.min_resolution_angstrom, 1 / resolution])
    phases = rings.lens.phase(band, defocus.mean_angstrom)
    count = float(phases[1] - phases[0]) / math.pi
    doubts = [
        (
            refined.score < _LOWEST_SCORE,
            f"no rings stand out from the noise: score {refined.score:.1f}, {_LOWEST_SCORE:g} needed",
        ),
        (
            rival.beside > max(_LOWEST_SCORE, _HIGHEST_BESIDE * refined.score),
            f"another defocus fits what this one leaves: score {rival.beside:.1f} beside {refined.score:.1f},"
            " as of two ring systems",
        ),
        (
            refined.score**2 - rival.score**2 < _LEAST_LEAD or rival.score > _HIGHEST_RIVAL * refined.score,
            f"another defocus fits nearly as well: score {rival.score:.1f} against {refined.score:.1f}",
        ),
        (
            refined.weakest_score < _LOWEST_WITHOUT_A_RING,
            f"one ring alone makes the fit: score {refined.weakest_score:.1f} without it,"
            f" {_LOWEST_WITHOUT_A_RING:g} needed",
        ),
        (
            not parameters.min_defocus_angstrom <= defocus.mean_angstrom <= parameters.max_defocus_angstrom,
            f"the fit left the range of {parameters.min_defocus_angstrom:.0f} to"
            f" {parameters.max_defocus_angstrom:.0f} Å",
        ),
        (not refined.converged, "the refinement did not come to rest"),
        (count < _FEWEST_RINGS, f"only {max(count, 0):.1f} rings agree with the fit, {_FEWEST_RINGS:g} needed"),
        (
            uncertainty > largest,
            f"the defocus is known to {uncertainty:.0f} Å only, {largest:.0f} Å needed"
            + (" where a phase shift is fitted too" if parameters.fit_phase_shift else ""),
        ),
    ]
    # Rings that are not there are not taken away.
    waves = -refined.envelope * np.cos(2 * rings.phase(defocus)) * (refined.score >= _LOWEST_SCORE)
    reason = next((text for holds, text in doubts if holds), "")
    shift = math.degrees(defocus.phase_radian) if parameters.fit_phase_shift else 0.0
    return CtfResult(
        defocus_u_angstrom=defocus.u_angstrom,
        defocus_v_angstrom=defocus.v_angstrom,
        defocus_angle_degrees=defocus.angle_degrees,
        phase_shift_degrees=fitted_phase_shift(parameters.phase_shift_degrees + shift)
        if parameters.fit_phase_shift
        else parameters.phase_shift_degrees,
        score=refined.score,
        fit_resolution_angstrom=resolution,
        ice_ring_density=ctf_report.ice_ring_density(polar, waves),
        uncertainty_angstrom=uncertainty,
        trustworthy=not reason,
        reason=reason,
    )


def fitted_phase_shift(degrees: float) -> float:
    """A phase shift that a spectrum tells, which knows it but for whole turns of 180°: the one in [−20, 160).

    A fit of no phase plate ends a little below 0 as often as above. Just below 180 instead, it would give the
    micrograph's particles the opposite contrast.
    """
    return (degrees - _LEAST_PHASE_SHIFT_DEGREES) % 180.0 % 180.0 + _LEAST_PHASE_SHIFT_DEGREES


def _no_fit(reason: str) -> CtfFit:
    """A fit of nothing: zeros, no arrays, and the reason."""
    empty = np.zeros(0, dtype=np.float32)
    return CtfFit(
        result=CtfResult(
            defocus_u_angstrom=0.0,
            defocus_v_angstrom=0.0,
            defocus_angle_degrees=0.0,
            phase_shift_degrees=0.0,
            score=0.0,
            fit_resolution_angstrom=0.0,
            ice_ring_density=0.0,
            uncertainty_angstrom=0.0,
            trustworthy=False,
            reason=reason,
        ),
        diagnostic=np.zeros((0, 0), dtype=np.float32),
        profile_frequency_per_angstrom=empty,
        profile_measured=empty,
        profile_fitted=empty,
        profile_agreement=empty,
    )

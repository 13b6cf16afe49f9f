"""The tilt of a specimen: a planted gradient of defocus comes back, and none where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from planted_ctf import planted_ctf

from coldchain.kernels.ctf import CtfParameters, fit_ctf
from coldchain.simulate.movie import simulate_movie
from coldchain.simulate.specimen import generate_specimen
from coldchain.simulate.truth import MovieParameters

SIDE, PIXEL = 900, 1.7
MEAN, ASTIGMATISM, ANGLE = 18000.0, 600.0, 40.0


def _tilted(tilt_degrees: float, axis_degrees: float, seed: int, levels: int = 24) -> NDArray[np.float32]:
    """A white specimen; every place is blended from the pictures of the two defoci next to its own."""
    random = np.random.default_rng(seed)
    places = (np.arange(SIDE) - 0.5 * (SIDE - 1)) * PIXEL
    # The defocus grows at right angles to the axis.
    steepest = np.radians(axis_degrees - 90)
    slope = np.tan(np.radians(tilt_degrees))
    higher = slope * (places * np.cos(steepest) + places[:, np.newaxis] * np.sin(steepest))
    grid = np.linspace(higher.min(), higher.max() + 1, levels)
    specimen = np.fft.rfft2(random.standard_normal((SIDE, SIDE)))
    x, y = np.fft.rfftfreq(SIDE, PIXEL), np.fft.fftfreq(SIDE, PIXEL)[:, np.newaxis]
    specimen *= np.exp(-30 * (x**2 + y**2))
    signal = np.zeros((SIDE, SIDE))
    for level in grid:
        share = np.clip(1 - np.abs(higher - level) / (grid[1] - grid[0]), 0, 1)
        u, v = MEAN + 0.5 * ASTIGMATISM + level, MEAN - 0.5 * ASTIGMATISM + level
        signal += share * np.fft.irfft2(specimen * planted_ctf((SIDE, SIDE), PIXEL, u, v, ANGLE), (SIDE, SIDE))
    signal *= np.sqrt(0.3) / signal.std()
    return (signal + random.standard_normal((SIDE, SIDE))).astype(np.float32)


@pytest.mark.parametrize(("tilt", "axis"), [(20.0, 30.0), (30.0, 120.0), (40.0, 160.0)])
def test_a_planted_tilt_comes_back(tilt: float, axis: float) -> None:
    """Within 4° and its axis within 8°; the defocus is that of the picture's centre."""
    fit = fit_ctf(_tilted(tilt, axis, seed=int(axis)), CtfParameters(PIXEL, 300.0, 2.7, tilt=True))
    found = f"{fit.tilt_degrees:.1f}° about {fit.tilt_axis_degrees:.1f}°, {fit.result}"
    assert fit.tilt_uncertainty_degrees is not None
    assert abs(fit.tilt_degrees - tilt) <= fit.tilt_uncertainty_degrees <= 4, found
    assert abs((fit.tilt_axis_degrees - axis + 90) % 180 - 90) <= 8, found
    assert fit.result.trustworthy, found
    assert abs(0.5 * (fit.result.defocus_u_angstrom + fit.result.defocus_v_angstrom) - MEAN) <= 60, found


def test_an_untilted_picture_has_no_tilt() -> None:
    """And the fit is that of a flat specimen."""
    picture, parameters = _tilted(0.0, 0.0, seed=4, levels=2), CtfParameters(PIXEL, 300.0, 2.7, tilt=True)
    fit = fit_ctf(picture, parameters)
    assert (fit.tilt_degrees, fit.tilt_axis_degrees) == (0, 0)
    assert fit.tilt_uncertainty_degrees == pytest.approx(3, abs=2)
    assert fit.result == fit_ctf(picture, replace(parameters, tilt=False)).result


@pytest.mark.parametrize("seed", range(6))
def test_a_flat_specimen_at_a_low_dose_has_no_tilt(seed: int) -> None:
    """However few its tiles and faint its rings, and with a phase shift to be fitted."""
    optics = MovieParameters(
        frames=2,
        dose_per_frame_e_per_square_angstrom=(20.0, 10.0, 5.0, 3.0, 8.0, 15.0)[seed],
        pixel_size_angstrom=(1.06, 0.8, 1.4)[seed % 3],
        defocus_u_angstrom=9000.0 + 3000 * seed,
        defocus_v_angstrom=8700.0 + 3000 * seed,
        drift_angstrom=0.0,
        seed=seed,
    )
    frames = simulate_movie(optics, generate_specimen(seed=seed, diameter_angstrom=110.0)).frames
    picture = frames.sum(axis=0, dtype=np.float32)
    parameters = CtfParameters(optics.pixel_size_angstrom, 300.0, 2.7, fit_phase_shift=seed % 2 == 1)
    fit, flat = fit_ctf(picture, replace(parameters, tilt=True)), fit_ctf(picture, parameters)
    assert fit.tilt_degrees == 0, fit
    assert fit.result == flat.result
    assert (fit.tilt_uncertainty_degrees is not None) == flat.result.trustworthy


def test_the_tilt_of_noise_is_not_believed() -> None:
    """A picture of noise has no tilt that anybody is asked to trust; a picture of one tile has none at all."""
    noise = np.random.default_rng(0).standard_normal((768, 768)).astype(np.float32)
    assert not fit_ctf(noise, CtfParameters(PIXEL, 300.0, 2.7, tilt=True)).result.trustworthy
    assert fit_ctf(noise[:260, :260], CtfParameters(PIXEL, 300.0, 2.7, tilt=True)).tilt_degrees == 0

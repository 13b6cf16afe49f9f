"""The tilt of a specimen: a planted gradient of defocus comes back, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from planted_ctf import planted_ctf

from coldchain.kernels.ctf import CtfParameters, fit_ctf

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
    assert abs(fit.tilt_degrees - tilt) <= 4, found
    assert abs((fit.tilt_axis_degrees - axis + 90) % 180 - 90) <= 8, found
    assert fit.result.trustworthy, found
    assert abs(0.5 * (fit.result.defocus_u_angstrom + fit.result.defocus_v_angstrom) - MEAN) <= 60, found


def test_an_untilted_picture_has_no_tilt() -> None:
    """Less than 2°."""
    fit = fit_ctf(_tilted(0.0, 0.0, seed=4, levels=2), CtfParameters(PIXEL, 300.0, 2.7, tilt=True))
    assert fit.tilt_degrees < 2


def test_the_tilt_of_noise_is_not_believed() -> None:
    """A picture of noise has no tilt that anybody is asked to trust; a picture of one tile has none at all."""
    noise = np.random.default_rng(0).standard_normal((768, 768)).astype(np.float32)
    assert not fit_ctf(noise, CtfParameters(PIXEL, 300.0, 2.7, tilt=True)).result.trustworthy
    assert fit_ctf(noise[:260, :260], CtfParameters(PIXEL, 300.0, 2.7, tilt=True)).tilt_degrees == 0

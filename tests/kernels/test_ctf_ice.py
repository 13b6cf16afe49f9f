"""Crystalline ice and carbon: seen, not taken for rings of the lens, and no reason to be wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from planted_ctf import micrograph, planted_ctf

from coldchain.kernels.ctf import CtfParameters, fit_ctf

SHAPE, PIXEL = (1024, 1024), 1.1
TOLD = CtfParameters(PIXEL, 300.0, 2.7)
ICE_RINGS_ANGSTROM = (3.90, 3.67, 3.44)  # of hexagonal ice: 100, 002 and 101


def _picture(mean: float, astigmatism: float, signal_to_noise: float, seed: int) -> NDArray[np.float32]:
    u, v = mean + 0.5 * astigmatism, mean - 0.5 * astigmatism
    ctf = planted_ctf(SHAPE, PIXEL, u, v, 30)
    return micrograph(SHAPE, PIXEL, ctf, signal_to_noise=signal_to_noise, seed=seed, bfactor_square_angstrom=30.0)


def _frequency() -> NDArray[np.float64]:
    return np.asarray(np.hypot(np.fft.fftfreq(SHAPE[0], PIXEL)[:, None], np.fft.rfftfreq(SHAPE[1], PIXEL)[None, :]))


@pytest.mark.parametrize("mean", [6000.0, 9000.0, 14000.0, 27000.0])
def test_strong_rings_of_the_lens_are_no_ice(mean: float) -> None:
    """Whatever ring lies at 3.7 Å, the density of a picture without ice is 1 within a tenth."""
    result = fit_ctf(_picture(mean, 300, 2.0, seed=1), TOLD).result
    assert result.trustworthy, result
    assert result.ice_ring_density == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spots", [False, True])
def test_crystalline_ice_is_seen_and_the_defocus_right_or_doubted(seed: int, spots: bool) -> None:
    """Rings of powder, or spots of a few crystals, at hexagonal ice's spacings: density tells, the defocus holds."""
    random = np.random.default_rng([4, seed])
    mean = random.uniform(8000, 25000)
    picture = _picture(mean, 400, 0.3, seed)
    transform, k = np.fft.rfft2(picture), _frequency()
    clean = fit_ctf(picture, TOLD).result
    for spacing in ICE_RINGS_ANGSTROM:
        ring = np.abs(k - 1 / spacing) < 0.0015
        if spots:
            places = np.argwhere(ring)[random.integers(0, np.count_nonzero(ring), 12)]
            transform[tuple(places.T)] *= 60.0
        else:
            transform[ring] *= 4.0
    icy = fit_ctf(np.fft.irfft2(transform, SHAPE), TOLD).result
    off = 0.5 * (icy.defocus_u_angstrom + icy.defocus_v_angstrom) - mean
    assert icy.ice_ring_density > 1.3 * clean.ice_ring_density, (icy, clean)
    assert not icy.trustworthy or abs(off) <= icy.uncertainty_angstrom, icy


@pytest.mark.parametrize("seed", range(4))
def test_carbon_in_half_of_the_picture_is_right_or_doubted(seed: int) -> None:
    """Half of the picture is carbon, much stronger and 300 Å higher: the defocus lies between, or is doubted."""
    random = np.random.default_rng([6, seed])
    mean = random.uniform(8000, 25000)
    ice, carbon = _picture(mean, 300, 0.1, seed), _picture(mean + 300, 300, 3.0, seed + 10)
    picture = np.where(np.arange(SHAPE[1]) < SHAPE[1] // 2, ice, carbon - 20)
    result = fit_ctf(picture, TOLD).result
    found = 0.5 * (result.defocus_u_angstrom + result.defocus_v_angstrom)
    slack = result.uncertainty_angstrom
    assert not result.trustworthy or mean - slack <= found <= mean + 300 + slack, (mean, result)

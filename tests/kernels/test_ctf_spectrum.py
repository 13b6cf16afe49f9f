"""Spectra in rings and sectors: as the plain formula gives them, with their samples; fitted like pictures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from planted_ctf import micrograph, planted_ctf

from coldchain.errors import ProcessingError
from coldchain.kernels import spectrum
from coldchain.kernels.ctf import CtfParameters, fit_ctf_spectrum
from coldchain.kernels.fourier import rfft2
from coldchain.kernels.spectrum import Band
from coldchain.kernels.sums import amplitude_spectrum

BAND = Band(1 / 30, 1 / 3, 1 / 300, 60)
TOLD = CtfParameters(1.4, 300.0, 2.7)


def _amplitudes(picture: NDArray[np.float32], pixel_size_angstrom: float) -> tuple[NDArray[np.float32], float]:
    shape = (picture.shape[0], picture.shape[1])
    return amplitude_spectrum(rfft2(picture), shape, pixel_size_angstrom, pixel_size_angstrom)


@pytest.mark.parametrize("shape", [(360, 300), (301, 256), (256, 347)])
@pytest.mark.parametrize("threads", [1, 3])
def test_bins_hold_the_waves_of_their_ring_and_sector(shape: tuple[int, int], threads: int) -> None:
    """Every wave inside the band goes into the bin that its own frequency and azimuth name, by plain formulas."""
    image = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    found = spectrum.of_picture(image, 1.2, BAND, threads)
    rows, columns = (spectrum.good_size(length, even=True) for length in shape)
    tapers = [spectrum._taper(length) for length in shape]
    tapered = (image - image.mean()) * np.outer(*tapers)
    power = np.abs(np.fft.fft2(tapered, (rows, columns))) ** 2
    y, x = np.meshgrid(np.fft.fftfreq(rows, 1 / rows), np.fft.fftfreq(columns, 1 / columns), indexing="ij")
    k = np.hypot(y / (rows * 1.2), x / (columns * 1.2))
    azimuth = np.arctan2(y / rows, x / columns)
    use = (x > 2) & (np.abs(y) > 2) & (k >= 1 / 30)
    ring = ((k - 1 / 30) * 300 + 1e-9).astype(int)
    sector = np.minimum(((azimuth % np.pi) * 60 / np.pi).astype(int), 59)
    use &= ring < BAND.rings
    count = np.zeros((60, BAND.rings))
    total = np.zeros((60, BAND.rings))
    np.add.at(count, (sector[use], ring[use]), 1)
    np.add.at(total, (sector[use], ring[use]), power[use])
    worth = math.prod(np.sum(w**2) ** 2 / np.sum(w**4) for w in tapers) / (rows * columns)
    seen = found.samples / worth
    # A wave on the very border of two bins may fall on either side.
    assert np.abs(seen - count).sum() <= 0.01 * count.sum()
    whole = (count > 0) & (np.abs(seen - count) < 0.5)
    ratio = (found.power[whole] / found.power[whole].mean()) / (
        total[whole] / count[whole] / (total[whole] / count[whole]).mean()
    )
    assert np.mean(np.abs(ratio - 1) < 1e-3) > 0.98


@pytest.mark.parametrize("side", [1024, 1400, 2048])
def test_the_samples_of_a_cell_are_seen_from_the_spectrum(side: int) -> None:
    """Of white noise in cells of so many waves: the estimate is that number within a tenth."""
    noise = np.random.default_rng(1).standard_normal((side, side)).astype(np.float32)
    amplitudes, pixel = _amplitudes(noise, 1.4)
    band = Band(1 / 30, 1 / 3, 1 / (512 * 1.4), 60)
    found = spectrum.of_amplitudes(amplitudes, pixel, band)
    half = np.argwhere(found.samples > 0)
    cells = spectrum.of_amplitudes(np.ones_like(amplitudes) + np.eye(512), pixel, band)
    worth = found.samples.sum() / (cells.samples.sum() / cells.samples[cells.samples > 0].min())
    assert len(half)
    assert worth == pytest.approx((side / 512) ** 2, rel=0.1)


@pytest.mark.parametrize("case", range(4))
def test_a_spectrum_gives_the_defocus_that_its_picture_has(case: int) -> None:
    """Planted truth comes back from the 512 × 512 amplitudes within what is stated, the azimuth not mirrored."""
    random = np.random.default_rng([5, case])
    pixel, mean, astigmatism = random.uniform(0.9, 1.3), random.uniform(8000, 25000), random.uniform(400, 1500)
    angle = random.uniform(0, 180)
    u, v = mean + astigmatism / 2, mean - astigmatism / 2
    ctf = planted_ctf((1400, 1500), pixel, u, v, angle)
    picture = micrograph((1400, 1500), pixel, ctf, signal_to_noise=0.2, seed=case)
    amplitudes, spectrum_pixel = _amplitudes(picture, pixel)
    result = fit_ctf_spectrum(amplitudes, replace(TOLD, pixel_size_angstrom=spectrum_pixel)).result
    planted = f"planted {u:.0f}/{v:.0f} at {angle:.0f}°, found {result}"
    assert result.trustworthy, planted
    assert abs(0.5 * (result.defocus_u_angstrom + result.defocus_v_angstrom) - mean) <= 40, planted
    assert abs(result.defocus_u_angstrom - u) <= result.uncertainty_angstrom, planted
    assert abs(result.defocus_v_angstrom - v) <= result.uncertainty_angstrom, planted
    assert abs((result.defocus_angle_degrees - angle + 90) % 180 - 90) <= 5, planted


def test_a_spectrum_of_noise_is_not_trusted() -> None:
    """Amplitudes of white noise give no trust, and a reason."""
    for seed in range(12):
        noise = np.random.default_rng([9, seed]).standard_normal((1024, 900)).astype(np.float32)
        amplitudes, pixel = _amplitudes(noise, 1.2)
        result = fit_ctf_spectrum(amplitudes, replace(TOLD, pixel_size_angstrom=pixel)).result
        assert not result.trustworthy
        assert result.reason


@pytest.mark.parametrize(
    ("amplitudes", "word"),
    [
        (np.zeros((512, 512), dtype=np.float32), "blank"),
        (np.full((512, 512), np.nan, dtype=np.float32), "finite"),
        (np.full((512, 512), -1.0, dtype=np.float32) * np.arange(512), "negative"),
        (np.ones((64, 64), dtype=np.float32), "too small"),
        (np.eye(512, dtype=np.float32), "empty"),
        (np.eye(512, dtype=np.uint8), "empty"),
    ],
)
def test_spectra_without_rings_say_why(amplitudes: NDArray[np.generic], word: str) -> None:
    """What is no spectrum of amplitudes is no exception but a reason."""
    result = fit_ctf_spectrum(amplitudes, TOLD).result
    assert not result.trustworthy
    assert word in result.reason


def test_a_stack_is_no_spectrum() -> None:
    """Three dimensions are a stated error."""
    with pytest.raises(ProcessingError, match="3 dimensions"):
        fit_ctf_spectrum(np.zeros((2, 512, 512)), TOLD)

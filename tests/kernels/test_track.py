"""Phases shift exactly, and weak frames are placed by their neighbours too."""

from __future__ import annotations

import numpy as np
import pytest

from coldchain.kernels.align import AlignmentParameters, align_movie
from coldchain.kernels.fourier import irfft2, rfft2
from coldchain.kernels.track import shift_phases

T = np.arange(40.0)
PATH = 8 * (1 - np.exp(-T / 6)) + 0.05 * T


@pytest.mark.parametrize("shape", [(16, 20), (15, 21), (16, 21), (1, 8)])
def test_phases_shift_a_wave_exactly_and_whole_pixels_to_the_bit(shape: tuple[int, int]) -> None:
    """image(X + shift): whole pixels are a roll, fractions move a wave by that fraction, and the result stays real."""
    rng = np.random.default_rng(1)
    image = rng.normal(size=shape)
    y_phases, x_phases = shift_phases(shape, -3.0, 2.0)
    moved = irfft2(rfft2(image) * np.outer(y_phases, x_phases), shape)
    np.testing.assert_allclose(moved, np.roll(image, (3, -2), axis=(0, 1)), atol=1e-5)
    x = np.arange(shape[1])
    wave = np.broadcast_to(np.cos(2 * np.pi * x / shape[1]), shape).astype(np.float64)
    y_phases, x_phases = shift_phases(shape, 0.3, 0.4)
    moved = irfft2(rfft2(wave) * np.outer(y_phases, x_phases), shape)
    np.testing.assert_allclose(moved, np.broadcast_to(np.cos(2 * np.pi * (x + 0.4) / shape[1]), shape), atol=1e-5)


def test_frames_of_a_tenth_of_an_electron_are_placed_by_their_neighbours_too() -> None:
    """Forty frames too weak for half a pixel each give a track within a pixel."""
    rng = np.random.default_rng(3)
    shape = (512, 512)
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)) / 1.06
    decay = np.exp(-50 * frequency**2) / (1 + (60 * frequency) ** 2)
    texture = np.fft.irfft2(np.fft.rfft2(rng.normal(size=shape)) * decay, shape)
    transform = np.fft.rfft2(0.1 * texture / texture.std())
    ky, kx = np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)
    frames = np.stack(
        [
            rng.poisson(0.1 * (1 + np.fft.irfft2(transform * np.exp(-2j * np.pi * s * (ky - kx)), shape)).clip(0))
            for s in PATH
        ]
    ).astype(np.uint8)
    result = align_movie(frames, gain=None, defects=None, parameters=AlignmentParameters(1.06, 300.0))
    error_y, error_x = result.motion.shift_y_pixel - PATH, result.motion.shift_x_pixel + PATH
    assert np.sqrt(error_y.var() + error_x.var()) < 1.0

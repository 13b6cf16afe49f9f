"""A path is made as smooth as it shows itself to be, and weak frames say how far they can be trusted."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from coldchain.kernels.align import AlignmentParameters, align_movie
from coldchain.kernels.fourier import irfft2, rfft2
from coldchain.kernels.track import shift_phases, smooth_path

T = np.arange(40.0)
PATH = 8 * (1 - np.exp(-T / 6)) + 0.05 * T


def distance(y: NDArray[np.float64], x: NDArray[np.float64]) -> float:
    """Root mean square distance of a path from the planted one."""
    return float(np.sqrt(np.mean((y - PATH) ** 2 + (x + PATH) ** 2)))


@pytest.mark.parametrize(("noise", "left"), [(0.03, 0.8), (0.3, 0.67), (1.0, 0.67)])
def test_smoothing_takes_noise_out_and_knows_what_is_left(noise: float, left: float) -> None:
    """The error falls, by a third where noise hides the path's own bends, and is what the smoother says, to a third."""
    before, after, said = [], [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y, x = PATH + noise * rng.normal(size=40), -PATH + noise * rng.normal(size=40)
        smooth_y, smooth_x, error = smooth_path(y, x)
        before.append(distance(y, x))
        after.append(distance(smooth_y, smooth_x))
        said.append(error)
    assert np.mean(after) < left * np.mean(before)
    assert np.mean(said) == pytest.approx(np.mean(after), rel=0.34)


def test_smoothing_keeps_a_path_without_noise_and_the_first_jump() -> None:
    """A smooth path stays, with a jump of 10 pixels after its first frame, to a tenth of a pixel."""
    jumped = PATH.copy()
    jumped[0] -= 10
    y, x, _ = smooth_path(jumped, -PATH)
    np.testing.assert_allclose(y, jumped, atol=0.1)
    np.testing.assert_allclose(x, -PATH, atol=0.1)


def test_too_few_places_are_not_smoothed() -> None:
    """Seven frames stay where they were put."""
    y = np.random.default_rng(0).normal(size=7)
    assert smooth_path(y, y)[0] is y


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
    error_y, error_x = result.shift_y_pixel - PATH, result.shift_x_pixel + PATH
    assert np.sqrt(error_y.var() + error_x.var()) < 1.0

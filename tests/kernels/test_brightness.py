"""Brightness tells how much of the beam came through, and how evenly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coldchain.kernels.brightness import measure_brightness

PIXEL = 2.0
DOSE = 40.0


def picture(thickness: np.ndarray, seed: int = 0) -> np.ndarray:
    """Electrons of a picture through ice of that thickness, in mean free paths."""
    return np.random.default_rng(seed).poisson(DOSE * PIXEL**2 * np.exp(-thickness)).astype(np.float32)


@pytest.mark.parametrize("planted", [0.0, 0.1, 0.5])
def test_transmission_is_what_the_ice_lets_through(planted: float) -> None:
    """I/I₀ = exp(−t/λ), to a thousandth."""
    found = measure_brightness(picture(np.full((1024, 1000), planted)), PIXEL, DOSE)
    assert found.transmission == pytest.approx(math.exp(-planted), rel=1e-3)
    assert found.unevenness == pytest.approx(0.0, abs=2e-3)


def test_a_corner_of_carbon_changes_the_unevenness_and_not_the_transmission() -> None:
    """The median is that of the ice; the edge shows in the spread."""
    thickness = np.full((1024, 1024), 0.1)
    thickness[:400, :400] = 1.0
    found = measure_brightness(picture(thickness), PIXEL, DOSE)
    assert found.transmission == pytest.approx(math.exp(-0.1), rel=0.01)
    assert found.unevenness is not None
    assert found.unevenness > 0.25


def test_unevenness_is_the_spread_of_the_thickness() -> None:
    """A wedge from 0 to 0.4 mean free paths has a standard deviation of 0.4/√12."""
    wedge = np.broadcast_to(np.linspace(0, 0.4, 2048), (1024, 2048))
    found = measure_brightness(picture(wedge), PIXEL, None)
    assert found.unevenness == pytest.approx(0.4 / math.sqrt(12), rel=0.05)
    assert found.transmission == pytest.approx(DOSE * math.exp(-0.2), rel=0.02)  # e⁻/Å², where no dose is known


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64)),
        np.full((64, 64), np.nan),
        np.random.default_rng(0).normal(0, 1, (64, 64)) - 10,
        np.ones((2, 2)),
        np.ones((4, 4, 4)),
        np.full((64, 64), np.inf),
    ],
)
def test_what_has_no_electrons_tells_nothing(image: np.ndarray) -> None:
    """Blank, normalised, not a number, far too small: None, and no warning."""
    found = measure_brightness(image, 1.0, DOSE)
    assert found.transmission is None
    assert found.unevenness is None

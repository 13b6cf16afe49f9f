"""The simulator's optics against published numbers and plain formulae."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coldchain import units
from coldchain.errors import UsageError
from coldchain.simulate import optics
from coldchain.simulate.optics import Lens


def lens(**changes: float) -> Lens:
    """A round lens of 1.5 µm underfocus at 300 kV, but for the changes."""
    values = {
        "voltage_kilovolt": 300.0,
        "spherical_aberration_millimeter": 2.7,
        "amplitude_contrast": 0.1,
        "defocus_u_angstrom": 15000.0,
        "defocus_v_angstrom": 15000.0,
        "defocus_angle_degrees": 0.0,
    }
    return Lens(**{**values, **changes})


@pytest.mark.parametrize(("voltage", "published"), [(100, 0.0370144), (200, 0.0250793), (300, 0.0196875)])
def test_wavelength_is_the_published_one(voltage: float, published: float) -> None:
    """The wavelengths are those of the tables, and those of the package's other formula."""
    assert optics.wavelength_angstrom(voltage) == pytest.approx(published, rel=1e-5)
    assert optics.wavelength_angstrom(voltage) == pytest.approx(units.electron_wavelength_angstrom(voltage), rel=1e-6)


@pytest.mark.parametrize(("voltage", "sigma"), [(100, 0.9244e-3), (200, 0.7288e-3), (300, 0.6526e-3)])
def test_interaction_is_that_of_the_tables(voltage: float, sigma: float) -> None:
    """γλ is the tabulated interaction constant (rad/(V Å)) times 47.878 V Å², a scattering factor's potential."""
    assert optics.interaction_radian_angstrom(voltage) == pytest.approx(sigma * 47.878, rel=2e-3)


def test_zeros_lie_where_the_formula_puts_them() -> None:
    """Without spherical aberration and amplitude contrast the n-th zero is at k = √(n / λΔf)."""
    plain = lens(spherical_aberration_millimeter=0, amplitude_contrast=0)
    zeros = np.sqrt(np.arange(1, 6) / (0.0196875 * 15000))
    assert np.abs(plain.transfer(zeros, np.zeros(5))).max() < 1e-4
    between = 0.5 * (zeros[1:] + zeros[:-1])
    assert np.abs(plain.transfer(between, np.zeros(4))).min() > 0.9


def test_underfocus_makes_low_frequencies_negative_and_overfocus_positive() -> None:
    """Protein is dark at positive defocus; at zero frequency there is the amplitude contrast."""
    low, zero = np.array([0.02]), np.array([0.0])
    assert lens().transfer(low, zero)[0] < 0
    assert lens(defocus_u_angstrom=-15000, defocus_v_angstrom=-15000).transfer(low, zero)[0] > 0
    assert lens().transfer(zero, zero)[0] == pytest.approx(-0.1)


@pytest.mark.parametrize("angle", [0.0, 27.0, 90.0, 133.0])
def test_astigmatism_has_u_along_its_azimuth_and_v_across_it(angle: float) -> None:
    """Along the azimuth, counted from x towards y, the lens is one of defocus U; across it one of V."""
    astigmatic = lens(defocus_u_angstrom=18000, defocus_v_angstrom=15000, defocus_angle_degrees=angle)
    k = np.linspace(0, 0.3, 50)
    for turn, defocus in ((0, 18000), (90, 15000), (180, 18000)):
        azimuth = math.radians(angle + turn)
        round_lens = lens(defocus_u_angstrom=defocus, defocus_v_angstrom=defocus)
        found = astigmatic.transfer(k * math.cos(azimuth), k * math.sin(azimuth))
        assert np.allclose(found, round_lens.transfer(k, np.zeros(50)), atol=1e-9)


def test_a_phase_plate_adds_its_phase() -> None:
    """A phase shift of 90° turns the sine into a cosine."""
    k = np.linspace(0, 0.2, 30)
    none = lens(amplitude_contrast=0).aberration_radian(k, np.zeros(30))
    plate = lens(amplitude_contrast=0, phase_shift_degrees=90).transfer(k, np.zeros(30))
    assert np.allclose(plate, -np.cos(none))


def test_critical_exposure_is_the_published_curve() -> None:
    """At 10 Å and 300 kV an exposure of 14.1 e/Å² leaves 1/e of the power, at 200 kV 0.8 of that."""
    k = np.array([0.1])
    at_300 = optics.critical_exposure(k, 300)[0]
    assert at_300 == pytest.approx(0.245 * 0.1**-1.665 + 2.81)
    assert at_300 == pytest.approx(14.14, abs=0.01)
    assert optics.critical_exposure(k, 200)[0] == pytest.approx(0.8 * at_300)
    assert np.exp(-2 * optics.decay_rate(k, 300)[0] * at_300) == pytest.approx(1 / math.e)
    assert optics.decay_rate(np.array([0.0]), 300)[0] == 0


def test_shift_phases_move_an_image_towards_growing_indices() -> None:
    """A point at row 5, column 7 displaced by (+3 Å, −2 Å) of 1 Å pixels is at row 3, column 10."""
    image = np.zeros((16, 32), dtype=np.float32)
    image[5, 7] = 1
    kx, ky = optics.half_plane(image.shape, 1.0)
    along_x, along_y = optics.shift_phases(kx, ky, 3.0, -2.0)
    moved = np.fft.irfft2(np.fft.rfft2(image) * along_x * along_y, image.shape)
    assert np.unravel_index(moved.argmax(), moved.shape) == (3, 10)
    assert moved.max() == pytest.approx(1, abs=1e-5)


def test_impossible_lenses_are_refused() -> None:
    """V above U and an amplitude contrast beyond 1 are said, with what was expected."""
    with pytest.raises(UsageError, match="U ≥ V"):
        lens(defocus_v_angstrom=16000)
    with pytest.raises(UsageError, match="amplitude contrast"):
        lens(amplitude_contrast=1.5)

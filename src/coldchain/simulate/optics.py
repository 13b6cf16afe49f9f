"""How electrons make an image of a thin specimen: interaction, contrast transfer, damage. Formulae only.

Conventions: spatial frequencies in 1/Å; kx runs along columns and ky along rows, towards growing indices; azimuths are
counted from x towards y. All half-plane arrays have the shape of `scipy.fft.rfft2`: (rows, columns // 2 + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import UsageError

_ELECTRON_REST_ENERGY_KILOVOLT = 510.99895
_WAVELENGTH_CONSTANT = 12.2642598  # h / sqrt(2 m e), in Å V^½
_RELATIVISTIC_CONSTANT = 0.97847557e-6  # e / (2 m c²), in 1/V
_MILLIMETER_IN_ANGSTROM = 1e7


def wavelength_angstrom(voltage_kilovolt: float) -> float:
    """The relativistic wavelength, λ = 12.264 / √(V (1 + 0.9785·10⁻⁶ V)) with V in volts."""
    volt = voltage_kilovolt * 1e3
    return _WAVELENGTH_CONSTANT / math.sqrt(volt * (1 + _RELATIVISTIC_CONSTANT * volt))


def interaction_radian_angstrom(voltage_kilovolt: float) -> float:
    """What turns a scattering factor into phase: φ(r) = γ λ Σ f δ(r), with f = f_e(0) in Å and δ in 1/Å².

    It is the usual σ·∫V dz, since an atom's integrated potential is h²/(2π m e) f_e(0) and σ = 2π γ m e λ / h²
    (Kirkland, Advanced Computing in Electron Microscopy, 2010, doi:10.1007/978-1-4419-6533-2).
    """
    lorentz_factor = 1 + voltage_kilovolt / _ELECTRON_REST_ENERGY_KILOVOLT
    return lorentz_factor * wavelength_angstrom(voltage_kilovolt)


def half_plane(shape: tuple[int, int], pixel_size_angstrom: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies (kx as a row, ky as a column, 1/Å) of a half-plane; they broadcast to (rows, columns // 2 + 1)."""
    rows, columns = shape
    kx = np.asarray(np.fft.rfftfreq(columns, pixel_size_angstrom), dtype=np.float64)
    ky = np.asarray(np.fft.fftfreq(rows, pixel_size_angstrom), dtype=np.float64)
    return kx[np.newaxis, :], ky[:, np.newaxis]


@dataclass(frozen=True, slots=True)
class Lens:
    """An objective lens: defocus U ≥ V in Å (positive is underfocus), azimuth of U in degrees from x towards y."""

    voltage_kilovolt: float
    spherical_aberration_millimeter: float
    amplitude_contrast: float
    defocus_u_angstrom: float
    defocus_v_angstrom: float
    defocus_angle_degrees: float
    phase_shift_degrees: float = 0.0

    def __post_init__(self) -> None:
        if self.defocus_v_angstrom > self.defocus_u_angstrom:
            raise UsageError(
                f"defocus V ({self.defocus_v_angstrom:g} Å) is larger than U ({self.defocus_u_angstrom:g} Å)",
                expected="U ≥ V",
                remedy="Swap them and turn the azimuth by 90°.",
            )
        if not 0 <= self.amplitude_contrast <= 1:
            raise UsageError(f"an amplitude contrast of {self.amplitude_contrast:g}", expected="a value from 0 to 1")

    def aberration_radian(self, kx: NDArray[np.float64], ky: NDArray[np.float64]) -> NDArray[np.float64]:
        """χ(k) = πλΔf(θ)k² − (π/2)Cs λ³k⁴ + phase shift + asin A, with Δf(θ) = ½[U + V + (U − V) cos 2(θ − angle)].

        (Rohou & Grigorieff, J. Struct. Biol. 2015, 192, 216, doi:10.1016/j.jsb.2015.08.008.) The azimuth is not
        evaluated: k² cos 2(θ − a) = (kx² − ky²) cos 2a + 2 kx ky sin 2a.
        """
        wavelength = wavelength_angstrom(self.voltage_kilovolt)
        spherical = self.spherical_aberration_millimeter * _MILLIMETER_IN_ANGSTROM
        azimuth = 2 * math.radians(self.defocus_angle_degrees)
        squared = kx * kx + ky * ky
        astigmatic = (kx * kx - ky * ky) * math.cos(azimuth) + 2 * kx * ky * math.sin(azimuth)
        defocused = 0.5 * (self.defocus_u_angstrom + self.defocus_v_angstrom) * squared
        defocused += 0.5 * (self.defocus_u_angstrom - self.defocus_v_angstrom) * astigmatic
        constant = math.radians(self.phase_shift_degrees) + math.asin(self.amplitude_contrast)
        result: NDArray[np.float64] = (
            math.pi * wavelength * defocused - 0.5 * math.pi * spherical * wavelength**3 * squared**2 + constant
        )
        return result

    def transfer(self, kx: NDArray[np.float64], ky: NDArray[np.float64]) -> NDArray[np.float64]:
        """The contrast transfer function, −sin χ: negative at low frequency in underfocus, so that protein is dark."""
        return -np.sin(self.aberration_radian(kx, ky))


def envelope(squared_frequency: NDArray[np.float64], bfactor_square_angstrom: float) -> NDArray[np.float64]:
    """The amplitude that a B-factor leaves, exp(−B k² / 4)."""
    return np.exp(-0.25 * bfactor_square_angstrom * squared_frequency)


def critical_exposure(frequency: NDArray[np.float64], voltage_kilovolt: float) -> NDArray[np.float64]:
    """The exposure, in e/Å², that leaves 1/e of a frequency's power: 0.245 k^−1.665 + 2.81 at 300 kV, 0.8 of it at 200.

    Measured at 300 and 200 kV (Grant & Grigorieff, eLife 2015, 4:e06980, doi:10.7554/eLife.06980); here linear in the
    voltage between and beyond. Infinite at k = 0.
    """
    with np.errstate(divide="ignore"):
        at_300 = 0.245 * np.power(frequency, -1.665) + 2.81
    scale = 1 + 0.2 * (voltage_kilovolt - 300) / 100
    result: NDArray[np.float64] = at_300 * max(scale, 0.1)
    return result


def decay_rate(frequency: NDArray[np.float64], voltage_kilovolt: float) -> NDArray[np.float64]:
    """a(k) in Å²/e such that exp(−a N) is the amplitude that is left after N electrons per Å²: 1 / (2 Nₑ(k))."""
    result: NDArray[np.float64] = 0.5 / critical_exposure(frequency, voltage_kilovolt)
    return result


def shift_phases(
    kx: NDArray[np.float64], ky: NDArray[np.float64], shift_x_angstrom: float, shift_y_angstrom: float
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """The factors, one a column and one a row, that displace an image by +shift along x and y: exp(−2πi k·s)."""
    along_x = np.exp(-2j * math.pi * kx * shift_x_angstrom).astype(np.complex64)
    along_y = np.exp(-2j * math.pi * ky * shift_y_angstrom).astype(np.complex64)
    return along_x, along_y

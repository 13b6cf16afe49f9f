"""The phase of the contrast transfer function, and what follows from it.

χ(k, θ) = πλΔf(θ)k² − (π/2)Csλ³k⁴ + phase shift + asin(amplitude contrast), CTF = −sin χ, positive Δf is underfocus
(Rohou & Grigorieff, J. Struct. Biol. 2015, 192, 216, doi:10.1016/j.jsb.2015.08.008). Inside the kernels the defocus is
Δf(θ) = mean + cosine · cos 2θ + sine · sin 2θ: three numbers without the angle's ambiguity at zero astigmatism.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coldchain.units import ANGSTROM_PER_MILLIMETER, electron_wavelength_angstrom

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lens:
    """What of the CTF is known beforehand. `offset_radian` is asin(amplitude contrast) + the known phase shift."""

    wavelength_angstrom: float
    spherical_aberration_angstrom: float
    offset_radian: float

    @classmethod
    def of(
        cls,
        voltage_kilovolt: float,
        spherical_aberration_millimeter: float,
        amplitude_contrast: float,
        phase_shift_degrees: float = 0.0,
    ) -> Lens:
        """From the microscope's settings in the units that people use."""
        return cls(
            electron_wavelength_angstrom(voltage_kilovolt),
            spherical_aberration_millimeter * ANGSTROM_PER_MILLIMETER,
            math.asin(amplitude_contrast) + math.radians(phase_shift_degrees),
        )

    def defocus_phase(self, frequency_per_angstrom: Floats) -> Floats:
        """∂χ/∂Δf = πλk², in radians per Å of defocus."""
        return math.pi * self.wavelength_angstrom * frequency_per_angstrom**2

    def constant_phase(self, frequency_per_angstrom: Floats) -> Floats:
        """The part of χ that does not depend on the defocus, in radians."""
        aberration = 0.5 * math.pi * self.spherical_aberration_angstrom * self.wavelength_angstrom**3
        return self.offset_radian - aberration * frequency_per_angstrom**4

    def phase_slope(self, frequency_per_angstrom: Floats, defocus_angstrom: Floats | float) -> Floats:
        """∂χ/∂k in radians times Å."""
        k, wavelength = frequency_per_angstrom, self.wavelength_angstrom
        aberration = self.spherical_aberration_angstrom * wavelength**3
        return np.asarray(2 * math.pi * (wavelength * defocus_angstrom * k - aberration * k**3))

    def phase(self, frequency_per_angstrom: Floats, defocus_angstrom: Floats | float) -> Floats:
        """χ in radians, without any phase shift that is still to be fitted."""
        k = frequency_per_angstrom
        return np.asarray(self.defocus_phase(k) * defocus_angstrom + self.constant_phase(k))

    def equiphase_frequency(
        self,
        frequency_per_angstrom: Floats,
        defocus_angstrom: Floats | float,
        mean_defocus_angstrom: Floats | float,
    ) -> Floats:
        """The frequency at which a lens of the mean defocus has the phase that this one has at a given frequency.

        NaN where the mean lens never reaches that phase (beyond the turning point of χ).
        """
        wavelength, cs = self.wavelength_angstrom, self.spherical_aberration_angstrom
        squared = frequency_per_angstrom**2
        # χ/π without the offset is a parabola in k²; the root that is written here is stable for Cs = 0 as well.
        waves = wavelength * defocus_angstrom * squared - 0.5 * cs * wavelength**3 * squared**2
        slope = wavelength * mean_defocus_angstrom
        with np.errstate(invalid="ignore"):
            root = np.sqrt(slope**2 - 2 * cs * wavelength**3 * waves)
            return np.asarray(np.sqrt(2 * waves / (slope + root)))


@dataclass(frozen=True, slots=True)
class Defocus:
    """Δf(θ) = mean + cosine · cos 2θ + sine · sin 2θ, in Å, and a fitted phase shift in radians."""

    mean_angstrom: float
    cosine_angstrom: float = 0.0
    sine_angstrom: float = 0.0
    phase_radian: float = 0.0

    def at(self, azimuth_radian: Floats) -> Floats:
        """Δf in Å in the direction θ."""
        return np.asarray(
            self.mean_angstrom
            + self.cosine_angstrom * np.cos(2 * azimuth_radian)
            + self.sine_angstrom * np.sin(2 * azimuth_radian)
        )

    @property
    def half_astigmatism_angstrom(self) -> float:
        """(U − V) / 2."""
        return math.hypot(self.cosine_angstrom, self.sine_angstrom)

    @property
    def u_angstrom(self) -> float:
        """The larger principal defocus."""
        return self.mean_angstrom + self.half_astigmatism_angstrom

    @property
    def v_angstrom(self) -> float:
        """The smaller principal defocus."""
        return self.mean_angstrom - self.half_astigmatism_angstrom

    @property
    def angle_degrees(self) -> float:
        """Azimuth of U from x towards y, in [0, 180)."""
        angle = math.degrees(0.5 * math.atan2(self.sine_angstrom, self.cosine_angstrom)) % 180.0
        return 0.0 if angle >= 180.0 else angle

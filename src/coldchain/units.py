"""Physical constants and the unit suffixes that names use.

Every number's name ends in its unit: `_angstrom`, `_kilovolt`, `_e_per_square_angstrom`, `_degrees`, `_bytes`,
`_seconds`, `_pixel`. Spherical aberration is the one that the field writes in millimetres: `_millimeter`.
"""

from __future__ import annotations

import math

ANGSTROM_PER_METER = 1e10
ANGSTROM_PER_MILLIMETER = 1e7
SQUARE_ANGSTROM_PER_SQUARE_METER = 1e20

_PLANCK_JOULE_SECOND = 6.62607015e-34
_ELECTRON_MASS_KILOGRAM = 9.1093837139e-31
_ELEMENTARY_CHARGE_COULOMB = 1.602176634e-19
_SPEED_OF_LIGHT_METER_PER_SECOND = 299792458.0


def electron_wavelength_angstrom(voltage_kilovolt: float) -> float:
    """Relativistic de Broglie wavelength of an electron: 0.0197 Å at 300 kV, 0.0251 Å at 200 kV (CODATA 2022)."""
    energy_joule = voltage_kilovolt * 1e3 * _ELEMENTARY_CHARGE_COULOMB
    rest_energy_joule = _ELECTRON_MASS_KILOGRAM * _SPEED_OF_LIGHT_METER_PER_SECOND**2
    momentum = math.sqrt(2 * _ELECTRON_MASS_KILOGRAM * energy_joule * (1 + energy_joule / (2 * rest_energy_joule)))
    return _PLANCK_JOULE_SECOND / momentum * ANGSTROM_PER_METER


def byte_size(value: int) -> str:
    """Bytes in decimal units: 1.2 GB is 1,200,000,000 bytes."""
    if value < 0:
        return f"−{byte_size(-value)}"
    if value < 1000:
        return f"{value} B"
    exponent = min(int(math.log10(value) // 3), 5)
    scaled = value / 1000**exponent
    return f"{scaled:.{0 if scaled >= 100 else 1}f} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[exponent]}"

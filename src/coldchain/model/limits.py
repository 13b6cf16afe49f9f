"""Between what limits a value can be true: wide enough for every microscope, too narrow for a slip of units."""

from __future__ import annotations

PIXEL_SIZE_ANGSTROM = (0.05, 50.0)
VOLTAGE_KILOVOLT = (10.0, 3000.0)
DOSE_E_PER_SQUARE_ANGSTROM = (0.001, 10_000.0)
PARTICLE_DIAMETER_ANGSTROM = (5.0, 10_000.0)
COUNTS_PER_ELECTRON = (1e-3, 1e6)
FRAME_COUNT = (1, 1_000_000)

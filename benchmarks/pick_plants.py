"""Pictures without a particle, and pictures with planted junk, whose place is known: what a picker must leave alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from coldchain.simulate import optics

DOSE_E_PER_SQUARE_ANGSTROM = 40.0
# What carbon of some 200 Å scatters into the picture, as the deviation of its phase at one Å² before the lens, and what
# it keeps from it; and the same of the ice beside it.
_CARBON_RADIAN_ANGSTROM, _CARBON_TRANSMISSION = 0.9, 0.93
_ICE_RADIAN_ANGSTROM = 0.15
_GOLD_TRANSMISSION = 0.25
_BODIES_PER_SQUARE_ANGSTROM = 900.0**-2


@dataclass(frozen=True, slots=True, eq=False)
class Plant:
    """Counts (rows, columns), their pixel in Å, and True where junk was planted."""

    name: str
    image: NDArray[np.float32]
    pixel_size_angstrom: float
    junk: NDArray[np.bool_]


def white_noise(shape: tuple[int, int], pixel_size_angstrom: float, seed: int) -> Plant:
    """Counted electrons alone."""
    counts = np.random.default_rng(seed).poisson(DOSE_E_PER_SQUARE_ANGSTROM * pixel_size_angstrom**2, shape)
    return Plant("white noise", counts.astype(np.float32), pixel_size_angstrom, np.zeros(shape, dtype=bool))


def coloured_noise(shape: tuple[int, int], pixel_size_angstrom: float, seed: int) -> Plant:
    """Gaussian noise that falls off with frequency, with a white floor."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.standard_normal(shape), random.uniform(4, 30) / pixel_size_angstrom)
    noise = smooth / smooth.std() + random.uniform(0.5, 3) * random.standard_normal(shape)
    return Plant("coloured noise", noise.astype(np.float32), pixel_size_angstrom, np.zeros(shape, dtype=bool))


def carbon(shape: tuple[int, int], pixel_size_angstrom: float, seed: int, *, part: float = 1.0) -> Plant:
    """Carbon film with its Thon rings over a part of the picture, its edge a circle's as that of a hole; ice beside."""
    random = np.random.default_rng(seed)
    thickness = _film(shape, part, random)
    return Plant(
        "carbon", _counted(shape, pixel_size_angstrom, thickness, random), pixel_size_angstrom, thickness > 0.5
    )


def contamination(shape: tuple[int, int], pixel_size_angstrom: float, seed: int) -> Plant:
    """Ice crystals on thin ice: dark bodies of 100 to 1000 Å, a bright one, and patches of a crystal's lattice."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32) * np.float32(pixel_size_angstrom)
    transmission, lattice = np.ones(shape), np.zeros(shape)
    count = max(5, round(shape[0] * shape[1] * pixel_size_angstrom**2 * _BODIES_PER_SQUARE_ANGSTROM))
    for index in range(count):
        size = float(np.exp(random.uniform(np.log(100), np.log(1000))))
        body = _blob(rows, columns, size, random)
        if index < 3:
            angle, spacing = random.uniform(0, np.pi), random.choice([3.9, 3.67, 3.44])
            wave = np.cos(2 * np.pi / spacing * (np.cos(angle) * rows + np.sin(angle) * columns))
            lattice += 0.25 * wave * body
        transmission *= 1 - body * (-0.25 if index == 3 else random.uniform(0.15, 0.7))
    junk = (np.abs(transmission - 1) > 0.05) | (np.abs(lattice) > 0)
    image = _counted(shape, pixel_size_angstrom, np.zeros(shape), random, transmission * (1 + lattice))
    return Plant("contamination", image, pixel_size_angstrom, junk)


def gold(shape: tuple[int, int], pixel_size_angstrom: float, seed: int) -> Plant:
    """Fiducial beads of 100 Å, all alike, in ice."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32) * np.float32(pixel_size_angstrom)
    transmission = np.ones(shape)
    for _ in range(15):
        y, x = random.uniform(0, shape[0]) * pixel_size_angstrom, random.uniform(0, shape[1]) * pixel_size_angstrom
        thickness = np.sqrt(np.maximum(1 - ((rows - y) ** 2 + (columns - x) ** 2) / 50.0**2, 0))
        transmission = np.minimum(transmission, _GOLD_TRANSMISSION**thickness)
    image = _counted(shape, pixel_size_angstrom, np.zeros(shape), random, transmission)
    return Plant("gold", image, pixel_size_angstrom, transmission < 0.97)


def _blob(
    rows: NDArray[np.float32], columns: NDArray[np.float32], size: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """A rounded polygon's inside, with a soft rim of some 20 Å."""
    y, x = random.uniform(0, float(rows.max())), random.uniform(0, float(columns.max()))
    angle = np.arctan2(rows - y, columns - x)
    radius = 0.5 * size * (1 + 0.15 * np.cos(random.integers(3, 7) * angle + random.uniform(0, 6)))
    return np.asarray(np.clip((radius - np.hypot(rows - y, columns - x)) / 20 + 0.5, 0, 1), dtype=np.float64)


def _film(shape: tuple[int, int], part: float, random: np.random.Generator) -> NDArray[np.float64]:
    """1 on the film, 0 beside: `part` of the picture lies on the film's side of an arc at a random angle."""
    if part >= 1:
        return np.ones(shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]] - 0.5 * np.array(shape)[:, np.newaxis, np.newaxis]
    angle, far = random.uniform(0, 2 * np.pi), 3.0 * max(shape)
    distance = np.hypot(rows - far * np.sin(angle), columns - far * np.cos(angle))
    return np.asarray(distance > np.quantile(distance, 1 - part), dtype=np.float64)


def _counted(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    film: NDArray[np.float64],
    random: np.random.Generator,
    transmission: NDArray[np.float64] | float = 1.0,
) -> NDArray[np.float32]:
    """Electrons counted below ice and film, through a lens at 1–2.5 µm underfocus."""
    defocus = random.uniform(10000, 25000)
    lens = optics.Lens(
        voltage_kilovolt=300.0,
        spherical_aberration_millimeter=2.7,
        amplitude_contrast=0.1,
        phase_shift_degrees=0.0,
        defocus_u_angstrom=defocus + 100,
        defocus_v_angstrom=defocus - 100,
        defocus_angle_degrees=30.0,
    )
    deviation = np.where(film > 0, _CARBON_RADIAN_ANGSTROM, _ICE_RADIAN_ANGSTROM) / pixel_size_angstrom
    phase = np.fft.rfft2(deviation * random.standard_normal(shape))
    kx, ky = optics.half_plane(shape, pixel_size_angstrom)
    contrast = np.fft.irfft2(phase * 2 * lens.transfer(kx, ky) * optics.envelope(kx**2 + ky**2, 60.0), shape)
    through = transmission * np.where(film > 0, _CARBON_TRANSMISSION, 1.0)
    mean = DOSE_E_PER_SQUARE_ANGSTROM * pixel_size_angstrom**2 * through * np.maximum(1 + contrast, 0)
    return random.poisson(mean).astype(np.float32)

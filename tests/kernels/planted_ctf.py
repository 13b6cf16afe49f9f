"""Spectra with a planted CTF, and particles with planted places, by formulas written out here a second time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_REST_ENERGY_KILOVOLT = 510.99895
_H_C_KILOVOLT_ANGSTROM = 12.398419843


def wavelength_angstrom(voltage_kilovolt: float) -> float:
    """λ = hc / √(E (E + 2 m c²))."""
    return _H_C_KILOVOLT_ANGSTROM / np.sqrt(voltage_kilovolt * (voltage_kilovolt + 2 * _REST_ENERGY_KILOVOLT))


def planted_ctf(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    defocus_u_angstrom: float,
    defocus_v_angstrom: float,
    angle_degrees: float,
    *,
    voltage_kilovolt: float = 300.0,
    cs_millimeter: float = 2.7,
    amplitude_contrast: float = 0.1,
    phase_shift_degrees: float = 0.0,
) -> NDArray[np.float64]:
    """−sin χ on the half-plane of an image of `shape`; the azimuth is from x (column) towards y (increasing row)."""
    y = np.fft.fftfreq(shape[0], pixel_size_angstrom)[:, None]
    x = np.fft.rfftfreq(shape[1], pixel_size_angstrom)[None, :]
    k2 = x**2 + y**2
    azimuth = np.arctan2(y, x)
    mean, half = (defocus_u_angstrom + defocus_v_angstrom) / 2, (defocus_u_angstrom - defocus_v_angstrom) / 2
    defocus = mean + half * np.cos(2 * (azimuth - np.radians(angle_degrees)))
    lam = wavelength_angstrom(voltage_kilovolt)
    chi = np.pi * lam * k2 * (defocus - 0.5 * cs_millimeter * 1e7 * lam**2 * k2)
    return -np.sin(chi + np.radians(phase_shift_degrees) + np.arcsin(amplitude_contrast))


def micrograph(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    ctf: NDArray[np.float64],
    *,
    signal_to_noise: float,
    seed: int,
    bfactor_square_angstrom: float = 120.0,
) -> NDArray[np.float32]:
    """White specimen seen through the CTF and an envelope, in white noise; signal-to-noise is of variances."""
    random = np.random.default_rng(seed)
    y = np.fft.fftfreq(shape[0], pixel_size_angstrom)[:, None]
    x = np.fft.rfftfreq(shape[1], pixel_size_angstrom)[None, :]
    envelope = np.exp(-bfactor_square_angstrom * (x**2 + y**2) / 4)
    signal = np.fft.irfft2(np.fft.rfft2(random.standard_normal(shape)) * ctf * envelope, shape)
    signal *= np.sqrt(signal_to_noise) / signal.std()
    return (100 + 10 * (signal + random.standard_normal(shape))).astype(np.float32)


def particles(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    diameter_angstrom: float,
    count: int,
    *,
    cavity: float,
    signal_to_noise: float,
    seed: int,
    defocus_angstrom: float = 15000.0,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Dark balls (or shells with a cavity) at random places that do not overlap; and their (x, y) in pixels."""
    random = np.random.default_rng(seed)
    radius = 0.5 * diameter_angstrom / pixel_size_angstrom
    image = np.zeros(shape)
    places: list[tuple[float, float]] = []
    while len(places) < count:
        x, y = random.uniform(radius, shape[1] - radius), random.uniform(radius, shape[0] - radius)
        if all(np.hypot(x - u, y - v) > 2.1 * radius for u, v in places):
            places.append((x, y))
    for x, y in places:
        top, left = max(0, int(y - radius) - 1), max(0, int(x - radius) - 1)
        rows, columns = np.mgrid[top : min(shape[0], int(y + radius) + 3), left : min(shape[1], int(x + radius) + 3)]
        squared = (rows - y) ** 2 + (columns - x) ** 2
        thickness = np.sqrt(np.maximum(radius**2 - squared, 0))
        thickness -= np.sqrt(np.maximum((cavity * radius) ** 2 - squared, 0))
        image[rows, columns] += thickness / radius
    ctf = planted_ctf(shape, pixel_size_angstrom, defocus_angstrom, defocus_angstrom, 0.0)
    signal = np.fft.irfft2(np.fft.rfft2(image) * ctf, shape)
    signal *= np.sqrt(signal_to_noise) / signal.std()
    return (signal + random.standard_normal(shape)).astype(np.float32), np.array(places)

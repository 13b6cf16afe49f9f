"""The averaged power spectrum of a micrograph, in rows and columns and in rings and sectors.

Overlapping tiles of a picture resampled to a constant pixel are made flat (mean and gradient removed), tapered and
transformed; their periodograms are averaged (Welch, IEEE Trans. Audio Electroacoust. 1967, 15, 70,
doi:10.1109/TAU.1967.1161901). The sampling of the spectrum is therefore the same whatever the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled
from coldchain.errors import ProcessingError
from coldchain.kernels.fourier import HalfPlane, rfft2


@dataclass(frozen=True, slots=True, eq=False)
class PowerSpectrum:
    """Averaged periodogram of a micrograph.

    power : (n, n // 2 + 1) float32, a half-plane in the order of `kernels.fourier`.
    row_step_per_angstrom, column_step_per_angstrom : distance of neighbouring rows (columns) of `power`.
    samples_per_bin : how many independent samples each value of `power` is worth (not an integer; neighbouring values
        share some of theirs, so that n values are together worth n × this).
    """

    power: NDArray[np.float32]
    row_step_per_angstrom: float
    column_step_per_angstrom: float
    samples_per_bin: float

    @property
    def tile_pixel(self) -> int:
        """Rows of the full spectrum, which is square."""
        return int(self.power.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class PolarSpectrum:
    """Mean power over rings and sectors of the upper half of Fourier space.

    frequency_per_angstrom : (rings,) mean frequency of each ring.
    azimuth_radian : (sectors,) centre of each sector, in [0, π), from x towards y (increasing row).
    power : (sectors, rings) mean power; a sector without a sample has its ring's mean.
    count : (sectors, rings) samples of the half-plane in each.
    """

    frequency_per_angstrom: NDArray[np.float64]
    azimuth_radian: NDArray[np.float64]
    power: NDArray[np.float64]
    count: NDArray[np.float64]


def average_periodogram(
    image: NDArray[np.float32],
    row_spacing_angstrom: float,
    column_spacing_angstrom: float,
    tile_pixel: int,
    threads: int = 1,
) -> PowerSpectrum:
    """Mean periodogram of tiles that overlap by half or more and cover the picture.

    Parameters
    ----------
    image : (rows, columns).
    row_spacing_angstrom, column_spacing_angstrom : size of a pixel in y and in x.
    tile_pixel : edge of a tile, even, at most the picture's shorter side (`ProcessingError` where it is not).
    threads : for the transforms.
    """
    if tile_pixel < 2 or tile_pixel % 2 or tile_pixel > min(image.shape):
        raise ProcessingError(
            f"tiles of {tile_pixel} pixels do not fit a picture of {image.shape[0]} × {image.shape[1]}",
            expected="an even edge, not longer than the picture's shorter side",
        )
    rows, columns = image.shape
    taper = np.hanning(tile_pixel + 1)[:tile_pixel]
    row_starts, column_starts = _starts(rows, tile_pixel), _starts(columns, tile_pixel)
    total = np.zeros((tile_pixel, tile_pixel // 2 + 1), dtype=np.float64)
    for row in row_starts:
        for column in column_starts:
            tile = image[row : row + tile_pixel, column : column + tile_pixel]
            _add_power(rfft2(_flatten(tile, taper.astype(np.float32)), threads), total)
    samples = _covered(rows, row_starts, taper) * _covered(columns, column_starts, taper) / tile_pixel**2
    scale = 1.0 / (len(row_starts) * len(column_starts) * float(np.sum(taper**2)) ** 2)
    return PowerSpectrum(
        power=(total * scale).astype(np.float32),
        row_step_per_angstrom=1.0 / (tile_pixel * row_spacing_angstrom),
        column_step_per_angstrom=1.0 / (tile_pixel * column_spacing_angstrom),
        samples_per_bin=samples,
    )


def to_polar(
    spectrum: PowerSpectrum, sectors: int, lowest_per_angstrom: float, highest_per_angstrom: float
) -> PolarSpectrum:
    """Rings as wide as the spectrum's own sampling and `sectors` equal sectors of [0, π)."""
    step = max(spectrum.row_step_per_angstrom, spectrum.column_step_per_angstrom)
    rings = max(1, int((highest_per_angstrom - lowest_per_angstrom) / step))
    total = np.zeros((sectors, rings))
    count = np.zeros((sectors, rings))
    frequency = np.zeros(rings)
    _bin_polar(
        spectrum.power,
        spectrum.row_step_per_angstrom,
        spectrum.column_step_per_angstrom,
        lowest_per_angstrom,
        step,
        total,
        count,
        frequency,
    )
    of_ring = count.sum(axis=0)
    centres = lowest_per_angstrom + (np.arange(rings) + 0.5) * step
    mean_frequency = np.asarray(np.where(of_ring > 0, frequency / np.maximum(of_ring, 1), centres), dtype=np.float64)
    ring_mean = total.sum(axis=0) / np.maximum(of_ring, 1)
    power = np.asarray(np.where(count > 0, total / np.maximum(count, 1), ring_mean), dtype=np.float64)
    azimuth = np.asarray((np.arange(sectors) + 0.5) * (math.pi / sectors), dtype=np.float64)
    return PolarSpectrum(mean_frequency, azimuth, power, count)


def _starts(length: int, tile: int) -> list[int]:
    """First pixels of tiles that cover `length` evenly and overlap by at least half."""
    gaps = math.ceil((length - tile) / (tile / 2))
    return [0] if gaps == 0 else [round(i * (length - tile) / gaps) for i in range(gaps + 1)]


def _covered(length: int, starts: list[int], taper: NDArray[np.float64]) -> float:
    """Pixels of one axis that the tapered tiles together make use of: (ΣW)² / ΣW², W the sum of squared tapers."""
    weight = np.zeros(length)
    for start in starts:
        weight[start : start + len(taper)] += taper**2
    return float(weight.sum() ** 2 / np.sum(weight**2))


@compiled
def _flatten(tile: NDArray[np.float32], taper: NDArray[np.float32]) -> NDArray[np.float32]:
    """The tile without its least-squares plane, tapered in both axes."""
    n = tile.shape[0]
    middle = 0.5 * (n - 1)
    total, along_rows, along_columns = 0.0, 0.0, 0.0
    for i in range(n):
        row_total, row_moment = 0.0, 0.0
        for j in range(n):
            row_total += tile[i, j]
            row_moment += tile[i, j] * (j - middle)
        total += row_total
        along_rows += row_total * (i - middle)
        along_columns += row_moment
    moment = n * n * (n * n - 1) / 12.0
    mean, row_slope, column_slope = total / (n * n), along_rows / moment, along_columns / moment
    flat = np.empty((n, n), dtype=np.float32)
    for i in range(n):
        row_level = mean + row_slope * (i - middle) - column_slope * middle
        for j in range(n):
            flat[i, j] = (tile[i, j] - row_level - column_slope * j) * taper[i] * taper[j]
    return flat


@compiled
def _add_power(transform: HalfPlane, total: NDArray[np.float64]) -> None:
    rows, columns = transform.shape
    for i in range(rows):
        for j in range(columns):
            value = transform[i, j]
            total[i, j] += value.real * value.real + value.imag * value.imag


@compiled
def _bin_polar(
    power: NDArray[np.float32],
    row_step: float,
    column_step: float,
    lowest: float,
    step: float,
    total: NDArray[np.float64],
    count: NDArray[np.float64],
    frequency: NDArray[np.float64],
) -> None:
    rows, columns = power.shape
    sectors, rings = total.shape
    # The Nyquist row and column are left out: cropping has emptied them.
    for i in range(rows):
        if i == rows // 2:
            continue
        y = (i if i < rows // 2 else i - rows) * row_step
        for j in range(columns - 1):
            if j == 0 and y < 0:
                continue
            x = j * column_step
            k = math.sqrt(x * x + y * y)
            ring = math.floor((k - lowest) / step)
            if ring < 0 or ring >= rings:
                continue
            azimuth = math.atan2(y, x)
            if azimuth < 0:
                azimuth += math.pi
            sector = min(int(azimuth * sectors / math.pi), sectors - 1)
            total[sector, ring] += power[i, j]
            count[sector, ring] += 1
            frequency[ring] += k

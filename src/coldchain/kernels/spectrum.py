"""The power spectrum of a picture in rings and sectors, from the picture itself or from a spectrum made by others.

The whole picture is tapered at its edges and transformed once; all waves in a bin of a ring and a sector are averaged,
which is the same as averaging the periodograms of many tiles (Welch, IEEE Trans. Audio Electroacoust. 1967, 15, 70,
doi:10.1109/TAU.1967.1161901), but costs only the waves of the fit band. The bins are the same whatever the camera.
Waves along the two axes are left out: the picture's edges and a camera's columns show there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import ducc0
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import polygamma

from coldchain.compiled import compiled, in_bands
from coldchain.kernels.extent import Extent, extent_of
from coldchain.kernels.fourier import good_size, standardised

Floats: TypeAlias = NDArray[np.float64]

# Over this part of its length either edge of a picture fades out.
_TAPERED = 0.1
_BLOCK_ROWS = 16
_PARTS = 8
_LEAST_MAGNITUDE, _LARGEST_MAGNITUDE = 1e-6, 1e9
_DOUBLE_BYTES = 8
# Waves beside an axis that are left out with it.
_AXIS_WAVES = 2
_FEWEST_SAMPLES, _MOST_SAMPLES = 0.5, 1e6
# Median of the absolute value of a normal deviate.
_MEDIAN_DEVIATION = 0.6745


@dataclass(frozen=True, slots=True)
class Band:
    """Where the spectrum is looked at: frequencies in 1/Å, and how it is divided. `sectors` is even."""

    lowest_per_angstrom: float
    highest_per_angstrom: float
    ring_width_per_angstrom: float
    sectors: int

    @property
    def rings(self) -> int:
        """How many rings there are room for."""
        return max(0, int((self.highest_per_angstrom - self.lowest_per_angstrom) / self.ring_width_per_angstrom))


@dataclass(frozen=True, slots=True)
class PolarSpectrum:
    """Mean power over rings and sectors of the upper half of Fourier space.

    frequency_per_angstrom : (rings,) centre of each ring.
    azimuth_radian : (sectors,) centre of each sector, in [0, π), from x towards y (increasing row).
    power : (sectors, rings) mean power; a bin without a wave has its ring's mean.
    samples : (sectors, rings) independent samples of the power in each bin, 0 where there is none.
    blur_per_angstrom : widths of the windows over which the power was averaged along the frequency.
    """

    frequency_per_angstrom: Floats
    azimuth_radian: Floats
    power: Floats
    samples: Floats
    blur_per_angstrom: tuple[float, ...]


def of_picture(
    image: NDArray[np.generic],
    pixel_size_angstrom: float,
    band: Band,
    threads: int = 1,
    *,
    extent: Extent | None = None,
) -> PolarSpectrum:
    """The spectrum of a picture (rows, columns), of any real type and finite; `extent` is its own where it is known.

    Rings are not made narrower than the picture's own resolution in frequency, and end below its Nyquist frequency.
    """
    rows, columns = image.shape
    padded = (good_size(rows, even=True), good_size(columns, even=True))
    row_step, column_step = 1 / (padded[0] * pixel_size_angstrom), 1 / (padded[1] * pixel_size_angstrom)
    kept = min(padded[1] // 2, math.ceil(band.highest_per_angstrom / column_step) + 1)
    tapers = [_taper(length) for length in image.shape]
    if image.dtype.itemsize >= _DOUBLE_BYTES:
        image, extent = standardised(image), None
    transform = _transform(image, extent or extent_of(image, threads), tapers, padded, kept, threads)
    waves = _bin(transform, row_step, column_step, band, threads)
    worth = math.prod(float(np.sum(w**2) ** 2 / np.sum(w**4)) for w in tapers) / (padded[0] * padded[1])
    return _polar(*waves, worth, band, (band.ring_width_per_angstrom, max(row_step, column_step)))


def of_amplitudes(amplitudes: NDArray[np.generic], pixel_size_angstrom: float, band: Band) -> PolarSpectrum:
    """The spectrum of a picture whose amplitudes (rows, columns) are given, frequency 0 at [rows // 2, columns // 2].

    Each is the root mean square over a cell. How many waves there were in a cell is seen from how much neighbours
    differ.
    """
    rows, columns = amplitudes.shape
    squares = np.fft.ifftshift(np.asarray(amplitudes, dtype=np.float64) ** 2)[:, : columns // 2]
    largest = float(squares.max())
    power = np.ascontiguousarray(squares / (largest if largest > 0 else 1.0), dtype=np.float32)
    row_step, column_step = 1 / (rows * pixel_size_angstrom), 1 / (columns * pixel_size_angstrom)
    waves = _bin(np.sqrt(power).astype(np.complex64), row_step, column_step, band, 1)
    worth = _samples_of_cells(power, row_step, column_step, band)
    return _polar(*waves, worth, band, (band.ring_width_per_angstrom, max(row_step, column_step)))


def _polar(total: Floats, count: Floats, worth: float, band: Band, blur: tuple[float, ...]) -> PolarSpectrum:
    ring_mean = total.sum(axis=0) / np.maximum(count.sum(axis=0), 1)
    centres = band.lowest_per_angstrom + (np.arange(band.rings) + 0.5) * band.ring_width_per_angstrom
    return PolarSpectrum(
        frequency_per_angstrom=np.asarray(centres, dtype=np.float64),
        azimuth_radian=np.asarray((np.arange(band.sectors) + 0.5) * (math.pi / band.sectors), dtype=np.float64),
        power=np.where(count > 0, total / np.maximum(count, 1), ring_mean),
        samples=count * worth,
        blur_per_angstrom=blur,
    )


def _taper(length: int) -> Floats:
    """1 in the middle, cosine edges: (length,)."""
    edge = max(1.0, _TAPERED * length)
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    return np.asarray(0.5 - 0.5 * np.cos(math.pi * np.minimum(distance / edge, 1)))


def _transform(
    values: NDArray[np.generic],
    extent: Extent,
    tapers: list[Floats],
    padded: tuple[int, int],
    kept: int,
    threads: int,
) -> NDArray[np.complex64]:
    """The tapered picture's waves at its first `kept` columns of frequencies: (padded rows, kept) complex64."""
    columns = values.shape[1]
    transform = np.zeros((padded[0], kept), dtype=np.complex64)
    down, across = tapers[0].astype(np.float32), tapers[1].astype(np.float32)

    def transform_rows(first: int, end: int) -> None:
        block = np.zeros((_BLOCK_ROWS, padded[1]), dtype=np.float32)
        waves = np.empty((_BLOCK_ROWS, padded[1] // 2 + 1), dtype=np.complex64)
        for row in range(first, end, _BLOCK_ROWS):
            part = slice(row, min(end, row + _BLOCK_ROWS))
            lines = block[: part.stop - row]
            _centre(values[part], extent, lines[:, :columns])
            _fade(lines[:, :columns], down[part], across)
            ducc0.fft.r2c(lines, axes=(1,), out=waves[: len(lines)])
            transform[part] = waves[: len(lines), :kept]

    in_bands(transform_rows, values.shape[0], threads)
    ducc0.fft.c2c(transform, axes=(0,), nthreads=max(1, threads), out=transform)
    return transform


def _centre(values: NDArray[np.generic], extent: Extent, lines: NDArray[np.float32]) -> None:
    """Write the values without their mean to `lines`, scaled where single precision has no room for their squares."""
    wide = values.dtype.kind in "iu" and values.dtype.itemsize >= 4
    if wide or not _LEAST_MAGNITUDE < extent.magnitude < _LARGEST_MAGNITUDE:
        centred = np.subtract(values, extent.mean, dtype=np.float64)
        np.divide(centred, extent.magnitude, out=lines, casting="same_kind")
    else:
        np.subtract(values, np.float32(extent.mean), out=lines, casting="same_kind")


def _fade(lines: NDArray[np.float32], down: NDArray[np.float32], across: NDArray[np.float32]) -> None:
    """Multiply by both tapers, where they are not 1."""
    edge = math.ceil(_TAPERED * len(across)) + 1
    lines[:, :edge] *= across[:edge]
    lines[:, -edge:] *= across[-edge:]
    if float(down.min()) < 1:
        lines *= down[:, np.newaxis]


def _bin(
    waves: NDArray[np.complex64], row_step: float, column_step: float, band: Band, threads: int
) -> tuple[Floats, Floats]:
    """Sum of power and number of waves in every bin: two arrays (sectors, rings)."""
    rows = waves.shape[0]
    reach = min((rows - 1) // 2, math.ceil(band.highest_per_angstrom / row_step))
    cotangents = 1 / np.tan(np.arange(1, band.sectors // 2 + 1) * (math.pi / band.sectors))
    edges = [(2 * reach + 1) * part // _PARTS for part in range(_PARTS + 1)]
    totals, counts = (np.zeros((_PARTS, band.sectors, band.rings)) for _ in range(2))
    steps = (row_step, column_step, band.lowest_per_angstrom, band.ring_width_per_angstrom)

    def work(first: int, end: int) -> None:
        for part in range(first, end):
            rows_of_part = edges[part] - reach, edges[part + 1] - reach
            _bin_rows(waves, cotangents, steps, totals[part], counts[part], *rows_of_part)

    # The parts do not depend on the threads, so that as many as there are find the same.
    in_bands(work, _PARTS, threads)
    return np.asarray(totals.sum(axis=0)), np.asarray(counts.sum(axis=0))


def _samples_of_cells(power: NDArray[np.float32], row_step: float, column_step: float, band: Band) -> float:
    """Independent samples to a cell: the logarithm of the mean of n waves has the variance ψ′(n), n need not be whole.

    Second differences along the columns take the spectrum's own slope away; the median takes no notice of spots.
    """
    y = np.fft.fftfreq(power.shape[0], 1 / (power.shape[0] * row_step))[:, np.newaxis]
    x = np.arange(power.shape[1])[np.newaxis, :] * column_step
    middle = 0.5 * (band.lowest_per_angstrom + band.highest_per_angstrom)
    k = np.hypot(y, x)
    use = (k > middle) & (k < band.highest_per_angstrom) & (np.abs(y) > row_step * _AXIS_WAVES)
    use &= (x > column_step * _AXIS_WAVES) & (power > 0)
    whole = use & np.roll(use, 1, axis=1) & np.roll(use, -1, axis=1)
    logarithm = np.log(np.where(power > 0, power, 1))
    second = (2 * logarithm - np.roll(logarithm, 1, axis=1) - np.roll(logarithm, -1, axis=1))[whole]
    if not len(second):
        return 1.0
    variance = float(np.median(np.abs(second)) / _MEDIAN_DEVIATION) ** 2 / 6

    def excess(logarithm_of_n: float) -> float:
        return float(polygamma(1, math.exp(logarithm_of_n))) - variance

    low, high = math.log(_FEWEST_SAMPLES), math.log(_MOST_SAMPLES)
    if excess(low) <= 0 or excess(high) >= 0:
        return _FEWEST_SAMPLES if excess(low) <= 0 else _MOST_SAMPLES
    return math.exp(cast(Any, brentq(excess, low, high)))


@compiled
def _bin_rows(
    waves: NDArray[np.complex64],
    cotangents: Floats,
    steps: tuple[float, float, float, float],
    total: Floats,
    count: Floats,
    first: int,
    end: int,
) -> None:
    """Put the waves of rows first … end − 1 (negative ones too) into their bins, sector by sector along each row."""
    row_step, column_step, lowest, width = steps
    sectors, rings = total.shape
    columns = waves.shape[1]
    highest = lowest + rings * width
    for i in range(first, end):
        if abs(i) <= _AXIS_WAVES:
            continue
        y = abs(i) * row_step
        if y >= highest:
            continue
        row = i if i >= 0 else i + waves.shape[0]
        last = min(columns - 1, int(math.sqrt(highest * highest - y * y) / column_step))
        column = max(_AXIS_WAVES + 1, int(math.sqrt(max(0.0, lowest * lowest - y * y)) / column_step))
        for below in range(cotangents.size - 1, -1, -1):
            # Columns up to where the next sector towards the x axis begins.
            stop = last + 1
            if below > 0:
                stop = min(stop, math.ceil(y * cotangents[below - 1] / column_step))
            sector = below if i > 0 else sectors - 1 - below
            for j in range(column, stop):
                x = j * column_step
                ring = int((math.sqrt(x * x + y * y) - lowest) / width)
                if x * x + y * y >= lowest * lowest and ring < rings:
                    wave = waves[row, j]
                    total[sector, ring] += wave.real * wave.real + wave.imag * wave.imag
                    count[sector, ring] += 1
            column = max(column, stop)

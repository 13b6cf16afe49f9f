"""Patches of the small frames, in Fourier space, as the fit of local motion compares them.

A patch is cut out of each frame where the specimen has gone by whole pixels, so that its window stays on the specimen;
what is left of the shift is the phase. Of its transform only the band is kept that carries the signal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import ducc0
import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled_loosely, in_bands
from coldchain.kernels.fourier import good_size, taper
from coldchain.kernels.survey import Stack

Vector: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = NDArray[np.int64]

_EDGE_FRACTION = 1 / 16
# Binning to sums of pixels folds noise back into the highest fifth of the band.
_BAND_OF_NYQUIST = 0.8
_FEWEST_PIXELS = 24
# Of a patch, in all along an axis: beyond it the patches are one more, and overlap.
_LARGEST_GAP = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Transforms of the patches, and where they lie. Lengths are in pixels of the movie, frequencies in their inverse.

    real, imaginary : (patches, frames, 2 K + 1, K + 1) float32; rows are frequencies −K … K along y, columns 0 … K
        along x, in steps of one over the patch's length.
    frequency_y, frequency_x : (2 K + 1,), (K + 1,) float32.
    centre_y, centre_x : (patches,) of the patch in the first frame, from the first pixel's centre.
    offset_y, offset_x : (frames,) by how much the patch was cut out displaced.
    grid : (columns, rows) of patches; patches go row by row.
    """

    real: NDArray[np.float32]
    imaginary: NDArray[np.float32]
    frequency_y: NDArray[np.float32]
    frequency_x: NDArray[np.float32]
    centre_y: Vector
    centre_x: Vector
    offset_y: Vector
    offset_x: Vector
    grid: tuple[int, int]


def cut_patches(
    binned: Stack,
    factor: int,
    shift_y: Vector,
    shift_x: Vector,
    *,
    grid: tuple[int, int] | None,
    patch_pixel: float,
    threads: int = 1,
) -> Patches:
    """Cut patches out of binned frames along a whole-frame track and transform them.

    Parameters
    ----------
    binned : (frames, rows, columns) float32.
    factor : pixels of the movie to one of these.
    shift_y, shift_x : (frames,) track of the whole frame, in pixels of the movie.
    grid : (columns, rows) of patches; None: as many as lie side by side.
    patch_pixel : their length in pixels of the movie, where no grid is given; else it follows from the grid.
    threads : at most this many.
    """
    whole_y, whole_x = (np.round(shift / factor).astype(np.int64) for shift in (shift_y, shift_x))
    room_y, whole_y = _room(whole_y, binned.shape[1])
    room_x, whole_x = _room(whole_x, binned.shape[2])
    widths = (room_y[1] - room_y[0], room_x[1] - room_x[0])
    length = patch_pixel / factor if grid is None else min(widths[0] / grid[1], widths[1] / grid[0])
    size = min(good_size(max(_FEWEST_PIXELS, round(length))), *widths)
    rows = max(1, math.ceil(widths[0] / size - _LARGEST_GAP)) if grid is None else grid[1]
    columns = max(1, math.ceil(widths[1] / size - _LARGEST_GAP)) if grid is None else grid[0]
    tops = np.round(np.linspace(room_y[0], room_y[1] - size, rows) if rows > 1 else [_middle(room_y, size)])
    lefts = np.round(np.linspace(room_x[0], room_x[1] - size, columns) if columns > 1 else [_middle(room_x, size)])
    top, left = (places.ravel().astype(np.int64) for places in np.meshgrid(tops, lefts, indexing="ij"))
    real, imaginary = _transforms(binned, top, left, whole_y, whole_x, size, threads)
    highest = real.shape[3] - 1
    return Patches(
        real,
        imaginary,
        (np.arange(-highest, highest + 1) / (size * factor)).astype(np.float32),
        (np.arange(highest + 1) / (size * factor)).astype(np.float32),
        (top + size / 2) * factor - 0.5,
        (left + size / 2) * factor - 0.5,
        (whole_y * factor).astype(np.float64),
        (whole_x * factor).astype(np.float64),
        (columns, rows),
    )


def _room(whole: Numbers, length: int) -> tuple[tuple[int, int], Numbers]:
    """Where a patch may lie so that all frames have it, and how far it is cut out displaced in each. Frames that have
    hardly anything in common are cut where they are."""
    first, end = max(0, -int(whole.min())), length - max(0, int(whole.max()))
    if end - first >= min(length, _FEWEST_PIXELS):
        return (first, end), whole
    return (0, length), np.zeros_like(whole)


def _middle(room: tuple[int, int], size: int) -> float:
    return (room[0] + room[1] - size) / 2


def _transforms(
    binned: Stack, top: Numbers, left: Numbers, whole_y: Numbers, whole_x: Numbers, size: int, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    highest = max(1, int(size / 2 * _BAND_OF_NYQUIST))
    shape = (top.size, len(binned), 2 * highest + 1, highest + 1)
    real, imaginary = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    window = taper(size, _EDGE_FRACTION)

    def transform(first: int, end: int) -> None:
        cut = np.empty((top.size, size, size), dtype=np.float32)
        for number in range(first, end):
            _cut(binned[number], top + whole_y[number], left + whole_x[number], window, cut)
            waves = ducc0.fft.r2c(cut, axes=(1, 2), nthreads=1)[:, :, : highest + 1]
            for part, of_waves in ((real, waves.real), (imaginary, waves.imag)):
                part[:, number, highest:] = of_waves[:, : highest + 1]
                part[:, number, :highest] = of_waves[:, -highest:]

    in_bands(transform, len(binned), threads)
    return real, imaginary


@compiled_loosely
def _cut(picture: NDArray[np.float32], top: Numbers, left: Numbers, window: NDArray[np.float32], out: Stack) -> None:
    """Patches without their mean, times the window."""
    size = window.size
    for p in range(top.size):
        total = 0.0
        for y in range(size):
            for x in range(size):
                value = picture[top[p] + y, left[p] + x]
                out[p, y, x] = value
                total += value
        mean = np.float32(total / (size * size))
        for y in range(size):
            for x in range(size):
                out[p, y, x] = (out[p, y, x] - mean) * (window[y] * window[x])

"""Search of the defocus and astigmatism on a polar spectrum: every place of a grid, every sector at its own defocus.

How the rings' height falls with frequency is not known beforehand, and little of it is smooth where particles and ice
scatter. So the frequencies are taken in a few bands, each gives its own signal in standard deviations of noise, and
squares of those that are positive add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled_loosely, in_bands
from coldchain.kernels.ctf_fit import BACKGROUND_TERMS, Rings, spline_basis
from coldchain.kernels.ctf_model import Defocus, Floats

_BAND_EDGES_ANGSTROM = (14.0, 8.0, 5.4, 4.3)
_SEARCH_RESOLUTION_ANGSTROM = 3.5
_FEWEST_RINGS_OF_BAND = 4
# Below this frequency the rings' height falls with its square.
_SHOULDER_PER_ANGSTROM = 0.125
_LARGEST_HALF_ASTIGMATISM_ANGSTROM = 1300.0
# Neighbouring sectors are taken together.
_POOLED = 2
# A band in which the background explains nearly all of a wave says nothing about it.
_LEAST_LEFT_OF_NORM = 0.05


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place of the search and its score in standard deviations."""

    defocus: Defocus
    score: float


def search(
    rings: Rings, min_defocus_angstrom: float, max_defocus_angstrom: float, *, fit_phase_shift: bool, threads: int = 1
) -> list[Candidate]:
    """The local maxima over the mean defocus, each with its best astigmatism (and phase shift), best first."""
    used = int(np.count_nonzero(rings.frequency_per_angstrom <= 1.0 / _SEARCH_RESOLUTION_ANGSTROM))
    used = used if used > 0.5 * len(rings.frequency_per_angstrom) else len(rings.frequency_per_angstrom)
    step = 1.0 / (2.0 * rings.defocus_phase[used - 1])
    reach = math.ceil(_LARGEST_HALF_ASTIGMATISM_ANGSTROM / step)
    count = math.ceil((max_defocus_angstrom - min_defocus_angstrom) / step) + 1
    grid = min_defocus_angstrom + step * np.arange(-reach, count + reach)
    sums, inverse_norms = _projections(rings, grid, used, fit_phase_shift=fit_phase_shift)
    pooled = rings.azimuth_radian.reshape(-1, _POOLED).mean(axis=1)
    offsets, vectors = _astigmatism_offsets(pooled, reach)
    scores, phases = np.zeros(count), np.zeros(count)
    winners = np.zeros(count, dtype=np.int64)
    parts = (sums.real.copy(), sums.imag.copy() if fit_phase_shift else np.zeros((0, 0, 0), dtype=np.float32))
    in_bands(
        lambda first, end: _best_astigmatism(
            *parts, inverse_norms, offsets, reach, scores, winners, phases, first, end
        ),
        count,
        threads,
    )
    found = []
    for top in _maxima(scores):
        cosine, sine = vectors[winners[top]] * step
        defocus = Defocus(float(grid[top + reach]), float(cosine), float(sine), float(phases[top]))
        found.append(Candidate(defocus, math.sqrt(float(scores[top]))))
    return found


def _maxima(scores: Floats) -> list[int]:
    """Local maxima, best first."""
    padded = np.concatenate([[-np.inf], scores, [-np.inf]])
    places = np.flatnonzero((padded[1:-1] >= padded[:-2]) & (padded[1:-1] > padded[2:]))
    return [int(place) for place in places[np.argsort(-scores[places])]]


def _astigmatism_offsets(azimuth_radian: Floats, reach: int) -> tuple[NDArray[np.int64], Floats]:
    """For each astigmatism vector of a square lattice within `reach`: the grid offset of every sector."""
    axis = np.arange(-reach, reach + 1)
    vectors = np.array([(c, s) for c in axis for s in axis if c * c + s * s <= reach * reach], dtype=np.float64)
    directions = np.stack([np.cos(2 * azimuth_radian), np.sin(2 * azimuth_radian)])
    return np.rint(vectors @ directions).astype(np.int64), vectors


def _projections(
    rings: Rings, grid: Floats, used: int, *, fit_phase_shift: bool
) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Every band's and sector's data times the rings of every defocus, and the inverse of the rings' own norm.

    Returns
    -------
    (bands, pooled sectors, grid): real part for the rings, imaginary part for rings a quarter further on.
    (bands, grid): 0 where the band says nothing.
    """
    k = rings.frequency_per_angstrom[:used]
    error = rings.ring_inverse_error
    shape = np.minimum(1.0, (k / _SHOULDER_PER_ANGSTROM) ** -2)
    waves = -np.exp(2j * (grid[:, np.newaxis] * rings.defocus_phase[:used] + rings.constant_phase[:used]))
    waves = waves * (rings.contrast(grid[:, np.newaxis])[:, :used] * shape)
    weighted = rings.flat[:, :used] * rings.inverse_error[:, :used]
    weighted = weighted.reshape(-1, _POOLED, used).sum(axis=1)
    basis, _ = np.linalg.qr(spline_basis(rings.frequency_per_angstrom, BACKGROUND_TERMS) * error[:, np.newaxis])
    sums, norms = [], []
    for first, last in _bands(k):
        part = slice(first, last)
        sums.append(weighted[:, part] @ waves[:, part].T)
        scaled = waves[:, part] * error[part]
        inside = scaled @ basis[part]
        whole = np.sum(scaled.real**2, axis=1)
        left = whole - np.sum(inside.real**2, axis=1)
        if fit_phase_shift:
            other = np.sum(scaled.imag**2, axis=1)
            left = 0.5 * (left + other - np.sum(inside.imag**2, axis=1))
            whole = 0.5 * (whole + other)
        says = left > _LEAST_LEFT_OF_NORM * float(whole.max())
        norms.append(np.where(says, 1 / np.sqrt(np.where(says, left, 1) * len(rings.azimuth_radian)), 0.0))
    return np.array(sums, dtype=np.complex64), np.array(norms, dtype=np.float32)


def _bands(k: Floats) -> list[tuple[int, int]]:
    """First ring and the one after the last of every band."""
    edges = [0, *(int(np.searchsorted(k, 1 / edge)) for edge in _BAND_EDGES_ANGSTROM), len(k)]
    return [(first, last) for first, last in pairwise(edges) if last - first >= _FEWEST_RINGS_OF_BAND] or [(0, len(k))]


@compiled_loosely
def _best_astigmatism(
    real_sums: NDArray[np.float32],
    imaginary_sums: NDArray[np.float32],
    inverse_norms: NDArray[np.float32],
    offsets: NDArray[np.int64],
    reach: int,
    scores: Floats,
    winners: NDArray[np.int64],
    phases: Floats,
    first: int,
    end: int,
) -> None:
    """For mean defoci first … end − 1: the best squared score over all astigmatisms, which one, and its phase shift."""
    bands, sectors, _ = real_sums.shape
    count = end - first
    real = np.empty((bands, count), dtype=np.float32)
    imaginary = np.zeros((bands, count), dtype=np.float32)
    total, turn = np.empty(count, dtype=np.float32), np.zeros(count, dtype=np.float32)
    for vector in range(offsets.shape[0]):
        real[:] = np.float32(0.0)
        imaginary[:] = np.float32(0.0)
        total[:] = np.float32(0.0)
        for band in range(bands):
            norm = inverse_norms[band, first + reach : end + reach]
            for sector in range(sectors):
                # Slices first: an index that could be negative would keep the loops from being vectorised.
                start = first + reach + offsets[vector, sector]
                part, into = real_sums[band, sector, start : start + count], real[band]
                for i in range(count):
                    into[i] += part[i]
            if imaginary_sums.size > 0:
                for sector in range(sectors):
                    start = first + reach + offsets[vector, sector]
                    part, into = imaginary_sums[band, sector, start : start + count], imaginary[band]
                    for i in range(count):
                        into[i] += part[i]
            for i in range(count):
                real[band, i] *= norm[i]
                imaginary[band, i] *= norm[i]
        if imaginary_sums.size > 0:
            _common_turn(real, imaginary, turn)
        for band in range(bands):
            for i in range(count):
                signal = max(real[band, i], np.float32(0.0))
                total[i] += signal * signal
        for i in range(count):
            if total[i] > scores[first + i]:
                scores[first + i] = total[i]
                winners[first + i] = vector
                # Re(e^{2iφ} · sum) is largest where 2φ undoes the sum's own argument.
                phases[first + i] = (-0.5 * turn[i]) % math.pi


@compiled_loosely
def _common_turn(real: NDArray[np.float32], imaginary: NDArray[np.float32], turn: NDArray[np.float32]) -> None:
    """Turn all bands of a place by one argument, that of their sum weighted by their lengths."""
    bands, count = real.shape
    for i in range(count):
        x, y = np.float32(0.0), np.float32(0.0)
        for band in range(bands):
            weight = math.sqrt(real[band, i] ** 2 + imaginary[band, i] ** 2)
            x += real[band, i] * weight
            y += imaginary[band, i] * weight
        length = math.sqrt(x * x + y * y) + 1e-30
        turn[i] = math.atan2(y, x)
        for band in range(bands):
            real[band, i] = (real[band, i] * x + imaginary[band, i] * y) / length

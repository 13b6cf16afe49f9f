"""Search of the defocus and astigmatism on a polar spectrum: every place of a grid, every sector at its own defocus.

How the rings' height falls with frequency is not known beforehand, and little of it is smooth where particles and ice
scatter. So the frequencies are taken in a few bands, each gives its own signal in standard deviations of noise, and
squares of those that are positive add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled_loosely, in_bands
from coldchain.kernels.ctf_fit import BACKGROUND_TERMS, Refinement, Rings, spline_basis
from coldchain.kernels.ctf_model import Defocus, Floats

Singles: TypeAlias = NDArray[np.float32]

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
_SPREAD_REACH = 7
_GRID_PART = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place of the search and its score in standard deviations."""

    defocus: Defocus
    score: float


def search(
    rings: Rings, min_defocus_angstrom: float, max_defocus_angstrom: float, *, fit_phase_shift: bool, threads: int = 1
) -> list[Candidate]:
    """The local maxima over the mean defocus, each with its best astigmatism (and phase shift), best first."""
    step = grid_step_angstrom(rings)
    reach = math.ceil(_LARGEST_HALF_ASTIGMATISM_ANGSTROM / step)
    count = math.ceil((max_defocus_angstrom - min_defocus_angstrom) / step) + 1
    grid = np.asarray(min_defocus_angstrom + step * np.arange(-reach, count + reach), dtype=np.float64)
    sums, inverse_norms = _projections(rings, grid, fit_phase_shift=fit_phase_shift, threads=threads)
    pooled = rings.azimuth_radian.reshape(-1, _POOLED).mean(axis=1)
    offsets, vectors = _astigmatism_offsets(pooled, reach)
    scores, phases = np.zeros(count), np.zeros(count)
    winners = np.zeros(count, dtype=np.int64)
    parts = (sums[0], sums[1] if fit_phase_shift else np.zeros((0, 0, 0), dtype=np.float32))
    in_bands(
        lambda first, end: best_offsets(*parts, inverse_norms, offsets, reach, scores, winners, phases, first, end),
        count,
        threads,
    )
    found = []
    for top in _maxima(scores):
        cosine, sine = vectors[winners[top]] * step
        defocus = Defocus(float(grid[top + reach]), float(cosine), float(sine), float(phases[top]))
        found.append(Candidate(defocus, math.sqrt(float(scores[top]))))
    return found


def spread(rings: Rings, refined: Refinement, *, fit_phase_shift: bool) -> Floats:
    """The covariance of (mean, cosine, sine) in Å² that other places around a fit bring in: (3, 3).

    Where the rings are faint the curvature at the best place tells only part of what is not known: other places, a
    wave further at high frequency, may be nearly as likely. Each of a lattice weighs with its likelihood.
    """
    step, phase = grid_step_angstrom(rings), refined.defocus.phase_radian
    steps = np.arange(-2 * _SPREAD_REACH, 2 * _SPREAD_REACH + 1)
    pooled = rings.azimuth_radian.reshape(-1, _POOLED).mean(axis=1)
    used = _used(rings)
    height = (refined.envelope * rings.ring_inverse_error)[:used].astype(np.float32)
    sums = np.zeros((2, len(pooled), len(steps)))
    for sector, (data, middle) in enumerate(zip(_weighted(rings, used), refined.defocus.at(pooled), strict=True)):
        waves = _waves(rings, np.asarray(middle + step * steps), used, phase, with_quarter=fit_phase_shift)
        for part, wave in enumerate(waves):
            sums[part, sector] = wave @ (data * height)
    offsets, vectors = _astigmatism_offsets(pooled, _SPREAD_REACH)
    norm = max(math.sqrt(float(np.sum(refined.model**2))), 1e-12)
    signals = _signals(sums / norm, offsets, _SPREAD_REACH)
    half_squares = 0.5 * signals**2
    weights = np.exp(half_squares - half_squares.max())
    means = np.arange(-_SPREAD_REACH, _SPREAD_REACH + 1)
    away = step * np.column_stack([np.tile(means, len(vectors)), np.repeat(vectors, len(means), axis=0)])
    return np.asarray((away * weights.reshape(-1, 1)).T @ away / weights.sum())


@compiled_loosely
def _signals(sums: Floats, offsets: NDArray[np.int64], reach: int) -> Floats:
    """Signal of every place of a lattice: (vectors, means).

    sums : (2, sectors, steps), of the rings and, where the phase is fitted too, of rings a quarter further on.
    """
    signals = np.zeros((offsets.shape[0], 2 * reach + 1))
    for vector in range(offsets.shape[0]):
        for mean in range(2 * reach + 1):
            real, imaginary = 0.0, 0.0
            for sector in range(offsets.shape[1]):
                place = mean + reach + offsets[vector, sector]
                real += sums[0, sector, place]
                imaginary += sums[1, sector, place]
            signals[vector, mean] = math.sqrt(max(real, 0.0) ** 2 + imaginary**2)
    return signals


def grid_step_angstrom(rings: Rings) -> float:
    """The step of defocus at which the phase of the finest rings that are looked at turns by half a radian."""
    return float(1.0 / (2.0 * rings.defocus_phase[_used(rings) - 1]))


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


def along(rings: Rings, grid: Floats, astigmatism: Defocus) -> tuple[Singles, Singles]:
    """The data times the rings of every mean defocus of a grid, whose astigmatism and phase shift are known.

    Returns
    -------
    (bands, grid), and the squares of the rings' own norms: (bands, grid).
    """
    used = _used(rings)
    bands = _bands(rings.frequency_per_angstrom[:used])
    height = _heights(rings, grid, used)
    weighted = _weighted(rings, used)
    pooled = rings.azimuth_radian.reshape(-1, _POOLED).mean(axis=1)
    sums = np.zeros((len(bands), len(grid)), dtype=np.float32)
    for data, extra in zip(weighted, astigmatism.at(pooled) - astigmatism.mean_angstrom, strict=True):
        wave = _waves(rings, grid + float(extra), used, astigmatism.phase_radian)[0] * height
        for band, part in enumerate(bands):
            sums[band] += wave[:, part] @ data[part]
    waves = [wave * height for wave in _waves(rings, grid, used, astigmatism.phase_radian)]
    return sums, _squares(rings, _norms(waves, _background_basis(rings), bands)).astype(np.float32)


def _projections(rings: Rings, grid: Floats, *, fit_phase_shift: bool, threads: int) -> tuple[Singles, Singles]:
    """Every band's and sector's data times the rings of every defocus, and the inverse of the rings' own norm.

    Returns
    -------
    (1, bands, pooled sectors, grid), or 2 with a phase shift to be fitted, the second for rings a quarter further on.
    (bands, grid): 0 where the band says nothing.
    """
    used = _used(rings)
    bands = _bands(rings.frequency_per_angstrom[:used])
    weighted = _weighted(rings, used)
    basis = _background_basis(rings)
    sums = np.empty((2 if fit_phase_shift else 1, len(bands), len(weighted), len(grid)), dtype=np.float32)
    norms = np.empty((2, len(bands), len(grid)))

    def project(first: int, end: int) -> None:
        for part in (
            slice(start, start + _GRID_PART) for start in range(first * _GRID_PART, end * _GRID_PART, _GRID_PART)
        ):
            height = _heights(rings, grid[part], used)
            waves = [wave * height for wave in _waves(rings, grid[part], used, with_quarter=fit_phase_shift)]
            for into, wave in zip(sums, waves, strict=True):
                for number, band in enumerate(bands):
                    into[number, :, part] = weighted[:, band] @ wave[:, band].T
            norms[:, :, part] = _norms(waves, basis, bands)

    # The parts do not depend on the threads, so that as many as there are find the same.
    in_bands(project, math.ceil(len(grid) / _GRID_PART), threads)
    squares = _squares(rings, norms)
    says = squares > 0
    return sums, np.where(says, 1 / np.sqrt(np.where(says, squares, 1)), 0).astype(np.float32)


def _used(rings: Rings) -> int:
    """How many rings the search looks at."""
    count = len(rings.frequency_per_angstrom)
    used = int(np.count_nonzero(rings.frequency_per_angstrom <= 1.0 / _SEARCH_RESOLUTION_ANGSTROM))
    return used if used > 0.5 * count else count


def _heights(rings: Rings, grid: Floats, used: int) -> Singles:
    """How high the rings of every defocus are looked for, in standard errors: (grid, rings used)."""
    shape = np.minimum(1.0, (rings.frequency_per_angstrom[:used] / _SHOULDER_PER_ANGSTROM) ** -2)
    contrast = rings.contrast(grid[:, np.newaxis], single=True)[:, :used]
    return np.asarray(contrast * (shape * rings.ring_inverse_error[:used]), dtype=np.float32)


def _weighted(rings: Rings, used: int) -> Singles:
    """The data of pooled sectors, (pooled sectors, rings used), weighted as for their ring's mean error."""
    weight = rings.inverse_error[:, :used] / np.maximum(rings.ring_inverse_error[:used], 1e-9)
    return np.asarray((rings.flat[:, :used] * weight).reshape(-1, _POOLED, used).sum(axis=1), dtype=np.float32)


def _waves(
    rings: Rings, grid: Floats, used: int, phase_radian: float = 0.0, *, with_quarter: bool = False
) -> list[Singles]:
    """−cos 2χ of every defocus, (grid, rings used), and if asked −sin 2χ."""
    turns = grid[:, np.newaxis] * (rings.defocus_phase[:used] / math.pi)
    turns += (rings.constant_phase[:used] + phase_radian) / math.pi
    # The fraction of a turn is all that matters: single precision is enough for that.
    turns -= np.rint(turns)
    angle = turns.astype(np.float32) * np.float32(math.tau)
    return [-np.cos(angle), -np.sin(angle)] if with_quarter else [-np.cos(angle)]


def _background_basis(rings: Rings) -> Singles:
    """Orthonormal backgrounds in standard errors: (rings, terms)."""
    smooth = spline_basis(rings.frequency_per_angstrom, BACKGROUND_TERMS) * rings.ring_inverse_error[:, np.newaxis]
    return np.asarray(np.linalg.qr(smooth)[0].astype(np.float32))


def _norms(waves: list[Singles], basis: Singles, bands: list[slice]) -> Floats:
    """Squared norms of the waves, with and without what lies in the background: (2, bands, grid)."""
    norms = np.empty((2, len(bands), len(waves[0])))
    for number, band in enumerate(bands):
        whole = np.mean([np.einsum("gr,gr->g", wave[:, band], wave[:, band]) for wave in waves], axis=0)
        inside = np.mean([np.sum((wave[:, band] @ basis[band]) ** 2, axis=1) for wave in waves], axis=0)
        norms[:, number] = whole, whole - inside
    return norms


def _squares(rings: Rings, norms: Floats) -> Floats:
    """Squared norms over all sectors without what lies in the background: (bands, grid), 0 where the background
    explains nearly all of them."""
    whole, left = norms
    says = left > _LEAST_LEFT_OF_NORM * whole.max(axis=1, keepdims=True)
    return np.where(says, left, 0.0) * len(rings.azimuth_radian)


def _bands(k: Floats) -> list[slice]:
    """The rings of every band."""
    edges = [0, *(int(np.searchsorted(k, 1 / edge)) for edge in _BAND_EDGES_ANGSTROM), len(k)]
    bands = [slice(first, last) for first, last in pairwise(edges) if last - first >= _FEWEST_RINGS_OF_BAND]
    return bands or [slice(0, len(k))]


@compiled_loosely
def best_offsets(
    real_sums: Singles,
    imaginary_sums: Singles,
    inverse_norms: Singles,
    offsets: NDArray[np.int64],
    reach: int,
    scores: Floats,
    winners: NDArray[np.int64],
    phases: Floats,
    first: int,
    end: int,
) -> None:
    """For mean defoci first … end − 1: the best squared score over all vectors of offsets, which, and its phase shift.

    real_sums, imaginary_sums : (bands, sectors, grid); the latter empty where there is no phase shift to be fitted.
    inverse_norms : (bands, grid). offsets : (vectors, sectors), in steps of the grid, which reaches beyond the mean
        defoci by `reach` at either end. scores, winners, phases : (mean defoci,), written.
    """
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
def _common_turn(real: Singles, imaginary: NDArray[np.float32], turn: Singles) -> None:
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

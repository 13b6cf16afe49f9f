"""The tilt of a specimen: a plane of defocus over the tiles of its picture.

Every tile has its own spectrum; the plane is searched on which all tiles' rings together stand out best (Mindell &
Grigorieff, J. Struct. Biol. 2003, 142, 334, doi:10.1016/S1047-8477(03)00069-8). With the plane known, the tiles'
spectra are stretched along the frequency until their phases are those of the picture's centre, and averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import in_bands
from coldchain.kernels import ctf_fit, ctf_search, spectrum
from coldchain.kernels.ctf_model import Defocus, Floats, Lens

_TILE_ANGSTROM = 450.0
_TILE_PIXEL = 256
_MOST_TILES = 7  # along an edge
_STEEPEST = math.tan(math.radians(65.0))
# The grid becomes finer by this from round to round.
_FINER = 4.0
_ROUNDS = 3
_REACH = 7  # of the finer rounds, in steps
_WIDEST_REACH = 24
_TINY = 1e-12
_STANDARD_ERRORS = 3.0
# Tiles that overlap more than this leaves do not tell a slope.
_LEAST_APART_EDGES = 0.5


@dataclass(frozen=True, slots=True)
class Plane:
    """Defocus at (x, y) Å from the picture's centre: mean + x_slope · x + y_slope · y, in Å."""

    mean_angstrom: float
    x_slope: float = 0.0
    y_slope: float = 0.0

    @property
    def tilt_degrees(self) -> float:
        """Between the specimen and the picture, in [0, 90)."""
        return math.degrees(math.atan(math.hypot(self.x_slope, self.y_slope)))

    @property
    def axis_degrees(self) -> float:
        """Azimuth of the line along which the defocus does not change, from x towards y, in [0, 180)."""
        return math.degrees(math.atan2(self.x_slope, -self.y_slope)) % 180.0 % 180.0


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """A plane with the covariance of its slopes, (2, 2), and the score of all tiles, each at its own place on it."""

    plane: Plane
    covariance: Floats
    score: float

    @property
    def significance(self) -> float:
        """The squared slope in its own standard errors; without a tilt a chi-square of two degrees of freedom."""
        slope = np.array([self.plane.x_slope, self.plane.y_slope])
        return float(slope @ np.linalg.pinv(self.covariance) @ slope)

    @property
    def uncertainty_degrees(self) -> float:
        """Three standard errors of the tilt; for a flat plane those of a tilt about the axis that is known worst."""
        slope = np.array([self.plane.x_slope, self.plane.y_slope])
        steepness = float(np.hypot(*slope))
        variance = float(np.linalg.eigvalsh(self.covariance)[-1])
        if steepness > 0:
            variance = float(slope @ self.covariance @ slope) / steepness**2
        return math.degrees(math.atan(_STANDARD_ERRORS * math.sqrt(max(0.0, variance)) / (1 + steepness**2)))


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """The spectra of a picture's tiles, and their centres in Å from its centre: (tiles,)."""

    spectra: tuple[spectrum.PolarSpectrum, ...]
    x_angstrom: Floats
    y_angstrom: Floats
    edge_angstrom: float


def tile_edge_pixel(shape: tuple[int, int], pixel_size_angstrom: float) -> int:
    """The edge of a tile of a picture (rows, columns)."""
    wanted = max(_TILE_PIXEL, round(_TILE_ANGSTROM / pixel_size_angstrom), math.ceil(max(shape) / _MOST_TILES))
    return min(wanted, min(shape))


def tiles_of(image: NDArray[np.generic], pixel_size_angstrom: float, band: spectrum.Band, threads: int = 1) -> Tiles:
    """The spectra of tiles that cover the picture (rows, columns)."""
    edge = tile_edge_pixel((image.shape[0], image.shape[1]), pixel_size_angstrom)
    starts = [
        np.rint(np.linspace(0, length - edge, max(1, math.ceil(length / edge)))).astype(int) for length in image.shape
    ]
    places = [(int(row), int(column)) for row in starts[0] for column in starts[1]]
    spectra = tuple(
        spectrum.of_picture(image[row : row + edge, column : column + edge], pixel_size_angstrom, band, threads)
        for row, column in places
    )
    y = [(row + 0.5 * (edge - image.shape[0])) * pixel_size_angstrom for row, _ in places]
    x = [(column + 0.5 * (edge - image.shape[1])) * pixel_size_angstrom for _, column in places]
    return Tiles(spectra, np.array(x, dtype=np.float64), np.array(y, dtype=np.float64), edge * pixel_size_angstrom)


def tell_a_slope(tiles: Tiles) -> bool:
    """Whether the tiles lie so far apart, along both edges, that a plane of defocus can be seen in them."""
    edge = tiles.edge_angstrom * _LEAST_APART_EDGES
    return min(float(np.ptp(tiles.x_angstrom)), float(np.ptp(tiles.y_angstrom))) >= edge


def fit_plane(
    tiles: Tiles,
    rings: Sequence[ctf_fit.Rings],
    astigmatism: Defocus,
    defocus_range: tuple[float, float],
    *,
    threads: int = 1,
) -> Plane:
    """The plane that fits best, with the astigmatism (and phase shift) of `astigmatism`; its mean is not looked at.

    `rings` are those of the tiles. `defocus_range`: least and largest mean in Å.
    """
    radius = max(float(np.hypot(tiles.x_angstrom, tiles.y_angstrom).max()), _TINY)
    if radius <= _TINY:
        return Plane(0.5 * sum(defocus_range))
    step = max(ctf_search.grid_step_angstrom(rings[0]), _STEEPEST * radius / _WIDEST_REACH)
    middle, half = 0.5 * sum(defocus_range), 0.5 * (defocus_range[1] - defocus_range[0])
    reach = math.ceil(_STEEPEST * radius / step)
    plane = _best_plane(
        rings, tiles, Plane(middle), astigmatism, (step, radius, math.ceil(half / step), reach), threads
    )
    for _ in range(_ROUNDS):
        step /= _FINER
        plane = _best_plane(rings, tiles, plane, astigmatism, (step, radius, _REACH, _REACH), threads)
    return plane


def _best_plane(
    rings: Sequence[ctf_fit.Rings],
    tiles: Tiles,
    about: Plane,
    astigmatism: Defocus,
    lattice: tuple[float, float, int, int],
    threads: int,
) -> Plane:
    """The best of a lattice about a plane: `lattice` is its step in Å, the radius at which a slope makes that step, and
    its half widths in the mean and in the slopes."""
    step, radius, half, reach = lattice
    steps = np.arange(-half - reach, half + reach + 1).astype(np.float64)
    sums, squares = [], []
    for tile, x, y in zip(rings, tiles.x_angstrom, tiles.y_angstrom, strict=True):
        here = about.mean_angstrom + about.x_slope * float(x) + about.y_slope * float(y)
        of_tile, square = ctf_search.along(tile, np.asarray(here + step * steps), astigmatism)
        sums.append(of_tile)
        squares.append(square)
    directions = np.stack([tiles.x_angstrom, tiles.y_angstrom]) / radius
    axis = np.arange(-reach, reach + 1)
    vectors = np.array([(a, b) for a in axis for b in axis if a * a + b * b <= reach * reach], dtype=np.float64)
    offsets = np.rint(vectors @ directions).astype(np.int64)
    squared = np.sum(squares, axis=0)
    inverse_norms = np.where(squared > 0, 1 / np.sqrt(np.where(squared > 0, squared, 1)), 0).astype(np.float32)
    count = 2 * half + 1
    scores, winners, phases = np.zeros(count), np.zeros(count, dtype=np.int64), np.zeros(count)
    stacked = np.ascontiguousarray(np.stack(sums, axis=1))
    nothing = np.zeros((0, 0, 0), dtype=np.float32)
    in_bands(
        lambda first, end: ctf_search.best_offsets(
            stacked, nothing, inverse_norms, offsets, reach, scores, winners, phases, first, end
        ),
        count,
        threads,
    )
    top = int(np.argmax(scores))
    slope = vectors[winners[top]] * step / radius
    return Plane(
        about.mean_angstrom + step * (top - half),
        about.x_slope + float(slope[0]),
        about.y_slope + float(slope[1]),
    )


def settle_plane(tiles: Tiles, rings: Sequence[ctf_fit.Rings], fit: ctf_fit.Refinement, plane: Plane) -> Settled:
    """The plane one Gauss–Newton step on, and how well it is known.

    `fit` is that of all tiles levelled by `plane`. Every tile tells how far its own defocus is from its place on the
    plane, and how well it knows; the covariance grows where the tiles disagree by more than they should.
    """
    seen = []
    for tile, x, y in zip(rings, tiles.x_angstrom, tiles.y_angstrom, strict=True):
        higher = plane.x_slope * float(x) + plane.y_slope * float(y)
        here = replace(fit.defocus, mean_angstrom=fit.defocus.mean_angstrom + higher)
        seen.append(ctf_fit.mean_step(tile, here, fit.envelope))
    offsets, worth = np.array([view.step_angstrom for view in seen]), np.array([view.worth for view in seen])
    design = np.column_stack([np.ones(len(offsets)), tiles.x_angstrom, tiles.y_angstrom])
    covariance = np.linalg.pinv(design.T @ (worth[:, np.newaxis] * design))
    moved = covariance @ (design.T @ (worth * offsets))
    spread = float(np.sum(worth * (offsets - design @ moved) ** 2)) / max(1, len(offsets) - len(moved))
    noise = max(1.0, fit.chi_square, spread)
    signal, square = sum(view.signal for view in seen), sum(view.square for view in seen)
    settled = Plane(
        plane.mean_angstrom + float(moved[0]), plane.x_slope + float(moved[1]), plane.y_slope + float(moved[2])
    )
    return Settled(settled, np.asarray(covariance[1:, 1:] * noise), signal / math.sqrt(max(square, _TINY) * noise))


def level(tiles: Tiles, lens: Lens, plane: Plane, astigmatism: Defocus) -> spectrum.PolarSpectrum:
    """One spectrum of all tiles, as if the specimen lay flat at the defocus of the picture's centre."""
    first = tiles.spectra[0]
    k = first.frequency_per_angstrom
    at_sector = astigmatism.at(first.azimuth_radian) - astigmatism.mean_angstrom
    total, samples = np.zeros(first.power.shape), np.zeros(first.power.shape)
    for tile, x, y in zip(tiles.spectra, tiles.x_angstrom, tiles.y_angstrom, strict=True):
        higher = plane.x_slope * float(x) + plane.y_slope * float(y)
        for sector, extra in enumerate(at_sector):
            flat = plane.mean_angstrom + float(extra)
            moved = lens.equiphase_frequency(k, np.full_like(k, flat), flat + higher)
            inside = np.isfinite(moved) & (moved >= k[0]) & (moved <= k[-1])
            weight = np.where(inside, np.interp(np.where(inside, moved, k[0]), k, tile.samples[sector]), 0.0)
            power = np.interp(np.where(inside, moved, k[0]), k, tile.power[sector])
            total[sector] += weight * power
            samples[sector] += weight
    ring_mean = total.sum(axis=0) / np.maximum(samples.sum(axis=0), _TINY)
    power = np.where(samples > 0, total / np.maximum(samples, _TINY), np.where(ring_mean > 0, ring_mean, 1.0))
    return spectrum.PolarSpectrum(k, first.azimuth_radian, power, samples, first.blur_per_angstrom)

"""How much of what a movie holds its sum kept: Fourier ring correlation with the planted image, against the best sum's.

Whoever looks at a map feels the information, not the track's error in Å. A sum's frame of reference is a convention
(first frame, middle, mean), and between two conventions lies a smooth displacement of a pixel or two that does not
change in time and costs no one anything. So the truth is bent, by a quadratic field over the image, to where the sum
has it; then rings of Fourier space are compared tile by tile, with cross- and auto-power added up over all tiles before
they are divided.

The best sum that a counting camera allows has, on a ring k, a signal-to-noise ratio of λ P(k) Σ_f q_f(k)² / N, with λ
electrons a pixel and frame, the planted contrast's power P over N pixels, and q_f what the exposure left of amplitude
in frame f. Its ring correlation with the truth is √(SNR / (1 + SNR)). The ratio of the two, each added up over rings,
is the information kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from coldchain.errors import UsageError
from coldchain.simulate import optics
from coldchain.simulate.truth import MovieParameters
from coldchain.simulate.warp import coefficient_factors, sample_spline

Image: TypeAlias = NDArray[np.float32]
Curve: TypeAlias = NDArray[np.float64]

_TILE_ANGSTROM = 530.0  # 640 pixels of a K3 at 0.83 Å
_STEP_TILES = 0.5
_FIRST_RING = 1
_FINE_ANGSTROM = 3.0
_COARSE_ANGSTROM = 5.0
_PASSES = 3
_FIELD_TERMS = 6
_BAND_ROWS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Information:
    """What a sum kept; 1 is all.

    `to_3_angstrom`, `between_5_and_3_angstrom`: Σ FRC of the sum over Σ FRC of the ideal sum, over the rings up to 3 Å
    or to Nyquist, and over those between 5 and 3 Å. `frequency`, `found`, `ideal`: the curves (rings,), in 1/Å.
    `field_x_pixel`, `field_y_pixel`: (6,) the static displacement of the sum from frame 0's place that was undone, as
    coefficients of 1, u, u², v, v², uv with u = x / width − ½ and v = y / height − ½. `field_residual_pixel`: rms of
    the tiles' displacements that no such field explains, noise included.
    """

    to_3_angstrom: float
    between_5_and_3_angstrom: float
    frequency: Curve
    found: Curve
    ideal: Curve
    field_x_pixel: Curve
    field_y_pixel: Curve
    field_residual_pixel: float


def information(micrograph: Image, ideal: Image, parameters: MovieParameters) -> Information:
    """Compare a sum of all frames with the planted image.

    Parameters
    ----------
    micrograph : (rows, columns) the sum at the movie's own pixel size, in the rows' order of `ideal`; its scale and any
        filter that depends on the ring alone do not matter.
    ideal : (rows, columns) the undamaged intensity at frame 0, as `SimulatedMovie.ideal`.
    parameters : the movie's.

    Raises
    ------
    UsageError : the two have different shapes, or are smaller than two tiles.
    """
    if micrograph.shape != ideal.shape:
        raise UsageError(
            f"a sum of {micrograph.shape[1]} × {micrograph.shape[0]} pixels",
            expected=f"{ideal.shape[1]} × {ideal.shape[0]}, as the movie's frames",
            remedy="Sum without binning.",
        )
    tiles = _Tiles.over(parameters)
    coefficients = _spline_coefficients(ideal)
    fields = np.zeros((2, _FIELD_TERMS))
    residual = math.inf
    planted = ideal
    for _ in range(_PASSES):
        offsets = np.array([tiles.offset(micrograph, planted, place) for place in tiles.places])
        correction, residual = tiles.fit(offsets)
        fields += correction
        planted = _displaced(coefficients, fields)
    cross, power, truth = (np.zeros(tiles.rings) for _ in range(3))
    for place in tiles.places:
        one, other = tiles.transform(micrograph, place), tiles.transform(planted, place)
        cross += tiles.ring_sums((one * other.conj()).real)
        power += tiles.ring_sums(np.abs(one) ** 2)
        truth += tiles.ring_sums(np.abs(other) ** 2)
    found = cross / np.sqrt(power * truth)
    contrast_power = truth / (tiles.ring_sums(np.ones(tiles.half_plane)) * len(tiles.places))
    best = ideal_correlation(tiles.frequency, contrast_power, tiles.window_power, parameters)
    kept = [found[band].sum() / best[band].sum() for band in tiles.bands]
    return Information(kept[0], kept[1], tiles.frequency, found, best, fields[1], fields[0], residual)


def ideal_correlation(
    frequency: Curve, contrast_power: Curve, pixels: float, parameters: MovieParameters
) -> NDArray[np.float64]:
    """The ring correlation with the truth of the best sum, (rings,).

    `contrast_power` is the mean square of the planted contrast's transform over `pixels` pixels; for a windowed tile
    `pixels` is the sum of the window's squares.
    """
    dose = parameters.dose_per_frame_e_per_square_angstrom
    middles = (np.arange(parameters.frames) + 0.5) * dose
    decay = optics.decay_rate(frequency, parameters.voltage_kilovolt)
    left = np.exp(-2 * np.outer(middles, decay)).sum(axis=0)
    ratio = dose * parameters.pixel_size_angstrom**2 * contrast_power * left / pixels
    result: NDArray[np.float64] = np.sqrt(ratio / (1 + ratio))
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Tiles:
    """Square tiles of `side` pixels that overlap by half, and the rings of their transforms."""

    shape: tuple[int, int]
    side: int
    places: tuple[tuple[int, int], ...]
    window: Image
    window_power: float
    ring: NDArray[np.intp]
    multiplicity: Curve
    frequency: Curve
    bands: tuple[NDArray[np.bool_], NDArray[np.bool_]]

    @property
    def rings(self) -> int:
        return len(self.frequency)

    @property
    def half_plane(self) -> tuple[int, int]:
        return self.side, self.side // 2 + 1

    @classmethod
    def over(cls, parameters: MovieParameters) -> _Tiles:
        """Tiles over all of the frame that holds the specimen in every frame."""
        pixel = parameters.pixel_size_angstrom
        inset = math.ceil((parameters.drift_angstrom + parameters.local_motion_angstrom) / pixel)
        height, width = parameters.height, parameters.width
        side = scipy.fft.next_fast_len(math.ceil(_TILE_ANGSTROM / pixel), real=True)
        side = min(side, 2 * ((min(height, width) - 2 * inset) // 4))
        if side < 32:
            raise UsageError(
                f"a movie of {width} × {height} pixels that moves by {inset}",
                expected="room for two tiles of 32 pixels along each axis",
            )
        rows, columns = (_starts(length, side, inset) for length in (height, width))
        window = np.outer(_hann(side), _hann(side)).astype(np.float32)
        radius = side * np.hypot(*optics.half_plane((side, side), 1.0))
        last = math.floor(side * pixel * min(0.5 / pixel, 1 / _FINE_ANGSTROM))
        ring = np.rint(radius).astype(np.intp) - _FIRST_RING
        ring[(ring < 0) | (ring > last - _FIRST_RING)] = last - _FIRST_RING + 1
        frequency = np.arange(_FIRST_RING, last + 1) / (side * pixel)
        multiplicity = np.full(side // 2 + 1, 2.0)
        multiplicity[0] = 1
        if side % 2 == 0:
            multiplicity[-1] = 1
        return cls(
            (height, width),
            side,
            tuple((row, column) for row in rows for column in columns),
            window,
            float((window.astype(np.float64) ** 2).sum()),
            ring,
            multiplicity,
            frequency,
            (np.ones(len(frequency), dtype=bool), frequency >= 1 / _COARSE_ANGSTROM),
        )

    def transform(self, image: Image, place: tuple[int, int]) -> NDArray[np.complex64]:
        tile = image[place[0] : place[0] + self.side, place[1] : place[1] + self.side]
        spectrum: NDArray[np.complex64] = scipy.fft.rfft2((tile - tile.mean(dtype=np.float64)) * self.window)
        return spectrum

    def ring_sums(self, values: NDArray[np.floating]) -> Curve:
        """Σ over each ring of both half-planes."""
        weighted = (values * self.multiplicity).ravel()
        sums: Curve = np.bincount(self.ring.ravel(), weighted, minlength=self.rings + 1)[: self.rings].astype(
            np.float64
        )
        return sums

    def offset(self, one: Image, other: Image, place: tuple[int, int]) -> tuple[float, float]:
        """Displacement (y, x) of a tile of `one` from that of `other`, pixels: the cross-correlation's peak."""
        spectrum = self.transform(one, place) * self.transform(other, place).conj()
        spectrum[self.ring > self.rings - 1] = 0
        correlation = scipy.fft.irfft2(spectrum, (self.side, self.side))
        row, column = np.unravel_index(int(correlation.argmax()), correlation.shape)
        around = correlation[np.ix_((row + np.arange(-1, 2)) % self.side, (column + np.arange(-1, 2)) % self.side)]
        y, x = row + _vertex(around[:, 1]), column + _vertex(around[1])
        half = self.side / 2
        return float((y + half) % self.side - half), float((x + half) % self.side - half)

    def fit(self, offsets: Curve) -> tuple[Curve, float]:
        """The quadratic field (2, terms) through tiles' offsets (tiles, 2), and the rms distance that it leaves.

        A tile whose peak lies far from the field is one without a specimen; it is left out.
        """
        centre = np.array(self.places) + (self.side - 1) / 2
        terms = _field_terms(centre[:, 0] / self.shape[0] - 0.5, centre[:, 1] / self.shape[1] - 0.5)
        used = np.ones(len(offsets), dtype=bool)
        for _ in range(4):
            field = np.asarray(np.linalg.lstsq(terms[used], offsets[used], rcond=None)[0], dtype=np.float64)
            distance = np.hypot(*(offsets - terms @ field).T)
            used = distance <= max(4 * float(np.median(distance)), 0.1)
        return field.T, float(np.sqrt((distance[used] ** 2).mean()))


def _starts(length: int, side: int, inset: int) -> NDArray[np.intp]:
    room = length - 2 * inset - side
    count = max(1, math.ceil(room / (_STEP_TILES * side)) + 1)
    return np.rint(inset + np.linspace(0, room, count)).astype(np.intp)


def _hann(side: int) -> Curve:
    result: Curve = 0.5 - 0.5 * np.cos(2 * math.pi * (np.arange(side) + 0.5) / side)
    return result


def _vertex(values: NDArray[np.float32]) -> float:
    before, middle, after = (float(value) for value in values)
    curvature = before - 2 * middle + after
    return 0.5 * (before - after) / curvature if curvature < 0 else 0.0


def _field_terms(v: Curve, u: Curve) -> Curve:
    """(…, 6): 1, u, u², v, v², uv."""
    return np.stack(np.broadcast_arrays(np.ones(1), u, u * u, v, v * v, u * v), axis=-1)


def _spline_coefficients(image: Image) -> Image:
    """Of the picture mirrored about its last row and column, so that it is periodic without a step."""
    mirrored = np.pad(image, ((0, image.shape[0]), (0, image.shape[1])), mode="symmetric")
    kx, ky = optics.half_plane((mirrored.shape[0], mirrored.shape[1]), 1.0)
    spectrum = scipy.fft.rfft2(mirrored)
    spectrum *= coefficient_factors(kx).astype(np.float32)
    spectrum *= coefficient_factors(ky).astype(np.float32)
    coefficients: Image = scipy.fft.irfft2(spectrum, mirrored.shape, overwrite_x=True)
    return coefficients


def _displaced(coefficients: Image, fields: Curve) -> Image:
    """The planted image displaced by the field: at X stands what was at X − field(X)."""
    height, width = coefficients.shape[0] // 2, coefficients.shape[1] // 2
    out = np.empty((height, width), dtype=np.float32)
    columns = np.arange(width, dtype=np.float64)[np.newaxis]
    for rows in _bands(height):
        terms = _field_terms(rows / height - 0.5, columns / width - 0.5)
        target = out[int(rows[0, 0]) : int(rows[-1, 0]) + 1]
        sample_spline(coefficients, rows - terms @ fields[0], columns - terms @ fields[1], target)
    return out


def _bands(height: int) -> Iterator[Curve]:
    for first in range(0, height, _BAND_ROWS):
        yield np.arange(first, min(first + _BAND_ROWS, height), dtype=np.float64)[:, np.newaxis]

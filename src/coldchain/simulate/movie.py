"""One movie: particles in ice, imaged, displaced and damaged frame by frame, and counted by a camera.

The weak-phase picture: intensity = 1 + 2 · inverse FT [ CTF · envelope · FT φ ], with φ the specimen's phase beyond
that of the ice. The field is simulated larger than the frame, so that what drifts out at one edge does not come in at
the other. The camera counts every electron in the pixel where it lands (no MTF), and nothing moves within one frame.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from coldchain.errors import UsageError
from coldchain.simulate import camera, optics
from coldchain.simulate.specimen import Specimen, ice_scattering_power_per_square_angstrom, random_rotation
from coldchain.simulate.truth import MovieParameters, MovieTruth
from coldchain.simulate.warp import coefficient_factors, sample_spline

__all__ = ["MovieParameters", "MovieTruth", "SimulatedMovie", "local_displacement_angstrom", "simulate_movie"]

_ATOM_BFACTOR_SQUARE_ANGSTROM = 80.0  # an atom's own form (17 Å² for carbon) and its thermal motion
_ICE_BFACTOR_SQUARE_ANGSTROM = 40.0  # the same of a frozen water molecule
_ICE_STRUCTURE_FLOOR = 0.1  # S(k) of amorphous ice at low frequency
_ICE_PEAK_PER_ANGSTROM = 0.27  # its first ring, at 3.7 Å
_ICE_PEAK_WIDTH_PER_ANGSTROM = 0.025
_PARTICLE_COVERAGE = 1 / 3
_PLACEMENT_ROUNDS = 200  # of 1000 candidates each
_PLACEMENT_CANDIDATES = 1000
_FIELD_MARGIN_PIXEL = 16
_WARP_BAND_ROWS = 64


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedMovie:
    """A movie and what is in it.

    `frames`: uint8 (frames, rows, columns), raw counts; times `gain`, where there is one, they are electrons. `gain`:
    float32 (rows, columns), multiplicative, 0 on dead columns; None without a gain. `defects`: bool (rows, columns),
    dead columns and hot pixels; None without defects. `ideal`: float32 (rows, columns), the undamaged intensity at
    frame 0, free of counting noise, mean about 1.
    """

    frames: NDArray[np.uint8]
    gain: NDArray[np.float32] | None
    defects: NDArray[np.bool_] | None
    ideal: NDArray[np.float32]
    truth: MovieTruth


def simulate_movie(parameters: MovieParameters, specimen: Specimen, *, threads: int = 1) -> SimulatedMovie:
    """Make one movie. The same parameters and specimen give the same bytes, with however many threads.

    Raises
    ------
    UsageError : the wanted particles do not fit without overlapping.
    """
    seeds = np.random.SeedSequence(parameters.seed).spawn(4)
    track_rng, place_rng, field_rng, count_rng = (np.random.default_rng(seed) for seed in seeds)
    shift_x, shift_y = _drift_track(parameters, track_rng)
    particle_x, particle_y = _place_particles(parameters, specimen, place_rng)
    field = _Field.around(parameters, shift_x, shift_y)
    spectrum = _image_spectrum(parameters, specimen, field, particle_x, particle_y, field_rng)
    detector = camera.make_camera(parameters)
    frames = np.empty((parameters.frames, parameters.height, parameters.width), dtype=np.uint8)
    for index, contrast in enumerate(_contrasts(parameters, field, spectrum, shift_x, shift_y, threads)):
        frames[index] = detector.count(1 + contrast, count_rng)
    ideal = 1 + field.crop(scipy.fft.irfft2(spectrum, field.shape))
    truth = MovieTruth(
        parameters=parameters,
        specimen=specimen.name,
        particle_diameter_angstrom=specimen.diameter_angstrom,
        shift_x_angstrom=tuple(shift_x.tolist()),
        shift_y_angstrom=tuple(shift_y.tolist()),
        particle_x_pixel=tuple(particle_x.tolist()),
        particle_y_pixel=tuple(particle_y.tolist()),
    )
    return SimulatedMovie(frames, detector.gain, detector.defects, ideal.astype(np.float32), truth)


def local_displacement_angstrom(
    parameters: MovieParameters, frame: int, x_pixel: NDArray[np.float64], y_pixel: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a place of frame 0 moves by frame *f*, in Å along x and y, beyond the whole frame's drift.

    A doming: radial, quadratic in the distance from the centre, `local_motion_angstrom` at the corners in the last
    frame, and as 1 − exp(−5 f / last) in time. Zero at frame 0 and in the centre.
    """
    last = max(parameters.frames - 1, 1)
    progress = (1 - math.exp(-5 * frame / last)) / (1 - math.exp(-5))
    u = 2 * x_pixel / (parameters.width - 1) - 1
    v = 2 * y_pixel / (parameters.height - 1) - 1
    radius = np.hypot(u, v)
    scale = parameters.local_motion_angstrom * progress / 2
    return scale * u * radius, scale * v * radius


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """The simulated area and its frequencies. Pixel (0, 0) of the frame is pixel (`margin`, `margin`) of the field."""

    shape: tuple[int, int]
    frame_shape: tuple[int, int]
    margin: int
    kx: NDArray[np.float64]
    ky: NDArray[np.float64]
    squared: NDArray[np.float64]
    decay: NDArray[np.float32]

    @classmethod
    def around(cls, parameters: MovieParameters, shift_x: NDArray[np.float64], shift_y: NDArray[np.float64]) -> _Field:
        reach = max(float(np.abs(shift_x).max()), float(np.abs(shift_y).max())) + parameters.local_motion_angstrom
        margin = math.ceil(reach / parameters.pixel_size_angstrom) + _FIELD_MARGIN_PIXEL
        rows = scipy.fft.next_fast_len(parameters.height + 2 * margin, real=True)
        columns = scipy.fft.next_fast_len(parameters.width + 2 * margin, real=True)
        kx, ky = optics.half_plane((rows, columns), parameters.pixel_size_angstrom)
        squared = kx * kx + ky * ky
        decay = optics.decay_rate(np.sqrt(squared), parameters.voltage_kilovolt).astype(np.float32)
        return cls((rows, columns), (parameters.height, parameters.width), margin, kx, ky, squared, decay)

    def crop(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        rows, columns = self.frame_shape
        return image[self.margin : self.margin + rows, self.margin : self.margin + columns]


def _drift_track(
    parameters: MovieParameters, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Displacements (frames,) along x and y in Å: most of the way in the first frames, then slow, on a bent path."""
    time = np.linspace(0, 1, parameters.frames) if parameters.frames > 1 else np.zeros(1)
    jump = (1 - np.exp(-time / 0.1)) / (1 - math.exp(-1 / 0.1))
    distance = parameters.drift_angstrom * (0.6 * jump + 0.4 * time)
    direction = rng.uniform(0, 2 * math.pi) + rng.uniform(-1, 1) * time
    return distance * np.cos(direction), distance * np.sin(direction)


def _place_particles(
    parameters: MovieParameters, specimen: Specimen, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (particles,) in pixels: inside the edge in every frame, and a diameter or more apart."""
    diameter = specimen.diameter_angstrom / parameters.pixel_size_angstrom
    margin = (
        0.5 * diameter + (parameters.drift_angstrom + parameters.local_motion_angstrom) / parameters.pixel_size_angstrom
    )
    low = np.array([margin, margin])
    high = np.array([parameters.width - 1 - margin, parameters.height - 1 - margin])
    if parameters.particles == 0:
        return np.empty(0), np.empty(0)
    room = np.maximum(high - low, 0)
    fair_share = int(_PARTICLE_COVERAGE * float(room.prod()) / (0.25 * math.pi * diameter**2))
    wanted = max(fair_share, 1) if parameters.particles is None else parameters.particles
    centres: list[NDArray[np.float64]] = []
    for _ in range(_PLACEMENT_ROUNDS if (high > low).all() else 0):
        candidates = rng.uniform(low, high, size=(_PLACEMENT_CANDIDATES, 2))
        if centres:
            candidates = candidates[cdist(candidates, np.array(centres)).min(axis=1) >= diameter]
        earlier = len(centres)
        for candidate in candidates:
            if len(centres) < wanted and all(math.dist(candidate, other) >= diameter for other in centres[earlier:]):
                centres.append(candidate)
        if len(centres) == wanted:
            placed = np.array(centres)
            return placed[:, 0], placed[:, 1]
    raise UsageError(
        f"room for {len(centres)} particles of {specimen.diameter_angstrom:.0f} Å in {parameters.width} × "
        f"{parameters.height} pixels of {parameters.pixel_size_angstrom:g} Å",
        expected=f"room for {wanted}",
        remedy="Ask for fewer particles, or for a larger frame.",
    )


def _image_spectrum(
    parameters: MovieParameters,
    specimen: Specimen,
    field: _Field,
    particle_x: NDArray[np.float64],
    particle_y: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.complex64]:
    """Half-plane transform of the undamaged image's contrast at frame 0."""
    density = _deposit(parameters, specimen, field, particle_x, particle_y, rng)
    # Depositing an atom on four pixels is a convolution with a triangle along each axis; undo its transform.
    triangle = (
        np.sinc(field.kx * parameters.pixel_size_angstrom) * np.sinc(field.ky * parameters.pixel_size_angstrom)
    ) ** 2
    spectrum = scipy.fft.rfft2(density).astype(np.complex64)
    spectrum *= (optics.envelope(field.squared, _ATOM_BFACTOR_SQUARE_ANGSTROM) / triangle).astype(np.float32)
    spectrum += _ice_spectrum(parameters, field, rng)
    interaction = optics.interaction_radian_angstrom(parameters.voltage_kilovolt)
    transfer = parameters.lens.transfer(field.kx, field.ky)
    transfer *= optics.envelope(field.squared, parameters.bfactor_square_angstrom)
    transfer *= 2 * interaction * parameters.contrast
    spectrum *= transfer.astype(np.float32)
    spectrum[0, 0] = 0  # the beam's mean is the dose's
    return spectrum


def _deposit(
    parameters: MovieParameters,
    specimen: Specimen,
    field: _Field,
    particle_x: NDArray[np.float64],
    particle_y: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Σ f of every atom over the pixel's area, in 1/Å: each particle in its own orientation."""
    density = np.zeros(field.shape, dtype=np.float32)
    scattering = specimen.scattering_angstrom() / parameters.pixel_size_angstrom**2
    for x, y in zip(particle_x, particle_y, strict=True):
        turned = specimen.positions_angstrom @ random_rotation(rng)[:, :2] / parameters.pixel_size_angstrom
        columns, rows = turned[:, 0] + x + field.margin, turned[:, 1] + y + field.margin
        first_row, first_column = int(rows.min()), int(columns.min())
        patch = _share_among_pixels(rows - first_row, columns - first_column, scattering)
        density[first_row : first_row + patch.shape[0], first_column : first_column + patch.shape[1]] += patch
    return density


def _share_among_pixels(
    rows: NDArray[np.float64], columns: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The smallest image that holds the points, each shared bilinearly among the four pixels around it."""
    row, column = rows.astype(np.intp), columns.astype(np.intp)
    row_part, column_part = rows - row, columns - column
    height, width = int(row.max()) + 2, int(column.max()) + 2
    image = np.zeros(height * width)
    for row_step, row_weight in ((0, 1 - row_part), (1, row_part)):
        for column_step, column_weight in ((0, 1 - column_part), (1, column_part)):
            index = (row + row_step) * width + column + column_step
            image += np.bincount(index, weights * row_weight * column_weight, minlength=height * width)
    return image.reshape(height, width)


def _ice_spectrum(parameters: MovieParameters, field: _Field, rng: np.random.Generator) -> NDArray[np.complex64]:
    """Structural noise of the ice: a Gaussian field with the spectrum of molecules at random, times a modest S(k)."""
    per_area = ice_scattering_power_per_square_angstrom(parameters.ice_thickness_angstrom)
    white = rng.standard_normal(field.shape, dtype=np.float32)
    ring = (np.sqrt(field.squared) - _ICE_PEAK_PER_ANGSTROM) / _ICE_PEAK_WIDTH_PER_ANGSTROM
    structure = _ICE_STRUCTURE_FLOOR + np.exp(-0.5 * ring**2)
    amplitude = np.sqrt(per_area * structure) / parameters.pixel_size_angstrom
    amplitude *= optics.envelope(field.squared, _ICE_BFACTOR_SQUARE_ANGSTROM)
    spectrum: NDArray[np.complex64] = scipy.fft.rfft2(white) * amplitude.astype(np.float32)
    return spectrum


def _contrasts(
    parameters: MovieParameters,
    field: _Field,
    spectrum: NDArray[np.complex64],
    shift_x: NDArray[np.float64],
    shift_y: NDArray[np.float64],
    threads: int,
) -> Iterator[NDArray[np.float32]]:
    """Each frame's contrast (rows, columns) in turn; with more threads than one, the next are made meanwhile."""

    def contrast(index: int) -> NDArray[np.float32]:
        return _frame_contrast(parameters, field, spectrum, index, float(shift_x[index]), float(shift_y[index]))

    if threads <= 1:
        yield from map(contrast, range(parameters.frames))
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        ahead: deque[Future[NDArray[np.float32]]] = deque()
        for index in range(parameters.frames):
            ahead.append(pool.submit(contrast, index))
            if len(ahead) == threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _frame_contrast(
    parameters: MovieParameters,
    field: _Field,
    spectrum: NDArray[np.complex64],
    index: int,
    shift_x_angstrom: float,
    shift_y_angstrom: float,
) -> NDArray[np.float32]:
    """One frame's contrast (rows, columns): damaged by the exposure at the frame's middle, displaced by its shift."""
    exposure = (index + 0.5) * parameters.dose_per_frame_e_per_square_angstrom
    along_x, along_y = optics.shift_phases(field.kx, field.ky, shift_x_angstrom, shift_y_angstrom)
    bent = parameters.local_motion_angstrom > 0
    if bent:
        pixel = parameters.pixel_size_angstrom
        along_x *= coefficient_factors(field.kx * pixel).astype(np.float32)
        along_y *= coefficient_factors(field.ky * pixel).astype(np.float32)
    damaged = spectrum * np.exp(field.decay * np.float32(-exposure))
    damaged *= along_x
    damaged *= along_y
    picture: NDArray[np.float32] = scipy.fft.irfft2(damaged, field.shape, overwrite_x=True)
    if not bent:
        return field.crop(picture)
    return _warp(parameters, field, picture, index, shift_x_angstrom, shift_y_angstrom)


def _warp(
    parameters: MovieParameters,
    field: _Field,
    coefficients: NDArray[np.float32],
    index: int,
    shift_x_angstrom: float,
    shift_y_angstrom: float,
) -> NDArray[np.float32]:
    """The frame with the local motion on top, from the spline coefficients of the field's.

    What is at X in the frame came from X₀ = X − s − d(X₀). d changes so little over its own length that the first step
    of the iteration from X − s is within a thousandth of it.
    """
    height, width = field.frame_shape
    pixel = parameters.pixel_size_angstrom
    warped = np.empty(field.frame_shape, dtype=np.float32)
    columns = np.arange(width, dtype=np.float64)[np.newaxis, :]
    # A band's coordinates stay in the cache, and take no memory to speak of.
    for first in range(0, height, _WARP_BAND_ROWS):
        rows = np.arange(first, min(first + _WARP_BAND_ROWS, height), dtype=np.float64)[:, np.newaxis]
        x, y = columns - shift_x_angstrom / pixel, rows - shift_y_angstrom / pixel
        moved_x, moved_y = local_displacement_angstrom(parameters, index, x, y)
        moved_x, moved_y = local_displacement_angstrom(parameters, index, x - moved_x / pixel, y - moved_y / pixel)
        source_rows, source_columns = rows + field.margin - moved_y / pixel, columns + field.margin - moved_x / pixel
        sample_spline(coefficients, source_rows, source_columns, warped[first : first + len(rows)])
    return warped

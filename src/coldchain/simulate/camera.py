"""The camera: pixels of unequal gain, a few that are dead or hot, and Poisson's counting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coldchain.simulate.truth import MovieParameters

_PIXEL_GAIN_SPREAD = 0.04
_COLUMN_GAIN_SPREAD = 0.02
_BLOCK_GAIN_SPREAD = 0.03
_BLOCKS = 8  # along each axis: a sensor is read out in blocks, whose amplifiers differ
_DEAD_COLUMNS_PER_1024 = 3
_HOT_PIXELS_PER_MEGAPIXEL = 40
_HOT_COUNTS_PER_FRAME = 60.0
_BRIGHT_ELECTRONS_PER_PIXEL = 8.0
_UNIFORM_STEP = 2.0**-24  # of NumPy's float32 uniform numbers


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """`response`: float32 (rows, columns), counts per electron, 0 on dead columns. `gain`: float32, multiplicative, or
    None for a camera that delivers corrected counts. `hot`: indices (rows, columns) of hot pixels."""

    electrons_per_pixel: float
    response: NDArray[np.float32]
    gain: NDArray[np.float32] | None
    defects: NDArray[np.bool_] | None
    hot: tuple[NDArray[np.intp], NDArray[np.intp]]

    def count(self, intensity: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
        """One frame's raw counts, uint8 (rows, columns), of a relative intensity (rows, columns) of mean 1."""
        expected = np.maximum(intensity, 0) * self.response
        expected *= np.float32(self.electrons_per_pixel)
        counts = _poisson(expected, rng)
        counts[self.hot] = np.minimum(rng.poisson(_HOT_COUNTS_PER_FRAME, len(self.hot[0])), 255)
        return counts


def make_camera(parameters: MovieParameters) -> Camera:
    """The camera of `camera_seed`: the same for every movie of a session."""
    rng = np.random.default_rng(np.random.SeedSequence([parameters.camera_seed, parameters.height, parameters.width]))
    shape = (parameters.height, parameters.width)
    response = _uneven_response(shape, rng) if parameters.gain else np.ones(shape, dtype=np.float32)
    dead = np.zeros(parameters.width, dtype=bool)
    hot = (np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp))
    if parameters.defects:
        dead_count = max(1, _DEAD_COLUMNS_PER_1024 * parameters.width // 1024)
        dead[rng.choice(parameters.width, dead_count, replace=False)] = True
        hot_count = max(2, _HOT_PIXELS_PER_MEGAPIXEL * parameters.height * parameters.width // 2**20)
        hot_index = rng.choice(parameters.height * parameters.width, hot_count, replace=False)
        hot = (hot_index // parameters.width, hot_index % parameters.width)
    # Corrected counts keep a dead column dead; a raw camera's gain reference marks it with 0.
    gain = np.where(dead, 0, 1 / response).astype(np.float32) if parameters.gain else None
    defects = np.broadcast_to(dead, shape).copy()
    defects[hot] = True
    return Camera(
        parameters.dose_per_frame_e_per_square_angstrom * parameters.pixel_size_angstrom**2,
        np.where(dead, 0, response).astype(np.float32),
        gain,
        defects if parameters.defects else None,
        hot,
    )


def _poisson(expected: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Poisson counts, at most 255, of float32 expectations.

    A few electrons a pixel are counted by inverting the distribution for all pixels at once, which takes half the time
    of NumPy's generator. The last few, whose tail float32 cannot resolve, are counted again in float64.
    """
    if float(expected.max()) > _BRIGHT_ELECTRONS_PER_PIXEL:
        return np.minimum(rng.poisson(expected), 255).astype(np.uint8)
    uniform = rng.random(expected.shape, dtype=np.float32)
    counts, above = _invert(expected, uniform, leave=0.01)
    tail = np.nonzero(above)
    finer = uniform[tail] + _UNIFORM_STEP * rng.random(len(tail[0]))
    counts[tail], _ = _invert(expected[tail].astype(np.float64), finer, leave=0.0)
    return counts


def _invert(
    expected: NDArray[np.floating], uniform: NDArray[np.floating], *, leave: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The counts whose cumulative probability reaches `uniform`, and where they do not yet, a fraction of at most
    `leave` of all."""
    probability = np.exp(-expected)
    cumulative = probability.copy()
    counts = np.zeros(expected.shape, dtype=np.uint8)
    above = uniform > cumulative
    count = 0
    while count < 255 and np.count_nonzero(above) > leave * above.size:
        counts += above
        count += 1
        probability *= expected
        probability /= count
        cumulative += probability
        above = uniform > cumulative
    return counts, above


def _uneven_response(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    rows, columns = shape
    blocks = rng.normal(1, _BLOCK_GAIN_SPREAD, size=(_BLOCKS, _BLOCKS))
    response = blocks[np.arange(rows)[:, np.newaxis] * _BLOCKS // rows, np.arange(columns) * _BLOCKS // columns]
    response *= rng.normal(1, _COLUMN_GAIN_SPREAD, size=columns)
    response *= rng.normal(1, _PIXEL_GAIN_SPREAD, size=shape)
    response = np.clip(response, 0.5, 2.0)
    result: NDArray[np.float32] = (response / response.mean()).astype(np.float32)
    return result

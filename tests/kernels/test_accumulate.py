"""The pass over the pixels adds up what the plain formula of the sampled B-spline adds up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from planted_motion import correction, cubic_spline, sampled_between

from coldchain.kernels.accumulate import (
    TILE_COLUMNS,
    TILE_ROWS,
    accumulate,
    interpolation_response,
    tile_centres,
)
from coldchain.kernels.prepare import Correction

Image = NDArray[np.float32]


def tiles_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of tiles."""
    return -(-shape[0] // TILE_ROWS), -(-shape[1] // TILE_COLUMNS)


def everywhere(shape: tuple[int, ...], shifts: list[float]) -> Image:
    """The same displacement of each frame in all tiles."""
    return np.broadcast_to(np.array(shifts, dtype=np.float32), (*tiles_of(shape), len(shifts))).copy()


def plain_sums(
    frames: NDArray[np.generic], whole: Correction, shift_y: Image, shift_x: Image, weights: Image
) -> NDArray[np.float64]:
    """Every frame corrected, and sampled for every tile with that tile's displacement."""
    shape = frames.shape[1:]
    sums = np.zeros((len(weights), *shape))
    y, x = np.arange(shape[0]), np.arange(shape[1])
    for number in np.flatnonzero(weights.any(axis=0)):
        picture = whole.apply(frames[number], int(number))
        for tile_row, tile_column in np.ndindex(shift_y.shape[:2]):
            rows = y[tile_row * TILE_ROWS : (tile_row + 1) * TILE_ROWS]
            columns = x[tile_column * TILE_COLUMNS : (tile_column + 1) * TILE_COLUMNS]
            sy, sx = (np.float64(shift[tile_row, tile_column, number]) for shift in (shift_y, shift_x))
            sampled = sampled_between(picture, (rows, np.full(rows.size, sy)), (columns, np.full(columns.size, sx)))
            sums[:, rows[:, None], columns] += weights[:, number, None, None] * sampled
    return sums


def random_case(
    shape: tuple[int, int, int], dtype: type, largest: float, *, with_dark: bool, share: float, seed: int
) -> tuple[NDArray[np.generic], Correction, Image, Image, Image]:
    """Frames, correction, displacements and the weights of two sums."""
    rng = np.random.default_rng(seed)
    frames = rng.poisson(20.0, size=shape).astype(dtype)
    bad = rng.random(shape[1:]) < share
    bad[0, 0] = False
    gain = rng.uniform(0.5, 2, shape[1:]).astype(np.float32)
    gain[bad] = 0
    dark = rng.normal(5, 3, shape[1:]).astype(np.float32) if with_dark else None
    shift_y, shift_x = rng.uniform(-largest, largest, (2, *tiles_of(shape[1:]), shape[0])).astype(np.float32)
    weights = rng.normal(size=(2, shape[0])).astype(np.float32)
    return frames, correction(shape[1:], gain=gain, dark=dark, bad=bad, frames=shape[0]), shift_y, shift_x, weights


@given(
    frames=st.integers(1, 9),
    rows=st.sampled_from([1, 2, 3, 15, 16, 17, 37]),
    columns=st.sampled_from([1, 2, 5, 61, 127, 128, 131, 257]),
    dtype=st.sampled_from([np.uint8, np.float32]),
    largest=st.sampled_from([0.0, 0.9, 7.0, 400.0]),
    with_dark=st.booleans(),
    share=st.sampled_from([0.0, 0.03, 0.5]),
    threads=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_sums_are_those_of_the_plain_formula(
    frames: int,
    rows: int,
    columns: int,
    dtype: type,
    largest: float,
    with_dark: bool,
    share: float,
    threads: int,
    seed: int,
) -> None:
    """For any shape, displacements from none to more than the picture's length, a tile each, with dark and defects."""
    case = random_case((frames, rows, columns), dtype, largest, with_dark=with_dark, share=share, seed=seed)
    found = accumulate(*case, threads)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain_sums(*case), rtol=1e-4, atol=2e-3)


def test_more_tiles_than_a_strip_holds_are_added_too() -> None:
    """Nine tiles and a rest side by side, and frames to more than one group of four."""
    case = random_case((6, 20, 1200), np.uint8, 9.0, with_dark=False, share=0.01, seed=4)
    np.testing.assert_allclose(accumulate(*case), plain_sums(*case), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize(("y", "x"), [(0, 0), (3, -5), (-40, 11), (100, -300)])
def test_whole_pixels_are_exact_mirrored_moves_once_the_prefilter_is_undone(y: int, x: int) -> None:
    """Divided by what sampling leaves of each wave, a sum is the frame, moved and mirrored at its borders."""
    shape = (37, 61)
    frames = np.random.default_rng(2).normal(100, 10, (1, *shape)).astype(np.float32)
    shifts = everywhere(shape, [y]), everywhere(shape, [x])
    found = accumulate(frames, correction(shape), *shifts, np.ones((1, 1), dtype=np.float32))[0]
    response = [
        interpolation_response(frequency, shift, np.ones(1))
        for frequency, shift in zip((np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])), shifts, strict=True)
    ]
    restored = np.fft.irfft2(np.fft.rfft2(found) / np.outer(*response), shape)
    expected = frames[0].astype(float)
    for axis, (length, move) in enumerate(zip(shape, (y, x), strict=True)):
        places = (np.arange(length) + move) % (2 * length)
        expected = expected.take(np.minimum(places, 2 * length - 1 - places), axis=axis)
    np.testing.assert_allclose(restored, expected, atol=1e-3)


def test_positive_displacement_takes_from_higher_columns_and_rows() -> None:
    """aligned(X) = frame(X + s): an electron that landed at column 50 of a frame displaced by +7 comes to column 43."""
    frames = np.zeros((1, 40, 90), dtype=np.uint8)
    frames[0, 30, 50] = 36
    shifts = everywhere((40, 90), [4.0]), everywhere((40, 90), [7.0])
    found = accumulate(frames, correction((40, 90)), *shifts, np.ones((1, 1), dtype=np.float32))[0]
    assert found[26, 43] == pytest.approx(16)
    np.testing.assert_allclose(found[25:28, 42:45], np.outer([1, 4, 1], [1, 4, 1]), atol=1e-5)
    assert found.sum() == pytest.approx(36, abs=1e-4)


def test_a_tiles_displacement_moves_that_tile_alone() -> None:
    """Where one tile of one frame is displaced otherwise, its own pixels change and no others."""
    shape = (3 * TILE_ROWS + 5, 2 * TILE_COLUMNS + 9)
    frames = np.random.default_rng(3).poisson(5.0, size=(2, *shape)).astype(np.uint8)
    weights = np.ones((1, 2), dtype=np.float32)
    shift_y, shift_x = everywhere(shape, [0.0, 2.5]), everywhere(shape, [0.0, -1.5])
    before = accumulate(frames, correction(shape), shift_y, shift_x, weights)[0]
    shift_y[1, 2, 1] += 3
    after = accumulate(frames, correction(shape), shift_y, shift_x, weights)[0]
    moved = np.zeros(shape, dtype=bool)
    moved[TILE_ROWS : 2 * TILE_ROWS, 2 * TILE_COLUMNS :] = True
    np.testing.assert_array_equal(after[~moved], before[~moved])
    assert np.mean(after[moved] != before[moved]) > 0.9


def test_two_threads_add_the_same_to_the_bit() -> None:
    """Rows of tiles are divided among threads; no sum is taken in another order."""
    case = random_case((5, 90, 300), np.uint8, 8.0, with_dark=False, share=0.02, seed=5)
    np.testing.assert_array_equal(accumulate(*case, 1), accumulate(*case, 2))


def test_frames_without_weight_are_not_looked_at() -> None:
    """A frame whose weights are all 0 may hold anything; with a weight in one sum, it is in that one."""
    frames, whole, shift_y, shift_x, weights = random_case(
        (6, 20, 40), np.float32, 3.0, with_dark=False, share=0.05, seed=6
    )
    weights[:, [0, 3]] = 0
    weights[1, 4] = 0
    clean = accumulate(frames, whole, shift_y, shift_x, weights)
    frames[[0, 3]] = np.nan
    np.testing.assert_array_equal(accumulate(frames, whole, shift_y, shift_x, weights), clean)
    np.testing.assert_allclose(clean, plain_sums(frames, whole, shift_y, shift_x, weights), rtol=1e-4, atol=2e-3)
    assert not accumulate(frames, whole, shift_y, shift_x, np.zeros_like(weights)).any()


@given(length=st.integers(1, 300), tile=st.sampled_from([TILE_ROWS, TILE_COLUMNS]))
def test_centres_are_those_of_the_tiles_pixels(length: int, tile: int) -> None:
    """Each tile's centre is the mean of its pixels' places, that of the narrower last one too."""
    expected = [np.arange(start, min(start + tile, length)).mean() for start in range(0, length, tile)]
    np.testing.assert_allclose(tile_centres(length, tile), expected)


@given(
    shifts=st.lists(st.floats(-50, 50), min_size=1, max_size=6),
    frequency=st.floats(0, 0.5),
    seed=st.integers(0, 100),
)
def test_response_is_what_sampling_leaves_of_a_wave(shifts: list[float], frequency: float, seed: int) -> None:
    """Root mean square over displacements, weighted, of |Σ β(m − t) exp(2πikm)|, within 0.5 %; all of a constant."""
    weights = np.random.default_rng(seed).uniform(0.1, 1, len(shifts))
    given_shifts = np.broadcast_to(np.array(shifts), (2, 3, len(shifts)))
    found = interpolation_response(np.array([0.0, frequency]), given_shifts, weights)
    steps = np.arange(-1, 3)
    left = [cubic_spline(steps - s % 1) @ np.exp(2j * np.pi * frequency * steps) for s in shifts]
    expected = np.sqrt(np.average(np.abs(left) ** 2, weights=weights))
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(expected, abs=0.005)

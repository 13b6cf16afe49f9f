"""One look gives what the plain formulas give, whatever the shape, the type and the number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from planted_motion import binned_plainly, correction

from coldchain.kernels.survey import donor_of, survey

DTYPES = [np.uint8, np.uint16, np.int16, np.float32]


def movie_of(dtype: type, shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.generic]:
    """Counts, negative ones too where the type has them."""
    return (rng.poisson(30.0, size=shape) - (0 if np.issubdtype(dtype, np.unsignedinteger) else 20)).astype(dtype)


@given(
    frames=st.integers(1, 5),
    rows=st.integers(1, 23),
    columns=st.integers(1, 41),
    factor=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    with_dark=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_one_look_is_the_plain_formula(
    frames: int, rows: int, columns: int, factor: int, dtype: type, with_dark: bool, threads: int, seed: int
) -> None:
    """The total is that of the raw frames, and bins are sums of (raw − dark) × gain; what fills no bin is in the total
    alone."""
    rng = np.random.default_rng(seed)
    movie = movie_of(dtype, (frames, rows, columns), rng)
    gain = rng.uniform(0.5, 2, (rows, columns)).astype(np.float32)
    gain[rng.random(gain.shape) < 0.1] = 0
    dark = rng.normal(5, 3, (rows, columns)).astype(np.float32) if with_dark else None
    seen = survey(movie, gain, dark, factor, threads)
    assert (seen.total.dtype, seen.binned.dtype, seen.factor) == (np.float32, np.float32, factor)
    np.testing.assert_allclose(seen.total, movie.astype(float).sum(axis=0), rtol=1e-6, atol=1e-3)
    corrected = (movie.astype(float) - (0 if dark is None else dark)) * gain
    expected = np.stack([binned_plainly(picture, factor) for picture in corrected])
    np.testing.assert_allclose(seen.binned, expected, rtol=1e-5, atol=1e-2)


@given(
    rows=st.integers(2, 23),
    columns=st.integers(2, 31),
    factor=st.integers(1, 7),
    dtype=st.sampled_from([np.uint8, np.float32]),
    with_dark=st.booleans(),
    share=st.sampled_from([0.02, 0.2, 0.9]),
    threads=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_filled_bins_are_those_of_the_corrected_frames(
    rows: int, columns: int, factor: int, dtype: type, with_dark: bool, share: float, threads: int, seed: int
) -> None:
    """Filling leaves each bin as if every frame had been corrected first, defect for defect, and binned then."""
    rng = np.random.default_rng(seed)
    movie = movie_of(dtype, (3, rows, columns), rng)
    bad = rng.random((rows, columns)) < share
    bad[0, 0] = False
    gain = np.where(bad & (rng.random(bad.shape) < 0.5), 0, rng.uniform(0.5, 2, bad.shape)).astype(np.float32)
    dark = rng.normal(5, 3, bad.shape).astype(np.float32) if with_dark else None
    whole = correction((rows, columns), gain=gain, dark=dark, bad=bad, frames=3, seed=seed)
    seen = survey(movie, gain, dark, factor)
    seen.fill(movie, gain, dark, whole.defect_index, whole.donor_index, whole.seed, threads)
    expected = np.stack([binned_plainly(whole.apply(frame, f), factor) for f, frame in enumerate(movie)])
    np.testing.assert_allclose(seen.binned, expected, rtol=1e-5, atol=1e-2)


def test_two_threads_see_the_same_to_the_bit() -> None:
    """Bands of rows are divided among threads; no sum is taken in another order."""
    rng = np.random.default_rng(1)
    movie = movie_of(np.float32, (7, 130, 117), rng)
    gain = rng.uniform(0.5, 2, movie.shape[1:]).astype(np.float32)
    one, two = (survey(movie, gain, None, 4, threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.total, two.total)
    np.testing.assert_array_equal(one.binned, two.binned)


def test_the_choice_of_a_donor_is_fair_and_depends_on_everything() -> None:
    """Over defects and over frames each of eight donors is taken as often, and neighbours do not choose alike."""
    chosen = np.array([[donor_of(defect, number, 3, 8) for number in range(200)] for defect in range(1000, 1200)])
    counts = np.bincount(chosen.ravel(), minlength=8)
    assert np.abs(counts - chosen.size / 8).max() < 5 * np.sqrt(chosen.size / 8)
    for other in (np.roll(chosen, 1, axis=0), np.roll(chosen, 1, axis=1)):
        assert np.mean(chosen == other) == pytest.approx(1 / 8, abs=0.02)
    assert np.mean([donor_of(7, number, 0, 8) == donor_of(7, number, 1, 8) for number in range(2000)]) < 0.2

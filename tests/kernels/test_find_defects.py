"""What stands out of a movie's sum as no specimen does is found: pixels, columns and rows; and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from coldchain.kernels.defects import find_defects

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
SHAPE = (250, 330)


def electrons(mean: float, seed: int = 0, shape: tuple[int, int] = SHAPE) -> Image:
    """A sum of counted electrons over smooth blobs of a fifth more or less."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    level = mean * (1 + 0.2 * np.sin(x / 9.0) * np.cos(y / 7.0))
    return np.random.default_rng(seed).poisson(level).astype(np.float32)


def integrated(mean: float, seed: int = 0) -> Image:
    """The same from a camera that integrates: electrons of unequal brightness that reach the next pixels, on an
    offset that puts half of the picture below zero."""
    rng = np.random.default_rng(seed)
    bright = rng.gamma(1.5 * electrons(mean, seed).clip(0.1), 20.0)
    kernel = np.exp(-2 * (np.pi * 0.6 * np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.rfftfreq(SHAPE[1]))) ** 2)
    spread = np.fft.irfft2(np.fft.rfft2(bright) * kernel, SHAPE)
    return (spread - np.median(spread)).astype(np.float32)


def found_in(total: Image, known: Mask | None = None, threads: int = 1) -> Mask:
    """Defects; there must be no warning."""
    found, warnings = find_defects(total, np.zeros(total.shape, dtype=bool) if known is None else known, threads)
    assert warnings == ()
    return found


def plant(total: Image, seed: int = 3) -> Mask:
    """Hot pixels, a hot clump, a dead and a bright column, a part of a column and of a row; where they are."""
    rng = np.random.default_rng(seed)
    spread = float(total.max() - total.min())
    bad = np.zeros(total.shape, dtype=bool)
    for y, x in rng.integers(5, 240, (12, 2)):
        total[y, x] += 3 * spread
        bad[y, x] = True
    total[30:32, 200:202] += 3 * spread
    bad[30:32, 200:202] = True
    lowest = min(0.0, float(total.min()))
    for place in (np.s_[:, 90], np.s_[:128, 150], np.s_[170, :]):
        total[place] = lowest
        bad[place] = True
    total[64:, 280] += 3 * spread
    total[200, 128:] += 3 * spread
    bad[64:, 280] = bad[200, 128:] = True
    return bad


@pytest.mark.parametrize("total", [electrons(4.0), electrons(50.0), electrons(3000.0), integrated(40.0)])
def test_planted_defects_are_found_and_little_else(total: Image) -> None:
    """Hot pixels and clumps, dead and bright columns and rows, whole and in part, of counts and of what is no count."""
    bad = plant(total)
    found = found_in(total)
    assert found[bad].all()
    assert np.count_nonzero(found & ~bad) < 8


@pytest.mark.parametrize("total", [electrons(m, seed=8) for m in (0.05, 0.5, 5.0, 50.0, 5000.0)] + [integrated(50.0)])
def test_noise_has_no_defects(total: Image) -> None:
    """What few pixels have more or less than their neighbours is chance, from sparse electrons to thousands."""
    assert np.count_nonzero(found_in(total)) < 3


def test_a_hundred_pictures_of_noise_have_hardly_a_defect() -> None:
    """Seven deviations are passed by less than a pixel in a million."""
    found = [np.count_nonzero(found_in(electrons(20.0, seed, (128, 128)))) for seed in range(100)]
    assert sum(found) <= 2


@pytest.mark.parametrize("bright", [40.0, 400.0])
def test_edges_of_gold_are_no_defects(bright: float) -> None:
    """A round hole in gold of a tenth of its brightness, and a straight edge along the columns and the rows."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for hole in (np.hypot(y - 120, x - 170) < 90, x > 100, y > 100, (x > 100) & (y > 130)):
        total = np.random.default_rng(5).poisson(np.where(hole, bright, bright / 10)).astype(np.float32)
        assert np.count_nonzero(found_in(total)) < 5


def test_a_hot_pixel_does_not_condemn_its_column_and_row() -> None:
    """However hot it is, the 64 pixels around it stay."""
    total = electrons(30.0)
    total[100, 100] = 1e7
    assert np.argwhere(found_in(total)).tolist() == [[100, 100]]


def test_a_bad_stretch_condemns_no_more_than_itself_and_its_ends() -> None:
    """A column that is dead over 100 pixels is found in stretches of 64; the rest of it is kept."""
    total = electrons(30.0, shape=(512, 200))
    total[64:192, 77] = 0
    found = found_in(total)
    assert found[64:192, 77].all()
    assert not found[:, 78:].any()
    assert not found[:, :77].any()
    assert not found[256:, 77].any()


@pytest.mark.parametrize("turned", [False, True], ids=["column", "row"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.97])
def test_a_line_most_of_whose_pixels_stand_out_is_bad_as_a_whole(share: float, turned: bool) -> None:
    """What is left of it may look like its neighbours in the mean, and yet is not to be trusted; a line with fewer bad
    pixels keeps its good ones."""
    for seed in range(5):
        total = electrons(30.0, seed, (256, 260))
        noisy = np.random.default_rng(seed).permutation(256) < share * 256
        total[noisy, 130] = np.random.default_rng(seed).choice([0.0, 300.0], np.count_nonzero(noisy))
        found = found_in(np.ascontiguousarray(total.T) if turned else total)
        line = found.T[:, 130] if turned else found[:, 130]
        assert line[noisy].all()
        assert line.all() if share > 0.6 else np.count_nonzero(line & ~noisy) < 64
        assert np.count_nonzero(found) - np.count_nonzero(line) < 3


@pytest.mark.parametrize("turned", [False, True], ids=["column", "row"])
def test_lines_are_bad_in_either_direction(turned: bool) -> None:
    """What holds for columns holds for rows: a tenth and 8 deviations are the limits, below them nothing is said."""
    for factor, expected in ((0.8, True), (1.25, True), (0.93, False), (1.07, False)):
        total = electrons(2000.0, shape=(256, 256)) / 4
        total[:, 130] *= factor
        found = found_in(np.ascontiguousarray(total.T) if turned else total)
        line = found.T[:, 130] if turned else found[:, 130]
        assert line.all() if expected else not line.any()


def test_what_is_known_is_neither_found_again_nor_looked_at() -> None:
    """Known pixels may hold anything: what is found among the others is as if they had their neighbours' values."""
    total = electrons(30.0)
    bad = plant(total)
    known = np.zeros(SHAPE, dtype=bool)
    known[:, 40:43] = known[220:223] = known[::17, ::13] = True
    among = found_in(total, known)
    for value in (0.0, 1e6, -1e6):
        total[known] = value
        found = found_in(total, known)
        assert not (found & known).any()
        assert found[bad & ~known].all()
        assert np.count_nonzero(found ^ among) < 5


def test_two_threads_find_the_same() -> None:
    """Bands of rows are divided among threads."""
    total = electrons(30.0)
    plant(total)
    np.testing.assert_array_equal(found_in(total), found_in(total, threads=2))


def test_too_many_are_no_single_defects() -> None:
    """If one pixel in ten stands out the reference is wrong: they are left as they are, and it is said."""
    total = electrons(100.0)
    total[np.random.default_rng(1).random(SHAPE) < 0.1] = 1000
    found, warnings = find_defects(total, np.zeros(SHAPE, dtype=bool))
    assert "too many for single defects" in warnings[0]
    assert np.count_nonzero(found) < 0.01 * total.size


@given(
    total=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=70),
        elements=st.sampled_from([0.0, 1.0, 2.0, -3.0, 1e6, 0.25]),
        fill=st.sampled_from([0.0, 1.0]),
    ),
    share=st.sampled_from([0.0, 0.2, 0.9]),
    seed=st.integers(0, 100),
)
def test_any_sum_is_searched_and_left_as_it_is(total: Image, share: float, seed: int) -> None:
    """Flat, tiny, sparse and wild pictures give a mask of their shape without the known pixels."""
    known = np.random.default_rng(seed).random(total.shape) < share
    known[0, 0] = False
    before = total.copy()
    found, _ = find_defects(total, known)
    np.testing.assert_array_equal(total, before)
    assert found.shape == total.shape
    assert not (found & known).any()


def test_a_flat_picture_has_no_defects() -> None:
    """Where all pixels are equal there is no noise to stand out of."""
    for value in (0.0, 7.0, -7.0):
        assert not found_in(np.full((90, 100), value, dtype=np.float32)).any()

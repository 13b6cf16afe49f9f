"""The least, the largest and the mean value of a picture."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from coldchain.kernels.extent import extent_of

_SIZES = st.tuples(st.integers(1, 200), st.integers(1, 9))


@given(arrays.arrays(np.dtype(np.int16), _SIZES), st.integers(1, 3))
def test_it_is_that_of_all_pixels_whatever_the_threads(image: np.ndarray, threads: int) -> None:
    """Least, largest and mean are those of the whole picture, for any number of rows and threads."""
    extent = extent_of(image, threads)
    assert (extent.lowest, extent.highest) == (image.min(), image.max())
    assert math.isclose(extent.mean, image.mean(dtype=np.float64), abs_tol=1e-9)
    assert extent == extent_of(image)


def test_one_value_that_is_no_number_shows() -> None:
    """A NaN or an infinity anywhere makes the extent not finite."""
    for bad in (math.nan, math.inf, -math.inf):
        image = np.zeros((130, 4), dtype=np.float32)
        image[129, 3] = bad
        assert not extent_of(image, 2).is_finite


def test_the_magnitude_is_never_zero() -> None:
    """Values may be divided by the magnitude, even those of a blank picture."""
    assert extent_of(np.full((3, 3), 7.0)).magnitude == 1.0
    assert extent_of(np.array([[0.0, 4.0]])).magnitude == 2.0

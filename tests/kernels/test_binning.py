"""Sums of squares of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.kernels.binning import sums_of_bins


@given(rows=st.integers(1, 20), columns=st.integers(1, 20), factor=st.integers(1, 7), seed=st.integers(0, 9))
def test_each_bin_is_the_sum_of_its_pixels(rows: int, columns: int, factor: int, seed: int) -> None:
    """What fills no bin is left out; the rest is added up."""
    image = np.random.default_rng(seed).normal(size=(rows, columns))
    found = sums_of_bins(image, factor)
    assert found.dtype == np.float32
    assert found.shape == (rows // factor, columns // factor)
    for y, x in np.ndindex(found.shape):
        block = image[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        assert found[y, x] == pytest.approx(block.sum(), abs=1e-5)

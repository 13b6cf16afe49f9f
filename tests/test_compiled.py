"""The door to numba."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coldchain.compiled import in_bands

AWAKE = """
import sys
import numpy
from coldchain.compiled import wake
from coldchain.kernels.survey import survey
wake()
assert "scipy.linalg" not in sys.modules
import scipy.linalg
assert survey(numpy.ones((3, 4, 5), numpy.uint8), numpy.ones((4, 5), numpy.float32), None, 1).total.sum() == 60
wake()
assert scipy.linalg.inv([[2.0]]) == 0.5
"""


def test_waking_imports_no_linear_algebra_and_leaves_it_to_others() -> None:
    """Made ready, numba compiles; scipy's linear algebra was not imported for it, and can be."""
    subprocess.run([sys.executable, "-c", AWAKE], check=True)


@pytest.mark.parametrize("threads", [1, 2, 3, 50])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 1000])
def test_bands_cover_every_row_once(rows: int, threads: int) -> None:
    """Whatever the number of threads, each row is in exactly one band."""
    seen = [0] * rows

    def work(first: int, end: int) -> None:
        for row in range(first, end):
            seen[row] += 1

    in_bands(work, rows, threads)
    assert seen == [1] * rows


def test_what_a_band_raises_is_raised() -> None:
    """An error in one band is not lost."""

    def work(first: int, end: int) -> None:
        if first <= 5 < end:
            raise ValueError("five")

    with pytest.raises(ValueError, match="five"):
        in_bands(work, 10, 2)

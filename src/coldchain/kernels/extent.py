"""The least, the largest and the mean value of a picture, read once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import in_bands

# So many rows of a large picture stay in a core's cache while they are gone through three times.
_BLOCK_ROWS = 64


@dataclass(frozen=True, slots=True)
class Extent:
    """What a picture's values lie between, and their mean.

    NaN or infinite where one of them is; the mean also where their sum is beyond the largest double.
    """

    lowest: float
    highest: float
    mean: float

    @property
    def is_finite(self) -> bool:
        """Whether all values are numbers."""
        return math.isfinite(self.lowest) and math.isfinite(self.highest)

    @property
    def magnitude(self) -> float:
        """How far from the mean the values go; 1 where they are all the same."""
        return max(self.highest - self.mean, self.mean - self.lowest) or 1.0


def extent_of(image: NDArray[np.generic], threads: int = 1) -> Extent:
    """The extent of a picture (rows, columns) of any real type and at least one pixel, the same for any `threads`."""
    blocks = math.ceil(image.shape[0] / _BLOCK_ROWS)
    lowest, highest, totals = np.empty(blocks), np.empty(blocks), np.empty(blocks)

    def go_through(first: int, end: int) -> None:
        for number in range(first, end):
            block = image[number * _BLOCK_ROWS : (number + 1) * _BLOCK_ROWS]
            lowest[number], highest[number] = block.min(), block.max()
            totals[number] = block.sum(dtype=np.float64)

    with np.errstate(invalid="ignore", over="ignore"):
        in_bands(go_through, blocks, threads)
        return Extent(float(lowest.min()), float(highest.max()), float(totals.sum()) / image.size)

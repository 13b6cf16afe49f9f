"""Pictures of fewer pixels, each the sum of a square of pixels. That of a movie's frames is in `survey`, with all else
that one look at them gives."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled

Image: TypeAlias = NDArray[np.float32]


def sums_of_bins(image: NDArray[np.floating[Any]], factor: int) -> Image:
    """Sums of factor × factor pixels of (rows, columns); rows and columns that fill no bin are left out: float32."""
    sums = np.empty((image.shape[0] // factor, image.shape[1] // factor), dtype=np.float32)
    _add_up(image, factor, sums)
    return sums


@compiled
def _add_up(image: NDArray[np.floating[Any]], factor: int, sums: Image) -> None:
    # Row by row, as they lie in memory.
    for y in range(sums.shape[0]):
        sums[y] = 0
        for source_y in range(y * factor, (y + 1) * factor):
            for x in range(sums.shape[1]):
                total = np.float32(0)
                for source_x in range(x * factor, (x + 1) * factor):
                    total += image[source_y, source_x]
                sums[y, x] += total

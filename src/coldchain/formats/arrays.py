"""Memory for pixels: a file is believed up to a stated size only, and too little memory is said as an error of ours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from coldchain.errors import FormatError

# Several times the largest movies of today's cameras. A sparse or a compressed file can promise far more than it holds.
LARGEST_BYTES = 64 << 30


def allocate(shape: tuple[int, ...], dtype: DTypeLike, path: Path, *, zeroed: bool = False) -> NDArray[Any]:
    """An array for pixels of the file at `path`, zeroed or with any content.

    Raises FormatError where it would take more than 64 GiB, or more than there is memory.
    """
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if wanted > LARGEST_BYTES:
        raise FormatError(
            f"the file promises {wanted:,} bytes of pixels",
            expected=f"at most {LARGEST_BYTES:,}",
            remedy="See whether the file is what it should be; fetch it from the camera again, or divide it",
            path=path,
        )
    try:
        return np.zeros(shape, dtype) if zeroed else np.empty(shape, dtype)
    except MemoryError as failure:
        raise FormatError(
            f"there is no memory for the file's {wanted:,} bytes of pixels",
            remedy="Run fewer workers at a time, or use a computer with more memory",
            path=path,
        ) from failure

"""PNGs for the tests: grey values whose first row is the picture's bottom, as our arrays have it."""

from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray


def write_png(path: Path, image: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write an 8- or 16-bit grey PNG."""
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image[::-1])))

"""Gain references: what turns a camera's counts into electrons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats.container import Container, container_of
from coldchain.formats.image import read_values


def read_gain(path: Path) -> NDArray[np.float32]:
    """A gain reference as (row, column), float32: what each pixel is multiplied by; 0 is a defect pixel.

    MRC and TIFF references are multiplicative and taken as they are, rows as `read_image` gives them. Falcon's EER
    reference, a TIFF named `.gain`, is the inverse: what comes back is its mean over its value, and its rows are not
    reversed, since those of an EER movie are not (RELION's renderEER.h). Raises FormatError where a value is negative
    or no number, where all are 0, and for DigitalMicrograph files, with what to do; otherwise as `read_image`.
    """
    gain = read_values(path)
    _refuse_impossible(gain, path)
    if path.suffix.lower() != ".gain" or container_of(path) is not Container.TIFF:
        return gain
    inverse = np.zeros_like(gain)
    np.divide(gain.mean(dtype=np.float64), gain, out=inverse, where=gain > 0, casting="same_kind")
    return np.ascontiguousarray(inverse[::-1])


def _refuse_impossible(gain: NDArray[np.float32], path: Path) -> None:
    wrong = gain.size - np.count_nonzero(np.isfinite(gain) & (gain >= 0))
    if wrong:
        raise FormatError(
            f"{wrong:,} of {gain.size:,} values of the gain reference are negative or no numbers",
            expected="0 (a defect) or more",
            remedy="Give the gain reference that belongs to the camera, or leave it out",
            path=path,
        )
    if not gain.any():
        raise FormatError(
            "all values of the gain reference are 0",
            expected="about 1",
            remedy="Give the gain reference that belongs to the camera, or leave it out",
            path=path,
        )

"""Gain and dark references: what turns a camera's counts into electrons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats.container import Container, container_of
from coldchain.formats.dm4 import is_dm, read_dm
from coldchain.formats.files import reading
from coldchain.formats.ifd import read_pages
from coldchain.formats.image import read_values
from coldchain.formats.mrc import HEADER_BYTES, read_header

_DM_SUFFIXES = frozenset((".dm3", ".dm4"))


def read_gain(path: Path) -> NDArray[np.float32]:
    """A gain reference as (row, column), float32: what each pixel is multiplied by; 0 is a defect pixel.

    References are multiplicative, whatever holds them, and taken as they are, rows as `read_image` and `read_dm` give
    them. The rows of Falcon's EER reference, a TIFF named `.gain`, are not reversed, since those of an EER movie are
    not (RELION's renderEER.h). RELION and MotionCor3 multiply by it; by a reference in MRC, of which older Falcons'
    are the inverse, RELION divides an EER movie. Whether a reference fits a movie, and in which sense, the movie says:
    `kernels.orientation`.

    Raises FormatError where the file holds more than one image (a `.gain` may), where a value is negative or no number,
    and where all are 0; otherwise as `read_image` and `read_dm`.
    """
    gain = _only_image(path, "gain reference")
    _refuse_impossible(gain, path)
    return np.ascontiguousarray(gain[::-1]) if _is_falcon(path) else gain


def read_dark(path: Path) -> NDArray[np.float32]:
    """A dark reference as (row, column), float32: what is subtracted from each pixel of each frame, of either sign.

    Files and rows are as for `read_gain`. Raises FormatError where the file holds more than one image or a value is no
    number; otherwise as `read_image` and `read_dm`.
    """
    dark = _only_image(path, "dark reference")
    wrong = dark.size - int(np.count_nonzero(np.isfinite(dark)))
    if wrong:
        raise FormatError(
            f"{wrong:,} of {dark.size:,} values of the dark reference are no numbers",
            expected="counts",
            remedy="Give the dark reference that belongs to the camera, or leave it out",
            path=path,
        )
    return dark


def _only_image(path: Path, what: str) -> NDArray[np.float32]:
    with reading(path) as stream:
        head = stream.read(HEADER_BYTES)
    if is_dm(head) or path.suffix.lower() in _DM_SUFFIXES:
        image = read_dm(path)
        _refuse_stack(len(image) if image.ndim > 2 else 1, what, path)
        with np.errstate(over="ignore"):  # a double beyond the range of float32 becomes infinite
            return image.astype(np.float32, copy=False)
    kind = container_of(path)
    if kind is Container.MRC:
        _refuse_stack(read_header(path).sections, what, path)
    elif kind is not Container.PICTURE and not _is_falcon(path):
        pages = read_pages(path)
        sides = (pages[0].height, pages[0].width)
        _refuse_stack(sum((page.height, page.width) == sides for page in pages), what, path)
    return read_values(path)


def _is_falcon(path: Path) -> bool:
    return path.suffix.lower() == ".gain" and container_of(path) is Container.TIFF


def _refuse_stack(count: int, what: str, path: Path) -> None:
    if count > 1:
        raise FormatError(
            f"the {what} holds {count:,} images",
            expected="one",
            remedy=f"Give the camera's {what}; this may be a movie",
            path=path,
        )


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

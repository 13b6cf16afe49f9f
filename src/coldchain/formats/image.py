"""Single images: MRC, TIFF, EER, PNG and JPEG; the picture's bottom row comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats.container import Container, container_of
from coldchain.formats.eer import read_eer
from coldchain.formats.mrc import read_first_section
from coldchain.formats.picture import read_picture
from coldchain.formats.tiff import read_first_page

# More than a detector's few dead pixels and the seams between its chips.
_LARGEST_FILLED_FRACTION = 0.01


def read_image(path: Path) -> NDArray[np.float32]:
    """The image (row, column) as float32, every pixel a finite number, the picture's bottom row first.

    The first section or page where there are several, all events summed for EER, the mean of the channels where it has
    colours. Pixels that are not finite (NaN, infinity, beyond float32) take the median of the others; an image that has
    more than 1 % of them is refused.

    Raises IncompleteFileError and FormatError where the file is cut or damaged, StorageError where it cannot be read.
    """
    return read_filled(path)[0]


def read_filled(path: Path) -> tuple[NDArray[np.float32], int]:
    """The image as `read_image` gives it, and how many of its pixels were no finite numbers."""
    image = read_values(path)
    finite = np.isfinite(image)
    wrong = image.size - int(np.count_nonzero(finite))
    if wrong > _LARGEST_FILLED_FRACTION * image.size:
        raise FormatError(
            f"{wrong:,} of {image.size:,} pixels are not finite numbers",
            expected=f"at most {_LARGEST_FILLED_FRACTION:.0%}",
            remedy="Make the image again from its movie, or fetch it again from where it was made",
            path=path,
        )
    if wrong:
        image[~finite] = np.median(image[finite])
    return image, wrong


def read_values(path: Path) -> NDArray[np.float32]:
    """The image as `read_image` gives it, but with the values that are not finite numbers left as they are."""
    image = _stored(path)
    with np.errstate(over="ignore"):  # a double beyond the range of float32 becomes infinite
        return image.astype(np.float32, copy=False)


def _stored(path: Path) -> NDArray[Any]:
    kind = container_of(path)
    if kind is Container.MRC:
        return read_first_section(path)
    if kind is Container.TIFF:
        return read_first_page(path)
    if kind is Container.EER:
        section: NDArray[Any] = read_eer(path, fractions=1)[0]
        return section
    if kind is Container.LIST:
        raise FormatError("a text", expected="an image: MRC, TIFF, EER, PNG or JPEG", path=path)
    return read_picture(path)

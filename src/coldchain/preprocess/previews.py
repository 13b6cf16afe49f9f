"""Pictures for people: a micrograph and its power spectrum as PNG. Row 0 of a PNG is the picture's top."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MICROGRAPH_NAME = "micrograph.png"
THUMBNAIL_NAME = "thumbnail.png"
SCALE_NAME = "scale.json"
SPECTRUM_NAME = "spectrum.png"

MICROGRAPH_SIDE_PIXEL = 1024
THUMBNAIL_SIDE_PIXEL = 256

# Grey values between these percentiles keep their order; beyond them is black and white. A few gold beads or a carbon
# edge must not flatten the rest.
_DARKEST_PERCENT, _BRIGHTEST_PERCENT = 0.3, 99.7


def write_micrograph(image: NDArray[Any], folder: Path) -> None:
    """Write the micrograph at two sizes and its scale (`{"width_pixel", "height_pixel", "png_width", "png_height"}`).

    `image` is (rows, columns), row 0 the picture's bottom.
    """
    height, width = image.shape
    preview = micrograph_picture(image)
    preview.save(folder / MICROGRAPH_NAME)
    micrograph_picture(image, THUMBNAIL_SIDE_PIXEL).save(folder / THUMBNAIL_NAME)
    scale = {
        "width_pixel": width,
        "height_pixel": height,
        "png_width": preview.width,
        "png_height": preview.height,
    }
    (folder / SCALE_NAME).write_text(json.dumps(scale), encoding="ascii")


def micrograph_picture(image: NDArray[Any], side_pixel: int = MICROGRAPH_SIDE_PIXEL) -> Image.Image:
    """A micrograph (rows, columns), row 0 the bottom, in grey; its top first and its longer side at most this long."""
    values = np.asarray(image, dtype=np.float32)
    if not math.isfinite(float(values.sum(dtype=np.float64))):
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    shrunk = _shrunk(Image.fromarray(values), side_pixel)
    return _grey(shrunk.transpose(Image.Transpose.FLIP_TOP_BOTTOM))


def save_png(picture: Image.Image, stream: BinaryIO) -> None:
    """Write a picture as PNG, quickly: the noise of micrographs and spectra hardly shrinks, however long one tries."""
    picture.save(stream, format="png", compress_level=1)


def write_spectrum(diagnostic: NDArray[Any], path: Path) -> None:
    """Write a diagnostic spectrum (square, values in [0, 1], zero frequency in the centre)."""
    spectrum_picture(diagnostic).save(path)


def spectrum_picture(diagnostic: NDArray[Any]) -> Image.Image:
    """A diagnostic spectrum in grey, its top first."""
    grey = np.clip(np.nan_to_num(diagnostic), 0.0, 1.0)[::-1] * 255
    return Image.fromarray(grey.astype(np.uint8))


def _shrunk(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side at most `side`; each pixel the mean of those that it covers."""
    factor = max(picture.width, picture.height) / side
    if factor <= 1:
        return picture
    size = (max(1, round(picture.width / factor)), max(1, round(picture.height / factor)))
    return picture.resize(size, Image.Resampling.BOX)


def _grey(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture, dtype=np.float64)  # the span of float32 values may be no float32
    low, high = np.percentile(values, [_DARKEST_PERCENT, _BRIGHTEST_PERCENT])
    span = max(float(high - low), float(np.finfo(np.float32).tiny))
    return Image.fromarray((np.clip((values - low) / span, 0, 1) * 255).astype(np.uint8))

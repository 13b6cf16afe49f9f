"""Single images: MRC, TIFF, PNG and JPEG; the picture's bottom row comes first."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats.container import PNG_START, Container, container_of
from coldchain.formats.eer import read_eer
from coldchain.formats.files import reading, replacing, size_of
from coldchain.formats.mrc import read_first_section
from coldchain.formats.tiff import read_first_page

_PNG_SIGNATURE_BYTES = 8
_PNG_HEADER_BYTES = 33
_LARGEST_PNG_RATIO = 1100 * 8
_LARGEST_PIXELS = 1 << 30
_JPEG_END = b"\xff\xd9"
_REMEDY = "Wait until it is written, or fetch it from the camera again"


def read_image(path: Path) -> NDArray[np.float32]:
    """The image (row, column) as float32, the picture's bottom row first: the first section or page where there are
    several, all events summed for EER, and the mean of the channels where it has colours.

    Raises IncompleteFileError and FormatError where the file is cut or damaged, StorageError where it cannot be read.
    """
    kind = container_of(path)
    if kind is Container.MRC:
        image = read_first_section(path)
    elif kind is Container.TIFF:
        image = read_first_page(path)
    elif kind is Container.EER:
        image = read_eer(path, fractions=1)[0]
    else:
        image = read_picture(path)
    if np.issubdtype(image.dtype, np.floating) and not np.isfinite(image).any():
        raise FormatError("no pixel is a finite number", expected="an image", path=path)
    return image.astype(np.float32, copy=False)


def read_picture(path: Path) -> NDArray[Any]:
    """A PNG or JPEG as (row, column), the picture's bottom row first: uint8 or uint16, float32 where colours were
    averaged. Raises as `read_image`."""
    with reading(path) as stream:
        data = stream.read()
    if data.startswith(PNG_START):
        _check_png_size(data, path)
        decode = imagecodecs.png_decode
    else:
        if _JPEG_END not in data[-1024:]:
            raise IncompleteFileError("the JPEG has no end marker", remedy=_REMEDY, path=path)
        decode = imagecodecs.jpeg8_decode
    try:
        pixels = decode(data)
    except (RuntimeError, ValueError) as failure:  # PngError and Jpeg8Error are RuntimeErrors
        raise FormatError(
            f"the picture cannot be decoded: {failure}", remedy="Fetch the file from the camera again", path=path
        ) from failure
    if pixels.ndim == 3:
        pixels = pixels[..., :3].mean(axis=2, dtype=np.float32)
    return np.ascontiguousarray(pixels[::-1])


def _check_png_size(data: bytes, path: Path) -> None:
    width, height = struct.unpack(">II", data[16:24]) if len(data) >= _PNG_HEADER_BYTES else (0, 0)
    pixels = width * height
    if not 0 < pixels <= min(_LARGEST_PIXELS, len(data) * _LARGEST_PNG_RATIO):
        raise FormatError(
            f"the PNG says {width} × {height} pixels in {len(data):,} bytes",
            expected="an image that such a file can hold",
            remedy="Fetch the file from the camera again",
            path=path,
        )


def png_shape(path: Path) -> tuple[int, int, str]:
    """Rows, columns and type of a PNG, from its header alone."""
    with reading(path) as stream:
        head = stream.read(_PNG_HEADER_BYTES)
    if len(head) < _PNG_HEADER_BYTES:
        raise IncompleteFileError("the PNG ends inside its header", remedy=_REMEDY, path=path)
    width, height, depth = struct.unpack(">IIB", head[16:25])
    return height, width, "uint16" if depth == 16 else "uint8"


def check_png(path: Path) -> None:
    """Raise unless the chunks of a PNG chain to its end: IncompleteFileError where the file is cut, FormatError where
    a chunk's check sum does not agree."""
    with reading(path) as stream:
        size = size_of(stream)
        offset, kind = _PNG_SIGNATURE_BYTES, b""
        while kind != b"IEND":
            stream.seek(offset)
            head = stream.read(8)
            length = int.from_bytes(head[:4], "big")
            if len(head) < 8 or offset + 12 + length > size:
                raise IncompleteFileError(
                    f"the PNG ends after {size:,} bytes, inside a chunk", remedy=_REMEDY, path=path
                )
            kind = head[4:8]
            body = stream.read(length + 4)
            if zlib.crc32(kind + body[:-4]) != int.from_bytes(body[-4:], "big"):
                raise FormatError(
                    f"the check sum of the PNG chunk at byte {offset:,} does not agree",
                    remedy="Fetch the file from the camera again",
                    path=path,
                )
            offset += 12 + length


def write_png(path: Path, image: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write grey values (row, column), whose first row is the picture's bottom, as an 8- or 16-bit PNG.

    Nobody sees half a file. Raises FormatError for other types, StorageError where the file cannot be written.
    """
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise FormatError(f"a {image.dtype} array of shape {image.shape}", expected="grey uint8 or uint16", path=path)
    with replacing(path) as stream:
        stream.write(imagecodecs.png_encode(np.ascontiguousarray(image[::-1])))

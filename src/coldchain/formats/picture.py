"""PNG and JPEG pictures. What they claim is read from their headers and bounded before anything is decoded."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats.container import PNG_START
from coldchain.formats.files import reading, size_of

LARGEST_PIXELS = 1 << 28
# Four channels of 16 bits without any compression, and room for what is no pixel.
_LARGEST_BYTES = LARGEST_PIXELS * 8 + (1 << 20)
# The best that deflate can do, times eight pixels a byte.
_LARGEST_PNG_RATIO = 1100 * 8
_PNG_SIGNATURE_BYTES = 8
_PNG_HEADER_BYTES = 33
_PNG_GREY_TYPES = (0, 4)  # without and with transparency
_JPEG_END = b"\xff\xd9"
_JPEG_END_WITHIN_BYTES = 1024
# SOF0 to SOF15 but DHT, JPG and DAC; markers that stand alone; where the pixels begin, and the end.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_JPEG_PIXELS = (0xDA, 0xD9)
_LARGEST_JPEG_SEGMENTS = 10_000
_WAIT = "Wait until it is written, or fetch it from the camera again"
_FETCH = "Fetch the file from the camera again"


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What `read_picture` will give: rows, columns and the type's name."""

    rows: int
    columns: int
    dtype: str


def read_picture_header(path: Path) -> PictureHeader:
    """The header of a PNG or JPEG, told apart by content; nothing is decoded.

    Raises IncompleteFileError where the header is cut, FormatError where it cannot be or promises more than 2²⁸ pixels,
    StorageError where the file cannot be read.
    """
    with reading(path) as stream:
        return _header(stream, path)


def read_picture(path: Path) -> NDArray[Any]:
    """A PNG or JPEG as (row, column), the picture's bottom row first: uint8 or uint16, float32 where colours were
    averaged; transparency is left out. Raises as `read_picture_header`, and where the pixels are cut or damaged."""
    with reading(path) as stream:
        header = _header(stream, path)
        stream.seek(0)
        data = stream.read()
    is_png = data.startswith(PNG_START)
    if not is_png:
        _check_jpeg_end(data[-_JPEG_END_WITHIN_BYTES:], path)
    try:
        pixels = imagecodecs.png_decode(data) if is_png else imagecodecs.jpeg8_decode(data)
    except (RuntimeError, ValueError) as failure:  # PngError and Jpeg8Error are RuntimeErrors
        raise FormatError(f"the picture cannot be decoded: {failure}", remedy=_FETCH, path=path) from failure
    if pixels.ndim == 3:
        pixels = pixels[..., :-1] if pixels.shape[2] in (2, 4) else pixels
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels.mean(axis=2, dtype=np.float32)
    if pixels.shape != (header.rows, header.columns):
        raise FormatError(
            f"the picture decodes to shape {pixels.shape}",
            expected=f"{header.rows} × {header.columns}, as its header says",
            remedy=_FETCH,
            path=path,
        )
    return np.ascontiguousarray(pixels[::-1])


def check_picture(path: Path) -> None:
    """Raise unless a picture is whole as far as its structure says: the chunks of a PNG chain to its end and their
    check sums agree; a JPEG has a header and an end. Raises as `read_picture_header`."""
    with reading(path) as stream:
        _header(stream, path)
        stream.seek(0)
        if stream.read(len(PNG_START)) == PNG_START:
            _check_chunks(stream, path)
        else:
            stream.seek(max(0, size_of(stream) - _JPEG_END_WITHIN_BYTES))
            _check_jpeg_end(stream.read(), path)


def _header(stream: BinaryIO, path: Path) -> PictureHeader:
    size = size_of(stream)
    if stream.read(len(PNG_START)) == PNG_START:
        kind, header = "PNG", _png_header(stream, path)
        largest = min(LARGEST_PIXELS, size * _LARGEST_PNG_RATIO)
    else:
        kind, header, largest = "JPEG", _jpeg_header(stream, path), LARGEST_PIXELS
    if not 0 < header.rows * header.columns <= largest or size > _LARGEST_BYTES:
        raise FormatError(
            f"the {kind} says {header.columns} × {header.rows} pixels in {size:,} bytes",
            expected=f"a picture that such a file can hold, of at most {LARGEST_PIXELS:,} pixels",
            remedy=_FETCH,
            path=path,
        )
    return header


def _png_header(stream: BinaryIO, path: Path) -> PictureHeader:
    stream.seek(0)
    head = stream.read(_PNG_HEADER_BYTES)
    if len(head) < _PNG_HEADER_BYTES:
        raise IncompleteFileError("the PNG ends inside its header", remedy=_WAIT, path=path)
    columns, rows, depth, colour = struct.unpack(">IIBB", head[16:26])
    whole = "uint16" if depth == 16 else "uint8"
    return PictureHeader(rows, columns, whole if colour in _PNG_GREY_TYPES else "float32")


def _jpeg_header(stream: BinaryIO, path: Path) -> PictureHeader:
    """From the first frame header (SOF) of ITU-T T.81; what stands before it is passed over by its lengths."""
    stream.seek(2)
    for _ in range(_LARGEST_JPEG_SEGMENTS):
        marker = _jpeg_marker(stream, path)
        if marker in _JPEG_ALONE:
            continue
        if marker in _JPEG_PIXELS:
            break
        length = int.from_bytes(_exactly(stream, 2, path), "big")
        if length < 2:
            break
        if marker in _JPEG_FRAMES:
            depth, rows, columns, channels = struct.unpack(">BHHB", _exactly(stream, 6, path))
            whole = "uint8" if depth <= 8 else "uint16"
            return PictureHeader(rows, columns, whole if channels <= 2 else "float32")
        stream.seek(length - 2, 1)
    raise FormatError("the JPEG has no frame header", expected="the picture's size", remedy=_FETCH, path=path)


def _jpeg_marker(stream: BinaryIO, path: Path) -> int:
    """The next marker's code; any number of bytes FF may stand before it."""
    if _exactly(stream, 1, path) != b"\xff":
        raise FormatError("a segment of the JPEG does not begin with a marker", remedy=_FETCH, path=path)
    for _ in range(_LARGEST_JPEG_SEGMENTS):
        code = _exactly(stream, 1, path)[0]
        if code != 0xFF:
            return code
    raise FormatError("the JPEG has no frame header", expected="the picture's size", remedy=_FETCH, path=path)


def _exactly(stream: BinaryIO, count: int, path: Path) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise IncompleteFileError("the JPEG ends inside its header", remedy=_WAIT, path=path)
    return data


def _check_jpeg_end(tail: bytes, path: Path) -> None:
    if _JPEG_END not in tail:
        raise IncompleteFileError("the JPEG has no end marker", remedy=_WAIT, path=path)


def _check_chunks(stream: BinaryIO, path: Path) -> None:
    size = size_of(stream)
    offset, kind = _PNG_SIGNATURE_BYTES, b""
    while kind != b"IEND":
        stream.seek(offset)
        head = stream.read(8)
        length = int.from_bytes(head[:4], "big")
        if len(head) < 8 or offset + 12 + length > size:
            raise IncompleteFileError(f"the PNG ends after {size:,} bytes, inside a chunk", remedy=_WAIT, path=path)
        kind = head[4:8]
        body = stream.read(length + 4)
        if zlib.crc32(kind + body[:-4]) != int.from_bytes(body[-4:], "big"):
            raise FormatError(
                f"the check sum of the PNG chunk at byte {offset:,} does not agree", remedy=_FETCH, path=path
            )
        offset += 12 + length

"""What a strip or tile of a TIFF is compressed with, and how far a compressor can be believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from coldchain.formats.lzw import decode_lzw

NONE, LZW = 1, 5

Decode = Callable[[NDArray[np.uint8], NDArray[np.uint8]], int]


@dataclass(frozen=True, slots=True)
class Codec:
    """A decoder, and the most bytes that it can make of one, with room: what promises more is a bomb or a lie.

    `decode(data, out)` fills `out` and gives the number of bytes, without holding the interpreter's lock; it raises
    RuntimeError or ValueError for bytes that it cannot use.
    """

    name: str
    decode: Decode
    largest_ratio: int


def _copy(data: NDArray[np.uint8], out: NDArray[np.uint8]) -> int:
    length = min(data.size, out.size)
    out[:length] = data[:length]
    return length


def _by(function: Callable[..., Any]) -> Decode:
    """A decoder of imagecodecs, whose errors are RuntimeErrors."""

    def decode(data: NDArray[np.uint8], out: NDArray[np.uint8]) -> int:
        return len(function(data, out=out.data))

    return decode


_DEFLATE = Codec("deflate", _by(imagecodecs.deflate_decode), 1100)
_ZSTD = Codec("Zstandard", _by(imagecodecs.zstd_decode), 45_000)
# By TIFF's numbers. 32946 and 34926 are older numbers of the same.
CODECS = {
    NONE: Codec("none", _copy, 1),
    LZW: Codec("LZW", decode_lzw, 2800),
    8: _DEFLATE,
    32773: Codec("PackBits", _by(imagecodecs.packbits_decode), 70),
    32946: _DEFLATE,
    34926: _ZSTD,
    50000: _ZSTD,
}


def decode(data: NDArray[np.uint8], compression: int, out: NDArray[np.uint8]) -> str:
    """Fill `out` from a strip, both contiguous bytes along one axis; why it could not be, or "" where all is well."""
    try:
        length = CODECS[compression].decode(data, out)
    except (RuntimeError, ValueError) as failure:
        return str(failure)
    return "" if length == out.size else f"it decodes to {length:,} bytes"

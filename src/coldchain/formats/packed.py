"""Pixels of four bits, two of them in a byte.

SerialEM writes them for counted electrons, the left pixel in the low four bits: as MRC mode 101, whose width counts
pixels, or as bytes in MRC mode 0 and TIFF, whose width counts bytes. The latter are told by IMOD's flag, by the title,
or by a size that only a packed super-resolution frame of a K2 or K3 has (IMOD's sizeCanBe4BitK2SuperRes, which RELION
and cisTEM follow).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TITLE = "4 bits packed"
_SUPER_RESOLUTION = ((7676, 7420), (7680, 7424), (11520, 8184))
_SIZE_TOLERANCE = 2
_VALUES = np.arange(256, dtype=np.uint8)
# Both pixels of each byte, as one number of 16 bits: a byte is unpacked by one look into the table.
LOW_FIRST = np.stack([_VALUES & 0x0F, _VALUES >> 4], axis=1).reshape(-1).view(np.uint16)
HIGH_FIRST = np.stack([_VALUES >> 4, _VALUES & 0x0F], axis=1).reshape(-1).view(np.uint16)


def is_packed_size(width_bytes: int, height: int) -> bool:
    """Whether an image of so many bytes by so many rows has the size of a packed super-resolution frame."""
    return any(
        abs(width_bytes - columns // 2) <= _SIZE_TOLERANCE and abs(height - rows) <= _SIZE_TOLERANCE
        for long, short in _SUPER_RESOLUTION
        for columns, rows in ((long, short), (short, long))
    )


def unpack(packed: NDArray[np.uint8], width: int, table: NDArray[np.uint16] = LOW_FIRST) -> NDArray[np.uint8]:
    """The `width` pixels of each row (last axis); a row of odd width ends on a half-used byte."""
    pixels: NDArray[np.uint8] = table[packed].view(np.uint8)
    return pixels[..., :width]

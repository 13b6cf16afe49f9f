"""The strips and tiles of a TIFF's pages, decoded into the places of their pixels, the picture's bottom row first.

A plain strip is decoded where its mirror image belongs, and its rows are exchanged while they are still in the
processor's cache. What needs more (tiles, predictors, few bits, another byte order) goes by way of a buffer. The
interpreter's lock is not held while a strip is decoded.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled
from coldchain.errors import FormatError
from coldchain.formats import codec
from coldchain.formats.ifd import Page
from coldchain.formats.lzw import fills
from coldchain.formats.packed import HIGH_FIRST, LOW_FIRST, TITLE, is_packed_size, unpack

_NO_PREDICTOR, _DIFFERENCES, _FLOAT_DIFFERENCES = 1, 2, 3
_HIGHEST_BIT_FIRST = 1
_TYPES = {1: "uint", 2: "int", 3: "float", 4: "uint"}
_NATIVE = {"little": "<", "big": ">"}[sys.byteorder]
# Strips that lie together are read together, if no more than so much between them is read in vain.
_LARGEST_WASTE = 1.25
_LARGEST_SURPLUS_BYTES = 1 << 26
_LOST = "Fetch the file from the camera again; if it is damaged there too, the exposure is lost"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a page's pixels are stored: `bits` each. They come as `dtype`, in this machine's byte order. `packing` is 2
    where the file's width counts bytes that hold two pixels each, else 1."""

    height: int
    width: int
    dtype: np.dtype[Any]
    bits: int
    packing: int = 1

    @property
    def frame_bytes(self) -> int:
        """The bytes of a decoded frame."""
        return self.height * self.width * self.dtype.itemsize

    def row_bytes(self, page: Page) -> int:
        """The bytes of a row of one of the page's strips or tiles, as they are stored."""
        return -(-page.columns_per_strip * self.packing * self.bits // 8)


def layout_of(page: Page, path: Path) -> Layout:
    """How a page's pixels are stored, and of which type they come; FormatError for what no camera writes.

    16-bit floats come as float32, pixels of 1 or 4 bits as uint8. Bytes are taken as packed pixels of four bits where
    the page's description or its size says so.
    """
    bits, kind = page.bits_per_sample, _TYPES.get(page.sample_format, "?")
    name = "uint8" if kind == "uint" and bits in (1, 4) else f"{kind}{bits}"
    name = "float32" if name == "float16" else name
    known = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
    if page.samples_per_pixel != 1 or name not in known:
        raise FormatError(
            f"{page.samples_per_pixel} samples of {bits} bits, sample format {page.sample_format}",
            expected="one integer or float per pixel",
            remedy="Convert the file to grey values",
            path=path,
        )
    dtype = np.dtype(name)
    if (name, bits) == ("uint8", 8) and (TITLE in page.description or is_packed_size(page.width, page.height)):
        return Layout(page.height, page.width * 2, dtype, 4, packing=2)
    return Layout(page.height, page.width, dtype, bits)


def fault_of(page: Page, layout: Layout, path: Path) -> FormatError | None:
    """What keeps a page from being decoded, as far as its directory tells: its strips, its compression, its promise."""
    return (
        page.fault or _unknown(page, layout, path) or _overdone(page, layout, path) or _miscounted(page, layout, path)
    )


def _unknown(page: Page, layout: Layout, path: Path) -> FormatError | None:
    predictors = {_NO_PREDICTOR}
    if layout.bits >= 8:
        predictors.add(_FLOAT_DIFFERENCES if layout.dtype.kind == "f" else _DIFFERENCES)
    if page.compression in codec.CODECS and page.predictor in predictors:
        return None
    return FormatError(
        f"page {page.index + 1} has compression {page.compression} with predictor {page.predictor}",
        expected=f"one of {', '.join(dict.fromkeys(known.name for known in codec.CODECS.values()))}",
        remedy="Save the file with another compression",
        path=path,
    )


def _overdone(page: Page, layout: Layout, path: Path) -> FormatError | None:
    promised = layout.height * layout.width * layout.bits // 8
    largest = page.stored_bytes * codec.CODECS[page.compression].largest_ratio
    if promised <= largest:
        return None
    return FormatError(
        f"page {page.index + 1} promises {promised:,} bytes of pixels in {page.stored_bytes:,} bytes of strips",
        expected=f"at most {largest:,} with compression {page.compression}",
        remedy=_LOST,
        path=path,
    )


def _miscounted(page: Page, layout: Layout, path: Path) -> FormatError | None:
    rows, columns = page.rows_per_strip, page.columns_per_strip
    expected = -(-page.width // columns) * -(-page.height // rows) if rows > 0 and columns > 0 else 0
    # A tile is decoded whole, whatever the picture's edges leave of it.
    possible = rows * layout.row_bytes(page) <= layout.frame_bytes + _LARGEST_SURPLUS_BYTES
    if expected and len(page.segments) == expected and possible:
        return None
    return FormatError(
        f"page {page.index + 1} has {len(page.segments)} strips of {columns} × {rows} pixels",
        expected=f"{expected} for {page.width} × {page.height}",
        remedy=_LOST,
        path=path,
    )


def decode_strips(
    descriptor: int, page: Page, first: int, end: int, layout: Layout, frame: NDArray[Any]
) -> tuple[int, str] | None:
    """Decode strips (or tiles) `first` to `end` − 1 of a page without fault into a frame (row, column, contiguous).

    Gives the first strip that cannot be decoded and why, or None; the frame's other pixels are as they were.
    """
    data, segments = _stored(descriptor, page.segments[first:end])
    if _is_plain(page, layout):
        failed = _decode_plain(data, segments, first, page, layout, frame)
    else:
        failed = _decode_by_buffer(data, segments, first, page, layout, frame)
    return failed


def _stored(descriptor: int, segments: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The compressed bytes of some strips, and where each lies in them: read at once if they lie together."""
    offsets, counts = segments[:, 0], segments[:, 1]
    start, end = int(offsets.min()), int((offsets + counts).max())
    if end - start <= _LARGEST_WASTE * counts.sum():
        data, offsets = os.pread(descriptor, end - start, start), offsets - start
    else:
        data = b"".join(os.pread(descriptor, count, offset) for offset, count in segments.tolist())
        offsets = np.cumsum(counts) - counts
    return np.frombuffer(data, dtype=np.uint8), np.stack([offsets, counts], axis=1)


def _decode_strip(data: NDArray[np.uint8], compression: int, out: NDArray[np.uint8], strip_bytes: int) -> str:
    """Fill `out` from a strip, or from the beginning of a last one that was written as long as the others."""
    why = codec.decode(data, compression, out)
    if why and out.size < strip_bytes:
        whole = np.empty(strip_bytes, dtype=np.uint8)
        if not codec.decode(data, compression, whole):
            out[:] = whole[: out.size]
            return ""
    return why


def _decode_plain(
    data: NDArray[np.uint8],
    segments: NDArray[np.int64],
    first: int,
    page: Page,
    layout: Layout,
    frame: NDArray[Any],
) -> tuple[int, str] | None:
    pixels = frame.reshape(-1).view(np.uint8)
    row_bytes = layout.row_bytes(page)
    strip_bytes = page.rows_per_strip * row_bytes
    done = 0
    while done < len(segments):
        if page.compression == codec.LZW:
            done += _decode_lzw(data, segments[done:], first + done, pixels, strip_bytes, row_bytes)
            if done == len(segments):
                break
        offset, count = segments[done].tolist()
        block = _block(pixels, first + done, strip_bytes)
        why = _decode_strip(data[offset : offset + count], page.compression, block, strip_bytes)
        if why:
            return first + done, why
        _exchange_rows(block, row_bytes)
        done += 1
    return None


@compiled
def _decode_lzw(
    data: NDArray[np.uint8],
    segments: NDArray[np.int64],
    first: int,
    pixels: NDArray[np.uint8],
    strip_bytes: int,
    row_bytes: int,
) -> int:
    """Decode LZW strips into their places; how many, up to the first that is not as it should be. Some writers make
    a strip of each row: there are as many calls then as rows, and the interpreter has no part in them."""
    for index in range(len(segments)):
        block = _block(pixels, first + index, strip_bytes)
        if not fills(data[segments[index, 0] : segments[index, 0] + segments[index, 1]], block):
            return index
        _exchange_rows(block, row_bytes)
    return len(segments)


@compiled
def _block(pixels: NDArray[np.uint8], strip: int, strip_bytes: int) -> NDArray[np.uint8]:
    """Where a strip belongs: the first one last. The last may be cut."""
    stop = pixels.size - strip * strip_bytes
    return pixels[max(stop - strip_bytes, 0) : stop]


@compiled
def _exchange_rows(block: NDArray[np.uint8], row_bytes: int) -> None:
    """Turn the rows of a block over, in place."""
    rows = block.reshape(-1, row_bytes)
    last = len(rows) - 1
    for row in range(len(rows) // 2):
        for column in range(row_bytes):
            kept = rows[row, column]
            rows[row, column] = rows[last - row, column]
            rows[last - row, column] = kept


def _is_plain(page: Page, layout: Layout) -> bool:
    itemsize = layout.dtype.itemsize
    return (
        not page.tiled
        and page.predictor == _NO_PREDICTOR
        and page.fill_order == _HIGHEST_BIT_FIRST
        and layout.bits == 8 * itemsize
        and (itemsize == 1 or page.byte_order == _NATIVE)
    )


def _decode_by_buffer(
    data: NDArray[np.uint8],
    segments: NDArray[np.int64],
    first: int,
    page: Page,
    layout: Layout,
    frame: NDArray[Any],
) -> tuple[int, str] | None:
    rows, columns = page.rows_per_strip, page.columns_per_strip
    across = -(-page.width // columns)
    buffer = np.empty(rows * layout.row_bytes(page), dtype=np.uint8)
    for strip, (offset, count) in enumerate(segments.tolist(), start=first):
        top, left = strip // across * rows, strip % across * columns * layout.packing
        # The last strip is cut; a tile never is.
        stored_rows = rows if page.tiled else min(rows, page.height - top)
        stored = buffer[: stored_rows * layout.row_bytes(page)]
        strip_data = data[offset : offset + count]
        if page.fill_order != _HIGHEST_BIT_FIRST:
            strip_data = np.frombuffer(imagecodecs.bitorder_decode(strip_data.tobytes()), dtype=np.uint8)
        why = _decode_strip(strip_data, page.compression, stored, buffer.size)
        if why:
            return strip, why
        pixels = _pixels(stored.reshape(stored_rows, -1), page, layout)
        bottom = page.height - top
        place = frame[max(bottom - stored_rows, 0) : bottom, left : left + pixels.shape[1]]
        place[...] = pixels[: place.shape[0], : place.shape[1]][::-1]
    return None


def _pixels(stored: NDArray[np.uint8], page: Page, layout: Layout) -> NDArray[Any]:
    """The pixels of decoded rows, in any byte order."""
    columns = page.columns_per_strip * layout.packing
    if layout.bits == 1:
        return np.unpackbits(stored, axis=1, count=columns)
    if layout.bits == 4:
        return unpack(stored, columns, HIGH_FIRST if layout.packing == 1 else LOW_FIRST)
    kind = np.dtype(f"{layout.dtype.kind}{layout.bits // 8}")
    values = stored.view(kind.newbyteorder(page.byte_order))  # type: ignore[arg-type]  # "<" or ">"
    if page.predictor == _FLOAT_DIFFERENCES:
        undone: NDArray[Any] = imagecodecs.floatpred_decode(values, axis=-1)
        return undone
    if page.predictor == _DIFFERENCES:
        return np.cumsum(values, axis=1, dtype=kind)
    return values

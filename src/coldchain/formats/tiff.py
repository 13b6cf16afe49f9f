"""TIFF movies and images, as cameras write them and as we write them.

A TIFF's first row is the picture's top: rows are reversed on reading and on writing, as RELION, MotionCor2 and IMOD
do, so that arrays here begin with the picture's bottom row. Frames are decoded strip by strip straight into one
preallocated array (the codecs release the interpreter's lock); layouts that are not plain strips go through tifffile.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats.arrays import allocate
from coldchain.formats.files import reading, replacing
from coldchain.formats.ifd import Page, walk
from coldchain.formats.lzw import decode_lzw_strip

Compression = Literal["lzw", "deflate", "none"]

_PLAIN, _LZW, _DEFLATE, _OLD_DEFLATE = 1, 5, 8, 32946
# The best that a codec can do, in bytes out per byte in, with room; a strip that promises more is a bomb or a lie.
_LARGEST_RATIO = {_PLAIN: 1, _LZW: 2800, _DEFLATE: 1100, _OLD_DEFLATE: 1100}
_LARGEST_FALLBACK_RATIO = 5000
_TIFFFILE_COMPRESSION = {"lzw": "lzw", "deflate": "zlib", "none": None}
_ANGSTROM_PER_CENTIMETER = 1e8
_LARGEST_PIXEL_SIZE_ANGSTROM = 1000.0
# What tifffile and the codecs raise on bytes that they cannot use: TiffFileError is a ValueError, the codecs' errors
# are RuntimeErrors, a tag of the wrong kind gives TypeError or AttributeError, an absurd tile size MemoryError.
_DECODING_ERRORS = (
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    struct.error,
)


def frame_pages(pages: Sequence[Page], path: Path, *, count: int | None = None) -> tuple[Page, ...]:
    """The first `count` pages (all by default) that are frames: thumbnails are left out, and all must have one shape
    and type (else FormatError)."""
    frames = (tuple(page for page in pages if not page.reduced) or tuple(pages))[:count]
    first = frames[0]
    for page in frames:
        if (page.height, page.width, page.bits_per_sample, page.sample_format) != (
            first.height,
            first.width,
            first.bits_per_sample,
            first.sample_format,
        ):
            raise FormatError(
                f"page {page.index} is {page.width} × {page.height} with {page.bits_per_sample} bits",
                expected=f"{first.width} × {first.height} with {first.bits_per_sample} bits, as the first",
                remedy="The file is no movie, or it is damaged; fetch it from the camera again",
                path=path,
            )
    return frames


def page_dtype(page: Page, path: Path) -> np.dtype[Any]:
    """The type of a page's pixels, in this machine's byte order; FormatError for what no camera writes."""
    if page.samples_per_pixel == 1:
        bits = 8 if page.bits_per_sample < 8 and page.sample_format == 1 else page.bits_per_sample
        name = f"{ {1: 'uint', 2: 'int', 3: 'float', 4: 'uint'}.get(page.sample_format, '?') }{bits}"
        if name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"):
            return np.dtype(name)
    raise FormatError(
        f"{page.samples_per_pixel} samples of {page.bits_per_sample} bits, sample format {page.sample_format}",
        expected="one integer or float per pixel",
        remedy="Convert the file to grey values",
        path=path,
    )


def pixel_size_angstrom(page: Page) -> float | None:
    """The pixel size that the resolution tags give, as SerialEM and IMOD write them; None where it cannot be one."""
    if page.resolution_per_centimeter is None:
        return None
    size = _ANGSTROM_PER_CENTIMETER / page.resolution_per_centimeter
    return size if size < _LARGEST_PIXEL_SIZE_ANGSTROM else None


def read_tiff(path: Path, *, threads: int = 1, count: int | None = None) -> NDArray[Any]:
    """The first `count` pages (all by default) as (frame, row, column), in the file's own type, bottom row first.

    Each frame is decoded by one of `threads` threads. Raises IncompleteFileError and FormatError as `ifd.walk`;
    FormatError naming frame and strip where a strip cannot be decoded or is too short, and where the pixels take more
    than 64 GiB; StorageError where the file cannot be read.
    """
    with reading(path) as stream:
        frames = frame_pages(walk(stream, path), path, count=count)
        dtype = page_dtype(frames[0], path)
        for frame in frames:
            _refuse_bombs(frame, dtype, path)
        stack = allocate((len(frames), frames[0].height, frames[0].width), dtype, path)
        if not all(_is_plain(frame) for frame in frames):
            return _read_by_tifffile(path, frames, stack)

        def decode(number: int) -> None:
            _decode_frame(stream.fileno(), frames[number], stack[number], number, path)

        run_all(decode, len(frames), threads)
    return stack


def run_all(task: Callable[[int], None], count: int, threads: int) -> None:
    """Run task(0) … task(count − 1) on `threads` threads; the first error is raised once the others have stopped."""
    if threads <= 1 or count == 1:
        for number in range(count):
            task(number)
        return
    with ThreadPoolExecutor(max_workers=min(threads, count)) as pool:
        futures = [pool.submit(task, number) for number in range(count)]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _is_plain(page: Page) -> bool:
    strips = -(-page.height // page.rows_per_strip)
    return (
        page.compression in _LARGEST_RATIO
        and page.predictor == 1
        and page.fill_order == 1
        and page.bits_per_sample in (8, 16, 32, 64)
        and not page.tiled
        and len(page.segments) == strips
    )


def _refuse_bombs(page: Page, dtype: np.dtype[Any], path: Path) -> None:
    promised = page.height * page.width * dtype.itemsize
    stored = sum(count for _, count in page.segments)
    packing = 8 if page.bits_per_sample < 8 else 1
    largest = stored * _LARGEST_RATIO.get(page.compression, _LARGEST_FALLBACK_RATIO) * packing
    if promised > largest:
        raise FormatError(
            f"page {page.index} promises {promised:,} bytes of pixels in {stored:,} bytes of strips",
            expected=f"at most {largest:,} with compression {page.compression}",
            remedy="The file is damaged; fetch it from the camera again",
            path=path,
        )


def _decode_frame(descriptor: int, page: Page, frame: NDArray[Any], number: int, path: Path) -> None:
    for strip, (offset, count) in enumerate(page.segments):
        # Decoded where its mirror image belongs, then reversed in place while it is still in the cache.
        top = strip * page.rows_per_strip
        rows = min(page.rows_per_strip, page.height - top)
        block = frame[page.height - top - rows : page.height - top]
        data = os.pread(descriptor, count, offset)
        decoded = _decode_strip(data, page.compression, block.reshape(-1).view(np.uint8))
        if isinstance(decoded, str):
            raise FormatError(
                f"strip {strip} of frame {number} cannot be decoded: {decoded}",
                expected=f"{block.nbytes:,} bytes from {count:,} with compression {page.compression}",
                remedy="Fetch the file from the camera again; if it is damaged there too, the exposure is lost",
                path=path,
            )
        if page.byte_order == ">" and frame.dtype.itemsize > 1:
            block.byteswap(inplace=True)
        block[:] = block[::-1].copy()


def _decode_strip(data: bytes, compression: int, out: NDArray[np.uint8]) -> int | str:
    """Fill `out` from a strip; the number of bytes, or why it could not be."""
    if compression == _PLAIN:
        if len(data) < out.size:
            return f"it holds {len(data):,} bytes"
        out[:] = np.frombuffer(data, dtype=np.uint8, count=out.size)
        return out.size
    try:
        length = (
            decode_lzw_strip(data, out) if compression == _LZW else len(imagecodecs.zlib_decode(data, out=out.data))
        )
    except RuntimeError as failure:  # ImcdError and ZlibError are RuntimeErrors
        return str(failure)
    return length if length == out.size else f"it decodes to {length:,} bytes"


def _read_by_tifffile(path: Path, frames: Sequence[Page], stack: NDArray[Any]) -> NDArray[Any]:
    number = -1
    try:
        with tifffile.TiffFile(path) as file:
            for number, page in enumerate(frames):
                pixels = file.pages[page.index].asarray()
                if pixels.shape != stack.shape[1:]:
                    raise ValueError(f"it decodes to shape {pixels.shape}")
                stack[number] = pixels[::-1]
    except _DECODING_ERRORS as failure:
        raise FormatError(
            f"frame {max(number, 0)} cannot be decoded: {failure}",
            remedy="Fetch the file from the camera again; if it is damaged there too, the exposure is lost",
            path=path,
        ) from failure
    return stack


def write_tiff_movie(
    path: Path,
    frames: Iterable[NDArray[Any]],
    *,
    compression: Compression = "lzw",
    big: bool = False,
    pixel_size_angstrom: float | None = None,
) -> None:
    """Write frames (row, column) as pages, the picture's top row first, one strip per few rows as cameras do.

    All frames share one shape and type. `big` makes a BigTIFF, which files over 4 GB need. The pixel size goes into
    the resolution tags. Nobody sees half a file. Raises FormatError without frames, StorageError where the file
    cannot be written.
    """
    resolution = None if pixel_size_angstrom is None else (_resolution(pixel_size_angstrom),) * 2
    written = 0
    with replacing(path) as stream:
        with tifffile.TiffWriter(stream, bigtiff=big) as writer:
            for frame in frames:
                writer.write(
                    np.ascontiguousarray(frame[::-1]),
                    photometric="minisblack",
                    compression=_TIFFFILE_COMPRESSION[compression],
                    resolution=resolution,
                    resolutionunit=None if resolution is None else "CENTIMETER",
                    metadata=None,
                    software=False,
                )
                written += 1
        if not written:
            raise FormatError("no frames were given", expected="at least one", path=path)


def _resolution(size_angstrom: float) -> tuple[int, int]:
    return round(_ANGSTROM_PER_CENTIMETER / size_angstrom * 8), 8


def read_first_page(path: Path) -> NDArray[Any]:
    """The first page (row, column), bottom row first. Raises as `read_tiff`."""
    page: NDArray[Any] = read_tiff(path, count=1)[0]
    return page

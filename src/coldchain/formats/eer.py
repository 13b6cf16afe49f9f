"""EER movies: electron events of Falcon cameras in a TIFF.

The format, as far as public sources say it (Thermo Fisher's EerReaderLib, RELION's renderEER.cpp, imagecodecs):

- One TIFF directory per camera frame (a BigTIFF, as a rule); an uncompressed directory before them is a sum image.
- Compression 65000 has 8-bit, 65001 7-bit skips; 65002 names the bits in tags 65007 (skip), 65008 (x) and 65009 (y).
- A frame's stream, lowest bits first, runs along the rows: a skip says how many pixels are empty before the next
  event; after it come two bits of the event's x within its pixel and two of y, each with its high bit inverted. One
  pixel holds at most one event a frame. The stream ends where the skips reach the last pixel's end.
- A skip with all bits set says only "so many empty pixels": in 65001 and 65002 the next skip follows at once, without
  event bits. In 65000 every code has its full 12 bits, and those four bits are waste.

Rows are *not* reversed: RELION takes the stream's first row as its array's first row, and turns the `.gain` back to
that order after its TIFF reader has reversed it (renderEER.h, loadEERGain). So an EER movie and its gain fit here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats.arrays import allocate
from coldchain.formats.files import reading, replacing
from coldchain.formats.ifd import EER_7BIT, EER_8BIT, Page, walk
from coldchain.formats.tiff import run_all

DEFAULT_FRACTIONS = 40
_SUBPIXEL_BITS = 2
_SUBPIXELS = 1 << _SUBPIXEL_BITS
_HIGH_BITS_INVERTED = 0b1010
_LARGEST_UINT8 = 255
_UPSAMPLINGS = (1, 2)


def event_pages(pages: Sequence[Page], path: Path) -> tuple[Page, ...]:
    """The pages that are camera frames; FormatError where there is none, or where they differ in shape or coding."""
    frames = tuple(page for page in pages if page.is_eer)
    if not frames:
        raise FormatError("no page is a stream of electron events", expected="an EER movie", path=path)
    first = frames[0]
    for page in frames:
        if (page.height, page.width, page.compression, page.event_bits) != (
            first.height,
            first.width,
            first.compression,
            first.event_bits,
        ):
            raise FormatError(
                f"page {page.index} is {page.width} × {page.height} with compression {page.compression}",
                expected=f"{first.width} × {first.height} with {first.compression}, as the first",
                remedy="The file is damaged; fetch it from the camera again",
                path=path,
            )
        _refuse_short(page, path)
    return frames


def _refuse_short(page: Page, path: Path) -> None:
    """An empty frame needs one skip per longest run: a stream shorter than that has lost its end."""
    skip_bits = page.event_bits[0]
    if not 1 < skip_bits < 15:
        raise FormatError(f"skips of {skip_bits} bits", expected="2 to 14", path=path)
    longest = (1 << skip_bits) - 1
    needed_bits = page.width * page.height // longest * skip_bits
    stored = sum(count for _, count in page.segments)
    if stored * 8 < needed_bits:
        raise FormatError(
            f"frame {page.index} has {stored:,} bytes",
            expected=f"at least {needed_bits // 8:,} for {page.width} × {page.height} pixels",
            remedy="The file is damaged; fetch it from the camera again",
            path=path,
        )


def fraction_bounds(frames: int, fractions: int | None) -> NDArray[np.int64]:
    """Where each fraction of a movie begins, and where the last ends: no camera frame is left out, and the numbers of
    frames in two fractions differ by one at most."""
    wanted = min(frames, DEFAULT_FRACTIONS if fractions is None else fractions)
    return np.arange(wanted + 1, dtype=np.int64) * frames // wanted


def read_eer(path: Path, *, fractions: int | None = None, upsampling: int = 1, threads: int = 1) -> NDArray[Any]:
    """Events counted into (fraction, row, column): uint8, or uint16 where a fraction has more than 255 camera frames.

    `fractions` None means 40, or as many as there are camera frames if those are fewer. `upsampling` 2 counts on half
    pixels, which doubles rows and columns. Each fraction is decoded by one of `threads` threads. Raises as `ifd.walk`,
    and FormatError where a frame cannot be decoded or the numbers cannot be.

    A damaged 65001 stream that still adds up cannot be told from a whole one: the format has no check sum.
    """
    if upsampling not in _UPSAMPLINGS:
        raise FormatError(f"an upsampling of {upsampling}", expected="1 or 2", path=path)
    if fractions is not None and fractions < 1:
        raise FormatError(f"{fractions} fractions", expected="1 or more", path=path)
    with reading(path) as stream:
        frames = event_pages(walk(stream, path), path)
        bounds = fraction_bounds(len(frames), fractions)
        dtype = np.uint8 if int(np.diff(bounds).max()) <= _LARGEST_UINT8 else np.uint16
        shape = (len(bounds) - 1, frames[0].height * upsampling, frames[0].width * upsampling)
        counts = allocate(shape, dtype, path, zeroed=True)

        def decode(fraction: int) -> None:
            for number in range(bounds[fraction], bounds[fraction + 1]):
                _add_frame(stream, frames[number], counts[fraction], upsampling, number, path)

        run_all(decode, len(counts), threads)
    return counts


def _add_frame(stream: BinaryIO, page: Page, counts: NDArray[Any], upsampling: int, number: int, path: Path) -> None:
    data = b"".join(os.pread(stream.fileno(), count, offset) for offset, count in page.segments)
    if page.compression == EER_8BIT and _add_wasteful(data, page, counts, upsampling):
        return
    # The codec wants an even length and never looks at a code that begins in the last 16 bits.
    padded = data + bytes(2 + len(data) % 2)
    try:
        imagecodecs.eer_decode(padded, counts.shape, *page.event_bits, superres=upsampling - 1, out=counts)
    except (RuntimeError, ValueError) as failure:  # ImcdError for the stream, ValueError for the numbers of bits
        raise FormatError(
            f"frame {number} cannot be decoded: {failure}",
            expected=f"events on {page.width} × {page.height} pixels",
            remedy="Fetch the file from the camera again; if it is damaged there too, the exposure is lost",
            path=path,
        ) from failure


def _add_wasteful(data: bytes, page: Page, counts: NDArray[Any], upsampling: int) -> bool:
    """Count a 65000 stream of 12-bit codes; False, and nothing counted, where its skips do not end at the last pixel
    (then it is of the other kind, without waste)."""
    octets = np.frombuffer(data[: len(data) // 3 * 3], dtype=np.uint8).reshape(-1, 3).astype(np.uint16)
    codes = np.empty(2 * len(octets), dtype=np.uint16)
    codes[0::2] = octets[:, 0] | (octets[:, 1] & 0x0F) << 8
    codes[1::2] = octets[:, 1] >> 4 | octets[:, 2] << 4
    skips = (codes & 0xFF).astype(np.int64)
    ends = np.cumsum(skips + (skips < 0xFF))
    positions = ends - (skips < 0xFF)
    total = page.height * page.width
    last = int(np.searchsorted(positions, total))
    if last == len(positions) or positions[last] != total:
        return False
    events = np.flatnonzero(skips[:last] < 0xFF)
    rows, columns = np.divmod(positions[events], page.width)
    if upsampling > 1:
        offsets = codes[events] >> 8 ^ _HIGH_BITS_INVERTED
        columns = columns * 2 + (offsets >> 1 & 1)
        rows = rows * 2 + (offsets >> 3 & 1)
    counts[rows, columns] += 1
    return True


def write_eer(
    path: Path,
    images: Iterable[NDArray[Any]],
    *,
    bits: Literal[7, 8] = 7,
    upsampling: int = 1,
    camera_frames_per_image: int = 1,
) -> None:
    """Write event counts (row, column) as an EER movie, a BigTIFF as cameras write it.

    Each image is a 2-D array of integers: how many electrons hit each pixel. Since a pixel holds one event a camera
    frame, an image becomes `camera_frames_per_image` frames, over which a pixel's events are spread evenly; read with
    as many fractions as there were images, the same counts come back. `upsampling` (1, 2 or 4) says how much finer the
    images are than the sensor: at 2 and 4 the events keep their place within the pixel; at 1 they lie at its centre.
    The stream is as short as the format allows. Nobody sees half a file.

    Raises FormatError where a sensor pixel has more events than camera frames to put them in, StorageError where the
    file cannot be written.
    """
    with replacing(path) as stream:
        container = _Container(stream, EER_7BIT if bits == 7 else EER_8BIT)
        for number, image in enumerate(images):
            height, width = image.shape[0] // upsampling, image.shape[1] // upsampling
            for pixels, subpixels in _spread(image, upsampling, camera_frames_per_image, number, path):
                encode = _encode_7bit if bits == 7 else _encode_8bit
                container.add(encode(pixels, subpixels, height * width), height, width)
        if not container.frames:
            raise FormatError("no frames were given", expected="at least one", path=path)


def _spread(
    image: NDArray[Any], upsampling: int, frames: int, number: int, path: Path
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The events of each camera frame: their sensor pixels, rising, and the four bits of their place within it."""
    if upsampling not in (1, 2, _SUBPIXELS) or image.shape[0] % upsampling or image.shape[1] % upsampling:
        raise FormatError(
            f"image {number} of shape {image.shape} at upsampling {upsampling}",
            expected="1, 2 or 4, and sides that it divides",
            path=path,
        )
    rows, columns = np.nonzero(image)
    times = image[rows, columns].astype(np.int64)
    if times.size and times.min() < 0:
        raise FormatError(f"image {number} has negative counts", expected="0 or more", path=path)
    rows, columns = np.repeat(rows, times), np.repeat(columns, times)
    pixels = rows // upsampling * (image.shape[1] // upsampling) + columns // upsampling
    step = _SUBPIXELS // upsampling
    x, y = columns % upsampling * step + step // 2, rows % upsampling * step + step // 2
    order = np.argsort(pixels, kind="stable")
    pixels, subpixels = pixels[order], ((y << _SUBPIXEL_BITS | x) ^ _HIGH_BITS_INVERTED)[order]
    first_of_pixel = np.searchsorted(pixels, pixels)
    turn = np.arange(pixels.size) - first_of_pixel
    if turn.size and turn.max() >= frames:
        raise FormatError(
            f"image {number} has a pixel with {turn.max() + 1} events for {frames} camera frames",
            expected="one event per pixel and camera frame at most",
            remedy=f"Give camera_frames_per_image={turn.max() + 1} or more",
            path=path,
        )
    frame_of_event = (turn + pixels) % frames
    for frame in range(frames):
        chosen = frame_of_event == frame
        yield pixels[chosen], subpixels[chosen]


def _gaps(pixels: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Empty pixels before each event, and after the last."""
    ends = np.concatenate([pixels, [total]])
    return np.diff(ends, prepend=-1) - 1


def _encode_7bit(pixels: NDArray[np.int64], subpixels: NDArray[np.int64], total: int) -> bytes:
    longest = 0x7F
    full, rest = np.divmod(_gaps(pixels, total), longest)
    # Where each code with a rest begins, in bits: behind all full skips and all codes before it.
    lengths = full * 7 + 11
    starts = np.cumsum(lengths) - 11
    values = rest | np.concatenate([subpixels, [0]]) << 7
    stream = np.ones(int(starts[-1]) + 7, dtype=np.uint8)  # a full skip is seven ones, so ones need not be written
    for bit in range(7):
        stream[starts + bit] = values >> bit & 1
    for bit in range(7, 11):
        stream[starts[:-1] + bit] = values[:-1] >> bit & 1
    return _padded(np.packbits(stream, bitorder="little").tobytes())


def _encode_8bit(pixels: NDArray[np.int64], subpixels: NDArray[np.int64], total: int) -> bytes:
    longest = 0xFF
    full, rest = np.divmod(_gaps(pixels, total), longest)
    ends = np.cumsum(full + 1) - 1
    codes = np.full(int(ends[-1]) + 1, longest, dtype=np.uint16)
    codes[ends] = rest | np.concatenate([subpixels, [0]]) << 8
    codes = np.append(codes, np.zeros(codes.size % 2, dtype=np.uint16))
    octets = np.empty((codes.size // 2, 3), dtype=np.uint8)
    octets[:, 0] = codes[0::2] & 0xFF
    octets[:, 1] = codes[0::2] >> 8 | (codes[1::2] & 0x0F) << 4
    octets[:, 2] = codes[1::2] >> 4
    return _padded(octets.tobytes())


def _padded(stream: bytes) -> bytes:
    """A whole number of 64-bit words, as the cameras write."""
    return stream + bytes(-len(stream) % 8)


class _Container:
    """A little-endian BigTIFF that grows by a directory per camera frame, each before the next one's stream."""

    _BYTE, _SHORT, _LONG, _UNDEFINED, _LONG8 = 1, 3, 4, 7, 16

    def __init__(self, stream: BinaryIO, compression: int) -> None:
        self._stream = stream
        self._compression = compression
        self._link = 8
        self.frames = 0
        stream.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))

    def add(self, data: bytes, height: int, width: int) -> None:
        """Append one frame."""
        data_offset = self._stream.tell()
        self._stream.write(data)
        entries = [
            (256, self._LONG, 1, width),
            (257, self._LONG, 1, height),
            (258, self._SHORT, 1, 8),
            (259, self._SHORT, 1, self._compression),
            (262, self._SHORT, 1, 1),
            (273, self._LONG8, 1, data_offset),
            (277, self._SHORT, 1, 1),
            (278, self._LONG, 1, height),
            (279, self._LONG8, 1, len(data)),
        ]
        if not self.frames:
            entries.append(self._metadata())
        directory = self._stream.tell()
        packed = b"".join(struct.pack("<HHQQ", *entry) for entry in entries)
        self._stream.write(struct.pack("<Q", len(entries)) + packed + struct.pack("<Q", 0))
        end = self._stream.tell()
        self._stream.seek(self._link)
        self._stream.write(struct.pack("<Q", directory))
        self._stream.seek(end)
        self._link = end - 8
        self.frames += 1

    def _metadata(self) -> tuple[int, int, int, int]:
        """Readers know an EER by its acquisition metadata in the first directory."""
        text = b'<metadata><item name="cameraName">simulated</item></metadata>'
        offset = self._stream.tell()
        self._stream.write(text + bytes(-len(text) % 8))
        return 65001, self._UNDEFINED, len(text), offset

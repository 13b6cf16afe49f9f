"""Streams of electron events: how a frame of an EER movie is coded.

A stream, lowest bits first, runs along the rows: a skip says how many pixels are empty before the next event, and after
it come the event's place within its pixel, first x, then y, each with its high bit inverted (a signed distance from the
pixel's centre). One pixel holds at most one event a frame. The stream ends where the skips reach the last pixel's end.
A skip with all bits set says only "so many empty pixels": the next skip follows at once, without a place. In the oldest
coding it has the bits of a place all the same, and they are waste.

What is known of it comes from Thermo Fisher's EerReaderLib, RELION's renderEER.cpp, and imagecodecs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldchain.compiled import compiled

_WORD_BITS, _WORD_BYTES = 64, 8
# The part of the image that all streams are counted into before the next part stays in the processor's nearest cache.
_BAND_BYTES = 1 << 16
SMALLEST_SKIP_BITS, LARGEST_SKIP_BITS, LARGEST_PLACE_BITS = 2, 14, 4


@dataclass(frozen=True, slots=True)
class Coding:
    """How many bits a skip has, and an event's place along x and along y. `wasteful`: every code has all of them."""

    skip_bits: int = 7
    x_bits: int = 2
    y_bits: int = 2
    wasteful: bool = False

    @property
    def code_bits(self) -> int:
        """The bits of a skip with an event."""
        return self.skip_bits + self.x_bits + self.y_bits

    @property
    def full_skip_bits(self) -> int:
        """The bits of a skip without an event."""
        return self.code_bits if self.wasteful else self.skip_bits

    @property
    def longest_skip(self) -> int:
        """The skip with all bits set."""
        return (1 << self.skip_bits) - 1


def count_events(streams: list[bytes], coding: Coding, shape: tuple[int, int], image: NDArray[Any]) -> tuple[str, ...]:
    """Count the events of several frames into `image`: 1 is added where each lies.

    `shape` is the sensor's (rows, columns), and `image` (contiguous) has 1, 2 or 4 times as many along both axes: an
    event lies in the half or quarter pixel that its place names. The interpreter's lock is not held.

    Returns for each stream "" or why it is not whole: it ends too early, or a skip leads beyond the sensor. Nothing of
    a stream that is not whole is counted.
    """
    words, starts = _words(streams)
    bits, pixels = np.zeros(len(streams), dtype=np.int64), np.zeros(len(streams), dtype=np.int64)
    _count(words, starts, bits, pixels, _numbers(coding), shape, image, 1)
    total = shape[0] * shape[1]
    faults = tuple(
        _fault(words[start:end], int(bit), int(pixel), coding, 8 * len(stream), total)
        for stream, start, end, bit, pixel in zip(streams, starts[:-1], starts[1:], bits, pixels, strict=True)
    )
    for number, fault in enumerate(faults):
        if fault:
            ends = starts[number : number + 2] - starts[number]
            part = words[starts[number] : starts[number + 1]]
            zeros = np.zeros((2, 1), dtype=np.int64)
            _count(part, ends, zeros[0], zeros[1], _numbers(coding), shape, image, -1)
    return faults


def _words(streams: list[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The streams as words, each followed by one of zeros, and where each begins."""
    lengths = [-(-len(stream) // _WORD_BYTES) + 1 for stream in streams]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    joined = b"".join(
        stream.ljust(length * _WORD_BYTES, b"\0") for stream, length in zip(streams, lengths, strict=True)
    )
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64, copy=False), starts


def _numbers(coding: Coding) -> tuple[int, int, int, int]:
    return coding.skip_bits, coding.x_bits, coding.y_bits, coding.full_skip_bits


def _fault(words: NDArray[np.uint64], bit: int, pixel: int, coding: Coding, stream_bits: int, total: int) -> str:
    """What is wrong with a stream of which the code at `bit` is the first that was not counted; "" if nothing is."""
    if pixel == total and bit <= stream_bits:
        return ""
    if bit + coding.skip_bits > stream_bits:
        return "the stream of events ends too early"
    code = int.from_bytes(words[bit // _WORD_BITS :][:2].astype("<u8").tobytes(), "little") >> bit % _WORD_BITS
    if pixel + (code & coding.longest_skip) > total:
        return f"the code at bit {bit:,} leads beyond the sensor"
    return ""


@compiled
def _count(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    bits: NDArray[np.int64],
    pixels: NDArray[np.int64],
    coding: tuple[int, int, int, int],
    shape: tuple[int, int],
    image: NDArray[Any],
    step: int,
) -> None:
    """Add `step` to the image for every event, part by part of the image. `bits` and `pixels` hold how far each stream
    has come, now and at the end."""
    rows, columns = shape
    band = max(1, _BAND_BYTES * rows // (image.size * image.itemsize))
    for first in range(0, rows, band):
        limit = min(first + band, rows) * columns
        for stream in range(starts.size - 1):
            own = words[starts[stream] : starts[stream + 1]]
            bits[stream], pixels[stream] = _count_until(
                own, bits[stream], pixels[stream], limit, coding, columns, image, step
            )


@compiled
def _count_until(
    words: NDArray[np.uint64],
    bit: int,
    pixel: int,
    limit: int,
    coding: tuple[int, int, int, int],
    columns: int,
    image: NDArray[Any],
    step: int,
) -> tuple[int, int]:
    """Count the events of one stream that lie before the pixel `limit`: the bit and the pixel from which to go on.

    The index is checked by the limit: no pixel at or behind it is touched, and the words behind the last are not read.
    """
    skip_bits, x_bits, y_bits, full_skip_bits = coding
    code_bits = skip_bits + x_bits + y_bits
    longest = (1 << skip_bits) - 1
    upsampling = image.shape[1] // columns
    flat = image.reshape(-1)
    one = flat.dtype.type(step)
    row = pixel // columns
    row_end = (row + 1) * columns
    while (bit >> 6) + 1 < words.size:
        window = words[bit >> 6] >> np.uint64(bit & 63)
        if bit & 63:
            window |= words[(bit >> 6) + 1] << np.uint64(64 - (bit & 63))
        for _ in range(_WORD_BITS // code_bits):
            skip = int(window & np.uint64(longest))
            at = pixel + skip
            if at >= limit:
                return bit, pixel
            index = at
            if upsampling > 1:
                while at >= row_end:
                    row += 1
                    row_end += columns
                x = _sub_pixel(window >> np.uint64(skip_bits), x_bits, upsampling)
                y = _sub_pixel(window >> np.uint64(skip_bits + x_bits), y_bits, upsampling)
                index = ((row * upsampling + y) * columns + at - row_end + columns) * upsampling + x
            # A full skip adds nothing where it ends: that costs less than a branch that cannot be foreseen.
            is_event = int(skip != longest)
            flat[index] += one * flat.dtype.type(is_event)
            pixel = at + is_event
            used = full_skip_bits + (code_bits - full_skip_bits) * is_event
            window >>= np.uint64(used)
            bit += used
    return bit, pixel


@compiled
def _sub_pixel(window: int, bits: int, upsampling: int) -> int:
    """Which half or quarter of its pixel an event lies in; the lowest bits of `window` are its place."""
    place = (int(window) & ((1 << bits) - 1)) ^ (1 << bits >> 1)
    return place * upsampling >> bits


def encode_events(pixels: NDArray[np.int64], places: NDArray[np.int64], total: int, coding: Coding) -> bytes:
    """The stream of a frame with events in `pixels` (rising) of `total`, as short as the coding allows.

    `places` are (events, 2): x and y within the pixel, in sub-pixels. The stream fills whole 64-bit words, as the
    cameras write.
    """
    gaps = np.diff(np.concatenate([pixels, [total]]), prepend=-1) - 1
    full, rest = np.divmod(gaps, coding.longest_skip)
    ends = np.cumsum(full + 1) - 1
    codes = np.full(int(ends[-1]) + 1, coding.longest_skip, dtype=np.int64)
    lengths = np.full(codes.size, coding.full_skip_bits, dtype=np.int64)
    x = places[:, 0] ^ (1 << coding.x_bits >> 1)
    y = places[:, 1] ^ (1 << coding.y_bits >> 1)
    codes[ends] = rest
    codes[ends[:-1]] |= x << coding.skip_bits | y << (coding.skip_bits + coding.x_bits)
    lengths[ends[:-1]] = coding.code_bits
    begins = np.cumsum(lengths) - lengths
    bits = np.zeros(-(-int(begins[-1] + lengths[-1]) // _WORD_BITS) * _WORD_BITS, dtype=np.uint8)
    for bit in range(coding.code_bits):
        has = lengths > bit
        bits[begins[has] + bit] = codes[has] >> bit & 1
    return np.packbits(bits, bitorder="little").tobytes()

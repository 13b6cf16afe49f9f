"""EER movies: electron events of Falcon cameras in a TIFF.

One TIFF directory per camera frame (a BigTIFF, as a rule); an uncompressed directory before them is a sum image. How a
frame's events are coded says the directory's compression:

| compression | skip | place | |
|---|---|---|---|
| 65000 | 8 bits | 2 + 2 bits | full skips have a place that is waste; newer readers know a kind without waste |
| 65001 | 7 bits | 2 + 2 bits | |
| 65002 | tag 65007 | tags 65008 (x), 65009 (y) | 7, 2 and 2 where a tag is missing |

Rows are *not* reversed: RELION takes the stream's first row as its array's first row, and turns the `.gain` back to
that order after its TIFF reader has reversed it (renderEER.h, loadEERGain). So an EER movie and its gain fit here.

Camera frames are gathered into fractions of equal length, and what is left over goes into the last. RELION's motion
STAR has one number for that length (rlnEERGrouping), so that Bayesian polishing finds in a fraction the camera frames
that were aligned in it. Where RELION leaves the rest out, here no electron is lost.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats.arrays import allocate
from coldchain.formats.events import (
    LARGEST_PLACE_BITS,
    LARGEST_SKIP_BITS,
    SMALLEST_SKIP_BITS,
    Coding,
    count_events,
    encode_events,
)
from coldchain.formats.files import reading, replacing
from coldchain.formats.ifd import EER_7BIT, EER_8BIT, EER_VARIABLE, Page, survey
from coldchain.formats.loading import BadFrames, LoadedMovie, MovieReading, loaded
from coldchain.formats.workers import run_all

DEFAULT_FRACTIONS = 40
EIGHT_BIT = Coding(8, 2, 2, wasteful=True)
SEVEN_BIT = Coding(7, 2, 2)
_LARGEST_UINT8 = 255
# So many streams are counted together at most: what they take together is a bounded part of the memory.
_STREAMS_AT_ONCE = 64
_LOST = "Fetch the file from the camera again; if it is damaged there too, the exposure is lost"


def coding_of(page: Page, path: Path) -> Coding:
    """How a page's events are coded; FormatError where its numbers of bits cannot be."""
    skip, x, y = page.event_bits
    if not SMALLEST_SKIP_BITS <= skip <= LARGEST_SKIP_BITS or not 0 <= max(x, y) <= LARGEST_PLACE_BITS:
        raise FormatError(
            f"skips of {skip} bits, places of {x} and {y}",
            expected=f"{SMALLEST_SKIP_BITS} to {LARGEST_SKIP_BITS}, and {LARGEST_PLACE_BITS} at most",
            path=path,
        )
    return Coding(skip, x, y, wasteful=page.compression == EER_8BIT)


def event_pages(pages: Sequence[Page], path: Path) -> tuple[Page, ...]:
    """The pages that are camera frames; FormatError where there is none, or where they differ in shape or coding."""
    frames = tuple(page for page in pages if page.is_eer)
    if not frames:
        raise FormatError("no page is a stream of electron events", expected="an EER movie", path=path)
    first = frames[0]
    coding_of(first, path)
    for page in frames:
        if _shape_and_coding(page) != _shape_and_coding(first):
            raise FormatError(
                f"page {page.index + 1} is {page.width} × {page.height} with compression {page.compression}",
                expected=f"{first.width} × {first.height} with {first.compression}, as the first",
                remedy="The file is damaged; fetch it from the camera again",
                path=path,
            )
    return frames


def _shape_and_coding(page: Page) -> tuple[int, int, int, tuple[int, int, int]]:
    return page.height, page.width, page.compression, page.event_bits


def check_streams(pages: Sequence[Page], path: Path) -> None:
    """Raise FormatError where a stream of `event_pages` is shorter than an empty frame's must be: it lost its end."""
    for number, page in enumerate(pages, start=1):
        fault = _shortness(page, number, path)
        if fault is not None:
            raise fault


def _shortness(page: Page, number: int, path: Path) -> FormatError | None:
    """An empty frame needs one skip for each longest run of pixels."""
    coding = coding_of(page, path)
    needed_bits = page.width * page.height // coding.longest_skip * coding.skip_bits
    if page.stored_bytes * 8 >= needed_bits:
        return None
    return FormatError(
        f"camera frame {number} has {page.stored_bytes:,} bytes",
        expected=f"at least {needed_bits // 8:,} for {page.width} × {page.height} pixels",
        remedy="The file is damaged; fetch it from the camera again",
        path=path,
    )


def fraction_bounds(frames: int, fractions: int | None) -> NDArray[np.int64]:
    """Where each fraction of a movie begins, and where the last ends: every camera frame is in one.

    All have the same number of camera frames, except that the last has the rest as well; it is the number with which
    there are about as many fractions as are wanted (None: 40).
    """
    wanted = DEFAULT_FRACTIONS if fractions is None else fractions
    length = max(1, round(frames / wanted))
    bounds = np.arange(frames // length + 1, dtype=np.int64) * length
    bounds[-1] = frames
    return bounds


def read_eer(path: Path, *, fractions: int | None = None, upsampling: int = 1, threads: int = 1) -> NDArray[Any]:
    """Events counted into (fraction, row, column). Types and errors as those of `load_eer`."""
    return load_eer(path, MovieReading(eer_fractions=fractions, eer_upsampling=upsampling, threads=threads)).frames


def load_eer(path: Path, how: MovieReading) -> LoadedMovie:
    """Events counted into (fraction, row, column): uint8, or uint16 where a fraction has more than 255 camera frames.

    Upsampling 2 counts on half pixels, which doubles rows and columns. Bad camera frames that are tolerated are missing
    from their fraction, and `camera_frames` says so; a fraction that has none left is left out.

    Raises as `ifd.survey` and `event_pages`, IncompleteFileError where the file ends before its last directory (how
    many frames belong in a fraction cannot be known then), FormatError naming the camera frame (from 1) where more are
    bad than are tolerated or where events have no half pixels, UsageError where frames are asked for that there are
    not.

    A damaged 65001 stream that still adds up cannot be told from a whole one: the format has no check sum.
    """
    with reading(path) as stream:
        directories = survey(stream, path)
        if directories.broken is not None:
            raise directories.broken
        pages = event_pages(directories.pages, path)
        _refuse_upsampling(coding_of(pages[0], path), how.eer_upsampling, path)
        bounds = fraction_bounds(len(pages), how.eer_fractions)
        chosen = how.chosen(len(bounds) - 1, path)
        bad = BadFrames(how.tolerate_frames, path)
        for number in range(int(bounds[chosen.start]) + 1, int(bounds[chosen.stop]) + 1):
            fault = pages[number - 1].fault or _shortness(pages[number - 1], number, path)
            if fault is not None:
                bad.add(number, fault)
        lengths = np.diff(bounds)[chosen.start : chosen.stop]
        shape = (len(chosen), pages[0].height * how.eer_upsampling, pages[0].width * how.eer_upsampling)
        counts = allocate(shape, np.uint8 if lengths.max() <= _LARGEST_UINT8 else np.uint16, path, zeroed=True)
        held = np.zeros(len(chosen), dtype=np.int64)

        def count(index: int) -> None:
            fraction = chosen[index]
            numbers = [n for n in range(int(bounds[fraction]) + 1, int(bounds[fraction + 1]) + 1) if n not in bad]
            for start in range(0, len(numbers), _STREAMS_AT_ONCE):
                some = numbers[start : start + _STREAMS_AT_ONCE]
                held[index] += _count_frames(stream, pages, some, counts[index], bad, path)

        run_all(count, len(chosen), how.threads)
    return loaded(counts, held, chosen.start + 1, bad, path)


def _refuse_upsampling(coding: Coding, upsampling: int, path: Path) -> None:
    if upsampling > 1 << min(coding.x_bits, coding.y_bits):
        raise FormatError(
            f"an upsampling of {upsampling} with events that have {coding.x_bits} and {coding.y_bits} bits of place",
            expected="an upsampling of 1",
            path=path,
        )


def _count_frames(
    stream: BinaryIO, pages: Sequence[Page], numbers: Sequence[int], image: NDArray[Any], bad: BadFrames, path: Path
) -> int:
    """Count camera frames (by their numbers, from 1) into an image; how many of them were whole."""
    page = pages[numbers[0] - 1]
    coding, shape = coding_of(page, path), (page.height, page.width)
    streams = [_stream(stream, pages[number - 1]) for number in numbers]
    faults = list(count_events(streams, coding, shape, image))
    again = [index for index, fault in enumerate(faults) if fault] if coding.wasteful else []
    if again:  # newer cameras waste nothing in this coding either
        thrifty = Coding(coding.skip_bits, coding.x_bits, coding.y_bits)
        for index, fault in zip(again, count_events([streams[i] for i in again], thrifty, shape, image), strict=True):
            faults[index] = fault and faults[index]
    for number, fault in zip(numbers, faults, strict=True):
        if fault:
            bad.add(number, _stream_error(number, fault, shape, path))
    return faults.count("")


def _stream(stream: BinaryIO, page: Page) -> bytes:
    return b"".join(os.pread(stream.fileno(), int(count), int(offset)) for offset, count in page.segments)


def _stream_error(number: int, fault: str, shape: tuple[int, int], path: Path) -> FormatError:
    return FormatError(
        f"camera frame {number} cannot be decoded: {fault}",
        expected=f"events on {shape[1]} × {shape[0]} pixels",
        remedy=_LOST,
        path=path,
    )


def write_eer(
    path: Path,
    images: Iterable[NDArray[Any]],
    *,
    coding: Coding = SEVEN_BIT,
    upsampling: int = 1,
    camera_frames_per_image: int = 1,
) -> None:
    """Write event counts (row, column) as an EER movie, a BigTIFF as cameras write it.

    Each image is a 2-D array of integers: how many electrons hit each pixel. Since a pixel holds one event a camera
    frame, an image becomes `camera_frames_per_image` frames, over which a pixel's events are spread evenly; read with
    as many fractions as there were images, the same counts come back. `upsampling` (1, 2, 4 …) says how much finer the
    images are than the sensor: beyond 1 the events keep their place within the pixel, as far as the coding's bits say;
    at 1 they lie at its centre. The streams are as short as the coding allows. A coding that is neither `SEVEN_BIT` nor
    `EIGHT_BIT` is written as the variable one, 65002. Nobody sees half a file.

    Raises FormatError where a sensor pixel has more events than camera frames to put them in, StorageError where the
    file cannot be written.
    """
    with replacing(path) as stream:
        container = _Container(stream, coding)
        for number, image in enumerate(images):
            height, width = image.shape[0] // upsampling, image.shape[1] // upsampling
            for pixels, places in _spread(image, coding, upsampling, camera_frames_per_image, number, path):
                container.add(encode_events(pixels, places, height * width, coding), height, width)
        if not container.frames:
            raise FormatError("no frames were given", expected="at least one", path=path)


def _spread(
    image: NDArray[Any], coding: Coding, upsampling: int, frames: int, number: int, path: Path
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The events of each camera frame: their sensor pixels, rising, and their places (x, y) within them."""
    known = [1 << bits for bits in range(min(coding.x_bits, coding.y_bits) + 1)]
    if upsampling not in known or image.shape[0] % upsampling or image.shape[1] % upsampling:
        raise FormatError(
            f"image {number} of shape {image.shape} at upsampling {upsampling}",
            expected=f"{', '.join(map(str, known))}, and sides that it divides",
            path=path,
        )
    rows, columns = np.nonzero(image)
    times = image[rows, columns].astype(np.int64)
    if times.size and times.min() < 0:
        raise FormatError(f"image {number} has negative counts", expected="0 or more", path=path)
    rows, columns = np.repeat(rows, times), np.repeat(columns, times)
    pixels = rows // upsampling * (image.shape[1] // upsampling) + columns // upsampling
    steps = (1 << coding.x_bits) // upsampling, (1 << coding.y_bits) // upsampling
    places = np.stack(
        [c % upsampling * step + step // 2 for c, step in zip((columns, rows), steps, strict=True)], axis=1
    )
    order = np.argsort(pixels, kind="stable")
    pixels, places = pixels[order], places[order]
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
        yield pixels[chosen], places[chosen]


class _Container:
    """A little-endian BigTIFF that grows by a directory per camera frame, each before the next one's stream."""

    _SHORT, _LONG, _UNDEFINED, _LONG8 = 3, 4, 7, 16

    def __init__(self, stream: BinaryIO, coding: Coding) -> None:
        self._stream = stream
        self._coding = coding
        self._compression = {EIGHT_BIT: EER_8BIT, SEVEN_BIT: EER_7BIT}.get(coding, EER_VARIABLE)
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
        if self._compression == EER_VARIABLE:
            bits = self._coding.skip_bits, self._coding.x_bits, self._coding.y_bits
            entries += [(tag, self._SHORT, 1, value) for tag, value in zip((65007, 65008, 65009), bits, strict=True)]
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

"""The directories of a TIFF or BigTIFF file, walked strictly and with a bound on everything a file may claim.

Nothing is decoded. What the walk gives is enough to say whether every strip lies inside the file, and to decode the
layouts that cameras write. TIFF 6.0 (Adobe, 1992); BigTIFF as libtiff has it. Directories and strips are counted from 1
in what is said of them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats.files import reading, size_of

LARGEST_DIRECTORY_COUNT = 1_000_000
_LARGEST_ENTRY_COUNT = 4096
_LARGEST_SIDE = 1 << 20
_LARGEST_TEXT_BYTES = 4096
_MAGIC = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
# TIFF's integer types, by number: BYTE, SHORT, LONG, IFD, LONG8, IFD8.
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_TEXT, _RATIONAL = 2, 5
# Most directories are read whole by one call to the operating system.
_USUAL_ENTRY_COUNT = 24
_REMEDY = "Wait until it is written, or fetch it from the camera again"
_DAMAGED = "The file is damaged; fetch it from the camera again"

EER_8BIT, EER_7BIT, EER_VARIABLE = 65000, 65001, 65002
EER_COMPRESSIONS = (EER_8BIT, EER_7BIT, EER_VARIABLE)

_NEW_SUBFILE, _SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 255, 256, 257, 258, 259
_FILL_ORDER, _DESCRIPTION = 266, 270
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _X_RESOLUTION, _RESOLUTION_UNIT = 273, 277, 278, 279, 282, 296
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _SAMPLE_FORMAT = 317, 322, 323, 324, 325, 339
_EER_SKIP_BITS, _EER_X_BITS, _EER_Y_BITS = 65007, 65008, 65009
_WANTED = frozenset(
    (
        *(_NEW_SUBFILE, _SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _FILL_ORDER, _DESCRIPTION),
        *(_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _X_RESOLUTION, _RESOLUTION_UNIT),
        *(_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _SAMPLE_FORMAT),
        *(_EER_SKIP_BITS, _EER_X_BITS, _EER_Y_BITS),
    )
)


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """One directory of a TIFF file: the layout of one image.

    Parameters
    ----------
    index : its place in the chain, from 0.
    sample_format : 1 for unsigned and 2 for signed integers, 3 for floats.
    rows_per_strip, columns_per_strip : of a strip or tile, before the picture's edges cut it.
    reduced : it is a smaller version of another image.
    segments : int64 (strips or tiles, 2), the offset and the bytes of each; empty where `fault` says why.
    resolution_per_centimeter : None where the file gives no unit.
    event_bits : EER's (skip, x, y).
    description : what the writer says of the image.
    fault : what is wrong with the strips: they are missing, or lie outside the file.
    """

    index: int
    byte_order: str
    width: int
    height: int
    bits_per_sample: int
    samples_per_pixel: int
    sample_format: int
    compression: int
    predictor: int
    fill_order: int
    rows_per_strip: int
    columns_per_strip: int
    tiled: bool
    reduced: bool
    segments: NDArray[np.int64]
    resolution_per_centimeter: float | None
    event_bits: tuple[int, int, int]
    description: str
    fault: FormatError | None

    @property
    def is_eer(self) -> bool:
        """Whether the image is a stream of electron events."""
        return self.compression in EER_COMPRESSIONS

    @property
    def stored_bytes(self) -> int:
        """The bytes of all strips."""
        return int(self.segments[:, 1].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Directories:
    """The chain of directories, as far as it can be followed; `broken` says why it cannot be followed to its end."""

    pages: tuple[Page, ...]
    broken: IncompleteFileError | None


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a TIFF or BigTIFF."""
    return head[:4] in _MAGIC


def read_pages(path: Path) -> tuple[Page, ...]:
    """Every directory of the file at `path`, in order. Raises as `walk`, and StorageError where it cannot be read."""
    with reading(path) as stream:
        return walk(stream, path)


def walk(stream: BinaryIO, path: Path) -> tuple[Page, ...]:
    """Every directory of an open file, in order, all whole. Raises as `survey`, and what it finds wrong with one."""
    directories = survey(stream, path)
    for page in directories.pages:
        if page.fault is not None:
            raise page.fault
    if directories.broken is not None:
        raise directories.broken
    return directories.pages


def survey(stream: BinaryIO, path: Path) -> Directories:
    """Every directory of an open file, in order, with what is wrong with each.

    IncompleteFileError is what is noted where a directory, one of its arrays or a strip reaches beyond the end of the
    file, or is not written yet; FormatError where a directory has no strips.

    Raises IncompleteFileError where there is no directory at all, FormatError where the file is no TIFF, the chain runs
    in a circle, directories or strips share bytes, or a value cannot be.
    """
    return _Survey(stream, path).directories()


_Values = Sequence[int] | NDArray[Any]


@dataclass(slots=True)
class _Directory:
    """A directory as it is read: the values of its tags, and what was cut off."""

    tags: dict[int, _Values]
    description: str
    fault: FormatError | None


class _Survey:
    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._descriptor = stream.fileno()
        self._path = path
        self._size = size_of(stream)
        # Directories and arrays that do not overlap cannot be longer together than the file: this bounds the walk of a
        # hostile one.
        self._budget = self._size
        head = self._read(0, 8, "its header")
        order = _MAGIC.get(head[:4])
        if order is None:
            if not any(head):
                raise IncompleteFileError("the header is empty", remedy=_REMEDY, path=path)
            raise FormatError(f"the file begins with {head[:4].hex(' ')}", expected="a TIFF", path=path)
        self._order = order
        self._big = head[2:4] in (b"+\0", b"\0+")
        self._count_format, self._entry_format, self._offset_format = (
            (f"{order}Q", f"{order}HHQ8s", f"{order}Q") if self._big else (f"{order}H", f"{order}HHI4s", f"{order}I")
        )
        self._first = self._first_offset(head)

    def _first_offset(self, head: bytes) -> int:
        if not self._big:
            return int(struct.unpack(f"{self._order}I", head[4:8])[0])
        size, zero, offset = struct.unpack(f"{self._order}HHQ", self._read(4, 12, "its header"))
        if (size, zero) != (8, 0):
            raise FormatError(f"offsets of {size} bytes", expected="8 in a BigTIFF", path=self._path)
        return int(offset)

    def _read(self, offset: int, count: int, what: str) -> bytes:
        if offset + count <= self._size:
            data = os.pread(self._descriptor, count, offset)
            if len(data) == count:
                return data
        raise IncompleteFileError(
            f"the file ends after {self._size:,} bytes, before the end of {what}",
            expected=f"at least {offset + count:,} bytes",
            remedy=_REMEDY,
            path=self._path,
        )

    def directories(self) -> Directories:
        if self._first == 0:
            raise IncompleteFileError("the file has no directory yet", remedy=_REMEDY, path=self._path)
        found: list[_Directory] = []
        broken: IncompleteFileError | None = None
        seen: set[int] = set()
        offset = self._first
        while offset:
            if offset in seen or len(found) >= LARGEST_DIRECTORY_COUNT:
                raise FormatError(
                    f"the chain of directories has no end: directory {len(found) + 1} leads back",
                    remedy=_DAMAGED,
                    path=self._path,
                )
            seen.add(offset)
            try:
                directory, offset = self._directory(len(found) + 1, offset)
            except IncompleteFileError as failure:
                if not found:
                    raise
                broken = failure
                break
            found.append(directory)
        return Directories(self._pages(found), broken)

    def _directory(self, number: int, offset: int) -> tuple[_Directory, int]:
        """The directory at `offset`, and the offset of the next."""
        what = f"directory {number}"
        count_bytes, entry_bytes = struct.calcsize(self._count_format), struct.calcsize(self._entry_format)
        link_bytes = struct.calcsize(self._offset_format)
        usual = count_bytes + _USUAL_ENTRY_COUNT * entry_bytes + link_bytes
        block = os.pread(self._descriptor, usual, offset) if offset <= self._size else b""
        if len(block) < count_bytes:
            self._read(offset, count_bytes, what)
        (count,) = struct.unpack_from(self._count_format, block)
        if not 0 < count <= _LARGEST_ENTRY_COUNT:
            raise FormatError(
                f"{what} has {count} entries",
                expected=f"1 to {_LARGEST_ENTRY_COUNT:,}",
                remedy=_DAMAGED,
                path=self._path,
            )
        end = count_bytes + count * entry_bytes
        if len(block) < end + link_bytes:
            block = self._read(offset, end + link_bytes, what)
        self._spend(end + link_bytes, what)
        directory = self._tags(block[count_bytes:end], what)
        return directory, int(struct.unpack_from(self._offset_format, block, end)[0])

    def _tags(self, entries: bytes, what: str) -> _Directory:
        directory = _Directory({}, "", None)
        for tag, kind, count, inline in struct.iter_unpack(self._entry_format, entries):
            if tag not in _WANTED:
                continue
            try:
                if kind in _INTEGERS or kind == _RATIONAL:
                    directory.tags[tag] = self._values(tag, kind, count, inline, what)
                elif tag == _DESCRIPTION and kind == _TEXT and count <= _LARGEST_TEXT_BYTES:
                    text = self._data(count, inline, f"{what}, tag {tag}")
                    directory.description = text.decode("utf-8", errors="replace").rstrip("\0")
            except IncompleteFileError as failure:
                directory.fault = directory.fault or failure
        return directory

    def _values(self, tag: int, kind: int, count: int, inline: bytes, what: str) -> _Values:
        letter = "I" if kind == _RATIONAL else _INTEGERS[kind]
        items = 2 * count if kind == _RATIONAL else count
        data = self._data(items * struct.calcsize(f"={letter}"), inline, f"{what}, tag {tag}")
        if items <= len(inline):
            return struct.unpack(f"{self._order}{items}{letter}", data)
        return np.frombuffer(data, dtype=np.dtype(letter).newbyteorder(self._order))  # type: ignore[arg-type]  # < or >

    def _data(self, length: int, inline: bytes, what: str) -> bytes:
        if length <= len(inline):
            return inline[:length]
        (start,) = struct.unpack(self._offset_format, inline)
        data = self._read(start, length, what)
        self._spend(length, what)
        return data

    def _spend(self, length: int, what: str) -> None:
        self._budget -= length
        if self._budget < 0:
            raise FormatError(
                f"{what} and the directories and arrays before it are longer together than the file itself",
                expected="directories and arrays that share no bytes",
                remedy=_DAMAGED,
                path=self._path,
            )

    def _pages(self, directories: Sequence[_Directory]) -> tuple[Page, ...]:
        """The pages, their strips checked all at once: a movie may have hundreds of thousands."""
        arrays = [self._segments(index, directory) for index, directory in enumerate(directories)]
        lengths = np.array([len(offsets) for offsets, _ in arrays], dtype=np.int64)
        ends = np.cumsum(lengths)
        offsets, counts = (
            np.concatenate([np.asarray(array[part], dtype=np.uint64) for array in arrays]) for part in (0, 1)
        )
        size = np.uint64(self._size)
        unwritten = (offsets == 0) | (counts == 0)
        # Clipped before they are added: a hostile sum would wrap around.
        segments = np.minimum([offsets, counts], size).astype(np.int64)
        reach = segments.sum(axis=0)
        bad = np.flatnonzero(unwritten | (counts > size) | (reach > self._size))
        indices, firsts = np.unique(np.searchsorted(ends, bad, side="right"), return_index=True)
        for index, place in zip(indices, bad[firsts], strict=True):
            strip = int(place - (ends[index] - lengths[index])) + 1
            end = None if unwritten[place] else int(offsets[place]) + int(counts[place])
            directories[index].fault = self._strip_fault(int(index), strip, end)
        good = np.flatnonzero(np.repeat([directory.fault is None for directory in directories], lengths))
        self._refuse_overlaps(segments[0], reach, good, ends)
        return tuple(
            self._page(index, directory, segments[:, end - length : end].T)
            for index, (directory, end, length) in enumerate(zip(directories, ends, lengths, strict=True))
        )

    def _segments(self, index: int, directory: _Directory) -> tuple[_Values, _Values]:
        tiled = _TILE_OFFSETS in directory.tags
        offsets = directory.tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
        counts = directory.tags.get(_TILE_BYTES if tiled else _STRIP_BYTES, ())
        if len(offsets) and len(offsets) == len(counts):
            return offsets, counts
        directory.fault = directory.fault or FormatError(
            f"directory {index + 1} has {len(offsets)} strip offsets and {len(counts)} strip lengths",
            expected="as many of one as of the other, and at least one",
            remedy=_DAMAGED,
            path=self._path,
        )
        return (), ()

    def _strip_fault(self, index: int, strip: int, end: int | None) -> IncompleteFileError:
        where = f"strip {strip} of directory {index + 1}"
        if end is None:
            return IncompleteFileError(f"{where} is not written yet", remedy=_REMEDY, path=self._path)
        return IncompleteFileError(
            f"the file ends after {self._size:,} bytes, before {where} does",
            expected=f"at least {end:,} bytes",
            remedy=_REMEDY,
            path=self._path,
        )

    def _refuse_overlaps(
        self, starts: NDArray[np.int64], reach: NDArray[np.int64], good: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> None:
        """Strips that share bytes would let a small file promise as many frames as it likes."""
        if np.all(starts[good[1:]] >= reach[good[:-1]]):  # they lie in order, as they do in most files
            return
        order = good[np.argsort(starts[good], kind="stable")]
        for place in np.flatnonzero(starts[order[1:]] < reach[order[:-1]])[:1]:
            one, other = (int(np.searchsorted(ends, strip, side="right")) + 1 for strip in order[place : place + 2])
            raise FormatError(
                f"a strip of directory {other} begins at byte {starts[order[place + 1]]:,}, in one of directory {one}",
                expected="strips that share no bytes",
                remedy=_DAMAGED,
                path=self._path,
            )

    def _page(self, index: int, directory: _Directory, segments: NDArray[np.int64]) -> Page:
        tags = directory.tags

        first = partial(_first, tags)
        width, height = first(_WIDTH, 0), first(_HEIGHT, 0)
        if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
            raise FormatError(
                f"directory {index + 1} says {width} × {height} pixels",
                expected=f"1 to {_LARGEST_SIDE:,} a side",
                remedy=_DAMAGED,
                path=self._path,
            )
        tiled = _TILE_OFFSETS in tags
        return Page(
            index=index,
            byte_order=self._order,
            width=width,
            height=height,
            bits_per_sample=first(_BITS, 1),
            samples_per_pixel=first(_SAMPLES, 1),
            sample_format=first(_SAMPLE_FORMAT, 1),
            compression=first(_COMPRESSION, 1),
            predictor=first(_PREDICTOR, 1),
            fill_order=first(_FILL_ORDER, 1),
            rows_per_strip=first(_TILE_HEIGHT, 0) if tiled else min(max(first(_ROWS_PER_STRIP, height), 1), height),
            columns_per_strip=first(_TILE_WIDTH, 0) if tiled else width,
            tiled=tiled,
            reduced=bool(first(_NEW_SUBFILE, 0) & 1) or first(_SUBFILE, 0) == 2,
            segments=segments if directory.fault is None else segments[:0],
            resolution_per_centimeter=_resolution(tags),
            event_bits=_event_bits(tags),
            description=directory.description,
            fault=directory.fault,
        )


def _first(tags: Mapping[int, _Values], tag: int, default: int) -> int:
    values = tags.get(tag, ())
    return int(values[0]) if len(values) else default


def _resolution(tags: Mapping[int, _Values]) -> float | None:
    fraction = tags.get(_X_RESOLUTION, ())
    per_centimeter = {2: 1 / 2.54, 3: 1.0}.get(_first(tags, _RESOLUTION_UNIT, 2))
    if per_centimeter is None or len(fraction) < 2 or fraction[0] == 0 or fraction[1] == 0:
        return None
    return float(fraction[0]) / float(fraction[1]) * per_centimeter


def _event_bits(tags: Mapping[int, _Values]) -> tuple[int, int, int]:
    first = partial(_first, tags)
    compression = first(_COMPRESSION, 1)
    if compression == EER_VARIABLE:
        return first(_EER_SKIP_BITS, 7), first(_EER_X_BITS, 2), first(_EER_Y_BITS, 2)
    return 8 if compression == EER_8BIT else 7, 2, 2

"""The directories of a TIFF or BigTIFF file, walked strictly and with a bound on everything a file may claim.

Nothing is decoded. What the walk gives is enough to say whether every strip lies inside the file, and to decode the
plain layouts that cameras write. TIFF 6.0 (Adobe, 1992); BigTIFF as libtiff has it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats.files import reading, size_of

LARGEST_DIRECTORY_COUNT = 1_000_000
_LARGEST_ENTRY_COUNT = 4096
_LARGEST_SIDE = 1 << 20
_MAGIC = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
# TIFF's integer types, by number: BYTE, SHORT, LONG, IFD, LONG8, IFD8.
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_RATIONAL = 5
_REMEDY = "Wait until it is written, or fetch it from the camera again"

EER_8BIT, EER_7BIT, EER_VARIABLE = 65000, 65001, 65002
EER_COMPRESSIONS = (EER_8BIT, EER_7BIT, EER_VARIABLE)


@dataclass(frozen=True, slots=True)
class Page:
    """One directory of a TIFF file: the layout of one image. `segments` are its strips or tiles as (offset, bytes).

    `sample_format` is 1 for unsigned and 2 for signed integers, 3 for floats. `event_bits` are EER's (position, x, y).
    `resolution_per_centimeter` is None where the file gives no unit.
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
    tiled: bool
    reduced: bool
    segments: tuple[tuple[int, int], ...]
    resolution_per_centimeter: float | None
    event_bits: tuple[int, int, int]

    @property
    def is_eer(self) -> bool:
        """Whether the image is a stream of electron events."""
        return self.compression in EER_COMPRESSIONS


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a TIFF or BigTIFF."""
    return head[:4] in _MAGIC


def read_pages(path: Path) -> tuple[Page, ...]:
    """Every directory of the file at `path`, in order. Raises as `walk`, and StorageError where it cannot be read."""
    with reading(path) as stream:
        return walk(stream, path)


def walk(stream: BinaryIO, path: Path) -> tuple[Page, ...]:
    """Every directory of an open file, in order.

    Raises IncompleteFileError where a directory, one of its arrays or a strip reaches beyond the end of the file, or
    is not written yet; FormatError where the file is no TIFF, the chain runs in a circle, two strips share bytes, or a
    value cannot be.
    """
    return _Walk(stream, path).pages()


class _Walk:
    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._size = size_of(stream)
        # Arrays that do not overlap cannot be longer together than the file: this bounds the walk of a hostile one.
        self._budget = self._size
        head = self._read(0, 8, "its header")
        order = _MAGIC.get(head[:4])
        if order is None:
            if not any(head):
                raise IncompleteFileError("the header is empty", remedy=_REMEDY, path=path)
            raise FormatError(f"the file begins with {head[:4].hex(' ')}", expected="a TIFF", path=path)
        self._order = order
        self._big = head[2:4] in (b"+\0", b"\0+")
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
            self._stream.seek(offset)
            data = self._stream.read(count)
            if len(data) == count:
                return data
        raise IncompleteFileError(
            f"the file ends after {self._size:,} bytes, before the end of {what}",
            expected=f"at least {offset + count:,} bytes",
            remedy=_REMEDY,
            path=self._path,
        )

    def pages(self) -> tuple[Page, ...]:
        if self._first == 0:
            raise IncompleteFileError("the file has no directory yet", remedy=_REMEDY, path=self._path)
        pages: list[Page] = []
        seen: set[int] = set()
        offset = self._first
        while offset:
            if offset in seen or len(pages) >= LARGEST_DIRECTORY_COUNT:
                raise FormatError(
                    f"the chain of directories has no end: directory {len(pages)} leads back",
                    remedy="The file is damaged; fetch it from the camera again",
                    path=self._path,
                )
            seen.add(offset)
            page, offset = self._directory(len(pages), offset)
            pages.append(page)
        self._refuse_overlaps(pages)
        return tuple(pages)

    def _refuse_overlaps(self, pages: Sequence[Page]) -> None:
        """Strips that share bytes would let a small file promise as many frames as it likes."""
        strips = sorted((offset, count, page.index) for page in pages for offset, count in page.segments)
        for (offset, count, index), (next_offset, _, next_index) in pairwise(strips):
            if next_offset < offset + count:
                raise FormatError(
                    f"a strip of directory {next_index} begins at byte {next_offset:,}, in one of directory {index}",
                    expected="strips that share no bytes",
                    remedy="The file is damaged; fetch it from the camera again",
                    path=self._path,
                )

    def _directory(self, index: int, offset: int) -> tuple[Page, int]:
        what = f"directory {index}"
        count_format, entry_bytes, link_format = ("Q", 20, "Q") if self._big else ("H", 12, "I")
        count_bytes, link_bytes = struct.calcsize(count_format), struct.calcsize(link_format)
        count = struct.unpack(f"{self._order}{count_format}", self._read(offset, count_bytes, what))[0]
        if not 0 < count <= _LARGEST_ENTRY_COUNT:
            raise FormatError(
                f"{what} has {count} entries",
                expected=f"1 to {_LARGEST_ENTRY_COUNT:,}",
                remedy="The file is damaged; fetch it from the camera again",
                path=self._path,
            )
        block = self._read(offset + count_bytes, count * entry_bytes + link_bytes, what)
        tags: dict[int, tuple[int, ...]] = {}
        for start in range(0, count * entry_bytes, entry_bytes):
            self._entry(block[start : start + entry_bytes], tags, what)
        link = struct.unpack_from(f"{self._order}{link_format}", block, count * entry_bytes)[0]
        return self._page(index, tags), int(link)

    def _entry(self, entry: bytes, tags: dict[int, tuple[int, ...]], what: str) -> None:
        tag, kind = struct.unpack_from(f"{self._order}HH", entry)
        if tag not in _WANTED or (kind not in _INTEGERS and kind != _RATIONAL):
            return
        count = struct.unpack_from(f"{self._order}{'Q' if self._big else 'I'}", entry, 4)[0]
        letter = "II" if kind == _RATIONAL else _INTEGERS[kind]
        length = count * struct.calcsize(f"={letter}")
        inline = entry[12:20] if self._big else entry[8:12]
        if length <= len(inline):
            data = inline[:length]
        else:
            start = struct.unpack(f"{self._order}{'Q' if self._big else 'I'}", inline)[0]
            data = self._read_array(start, length, f"{what}, tag {tag}")
        items = count * len(letter)
        tags[tag] = struct.unpack(f"{self._order}{items}{letter[0]}", data)

    def _read_array(self, offset: int, length: int, what: str) -> bytes:
        self._budget -= length
        if self._budget < 0 and offset + length <= self._size:
            raise FormatError(
                f"{what} and the arrays before it are longer than the file itself",
                remedy="The file is damaged; fetch it from the camera again",
                path=self._path,
            )
        return self._read(offset, length, what)

    def _page(self, index: int, tags: Mapping[int, tuple[int, ...]]) -> Page:
        def first(tag: int, default: int) -> int:
            values = tags.get(tag)
            return values[0] if values else default

        width, height = first(256, 0), first(257, 0)
        if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
            raise FormatError(
                f"directory {index} says {width} × {height} pixels",
                expected=f"1 to {_LARGEST_SIDE:,} a side",
                remedy="The file is damaged; fetch it from the camera again",
                path=self._path,
            )
        return Page(
            index=index,
            byte_order=self._order,
            width=width,
            height=height,
            bits_per_sample=first(258, 1),
            samples_per_pixel=first(277, 1),
            sample_format=first(339, 1),
            compression=first(259, 1),
            predictor=first(317, 1),
            fill_order=first(266, 1),
            rows_per_strip=min(max(first(278, height), 1), height),
            tiled=324 in tags,
            reduced=bool(first(254, 0) & 1),
            segments=self._segments(index, tags),
            resolution_per_centimeter=_resolution(tags),
            event_bits=_event_bits(tags),
        )

    def _segments(self, index: int, tags: Mapping[int, tuple[int, ...]]) -> tuple[tuple[int, int], ...]:
        tiled = 324 in tags
        offsets = tags.get(324 if tiled else 273, ())
        counts = tags.get(325 if tiled else 279, ())
        if not offsets or len(offsets) != len(counts):
            raise FormatError(
                f"directory {index} has {len(offsets)} strip offsets and {len(counts)} strip lengths",
                expected="as many of one as of the other, and at least one",
                remedy="The file is damaged; fetch it from the camera again",
                path=self._path,
            )
        for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
            if offset == 0 or count == 0:
                raise IncompleteFileError(
                    f"strip {number} of directory {index} is not written yet", remedy=_REMEDY, path=self._path
                )
            if offset + count > self._size:
                raise IncompleteFileError(
                    f"the file ends after {self._size:,} bytes, before strip {number} of directory {index} does",
                    expected=f"at least {offset + count:,} bytes",
                    remedy=_REMEDY,
                    path=self._path,
                )
        return tuple(zip(offsets, counts, strict=True))


_WANTED = frozenset(
    (254, 256, 257, 258, 259, 266, 273, 277, 278, 279, 282, 296, 317, 324, 325, 339, 65007, 65008, 65009)
)


def _resolution(tags: Mapping[int, tuple[int, ...]]) -> float | None:
    per_centimeter = {2: 1 / 2.54, 3: 1.0}.get((tags.get(296) or (2,))[0])
    fraction = tags.get(282, ())
    if per_centimeter is None or len(fraction) < 2 or fraction[0] == 0 or fraction[1] == 0:
        return None
    return fraction[0] / fraction[1] * per_centimeter


def _event_bits(tags: Mapping[int, tuple[int, ...]]) -> tuple[int, int, int]:
    compression = (tags.get(259) or (1,))[0]
    if compression == EER_8BIT:
        return 8, 2, 2
    if compression == EER_7BIT:
        return 7, 2, 2
    return (tags.get(65007) or (7,))[0], (tags.get(65008) or (2,))[0], (tags.get(65009) or (2,))[0]

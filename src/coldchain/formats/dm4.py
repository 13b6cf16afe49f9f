"""DigitalMicrograph 3 and 4 images, as far as gain and dark references need them: the largest image of a file.

A file is one tree of tags: directories (20) and data (21), names and lengths big-endian, values in the byte order that
the header names. DM4 has lengths of eight bytes where DM3 has four, and says each tag's length before it. Gatan does
not publish the format; it is as B. Carter and G. Jefferis describe it
(https://www3.ntu.edu.sg/home/cbb/info/dmformat/, https://imagej.net/ij/plugins/DM3Format.gj.html).

Rows: a DM file's first row is the picture's top, as a TIFF's, and rows are reversed on reading. So do IMOD (`dm2mrc`
calls `raw2mrc -f`, which flips around x, and its `clip mult` then takes the result as it is for K2 and K3 TIFFs that
SerialEM saved unturned, which it reads reversed too) and EMAN2 (`dm4io.cpp`, flip_vertical); Scipion tells its users to
flip DM4 gains up-down because its own reader leaves the rows. A microscope's software may have turned the frames all
the same: whether a reference fits is asked of the movie (`kernels.orientation`).

Own code, because what there is does more than is wanted: ncempy needs h5py and matplotlib, RosettaSciIO is under the
GPL, and neither bounds what a file may claim.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats.arrays import LARGEST_BYTES, allocate
from coldchain.formats.files import reading, size_of

_HEADER_BYTES = {3: 12, 4: 16}
_DIRECTORY, _DATA = 20, 21
_MARK = b"%%%%"
# Tag types with one value, by number: struct's letter for each.
_VALUES = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "B", 9: "b", 10: "B", 11: "q", 12: "Q"}
_STRUCT, _STRING, _ARRAY = 15, 18, 20
_INTEGERS = frozenset((2, 3, 4, 5, 8, 9, 10, 11, 12))
# `DataType` of an image; the others are complex numbers, colours and packed bits.
_PIXELS = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8"}
_LARGEST_DEPTH = 64
_LARGEST_TAG_COUNT = 200_000
_LARGEST_INFO_COUNT = 4096
_LARGEST_SIDE = 1 << 20
_WAIT = "Wait until it is written, or fetch it from the camera again"
_FETCH = "Fetch the file from the camera again"


def is_dm(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a DigitalMicrograph 3 or 4 file."""
    if len(head) < _HEADER_BYTES[4] or head[208:211] == b"MAP":  # a big-endian MRC of 3 or 4 columns
        return False
    version = int.from_bytes(head[:4], "big")
    length = _HEADER_BYTES.get(version)
    return length is not None and int.from_bytes(head[length - 4 : length], "big") in (0, 1)


def read_dm(path: Path) -> NDArray[Any]:
    """The largest image of a DM3 or DM4 file, in its own type: (row, column), or (frame, row, column) where there are
    several; the picture's bottom row first.

    Raises IncompleteFileError where the file ends inside its tree or its pixels; FormatError where it is no such file,
    its tree makes no sense, it has more than 200,000 tags, it holds no image of real numbers, or its pixels take more
    than 64 GiB; StorageError where it cannot be read.
    """
    with reading(path) as stream:
        tree = _Tree(stream, path)
        image = _largest(tree.images(), path)
        pixels = _pixels(image, tree.order, path)
        stream.seek(image.offset)
        got = stream.readinto(pixels.view(np.uint8).reshape(-1))  # type: ignore[attr-defined]  # a buffered reader has it
    if got != pixels.nbytes:
        raise IncompleteFileError(f"the file ends after {image.offset + got:,} bytes", remedy=_WAIT, path=path)
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native[..., ::-1, :])


@dataclass(slots=True)
class _Image:
    """What the tags of one image say: the number of its type, its sides (width first), and where its pixels lie."""

    data_type: int = 0
    sides: dict[int, int] = field(default_factory=dict)
    offset: int = 0
    size_bytes: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        sides = [self.sides[number] for number in sorted(self.sides, reverse=True)]
        return tuple(sides[1:] if len(sides) == 3 and sides[0] == 1 else sides)


def _largest(images: Sequence[_Image], path: Path) -> _Image:
    """The thumbnail that most files begin with has colours; where it has not, it is the smaller one."""
    usable = [image for image in images if image.data_type in _PIXELS and len(image.shape) in (2, 3)]
    if not usable:
        found = ", ".join(f"type {image.data_type} of shape {image.shape}" for image in images[:4]) or "none"
        raise FormatError(
            f"the file's images are: {found}",
            expected="an image of real numbers",
            remedy="Save the reference from DigitalMicrograph as an image of real numbers, or as MRC or TIFF",
            path=path,
        )
    return max(usable, key=lambda image: math.prod(image.shape))


def _pixels(image: _Image, order: str, path: Path) -> NDArray[Any]:
    """Memory for the pixels, of which the file is known to hold as many bytes."""
    dtype = np.dtype(_PIXELS[image.data_type]).newbyteorder(order)  # type: ignore[arg-type]  # "<" or ">"
    wanted = math.prod(image.shape) * dtype.itemsize
    if not all(0 < side <= _LARGEST_SIDE for side in image.shape) or wanted != image.size_bytes:
        raise FormatError(
            f"an image of shape {image.shape} and type {dtype.name} has {image.size_bytes:,} bytes",
            expected=f"{wanted:,} bytes, and 1 to {_LARGEST_SIDE:,} pixels a side",
            remedy=_FETCH,
            path=path,
        )
    return allocate(image.shape, dtype, path)


class _Tree:
    """The tags of an open file, walked once; kept is only what describes images."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path, self._size = stream, path, size_of(stream)
        head = stream.read(_HEADER_BYTES[4])
        if len(head) < _HEADER_BYTES[4]:
            raise self._cut("header")
        if not is_dm(head):
            raise FormatError(
                f"the file begins with {head.hex(' ')}", expected="DigitalMicrograph 3 or 4", remedy=_FETCH, path=path
            )
        version = int.from_bytes(head[:4], "big")
        start = _HEADER_BYTES[version]
        self._wide = version == 4
        self.order = "<" if int.from_bytes(head[start - 4 : start], "big") else ">"
        self._tags = 0
        self._images: dict[str, _Image] = {}
        stream.seek(start)

    def images(self) -> tuple[_Image, ...]:
        """The images of the list of images, in order."""
        self._directory(())
        return tuple(self._images.values())

    def _directory(self, path: tuple[str, ...]) -> None:
        if len(path) > _LARGEST_DEPTH:
            raise self._wrong(f"directories lie {len(path)} deep", f"at most {_LARGEST_DEPTH}")
        self._read(2)  # whether it is sorted, and whether it was open in the window
        for number in range(self._length()):
            self._tags += 1
            if self._tags > _LARGEST_TAG_COUNT:
                raise self._wrong("the tree has no end", f"at most {_LARGEST_TAG_COUNT:,} tags")
            kind, letters = struct.unpack(">BH", self._read(3))
            name = self._read(letters).decode("latin-1") or str(number)
            if self._wide:
                self._length()
            if kind == _DIRECTORY:
                self._directory((*path, name))
            elif kind == _DATA:
                self._data((*path, name))
            else:
                raise self._wrong(f"tag {self._tags} is of kind {kind}", f"{_DIRECTORY} or {_DATA}")

    def _data(self, path: tuple[str, ...]) -> None:
        if self._read(4) != _MARK:
            raise self._wrong(f"the data of tag {self._tags} do not begin with {_MARK.decode()}", "")
        count = self._length()
        if not 1 <= count <= _LARGEST_INFO_COUNT:
            raise self._wrong(f"tag {self._tags} has {count} words of description", f"1 to {_LARGEST_INFO_COUNT}")
        info = struct.unpack(f">{count}{'Q' if self._wide else 'I'}", self._read(count * (8 if self._wide else 4)))
        offset = self._stream.tell()
        size_bytes = self._size_of(info)
        if path[:1] == ("ImageList",) and len(path) > 3 and path[2] == "ImageData":
            self._note(path[1], path[3:], info, offset, size_bytes)
        if offset + size_bytes > self._size:
            raise self._cut("image" if size_bytes > self._size // 2 else "tree of tags", offset + size_bytes)
        self._stream.seek(offset + size_bytes)

    def _note(self, image: str, name: tuple[str, ...], info: tuple[int, ...], offset: int, size_bytes: int) -> None:
        noted = self._images.setdefault(image, _Image())
        if name == ("Data",) and info[0] == _ARRAY:
            noted.offset, noted.size_bytes = offset, size_bytes
        elif name == ("DataType",):
            noted.data_type = self._integer(info)
        elif name[0] == "Dimensions" and len(name) == 2:
            noted.sides[len(noted.sides)] = self._integer(info)

    def _integer(self, info: tuple[int, ...]) -> int:
        if len(info) != 1 or info[0] not in _INTEGERS:
            raise self._wrong(f"tag {self._tags} is of type {info[0]}", "a whole number")
        layout = f"{self.order}{_VALUES[info[0]]}"
        value: int = struct.unpack(layout, self._read(struct.calcsize(layout)))[0]
        return value

    def _size_of(self, info: tuple[int, ...]) -> int:
        """The bytes of a value: of one number, of a string, of a structure, or of an array of any of these."""
        count = 1
        while info[0] == _ARRAY and len(info) > 2:
            count *= info[-1]
            info = info[1:-1]
        kinds: tuple[int, ...] = (info[0],)
        if info[0] == _STRUCT and len(info) > 2 and len(info) == 3 + 2 * info[2]:
            kinds = info[4::2]
        elif info[0] == _STRING and len(info) == 2:
            count, kinds = count * info[1], (10,)
        if not all(kind in _VALUES for kind in kinds):
            raise self._wrong(f"tag {self._tags} is described as {info[:4]}", "a type of DigitalMicrograph's")
        size_bytes = count * sum(struct.calcsize(f"={_VALUES[kind]}") for kind in kinds)
        if size_bytes > LARGEST_BYTES:
            raise self._wrong(f"tag {self._tags} promises {size_bytes:,} bytes", f"at most {LARGEST_BYTES:,}")
        return size_bytes

    def _length(self) -> int:
        return int.from_bytes(self._read(8 if self._wide else 4), "big")

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise self._cut("tree of tags")
        return data

    def _cut(self, where: str, wanted: int | None = None) -> IncompleteFileError:
        of = "" if wanted is None else f" of {wanted:,}"
        return IncompleteFileError(
            f"the file ends after {self._size:,}{of} bytes, inside its {where}", remedy=_WAIT, path=self._path
        )

    def _wrong(self, found: str, expected: str) -> FormatError:
        return FormatError(found, expected=expected, remedy=_FETCH, path=self._path)

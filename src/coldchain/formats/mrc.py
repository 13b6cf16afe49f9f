"""MRC images and movies (MRC2014: Cheng et al., J. Struct. Biol. 2015, 192, 146, doi:10.1016/j.jsb.2015.04.002).

Arrays are (row, column) or (section, row, column); row 0 is the picture's bottom, as the file stores it.

| mode | stored as | read as |
|---|---|---|
| 0 | signed bytes; unsigned where IMOD's stamp is there and its "signed" flag is not | int8 or uint8 |
| 1, 6 | signed, unsigned 16 bits | int16, uint16 |
| 2 | 32-bit floats | float32 |
| 12 | 16-bit floats | float32 |
| 101 | 4 bits, two pixels a byte, the low nibble first; a row of odd width ends on a half-used byte (IMOD) | uint8 |

What SerialEM packs into the bytes of mode 0 (see `packed`) is read as mode 101 of twice the width.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats.arrays import allocate
from coldchain.formats.files import reading, replacing, size_of
from coldchain.formats.loading import BadFrames, LoadedMovie, MovieReading, loaded
from coldchain.formats.packed import TITLE, is_packed_size, unpack
from coldchain.formats.workers import run_all

HEADER_BYTES = 1024
PACKED_MODE = 101
_STORED_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", PACKED_MODE: "u1"}
_IMOD_STAMP = 1146047817
_IMOD_SIGNED_BYTES, _IMOD_PACKED_BYTES = 1, 16
_LARGEST_SIDE = 1 << 20
_LARGEST_COUNT = 1 << 24
_LARGEST_NIBBLE = 15
_BLOCK_PIXELS = 1 << 16


@dataclass(frozen=True, slots=True)
class MrcHeader:
    """What an MRC file says about itself. `byte_order` is "<" or ">"; `unsigned_bytes` matters to mode 0 alone."""

    width: int
    height: int
    sections: int
    mode: int
    extended_bytes: int
    extended_type: str
    pixel_size_angstrom: float | None
    byte_order: str
    unsigned_bytes: bool = False

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """The type and byte order of the stored values; bytes for the packed mode."""
        kind = "u1" if self.mode == 0 and self.unsigned_bytes else _STORED_TYPES[self.mode]
        return np.dtype(kind).newbyteorder(self.byte_order)  # type: ignore[arg-type]  # "<" or ">"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that reading gives."""
        return np.dtype(np.float32) if self.mode == 12 else self.stored_dtype.newbyteorder("=")

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row."""
        return (self.width + 1) // 2 if self.mode == PACKED_MODE else self.width * self.stored_dtype.itemsize

    @property
    def section_bytes(self) -> int:
        """Bytes of one stored section."""
        return self.row_bytes * self.height

    @property
    def data_offset(self) -> int:
        """Where the first section begins."""
        return HEADER_BYTES + self.extended_bytes

    @property
    def file_bytes(self) -> int:
        """The least size of a whole file."""
        return self.data_offset + self.section_bytes * self.sections


def read_header(path: Path) -> MrcHeader:
    """The header of an MRC file, which need not be whole beyond it.

    Raises IncompleteFileError where the header itself is cut or still empty, FormatError where it cannot be an MRC
    header, StorageError where the file cannot be read.
    """
    with reading(path) as stream:
        return parse_header(stream.read(HEADER_BYTES), path)


def parse_header(header: bytes, path: Path) -> MrcHeader:
    """The header in the first 1,024 bytes of the file at `path`; raises as `read_header`."""
    if len(header) < HEADER_BYTES:
        raise IncompleteFileError(
            f"the file ends after {len(header):,} bytes, inside its header: it is no MRC, or is not whole",
            expected=f"a header of {HEADER_BYTES:,} bytes",
            remedy="See what it is; if it is an MRC, wait until it is written, or fetch it from the camera again",
            path=path,
        )
    if not any(header):
        raise IncompleteFileError(
            "the header is empty", remedy="Wait until it is written, or fetch it from the camera again", path=path
        )
    order = _byte_order(header, path)
    width, height, sections, mode = struct.unpack_from(f"{order}4i", header, 0)
    grid_x = struct.unpack_from(f"{order}i", header, 28)[0]
    cell_x = struct.unpack_from(f"{order}f", header, 40)[0]
    extended_bytes = struct.unpack_from(f"{order}i", header, 92)[0]
    stamp, flags = struct.unpack_from(f"{order}2i", header, 152)
    flags = flags if stamp == _IMOD_STAMP else _IMOD_SIGNED_BYTES
    _check_bounds(width, height, sections, mode, extended_bytes, path)
    if mode == 0 and (flags & _IMOD_PACKED_BYTES or _is_titled_packed(header, order, width, height)):
        # Cell and grid are those of the bytes or those of the pixels: their quotient is the same.
        width, mode = 2 * width, PACKED_MODE
    return MrcHeader(
        width=width,
        height=height,
        sections=sections,
        mode=mode,
        extended_bytes=extended_bytes,
        extended_type=header[104:108].decode("ascii", errors="replace").rstrip("\0 "),
        pixel_size_angstrom=_pixel_size(cell_x, grid_x),
        byte_order=order,
        unsigned_bytes=not flags & _IMOD_SIGNED_BYTES,
    )


def _is_titled_packed(header: bytes, order: str, width: int, height: int) -> bool:
    """Whether the only title speaks of packed pixels, and the size is one of theirs: so it was before the flag."""
    titles = struct.unpack_from(f"{order}i", header, 220)[0]
    return titles == 1 and TITLE.encode() in header[224:304] and is_packed_size(width, height)


def _byte_order(header: bytes, path: Path) -> str:
    stamp = header[212:214]
    if stamp in (b"\x44\x44", b"\x44\x41", b"\x44\x00"):
        return "<"
    if stamp in (b"\x11\x11", b"\x11\x00"):
        return ">"
    # Files older than MRC2000 have no stamp; then only one order makes the mode a mode that exists.
    orders = [order for order in "<>" if struct.unpack_from(f"{order}i", header, 12)[0] in _STORED_TYPES]
    zero_mode = header[12:16] == bytes(4)
    if zero_mode:
        orders = [order for order in "<>" if 0 < struct.unpack_from(f"{order}i", header, 0)[0] < 1 << 16]
    if len(orders) != 1:
        raise FormatError(
            f"the machine stamp is {stamp.hex()}, and the header makes sense in neither byte order",
            expected="an MRC header",
            remedy="See whether the file is an MRC image at all; fetch it from the camera again if it is",
            path=path,
        )
    return orders[0]


def _check_bounds(width: int, height: int, sections: int, mode: int, extended_bytes: int, path: Path) -> None:
    remedy = "The file is not an MRC image or its header is damaged; fetch it from the camera again"
    if mode not in _STORED_TYPES:
        raise FormatError(
            f"the mode is {mode}", expected=f"one of {', '.join(map(str, _STORED_TYPES))}", remedy=remedy, path=path
        )
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE and 0 < sections <= _LARGEST_COUNT):
        raise FormatError(
            f"the header says {width} × {height} pixels in {sections} sections",
            expected=f"1 to {_LARGEST_SIDE:,} pixels a side and 1 to {_LARGEST_COUNT:,} sections",
            remedy=remedy,
            path=path,
        )
    if extended_bytes < 0:
        raise FormatError(
            f"the extended header has {extended_bytes} bytes", expected="0 or more", remedy=remedy, path=path
        )


def _pixel_size(cell_x: float, grid_x: int) -> float | None:
    if grid_x <= 0 or not math.isfinite(cell_x) or cell_x <= 0:
        return None
    return cell_x / grid_x


def check_size(header: MrcHeader, size_bytes: int, path: Path) -> None:
    """Raise IncompleteFileError unless a file of `size_bytes` can hold all that its header promises."""
    if size_bytes < header.file_bytes:
        raise IncompleteFileError(
            f"the file ends after {size_bytes:,} of {header.file_bytes:,} bytes",
            expected=f"{header.sections} sections of {header.width} × {header.height} in mode {header.mode}",
            remedy="Wait until it is written, or fetch it from the camera again",
            path=path,
        )


def read_mrc(path: Path) -> NDArray[Any]:
    """The image (row, column), or the sections (section, row, column) where there are several. Raises as `load_mrc`."""
    sections = load_mrc(path, MovieReading()).frames
    return sections[0] if len(sections) == 1 else sections


def read_first_section(path: Path) -> NDArray[Any]:
    """The first section (row, column); the rest is not read, but must be there. Raises as `load_mrc`."""
    with reading(path) as stream:
        header = parse_header(stream.read(HEADER_BYTES), path)
        check_size(header, size_of(stream), path)
    section: NDArray[Any] = load_mrc(path, MovieReading(last_frame=1)).frames[0]
    return section


def load_mrc(path: Path, how: MovieReading) -> LoadedMovie:
    """The sections that `how` asks for, in the types of the module's table and this machine's byte order.

    A section is bad where the file ends before it does. Raises as `read_header`, IncompleteFileError where more
    sections are bad than are tolerated, FormatError where the pixels take more than 64 GiB, UsageError where sections
    are asked for that the header does not promise.
    """
    with reading(path) as stream:
        header = parse_header(stream.read(HEADER_BYTES), path)
        chosen = how.chosen(header.sections, path)
        bad = BadFrames(how.tolerate_frames, path)
        size_bytes = size_of(stream)
        whole = max(0, size_bytes - header.data_offset) // header.section_bytes
        for number in range(max(chosen.start, whole) + 1, chosen.stop + 1):
            bad.add(number, _cut_section(header, number, size_bytes, path))
        shape = (len(chosen), header.height, header.width)
        sections = allocate(shape, header.dtype, path)

        def read(index: int) -> None:
            number = chosen[index] + 1
            if number in bad:
                return
            offset = header.data_offset + chosen[index] * header.section_bytes
            got = _read_section(stream.fileno(), offset, header, sections[index])
            if got < header.section_bytes:
                bad.add(number, _cut_section(header, number, offset + got, path))

        run_all(read, len(chosen), how.threads)
    held = np.array([index + 1 not in bad for index in chosen], dtype=np.int64)
    return loaded(sections, held, chosen.start + 1, bad, path)


def _cut_section(header: MrcHeader, number: int, size_bytes: int, path: Path) -> IncompleteFileError:
    where = f", in frame {number} of {header.sections}" if header.sections > 1 else ""
    return IncompleteFileError(
        f"the file ends after {size_bytes:,} of {header.file_bytes:,} bytes{where}",
        expected=f"{header.sections} sections of {header.width} × {header.height} in mode {header.mode}",
        remedy="Wait until it is written, or fetch it from the camera again",
        path=path,
    )


def _read_section(descriptor: int, offset: int, header: MrcHeader, section: NDArray[Any]) -> int:
    """Read one section into its place; how many of its bytes there were."""
    direct = header.stored_dtype == header.dtype and header.mode != PACKED_MODE
    stored = section if direct else np.empty(header.section_bytes // header.stored_dtype.itemsize, header.stored_dtype)
    target = memoryview(stored.reshape(-1).view(np.uint8))  # type: ignore[arg-type]  # an array is a buffer
    got = 0
    while got < len(target) and (count := os.preadv(descriptor, [target[got:]], offset + got)):
        got += count
    if header.mode == PACKED_MODE:
        section[...] = unpack(stored.reshape(header.height, header.row_bytes), header.width)
    elif not direct:
        section[...] = stored.reshape(section.shape)
    return got


def write_mrc(path: Path, array: NDArray[Any], *, pixel_size_angstrom: float, mode: int | None = None) -> None:
    """Write an image (row, column) or sections (section, row, column), in one go: nobody sees half a file.

    Without `mode` the array's type decides: int8 0, int16 1, uint16 and uint8 6 (programs disagree on the sign of mode
    0's bytes), float16 12, bool 0, all else 2. uint8 in an explicit mode 0 gets IMOD's stamp for unsigned bytes.
    Raises FormatError where values do not fit the mode, StorageError where the file cannot be written.
    """
    sections = array[np.newaxis] if array.ndim == 2 else array
    if sections.ndim != 3 or 0 in sections.shape:
        raise FormatError(f"an array of shape {array.shape}", expected="an image or a stack of images", path=path)
    write_mrc_movie(
        path,
        sections,
        shape=(sections.shape[1], sections.shape[2]),
        count=sections.shape[0],
        pixel_size_angstrom=pixel_size_angstrom,
        mode=mode_for(array.dtype) if mode is None else mode,
    )


def mode_for(dtype: np.dtype[Any]) -> int:
    """The mode in which `write_mrc` stores a type."""
    modes = {"int8": 0, "bool": 0, "int16": 1, "uint8": 6, "uint16": 6, "float16": 12}
    return modes.get(dtype.name, 2)


def write_mrc_movie(
    path: Path,
    frames: Iterable[NDArray[Any]],
    *,
    shape: tuple[int, int],
    count: int,
    pixel_size_angstrom: float,
    mode: int,
) -> None:
    """Write `count` frames of `shape` (rows, columns), one at a time, little-endian. Raises as `write_mrc`.

    The header's least, greatest and mean density are those of the values written.
    """
    if mode not in _STORED_TYPES:
        raise FormatError(f"the mode is {mode}", expected=f"one of {', '.join(map(str, _STORED_TYPES))}", path=path)
    statistics = _Statistics()
    unsigned = False
    with replacing(path) as stream:
        stream.write(bytes(HEADER_BYTES))
        written = 0
        for frame in frames:
            if frame.shape != shape:
                raise FormatError(f"frame {written} has shape {frame.shape}", expected=f"{shape}", path=path)
            unsigned = unsigned or frame.dtype == np.uint8
            encoded = _encode(frame, mode, path)
            stream.write(encoded.data)
            statistics.add(frame if mode == PACKED_MODE else encoded)
            written += 1
        if written != count:
            raise FormatError(f"{written} frames were given", expected=f"{count}", path=path)
        stream.seek(0)
        stream.write(_header_bytes(shape, count, mode, pixel_size_angstrom, statistics, unsigned=unsigned))


class _Statistics:
    """Least, greatest, mean and root mean square deviation of frames that come one at a time."""

    def __init__(self) -> None:
        self.least, self.greatest = math.inf, -math.inf
        self._pixels, self._sum, self._sum_of_squares = 0, 0.0, 0.0

    def add(self, frame: NDArray[Any]) -> None:
        # In blocks that stay in the cache: doubles of a whole micrograph take several times as long.
        step = max(1, _BLOCK_PIXELS // frame.shape[1])
        for row in range(0, len(frame), step):
            values = frame[row : row + step].astype(np.float64)
            self.least = min(self.least, float(values.min()))
            self.greatest = max(self.greatest, float(values.max()))
            self._pixels += values.size
            self._sum += float(values.sum())
            self._sum_of_squares += float(np.vdot(values, values))

    @property
    def mean(self) -> float:
        return self._sum / self._pixels

    @property
    def deviation(self) -> float:
        return math.sqrt(max(0.0, self._sum_of_squares / self._pixels - self.mean**2))


def _encode(frame: NDArray[Any], mode: int, path: Path) -> NDArray[Any]:
    if mode == PACKED_MODE:
        return _pack_nibbles(frame, path)
    kind = "u1" if mode == 0 and frame.dtype == np.uint8 else _STORED_TYPES[mode]
    target = np.dtype(kind).newbyteorder("<")
    if target.kind in "iu":
        limits = np.iinfo(target)
        # Comparing NaN is False both ways, so the test asks for what is right, not for what is wrong.
        if not (frame.min() >= limits.min and frame.max() <= limits.max):
            raise FormatError(
                f"values from {frame.min()} to {frame.max()}",
                expected=f"{limits.min} to {limits.max} in mode {mode}",
                remedy="Choose a mode that holds them",
                path=path,
            )
    return np.ascontiguousarray(frame, dtype=target)


def _pack_nibbles(frame: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    if not (frame.min() >= 0 and frame.max() <= _LARGEST_NIBBLE):
        raise FormatError(
            f"values from {frame.min()} to {frame.max()}",
            expected=f"0 to {_LARGEST_NIBBLE} in mode {PACKED_MODE}",
            remedy="Choose a mode that holds them",
            path=path,
        )
    padded: NDArray[np.uint8] = np.pad(frame.astype(np.uint8), ((0, 0), (0, frame.shape[1] % 2)))
    return padded[:, 0::2] | (padded[:, 1::2] << np.uint8(4))


def _header_bytes(
    shape: tuple[int, int],
    count: int,
    mode: int,
    pixel_size_angstrom: float,
    statistics: _Statistics,
    *,
    unsigned: bool,
) -> bytes:
    height, width = shape
    header = bytearray(HEADER_BYTES)
    struct.pack_into("<10i", header, 0, width, height, count, mode, 0, 0, 0, width, height, count)
    cell = (width * pixel_size_angstrom, height * pixel_size_angstrom, count * pixel_size_angstrom)
    struct.pack_into("<6f3i", header, 40, *cell, 90.0, 90.0, 90.0, 1, 2, 3)
    struct.pack_into("<3f", header, 76, statistics.least, statistics.greatest, statistics.mean)
    struct.pack_into("<i", header, 108, 20141)
    if mode == 0:
        struct.pack_into("<2i", header, 152, _IMOD_STAMP, 0 if unsigned else _IMOD_SIGNED_BYTES)
    header[208:216] = b"MAP \x44\x44\x00\x00"
    struct.pack_into("<f", header, 216, statistics.deviation)
    label = b"coldchain"
    struct.pack_into("<i", header, 220, 1)
    header[224 : 224 + len(label)] = label
    return bytes(header)

"""Defect lists and masks: which of a camera's pixels say nothing of the specimen.

| file | what it holds | y counts |
|---|---|---|
| SerialEM's text | bad columns, rows, parts of them, pixels; the usable area, outside which all is bad | from the top |
| RELION's, MotionCor2's text | boxes "x y width height" | from the bottom, an MRC's first row |
| an MRC or TIFF | everything but 0 is a defect | as in a movie in that container |

SerialEM turns and flips a list together with the frames that it is saved with, and `RotationAndFlip` says which
orientation that is (SerialEM's help, "Frame File Options Dialog"). So a list lies as its frames do whatever that number
is, and IMOD's alignframes and clip do not look at it either. One that is off by a quarter turn is found by its size,
unless the camera is square.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats.files import reading
from coldchain.formats.image import read_values

_LARGEST_TEXT_BYTES = 16 << 20
_IMAGE_SUFFIXES = frozenset((".mrc", ".mrcs", ".tif", ".tiff", ".map", ".st"))
_KEYS = frozenset(
    (
        *("CameraSizeX", "CameraSizeY", "WasScaled", "UsableArea"),
        *("BadColumns", "BadRows", "PartialBadColumn", "PartialBadRow", "BadPixels"),
    )
)
_SCALES = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class _Box:
    """A rectangle of bad pixels: its first column and row, and how many of each."""

    x: int
    y: int
    width: int
    height: int


def read_defects(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels of a frame of `shape` (rows, columns) are defects, as (row, column) booleans.

    A SerialEM list may be for a camera of 1, 2 or 4 times, or ½ or ¼ of the frame's size: a bad pixel becomes a block
    of pixels, or a block with a bad pixel one bad pixel.

    Raises FormatError where a mask or a SerialEM list is for another shape (both are named), where a defect lies
    outside the frame or where the text makes no sense; IncompleteFileError where a mask is cut; StorageError where the
    file cannot be read.
    """
    if path.suffix.lower() in _IMAGE_SUFFIXES:
        return _mask(path, shape)
    lines = _lines(path)
    if any(words[0].startswith(("CameraSize", "Bad", "PartialBad")) for words in lines):
        return _serialem(lines, shape, path)
    return _marked(shape, _boxes(lines, path), path)


def _mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = read_values(path) != 0
    if mask.shape != shape:
        raise FormatError(
            f"the defect mask has {mask.shape[1]} × {mask.shape[0]} pixels",
            expected=f"{shape[1]} × {shape[0]}, as the movie",
            remedy="Give the mask that belongs to the movie",
            path=path,
        )
    return mask


def _lines(path: Path) -> list[list[str]]:
    """The words of each line that is neither empty nor a comment."""
    with reading(path) as stream:
        data = stream.read(_LARGEST_TEXT_BYTES + 1)
    if len(data) > _LARGEST_TEXT_BYTES:
        raise FormatError(
            f"the defect list is longer than {_LARGEST_TEXT_BYTES:,} bytes", expected="a short text", path=path
        )
    lines = [line.split() for line in data.decode("utf-8", errors="replace").splitlines()]
    return [words for words in lines if words and not words[0].startswith("#")]


def _numbers(words: Sequence[str], path: Path) -> list[int]:
    try:
        return [int(word) for word in words]
    except ValueError as failure:
        raise FormatError(
            f"the defect list says {' '.join(words)[:60]!r}",
            expected="whole numbers",
            remedy="Give SerialEM's defect list, or lines of x y width height",
            path=path,
        ) from failure


def _boxes(lines: Sequence[Sequence[str]], path: Path) -> Iterator[_Box]:
    for words in lines:
        numbers = _numbers(words, path)
        if len(numbers) != 4:
            raise FormatError(
                f"a line of {len(numbers)} numbers",
                expected="x y width height",
                remedy="Give SerialEM's defect list, or lines of x y width height",
                path=path,
            )
        yield _Box(*numbers)


def _marked(shape: tuple[int, int], boxes: Iterator[_Box], path: Path) -> NDArray[np.bool_]:
    rows, columns = shape
    defects = np.zeros(shape, dtype=np.bool_)
    for box in boxes:
        inside = box.x >= 0 and box.y >= 0 and box.x + box.width <= columns and box.y + box.height <= rows
        if not inside or box.width < 1 or box.height < 1:
            raise FormatError(
                f"a defect of {box.width} × {box.height} pixels at column {box.x}, row {box.y}",
                expected=f"one inside {columns} × {rows} pixels",
                remedy="Give the defects that belong to the movie",
                path=path,
            )
        defects[box.y : box.y + box.height, box.x : box.x + box.width] = True
    return defects


def _serialem(lines: Sequence[Sequence[str]], shape: tuple[int, int], path: Path) -> NDArray[np.bool_]:
    values: dict[str, list[list[int]]] = {}
    for key, *words in lines:
        if key in _KEYS:
            values.setdefault(key, []).append(_numbers(words, path))
    width, height = _only(values, "CameraSizeX", path), _only(values, "CameraSizeY", path)
    if not any(_scaled((height, width), up, down) == shape for up in _SCALES for down in _SCALES if 1 in (up, down)):
        raise FormatError(
            f"the defect list is for a camera of {width} × {height} pixels",
            expected=f"one of {shape[1]} × {shape[0]}, as the movie, or a half, a quarter, two or four times of it",
            remedy="Give the defects that belong to the movie",
            path=path,
        )
    top_first = _marked((height, width), _serialem_boxes(values, width, height, path), path)
    camera = top_first[::-1]
    if height >= shape[0]:
        factor = height // shape[0]
        return np.ascontiguousarray(camera.reshape(shape[0], factor, shape[1], factor).any(axis=(1, 3)))
    factor = shape[0] // height
    return np.ascontiguousarray(camera.repeat(factor, axis=0).repeat(factor, axis=1))


def _scaled(size: tuple[int, int], up: int, down: int) -> tuple[int, int] | None:
    """The size times up / down; None where it cannot be a camera's or does not come out even."""
    rows, columns = size
    if rows < 1 or columns < 1 or rows % down or columns % down:
        return None
    return rows * up // down, columns * up // down


def _only(values: Mapping[str, list[list[int]]], key: str, path: Path) -> int:
    numbers = values.get(key, [[]])[0]
    if not numbers:
        raise FormatError(
            f"the defect list has no {key}", expected="the camera's size", remedy="Export it from SerialEM", path=path
        )
    return numbers[0]


def _serialem_boxes(values: Mapping[str, list[list[int]]], width: int, height: int, path: Path) -> Iterator[_Box]:
    """The defects, y from the picture's top (IMOD's CorrectDefects.cpp)."""
    scaled = values.get("WasScaled", [[0]])[0]
    pixel = {0: 1, 1: 2}.get(max(scaled[0], 0), 4) if scaled else 1
    yield from _unusable(values.get("UsableArea", []), width, height)
    yield from (_Box(column, 0, 1, height) for line in values.get("BadColumns", []) for column in line)
    yield from (_Box(0, row, width, 1) for line in values.get("BadRows", []) for row in line)
    for column, number, first, last in _groups(values, "PartialBadColumn", 4, path):
        yield _Box(column, first, number, last - first + 1)
    for row, number, first, last in _groups(values, "PartialBadRow", 4, path):
        yield _Box(first, row, last - first + 1, number)
    for x, y in _groups(values, "BadPixels", 2, path):
        yield _Box(x, y, pixel, pixel)


def _unusable(areas: Sequence[Sequence[int]], width: int, height: int) -> Iterator[_Box]:
    """What lies outside the usable area, given as its first row and column and its last; 0 is no bound."""
    for area in areas:
        top, left, bottom, right = (*area, 0, 0, 0, 0)[:4]
        edges = (
            _Box(0, 0, width, min(top, height)),
            _Box(0, 0, min(left, width), height),
            _Box(0, bottom + 1, width, height - 1 - bottom if bottom > 0 else 0),
            _Box(right + 1, 0, width - 1 - right if right > 0 else 0, height),
        )
        yield from (edge for edge in edges if edge.width > 0 and edge.height > 0)


def _groups(values: Mapping[str, list[list[int]]], key: str, size: int, path: Path) -> Iterator[list[int]]:
    """The numbers after a key, in groups: one group of four a line, or any number of pairs."""
    for line in values.get(key, []):
        if len(line) % size or not line or (size == 4 and len(line) != size):
            raise FormatError(
                f"a {key} line has {len(line)} numbers",
                expected="4" if size == 4 else "pairs of x and y",
                remedy="Export the defect list from SerialEM again",
                path=path,
            )
        yield from (line[start : start + size] for start in range(0, len(line), size))

"""Gain references and defects: what turns a camera's counts into electrons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError
from coldchain.formats.container import Container, container_of
from coldchain.formats.files import reading
from coldchain.formats.image import read_values

_LARGEST_TEXT_BYTES = 16 << 20
_IMAGE_SUFFIXES = frozenset((".mrc", ".mrcs", ".tif", ".tiff", ".map", ".st"))
_SERIALEM_TURNS = ("RotationAndFlip", "RotationFlip")
_SERIALEM_SETTINGS = frozenset(("CameraSizeX", "CameraSizeY", "WasScaled", *_SERIALEM_TURNS))
_SERIALEM_KEYS = frozenset(("BadColumns", "BadRows", "PartialBadColumn", "PartialBadRow", "BadPixels"))


def read_gain(path: Path) -> NDArray[np.float32]:
    """A gain reference as (row, column), float32: what each pixel is multiplied by; 0 is a defect pixel.

    MRC and TIFF references are multiplicative and taken as they are, rows as `read_image` gives them. Falcon's EER
    reference, a TIFF named `.gain`, is the inverse: what comes back is its mean over its value, and its rows are not
    reversed, since those of an EER movie are not (RELION's renderEER.h). Raises FormatError where a value is negative
    or no number, where all are 0, and for DigitalMicrograph files, with what to do; otherwise as `read_image`.
    """
    gain = read_values(path)
    _refuse_impossible(gain, path)
    if path.suffix.lower() != ".gain" or container_of(path) is not Container.TIFF:
        return gain
    inverse = np.zeros_like(gain)
    np.divide(gain.mean(dtype=np.float64), gain, out=inverse, where=gain > 0, casting="same_kind")
    return np.ascontiguousarray(inverse[::-1])


def _refuse_impossible(gain: NDArray[np.float32], path: Path) -> None:
    wrong = gain.size - np.count_nonzero(np.isfinite(gain) & (gain >= 0))
    if wrong:
        raise FormatError(
            f"{wrong:,} of {gain.size:,} values of the gain reference are negative or no numbers",
            expected="0 (a defect) or more",
            remedy="Give the gain reference that belongs to the camera, or leave it out",
            path=path,
        )
    if not gain.any():
        raise FormatError(
            "all values of the gain reference are 0",
            expected="about 1",
            remedy="Give the gain reference that belongs to the camera, or leave it out",
            path=path,
        )


def read_defects(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels of a frame of `shape` (rows, columns) are defects, as (row, column) booleans.

    Read are SerialEM's defect lists (whose y runs down from the picture's top, so it is reversed here as IMOD does;
    for frames of two or four times the camera's size each pixel becomes a block), RELION's and MotionCor2's text of
    boxes "x y width height" from the first stored pixel, and MRC or TIFF masks, in which all but 0 is a defect. Raises
    FormatError where a defect lies outside the frame, where SerialEM's list is for a turned or flipped camera, or where
    the text makes no sense; StorageError where the file cannot be read.
    """
    if path.suffix.lower() in _IMAGE_SUFFIXES:
        return _mask(path, shape)
    with reading(path) as stream:
        data = stream.read(_LARGEST_TEXT_BYTES + 1)
    if len(data) > _LARGEST_TEXT_BYTES:
        raise FormatError(
            f"the defect list is longer than {_LARGEST_TEXT_BYTES:,} bytes", expected="a short text", path=path
        )
    lines = [line.split() for line in data.decode("utf-8", errors="replace").splitlines()]
    lines = [words for words in lines if words and not words[0].startswith("#")]
    if any(words[0].startswith(("CameraSize", "Bad", "PartialBad")) for words in lines):
        return _serialem(lines, shape, path)
    return _boxes(lines, shape, path)


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


def _boxes(lines: Sequence[Sequence[str]], shape: tuple[int, int], path: Path) -> NDArray[np.bool_]:
    defects = np.zeros(shape, dtype=np.bool_)
    for words in lines:
        numbers = _numbers(words, path)
        if len(numbers) != 4:
            raise FormatError(
                f"a line of {len(numbers)} numbers",
                expected="x y width height",
                remedy="Give SerialEM's defect list, or lines of x y width height",
                path=path,
            )
        x, y, width, height = numbers
        _mark(defects, (x, y, width, height), path)
    return defects


def _mark(defects: NDArray[np.bool_], box: tuple[int, int, int, int], path: Path) -> None:
    x, y, width, height = box
    rows, columns = defects.shape
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > columns or y + height > rows:
        raise FormatError(
            f"a defect of {width} × {height} pixels at column {x}, row {y}",
            expected=f"one inside {columns} × {rows} pixels",
            remedy="Give the defects that belong to the movie",
            path=path,
        )
    defects[y : y + height, x : x + width] = True


def _serialem(lines: Sequence[Sequence[str]], shape: tuple[int, int], path: Path) -> NDArray[np.bool_]:
    values: dict[str, list[list[int]]] = {}
    for key, *words in lines:
        if key in _SERIALEM_KEYS or key in _SERIALEM_SETTINGS:
            values.setdefault(key, []).append(_numbers(words, path))
    _refuse_turned(values, path)
    width, height = _only(values, "CameraSizeX", path), _only(values, "CameraSizeY", path)
    scale = shape[1] // width if width > 0 else 0
    if scale not in (1, 2, 4) or (height * scale, width * scale) != shape:
        raise FormatError(
            f"the defect list is for a camera of {width} × {height} pixels",
            expected=f"one of {shape[1]} × {shape[0]}, as the movie, or a half or a quarter of it",
            remedy="Give the defects that belong to the movie",
            path=path,
        )
    camera = np.zeros((height, width), dtype=np.bool_)
    scaled = values.get("WasScaled", [[0]])[0]
    pixel = {0: 1, 1: 2}.get(max(scaled[0], 0), 4) if scaled else 1
    for box in _serialem_boxes(values, width, height, pixel, path):
        _mark(camera, box, path)
    return np.ascontiguousarray(camera[::-1].repeat(scale, axis=0).repeat(scale, axis=1))


def _refuse_turned(values: Mapping[str, list[list[int]]], path: Path) -> None:
    """Whether the frames were turned along with such a list cannot be seen; a wrong guess would fill good pixels."""
    for key in _SERIALEM_TURNS:
        if any(number for numbers in values.get(key, []) for number in numbers):
            raise FormatError(
                f"the defect list says {key} {values[key][0][0]}",
                expected="0: a list in the orientation of the frames",
                remedy="Give the defects as a mask, an MRC or TIFF that lies as the movie does (IMOD: clip defect -D)",
                path=path,
            )


def _only(values: Mapping[str, list[list[int]]], key: str, path: Path) -> int:
    numbers = values.get(key, [[]])[0]
    if not numbers:
        raise FormatError(
            f"the defect list has no {key}", expected="the camera's size", remedy="Export it from SerialEM", path=path
        )
    return numbers[0]


def _serialem_boxes(
    values: Mapping[str, list[list[int]]], width: int, height: int, pixel: int, path: Path
) -> list[tuple[int, int, int, int]]:
    """The defects as boxes x, y, width, height, y from the picture's top (IMOD's CorrectDefects.cpp)."""
    boxes: list[tuple[int, int, int, int]] = []
    boxes += [(column, 0, 1, height) for line in values.get("BadColumns", []) for column in line]
    boxes += [(0, row, width, 1) for line in values.get("BadRows", []) for row in line]
    for key, parts in (("PartialBadColumn", 4), ("PartialBadRow", 4), ("BadPixels", 2)):
        for line in values.get(key, []):
            if len(line) % parts or not line or (parts == 4 and len(line) != parts):
                raise FormatError(
                    f"a {key} line has {len(line)} numbers",
                    expected=f"{parts}" if parts == 4 else "pairs of x and y",
                    remedy="Export the defect list from SerialEM again",
                    path=path,
                )
            if key == "PartialBadColumn":
                boxes.append((line[0], line[2], line[1], line[3] - line[2] + 1))
            elif key == "PartialBadRow":
                boxes.append((line[2], line[0], line[3] - line[2] + 1, line[1]))
            else:
                boxes += [(x, y, pixel, pixel) for x, y in zip(line[0::2], line[1::2], strict=True)]
    return boxes

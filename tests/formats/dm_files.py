"""DigitalMicrograph files for the tests: a tree of tags, as versions 3 and 4 write it, in either byte order."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

DATA_TYPES = {"int16": 1, "float32": 2, "uint8": 6, "int32": 7, "int8": 9, "uint16": 10, "uint32": 11, "float64": 12}
_TAG_TYPES = {"int16": 2, "int32": 3, "uint16": 4, "uint32": 5, "float32": 6, "float64": 7, "int8": 9, "uint8": 10}
_LETTERS = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "B", 9: "b", 10: "B", 11: "q", 12: "Q"}


@dataclass(frozen=True)
class Value:
    """A tag's description, as words, and its bytes."""

    info: tuple[int, ...]
    data: bytes


Tree: TypeAlias = "Mapping[str, Tree] | Sequence[Tree] | Value"


@dataclass(frozen=True)
class Writer:
    """`version` 3 or 4; `order` of the values, "<" or ">"."""

    version: int = 4
    order: str = "<"

    def number(self, value: float, kind: int = 5) -> Value:
        """One number."""
        return Value((kind,), struct.pack(f"{self.order}{_LETTERS[kind]}", value))

    def text(self, letters: str) -> Value:
        """A string, which is an array of two-byte letters."""
        codec = "utf-16-le" if self.order == "<" else "utf-16-be"
        return Value((20, 4, len(letters)), letters.encode(codec))

    def structure(self, kinds: Sequence[int], count: int | None = None) -> Value:
        """A structure of zeros, or an array of such."""
        fields = [word for kind in kinds for word in (0, kind)]
        size = sum(struct.calcsize(f"={_LETTERS[kind]}") for kind in kinds)
        info = (15, 0, len(kinds), *fields)
        return Value(info, bytes(size)) if count is None else Value((20, *info, count), bytes(size * count))

    def array(self, values: NDArray[Any]) -> Value:
        """A plain array."""
        stored = values.astype(values.dtype.newbyteorder(self.order))
        return Value((20, _TAG_TYPES[values.dtype.name], values.size), stored.tobytes())

    def image(self, pixels: NDArray[Any]) -> Tree:
        """The tags of an image whose array has the picture's top row first, as such files have it."""
        sides = [self.number(side) for side in pixels.shape[::-1]]
        return {
            "ImageData": {
                "Calibrations": self._calibrations(pixels.ndim),
                "Data": self.array(pixels),
                "DataType": self.number(DATA_TYPES[pixels.dtype.name]),
                "Dimensions": sides,
                "PixelDepth": self.number(pixels.dtype.itemsize),
            },
            "Name": self.text("reference"),
            "ImageTags": {"Acquisition": {"Frame": self.structure((2, 2, 7)), "Regions": self.structure((3, 6), 4)}},
        }

    def thumbnail(self, side: int = 6) -> Tree:
        """The coloured picture that most files begin with."""
        colours = self.array(np.full(side * side, 0x00FF00FF, dtype=np.int32))
        sides = [self.number(side), self.number(side)]
        calibrations = self._calibrations(2)
        tags = {"Calibrations": calibrations, "Data": colours, "DataType": self.number(23), "Dimensions": sides}
        return {"ImageData": {**tags, "PixelDepth": self.number(4)}, "Name": self.text("")}

    def _calibrations(self, sides: int) -> Tree:
        one = {"Origin": self.number(0.0, 6), "Scale": self.number(1.0, 6), "Units": self.text("nm")}
        return {"Brightness": one, "Dimension": [one] * sides, "DisplayCalibratedUnits": self.number(1, 8)}

    def document(self, images: Sequence[Tree]) -> bytes:
        """A whole file."""
        root = self._directory(
            {
                "ApplicationBounds": self.structure((3, 3, 3, 3)),
                "DocumentObjectList": [{"AnnotationType": self.number(20), "Flag": self.number(1, 8)}],
                "ImageList": list(images),
                "InImageMode": self.number(1, 8),
                "MinVersionList": [{"RequiredVersion": self.number(0x03080000)}],
                "Count": self.number(1 << 40, 11),
                "Thumbnails": [{"ImageIndex": self.number(0), "SourceSize_Pixels": self.structure((3, 3))}],
            }
        )
        wide = self.version == 4
        head = struct.pack(">I", self.version) + struct.pack(">Q" if wide else ">I", len(root))
        return head + struct.pack(">I", int(self.order == "<")) + root + bytes(8)

    def _directory(self, entries: Mapping[str, Tree] | Sequence[Tree]) -> bytes:
        items = list(entries.items()) if isinstance(entries, Mapping) else [("", entry) for entry in entries]
        return b"\1\0" + self._length(len(items)) + b"".join(self._entry(name, entry) for name, entry in items)

    def _entry(self, name: str, entry: Tree) -> bytes:
        if isinstance(entry, Value):
            kind, body = 21, b"%%%%" + self._length(len(entry.info))
            body += b"".join(self._length(word) for word in entry.info) + entry.data
        else:
            kind, body = 20, self._directory(entry)
        size = self._length(len(body)) if self.version == 4 else b""
        return struct.pack(">BH", kind, len(name)) + name.encode("latin-1") + size + body

    def _length(self, value: int) -> bytes:
        return value.to_bytes(8 if self.version == 4 else 4, "big")


def write_dm(path: Path, picture: NDArray[Any], version: int = 4, order: str = "<") -> None:
    """Write an image, (row, column) with the picture's bottom row first, after a thumbnail."""
    writer = Writer(version, order)
    path.write_bytes(writer.document([writer.thumbnail(), writer.image(picture[..., ::-1, :])]))

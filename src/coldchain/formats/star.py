"""STAR files in RELION's dialect: blocks of data that are one record each, or one table with a row a line.

(Hall, J. Chem. Inf. Comput. Sci. 1991, 31, 326, doi:10.1021/ci00002a020.) RELION's has no text over several lines, ends
a quoted word where a blank follows its quote, and finds a block by searching lines for `data_`. The `starfile` package
reads the same files, but takes pandas with it, which is most of a second of every start.

A file's bytes are a path's bytes: text is `str` from `os.fsdecode`, as every path in the house.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats.files import reading, replacing

Value = str | int | float

_LARGEST_BYTES = 32 << 20
# A word that needs no quotes, whoever reads: to shells, to CIF or as comments other characters have a meaning.
_PLAIN = re.compile(r"[\w./@:+=,~%^()-]+", re.ASCII)
_RESERVED = re.compile(r"_|data_|loop_|save_|stop_|global_", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WORD = re.compile(
    rb"""[ \t]*(?: "(?P<double>(?:[^"]|"(?![ \t]|$))*)"(?=[ \t]|$)
                 | '(?P<single>(?:[^']|'(?![ \t]|$))*)'(?=[ \t]|$)
                 | (?P<comment>\#.*)
                 | (?P<plain>[^\s"'\#][^ \t]*) )""",
    re.VERBOSE,
)
_Block = TypeVar("_Block", "Record", "Table")


@dataclass(frozen=True, slots=True)
class Record:
    """A block of single values by label, without the labels' leading underscore. Values that were read are text."""

    name: str
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Table:
    """A block of columns by label, all of one length. Values that were read are text."""

    name: str
    columns: Mapping[str, Sequence[Value]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def write_star(path: Path, blocks: Iterable[Record | Table], *, empty_too: bool = False) -> None:
    """Write blocks in one go: nobody sees half a file. A table without rows is left out, as RELION leaves it out:
    it would take the block behind an empty table for that table's first row. `empty_too`: it is written all the same,
    as the only or the last block may be.

    Raises FormatError where a number is not finite, where a text cannot stand in a STAR file (control characters, both
    kinds of quote; in a table two spaces together, which RELION reads as one) or where columns differ in length,
    StorageError where the file cannot be written.
    """
    lines = [
        line
        for block in blocks
        if isinstance(block, Record) or len(block) or empty_too
        for line in _lines_of(block, path)
    ]
    with replacing(path) as stream:
        stream.write(os.fsencode("".join(f"{line}\n" for line in lines)))


def _lines_of(block: Record | Table, path: Path) -> list[str]:
    # An empty line ends every block, the last too: RELION, having met a file's end in a table, finds no other block.
    head = ["", "# version 50001", "", f"data_{block.name}", ""]
    if isinstance(block, Record):
        width = max(map(len, block.values), default=0) + 2
        return [*head, *(f"_{label:<{width}} {_word(value, path)}" for label, value in block.values.items()), ""]
    lengths = {len(column) for column in block.columns.values()}
    if len(lengths) > 1:
        raise FormatError(f"columns of {sorted(lengths)} values in data_{block.name}", expected="one length", path=path)
    labels = [f"_{label} #{number}" for number, label in enumerate(block.columns, 1)]
    words = ([_word(value, path, in_table=True) for value in column] for column in block.columns.values())
    return [*head, "loop_", *labels, *(" ".join(row) for row in zip(*words, strict=True)), ""]


def _word(value: Value, path: Path, *, in_table: bool = False) -> str:
    if isinstance(value, str):
        return _quoted(value, path, in_table=in_table)
    if isinstance(value, int):
        return f"{value:>8d}" if in_table else str(value)
    if not math.isfinite(value):
        raise FormatError(f"the number {value}", expected="finite numbers", path=path)
    digits = f"{value:.9g}"
    digits = digits if "." in digits or "e" in digits else f"{digits}.0"
    return f"{digits:>14}" if in_table else digits


def _quoted(text: str, path: Path, *, in_table: bool) -> str:
    if _PLAIN.fullmatch(text) and not _RESERVED.match(text) and "data_" not in text:
        return text
    trouble = ""
    if _CONTROL.search(text):
        trouble = "a control character"
    elif '"' in text and "'" in text:
        trouble = "both kinds of quote"
    elif in_table and "  " in text:
        trouble = "two spaces together"
    if trouble:
        raise FormatError(
            f"{text!r} has {trouble}",
            expected="a name that a STAR file can hold",
            remedy="Rename the file or the folder that it names",
            path=path,
        )
    # Python's shell-like readers take a backslash between double quotes for more than itself.
    quote = "'" if '"' in text or ("\\" in text and "'" not in text) else '"'
    return f"{quote}{text}{quote}"


def read_star(path: Path) -> dict[str, Record | Table]:
    """The blocks by name, in their order; of blocks with one name the first, which is the one that RELION reads.

    Raises IncompleteFileError where the last row is cut, FormatError where the file is no STAR file, is larger than
    32 MiB or holds text over several lines, StorageError where it cannot be read.
    """
    with reading(path) as stream:
        data = stream.read(_LARGEST_BYTES + 1)
    if len(data) > _LARGEST_BYTES:
        raise FormatError(f"the file is larger than {_LARGEST_BYTES:,} bytes", expected="a STAR file", path=path)
    parser = _Parser(path, cut=not data.endswith(b"\n"))
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        parser.take(line.rstrip(b"\r"), number, last=number == len(lines))
    return parser.blocks()


class _Parser:
    """Takes lines one by one; what a line is depends on the block that is open."""

    def __init__(self, path: Path, *, cut: bool) -> None:
        self._path, self._cut = path, cut
        self._blocks: dict[str, Record | Table] = {}
        self._name: str | None = None
        self._values: dict[str, Value] = {}
        self._labels: list[str] | None = None  # of the open table; None outside tables
        self._rows: list[list[str]] = []

    def blocks(self) -> dict[str, Record | Table]:
        self._close()
        if not self._blocks:
            raise FormatError("no data block", expected="a STAR file", path=self._path)
        return self._blocks

    def take(self, line: bytes, number: int, *, last: bool) -> None:
        words = self._words(line, number)
        if not words:
            return
        unquoted = line.lstrip()
        if unquoted.startswith(b"data_"):
            self._close()
            self._name = words[0][5:]
        elif self._name is None:
            raise self._wrong(f"line {number} is outside every data block")
        elif words == ["loop_"] and unquoted.startswith(b"loop_"):
            if self._labels is not None or self._values:
                raise self._wrong(f"a second set of values in data_{self._name} at line {number}")
            self._labels = []
        elif self._labels is None:
            self._take_pair(words, unquoted, number, last=last)
        elif unquoted.startswith(b"_") and not self._rows:
            self._labels.append(words[0][1:])
        else:
            self._take_row(words, number, last=last)

    def _take_pair(self, words: list[str], line: bytes, number: int, *, last: bool) -> None:
        if len(words) != 2 or not line.startswith(b"_"):
            raise self._wrong(f"line {number} is no label with its value", last=last)
        self._values.setdefault(words[0][1:], words[1])

    def _take_row(self, words: list[str], number: int, *, last: bool) -> None:
        labels = self._labels or []
        if len(words) != len(labels):
            found = f"line {number} has {len(words)} values for {len(labels)} labels"
            raise self._wrong(found, last=last and len(words) < len(labels))
        self._rows.append(words)

    def _close(self) -> None:
        if self._name is not None and self._name not in self._blocks:
            if self._labels is None:
                self._blocks[self._name] = Record(self._name, self._values)
            else:
                columns: Sequence[Sequence[Value]] = list(zip(*self._rows, strict=True)) or [()] * len(self._labels)
                self._blocks[self._name] = Table(self._name, dict(zip(self._labels, columns, strict=True)))
        self._values, self._labels, self._rows = {}, None, []

    def _words(self, line: bytes, number: int) -> list[str]:
        if not any(character in line for character in b"\"'#;"):
            return [os.fsdecode(word) for word in line.split()]
        if line.startswith(b";"):
            raise self._wrong(f"text over several lines at line {number}")
        words: list[str] = []
        position, end = 0, len(line.rstrip())
        while position < end:
            found = _WORD.match(line, position)
            if found is None:
                raise self._wrong(f"line {number} has an open quote", last=self._cut)
            position = found.end()
            if found.lastgroup == "comment":
                break
            words.append(os.fsdecode(found[found.lastgroup or "plain"]))
        return words

    def _wrong(self, found: str, *, last: bool = False) -> FormatError:
        kind = IncompleteFileError if last and self._cut else FormatError
        return kind(
            found, expected="a STAR file", remedy="See which program wrote it, and write it again", path=self._path
        )


def record(blocks: Mapping[str, Record | Table], name: str, path: Path) -> Record:
    """The record of this name. Raises FormatError where it is missing or a table."""
    return _block(blocks, name, Record, path)


def table(blocks: Mapping[str, Record | Table], name: str, path: Path) -> Table:
    """The table of this name. Raises FormatError where it is missing or a record."""
    return _block(blocks, name, Table, path)


def _block(blocks: Mapping[str, Record | Table], name: str, kind: type[_Block], path: Path) -> _Block:
    found = blocks.get(name)
    if not isinstance(found, kind):
        what = "is missing" if found is None else f"is a {type(found).__name__.lower()}"
        raise FormatError(f"data_{name} {what}", expected=f"a {kind.__name__.lower()}", path=path)
    return found

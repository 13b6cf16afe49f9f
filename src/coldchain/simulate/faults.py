"""Bad input on purpose: what a camera, a disk or a person makes of a good movie."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import tifffile

from coldchain.errors import UsageError
from coldchain.formats.mrc import write_mrc

ODD_NAMES = (
    "with spaces",
    "with 'single' and \"double\" quotes",
    "Ångström-図-é",
    "a\nnewline",
    "tab\tand\x1b[31mescape",
    "<img src=x onerror=alert(1)>",
    "semicolon; $(touch x) `touch y`",
    "-rf",
    "percent%20%s",
    "undecodable-\udcff\udcfe",  # bytes FF FE: a name that is no UTF-8, as os.fsdecode gives it
)
"""Stems of file names that have broken programs. Every one is legal on a POSIX file system."""


def truncate(path: Path, *, fraction: float = 0.5) -> int:
    """Cut a file after a fraction of its bytes, as a full disk or a lost connection does; the bytes that are left."""
    size = path.stat().st_size
    kept = int(size * fraction)
    with path.open("r+b") as stream:
        stream.truncate(kept)
    return kept


def empty(path: Path) -> None:
    """Leave the name and nothing else."""
    truncate(path, fraction=0)


def flip_byte(path: Path, offset: int) -> None:
    """Invert every bit of one byte; a negative offset counts from the end."""
    with path.open("r+b") as stream:
        position = stream.seek(offset, 0 if offset >= 0 else 2)
        byte = stream.read(1)
        stream.seek(position)
        stream.write(bytes([byte[0] ^ 0xFF]))


def corrupt_strip(path: Path, *, frame: int, strip: int = 0) -> None:
    """Overwrite the middle half of one strip of a TIFF with ones; size and directories stay as they were.

    LZW's codes of all ones point beyond any table, so that the strip cannot be decoded, and nothing but decoding shows.
    """
    with tifffile.TiffFile(path) as movie:
        page = movie.pages[frame]
        offset, count = page.dataoffsets[strip], page.databytecounts[strip]
    with path.open("r+b") as stream:
        stream.seek(offset + count // 4)
        stream.write(b"\xff" * max(1, count // 2))


def write_other_gain(path: Path, shape: tuple[int, int]) -> None:
    """A good gain reference, all ones, of a shape (rows, columns) that the movies do not have."""
    write_mrc(path, np.ones(shape, dtype=np.float32), pixel_size_angstrom=1.0)


def link_out_of_tree(link: Path, target: Path) -> None:
    """A symbolic link whose target lies outside the link's folder."""
    if target.resolve().is_relative_to(link.parent.resolve()):
        raise UsageError("the target lies in the same folder", expected="one outside", path=target)
    link.symlink_to(target.resolve())


def grow(path: Path, stopping: threading.Event, *, seconds_between: float = 0.05, chunk_bytes: int = 4096) -> int:
    """Append to a file until `stopping` is set: one that never stops growing. Returns the bytes written."""
    written = 0
    with path.open("ab", buffering=0) as stream:
        while not stopping.wait(seconds_between):
            written += stream.write(b"\x01" * chunk_bytes)
    return written
